"""All that the diagnostics want to know of a tensor, in one pass over it."""

from __future__ import annotations

import torch
from torch import Tensor

from torchact.kernels.extension import STATUS, is_served, operator
from torchact.kernels.reference import FLOATING

NO_INTERVALS = torch.empty(2, 0, dtype=torch.float64, device="cpu")

BINS = 64  #: of exponents, each of four powers of 2, from 2⁻¹²⁷

_statistics = operator("statistics") if STATUS.loaded else None
_add_statistics = operator("add_statistics") if STATUS.loaded else None
_add_largest_of_units = operator("add_largest_of_units") if STATUS.loaded else None


def is_one_pass(tensor: Tensor) -> bool:
    """Whether :func:`statistics` takes this tensor: there are compiled kernels, and they take its device and dtype."""
    return _statistics is not None and tensor.is_cpu and tensor.dtype in FLOATING and is_served(tensor)


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
        RuntimeError: :func:`is_one_pass` is false for the tensor.
    """
    if _statistics is None or not is_one_pass(tensor):
        raise RuntimeError(f"tensor: no compiled kernel reduces {tensor.dtype} on {tensor.device}; {STATUS}")
    return _statistics(tensor, intervals, exponents)


def add_statistics(sums: Tensor, tensor: Tensor, intervals: Tensor = NO_INTERVALS) -> None:
    """Merge a tensor's statistics into sums, in one pass and in place.

    Args:
        sums: float64, the 8 numbers that :func:`statistics` returns without exponents; or 72, where ``BINS`` counts of
            exponents lie before the last.
        tensor: as for :func:`statistics`.
        intervals: as for :func:`statistics`.

    Raises:
        RuntimeError: :func:`is_one_pass` is false for the tensor, or ``sums`` is not as it should be.
    """
    if _add_statistics is None:
        raise RuntimeError(f"tensor: no compiled kernel reduces {tensor.dtype} on {tensor.device}; {STATUS}")
    _add_statistics(sums, tensor, intervals)


def add_largest_of_units(largest: Tensor, tensor: Tensor, dim: int) -> None:
    """Raise the largest magnitudes along a dimension to those of a tensor, in place; NaN does not count.

    Args:
        largest: float32, one number for each entry of the dimension.
        tensor: contiguous, otherwise as for :func:`statistics`.
        dim: the dimension, not counted from the end.

    Raises:
        RuntimeError: :func:`is_one_pass` is false for the tensor, or the shapes do not fit.
    """
    if _add_largest_of_units is None:
        raise RuntimeError(f"tensor: no compiled kernel reduces {tensor.dtype} on {tensor.device}; {STATUS}")
    _add_largest_of_units(largest, tensor, dim)
