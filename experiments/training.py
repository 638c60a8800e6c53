"""One training run on the digits, watched by a GradientMonitor: what passed through each layer, and what came of it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from experiments import digits, network
from torchact import GradientMonitor, initialisations
from torchact.diagnostics import Reading, Thresholds

#: The columns that tell the runs of a sweep apart, in every table.
KEY_COLUMNS = {
    "activation": "catalogue key of the activation",
    "initialisation": "default (torch), xavier, he or orthogonal",
    "depth": "number of hidden layers",
    "seed": "of the initial weights, of the order of the images and of random slopes",
}

#: The columns of the rows in ``RunResult.layers``, beside those that tell runs apart.
LAYER_COLUMNS = {
    "step": "optimiser steps done before this measurement; 0 is initialisation",
    "layer": "position of the linear layer, from 1; depth + 1 is the readout",
    "preactivation_gradient_norm": "‖δ‖, δ = ∂L/∂z of the layer's output z: Euclidean norm over the batch; loss units "
    "per unit of z, L being the mean cross-entropy in nats",
    "weight_gradient_norm": "‖∂L/∂W‖ of the batch's mean loss, Euclidean norm; loss units per unit of weight",
    "bias_gradient_norm": "‖∂L/∂b‖ of the batch's mean loss, Euclidean norm; loss units per unit of bias",
    "preactivation_mean": "mean of z over batch and units",
    "preactivation_deviation": "standard deviation of z over batch and units",
    "activation_mean": "mean of the activation's output; empty for the readout",
    "activation_deviation": "standard deviation of the activation's output; empty for the readout",
    "zero_fraction": "fraction of the activation's outputs that are exactly 0; empty for the readout",
    "saturated_fraction": f"fraction of z where |φ'(z)| is at most {Thresholds().saturated_slope:.1%} of its maximum; "
    "empty for the readout",
}

#: The columns of the rows in ``RunResult.curve``, likewise.
CURVE_COLUMNS = {
    "step": "optimiser steps done",
    "train_loss": "mean cross-entropy of the batch that the next step uses, in nats; ln 10 = 2.303 is chance",
    "test_accuracy": "fraction of the 297 test images classified correctly; 0.1 is chance",
}


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What determines a run: the same settings give the same numbers on the same machine and torch version.

    Raises:
        ValueError: a name is unknown, or a number out of range.
    """

    activation: str
    initialisation: str
    depth: int  #: hidden layers
    seed: int  #: of the initial weights, of the order of the images and of random slopes
    width: int = 100  #: units in each hidden layer
    steps: int = 400  #: of plain stochastic gradient descent
    batch_size: int = 64  #: images a step
    learning_rate: float = 0.03
    every: int = 50  #: steps between measurements

    def __post_init__(self) -> None:
        object.__setattr__(self, "activation", network.hidden_activation(self.activation))
        object.__setattr__(self, "initialisation", initialisations.get(self.initialisation).key)
        for name in ("depth", "width", "steps", "batch_size", "every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected a whole number of at least 1, got {getattr(self, name)}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate: expected a positive finite number, got {self.learning_rate}")

    @property
    def name(self) -> str:
        """A short name, unique within a sweep."""
        return f"{self.activation}-{self.initialisation}-depth{self.depth:02d}-seed{self.seed}"

    @property
    def key(self) -> dict[str, Any]:
        """The settings that tell the runs of a sweep apart."""
        return {name: getattr(self, name) for name in KEY_COLUMNS}


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run showed. Rows are dictionaries with the columns described above."""

    settings: RunSettings
    status: str  #: "finished", or "diverged at step n" when the loss became NaN or infinite
    layers: list[dict[str, Any]] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)


def train(settings: RunSettings, log_dir: Path | None = None) -> RunResult:
    """Train one network and measure its gradients at initialisation and every ``settings.every`` steps.

    A loss that becomes NaN or infinite ends the run; what was measured until then is kept.

    Args:
        settings: what to train.
        log_dir: TensorBoard run folder; None writes nothing.
    """
    data = digits.load()
    model = network.build(settings.activation, settings.initialisation, settings.depth, settings.width, settings.seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=settings.learning_rate)
    order = torch.Generator().manual_seed(settings.seed)
    curve: list[dict[str, Any]] = []
    status = "finished"
    measurements = settings.steps // settings.every + 2
    with (
        _seeded(settings.seed),
        GradientMonitor(model, optimizer, log_dir, every=settings.every, first=0, keep=measurements) as monitor,
    ):
        for step in range(settings.steps + 1):
            batch = torch.randint(len(data.train_images), (settings.batch_size,), generator=order)
            loss = nn.functional.cross_entropy(model(data.train_images[batch]), data.train_classes[batch])
            diverged = not math.isfinite(loss.item())
            if step % settings.every == 0 or step == settings.steps or diverged:
                curve.append(_curve_row(step, loss.item(), model, data))
            if diverged:
                status = f"diverged at step {step}"
                break
            optimizer.zero_grad()
            loss.backward()
            if step == settings.steps:
                monitor.record()  # the last measurement, after the last step
            else:
                optimizer.step()
        result = RunResult(
            settings=settings,
            status=status,
            layers=[settings.key | row for reading in monitor.history for row in _layer_rows(reading, settings)],
            curve=[settings.key | row for row in curve],
        )
        if monitor.writer is not None:
            _write_outcome(monitor.writer, result)
    return result


def layer_table(results: Sequence[RunResult]) -> pd.DataFrame:
    """Return the rows of all runs' layers as one table."""
    rows = [row for result in results for row in result.layers]
    return pd.DataFrame(rows, columns=list(KEY_COLUMNS | LAYER_COLUMNS))


def curve_table(results: Sequence[RunResult]) -> pd.DataFrame:
    """Return the rows of all runs' learning curves as one table."""
    rows = [row for result in results for row in result.curve]
    return pd.DataFrame(rows, columns=list(KEY_COLUMNS | CURVE_COLUMNS))


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator of the CPU, which random slopes come from, and put it back afterwards.

    With the seed itself it would repeat the numbers that the weights were drawn from.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed + 2**31)
        yield


def _curve_row(step: int, loss: float, model: nn.Module, data: digits.Digits) -> dict[str, Any]:
    model.eval()
    with torch.no_grad():
        right = model(data.test_images).argmax(dim=1) == data.test_classes
    model.train()
    return {"step": step, "train_loss": loss, "test_accuracy": right.double().mean().item()}


def _layer_rows(reading: Reading, settings: RunSettings) -> list[dict[str, Any]]:
    layers = {layer.name: layer for layer in reading.layers}
    rows = []
    for position in range(1, settings.depth + 2):
        linear = layers[network.linear_name(position)]
        activation = layers.get(network.activation_name(position))
        rows.append(
            {
                "step": reading.step,
                "layer": position,
                "preactivation_gradient_norm": linear.gradient.norm,
                "weight_gradient_norm": linear.parameter_gradients["weight"].norm,
                "bias_gradient_norm": linear.parameter_gradients["bias"].norm,
                "preactivation_mean": linear.output.mean,
                "preactivation_deviation": linear.output.deviation,
                "activation_mean": activation.output.mean if activation else None,
                "activation_deviation": activation.output.deviation if activation else None,
                "zero_fraction": activation.output.zero_fraction if activation else None,
                "saturated_fraction": activation.saturated_fraction if activation else None,
            }
        )
    return rows


def _write_outcome(writer: Any, result: RunResult) -> None:
    """Write loss and accuracy curves, and the hyperparameters with the accuracy that they led to."""
    from torch.utils.tensorboard.summary import hparams  # slow to import, and not every run writes

    for row in result.curve:
        for tag in ("train_loss", "test_accuracy"):
            writer.add_scalar(f"outcome/{tag}", row[tag], row["step"])
    settings = result.settings.key | {"learning_rate": result.settings.learning_rate, "width": result.settings.width}
    final = {f"outcome/{tag}": result.curve[-1][tag] for tag in ("train_loss", "test_accuracy")}
    for summary in hparams(settings, final):
        writer.file_writer.add_summary(summary)
