"""What rules are given and what they give back: readings and thresholds, and verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from torchact.diagnostics.readings import Reading

Family = Literal["sgd", "adaptive"]
Severity = Literal["error", "warning", "info"]
_ADAPTIVE = ("adam", "adagrad", "adadelta", "adafactor", "rmsprop", "rprop", "lion", "lamb", "muon")

AUTOTRAINER = "AUTOTRAINER, doi:10.1109/ICSE43902.2021.00043"
DEEP_CHECKER = "TheDeepChecker, arXiv:2204.00694"
DEEP_DIAGNOSIS = "DeepDiagnosis, arXiv:2112.03542"
DEBUGGER = "Amazon SageMaker Debugger, built-in rules"
MEASURED = "measured on small networks, docs/calibration.md"


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Where a measurement becomes a verdict. A ratio is a layer's ‖δ‖ divided by the last layer's, or
    by that of its heads together.

    Sources: the ratios and the fraction at ε that name none were fitted to networks that were trained to the end, and
    judged on others: docs/calibration.md. Adam's rescaling hides losses that stop SGD.
    """

    warm_up: int = 5  #: steps before vanishing is judged: the first ones may be anything
    patience: int = 3  #: readings running that must show it; TheDeepChecker waits for 5
    vanishing_ratio_sgd: float = 4e-3  #: a warning
    vanishing_ratio_sgd_error: float = 1e-3  #: an error; AUTOTRAINER's β1
    vanishing_ratio_adaptive: float = 1e-10  #: an error
    first_ratio_adaptive: float = 1e-4  #: of the first layer, a warning
    passed_ratio: float = 0.03  #: of the first layer: from here on the gradient gets past layers where it is faint
    faint_ratio_adaptive: float = 1.7e-3  #: of the faintest layer, a warning where the first one's grows less than
    first_growth_adaptive: float = 1.12  #: times within the first steps
    epsilons: float = 10.0  #: √v̂ within so many times an adaptive optimiser's ε is not rescaled any more
    at_epsilon_fraction: float = 0.7  #: of a layer's entries that have a gradient
    exploding_ratio: float = 70.0  #: AUTOTRAINER's β3
    growth: float = 2.0  #: from reading to reading, ``growth_patience`` times running; TheDeepChecker
    growth_patience: int = 5
    burst: float = 10.0  #: times the largest gradient of the first ``burst_readings`` kept; Megatron-LM's spike rule
    burst_readings: int = 100
    decay: float = 0.7  #: per layer
    first_steps: int = 10  #: how many steps the rules about a run's beginning judge, by a reading of each
    silent_from: int = 20  #: the step from which on they say nothing
    restlessness_sgd: float = 0.44  #: standard deviation of log(‖δ^1‖/‖δ^L‖) over the first steps
    restless_layers: int = 8  #: with parameters, from which on that matters
    output_ratio_sgd: float = 0.34  #: deviation of the last layer's output, at the end of the first steps over at first
    output_gradient_ratio_sgd: float = 0.5  #: ‖δ^L‖, likewise: below, the outputs shrink because the loss falls
    saturated_slope: float = 0.027  #: fraction of max |φ'|; the sigmoid's at |z| = 5, DeepDiagnosis
    saturated_fraction: float = 0.5  #: of an activation's elements; DeepDiagnosis
    dead_window: int = 1000  #: samples over which a unit must be inactive
    dead_fraction: float = 0.5  #: of a layer's units; TheDeepChecker
    variance_ratio: float = (
        10.0  #: largest over smallest variance of a layer's output; SageMaker's PoorWeightInitialization
    )
    variance_steps: int = 10  #: how long it is looked at
    update_ratio_low: float = 1e-4  #: ‖Δw‖ / ‖w‖; TheDeepChecker
    update_ratio_high: float = 1e-1
    update_patience: int = 5
    unchanged_patience: int = 3  #: readings with the very same weights; SageMaker's UnchangedTensor
    zero_fraction: float = 0.7  #: of a layer's gradient that is exactly zero; AUTOTRAINER's γ

    def vanishing_ratio(self, family: Family) -> float:
        """Return the ratio below which a layer does not learn under this family of optimisers."""
        return self.vanishing_ratio_adaptive if family == "adaptive" else self.vanishing_ratio_sgd


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One finding: what was measured, against which threshold, what it means and what would help."""

    rule: str  #: its id, such as ``"TA101"``
    title: str  #: in a word or two, such as ``"vanishing"``
    severity: Severity
    layers: tuple[str, ...]  #: in forward order; of non-finite gradients backward, the first one first
    value: float
    threshold: float
    window: int  #: how many readings it rests on
    explanation: str  #: a sentence or two
    suggestion: str
    source: str  #: where rule and threshold come from
    readings: tuple[Reading, ...] = ()  #: what led to it, where that is worth keeping: the last 20
    optimizer: str | None = None  #: whose step it judges, where the monitor has several

    def __str__(self) -> str:
        whose = f" of {self.optimizer}" if self.optimizer else ""
        return f"{self.severity} {self.rule} [{self.title}]{whose}: {self.explanation} {self.suggestion}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a rule judges: the readings of one optimiser's steps, the last of them for what holds now."""

    readings: tuple[Reading, ...]  #: oldest first, at least one
    family: Family = "sgd"  #: of the optimiser that uses the gradients
    thresholds: Thresholds = Thresholds()
    functional: tuple[str, ...] = ()  #: activations that the model calls as functions, where no hook sees them

    def beginning(self) -> tuple[Reading, ...]:
        """Return the readings of the first steps; none if one of them is missing, or the latest is long after."""
        count = self.thresholds.first_steps
        first = self.readings[:count]
        whole = [reading.step for reading in first] == list(range(count))
        return first if whole and self.latest.step < self.thresholds.silent_from else ()

    @property
    def latest(self) -> Reading:
        """The last reading."""
        return self.readings[-1]

    def running(self, count: int, warm_up: int = 0) -> tuple[Reading, ...]:
        """Return the last ``count`` readings; none if there are fewer from step ``warm_up`` on."""
        readings = [reading for reading in self.readings[-count:] if reading.step >= warm_up]
        return tuple(readings) if len(readings) == count else ()


Rule = Callable[[Evidence], Iterator[Verdict]]


def optimizer_family(optimizer: torch.optim.Optimizer | None) -> Family:
    """Return ``"adaptive"`` for optimisers that rescale each weight's gradient, such as Adam, else ``"sgd"``."""
    if optimizer is None:
        return "sgd"
    bases = [base.__name__.casefold() for base in type(optimizer).__mro__]
    return "adaptive" if any(name in base for base in bases for name in _ADAPTIVE) else "sgd"
