"""From what hooks and optimisers hold to a reading: everything comes to the host in one copy."""

from __future__ import annotations

import functools
import operator
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from torchact import kernels
from torchact.diagnostics import distributed, probes, statistics
from torchact.diagnostics.blocks import Block, Blocks, Key, Layout, on_host
from torchact.diagnostics.noise import MicroBatches, MicroBatchHooks
from torchact.diagnostics.probes import Probe, Switch, own_parameters
from torchact.diagnostics.readings import Heads, LaterLayers, LayerReading, ParameterReading, Reading

Gradients = Mapping[Tensor, Tensor | None]
Made = TypeVar("Made")
_ACTIVE = 1e-5  # a unit is active where its magnitude reaches this: TheDeepChecker's dead neuron, arXiv:2204.00694
_LARGEST_OF_TOTALS = (probes.OUTPUT.stop - 1, probes.GRADIENT.stop - 1)


@dataclass(frozen=True, slots=True)
class Collected:
    """What a reading is made of: copies, on the device that has them."""

    blocks: Blocks
    finite: bool  #: whether all that hooks saw is known to be
    samples: Sequence[float]  #: of each probe, in calls that were not compiled
    calls: Sequence[float]  #: those calls; below zero of a module that waits for its gradient


class Collector:
    """Knows the probes of a model and its parameters, and makes readings of them.

    Args:
        modules: names and modules that are probed.
        probes: theirs, in the same order.
        switch: which the probes share.
        window: how many samples a unit must have been inactive for to be dead.
        epsilons: what √v̂ must reach, in multiples of ε, for an adaptive optimiser to rescale a gradient.
        group: the ranks whose statistics are merged; all of them have to collect at the same steps.
        hooked: whether hooks see the modules; else each with a gradient counts as seen.
        noise: what watches micro-batches.
    """

    def __init__(
        self,
        modules: Sequence[tuple[str, nn.Module]],
        probes: Sequence[Probe],
        switch: Switch,
        *,
        window: int,
        epsilons: float,
        group: dist.ProcessGroup | None,
        hooked: bool,
        noise: MicroBatchHooks | None = None,
    ) -> None:
        self.probes = probes
        self._switch = switch
        self.parameters: dict[Key, nn.Parameter] = {
            (name, own): parameter for name, module in modules for own, parameter in own_parameters(module).items()
        }
        self._spread = {key for key, tensor in self.parameters.items() if distributed.is_distributed_tensor(tensor)}
        self._owned = _owned(module for _, module in modules)
        self._names = tuple((probe.name,) for probe in probes)
        self._unseen = [0.0] * len(probes)
        self._window = window
        self._epsilons = epsilons
        self._group = group
        self._hooked = hooked
        self._noise = noise
        self._with_units = [
            (row, probe, f"units of {probe.name}") for row, probe in enumerate(probes) if probe.has_units
        ]
        self._samples_in_window = [0.0] * len(probes)
        self._dead: Mapping[str, float] = {}
        self._heads: Heads = {}
        self._unclipped: Blocks = {}
        self._totals: Tensor | None = None
        self._are_zero = False  # whether the totals are, since they were taken
        self._latest: dict[str, Any] = {}
        self._lay_out()

    def before_clipping(self) -> None:
        """Reduce the parameters' gradients as they are now."""
        (self._unclipped["unclipped"],) = self._reduced(self._gradients(None, None))

    def awaited(self, own: Set[int], others: Set[int]) -> frozenset[int]:
        """Return the rows of modules that wait for their gradient, while another optimiser than theirs makes its step.

        They were called before it, as of a GAN a generator is before the discriminator's step, and what was recorded
        belongs to the step of the optimiser that has their parameters; of an activation, those of the layer before it.

        Args:
            own: the parameters of the optimiser that makes its step, by id.
            others: those of the other optimisers.
        """
        return frozenset(
            row
            for row, probe in enumerate(self.probes)
            if probe.calls and not probe.has_gradient and not self._owned[row] & own and self._owned[row] & others
        )

    def collect(
        self,
        gradients: Gradients | None,
        optimizer: torch.optim.Optimizer | None,
        *,
        with_parameters: bool,
        awaited: Set[int] = frozenset(),
    ) -> Collected:
        """Return everything that a reading is made of.

        Args:
            gradients: the parameters' gradients; by default their ``.grad``.
            optimizer: whose parameters to look at, and its state; by default all parameters.
            with_parameters: whether parameters are wanted.
            awaited: rows of modules that are left to a later step.
        """
        samples = calls = self._unseen
        blocks: Blocks = {}
        finite = False
        if self._hooked:
            if self._switch.heads.is_open:
                found = self._switch.heads.close()
                self._heads = {} if self._switch.compiled else found  # compiled layers are not in the graph
            totals, finite = self._take_totals(awaited)
            blocks = {"totals": Block(self._layout_of_totals, totals), **self._full_windows()}
            samples = [0.0 if row in awaited else float(probe.samples) for row, probe in enumerate(self.probes)]
            calls = [-1 if row in awaited else probe.calls for row, probe in enumerate(self.probes)]
        if with_parameters:
            own_gradients = self._gradients(gradients, optimizer)
            weights = {key: self.parameters[key] for key in own_gradients}
            blocks["gradient"], blocks["weight"] = self._reduced(own_gradients, weights)
            if optimizer is not None:
                blocks |= self._near_epsilon(own_gradients, optimizer)
            blocks |= self._unclipped
        if self._noise is not None and self._noise.passes > 1:
            total = self._noise.total()
            passes = torch.full((1,), float(self._noise.passes), dtype=torch.float64, device=total.device)
            layout = Layout((("micro-batches",),), 3, shared=True)  # those of the first rank stand for all
            blocks["micro-batches"] = Block(layout, torch.cat([passes, total]).unsqueeze(0))
        return Collected(blocks, finite, samples, calls)

    def add_updates(self, collected: Collected, before: Mapping[Key, Tensor]) -> None:
        """Add the statistics of what a step has added to each parameter."""
        added = {key: self.parameters[key].detach() - old for key, old in before.items()}
        (collected.blocks["update"],) = self._reduced(added)

    def reading(
        self, collected: Collected, step: int, optimizer: str | None, *, skips_itself: bool
    ) -> tuple[Reading, bool]:
        """Bring what was collected to the host and sort it into layers.

        Args:
            collected: what :meth:`collect` returned.
            step: its number.
            optimizer: how its optimiser is called, where there are several.
            skips_itself: whether the optimiser makes no step where a gradient is not finite, as a fused one does that a
                gradient scaler calls.

        Returns:
            The reading, and whether it shows a step that a gradient scaler has skipped.
        """
        blocks, samples, calls = self._on_host(collected)
        self._close_windows(blocks, samples)
        indices = [i for i, called in enumerate(calls) if called > 0]
        names = {self.probes[i].name for i in indices}
        reading = Reading(
            step=step,
            layers=self._layers(indices, samples, blocks),
            silent=tuple(probe.name for probe, called in zip(self.probes, calls, strict=True) if not called),
            unprobed=_not_seen(blocks, names),
            optimizer=optimizer,
            micro_batches=self._micro_batches(blocks, samples),
        )
        finite = collected.finite and self._group is None
        return reading, _holds_a_skipped_step(blocks, finite, skips_itself)

    def reset(self, awaited: Set[int] = frozenset()) -> None:
        """Forget this step but for the rows that wait for their gradient; of one not recorded there is nothing."""
        if not self._switch.on:
            return
        self._unclipped = {}
        if self._noise is not None:
            self._noise.reset()
        if not self._hooked:
            return
        are_zero, self._are_zero = self._are_zero, False
        over = [probe for row, probe in enumerate(self.probes) if row not in awaited]
        for probe in over:
            probe.reset()
        for row in awaited:
            self.probes[row].is_kept = True
        if awaited:
            torch._foreach_zero_([probe.totals for probe in over])
        elif self._switch.moved:
            self._lay_out()
        elif self._totals is not None:
            if not are_zero:
                self._totals.zero_()
        else:
            torch._foreach_zero_([probe.totals for probe in self.probes])

    def _lay_out(self) -> None:
        """Begin new totals of all probes, if they are on one device as rows of one tensor."""
        devices = {probe.totals.device for probe in self.probes}
        shape = (len(self.probes), probes.TOTALS)
        self._layout_of_totals = Layout(self._names, probes.TOTALS, _LARGEST_OF_TOTALS)
        self._layout_of_samples = Layout(self._names, 2)
        self._totals = torch.zeros(shape, dtype=torch.float64, device=devices.pop()) if len(devices) == 1 else None
        for i, probe in enumerate(self.probes):
            probe.place(torch.zeros_like(probe.totals) if self._totals is None else self._totals[i])
        self._switch.moved = False

    def _take_totals(self, awaited: Set[int]) -> tuple[Tensor | bytearray, bool]:
        """Return the totals of all probes, and whether all are known to be finite; zeros may stay."""
        if self._totals is None or self._switch.moved:
            device = self.probes[0].totals.device
            return torch.stack([probe.totals.to(device) for probe in self.probes]), False
        flat = None if awaited else kernels.flat(self._totals)
        if flat is None:
            return self._totals.clone(), False
        self._are_zero = True
        return kernels.take(*flat[:2])

    def _full_windows(self) -> Blocks:
        """Return the units of which enough samples were seen."""
        blocks = {}
        for row, probe, name in self._with_units:
            if probe.units is not None and self._samples_in_window[row] >= self._window:
                units = probe.units.double()
                layout = Layout((self._names[row],), len(units), tuple(range(len(units))))
                blocks[name] = Block(layout, units)
        return blocks

    def _gradients(self, gradients: Gradients | None, optimizer: torch.optim.Optimizer | None) -> dict[Key, Tensor]:
        held = None if optimizer is None else _groups_of(optimizer)
        found = {
            key: parameter.grad if gradients is None else gradients.get(parameter)
            for key, parameter in self.parameters.items()
            if held is None or id(parameter) in held
        }
        return {key: gradient for key, gradient in found.items() if gradient is not None}

    def _reduced(self, first: Mapping[Key, Tensor], *others: Mapping[Key, Tensor]) -> list[Block]:
        """Return the statistics of what this rank has to count of each tensor; mappings have the same keys."""
        layout = self._layout_of_parameters("statistics", first, statistics.SIZE, (statistics.SIZE - 1,))
        tensors = [tensor for mapping in (first, *others) for tensor in mapping.values()]
        own = [_own(tensor.detach()) for tensor in tensors] if self._spread else tensors
        numbers = statistics.reduce_each(own)
        if isinstance(numbers, bytearray):
            size = len(numbers) // (1 + len(others))
            return [Block(layout, numbers[i * size : (i + 1) * size]) for i in range(1 + len(others))]
        return [Block(layout, rows) for rows in numbers.chunk(1 + len(others))]

    def _layout_of_parameters(
        self, what: str, keys: Iterable[Key], width: int, largest: tuple[int, ...] = ()
    ) -> Layout:
        keys = tuple(keys)
        shared = tuple(key not in self._spread for key in keys) if self._spread else True
        return self._unless_equal(what, Layout(keys, width, largest, shared))

    def _unless_equal(self, what: str, new: Made) -> Made:
        """Return the latest one instead if it is equal: a reading that is kept then holds little of its own.

        What many readings hold is much for the garbage collector to look through.
        """
        latest: Made = self._latest.setdefault(what, new)
        if latest != new:
            self._latest[what] = latest = new
        return latest

    def _near_epsilon(self, keys: Collection[Key], optimizer: torch.optim.Optimizer) -> Blocks:
        """Return of each parameter how many entries it has, and how many of √v̂ are below a multiple of ε."""
        if not any("eps" in group for group in optimizer.param_groups):
            return {}
        groups = _groups_of(optimizer)
        limits: dict[float | Tensor, dict[Key, Tensor]] = {}  # tensors are told apart by identity
        for key in keys:
            parameter = self.parameters[key]
            found = _second_moment(optimizer.state.get(parameter, {}), groups[id(parameter)], parameter)
            if found is not None:
                moment, correction, epsilon = found
                limits.setdefault((self._epsilons * epsilon) ** 2 * correction, {})[key] = _own(moment)
        if not limits:
            return {}
        layout = self._layout_of_parameters("near epsilon", (key for moments in limits.values() for key in moments), 2)
        counts = [_count_below(limit, list(moments.values())) for limit, moments in limits.items()]
        return {"near epsilon": Block(layout, torch.cat([rows.to(counts[0].device) for rows in counts]))}

    def _on_host(self, collected: Collected) -> tuple[Blocks, Sequence[float], Sequence[float]]:
        """Return the blocks on the host, and of each module how many samples it has seen, and whether it was called.

        Without hooks, those were that have gradients. The calls of those that wait for theirs are below zero.
        Compiled modules do not count their calls: one is known by its samples.
        """
        samples, calls = collected.samples, collected.calls
        if self._group is None:
            blocks = on_host(collected.blocks, None)
        else:
            rows = torch.tensor([samples, calls], dtype=torch.float64).t()
            blocks = on_host({**collected.blocks, "samples": Block(self._layout_of_samples, rows)}, self._group)
            samples, calls = blocks["samples"].rows.t().tolist()
        if not self._hooked:
            learning = {layer for layer, _ in blocks["gradient"].layout.keys}
            return blocks, samples, [float(name in learning) for (name,) in self._names]
        if self._group is not None or self._switch.compiled:
            compiled = blocks["totals"].column(probes.SAMPLES)
            samples = list(map(operator.add, samples, compiled))
            calls = list(map(operator.add, calls, compiled))
        return blocks, samples, calls

    def _close_windows(self, blocks: Blocks, samples: Sequence[float]) -> None:
        for row, probe, name in self._with_units:
            units = blocks.get(name)
            if units is not None:
                dead = units.rows.lt(_ACTIVE).sum().item() / units.layout.width
                self._dead = {**self._dead, probe.name: dead}
                self._samples_in_window[row] = 0.0
                probe.forget_units()
            self._samples_in_window[row] += samples[row]

    def _micro_batches(self, blocks: Blocks, samples: Sequence[float]) -> MicroBatches | None:
        if "micro-batches" not in blocks:
            return None
        passes, squares, square_of_sum = blocks["micro-batches"].rows[0].tolist()
        return MicroBatches(
            count=round(passes),
            samples=max(samples) / passes / self._ranks,
            squares=squares / passes,
            square_of_mean=square_of_sum / passes**2,
        )

    @property
    def _ranks(self) -> int:
        return 1 if self._group is None else dist.get_world_size(self._group)

    def _layers(self, indices: Sequence[int], samples: Sequence[float], blocks: Blocks) -> LaterLayers:
        """Return the layers that these probes have seen, in the order of their first calls."""
        seen = []
        for row in indices:
            probe = self.probes[row]
            position = row if probe.position is None else probe.position
            seen.append((position, row, probe, probe.shape, probe.counts_zeros))
        make = functools.partial(
            _make_layers,
            self._unless_equal("layers", tuple(sorted(seen, key=operator.itemgetter(0)))),
            samples,
            blocks,
            self._dead,
            self._heads,
            1 / self._ranks,
        )
        return LaterLayers(len(indices), make)


def _make_layers(
    seen: Sequence[tuple[int, int, Probe, tuple[int, ...], bool]],
    samples: Sequence[float],
    blocks: Blocks,
    dead: Mapping[str, float],
    heads: Heads,
    scale: float,
) -> tuple[LayerReading, ...]:
    """Make layers of (position, row of the totals, probe, shape of the output, whether its zeros are saturated inputs).

    Each rank differentiates the mean over its own samples, while gradients are averaged: δ is scaled by 1/ranks, unless
    it is a DTensor.
    """
    parameters = _parameter_readings(blocks)
    totals = blocks["totals"].rows.tolist() if "totals" in blocks else None
    layers = []
    for position, row, probe, shape, counts_zeros in seen:
        total = totals[row] if totals else [0.0] * probes.TOTALS
        output = statistics.unpack(total[probes.OUTPUT])
        entries, saturated = (output.count, output.zeros) if counts_zeros else total[probes.INPUT]
        gradient = statistics.unpack(total[probes.GRADIENT])
        layers.append(
            LayerReading(
                index=position,
                name=probe.name,
                kind=probe.kind,
                activation=probe.activation.key if probe.activation else None,
                shape=tuple(shape),
                samples=samples[row],
                output=output,
                gradient=gradient if scale == 1 or probe.is_global else gradient.scaled(scale),
                saturated_fraction=saturated / entries if entries else None,
                dead_fraction=dead.get(probe.name),
                parameters=parameters.get(probe.name, {}),
                heads=heads.get(probe.name, ()),
            )
        )
    return tuple(layers)


def _parameter_readings(blocks: Blocks) -> dict[str, dict[str, ParameterReading]]:
    """Make a reading of each parameter with a gradient, by layer and name."""
    names: tuple[str, ...] = ("gradient", "weight", "unclipped", "update")
    rows = {name: blocks[name].by_key() for name in names if name in blocks}
    counts = blocks["near epsilon"].by_key() if "near epsilon" in blocks else {}
    near_epsilon = {key: count / entries for key, (entries, count) in counts.items() if entries}
    readings: dict[str, dict[str, ParameterReading]] = {}
    for key, gradient in rows.get("gradient", {}).items():
        layer, name = key
        readings.setdefault(layer, {})[name] = ParameterReading(
            gradient=statistics.unpack(gradient),
            weight=statistics.unpack(rows["weight"][key]),
            unclipped_norm=_norm(rows, "unclipped", key),
            update_norm=_norm(rows, "update", key),
            at_epsilon=near_epsilon.get(key),
        )
    return readings


def _norm(rows: Mapping[str, Mapping[Key, list[float]]], what: str, key: Key) -> float | None:
    row = rows.get(what, {}).get(key)
    return None if row is None else statistics.unpack(row).norm


def _not_seen(blocks: Blocks, names: Collection[str]) -> tuple[str, ...]:
    """Name the parameters with a gradient of which no module in ``names`` was called."""
    if "gradient" not in blocks:
        return ()
    keys = blocks["gradient"].layout.keys
    if all(layer in names for layer, _ in keys):
        return ()
    counts = blocks["gradient"].column(0)
    return tuple(".".join(key) for key, count in zip(keys, counts, strict=True) if count and key[0] not in names)


def _holds_a_skipped_step(blocks: Blocks, finite: bool, skips_itself: bool) -> bool:
    """Tell whether a step that a gradient scaler skipped, because it overflowed, has left its gradients behind.

    One that was not skipped before the optimiser's step is so in it, if the optimiser knows how.
    A gradient that is not finite at a layer's output makes the parameters' gradients so too. Where they are finite, the
    former came from an earlier backward pass. The optimiser was not told of that one, nor was the monitor.

    Args:
        blocks: what was seen.
        finite: whether what hooks saw is known to be.
        skips_itself: as for :meth:`Collector.reading`.
    """
    if "totals" not in blocks or "gradient" not in blocks or not blocks["gradient"].layout.keys:
        return False
    if any(blocks["gradient"].column(statistics.NON_FINITE)):
        return skips_itself
    return not finite and any(blocks["totals"].column(probes.GRADIENT.start + statistics.NON_FINITE))


def _owned(modules: Iterable[nn.Module]) -> tuple[frozenset[int], ...]:
    """Return the parameters of each module by id; of one that has none, those of the module before it."""
    owned: list[frozenset[int]] = []
    for module in modules:
        own = frozenset(map(id, own_parameters(module).values()))
        owned.append(own or (owned[-1] if owned else own))
    return tuple(owned)


def _own(tensor: Tensor) -> Tensor:
    """Return what this rank has to count of a tensor, maybe nothing."""
    own = distributed.own_entries(tensor)
    return own[0] if own else torch.empty(0, dtype=tensor.dtype, device=tensor.device)


def _count_below(limit: float | Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """Return how many entries each tensor has, and how many of them are at most the limit; none is negative."""
    if isinstance(limit, Tensor):
        counts = torch.stack([torch.count_nonzero(tensor <= limit) for tensor in tensors]).double()
        return torch.stack([torch.full_like(counts, tensors[0].numel()), counts], dim=1)
    intervals = torch.tensor([[0.0], [limit]], dtype=torch.float64, device="cpu")
    sums = torch.zeros(len(tensors), 2, dtype=torch.float64, device=tensors[0].device)
    statistics.add_within(sums, tensors, intervals)
    return sums


def _groups_of(optimizer: torch.optim.Optimizer) -> dict[int, dict[str, Any]]:
    return {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}


def _second_moment(
    state: Mapping[str, Any], group: Mapping[str, Any], parameter: Tensor
) -> tuple[Tensor, float | Tensor, float] | None:
    """Return (v, 1 - β₂^t, ε) of an optimiser that divides by √v̂ + ε, once it has made a step.

    Where t is on another device than the CPU, as of a fused optimiser, it stays there.
    """
    moment = next((state[name] for name in ("max_exp_avg_sq", "exp_avg_sq", "square_avg") if name in state), None)
    if not isinstance(moment, Tensor) or moment.shape != parameter.shape or not isinstance(group.get("eps"), float):
        return None
    if moment.is_complex():  # of real and imaginary parts, each by itself
        moment = torch.view_as_real(moment)
    if "betas" not in group or "step" not in state:
        return moment, 1.0, group["eps"]
    step, decay = state["step"], float(group["betas"][1])
    if isinstance(step, Tensor) and not step.is_cpu:
        return moment, 1 - decay**step, group["eps"]
    return moment, 1 - decay ** float(step) or 1.0, group["eps"]
