"""From what hooks and optimisers hold to a reading: everything comes to the host in one copy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch import distributed as dist

from torchact.diagnostics import distributed, statistics
from torchact.diagnostics.noise import MicroBatches, MicroBatchHooks
from torchact.diagnostics.probes import Probe, own_parameters
from torchact.diagnostics.statistics import LayerReading, ParameterReading, Reading, Statistics

Gradients = Mapping[Tensor, Tensor | None]
_Key = tuple[str, ...]  # (layer, what), or (layer, parameter, what)
_Vectors = dict[_Key, Tensor]
_ACTIVE = 1e-5  # a unit is active where its magnitude reaches this: TheDeepChecker's dead neuron, arXiv:2204.00694


class Collector:
    """Knows the probes of a model and its parameters, and makes readings of them.

    Args:
        modules: names and modules that are probed.
        probes: theirs, in the same order.
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
        *,
        window: int,
        epsilons: float,
        group: dist.ProcessGroup | None,
        hooked: bool,
        noise: MicroBatchHooks | None = None,
    ) -> None:
        self.probes = probes
        self.parameters = {name: own_parameters(module) for name, module in modules}
        self._window = window
        self._epsilons = epsilons
        self._group = group
        self._hooked = hooked
        self._noise = noise
        self._samples_in_window = dict.fromkeys(self.parameters, 0.0)
        self._dead: dict[str, float] = {}
        self._unclipped: _Vectors = {}

    def before_clipping(self) -> None:
        """Reduce the parameters' gradients as they are now."""
        self._unclipped = {
            _of(key, "unclipped"): _reduced(gradient) for key, _, gradient in self._with_gradients(None, None)
        }

    def collect(
        self, gradients: Gradients | None, optimizer: torch.optim.Optimizer | None, *, with_parameters: bool
    ) -> _Vectors:
        """Return everything that a reading is made of, on its device.

        Args:
            gradients: the parameters' gradients; by default their ``.grad``.
            optimizer: whose parameters to look at, and its state; by default all parameters.
            with_parameters: whether parameters are wanted.
        """
        vectors: _Vectors = {}
        for probe in self.probes if self._hooked else ():
            vectors[probe.name, "output"] = probe.output
            vectors[probe.name, "gradient"] = probe.gradient
            vectors[probe.name, "input"] = probe.input
            vectors[probe.name, "samples"] = self._samples_of(probe)
            if self._samples_in_window[probe.name] >= self._window and probe.units is not None:
                vectors[probe.name, "units"] = probe.units.double()
        if with_parameters:
            for key, parameter, gradient in self._with_gradients(gradients, optimizer):
                vectors[_of(key, "gradient")] = _reduced(gradient)
                vectors[_of(key, "weight")] = _reduced(parameter)
                state = _second_moment(optimizer, parameter)
                if state is not None:
                    vectors[_of(key, "epsilon")] = _near_epsilon(*state, self._epsilons)
            vectors |= self._unclipped
        if self._noise is not None and self._noise.passes > 1:
            passes = torch.full((1,), float(self._noise.passes), dtype=torch.float64)
            total = self._noise.total()
            vectors["micro-batches",] = torch.cat([passes.to(total.device), total])
        return vectors

    def reading(self, vectors: _Vectors, step: int, optimizer: str | None) -> Reading:
        """Bring what was collected to the host and sort it into layers."""
        values = _WithZeros(self._on_host(vectors)) if vectors else _WithZeros()
        self._close_windows(values)
        learning = {key[0] for key in values if len(key) == 3 and key[-1] == "gradient"}
        seen = [
            (index, probe)
            for index, probe in enumerate(self.probes)
            if values[probe.name, "samples"][0] or (not self._hooked and probe.name in learning)
        ]
        names = {probe.name for _, probe in seen}
        for probe in self.probes:
            self._samples_in_window[probe.name] += values[probe.name, "samples"][0]
        layers = (
            self._layer(index if probe.position is None else probe.position, probe, values) for index, probe in seen
        )
        return Reading(
            step=step,
            layers=tuple(sorted(layers, key=lambda layer: layer.index)),
            silent=tuple(probe.name for probe in self.probes if probe.name not in names),
            unprobed=tuple(
                f"{key[0]}.{key[1]}"
                for key, vector in values.items()
                if key[-1] == "gradient" and len(key) == 3 and key[0] not in names and vector[0]
            ),
            optimizer=optimizer,
            micro_batches=self._micro_batches(values),
        )

    def _micro_batches(self, values: dict[_Key, list[float]]) -> MicroBatches | None:
        measured = values.get(("micro-batches",))
        if measured is None:
            return None
        passes, squares, square_of_sum = measured
        samples = max(values[probe.name, "samples"][0] for probe in self.probes)
        ranks = 1 if self._group is None else dist.get_world_size(self._group)
        return MicroBatches(
            count=round(passes),
            samples=samples / passes / ranks,
            squares=squares / passes,
            square_of_mean=square_of_sum / passes**2,
        )

    def reset(self) -> None:
        """Forget this step."""
        if self._noise is not None:
            self._noise.reset()
        for probe in self.probes:
            probe.reset()
        self._unclipped = {}

    @staticmethod
    def _samples_of(probe: Probe) -> Tensor:
        if probe.samples:
            probe.compiled_samples.add_(probe.samples)
            probe.samples = 0
        return probe.compiled_samples

    def _with_gradients(
        self, gradients: Gradients | None, optimizer: torch.optim.Optimizer | None
    ) -> Iterator[tuple[tuple[str, str], nn.Parameter, Tensor]]:
        """Yield key, parameter and gradient."""
        held = None if optimizer is None else _parameters_of(optimizer)
        for layer, own in self.parameters.items():
            for name, parameter in own.items():
                if held is None or id(parameter) in held:
                    gradient = parameter.grad if gradients is None else gradients.get(parameter)
                    if gradient is not None:
                        yield (layer, name), parameter, gradient

    def _on_host(self, vectors: _Vectors) -> dict[_Key, list[float]]:
        """Copy all vectors to the host at once, merged over the ranks of the group."""
        device = next(iter(vectors.values())).device
        packed = torch.cat([vector.to(device) for vector in vectors.values()])
        lengths = [vector.numel() for vector in vectors.values()]
        if self._group is None:
            rows = [packed.cpu()]
        else:
            rows = [row.cpu() for row in distributed.gathered(packed, self._group)]
        pieces = [row.split(lengths) for row in rows]
        ranks = len(rows)
        return {
            key: pieces[0][i].tolist()
            if ranks == 1 or not self._is_per_rank(key)
            else distributed.merged([piece[i] for piece in pieces], _largest_at(key, lengths[i])).tolist()
            for i, key in enumerate(vectors)
        }

    def _is_per_rank(self, key: _Key) -> bool:
        """Whether entries of different ranks are to be merged: of their own samples, or of shards of a parameter."""
        if len(key) < 3:
            return key != ("micro-batches",)  # those of the first rank stand for all
        return distributed.is_distributed_tensor(self.parameters[key[0]][key[1]])

    def _close_windows(self, values: dict[_Key, list[float]]) -> None:
        for probe in self.probes:
            units = values.get((probe.name, "units"))
            if units is not None:
                self._dead[probe.name] = sum(largest < _ACTIVE for largest in units) / len(units)
                self._samples_in_window[probe.name] = 0.0
                probe.forget_units()

    def _layer(self, index: int, probe: Probe, values: dict[_Key, list[float]]) -> LayerReading:
        input = statistics.unpack(values[probe.name, "input"])
        gradient = statistics.unpack(values[probe.name, "gradient"])
        if self._group is not None:  # each rank differentiates the mean over its own samples; averaged are gradients
            gradient = gradient.scaled(1 / dist.get_world_size(self._group))
        return LayerReading(
            index=index,
            name=probe.name,
            kind=probe.kind,
            activation=probe.activation.key if probe.activation else None,
            shape=probe.shape,
            samples=values[probe.name, "samples"][0],
            output=statistics.unpack(values[probe.name, "output"]),
            gradient=gradient,
            saturated_fraction=input.saturated / input.count if input.count else None,
            dead_fraction=self._dead.get(probe.name),
            parameters={
                name: _parameter_reading(functools.partial(_value, values, (probe.name, name)))
                for name in self.parameters[probe.name]
                if (probe.name, name, "gradient") in values
            },
        )


class _WithZeros(dict[_Key, list[float]]):
    """What was brought to the host; what was not collected, because no hook sees it, is zero."""

    def __missing__(self, key: _Key) -> list[float]:
        return [0.0] * statistics.SIZE


def _of(key: _Key, what: str) -> _Key:
    return (*key, what)


def _value(values: Mapping[_Key, list[float]], key: _Key, what: str) -> list[float] | None:
    return values.get(_of(key, what))


def _parameter_reading(of: Callable[[str], list[float] | None]) -> ParameterReading:
    norms: dict[Literal["unclipped_norm", "update_norm"], float] = {}
    unclipped, update, epsilon = of("unclipped"), of("update"), of("epsilon")
    if unclipped is not None:
        norms["unclipped_norm"] = statistics.unpack(unclipped).norm
    if update is not None:
        norms["update_norm"] = statistics.unpack(update).norm
    return ParameterReading(
        gradient=statistics.unpack(of("gradient") or []),
        weight=statistics.unpack(of("weight") or []),
        at_epsilon=None if epsilon is None or not epsilon[1] else epsilon[0] / epsilon[1],
        **norms,
    )


def updates(before: Mapping[_Key, tuple[nn.Parameter, Tensor]]) -> _Vectors:
    """Return the statistics of what a step has added to each parameter."""
    return {_of(key, "update"): _reduced(parameter.detach() - old) for key, (parameter, old) in before.items()}


def _reduced(tensor: Tensor) -> Tensor:
    sums = None
    for own in distributed.own_entries(tensor.detach()):
        sums = statistics.reduce_tensor(own)
    return torch.zeros(statistics.SIZE, dtype=torch.float64, device=tensor.device) if sums is None else sums


def _largest_at(key: _Key, length: int) -> Sequence[int]:
    if key[-1] == "units":
        return range(length)
    return () if key[-1] in ("samples", "epsilon") else (length - 1,)


def _parameters_of(optimizer: torch.optim.Optimizer) -> set[int]:
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}


def _second_moment(
    optimizer: torch.optim.Optimizer | None, parameter: nn.Parameter
) -> tuple[Tensor, float, float] | None:
    """Return (v, 1 - β₂^t, ε) of an optimiser that divides by √v̂ + ε, once it has made a step."""
    state: Mapping[str, Any] = {} if optimizer is None else optimizer.state.get(parameter, {})
    moment = next((state[name] for name in ("max_exp_avg_sq", "exp_avg_sq", "square_avg") if name in state), None)
    if optimizer is None or not isinstance(moment, Tensor) or moment.shape != parameter.shape:
        return None
    group = next(g for g in optimizer.param_groups if any(p is parameter for p in g["params"]))
    if "eps" not in group or not isinstance(group["eps"], float):
        return None
    correction = 1.0
    if "betas" in group and "step" in state:
        correction = 1 - float(group["betas"][1]) ** float(state["step"])
    return moment, correction or 1.0, group["eps"]


def _near_epsilon(moment: Tensor, correction: float, epsilon: float, multiple: float) -> Tensor:
    """Return (how many entries have √v̂ below a multiple of ε, how many there are)."""
    counts = torch.zeros(2, dtype=torch.float64, device=moment.device)
    for own in distributed.own_entries(moment):
        below = torch.count_nonzero(own < (multiple * epsilon) ** 2 * correction)
        counts = torch.stack([below.double(), torch.full_like(below, own.numel(), dtype=torch.float64)])
    return counts


def holds_a_skipped_step(reading: Reading) -> bool:
    """Tell whether a step that a gradient scaler skipped, because it overflowed, has left its gradients behind.

    A gradient that is not finite at a layer's output makes the parameters' gradients so too. Where they are finite, the
    former came from an earlier backward pass. The optimiser was not told of that one, nor was the monitor.
    """
    gradients: list[Statistics] = [g for layer in reading.layers for g in layer.parameter_gradients.values()]
    overflowed = any(layer.gradient.non_finite for layer in reading.layers)
    finite = bool(gradients) and not any(statistics.non_finite for statistics in gradients)
    return overflowed and finite
