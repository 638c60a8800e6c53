"""What the user holds: a monitor attached to a training run."""

from __future__ import annotations

import itertools
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from rich.console import Console
from torch import Tensor, nn
from torch import distributed as dist

from torchact import conversion
from torchact.diagnostics import distributed, rules
from torchact.diagnostics.blocks import Key
from torchact.diagnostics.collecting import Collected, Collector, Gradients
from torchact.diagnostics.evidence import Rule, Thresholds, Verdict, optimizer_family
from torchact.diagnostics.noise import MicroBatchHooks
from torchact.diagnostics.probes import Probe, Signal, Switch, watchable
from torchact.diagnostics.readings import Reading
from torchact.diagnostics.report import Report
from torchact.diagnostics.sinks.base import Sink, Sinks

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Optimizers = torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None
_SIGNALS: frozenset[Signal] = frozenset(get_args(Signal))
_watched: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_UNSEEN = (
    "GradientMonitor: parameters have gradients, but no module call was seen since the last step. A compiled model "
    "ignores hooks that come after its first call: call torch.compiler.reset() before attaching the monitor."
)


class GradientError(RuntimeError):
    """What a monitor with ``on_error="raise"`` raises; its ``verdicts`` say why."""

    def __init__(self, verdicts: tuple[Verdict, ...]) -> None:
        super().__init__("\n".join(map(str, verdicts)))
        self.verdicts = verdicts


class GradientMonitor:
    """Watches how gradients pass through a model while it trains.

    For every module that owns parameters and every activation it records statistics of the output and of δ =
    ∂L/∂output, of the parameters and of their gradients; which, :class:`.LayerReading` says. Sums are taken over the
    batch, and over all calls and micro-batches since the last optimiser step. All norms are Euclidean norms over the
    whole tensor, summed in float64. Values are read when the optimiser steps: parameter gradients are those that it is
    about to use, after clipping and unscaling, while δ is of the loss as it was differentiated, and so under a gradient
    scaler larger by its scale.

    The model and its training are left as they are: the weights come out bit-identical with and without a monitor.
    Under ``torch.compile`` the hooks become part of the graph, without a break from torch 2.13 on; attach the monitor
    before the first call of the compiled model, which ignores hooks that come later (a warning says so). In eager mode
    modules have hooks in recorded steps alone: do not train a while before you compile.

    On several ranks each has its own monitor. With a ``group`` their statistics are merged at each reading, and only
    its first rank writes to the sinks. δ is then that of the loss averaged over the ranks, as DistributedDataParallel
    and fully_shard average gradients. Parameters that are DTensors can only be read by all ranks together.

    Args:
        model: the model to watch.
        optimizer: its optimiser, which tells the monitor when a step is done, or several, as of a GAN: each has its own
            count of steps and its own readings. Without one, call :meth:`record` after each backward pass. Of a closure
            that is given to the step (LBFGS), the first call is read.
        log_dir: the TensorBoard run's folder; None writes none.
        every: record each step whose number is a multiple of this.
        first: record each of the first so many steps too, which rules about a run's beginning judge.
        keep: how many of the latest readings stay in :attr:`history`, from which verdicts come.
        thresholds: where a measurement becomes a verdict.
        signals: what to record of ``"outputs"``, ``"gradients"`` (δ) and ``"parameters"``; by default all. With
            parameters alone no hook is on any module.
        updates: whether to measure what each step adds to the parameters; this copies them before each step that is
            recorded.
        noise_scale: whether to measure the gradients of the micro-batches that a step accumulates, two or more, for
            :func:`torchact.diagnostics.noise.noise_scale`; not of parameters that are DTensors, whose hooks torch does
            not call.
        group: the ranks to merge over, where models are trained on several; all of them have to attach a monitor. By
            default none, or all ranks for a model with DTensors.
        sinks: where readings go besides :attr:`history` and ``log_dir``: objects with ``write(reading)`` and
            ``close(report)``; one that has ``note(report)`` takes a report of the first steps, too.
        rules: what :meth:`verdicts` applies, by default :data:`torchact.diagnostics.rules.RULES`.
        on_error: ``"report"`` tells of verdicts when asked; ``"raise"`` judges each reading and raises from the
            optimiser's step where one is an error: before a parameter changes, with ``updates`` after.

    Raises:
        TypeError: ``model`` is no module, ``optimizer`` no optimiser, ``thresholds`` no such object, one of ``rules``
            cannot be called, or one of ``sinks`` lacks a method.
        ValueError: ``every`` or ``keep`` is not a positive whole number, ``first`` is negative or not whole,
            ``signals`` or ``on_error`` is none of those named, the model has no trainable parameters, or an optimiser
            holds none of them.
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
        optimizer: Optimizers = None,
        log_dir: str | Path | None = None,
        *,
        every: int = 10,
        first: int = 10,
        keep: int = 1000,
        thresholds: Thresholds | None = None,
        signals: Collection[Signal] = _SIGNALS,
        updates: bool = False,
        noise_scale: bool = False,
        group: dist.ProcessGroup | None = None,
        sinks: Iterable[Sink] = (),
        rules: Sequence[Rule] = rules.RULES,
        on_error: Literal["report", "raise"] = "report",
    ) -> None:
        optimizers = _as_sequence(optimizer)
        _check_arguments(model, optimizers, every=(every, 1), first=(first, 0), keep=(keep, 1))
        _check_choices("signals", signals, _SIGNALS)
        _check_choices("on_error", [on_error], {"report", "raise"})
        if not isinstance(thresholds, Thresholds | None):
            raise TypeError(f"thresholds: expected Thresholds or None, got {thresholds!r}")
        if isinstance(rules, str) or not all(map(callable, rules)):
            raise TypeError(f"rules: expected functions of the evidence, got {rules!r}")
        self.every = every
        self.first = first
        self.thresholds = thresholds or Thresholds()
        self.history: deque[Reading] = deque(maxlen=keep)  #: the latest readings, the last one at its end
        self._model = weakref.ref(model)
        self._functional_names: tuple[str, ...] | None = None
        self._signals = frozenset(signals)
        self._updates = updates
        self._rules = tuple(rules)
        self._on_error = on_error
        self._tracks = _tracks(optimizers)
        if group is None and distributed.has_distributed_parameters(model):
            group = dist.group.WORLD
        writes = group is None or dist.get_rank(group) == 0
        self._board = _tensorboard_sink(log_dir if writes else None)
        self._sinks = Sinks(sinks if writes else (), self._board)
        self._switch = Switch()
        modules = list(watchable(model))
        self._probes = [
            Probe(name, module, self._switch, self.thresholds.saturated_slope, self._signals)
            for name, module in modules
        ]
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        noise = MicroBatchHooks(parameters, self._switch) if noise_scale else None
        self._collector = Collector(
            modules,
            self._probes,
            self._switch,
            window=self.thresholds.dead_window,
            epsilons=self.thresholds.epsilons,
            group=group,
            hooked=self._signals != {"parameters"},
            noise=noise,
        )
        for probe, (_, module) in zip(self._probes, modules, strict=True):
            probe.attach(module)
        self._switch.probes = tuple(self._probes)
        handles = list(noise.attach()) if noise else []
        for each in optimizers:
            handles.append(each.register_step_pre_hook(_BeforeStep(weakref.ref(self))))
            handles.append(each.register_step_post_hook(_AfterStep(weakref.ref(self))))
        watched = [module for _, module in modules]
        _watched.update(watched)
        # The hooks hold no reference to the monitor, so a monitor that is dropped without close() takes them along.
        self._detach = weakref.finalize(self, _detach, handles, self._probes, watched)

    @property
    def step(self) -> int:
        """The number of the step that is being made, of several optimisers of the first; set it to resume a run."""
        return next(iter(self._tracks.values())).step

    @step.setter
    def step(self, number: int) -> None:
        for track in self._tracks.values():
            track.step = number
            track.due = self._is_recorded(number)
        self._switch.turn(any(track.due for track in self._tracks.values()))

    @property
    def writer(self) -> SummaryWriter | None:
        """The TensorBoard writer, for curves of your own in the same run; None without ``log_dir``."""
        return self._board.writer if self._board else None

    @property
    def closed(self) -> bool:
        """Whether the hooks are gone."""
        return not self._detach.alive

    def before_clipping(self) -> None:
        """Read the parameters' gradients before they are clipped: call this between backward pass and clipping.

        Under a gradient scaler, call its ``unscale_(optimizer)`` before.
        """
        if not self.closed and self._switch.on:
            self._collector.before_clipping()

    def record(self, gradients: Gradients | None = None) -> Reading | None:
        """End a step: read what the hooks and the parameters' gradients say, if this step is one to record.

        The optimiser's step calls this. Call it yourself, after the backward pass, when there is no optimiser.

        Args:
            gradients: the parameters' gradients; by default their ``.grad``.

        Returns:
            The reading, or None when this step was not one to record, when no module was called since the last one, or
            when what was seen belongs to a step that a gradient scaler skipped; then the next step is recorded.

        Raises:
            RuntimeError: the monitor is closed.
            GradientError: with ``on_error="raise"``, a verdict is an error.
        """
        if self.closed:
            raise RuntimeError("record: this monitor is closed; attach a new GradientMonitor")
        return self._end(next(iter(self._tracks.values())), gradients)

    def verdicts(self) -> tuple[Verdict, ...]:
        """Return what the rules say of the latest reading, of several optimisers of the latest of each.

        Raises:
            RuntimeError: nothing was recorded yet.
        """
        self._latest()
        return tuple(itertools.chain.from_iterable(map(self._judge, self._tracks.values())))

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
        """Remove every hook and close the sinks; readings stay in :attr:`history`. May be called twice."""
        if not self.closed:
            self._detach()
            self._sinks.close(self._report() if self.history else None)

    def __enter__(self) -> GradientMonitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _before_step(self, optimizer: torch.optim.Optimizer) -> None:
        track = self._tracks[id(optimizer)]
        scale = getattr(optimizer, "grad_scale", None)  # a fused optimiser unscales in its own kernel
        gradients = None if scale is None or not self._is_due(track) else self._unscaled(optimizer, scale)
        self._end(track, gradients, optimizer)

    def _after_step(self, optimizer: torch.optim.Optimizer) -> None:
        track = self._tracks[id(optimizer)]
        self._switch.turn(any(each.due for each in self._tracks.values()))
        pending, track.pending = track.pending, None
        if pending is not None:
            seen, before, step = pending
            self._collector.add_updates(seen, before)
            reading = self._read(seen, step, track, optimizer)
            if reading is None:
                track.due = True
                self._switch.turn(True)
            else:
                self._publish(track, reading)

    def _is_recorded(self, step: int) -> bool:
        return step < self.first or step % self.every == 0

    def _is_due(self, track: _Track) -> bool:
        return self._switch.on and track.due

    def _end(
        self, track: _Track, gradients: Gradients | None, optimizer: torch.optim.Optimizer | None = None
    ) -> Reading | None:
        """End a step of an optimiser: read, forget, and tell the hooks whether the next step is to be recorded."""
        step, due, missed, reading = track.step, self._is_due(track), False, None
        awaited = self._awaited(track)
        if due:
            with_parameters = "parameters" in self._signals
            seen = self._collector.collect(gradients, optimizer, with_parameters=with_parameters, awaited=awaited)
            if self._updates and optimizer is not None:
                parameters = self._collector.parameters
                before = {key: parameters[key].detach().clone() for key in seen.blocks["weight"].layout.keys}
                track.pending = seen, before, step
            else:
                reading = self._read(seen, step, track, optimizer)
                missed = reading is None
        self._collector.reset(awaited)
        track.step += 1
        track.due = missed or self._is_recorded(track.step)
        self._switch.turn(any(each.due for each in self._tracks.values()))
        if reading is not None:
            self._publish(track, reading)
        return reading

    def _awaited(self, track: _Track) -> frozenset[int]:
        """Return what another optimiser's step, which is to be recorded, will be the first to know whole."""
        others = [other.parameters for other in self._tracks.values() if other is not track and other.due]
        return self._collector.awaited(track.parameters, frozenset().union(*others)) if others else frozenset()

    def _read(
        self, seen: Collected, step: int, track: _Track, optimizer: torch.optim.Optimizer | None
    ) -> Reading | None:
        """Return a reading; None where it shows no step, because no module was called or a scaler had skipped one."""
        skips_itself = getattr(optimizer, "found_inf", None) is not None  # a gradient scaler says so for this step
        reading, holds_a_skipped_step = self._collector.reading(seen, step, track.label, skips_itself=skips_itself)
        if reading.layers:
            return None if optimizer is not None and holds_a_skipped_step else reading
        if reading.unprobed:
            warnings.warn(_UNSEEN, stacklevel=4)
        return None if self._signals != {"parameters"} else reading

    def _publish(self, track: _Track, reading: Reading) -> None:
        self.history.append(reading)
        self._sinks.write(reading)
        if reading.step + 1 == self.thresholds.first_steps == min(each.step for each in self._tracks.values()):
            self._sinks.note(self._report)
        if self._on_error == "raise":
            errors = tuple(verdict for verdict in self._judge(track) if verdict.severity == "error")
            if errors:
                raise GradientError(errors)

    def _judge(self, track: _Track) -> tuple[Verdict, ...]:
        readings = tuple(reading for reading in self.history if reading.optimizer == track.label)
        if not readings:
            return ()
        return rules.judge(readings, track.family, self.thresholds, self._rules, self._functional())

    def _functional(self) -> tuple[str, ...]:
        """Name the activations that no hook sees; found once, by reading the model's source."""
        model = self._model()
        if self._functional_names is None and model is not None:
            found = conversion.functional_activations(model)
            places = [", ".join(place or "the model" for place in where[:3]) for where, _ in found]
            named = (f"{call.what} in {where}" for (_, call), where in zip(found, places, strict=True))
            self._functional_names = tuple(dict.fromkeys(named))
        return self._functional_names or ()

    def _unscaled(self, optimizer: torch.optim.Optimizer, scale: Tensor) -> dict[Tensor, Tensor | None]:
        """Return the parameters' gradients divided by a gradient scaler's factor."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        return {parameter: None if parameter.grad is None else parameter.grad / scale for parameter in parameters}

    def _latest(self) -> Reading:
        if not self.history:
            raise RuntimeError(
                "nothing was recorded yet: train at least one step with the monitor attached; one without an optimizer"
                " needs record() after each backward pass"
            )
        return self.history[-1]

    def _report(self) -> Report:
        latest = {reading.optimizer: reading for reading in self.history}  # the later ones stay
        readings = tuple(latest[track.label] for track in self._tracks.values() if track.label in latest)
        return Report(reading=self._latest(), verdicts=self.verdicts(), readings=readings)


class _Track:
    """The steps of one optimiser."""

    def __init__(self, optimizer: torch.optim.Optimizer | None, label: str | None) -> None:
        self.family = optimizer_family(optimizer)
        self.label = label
        groups = optimizer.param_groups if optimizer else ()
        self.parameters = frozenset(id(parameter) for group in groups for parameter in group["params"])
        self.step = 0
        self.due = True  # whether the step that is being made is to be recorded
        self.pending: tuple[Collected, dict[Key, Tensor], int] | None = None


def _tracks(optimizers: Sequence[torch.optim.Optimizer]) -> dict[int, _Track]:
    if len(optimizers) < 2:
        optimizer = optimizers[0] if optimizers else None
        return {id(optimizer): _Track(optimizer, None)}
    return {
        id(optimizer): _Track(optimizer, f"{position}_{type(optimizer).__name__}")
        for position, optimizer in enumerate(optimizers)
    }


class _BeforeStep:
    """An optimiser's hook before its step that does not keep the monitor alive."""

    def __init__(self, monitor: Callable[[], GradientMonitor | None]) -> None:
        self.monitor = monitor

    def __call__(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        monitor = self.monitor()
        if monitor is None or monitor.closed:
            return None
        if kwargs.get("closure") is not None:
            return args, {**kwargs, "closure": _Closure(kwargs["closure"], monitor, optimizer)}
        if len(args) > 1 and args[1] is not None:  # the first is the optimiser
            return (args[0], _Closure(args[1], monitor, optimizer), *args[2:]), kwargs
        monitor._before_step(optimizer)
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return _BeforeStep, (_no_monitor,)


class _AfterStep:
    """The same after the step."""

    def __init__(self, monitor: Callable[[], GradientMonitor | None]) -> None:
        self.monitor = monitor

    def __call__(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        monitor = self.monitor()
        if monitor is not None and not monitor.closed:
            monitor._after_step(optimizer)

    def __reduce__(self) -> tuple[Any, ...]:
        return _AfterStep, (_no_monitor,)


class _Closure:
    """A closure that makes the gradients within the step; they are read when it has done so for the first time."""

    def __init__(self, closure: Callable[[], Any], monitor: GradientMonitor, optimizer: torch.optim.Optimizer) -> None:
        self.closure = closure
        self.monitor: GradientMonitor | None = monitor
        self.optimizer = optimizer

    def __call__(self) -> Any:
        result = self.closure()
        monitor, self.monitor = self.monitor, None
        if monitor is not None and not monitor.closed:
            monitor._before_step(self.optimizer)
            monitor._switch.turn(False)  # what it is called for again belongs to this step, too
        return result


def _no_monitor() -> None:
    """Stand for the monitor in a copied or unpickled optimiser, which nobody monitors."""


def _as_sequence(optimizer: Any) -> Sequence[torch.optim.Optimizer]:
    if optimizer is None:
        return ()
    return tuple(optimizer) if isinstance(optimizer, list | tuple) else (optimizer,)


def _check_arguments(model: object, optimizers: Sequence[torch.optim.Optimizer], **counts: tuple[object, int]) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {model!r} of type {type(model).__name__}")
    for optimizer in optimizers:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(f"optimizer: expected a torch.optim.Optimizer, several of them or None, got {optimizer!r}")
    for name, (count, least) in counts.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < least:
            raise ValueError(f"{name}: expected a whole number of at least {least}, got {count!r}")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            f"model: {type(model).__name__} has no trainable parameters, so there is no gradient to monitor"
        )
    for optimizer in optimizers:
        optimized = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        if optimized.isdisjoint(map(id, model.parameters())):
            raise ValueError(f"optimizer: {type(optimizer).__name__} holds none of the model's parameters")
    if any(module in _watched for module in model.modules()):
        raise RuntimeError(
            f"model: a GradientMonitor is already attached to {type(model).__name__} or a part of it; close() it first"
        )


def _check_choices(name: str, given: Collection[str], known: Collection[str]) -> None:
    if isinstance(given, str):
        raise ValueError(f"{name}: expected a collection, such as {{{sorted(known)[0]!r}}}, got {given!r}")
    unknown = sorted(set(given) - set(known))
    if unknown or not given:
        raise ValueError(f"{name}: expected one of {', '.join(sorted(known))}, got {unknown or given!r}")


def _tensorboard_sink(log_dir: str | Path | None) -> Any:
    if log_dir is None:
        return None
    from torchact.diagnostics.sinks.tensorboard import TensorBoardSink  # slow to import, and not always wanted

    return TensorBoardSink(log_dir)


def _detach(handles: list[Any], probes: list[Probe], watched: list[nn.Module]) -> None:
    for handle in handles:
        handle.remove()
    for probe in probes:
        probe.detach()
    _watched.difference_update(watched)
