"""Hooks, and only hooks: what they see is reduced at once, and no reference to an activation or gradient is kept.

Output gradients are taken by a forward hook that calls ``output.register_hook``: it survives in-place activations,
fires once under both kinds of checkpointing, and compiles. ``register_full_backward_hook`` does none of these. An
activation's input is read before the call, because an in-place activation overwrites it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils import _pytree as pytree
from torch.utils.hooks import RemovableHandle

from torchact import catalogue, kernels, modules
from torchact.diagnostics import saturation, statistics

_is_compiling = torch.compiler.is_compiling


class Switch:
    """Shared by all probes of a monitor: whether this step is being recorded, and the order of first calls."""

    def __init__(self) -> None:
        self.on = True
        self.order = itertools.count()


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
    """

    def __init__(self, name: str, module: nn.Module, switch: Switch, saturated_below: float) -> None:
        self.name = name
        self.kind = type(module).__name__
        self.switch = switch
        self.activation = modules.activation_of(module)
        self._slope = _Slope(self.activation, module) if self.activation and self.activation.kind != "gated" else None
        self._saturated_below = saturated_below
        self.position: int | None = None
        self.shape: tuple[int, ...] = ()
        # Allocated once and written in place, because that is what torch.compile takes in a hook.
        device = next((parameter.device for parameter in module.parameters()), None)
        self.output = torch.zeros(statistics.SIZE, dtype=torch.float64, device=device)
        self.gradient = torch.zeros_like(self.output)
        self.saturated = torch.zeros_like(self.output[:2])  # (saturated inputs, all inputs)
        self._recording = False
        self._calls_without_grad = 0
        self._hooks_on_leaves: list[RemovableHandle] = []

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies, which a copied or unpickled model brings along, see nothing: no monitor reads them."""
        return _blind_probe, ()

    def reset(self) -> None:
        """Forget what was recorded."""
        if self.switch.on:  # else nothing was added
            for total in (self.output, self.gradient, self.saturated):
                total.zero_()
        self._recording = False
        self._calls_without_grad = 0
        self.release_leaves()

    def release_leaves(self) -> None:
        """Remove the hooks on tensors that outlive the step: a module may hand back its input, as an identity does."""
        for handle in self._hooks_on_leaves:
            handle.remove()
        self._hooks_on_leaves.clear()

    def attach(self, module: nn.Module) -> Iterator[RemovableHandle]:
        """Register the hooks and yield their handles."""
        yield module.register_forward_pre_hook(self._before, with_kwargs=True)
        yield module.register_forward_hook(self._after)

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._recording = self.switch.on and self._is_first_pass(module)
        if self._recording and self._slope is not None:
            with torch.no_grad():
                for input in _floating_tensors((args, kwargs)):
                    self._on_device_of(input)
                    self.saturated.add_(self._count_saturated(self._slope, module, input.detach()))

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not self._recording:
            return
        if self.position is None and not _is_compiling():
            self.position = next(self.switch.order)
        with torch.no_grad():
            for tensor in _floating_tensors(output):
                self.shape = tuple(tensor.shape[1:])
                self._on_device_of(tensor)
                self.output.copy_(statistics.merge_reduced(self.output, statistics.reduce_tensor(tensor)))
        for tensor in _floating_tensors(output):
            if tensor.requires_grad:
                handle = tensor.register_hook(self._on_gradient)
                if not _is_compiling() and tensor.is_leaf:
                    self._hooks_on_leaves.append(handle)

    def _on_gradient(self, gradient: Tensor) -> None:
        if not _is_compiling() and torch._C._are_functorch_transforms_active():
            return  # batched gradients: a gradient of the gradients, not of the loss
        with torch.no_grad():
            self.gradient.copy_(statistics.merge_reduced(self.gradient, statistics.reduce_tensor(gradient)))

    def _on_device_of(self, tensor: Tensor) -> None:
        """Follow a model that was moved after the monitor was attached."""
        if not _is_compiling() and self.output.device != tensor.device:
            self.output, self.gradient, self.saturated = (
                total.to(tensor.device) for total in (self.output, self.gradient, self.saturated)
            )

    def _count_saturated(self, slope: _Slope, module: nn.Module, input: Tensor) -> Tensor:
        """Return (saturated, count) as a vector."""
        if not _is_compiling() and kernels.is_one_pass(input):
            intervals = slope.intervals(self._saturated_below)
            if intervals is not None:
                reduced = statistics.reduce_tensor(input, intervals)
                return torch.stack((reduced[statistics.SATURATED], reduced[0]))
        steepness, greatest = slope(module, input)
        saturated = torch.count_nonzero(steepness <= self._saturated_below * greatest)
        return torch.stack((saturated, torch.full_like(saturated, input.numel()))).double()

    def _is_first_pass(self, module: nn.Module) -> bool:
        """Tell a training pass from an evaluation, and a first pass from the recomputation of a checkpoint.

        A checkpoint with ``use_reentrant=True`` runs first without gradients, and then the recomputation is the pass to
        record; with ``use_reentrant=False`` the first pass has gradients, and the recomputation is a repetition.
        """
        if _is_compiling():
            return torch.is_grad_enabled()
        if torch._C._are_functorch_transforms_active():
            return False
        if not torch.is_grad_enabled():
            self._calls_without_grad += module.training
            return False
        if torch._C._current_graph_task_id() == -1:
            self._calls_without_grad = 0  # those were another's, an evaluation's in training mode say
            return True
        if self._calls_without_grad == 0:
            return False
        self._calls_without_grad -= 1
        return True


class _Slope:
    """|φ'| of an activation with the parameters of its module. What is learnt changes, and is read at every call."""

    def __init__(self, activation: catalogue.Activation, module: nn.Module) -> None:
        parameters = activation.parameters_of(module)
        self.activation = activation
        self.derivative = activation.derivative
        self.learnt = tuple(name for name, value in parameters.items() if isinstance(value, Tensor))
        self.fixed = {name: value for name, value in parameters.items() if name not in self.learnt}
        greatest = math.nan if self.learnt else activation.max_derivative(**self.fixed)
        self.greatest = 0.0 if math.isinf(greatest) else greatest  # beside an infinite slope, none is small but 0

    def intervals(self, fraction: float) -> Tensor | None:
        """Return where |φ'| is at most this fraction of its greatest, if those are intervals that do not change."""
        if self.learnt or not self.activation.elementwise:
            return None
        return saturation.saturated_intervals(self.activation, tuple(sorted(self.fixed.items())), fraction)

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


def _blind_probe() -> Probe:
    probe = Probe.__new__(Probe)
    probe.switch = Switch()
    probe.switch.on = False
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


def _floating_tensors(tree: Any) -> list[Tensor]:
    leaves = pytree.tree_leaves(tree)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())]
