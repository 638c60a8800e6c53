"""Kernels in plain torch: a formula, in float64 on the CPU wherever the input's dtype is not accurate enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchact import catalogue
from torchact.kernels import tables
from torchact.kernels.tables import HALF_TYPES


class Kernels(NamedTuple):
    """The pair of kernels of one activation."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]


FLOATING = frozenset((torch.float64, torch.float32, *HALF_TYPES))


def is_wide(tensor: Tensor) -> bool:
    """Whether a computation on this tensor can run in float64."""
    return tensor.is_cpu and tensor.dtype in FLOATING and tensor.layout is torch.strided and not tensor.is_nested


def widened(tensor: Tensor) -> Tensor:
    """Return the tensor in the dtype that gradients are computed in: float64 on the CPU, else at least float32."""
    return tensor.double() if tensor.is_cpu else tensor.to(torch.promote_types(tensor.dtype, torch.float32))


_PIECE = 2**20  # entries computed at a time, so that float64 copies stay small beside a large tensor


def _by_pieces(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Return ``function(*tensors)`` in the dtype of the last tensor, of large contiguous ones piece by piece."""
    last = tensors[-1]
    if last.numel() <= _PIECE or not all(tensor.is_contiguous() for tensor in tensors):
        return function(*tensors).to(last.dtype)
    result = torch.empty_like(last)
    pieces = (tensor.view(-1).split(_PIECE) for tensor in (result, *tensors))
    for into, *operands in zip(*pieces, strict=True):
        into.copy_(function(*operands))
    return result


def rounded_once(
    value: Callable[..., Tensor],
    derivative: Callable[..., Tensor],
    torch_forward: Callable[..., Tensor] | None = None,
    torch_backward: Callable[..., Tensor] | None = None,
    *,
    wide_forward: frozenset[torch.dtype] = FLOATING,
    wide_backward: frozenset[torch.dtype] = FLOATING,
) -> Kernels:
    """Return kernels that evaluate formulas in float64 on the CPU.

    Args:
        value: φ in plain torch.
        derivative: φ' in plain torch, as a function of the input.
        torch_forward: what runs on other devices and dtypes, by default ``value``; complex and integer inputs get its
            result or its error.
        torch_backward: the same for the derivative; by default ``derivative``, half types in float32.
        wide_forward: the dtypes that are not accurate enough to evaluate ``torch_forward`` in.
        wide_backward: the same for the derivative.
    """
    otherwise = torch_forward or value

    def forward(input: Tensor, *parameters: Any) -> Tensor:
        if input.dtype in wide_forward and is_wide(input):
            if input.dtype in HALF_TYPES and tables.is_tabulated(value, parameters, input):
                return tables.value(value, parameters, input)
            return _by_pieces(lambda piece: value(piece.double(), *parameters), input)
        return otherwise(input, *parameters)

    def backward(grad_output: Tensor, input: Tensor, *parameters: Any) -> Tensor:
        if input.dtype not in wide_backward:
            if torch_backward is not None:
                return torch_backward(grad_output, input, *parameters)
            return derivative(input, *parameters) * grad_output
        if not is_wide(input):
            if torch_backward is not None:
                return torch_backward(grad_output, input, *parameters)
            return (derivative(widened(input), *parameters) * widened(grad_output)).to(grad_output.dtype)
        if input.dtype in HALF_TYPES:
            if tables.is_tabulated(derivative, parameters, input):
                return tables.product(derivative, parameters, grad_output, input)
            slope = derivative(input.double(), *parameters).float()
            return (slope * grad_output.float()).to(grad_output.dtype)
        return _by_pieces(
            lambda piece, grad_piece: derivative(piece.double(), *parameters) * grad_piece.double(), input, grad_output
        )

    return Kernels(forward, backward)


def of_record(
    key: str,
    torch_forward: Callable[..., Tensor] | None = None,
    torch_backward: Callable[..., Tensor] | None = None,
    *,
    wide_forward: frozenset[torch.dtype] = FLOATING,
    wide_backward: frozenset[torch.dtype] = FLOATING,
) -> Kernels:
    """Return :func:`rounded_once` of the formulas that the catalogue has under this key."""
    record = catalogue.CATALOGUE[key]
    return rounded_once(
        record.value,
        record.derivative,
        torch_forward,
        torch_backward,
        wide_forward=wide_forward,
        wide_backward=wide_backward,
    )


def of_two(pair: catalogue.Pair) -> Kernels:
    """Return kernels of a function of two tensors, evaluated in float64 on the CPU."""

    def forward(first: Tensor, second: Tensor, *parameters: Any) -> Tensor:
        if is_wide(first) and is_wide(second):
            result = pair.value(first.double(), second.double(), *parameters)
            return result.to(pair.result_type(first, second))
        result = pair.value(first, second, *parameters)
        return result.to(pair.result_type(first, second)) if first.is_floating_point() else result

    def backward(grad_output: Tensor, first: Tensor, second: Tensor, *parameters: Any) -> tuple[Tensor, Tensor]:
        by_first, by_second = pair.partials(widened(first), widened(second), *parameters)
        wide = widened(grad_output)
        return by_first * wide, by_second * wide

    return Kernels(forward, backward)


def of_halves(pair: Kernels) -> Kernels:
    """Return kernels of a gated unit whose halves are packed, from those of its halves.

    They take (input, dim, gate, *parameters) and (grad_output, input, dim, gate, *parameters).
    """

    def forward(input: Tensor, dim: int, gate: catalogue.Gate, *parameters: Any) -> Tensor:
        return pair.forward(*catalogue.halves(input, dim, gate), *parameters)

    def backward(grad_output: Tensor, input: Tensor, dim: int, gate: catalogue.Gate, *parameters: Any) -> Tensor:
        by_value, by_gate = pair.backward(grad_output, *catalogue.halves(input, dim, gate), *parameters)
        return torch.cat(catalogue.in_order(by_value, by_gate, gate), dim).to(input.dtype)

    return Kernels(forward, backward)
