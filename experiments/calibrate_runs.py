"""A run of the calibration: ten steps that the monitor watches and the rules judge, then training to the end."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, get_args

import torch
from rich.console import Console
from torch import Tensor, nn

from experiments import calibrate_networks, digits
from experiments.workers import Pool
from torchact import GradientMonitor
from torchact.diagnostics import Reading, Thresholds
from torchact.diagnostics.depth import decay_per_layer, first_over_last
from torchact.diagnostics.evidence import Evidence, Rule, Severity, optimizer_family
from torchact.diagnostics.first_steps import first_growth, lasting_ratios, output_ratio, restlessness
from torchact.diagnostics.readings import LayerReading
from torchact.diagnostics.rules import RULES

WATCHED = Thresholds().first_steps  #: steps that the rules see
BATCH = 64  #: images a step
_PATIENCE = Thresholds().patience  # readings that a ratio rests on
SEVERITIES = ("", *reversed(get_args(Severity)))  #: of a rule, the worst last

Parameters = list[nn.Parameter]
#: Makes each optimiser; the fused ones take half the time.
OPTIMISERS: Mapping[str, Callable[[Parameters], torch.optim.Optimizer]] = MappingProxyType(
    {
        "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.1, fused=True),
        "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, fused=True),
        "Adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-3, fused=True),
    }
)

#: The column of each rule: named after its function, since several share an id.
RULE_NAMES: Mapping[Rule, str] = MappingProxyType({rule: f"rule_{rule.__name__}" for rule in RULES})

RUN_COLUMNS = {
    "architecture": "MLP, CNN, transformer (pre-LN, residual), bare transformer (without either), transformer from "
    "zero (whose residual branches and readout begin as zeros), regression and two heads (MLPs), RNN, LSTM or GRU",
    "activation": "catalogue key of the activation",
    "initialisation": "default (torch), xavier or he",
    "depth": "number of hidden layers, or of a transformer's blocks",
    "optimiser": "SGD (lr 0.1), momentum (SGD, lr 0.05, momentum 0.9) or Adam (lr 1e-3)",
    "family": "the family of the optimiser by which rules judge: sgd or adaptive",
    "seed": "of the initial weights and of the order of the images",
    "status": "finished, diverged at step n (loss NaN or infinite), or failed",
    "ratio": "smallest over layers of ‖δ^l‖/‖δ^L‖, L being the last layer, of each layer the largest of the last three "
    "readings: the vanishing rule fires where this is below its threshold; empty where no layer has a positive one",
    "first_to_last": "‖δ^1‖/‖δ^L‖, the largest of the last three readings",
    "decay": "factor by which ‖δ‖ changes a layer going backward, fitted to the last reading",
    "at_epsilon": "largest over layers of the fraction of entries whose √v̂ is within 10 ε, last reading; 0 of SGD",
    "saturated": "largest over activations of the fraction of inputs that are saturated, last reading",
    "dead": "largest over rectifiers of the fraction of dead units; empty: 1,000 samples are more than ten batches",
    "restlessness": "standard deviation of log(‖δ^1‖/‖δ^L‖) over the ten readings",
    "output_ratio": "deviation of the last layer's output, the largest of the last three readings over the first one's",
    "first_growth": "‖δ^1‖/‖δ^L‖, the largest of the last three readings over that of the first three",
    "variance_ratio": "largest over smallest variance of the outputs of layers with parameters but the last",
    "mean_gradient": "smallest over weights of the mean of |∂L/∂W|, tenth step",
    "first_weight_gradient": "‖∂L/∂W‖ of the first layer, tenth step",
    "weight_gradient_ratio": "that by the last layer's",
    **{
        name: f"worst severity of the rule {name[5:]} after the tenth step; empty: silent"
        for name in RULE_NAMES.values()
    },
    "accuracy": "fraction of the 1,500 training images classified correctly in the end, 0.1 being chance; of a "
    "regression the fraction of the variance that is explained, at least 0",
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """What determines a run."""

    architecture: str
    activation: str
    initialisation: str
    depth: int
    optimiser: str
    seed: int
    steps: int


def run_all(runs: Sequence[Run], workers: int, console: Console) -> tuple[list[dict[str, Any]], bool]:
    """Do all runs, one thread each.

    Args:
        runs: what to run.
        workers: how many processes; 1 runs everything in this one. The numbers do not depend on it.
        console: where the progress bar is drawn.

    Returns:
        Their rows in the order of the runs, and whether Ctrl-C cut it short.
    """
    return Pool(attempt, _failed, cost=lambda run: run.depth).run(runs, workers, console)


def attempt(run: Run) -> dict[str, Any]:
    """Return the run's row; of one that fails, what happened."""
    try:
        return _row(run, train(run))
    except Exception as error:
        return _failed(run, error)


def _failed(run: Run, error: Exception) -> dict[str, Any]:
    return _row(run, {"status": f"failed: {type(error).__name__}: {error}"})


def _row(run: Run, measured: dict[str, Any]) -> dict[str, Any]:
    settings = {name: value for name, value in vars(run).items() if name != "steps"}
    return dict.fromkeys(RUN_COLUMNS) | settings | measured


def train(run: Run) -> dict[str, Any]:
    """Train a network; return how it began, as the monitor saw it and the rules judged it, and how it ended."""
    data = digits.load()
    model = calibrate_networks.build(run.architecture, run.activation, run.initialisation, run.depth, run.seed)
    optimiser = OPTIMISERS[run.optimiser](list(model.parameters()))
    order = torch.Generator().manual_seed(run.seed)
    batches = (torch.randint(len(data.train_images), (BATCH,), generator=order) for _ in itertools.count())
    family = optimizer_family(optimiser)
    task = calibrate_networks.ARCHITECTURES[run.architecture].task
    row: dict[str, Any] = {"family": family, "status": "finished"}

    def step(batch: Tensor) -> float:
        images, classes = data.train_images[batch], data.train_classes[batch]
        loss = task.loss(model(images), images, classes)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item()

    with GradientMonitor(model, optimiser, every=1, updates=True) as monitor:
        for _ in range(min(WATCHED, run.steps)):
            step(next(batches))
        row |= quantities(tuple(monitor.history)) | _of_weights(model)
        row |= severities(Evidence(readings=tuple(monitor.history), family=family))
    for number in range(WATCHED, run.steps):
        if not math.isfinite(step(next(batches))):
            row["status"] = f"diverged at step {number}"
            break
    with torch.no_grad():
        return row | {"accuracy": task.score(model(data.train_images), data.train_classes)}


def severities(evidence: Evidence) -> dict[str, str]:
    """Return the worst severity of each rule, by its column; empty where it says nothing."""
    found = {name: [verdict.severity for verdict in rule(evidence)] for rule, name in RULE_NAMES.items()}
    return {name: max(given, key=SEVERITIES.index, default="") for name, given in found.items()}


def quantities(readings: Sequence[Reading]) -> dict[str, float]:
    """Return the quantities that the rules judge, by their columns."""
    last = readings[-1]
    variances = [
        layer.output.deviation**2
        for layer in last.learning_layers[:-1]
        if layer.activation is None and layer.output.deviation > 0
    ]
    dead = [layer.dead_fraction for layer in last.layers if layer.dead_fraction is not None]
    return {
        "ratio": min(lasting_ratios(readings, _PATIENCE).values(), default=math.nan),
        "first_to_last": max(first_over_last(reading) for reading in readings[-_PATIENCE:]),
        "decay": decay_per_layer(last),
        "at_epsilon": max(map(_at_epsilon, last.layers), default=0.0),
        "saturated": max((layer.saturated_fraction or 0.0 for layer in last.layers), default=0.0),
        "dead": max(dead, default=math.nan),
        "restlessness": restlessness(readings),
        "output_ratio": output_ratio(readings, _PATIENCE),
        "first_growth": first_growth(readings, _PATIENCE),
        "variance_ratio": max(variances) / min(variances) if len(variances) > 1 else math.nan,
    }


def _at_epsilon(layer: LayerReading) -> float:
    """Return the fraction of all the layer's entries that an adaptive optimiser no longer rescales."""
    known = [parameter for parameter in layer.parameters.values() if parameter.gradient.largest > 0]
    entries = sum(parameter.gradient.count for parameter in known)
    return sum((parameter.at_epsilon or 0.0) * parameter.gradient.count for parameter in known) / max(entries, 1)


def _of_weights(model: nn.Module) -> dict[str, float]:
    """Return what the comparison lines judge: the weights' gradients, biases and normalisation layers left out."""
    gradients = [p.grad.double() for p in model.parameters() if p.grad is not None and p.grad.dim() > 1]
    first, last = gradients[0].norm().item(), gradients[-1].norm().item()
    return {
        "mean_gradient": min(gradient.abs().mean().item() for gradient in gradients),
        "first_weight_gradient": first,
        "weight_gradient_ratio": first / last if last else math.nan,
    }
