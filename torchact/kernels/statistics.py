"""All that the diagnostics want to know of a tensor, in one pass over it."""

from __future__ import annotations

import torch
from torch import Tensor

from torchact.kernels.extension import STATUS, is_served, operator
from torchact.kernels.reference import FLOATING

NO_INTERVALS = torch.empty(2, 0, dtype=torch.float64, device="cpu")

_statistics = operator("statistics") if STATUS.loaded else None


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
        where one is NaN. Numbers of half types below 2⁻¹²⁶ count as subnormal.

    Raises:
        RuntimeError: :func:`is_one_pass` is false for the tensor.
    """
    if _statistics is None or not is_one_pass(tensor):
        raise RuntimeError(f"tensor: no compiled kernel reduces {tensor.dtype} on {tensor.device}; {STATUS}")
    return _statistics(tensor, intervals, exponents)
