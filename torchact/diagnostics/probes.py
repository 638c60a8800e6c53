"""Hooks, and only hooks: what they see is reduced at once, and no reference to an activation or gradient is kept.

Output gradients are taken by a forward hook that puts a hook on the output: this survives in-place activations, fires
once under both kinds of checkpointing, and compiles. ``register_full_backward_hook`` does none of these. An
activation's input is read after the call; of one that works in place before, because it is overwritten.

A training step throws the code of hooks out of the caches. What they call then costs a microsecond and more for each
function, whatever it does: there is a short way for the tensors that nearly all are.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils import _pytree as pytree
from torch.utils.hooks import RemovableHandle, unserializable_hook

from torchact import catalogue, kernels, modules
from torchact.diagnostics import distributed, saturation, statistics
from torchact.diagnostics.heads import HeadFinder

Signal = Literal["outputs", "gradients", "parameters"]
_is_compiling = torch.compiler.is_compiling
_functorch_is_active = torch._C._are_functorch_transforms_active
_HOOKS_ARE_DICTIONARIES = hasattr(torch._C._FunctionBase, "_register_hook_dict")
_is_traced = torch._C._is_tracing
_graph_task = torch._C._current_graph_task_id  # of the backward pass that runs, or -1
_CHANNELS_FIRST = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
)

# Where in a probe's totals its statistics lie: of outputs; of their gradients, with exponents; the entries of an
# activation's input, and how many of them are saturated; samples of compiled calls.
OUTPUT = slice(0, statistics.SIZE)
GRADIENT = slice(OUTPUT.stop, OUTPUT.stop + statistics.BINNED)
INPUT = slice(GRADIENT.stop, GRADIENT.stop + 2)
SAMPLES = INPUT.stop
TOTALS = SAMPLES + 1


class Switch:
    """Shared by all probes of a monitor: whether this step is being recorded, and the order of first calls."""

    def __init__(self) -> None:
        self.on = True
        self.probes: tuple[Probe, ...] = ()
        # Whether hooks were called, and in eager mode alone. Else torch.compile may need them: it takes what is there.
        self.called = False
        self.compiled = False
        self.order = itertools.count()
        self.channels_first = False  # whether the last layer with parameters puts units into dimension 1
        self.moved = False  # whether a probe's totals have followed its module to another device
        self.heads = HeadFinder()

    def turn(self, on: bool) -> None:
        """Record the coming calls, or do not; then modules lose their hooks, without which torch calls them faster."""
        if on != self.on:
            self.on = on
            for probe in self.probes:
                if on:
                    probe.wake()
                elif self.called and not self.compiled:
                    probe.rest()


class Probe:
    """One module's hooks, and what they have added up since :meth:`reset`.

    An activation's input z is saturated where |φ'(z)| is at most a fraction of max |φ'|; where that is infinite, only
    where φ'(z) = 0. The inputs of a gated unit are not counted: how much of a gradient passes its gate depends on what
    is gated.

    Args:
        name: the module's qualified name.
        module: the module to watch.
        switch: the monitor's; nothing is recorded while it is off.
        saturated_below: that fraction.
        signals: which of ``"outputs"`` and ``"gradients"`` to record.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        switch: Switch,
        saturated_below: float,
        signals: frozenset[Signal] = frozenset({"outputs", "gradients"}),
    ) -> None:
        self.name = name
        self.kind = type(module).__name__
        self.switch = switch
        self.activation = modules.activation_of(module)
        self._sees_outputs = "outputs" in signals
        self._sees_gradients = "gradients" in signals
        self._slope: _Slope | None = None
        self.counts_zeros = self.has_units = False  # the former: whether zeros of the output are saturated inputs
        if self._sees_outputs and self.activation is not None and self.activation.kind != "gated":
            self.has_units = saturation.has_dead_side(self.activation)
            self._slope = _Slope(self.activation, module, saturated_below)
        self._owns_parameters = bool(own_parameters(module))
        self._channels_first = isinstance(module, _CHANNELS_FIRST) if self.activation is None else None
        self.position: int | None = None
        self.shape: tuple[int, ...] = ()
        self.is_global = False  # whether outputs are DTensors, whose gradients are those of the loss of all ranks
        # Allocated once and written in place, because that is what torch.compile takes in a hook.
        device = next((parameter.device for parameter in module.parameters()), None)
        self.place(torch.zeros(TOTALS, dtype=torch.float64, device=device))
        self.samples = 0  # of uncompiled calls; those of compiled ones are the last of the totals
        self.calls = 0  # uncompiled ones
        self.has_gradient = False  # whether one has come to their outputs
        self.is_kept = False  # whether what was recorded is of before another optimiser's step; see the collector
        self.units: Tensor | None = None  # largest |output| of each unit since :meth:`forget_units`
        self._units_at: tuple[Tensor | None, int, int] = (None, 0, 0)  # they, their address on the CPU, their number
        self._own_forward = True  # whether the module computes as torch's or torchact's class does
        self._begun: bool | None = None  # whether a call that has begun is recorded, if that was asked
        self._number = 0  # of the call, while heads are looked for
        self._calls_without_grad = 0
        self._hooks_on_leaves: list[RemovableHandle] = []
        self._hooks: list[RemovableHandle] = []

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies, which a copied or unpickled model brings along, see nothing: no monitor reads them."""
        return _blind_probe, ()

    def reset(self) -> None:
        """Forget what was recorded, but for the units and the totals, which the collector sets to zero."""
        self.samples = self.calls = 0
        self.has_gradient = self.is_kept = False
        self._begun = None
        self._calls_without_grad = 0
        self.release_leaves()

    def forget_units(self) -> None:
        """Begin another window in which units may be active."""
        if self.units is not None:
            self.units.zero_()

    def release_leaves(self) -> None:
        """Remove the hooks on tensors that outlive the step: a module may hand back its input, as an identity does."""
        for handle in self._hooks_on_leaves:
            handle.remove()
        self._hooks_on_leaves.clear()

    def attach(self, module: nn.Module) -> None:
        """Register the hooks with the module to watch."""
        self._module = weakref.ref(module)
        self.wake()

    def wake(self) -> None:
        """Register the hooks again after :meth:`rest`."""
        module = self._module()
        if module is None or self._hooks or not (self._sees_outputs or self._sees_gradients):
            return
        if self._slope is not None:
            self._own_forward = modules.has_own_forward(module)
            zeros_tell = saturation.zeros_are_saturated(self._slope.activation) and self._own_forward
            self.counts_zeros = zeros_tell and not module._forward_hooks
            if not self.counts_zeros and self._may_overwrite_inputs(module):
                self._hooks.append(module.register_forward_pre_hook(self._before, with_kwargs=True))
        self._hooks.append(module.register_forward_hook(self._after, with_kwargs=True))

    def rest(self) -> None:
        """Remove the hooks until :meth:`wake`, unless others are beside them, whose order would change."""
        module = self._module()
        if module is not None and len(module._forward_hooks) + len(module._forward_pre_hooks) == len(self._hooks):
            self._remove_hooks()

    def detach(self) -> None:
        """Remove all hooks for good."""
        self._remove_hooks()
        self.release_leaves()

    def _remove_hooks(self) -> None:
        for handle in self._hooks:
            handle.remove()
        self._hooks.clear()

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._begun = self._begins(module)
        if self._begun:
            self._see_inputs(module, args, kwargs)

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        begun, self._begun = self._begun, None
        if begun is None:
            begun = self._begins(module)
            if begun and not (self._slope is None or self.counts_zeros or self._may_overwrite_inputs(module)):
                self._see_inputs(module, args, kwargs)
        if not begun:
            return
        if self.position is None and not _is_compiling():
            self.position = next(self.switch.order)
        if self._channels_first is not None:
            self.switch.channels_first = self._channels_first
        if not _is_compiling() and self.switch.heads.is_open:
            self._number += 1
        for tensor in _tensors(output):
            self._record(tensor)
            self._hook(tensor)

    def _begins(self, module: nn.Module) -> bool:
        """Tell whether this call is recorded, once for each; then forget what does not belong to its step."""
        begins = self.switch.on and self._is_first_pass(module)
        if begins and self.is_kept:
            self._begin_again()
        return begins

    def _may_overwrite_inputs(self, module: nn.Module) -> bool:
        return not self._own_forward or bool(getattr(module, "inplace", False))

    def _see_inputs(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Count the entries of an activation's input, and those that are saturated."""
        slope = self._slope
        if slope is None:
            return
        for input in _tensors((args, kwargs) if kwargs else args):
            flat = self._flat(input)
            at = None if flat is None else slope.intervals_at
            if flat is not None and at is not None:
                kernels.add_within_at(self._inputs_at, *at, *flat)
            elif _is_recordable(input):
                for own in distributed.own_entries(input.detach()):
                    self._see_input(slope, module, own)

    def _begin_again(self) -> None:
        """Forget calls before another optimiser's step: this one is what the own optimiser's step comes from."""
        self.samples = self.calls = 0
        self.is_kept = False
        self.totals.zero_()

    def _hook(self, output: Tensor) -> None:
        if not self._sees_gradients:
            return
        if _HOOKS_ARE_DICTIONARIES and type(output) is Tensor and not _is_compiling():
            node: Any = output.grad_fn
            if node is not None and output._backward_hooks is None:
                # What register_hook does but for its handle, in half the time. Handles have numbers from 0.
                output._backward_hooks = OrderedDict({-1: self._on_gradient})
                node._register_hook_dict(output)
                if self.switch.heads.is_open:
                    self._note(node)
                return
        if not output.requires_grad:
            return
        handle = output.register_hook(self._on_gradient)
        if _is_compiling():
            return
        if output.is_leaf:
            self._hooks_on_leaves.append(handle)
        elif self.switch.heads.is_open:
            self._note(output.grad_fn)

    def _note(self, node: Any) -> None:
        """Note where in the graph a layer's output comes from. What a checkpoint recomputes is a graph of its own."""
        if _graph_task() != -1:
            self.switch.heads.give_up()
        elif self._owns_parameters:
            self.switch.heads.note((self.name, self._number), node)

    def _flat(self, tensor: Any) -> kernels.Flat | None:
        """Return where the entries are if the short way takes them."""
        return None if _is_compiling() or not self._outputs_at else kernels.flat(tensor)

    def _record(self, output: Tensor) -> None:
        flat = self._flat(output)
        if flat is not None:
            self._record_at_once(output, flat)
        elif _is_recordable(output):
            self._record_slowly(output)

    def _record_at_once(self, output: Tensor, flat: kernels.Flat) -> None:
        """Record an output by the short way."""
        shape = output.shape
        self.shape, self.is_global = shape[1:], False
        self.samples += shape[0] if shape else 1
        self.calls += 1
        if not self._sees_outputs:
            return
        kernels.add_statistics_at(self._outputs_at, False, *flat)
        if self.has_units and len(shape) > 1 and flat[1]:
            dim = self._dim_of_units(shape)
            count, outer = shape[dim], math.prod(shape[:dim])
            units, address, known = self._units_at
            if units is not self.units or known != count:  # compiled calls may have begun others
                units, address, known = self._begin_units(count, output.device)
            kernels.add_largest_of_units_at(address, outer, count, flat[1] // (outer * count), *flat)

    def _record_slowly(self, output: Tensor) -> None:
        self.shape, self.is_global = output.shape[1:], distributed.is_distributed_tensor(output)
        samples = distributed.own_samples(output)
        if _is_compiling():
            self._parts_for(output).samples.add_(samples)
        else:
            self.samples += samples
            self.calls += 1
        if not self._sees_outputs:
            return
        for own in distributed.own_entries(output.detach()):
            statistics.add_reduced(self._parts_for(own).output, own)
            if self.has_units and own.dim() > 1 and own.numel() and own.shape[1:] == output.shape[1:]:
                self._see_units(own)

    def _see_units(self, output: Tensor) -> None:
        """Raise each unit's largest magnitude."""
        dim = self._dim_of_units(output.shape)
        count = output.shape[dim]
        if self.units is None or self.units.shape[0] != count or self.units.device != output.device:
            self._begin_units(count, output.device)
        units = cast(Tensor, self.units)
        if not _is_compiling() and kernels.is_one_pass(output) and output.is_contiguous():
            kernels.add_largest_of_units(units, output, dim)
        else:
            others = [other for other in range(output.dim()) if other != dim]
            units.copy_(torch.maximum(units, output.detach().abs().amax(others).float()))

    def _dim_of_units(self, shape: Sequence[int]) -> int:
        """Return where units lie: along dimension 1 behind convolutions, else along the last."""
        return 1 if self.switch.channels_first else len(shape) - 1

    def _begin_units(self, count: int, device: torch.device) -> tuple[Tensor | None, int, int]:
        self.units = torch.zeros(count, dtype=torch.float32, device=device)
        if not _is_compiling():
            flat = kernels.flat(self.units)
            self._units_at = (self.units, *flat[:2]) if flat else (None, 0, 0)
        return self._units_at

    @unserializable_hook
    def _on_gradient(self, gradient: Tensor) -> None:
        if gradient is None:  # of one of several outputs, from which the loss was not computed
            return
        if not _is_compiling():
            if _functorch_is_active():
                return  # batched gradients: a gradient of the gradients, not of the loss
            self.has_gradient, self.is_kept = True, False
            flat = self._flat(gradient)
            if flat is not None:
                kernels.add_statistics_at(self._gradients_at, True, *flat)
                return
        for own in distributed.own_entries(gradient.detach()):
            statistics.add_reduced(self._parts_for(own).gradient, own)

    def _parts_for(self, tensor: Tensor) -> _Parts:
        """Return the parts of the totals, which follow a model that was moved after the monitor was attached."""
        if _is_compiling():  # which takes writes through views of one tensor better if the hook makes the views
            return _parts(self.totals)
        if self.totals.device != tensor.device:
            self.place(self.totals.to(tensor.device))
            self.switch.moved = True
        return self._parts

    def place(self, totals: Tensor) -> None:
        """Have the totals in this tensor."""
        self.totals = totals
        self._parts = _parts(totals)
        flat = kernels.flat(totals)
        parts = (OUTPUT, GRADIENT, INPUT)  # and their addresses for the short way, or zero where it is none
        starts = [flat[0] + part.start * totals.element_size() if flat else 0 for part in parts]
        self._outputs_at, self._gradients_at, self._inputs_at = starts

    def _see_input(self, slope: _Slope, module: nn.Module, input: Tensor) -> None:
        sums = self._parts_for(input).input
        intervals = None if _is_compiling() or input.is_complex() or input.is_sparse else slope.intervals
        if intervals is not None:
            statistics.add_within(sums, [input], intervals)
        else:
            steepness, greatest = slope(module, input)
            sums[0].add_(input.numel())
            sums[1].add_(torch.count_nonzero(steepness <= slope.fraction * greatest))

    def _is_first_pass(self, module: nn.Module) -> bool:
        """Tell a training pass from an evaluation, and a first pass from the recomputation of a checkpoint.

        A checkpoint with ``use_reentrant=True`` runs first without gradients, and then the recomputation is the pass to
        record; with ``use_reentrant=False`` the first pass has gradients, and the recomputation is a repetition.
        """
        if _is_compiling():
            self.switch.compiled = True
            return torch.is_grad_enabled()
        self.switch.called = True
        if _functorch_is_active():
            return False
        if not torch.is_grad_enabled():
            self._calls_without_grad += module.training
            return False
        if _graph_task() == -1:
            self._calls_without_grad = 0  # those were another's, an evaluation's in training mode say
            return True
        if self._calls_without_grad == 0:
            return False
        self._calls_without_grad -= 1
        return True


class _Parts(NamedTuple):
    """Views of the totals of a probe."""

    output: Tensor
    gradient: Tensor
    input: Tensor
    samples: Tensor


def _parts(totals: Tensor) -> _Parts:
    return _Parts(totals[OUTPUT], totals[GRADIENT], totals[INPUT], totals[SAMPLES:])


class _Slope:
    """|φ'| of an activation with the parameters of its module. What is learnt changes, and is read at every call.

    Args:
        activation: the catalogue's record.
        module: whose parameters it has.
        fraction: of max |φ'|, up to which it is saturated.
    """

    def __init__(self, activation: catalogue.Activation, module: nn.Module, fraction: float) -> None:
        parameters = activation.parameters_of(module)
        self.activation = activation
        self.fraction = fraction
        self.derivative = activation.derivative
        self.learnt = tuple(name for name, value in parameters.items() if isinstance(value, Tensor))
        self.fixed = {name: value for name, value in parameters.items() if name not in self.learnt}
        greatest = math.nan if self.learnt else activation.max_derivative(**self.fixed)
        self.greatest = 0.0 if math.isinf(greatest) else greatest  # beside an infinite slope, none is small but 0

    @functools.cached_property
    def intervals(self) -> Tensor | None:
        """Where |φ'| is at most the fraction of its greatest, if those are intervals that do not change."""
        if self.learnt or not self.activation.elementwise:
            return None
        return saturation.saturated_intervals(self.activation, tuple(sorted(self.fixed.items())), self.fraction)

    @functools.cached_property
    def intervals_at(self) -> tuple[int, int] | None:
        """Their address, and how many they are."""
        return None if self.intervals is None else (self.intervals.data_ptr(), self.intervals.shape[1])

    def __call__(self, module: nn.Module, input: Tensor) -> tuple[Tensor, float | Tensor]:
        """Return |φ'(input)|, and max |φ'| over all inputs and all entries of what is learnt."""
        if not self.learnt:
            return self.derivative(input, **self._with_dimension(input)).abs(), self.greatest
        learnt = {name: getattr(module, name).detach() for name in self.learnt}
        flat = {name: value.flatten() for name, value in learnt.items()}
        everywhere = self.derivative(_wide_grid(input.device), **self.fixed, **flat)
        return self.derivative(input, **self.fixed, **learnt).abs(), everywhere.abs().max()

    def _with_dimension(self, input: Tensor) -> dict[str, Any]:
        """Return the fixed parameters, with the dimension that torch's softmaxes choose where none is given."""
        if self.fixed.get("dim", -1) is not None:
            return self.fixed
        return {**self.fixed, "dim": 0 if input.dim() in (0, 1, 3) else 1}


def _wide_grid(device: torch.device) -> Tensor:
    """Return a column of inputs: 0, and from ±0.001 to ±1000, each 9 % from the next.

    A smooth maximum of |φ'(x)| that lies where a learnt parameter puts it is met to a few parts in 1,000.
    """
    grid = torch.logspace(-10, 10, 161, base=2.0, dtype=torch.float32, device=device)
    return torch.cat((-grid, torch.zeros_like(grid[:1]), grid)).unsqueeze(1)


def _is_recordable(tensor: Tensor) -> bool:
    """Whether a tensor has numbers to look at, and torch.jit would not take that for a part of the model."""
    return (tensor.is_floating_point() or tensor.is_complex()) and (_is_compiling() or not _is_traced())


def _blind_probe() -> Probe:
    probe = Probe.__new__(Probe)
    probe.switch = Switch()
    probe.switch.on = False
    probe._begun = None
    return probe


def watchable(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules to probe, with their qualified names: those that own parameters, and the activations.

    A parametrisation (weight norm, spectral norm) is no layer: it belongs to the module whose weight it makes.
    """
    for name, module in model.named_modules():
        if ".parametrizations." not in f".{name}." and (
            own_parameters(module) or modules.activation_of(module) is not None
        ):
            yield name or type(module).__name__, module


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that ``module`` has itself, not those of its children, by name."""
    parameters = {name: parameter for name, parameter in module._parameters.items() if parameter is not None}
    if parametrize.is_parametrized(module):
        parametrizations = cast(nn.Module, module.parametrizations)
        parameters |= dict(parametrizations.named_parameters())
    return parameters


def _tensors(tree: Any) -> Sequence[Tensor]:
    """Return the tensors in nested tuples, lists, dictionaries and dataclasses."""
    if type(tree) is Tensor:  # nearly always
        return (tree,)
    if type(tree) is tuple and all(leaf is None or type(leaf) is Tensor for leaf in tree):
        return [leaf for leaf in tree if leaf is not None]
    found: list[Tensor] = []
    for leaf in pytree.tree_leaves(tree):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            found += _tensors([getattr(leaf, entry.name) for entry in dataclasses.fields(leaf)])
    return found
