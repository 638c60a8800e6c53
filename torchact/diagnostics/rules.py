"""Pure functions from what was measured to verdicts. The thresholds stand in one frozen dataclass.

Layers are judged by δ = ∂L/∂output and not by ∂L/∂W: in ReLU networks without biases ⟨W, ∂L/∂W⟩ is the same in every
layer, so that ‖∂L/∂W‖ looks flat while δ fades by many orders of magnitude.
"""

from __future__ import annotations

import math
import statistics as descriptive
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from torchact import catalogue
from torchact.diagnostics.statistics import LayerReading, Reading

Family = Literal["sgd", "adaptive"]
_ADAPTIVE = ("adam", "adagrad", "adadelta", "adafactor", "rmsprop", "rprop", "lion", "lamb", "muon")
_RECTIFIERS = {
    *("relu", "relu6", "leaky_relu", "prelu", "rrelu", "threshold"),
    *("gelu", "gelu_tanh", "quick_gelu", "silu", "swish", "mish", "hardswish"),
}
_FLOAT32_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Where a measurement becomes a verdict. A ratio is a layer's ‖δ‖ divided by the last layer's.

    Sources: the two vanishing ratios were calibrated on 48 small networks: below 1e-2 a network did not learn under SGD
    (precision 1.00, recall 0.90), and below 1e-10 it did not under Adam (1.00, 0.83), whose rescaling hides smaller
    losses.
    """

    vanishing_ratio_sgd: float = 1e-2
    vanishing_ratio_adaptive: float = 1e-10
    exploding_ratio: float = 70.0  #: AUTOTRAINER's β3, doi:10.1109/ICSE43902.2021.00043
    saturated_slope: float = 0.027  #: fraction of max |φ'|; the sigmoid's at |z| = 5, DeepDiagnosis, arXiv:2112.03542
    saturated_fraction: float = 0.5  #: of an activation's elements; DeepDiagnosis

    def vanishing_ratio(self, family: Family) -> float:
        """Return the ratio below which a layer does not learn under this family of optimisers."""
        return self.vanishing_ratio_adaptive if family == "adaptive" else self.vanishing_ratio_sgd


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One finding: what was measured, against which threshold, what it means and what would help."""

    rule: str
    severity: Literal["error", "warning"]
    layers: tuple[str, ...]
    value: float
    threshold: float
    explanation: str
    suggestion: str

    def __str__(self) -> str:
        return f"{self.severity} [{self.rule}]: {self.explanation} {self.suggestion}"


def optimizer_family(optimizer: torch.optim.Optimizer | None) -> Family:
    """Return ``"adaptive"`` for optimisers that rescale each weight's gradient, such as Adam, else ``"sgd"``."""
    if optimizer is None:
        return "sgd"
    bases = [base.__name__.casefold() for base in type(optimizer).__mro__]
    return "adaptive" if any(name in base for base in bases for name in _ADAPTIVE) else "sgd"


def decay_per_layer(reading: Reading) -> float:
    """Return the factor by which ‖δ‖ changes from one layer to the one before it, going backward.

    It is exp of the slope of a least-squares line through log‖δ‖ against depth, over the layers with parameters whose
    outputs have the commonest shape (others differ for that reason alone), or over all of them where no shape repeats.
    An activation that learns its own parameter is no layer of its own.
    Below 1 gradients vanish, above 1 they explode. NaN with fewer than two layers whose gradient is positive and
    finite.
    """
    candidates = [layer for layer in reading.learning_layers if layer.activation is None]
    layers = [entry for entry in enumerate(candidates) if 0 < entry[1].gradient.norm < math.inf]
    shapes = Counter(layer.shape for _, layer in layers)
    commonest, count = shapes.most_common(1)[0] if shapes else ((), 0)
    if count > 1:
        layers = [(position, layer) for position, layer in layers if layer.shape == commonest]
    if len(layers) < 2:
        return math.nan
    positions = [position for position, _ in layers]
    heights = [math.log(layer.gradient.norm) for _, layer in layers]
    return math.exp(-descriptive.linear_regression(positions, heights).slope)


def judge(reading: Reading, family: Family = "sgd", thresholds: Thresholds | None = None) -> tuple[Verdict, ...]:
    """Apply every rule to one reading.

    Args:
        reading: what one step showed.
        family: of the optimiser that will use the gradients.
        thresholds: other thresholds than the default ones.
    """
    thresholds = thresholds or Thresholds()
    return tuple(verdict for rule in RULES for verdict in rule(reading, family, thresholds))


def non_finite(reading: Reading, family: Family, thresholds: Thresholds) -> Iterator[Verdict]:
    """Report NaN and infinity: the first output forward that has any, else the first δ backward."""
    forward = [layer for layer in reading.layers if layer.output.non_finite]
    backward = [layer for layer in reversed(reading.layers) if layer.gradient.non_finite]
    for where, layers in (("output", forward), ("gradient", backward)):
        if layers:
            first = layers[0]
            count = first.output.non_finite if where == "output" else first.gradient.non_finite
            yield Verdict(
                rule="non-finite",
                severity="error",
                layers=tuple(layer.name for layer in layers),
                value=count,
                threshold=0.0,
                explanation=f"The {where} of {first.name} has {count:.0f} NaN or infinite values, first of all.",
                suggestion="Lower the learning rate, clip gradients, or look at that layer's input.",
            )
            return


def zero_gradient(reading: Reading, family: Family, thresholds: Thresholds) -> Iterator[Verdict]:
    """Report layers whose δ is exactly zero, and say which kind of zero it is."""
    layers = reading.learning_layers
    zero = [layer for layer in layers if layer.gradient.largest == 0]
    if zero:
        explanation, suggestion = _kind_of_zero(reading, zero[-1])
        yield Verdict(
            rule="zero-gradient",
            severity="error",
            layers=tuple(layer.name for layer in zero),
            value=0.0,
            threshold=0.0,
            explanation=f"{_these(zero, layers)} not learn: the gradient there is exactly zero. {explanation}",
            suggestion=suggestion,
        )


def _kind_of_zero(reading: Reading, last_zero: LayerReading) -> tuple[str, str]:
    """Tell a structural zero from dead units and from underflow, by what lies behind the last layer that has it."""
    behind = [layer for layer in reading.layers if layer.index > last_zero.index]
    activation = next((layer for layer in behind if layer.activation), None)
    record = _record(activation) if activation else None
    if activation and record and activation.gradient.largest > 0 and _all_flat(activation, record):
        if record.max_derivative() == 0:
            return (
                f"It is a structural zero: the derivative of {activation.kind} ({activation.name}) is zero everywhere.",
                "Choose a surrogate derivative, or an activation that has one.",
            )
        if _passes_far_inputs_only(record):
            return (
                f"All units of {activation.kind} ({activation.name}) shrink their inputs to nothing.",
                "Use larger initial weights, or let the activation shrink less.",
            )
        return (
            f"All units of {activation.kind} ({activation.name}) are dead or saturated.",
            "Lower the learning rate or the initial biases, or take an activation with two live sides.",
        )
    smallest = min((layer.gradient.norm for layer in behind if layer.gradient.norm > 0), default=math.inf)
    if smallest < _FLOAT32_TINY * 1e3:
        return (
            f"It has underflowed: behind it, the gradient is {smallest:.1e}.",
            "Use another activation or initialisation.",
        )
    return "Nothing behind it passes a gradient back.", "Look for a detached or unused branch."


def _all_flat(layer: LayerReading, activation: catalogue.Activation) -> bool:
    """Whether no input has a derivative to speak of; of a gated unit, whether every gate is shut."""
    if activation.kind == "gated":
        return layer.output.zero_fraction == 1.0
    return layer.saturated_fraction == 1.0


def vanishing(reading: Reading, family: Family, thresholds: Thresholds) -> Iterator[Verdict]:
    """Report layers whose ‖δ‖ is a small fraction of the last layer's."""
    layers = reading.learning_layers
    if not layers:
        return
    last = layers[-1].gradient.norm
    threshold = thresholds.vanishing_ratio(family)
    faded = [layer for layer in layers if 0 < layer.gradient.norm < threshold * last]
    if faded:
        decay = decay_per_layer(reading)
        ratio = min(layer.gradient.norm for layer in faded) / last
        yield Verdict(
            rule="vanishing",
            severity="error",
            layers=tuple(layer.name for layer in faded),
            value=ratio,
            threshold=threshold,
            explanation=f"{_these(faded, layers)} not learn: the gradient there is down to {ratio:.1e} of the last"
            f" layer's and changes by a factor of {decay:.2g} a layer going backward.",
            suggestion=_cure(reading),
        )


def exploding(reading: Reading, family: Family, thresholds: Thresholds) -> Iterator[Verdict]:
    """Report layers whose ‖δ‖ is a large multiple of the last layer's."""
    layers = reading.learning_layers
    if not layers:
        return
    last = layers[-1].gradient.norm
    grown = [layer for layer in layers if thresholds.exploding_ratio * last < layer.gradient.norm < math.inf]
    if grown and last > 0:
        ratio = max(layer.gradient.norm for layer in grown) / last
        yield Verdict(
            rule="exploding",
            severity="warning",
            layers=tuple(layer.name for layer in grown),
            value=ratio,
            threshold=thresholds.exploding_ratio,
            explanation=f"Gradients explode: they are up to {ratio:.1e} times the last layer's and change by a factor"
            f" of {decay_per_layer(reading):.2g} a layer going backward.",
            suggestion="Use smaller initial weights, normalisation layers or gradient clipping.",
        )


def saturation(reading: Reading, family: Family, thresholds: Thresholds) -> Iterator[Verdict]:
    """Report activations most of whose inputs lie where they have levelled off, the derivative being nearly zero."""
    for layer in reading.layers:
        fraction = layer.saturated_fraction or 0.0
        if fraction > thresholds.saturated_fraction and _levels_off(_record(layer), thresholds.saturated_slope):
            yield Verdict(
                rule="saturation",
                severity="warning",
                layers=(layer.name,),
                value=fraction,
                threshold=thresholds.saturated_fraction,
                explanation=f"{fraction:.0%} of the inputs of {layer.kind} ({layer.name}) lie where its"
                f" derivative is below {thresholds.saturated_slope:.1%} of its maximum.",
                suggestion="Use smaller initial weights, or normalise the layer's input.",
            )


def _record(layer: LayerReading) -> catalogue.Activation | None:
    """Return what is known of an activation; of a definition that was taken back, nothing is."""
    return catalogue.CATALOGUE.get(layer.activation) if layer.activation else None


def _levels_off(activation: catalogue.Activation | None, saturated_slope: float) -> bool:
    """Whether an activation has a level to saturate at, away from 0.

    One that is unbounded on both sides has none. A rectifier has one, but half the inputs are there by design: it is
    flat right beside 0.
    """
    if activation is None or not activation.elementwise:
        return activation is not None
    slopes = activation.derivative(torch.tensor([-0.5, 0.5], dtype=torch.float64, device="cpu")).abs()
    bounded = any(map(math.isfinite, activation.range))
    return bounded and bool((slopes > saturated_slope * activation.max_derivative()).all())


def _passes_far_inputs_only(activation: catalogue.Activation) -> bool:
    """Whether φ' is 0 at 0 and large far from it on either side, as of the shrinkages."""
    if not activation.elementwise:
        return False
    places = torch.tensor([-16.0, 0.0, 16.0], dtype=torch.float64, device="cpu")
    left, centre, right = activation.derivative(places).abs().tolist()
    return centre == 0 and min(left, right) > activation.max_derivative() / 2


RULES: tuple[Callable[[Reading, Family, Thresholds], Iterator[Verdict]], ...] = (
    non_finite,
    zero_gradient,
    vanishing,
    exploding,
    saturation,
)


def _these(some: list[LayerReading], layers: tuple[LayerReading, ...]) -> str:
    """Name layers in the beginning of a sentence that goes on with "not": "Layers a … c (3 of 5) do"."""
    if len(some) == 1:
        return f"Layer {some[0].name} (1 of {len(layers)}) does"
    return f"Layers {some[0].name} … {some[-1].name} ({len(some)} of {len(layers)}) do"


def _cure(reading: Reading) -> str:
    keys = {layer.activation for layer in reading.layers if layer.activation}
    if keys & {"sigmoid", "hardsigmoid", "softmax", "softmin"}:
        return (
            "Replace the sigmoid-like activations by ReLU with He initialisation, or tanh with Xavier initialisation."
        )
    if keys & _RECTIFIERS:
        return "Use He initialisation (σ_w² = 2), or normalisation layers."
    if keys & {"tanh", "hardtanh", "softsign", "selu"}:
        return "Use Xavier initialisation (σ_w² = 1), or normalisation layers."
    return "Use an initialisation that keeps the gradient's size, or normalisation layers."
