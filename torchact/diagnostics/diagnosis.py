"""A diagnosis of one batch, by a monitor that is attached for as long."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from torchact.diagnostics.evidence import Thresholds
from torchact.diagnostics.monitor import GradientMonitor
from torchact.diagnostics.report import Report


def diagnose(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    inputs: Any,
    targets: Any,
    *,
    thresholds: Thresholds | None = None,
) -> Report:
    """Send one batch forward and backward and report how the gradients pass through the model.

    The model is left as it was: parameters, their ``.grad``, buffers (running averages of normalisation layers) and the
    random number generator.

    Args:
        model: the model, in the mode (train or eval) to be diagnosed.
        loss_fn: called as ``loss_fn(model(inputs), targets)``; returns a scalar.
        inputs: a tensor, a tuple of positional arguments or a mapping of keyword arguments.
        targets: handed to ``loss_fn``.
        thresholds: where a measurement becomes a verdict; layers are judged as under plain SGD, by this one reading.

    Raises:
        TypeError, ValueError, RuntimeError: as :class:`GradientMonitor`.
        ValueError: the loss is not a scalar with a gradient.

    Example:
        >>> import torch, torchact
        >>> layers = [layer for _ in range(12) for layer in (torch.nn.Linear(16, 16), torchact.Sigmoid())]
        >>> report = torchact.diagnose(
        ...     torch.nn.Sequential(*layers), torch.nn.functional.mse_loss, torch.randn(8, 16), torch.zeros(8, 16)
        ... )
        >>> [(verdict.rule, verdict.title) for verdict in report.verdicts if verdict.severity == "error"]
        [('TA101', 'vanishing')]
    """
    with (
        GradientMonitor(model, every=1, thresholds=_of_one_reading(thresholds)) as monitor,
        _unchanged(model),
        torch.enable_grad(),
    ):
        if isinstance(inputs, Mapping):
            outputs = model(**inputs)
        else:
            outputs = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
        loss = loss_fn(outputs, targets)
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
            raise ValueError(f"loss_fn: expected a scalar tensor that requires grad, got {loss!r}")
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(loss.sum(), parameters, allow_unused=True)
        monitor.record(dict(zip(parameters, gradients, strict=True)))
    verdicts = monitor.verdicts()  # which raises where no module was called
    return Report(reading=monitor.history[-1], verdicts=verdicts)


def _of_one_reading(thresholds: Thresholds | None) -> Thresholds:
    return dataclasses.replace(thresholds or Thresholds(), warm_up=0, patience=1)


class _unchanged:
    """Put a model's buffers and the random number generators back to what they were."""

    def __init__(self, model: nn.Module) -> None:
        self.buffers = {name: (buffer, buffer.detach().clone()) for name, buffer in model.named_buffers()}
        devices = {tensor.device for tensor in itertools.chain(model.parameters(), model.buffers())}
        self.generators = torch.random.fork_rng(devices=[device for device in devices if device.type == "cuda"])

    def __enter__(self) -> None:
        self.generators.__enter__()

    def __exit__(self, *exception: Any) -> None:
        self.generators.__exit__(*exception)
        with torch.no_grad():
            for buffer, original in self.buffers.values():
                buffer.copy_(original)
