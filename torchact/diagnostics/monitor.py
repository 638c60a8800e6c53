"""What the user holds: a monitor attached to a training run, and a diagnosis of one batch."""

from __future__ import annotations

import itertools
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from torch import Tensor, nn

from torchact.diagnostics import rules, statistics
from torchact.diagnostics.probes import Probe, Switch, own_parameters, watchable
from torchact.diagnostics.report import Report
from torchact.diagnostics.rules import Thresholds, Verdict
from torchact.diagnostics.statistics import LayerReading, Reading

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_watched: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_UNSEEN = (
    "GradientMonitor: parameters have gradients, but no module call was seen since the last step. A compiled model "
    "ignores hooks that come after its first call: call torch.compiler.reset() before attaching the monitor."
)


class GradientMonitor:
    """Watches how gradients pass through a model while it trains.

    For every module that owns parameters and every activation it records the norm of δ = ∂L/∂output, the norms of the
    parameters' gradients, and mean, deviation, zero fraction and saturated fraction of the output. Sums are taken
    over the batch, and over all calls and micro-batches since the last optimiser step. All norms are Euclidean norms
    over the whole tensor, summed in float64. Values are read when the optimiser steps: parameter gradients are those
    that it is about to use, after clipping and unscaling, while δ is of the loss as it was differentiated, and so under
    a gradient scaler larger by its scale.

    The model and its training are left as they are: the weights come out bit-identical with and without a monitor.
    Under ``torch.compile`` the hooks become part of the graph, without a break from torch 2.13 on; attach the monitor
    before the first call of the compiled model, which ignores hooks that come later (a warning says so).

    Args:
        model: the model to watch.
        optimizer: its optimiser, which tells the monitor when a step is done. Without one, call :meth:`record` after
            each backward pass. One that is given a closure (LBFGS) announces its step before the backward pass, so that
            a reading then belongs to the step before.
        log_dir: the TensorBoard run's folder; None keeps readings in memory only.
        every: record each step whose number is a multiple of this, from step 0.
        keep: how many of the latest readings stay in :attr:`history`.
        thresholds: where a measurement becomes a verdict.

    Raises:
        TypeError: ``model`` is no module, or ``optimizer`` no optimiser.
        ValueError: ``every`` or ``keep`` is not a positive whole number, the model has no trainable parameters, or the
            optimiser holds none of them.
        RuntimeError: a module of this model is already being monitored.
        OSError: ``log_dir`` cannot be written to.

    Example:
        >>> import torch, torchact
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torchact.Sigmoid(), torch.nn.Linear(8, 1))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with torchact.GradientMonitor(model, optimizer, every=1) as monitor:
        ...     for _ in range(3):
        ...         optimizer.zero_grad()
        ...         model(torch.ones(2, 4)).square().mean().backward()
        ...         optimizer.step()
        >>> [reading.step for reading in monitor.history]
        [0, 1, 2]
        >>> [layer.name for layer in monitor.history[-1].layers]
        ['0', '1', '2']
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        log_dir: str | Path | None = None,
        *,
        every: int = 10,
        keep: int = 1000,
        thresholds: Thresholds | None = None,
    ) -> None:
        _check_arguments(model, optimizer, every=every, keep=keep)
        self.every = every
        self.thresholds = thresholds or Thresholds()
        self.history: deque[Reading] = deque(maxlen=keep)  #: the latest readings, the last one at its end
        self.step = 0
        self._family = rules.optimizer_family(optimizer)
        self._optimized = optimizer is not None
        self._sink = _tensorboard_sink(log_dir)
        self._switch = Switch()
        modules = list(watchable(model))
        self._probes = [Probe(name, module, self._switch, self.thresholds.saturated_slope) for name, module in modules]
        self._parameters = {name: own_parameters(module) for name, module in modules}
        handles = [
            handle for probe, (_, module) in zip(self._probes, modules, strict=True) for handle in probe.attach(module)
        ]
        if optimizer is not None:
            handles.append(optimizer.register_step_pre_hook(_StepHook(weakref.ref(self))))
        watched = [module for _, module in modules]
        _watched.update(watched)
        # The hooks hold no reference to the monitor, so a monitor that is dropped without close() takes them along.
        self._detach = weakref.finalize(self, _detach, handles, self._probes, watched)

    @property
    def writer(self) -> SummaryWriter | None:
        """The TensorBoard writer, for curves of your own in the same run; None without ``log_dir``."""
        return self._sink.writer if self._sink else None

    @property
    def closed(self) -> bool:
        """Whether the hooks are gone."""
        return not self._detach.alive

    def record(self, gradients: Mapping[Tensor, Tensor | None] | None = None) -> Reading | None:
        """End a step: read what the hooks and the parameters' gradients say, if this step is one to record.

        The optimiser's step calls this. Call it yourself, after the backward pass, when there is no optimiser.

        Args:
            gradients: the parameters' gradients; by default their ``.grad``.

        Returns:
            The reading, or None when this step was not one to record, when no module was called since the last one, or
            when what was seen belongs to a step that a gradient scaler skipped; then the next step is recorded.

        Raises:
            RuntimeError: the monitor is closed.
        """
        if self.closed:
            raise RuntimeError("record: this monitor is closed; attach a new GradientMonitor")
        reading = self._read(gradients) if self._switch.on else None
        for probe in self._probes:
            probe.reset()
        missed = reading is not None and (not reading.layers or (self._optimized and _holds_a_skipped_step(reading)))
        self.step += 1
        self._switch.on = missed or self.step % self.every == 0
        if reading is None or missed:
            return None
        self.history.append(reading)
        if self._sink:
            self._sink.write(reading)
        return reading

    def verdicts(self) -> tuple[Verdict, ...]:
        """Return what the rules say of the latest reading.

        Raises:
            RuntimeError: nothing was recorded yet.
        """
        return rules.judge(self._latest(), self._family, self.thresholds)

    def report(self, console: Console | None = None) -> Report:
        """Print the latest reading as a table in forward order, with the verdicts in words, and return the report.

        Args:
            console: where to print; by default standard output.

        Raises:
            RuntimeError: nothing was recorded yet.
        """
        report = self._report()
        report.print_to(console or Console())
        return report

    def close(self) -> None:
        """Remove every hook and close the TensorBoard run; readings stay in :attr:`history`. May be called twice."""
        if not self.closed:
            self._detach()
            if self._sink:
                self._sink.close(self._report() if self.history else None)

    def __enter__(self) -> GradientMonitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _unscaled(self, scale: Tensor) -> dict[Tensor, Tensor | None] | None:
        """Return the parameters' gradients divided by a gradient scaler's factor, if this step is one to record."""
        if not self._switch.on:
            return None
        parameters = {parameter for own in self._parameters.values() for parameter in own.values()}
        return {parameter: None if parameter.grad is None else parameter.grad / scale for parameter in parameters}

    def _latest(self) -> Reading:
        if not self.history:
            raise RuntimeError("report: nothing was recorded yet; train at least one step with the monitor attached")
        return self.history[-1]

    def _report(self) -> Report:
        return Report(reading=self._latest(), verdicts=self.verdicts())

    def _read(self, gradients: Mapping[Tensor, Tensor | None] | None) -> Reading:
        """Bring everything to the host in one copy and sort it into layers."""
        vectors: dict[tuple[Any, ...], Tensor] = {}
        for probe in self._probes:
            vectors |= {(probe.name, signal): getattr(probe, signal) for signal in ("output", "gradient", "saturated")}
            for name, parameter in self._parameters[probe.name].items():
                gradient = parameter.grad if gradients is None else gradients.get(parameter)
                if gradient is not None:
                    vectors[probe.name, "parameter", name] = statistics.reduce_tensor(gradient)
        values = _to_host(vectors)
        seen = [(index, probe) for index, probe in enumerate(self._probes) if values[probe.name, "output"][0]]
        if not seen and any("parameter" in key for key in vectors):
            warnings.warn(_UNSEEN, stacklevel=2)
        layers = (
            _layer_reading(index if probe.position is None else probe.position, probe, values) for index, probe in seen
        )
        return Reading(
            step=self.step,
            layers=tuple(sorted(layers, key=lambda layer: layer.index)),
            silent=tuple(probe.name for probe in self._probes if not values[probe.name, "output"][0]),
        )


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
        thresholds: where a measurement becomes a verdict; layers are judged as under plain SGD.

    Raises:
        TypeError, ValueError, RuntimeError: as :class:`GradientMonitor`.
        ValueError: the loss is not a scalar with a gradient.

    Example:
        >>> import torch, torchact
        >>> layers = [layer for _ in range(12) for layer in (torch.nn.Linear(16, 16), torchact.Sigmoid())]
        >>> report = torchact.diagnose(
        ...     torch.nn.Sequential(*layers), torch.nn.functional.mse_loss, torch.randn(8, 16), torch.zeros(8, 16)
        ... )
        >>> [verdict.rule for verdict in report.verdicts]
        ['vanishing']
    """
    with GradientMonitor(model, every=1, thresholds=thresholds) as monitor, _unchanged(model), torch.enable_grad():
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
    return monitor._report()


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


def _holds_a_skipped_step(reading: Reading) -> bool:
    """Tell whether a step that a gradient scaler skipped, because it overflowed, has left its gradients behind.

    A gradient that is not finite at a layer's output makes the parameters' gradients so too. Where they are finite, the
    former came from an earlier backward pass. The optimiser was not told of that one, nor was the monitor.
    """
    gradients = [statistics for layer in reading.layers for statistics in layer.parameter_gradients.values()]
    overflowed = any(layer.gradient.non_finite for layer in reading.layers)
    finite = bool(gradients) and not any(statistics.non_finite for statistics in gradients)
    return overflowed and finite


class _StepHook:
    """An optimiser's pre-step hook that does not keep the monitor alive."""

    def __init__(self, monitor: weakref.ref[GradientMonitor]) -> None:
        self.monitor = monitor

    def __call__(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        monitor = self.monitor()
        if monitor is not None:
            scale = getattr(optimizer, "grad_scale", None)  # a fused optimiser unscales in its own kernel
            monitor.record(None if scale is None else monitor._unscaled(scale))

    def __reduce__(self) -> tuple[Any, ...]:
        return (_StepHook, (_no_monitor,))


def _no_monitor() -> None:
    """Stand for the monitor in a copied or unpickled optimiser, which nobody monitors."""


def _check_arguments(model: object, optimizer: object, **counts: object) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {model!r} of type {type(model).__name__}")
    if optimizer is not None and not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer: expected a torch.optim.Optimizer or None, got {optimizer!r}")
    for name, count in counts.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ValueError(f"{name}: expected a whole number of at least 1, got {count!r}")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            f"model: {type(model).__name__} has no trainable parameters, so there is no gradient to monitor"
        )
    if isinstance(optimizer, torch.optim.Optimizer):
        optimized = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        if optimized.isdisjoint(map(id, model.parameters())):
            raise ValueError(f"optimizer: {type(optimizer).__name__} holds none of the model's parameters")
    if any(module in _watched for module in model.modules()):
        raise RuntimeError(
            f"model: a GradientMonitor is already attached to {type(model).__name__} or a part of it; close() it first"
        )


def _tensorboard_sink(log_dir: str | Path | None) -> Any:
    if log_dir is None:
        return None
    from torchact.diagnostics.sinks.tensorboard import TensorBoardSink  # slow to import, and not always wanted

    return TensorBoardSink(log_dir)


def _detach(handles: list[Any], probes: list[Probe], watched: list[nn.Module]) -> None:
    for handle in handles:
        handle.remove()
    for probe in probes:
        probe.release_leaves()
    _watched.difference_update(watched)


def _to_host(vectors: dict[tuple[Any, ...], Tensor]) -> dict[tuple[Any, ...], list[float]]:
    """Copy all vectors to the host at once."""
    device = next(iter(vectors.values())).device
    packed = torch.cat([vector.to(device) for vector in vectors.values()]).cpu()
    pieces = packed.split([vector.numel() for vector in vectors.values()])
    return {key: piece.tolist() for key, piece in zip(vectors, pieces, strict=True)}


def _layer_reading(index: int, probe: Probe, values: Mapping[tuple[Any, ...], list[float]]) -> LayerReading:
    saturated, inputs = values[probe.name, "saturated"]
    return LayerReading(
        index=index,
        name=probe.name,
        kind=probe.kind,
        activation=probe.activation.key if probe.activation else None,
        shape=probe.shape,
        output=statistics.unpack(values[probe.name, "output"]),
        gradient=statistics.unpack(values[probe.name, "gradient"]),
        saturated_fraction=saturated / inputs if inputs else None,
        parameter_gradients={
            key[2]: statistics.unpack(vector) for key, vector in values.items() if key[:2] == (probe.name, "parameter")
        },
    )
