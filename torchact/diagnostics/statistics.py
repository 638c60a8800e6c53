"""Sufficient statistics of tensors: reduced on the device, merged by addition, read on the host.

A tensor is summarised by its count, sum, sum of squares, zeros, non-finite and subnormal values and largest magnitude,
and if so asked by the exponents of its entries; where the compiled kernels take it, in one pass. Statistics of two
tensors merge into those of both together, so calls, micro-batches and ranks can be merged in any order.

Sums are in float64, so that a norm does not underflow: in float32 the squares of values below 1e-23 are zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce

import torch
from torch import Tensor

from torchact import kernels


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What is kept of a tensor with entries x_i, or of several merged. All entries are plain floats."""

    count: float = 0.0  #: number of entries
    total: float = 0.0  #: Σ x_i
    squares: float = 0.0  #: Σ x_i²
    zeros: float = 0.0  #: number of entries that are exactly zero
    non_finite: float = 0.0  #: number of entries that are NaN or infinite
    subnormal: float = 0.0  #: number of entries that are not zero, but below the dtype's smallest normal number
    largest: float = 0.0  #: max |x_i|
    exponents: tuple[float, ...] = ()  #: how many entries lie in each bin of magnitudes, of ``bin_edges()``; or none

    def __add__(self, other: Statistics) -> Statistics:
        """Return the statistics of both tensors together."""
        sums = {name: getattr(self, name) + getattr(other, name) for name in _SUMS}
        exponents = tuple(map(sum, zip(self.exponents, other.exponents, strict=False)))
        longer = max(self.exponents, other.exponents, key=len)[len(exponents) :]
        return Statistics(**sums, largest=_max(self.largest, other.largest), exponents=exponents + longer)

    def scaled(self, factor: float) -> Statistics:
        """Return the statistics of all entries times a positive factor; what counts them stays as it is."""
        return replace(self, total=self.total * factor, squares=self.squares * factor**2, largest=self.largest * factor)

    @property
    def mean(self) -> float:
        """Mean of the entries; NaN when there is none."""
        return self.total / self.count if self.count else math.nan

    @property
    def deviation(self) -> float:
        """Standard deviation of the entries, √(mean of squares − square of mean); NaN when there is none."""
        if not self.count:
            return math.nan
        variance = self.squares / self.count - self.mean**2
        return math.sqrt(max(variance, 0.0)) if math.isfinite(variance) else math.nan

    @property
    def norm(self) -> float:
        """Euclidean (Frobenius) norm √Σ x_i²; where the squares of float64 entries underflow, the largest entry."""
        return math.nan if math.isnan(self.squares) else max(math.sqrt(self.squares), self.largest)

    @property
    def root_mean_square(self) -> float:
        """Root mean square √(Σ x_i² / n) of the entries; NaN when there is none."""
        return self.norm / math.sqrt(self.count) if self.count else math.nan

    @property
    def zero_fraction(self) -> float:
        """Fraction of the entries that are exactly zero; NaN when there is none."""
        return self.zeros / self.count if self.count else math.nan


_SUMS = tuple(field.name for field in fields(Statistics) if field.name not in ("largest", "exponents"))
_END_OF_SUMS = len(_SUMS)
SIZE = _END_OF_SUMS + 1  #: of a vector without exponents
BINNED = SIZE + kernels.BINS  #: of one with them
NON_FINITE = _SUMS.index("non_finite")  #: its place in a vector
_is_compiling = torch.compiler.is_compiling
_PIECE = 2**22  # entries reduced at a time, so that the float64 copy stays small beside a large tensor


def bin_edges() -> list[float]:
    """Return the edges of the bins of magnitudes: each has four powers of two, from 2⁻¹²⁷ to 2¹²⁹.

    The first bin holds what is smaller, zeros too, and the last one infinity and NaN.
    """
    step = 256 // kernels.BINS
    return [2.0**exponent for exponent in range(-127, 130, step)]


def _max(first: float, second: float) -> float:
    return math.nan if math.isnan(first) or math.isnan(second) else max(first, second)


def add_reduced(sums: Tensor, tensor: Tensor) -> None:
    """Merge a tensor's statistics into a vector made by :func:`reduce_tensor`, in place, without leaving its device.

    Args:
        sums: float64, of length ``SIZE``, or ``BINNED`` if exponents are to be counted.
        tensor: as for :func:`reduce_tensor`.
    """
    if not _is_compiling() and kernels.is_one_pass(tensor):
        kernels.add_statistics(sums, tensor)
    else:
        sums.copy_(merge_reduced(sums, reduce_tensor(tensor, binned=sums.numel() == BINNED)))


def add_within(sums: Tensor, tensors: Sequence[Tensor], intervals: Tensor) -> None:
    """Add to sums how many entries each tensor has, and how many of them lie in one of the intervals, in place.

    Args:
        sums: float64, two numbers for each tensor.
        tensors: as for :func:`reduce_tensor`, but dense and not complex.
        intervals: float64 numbers of shape (2, n) on the CPU: the lower ends of intervals that do not overlap, and
            their upper ends, both included.
    """
    few = sums.is_cpu or intervals.shape[1] <= kernels.MOST_INTERVALS
    if few and not _is_compiling() and _are_one_pass(tensors, sums.device):
        kernels.add_within_of_each(sums, tensors, intervals)
        return
    limits = intervals.t().tolist()
    for row, tensor in zip(sums.view(-1, 2), tensors, strict=True):
        row[0].add_(tensor.numel())
        for low, high in limits:
            row[1].add_(torch.count_nonzero((tensor >= low) & (tensor <= high)))


def reduce_tensor(tensor: Tensor, *, binned: bool = False) -> Tensor:
    """Return a tensor's statistics as one float64 vector, without leaving its device.

    Args:
        tensor: any shape, floating or complex (counted as its real and imaginary parts), sparse or dense.
        binned: whether to count exponents, too.
    """
    size = BINNED if binned else SIZE
    if not _is_compiling() and kernels.is_one_pass(tensor):
        sums = torch.zeros(size, dtype=torch.float64, device=tensor.device)
        kernels.add_statistics(sums, tensor)
        return sums
    tensor = tensor.detach()
    if tensor.is_sparse:
        tensor = tensor.coalesce().values()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    count = tensor.numel()
    if count == 0:
        return torch.zeros(size, dtype=torch.float64, device=tensor.device)
    if tensor.device.type == "mps":  # which has no float64
        tensor = tensor.cpu()
    values = tensor.reshape(-1)
    if count > _PIECE and not _is_compiling():
        return reduce(merge_reduced, (reduce_tensor(piece, binned=binned) for piece in values.split(_PIECE)))
    exact = values.double()
    smallest, largest = torch.aminmax(values)
    zeros = count - torch.count_nonzero(values)
    parts = (
        torch.full((), count, dtype=torch.float64, device=tensor.device),
        exact.sum(),
        torch.dot(exact, exact),
        zeros,
        torch.count_nonzero(values * 0),  # 0 × NaN and 0 × ∞ are NaN, which counts; isfinite takes three times as long
        torch.count_nonzero(values.abs() < torch.finfo(values.dtype).smallest_normal) - zeros,
    )
    vector = [torch.stack([part.double() for part in parts])]
    if binned:
        vector.append(_count_exponents(values))
    return torch.cat([*vector, torch.maximum(largest, -smallest).double().reshape(1)])


def _are_one_pass(tensors: Sequence[Tensor], device: torch.device) -> bool:
    """Whether compiled kernels reduce these tensors, all on this device."""
    return all(map(kernels.is_one_pass, tensors)) and (
        device.type == "cpu" or all(tensor.device == device for tensor in tensors)
    )


def reduce_each(tensors: Sequence[Tensor]) -> Tensor | bytearray:
    """Return the statistics of each tensor as float64 numbers, as :func:`reduce_tensor` does, one behind the other.

    They are bytes if no function of torch was needed.
    """
    if not tensors:
        return bytearray()
    flat = list(map(kernels.flat, tensors))
    if None not in flat:
        return kernels.statistics_of_each_at(flat)
    device = tensors[0].device
    if _are_one_pass(tensors, device):
        rows = torch.zeros(len(tensors), SIZE, dtype=torch.float64, device=device)
        kernels.add_statistics_of_each(rows, tensors)
        return rows
    return torch.stack([reduce_tensor(tensor).to(device) for tensor in tensors])


def _count_exponents(values: Tensor) -> Tensor:
    """Count entries by the upper bits of their exponents, as float32 has them."""
    bits = values.float().view(torch.int32)
    bins = ((bits >> 23) & 255) // (256 // kernels.BINS)
    counts = torch.zeros(kernels.BINS, dtype=torch.float64, device=values.device)
    return counts.scatter_add(0, bins.long(), torch.ones_like(bins, dtype=torch.float64))


def merge_reduced(first: Tensor, second: Tensor) -> Tensor:
    """Merge two vectors made by :func:`reduce_tensor`, on the device."""
    return torch.cat((first[:-1] + second[:-1], torch.maximum(first[-1:], second[-1:])))


def unpack(vector: Sequence[float]) -> Statistics:
    """Return the statistics that a vector made by :func:`reduce_tensor` holds, once it is on the host."""
    made = object.__new__(Statistics)  # a frozen dataclass takes its time to set each field
    made.__dict__.update(zip(_SUMS, vector, strict=False), largest=vector[-1], exponents=tuple(vector[_END_OF_SUMS:-1]))
    return made


def merge(statistics: list[Statistics]) -> Statistics:
    """Return the statistics of all the tensors together; of none, those of an empty tensor."""
    return reduce(Statistics.__add__, statistics, Statistics())
