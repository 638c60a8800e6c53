"""All that the diagnostics want to know of a tensor, in one pass over it.

What writes into sums takes tensors that require gradients as they are: autograd does not see these operators.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torchact.kernels.extension import STATUS, function, is_served, operator
from torchact.kernels.reference import FLOATING

NO_INTERVALS = torch.empty(2, 0, dtype=torch.float64, device="cpu")

BINS = 64  #: of exponents, each of four powers of 2, from 2⁻¹²⁷


def _missing(*operands: Any) -> Any:
    raise RuntimeError(f"tensor: no compiled kernel reduces it; {STATUS}")


def _operator(name: str) -> Callable[..., Any]:
    return operator(name) if STATUS.loaded else _missing


_statistics = _operator("statistics")
_add_statistics = _operator("add_statistics")
_add_statistics_of_each = _operator("add_statistics_of_each")
_add_within_of_each = _operator("add_within_of_each")
_add_largest_of_units = _operator("add_largest_of_units")

# The same for entries that :func:`flat` finds, by addresses, which nothing checks. An operator takes 5 to 15 µs longer
# to call where its code has left the caches, as in a training step.
_function = function if STATUS.loaded else lambda name: _missing
#: (address of the sums, whether they have bins, *flat)
add_statistics_at = _function("add_statistics")
#: (address of the sums, that of the intervals' ends, how many, *flat)
add_within_at = _function("add_within")
#: (address of the largest magnitudes, outer, units, inner, *flat)
add_largest_of_units_at = _function("add_largest_of_units")
#: (a list of what is flat) -> a bytearray of seven float64 numbers for each
statistics_of_each_at = _function("statistics_of_each")
#: (address, count) of float64 numbers -> (a bytearray of them, whether all are finite); what is left are zeros
take = _function("take")

_TYPES = {dtype: i for i, dtype in enumerate((torch.float32, torch.float64, torch.bfloat16, torch.float16))}

_PLAIN = {Tensor, nn.Parameter}  # other classes may keep their entries elsewhere

Flat = tuple[int, int, int]

MOST_INTERVALS = 8  #: that a kernel for CUDA takes


def is_one_pass(tensor: Tensor) -> bool:
    """Whether compiled kernels reduce this tensor: there are some, and they take its device and dtype."""
    return STATUS.loaded and tensor.dtype in FLOATING and is_served(tensor)


def flat(tensor: Any) -> Flat | None:
    """Return where a tensor's entries are, as compiled kernels take them that are called by addresses.

    Args:
        tensor: anything.

    Returns:
        The address of the first entry, their number and their type, while the tensor lives; None where there is no
        compiled kernel, or this is no tensor on the CPU, of a floating-point dtype, with its entries side by side; and
        None while torch.jit traces.
    """
    if not STATUS.loaded or type(tensor) not in _PLAIN or not tensor.is_cpu:
        return None
    kind = _TYPES.get(tensor.dtype)
    if kind is None:
        return None
    try:
        if not tensor.is_contiguous():
            return None
        address = tensor.data_ptr()
    except RuntimeError:  # sparse, or a wrapper of functorch's
        return None
    count = tensor.numel()
    if type(count) is not int:  # but a tensor: torch.jit traces
        return None
    if count and not address:  # zero by itself, or its memory was freed
        return None
    if count == 1 and tensor.is_neg():  # the imaginary part of a conjugate, of which two lie apart
        return None
    return address, count, kind


def statistics(tensor: Tensor, intervals: Tensor = NO_INTERVALS, exponents: bool = False) -> Tensor:
    """Reduce a tensor with entries x_i in one pass, by the compiled kernel.

    Args:
        tensor: any shape and strides, of a floating-point dtype on the CPU.
        intervals: float64 numbers of shape (2, n): the lower ends of intervals that do not overlap, and their upper
            ends, both included.
        exponents: whether to count exponents.

    Returns:
        A float64 vector: the count, Σ x_i, Σ x_i², how many are exactly zero, how many are NaN or infinite, how many
        are not zero but below the smallest normal number, how many lie in one of the intervals; if asked for, how many
        have each value of the exponent bits (256, or of float64 2,048; half types count as float32); and max |x_i|, NaN
        where one is NaN.

    Raises:
        RuntimeError: :func:`is_one_pass` is false for the tensor, or it is not on the CPU.
    """
    if not (tensor.is_cpu and is_one_pass(tensor)):
        raise RuntimeError(f"tensor: no compiled kernel reduces {tensor.dtype} on {tensor.device}; {STATUS}")
    return _statistics(tensor, intervals, exponents)


def add_statistics(sums: Tensor, tensor: Tensor) -> None:
    """Merge a tensor's statistics into sums, in one pass and in place.

    Args:
        sums: float64 on the tensor's device, what :func:`statistics` returns without intervals and exponents, 7
            numbers; or with ``BINS`` counts of exponents before the last, 71.
        tensor: any shape and strides, of a floating-point dtype, on the CPU or a GPU.

    Raises:
        RuntimeError: :func:`is_one_pass` is false for the tensor, or ``sums`` is not as it should be.
    """
    _add_statistics(sums, tensor)


def add_statistics_of_each(sums: Tensor, tensors: Sequence[Tensor]) -> None:
    """Merge the statistics of several tensors into sums, in place and on all threads together.

    Args:
        sums: float64, 7 numbers for each tensor.
        tensors: as for :func:`add_statistics`, on one device; they may differ in shape and dtype.

    Raises:
        RuntimeError: :func:`is_one_pass` is false for one of them, or ``sums`` is not as it should be.
    """
    _add_statistics_of_each(sums, tensors)


def add_within_of_each(sums: Tensor, tensors: Sequence[Tensor], intervals: Tensor) -> None:
    """Add to sums how many entries each tensor has, and how many of them lie in one of the intervals, in place.

    Args:
        sums: float64, two numbers for each tensor.
        tensors: as for :func:`add_statistics_of_each`.
        intervals: as for :func:`statistics`; at most ``MOST_INTERVALS`` on a GPU.

    Raises:
        RuntimeError: :func:`is_one_pass` is false for one of them, or ``sums`` or ``intervals`` are not as they should.
    """
    _add_within_of_each(sums, tensors, intervals)


def add_largest_of_units(largest: Tensor, tensor: Tensor, dim: int) -> None:
    """Raise the largest magnitudes along a dimension to those of a tensor, in place; NaN does not count.

    Args:
        largest: float32 on the tensor's device, one number for each entry of the dimension.
        tensor: contiguous, otherwise as for :func:`add_statistics`.
        dim: the dimension, not counted from the end.

    Raises:
        RuntimeError: :func:`is_one_pass` is false for the tensor, or the shapes do not fit.
    """
    _add_largest_of_units(largest, tensor, dim)
