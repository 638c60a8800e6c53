"""Sufficient statistics of tensors: reduced on the device, merged by addition, read on the host.

A tensor is summarised by its count, sum, sum of squares, zeros, non-finite, subnormal and saturated values and largest
magnitude; where the compiled kernels take it, in one pass. Statistics of two tensors merge into those of both together,
so calls, micro-batches and ranks can be merged in any order.

Sums are in float64, so that a norm does not underflow: in float32 the squares of values below 1e-23 are zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
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
    saturated: float = 0.0  #: number of entries where the activation that they are the input of is saturated
    largest: float = 0.0  #: max |x_i|

    def __add__(self, other: Statistics) -> Statistics:
        """Return the statistics of both tensors together."""
        sums = {name: getattr(self, name) + getattr(other, name) for name in _SUMS}
        return Statistics(**sums, largest=_max(self.largest, other.largest))

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
    def zero_fraction(self) -> float:
        """Fraction of the entries that are exactly zero; NaN when there is none."""
        return self.zeros / self.count if self.count else math.nan


_SUMS = tuple(field.name for field in fields(Statistics) if field.name != "largest")
SIZE = len(_SUMS) + 1
SATURATED = _SUMS.index("saturated")  # its place in a vector
_PIECE = 2**22  # entries reduced at a time, so that the float64 copy stays small beside a large tensor


def _max(first: float, second: float) -> float:
    return math.nan if math.isnan(first) or math.isnan(second) else max(first, second)


def reduce_tensor(tensor: Tensor, saturated: Tensor | None = None) -> Tensor:
    """Return a tensor's statistics as one float64 vector of length ``SIZE``, without leaving its device.

    Args:
        tensor: any shape, floating or complex (counted as its real and imaginary parts), sparse or dense.
        saturated: the intervals in which an entry is saturated, their lower ends and their upper ends, as float64
            numbers of shape (2, n) on the CPU; by default none.
    """
    tensor = tensor.detach()
    if not torch.compiler.is_compiling() and kernels.is_one_pass(tensor):
        return kernels.statistics(tensor) if saturated is None else kernels.statistics(tensor, saturated)
    if tensor.is_sparse:
        tensor = tensor.coalesce().values()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    count = tensor.numel()
    if count == 0:
        return torch.zeros(SIZE, dtype=torch.float64, device=tensor.device)
    if tensor.device.type == "mps":  # which has no float64
        tensor = tensor.cpu()
    values = tensor.reshape(-1)
    if count > _PIECE and not torch.compiler.is_compiling():
        return reduce(merge_reduced, (reduce_tensor(piece, saturated) for piece in values.split(_PIECE)))
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
        _count_within(values, saturated),
        torch.maximum(largest, -smallest),
    )
    return torch.stack([part.double() for part in parts])


def _count_within(values: Tensor, intervals: Tensor | None) -> Tensor:
    within = torch.zeros((), dtype=torch.float64, device=values.device)
    for low, high in () if intervals is None else intervals.t().tolist():
        within = within + torch.count_nonzero((values >= low) & (values <= high))
    return within


def merge_reduced(first: Tensor, second: Tensor) -> Tensor:
    """Merge two vectors made by :func:`reduce_tensor`, on the device."""
    return torch.cat((first[:-1] + second[:-1], torch.maximum(first[-1:], second[-1:])))


def unpack(vector: list[float]) -> Statistics:
    """Return the statistics that a vector made by :func:`reduce_tensor` holds, once it is on the host."""
    return Statistics(**dict(zip(_SUMS, vector[:-1], strict=True)), largest=vector[-1])


def merge(statistics: list[Statistics]) -> Statistics:
    """Return the statistics of all the tensors together; of none, those of an empty tensor."""
    return reduce(Statistics.__add__, statistics, Statistics())


@dataclass(frozen=True, kw_only=True)
class LayerReading:
    """What one step showed of one layer. A layer is a module that owns parameters, or an activation."""

    index: int  #: position in the order of first calls, from 0; a layer keeps it when others are not called
    name: str  #: the module's qualified name
    kind: str  #: the module's class
    activation: str | None  #: catalogue key, when the module is an activation
    shape: tuple[int, ...]  #: shape of the output without its first (batch) dimension, at the last call
    output: Statistics  #: of the module's output
    gradient: Statistics  #: of δ = ∂L/∂output
    saturated_fraction: float | None  #: of an activation's inputs z: |φ'(z)| ≤ Thresholds.saturated_slope · max |φ'|;
    #: None of a gated unit, whose inputs are not counted, and of a layer that is no activation
    parameter_gradients: dict[str, Statistics]  #: of ∂L/∂parameter, by the parameter's name within the module

    @property
    def label(self) -> str:
        """Zero-padded position and name, so that labels sort in forward order."""
        return f"{self.index:04d}_{self.name}"

    @property
    def has_parameters(self) -> bool:
        """Whether this layer has parameters that received a gradient."""
        return bool(self.parameter_gradients)

    @property
    def parameter_gradient_norm(self) -> float:
        """Norm of the gradient of all the layer's own parameters together."""
        return merge(list(self.parameter_gradients.values())).norm


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one step showed of the whole model, layers in forward order."""

    step: int
    layers: tuple[LayerReading, ...]
    silent: tuple[str, ...] = ()  #: probed modules that were not called in this step

    @property
    def learning_layers(self) -> tuple[LayerReading, ...]:
        """The layers that have parameters and saw a gradient at their output."""
        return tuple(layer for layer in self.layers if layer.has_parameters and layer.gradient.count)
