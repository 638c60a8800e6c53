"""Sufficient statistics of tensors: reduced on the device, merged by addition, read on the host.

A tensor is summarised by its count, sum, sum of squares, zeros, non-finite, subnormal and saturated values and largest
magnitude, and if so asked by the exponents of its entries; where the compiled kernels take it, in one pass. Statistics
of two tensors merge into those of both together, so calls, micro-batches and ranks can be merged in any order.

Sums are in float64, so that a norm does not underflow: in float32 the squares of values below 1e-23 are zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import reduce

import torch
from torch import Tensor

from torchact import kernels
from torchact.diagnostics.noise import MicroBatches


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
SIZE = len(_SUMS) + 1  #: of a vector without exponents
BINNED = SIZE + kernels.BINS  #: of one with them
SATURATED = _SUMS.index("saturated")  #: its place in a vector
_PIECE = 2**22  # entries reduced at a time, so that the float64 copy stays small beside a large tensor


def bin_edges() -> list[float]:
    """Return the edges of the bins of magnitudes: each has four powers of two, from 2⁻¹²⁷ to 2¹²⁹.

    The first bin holds what is smaller, zeros too, and the last one infinity and NaN.
    """
    step = 256 // kernels.BINS
    return [2.0**exponent for exponent in range(-127, 130, step)]


def _max(first: float, second: float) -> float:
    return math.nan if math.isnan(first) or math.isnan(second) else max(first, second)


def add_reduced(sums: Tensor, tensor: Tensor, saturated: Tensor | None = None) -> None:
    """Merge a tensor's statistics into a vector made by :func:`reduce_tensor`, in place, without leaving its device.

    Args:
        sums: float64, of length ``SIZE``, or ``BINNED`` if exponents are to be counted.
        tensor: as for :func:`reduce_tensor`.
        saturated: as for :func:`reduce_tensor`.
    """
    tensor = tensor.detach()
    if not torch.compiler.is_compiling() and kernels.is_one_pass(tensor):
        kernels.add_statistics(sums, tensor, kernels.NO_INTERVALS if saturated is None else saturated)
    else:
        sums.copy_(merge_reduced(sums, reduce_tensor(tensor, saturated, binned=sums.numel() == BINNED)))


def reduce_tensor(tensor: Tensor, saturated: Tensor | None = None, *, binned: bool = False) -> Tensor:
    """Return a tensor's statistics as one float64 vector, without leaving its device.

    Args:
        tensor: any shape, floating or complex (counted as its real and imaginary parts), sparse or dense.
        saturated: the intervals in which an entry is saturated, their lower ends and their upper ends, as float64
            numbers of shape (2, n) on the CPU; by default none.
        binned: whether to count exponents, too.
    """
    tensor = tensor.detach()
    size = BINNED if binned else SIZE
    if not torch.compiler.is_compiling() and kernels.is_one_pass(tensor):
        sums = torch.zeros(size, dtype=torch.float64, device="cpu")
        kernels.add_statistics(sums, tensor, kernels.NO_INTERVALS if saturated is None else saturated)
        return sums
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
    if count > _PIECE and not torch.compiler.is_compiling():
        pieces = (reduce_tensor(piece, saturated, binned=binned) for piece in values.split(_PIECE))
        return reduce(merge_reduced, pieces)
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
    )
    vector = [torch.stack([part.double() for part in parts])]
    if binned:
        vector.append(_count_exponents(values))
    return torch.cat([*vector, torch.maximum(largest, -smallest).double().reshape(1)])


def _count_exponents(values: Tensor) -> Tensor:
    """Count entries by the upper bits of their exponents, as float32 has them."""
    bits = values.float().view(torch.int32)
    bins = ((bits >> 23) & 255) // (256 // kernels.BINS)
    counts = torch.zeros(kernels.BINS, dtype=torch.float64, device=values.device)
    return counts.scatter_add(0, bins.long(), torch.ones_like(bins, dtype=torch.float64))


def _count_within(values: Tensor, intervals: Tensor | None) -> Tensor:
    within = torch.zeros((), dtype=torch.float64, device=values.device)
    for low, high in () if intervals is None else intervals.t().tolist():
        within = within + torch.count_nonzero((values >= low) & (values <= high))
    return within


def merge_reduced(first: Tensor, second: Tensor) -> Tensor:
    """Merge two vectors made by :func:`reduce_tensor`, on the device."""
    return torch.cat((first[:-1] + second[:-1], torch.maximum(first[-1:], second[-1:])))


def unpack(vector: Sequence[float]) -> Statistics:
    """Return the statistics that a vector made by :func:`reduce_tensor` holds, once it is on the host."""
    sums = dict(zip(_SUMS, vector, strict=False))
    return Statistics(**sums, largest=vector[-1], exponents=tuple(vector[len(_SUMS) : -1]))


def merge(statistics: list[Statistics]) -> Statistics:
    """Return the statistics of all the tensors together; of none, those of an empty tensor."""
    return reduce(Statistics.__add__, statistics, Statistics())


@dataclass(frozen=True, kw_only=True)
class ParameterReading:
    """What one step showed of one parameter. All norms are Euclidean."""

    gradient: Statistics  #: of ∂L/∂parameter as the optimiser uses it, after clipping and unscaling
    weight: Statistics  #: of the parameter, before the step
    unclipped_norm: float | None = None  #: of the gradient before clipping, if ``before_clipping()`` was called
    update_norm: float | None = None  #: of what the step added to the parameter, if updates are measured
    at_epsilon: float | None = None  #: fraction of entries whose √v̂ is within ``Thresholds.epsilons`` times ε of an
    #: adaptive optimiser, so that it rescales their gradients no more; None of others, and before the first step

    @property
    def update_ratio(self) -> float | None:
        """‖Δw‖ / ‖w‖; None where no update was measured, and NaN of a parameter that is zero."""
        if self.update_norm is None:
            return None
        return self.update_norm / self.weight.norm if self.weight.norm else math.nan


@dataclass(frozen=True, kw_only=True)
class LayerReading:
    """What one step showed of one layer. A layer is a module that owns parameters, or an activation."""

    index: int  #: position in the order of first calls, from 0; a layer keeps it when others are not called
    name: str  #: the module's qualified name
    kind: str  #: the module's class
    activation: str | None  #: catalogue key, when the module is an activation
    shape: tuple[int, ...]  #: shape of the output without its first (batch) dimension, at the last call
    samples: float = 0.0  #: sum of the batch dimensions of all outputs
    output: Statistics  #: of the module's output
    gradient: Statistics  #: of δ = ∂L/∂output, with exponents
    saturated_fraction: float | None  #: of an activation's inputs z: |φ'(z)| ≤ Thresholds.saturated_slope · max |φ'|;
    #: None of a gated unit, whose inputs are not counted, and of a layer that is no activation
    dead_fraction: float | None = None  #: of a rectifier's units: never active over the last full window of samples;
    #: None of other layers, and until the first window is full
    parameters: dict[str, ParameterReading] = field(default_factory=dict)  #: by name within the module, with gradients

    @property
    def label(self) -> str:
        """Zero-padded position and name, so that labels sort in forward order."""
        return f"{self.index:04d}_{self.name}"

    @property
    def has_parameters(self) -> bool:
        """Whether this layer has parameters that received a gradient."""
        return bool(self.parameters)

    @property
    def gradient_per_sample(self) -> float:
        """Root mean square over samples of the norm of a sample's δ, √(‖δ‖² / samples); NaN when there is none."""
        return self.gradient.norm / math.sqrt(self.samples) if self.samples else math.nan

    @property
    def parameter_gradients(self) -> dict[str, Statistics]:
        """Statistics of ∂L/∂parameter, by the parameter's name within the module."""
        return {name: parameter.gradient for name, parameter in self.parameters.items()}

    @property
    def parameter_gradient_norm(self) -> float:
        """Norm of the gradient of all the layer's own parameters together."""
        return math.hypot(*(parameter.gradient.norm for parameter in self.parameters.values()))

    @property
    def unclipped_gradient_norm(self) -> float | None:
        """The same before clipping; None where it was not measured."""
        norms = [parameter.unclipped_norm for parameter in self.parameters.values()]
        known = [norm for norm in norms if norm is not None]
        return math.hypot(*known) if known else None

    @property
    def weight_norm(self) -> float:
        """Norm of all the layer's own parameters together."""
        return math.hypot(*(parameter.weight.norm for parameter in self.parameters.values()))

    @property
    def update_ratio(self) -> float | None:
        """‖Δw‖ / ‖w‖ of all the layer's own parameters together; None where no update was measured."""
        norms = [parameter.update_norm for parameter in self.parameters.values()]
        known = [norm for norm in norms if norm is not None]
        if not known:
            return None
        return math.hypot(*known) / self.weight_norm if self.weight_norm else math.nan


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one step showed of the whole model, layers in forward order."""

    step: int
    layers: tuple[LayerReading, ...]
    silent: tuple[str, ...] = ()  #: probed modules that were not called in this step
    unprobed: tuple[str, ...] = ()  #: parameters that have gradients, while no module that owns them was called
    optimizer: str | None = None  #: whose step it was, where the monitor has several
    micro_batches: MicroBatches | None = None  #: if they are measured and there were several

    @property
    def learning_layers(self) -> tuple[LayerReading, ...]:
        """The layers that have parameters and saw a gradient at their output."""
        return tuple(layer for layer in self.layers if layer.has_parameters and layer.gradient.count)
