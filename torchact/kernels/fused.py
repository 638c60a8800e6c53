"""Compiled kernels where they take what is asked for, and others elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchact import catalogue
from torchact.kernels.extension import STATUS, is_served, operator
from torchact.kernels.reference import Kernels
from torchact.kernels.tables import HALF_TYPES

_COMPUTED = frozenset((torch.float32, torch.float64))
_FLOATING = _COMPUTED | HALF_TYPES


def _compiles_for(input: Tensor) -> bool:
    """Whether there are compiled kernels for this device other than the CPU, and they take this dtype."""
    return STATUS.cuda and input.is_cuda and input.dtype in _FLOATING


def _numbers(parameters: tuple[Any, ...]) -> tuple[float, ...]:
    """Return the parameters as operators take them: a tensor without dimensions is a number."""
    for parameter in parameters:
        if type(parameter) is not float:
            return tuple(map(float, parameters))
    return parameters  # as they nearly always are


def _limits(parameters: tuple[Any, ...]) -> tuple[float, ...]:
    """Return the same of parameters that may be None, which is no limit."""
    return _numbers(tuple(math.inf if parameter is None else parameter for parameter in parameters))


def fused(
    name: str,
    otherwise: Kernels,
    of_halves: Kernels,
    *,
    forward: bool = True,
    float32: bool = True,
    backward: bool = True,
    quick: bool = False,
) -> Kernels:
    """Return the compiled kernels of a function of one tensor.

    Args:
        name: the operator's.
        otherwise: what runs elsewhere, and everywhere if there are no compiled ones.
        of_halves: what runs for half types on the CPU.
        forward: whether values are to be computed by the compiled kernel.
        float32: whether those of float32 are, on the CPU.
        backward: whether gradients are.
        quick: whether gradients of bfloat16 are, too, on the CPU, in place of ``of_halves``.
    """
    if not STATUS.loaded:
        return otherwise
    compiled = operator(name), operator(f"{name}_backward")
    computed = _COMPUTED if float32 else _COMPUTED - {torch.float32}
    differentiated = _COMPUTED | {torch.bfloat16} if quick else _COMPUTED
    return Kernels(
        _forward(compiled[0], computed, of_halves.forward, otherwise.forward) if forward else otherwise.forward,
        _backward(compiled[1], differentiated, of_halves.backward, otherwise.backward)
        if backward
        else otherwise.backward,
    )


# Sparse and nested tensors have no compiled kernel: that they fail costs others no look at their layout.


def _forward(
    compiled: Callable[..., Tensor],
    computed: frozenset[torch.dtype],
    of_halves: Callable[..., Tensor],
    otherwise: Callable[..., Tensor],
) -> Callable[..., Tensor]:
    def fused_forward(input: Tensor, *parameters: Any) -> Tensor:
        try:
            if input.is_cpu:
                if input.dtype in computed:
                    return compiled(input, *_numbers(parameters)) if parameters else compiled(input)
                if input.dtype in HALF_TYPES:
                    return of_halves(input, *parameters)
            elif _compiles_for(input):
                return compiled(input, *_numbers(parameters))
        except NotImplementedError:
            pass
        return otherwise(input, *parameters)

    return fused_forward


def _backward(
    compiled: Callable[..., Tensor],
    computed: frozenset[torch.dtype],
    of_halves: Callable[..., Tensor],
    otherwise: Callable[..., Tensor],
) -> Callable[..., Tensor]:
    def fused_backward(grad_output: Tensor, saved: Tensor, *parameters: Any) -> Tensor:
        if saved.is_cpu:
            if saved.dtype in computed:
                numbers = _numbers(parameters) if parameters else parameters
                return compiled(grad_output, saved, *numbers)
            if saved.dtype in HALF_TYPES:
                return of_halves(grad_output, saved, *parameters)
        elif _compiles_for(saved):
            return compiled(grad_output, saved, *_numbers(parameters))
        return otherwise(grad_output, saved, *parameters)

    return fused_backward


def fused_pair(name: str, otherwise: Kernels, *, forward: bool = True, sums: bool = False) -> Kernels:
    """Return the compiled kernels of a function of two tensors, or what runs elsewhere.

    Args:
        name: the operator's.
        otherwise: what runs elsewhere.
        forward: whether values are to be computed by the compiled kernel.
        sums: whether many gradients will be summed up, so that those of half types are not to be rounded before.
    """
    if not STATUS.loaded:
        return otherwise
    compiled_forward, compiled_backward = operator(name), operator(f"{name}_backward")

    def takes(first: Tensor, second: Tensor) -> bool:
        return (
            first.dtype is second.dtype
            and first.dtype in _FLOATING
            and first.is_cpu is second.is_cpu
            and is_served(first)
            and is_served(second)
        )

    def fused_forward(first: Tensor, second: Tensor, *parameters: Any) -> Tensor:
        if takes(first, second):
            return compiled_forward(first, second, *_limits(parameters))
        return otherwise.forward(first, second, *parameters)

    def fused_backward(grad_output: Tensor, first: Tensor, second: Tensor, *parameters: Any) -> tuple[Tensor, Tensor]:
        if takes(first, second) and grad_output.dtype is first.dtype:
            if sums and first.dtype in HALF_TYPES:
                grad_output, first, second = grad_output.float(), first.float(), second.float()
            return compiled_backward(grad_output, first, second, *_limits(parameters))
        return otherwise.backward(grad_output, first, second, *parameters)

    return Kernels(fused_forward if forward else otherwise.forward, fused_backward)


def fused_packed(name: str, otherwise: Kernels) -> Kernels:
    """Return the compiled kernels of a gated unit whose halves are packed, or what runs elsewhere."""
    if not STATUS.loaded:
        return otherwise
    compiled_forward, compiled_backward = operator(f"{name}_packed"), operator(f"{name}_packed_backward")

    def takes(input: Tensor, dim: int, gate: catalogue.Gate) -> bool:
        return (
            input.dtype in _FLOATING
            and is_served(input)
            and gate in ("first", "second")
            and -input.dim() <= dim < input.dim()
            and input.size(dim) % 2 == 0
        )

    def fused_forward(input: Tensor, dim: int, gate: catalogue.Gate, *parameters: Any) -> Tensor:
        if takes(input, dim, gate):
            return compiled_forward(input, dim, gate == "first", *_limits(parameters))
        return otherwise.forward(input, dim, gate, *parameters)  # which raises, if it is not the dtype

    def fused_backward(grad_output: Tensor, input: Tensor, dim: int, gate: catalogue.Gate, *parameters: Any) -> Tensor:
        if takes(input, dim, gate) and grad_output.dtype is input.dtype:
            return compiled_backward(grad_output, input, dim, gate == "first", *_limits(parameters))
        return otherwise.backward(grad_output, input, dim, gate, *parameters)

    return Kernels(fused_forward, fused_backward)


_MANY = 8192  # entries from which on a compiled softmax makes up for its call, which takes longer than torch's
_SHORTEST_OF_HALVES = 64  # entries of a row; torch's would go to float32 and back


def fused_normalised(
    key: str, otherwise: Kernels, *, shortest: int, backward: bool = True, on_cuda: bool = False
) -> Kernels:
    """Return the compiled kernels of a softmax: over long rows, and over dimensions that are not the innermost.

    Args:
        key: the activation's.
        otherwise: what runs elsewhere.
        shortest: the length of a row from which on the compiled kernel is faster in float32 and float64.
        backward: whether gradients are to be computed by the compiled kernel on the CPU.
        on_cuda: whether both are on CUDA, where torch's operator obeys autocast and the compiled one would not.
    """
    if not STATUS.loaded:
        return otherwise
    compiled_forward, compiled_backward = operator(key), operator(f"{key}_backward")

    def takes(input: Tensor, dim: int, on_cpu: bool = True) -> bool:
        if not (input.dtype in _FLOATING and is_served(input) and input.is_contiguous()):
            return False
        if not -input.dim() <= dim < input.dim():
            return False
        if not input.is_cpu:
            return on_cuda and not torch.is_autocast_enabled("cuda")
        least, many = (_SHORTEST_OF_HALVES, 0) if input.dtype in HALF_TYPES else (shortest, _MANY)
        return on_cpu and input.numel() >= many and (input.size(dim) >= least or input.stride(dim) != 1)

    def fused_forward(input: Tensor, dim: int) -> Tensor:
        return compiled_forward(input, dim) if takes(input, dim) else otherwise.forward(input, dim)

    def fused_backward(grad_output: Tensor, output: Tensor, dim: int) -> Tensor:
        if takes(output, dim, backward) and grad_output.is_contiguous() and grad_output.dtype is output.dtype:
            return compiled_backward(grad_output, output, dim)
        return otherwise.backward(grad_output, output, dim)

    return Kernels(fused_forward, fused_backward if backward or (on_cuda and STATUS.cuda) else otherwise.backward)
