"""What one step showed: of the model, of each layer, of each parameter."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from torchact.diagnostics.noise import MicroBatches
from torchact.diagnostics.statistics import Statistics


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


Heads = Mapping[str, tuple[str, ...]]  #: by layer, the last layers that it leads to


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
    heads: tuple[
        str, ...
    ] = ()  #: of a model with several last layers those that this one leads to, where that is known

    @property
    def label(self) -> str:
        """Zero-padded position and name, so that labels sort in forward order."""
        return f"{self.index:04d}_{self.name}"

    @property
    def has_parameters(self) -> bool:
        """Whether this layer has parameters that received a gradient."""
        return bool(self.parameters)

    @property
    def has_zero_weights(self) -> bool:
        """Whether its parameter called ``weight`` is zero everywhere, as some are in the beginning."""
        weight = self.parameters.get("weight")
        return weight is not None and weight.weight.norm == 0

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


class LaterLayers(Sequence[LayerReading]):
    """Layers that are made when one is first looked at: of most readings none ever is.

    Args:
        length: how many there will be.
        make: makes them.
    """

    def __init__(self, length: int, make: Callable[[], tuple[LayerReading, ...]]) -> None:
        self._length = length
        self._make: Callable[[], tuple[LayerReading, ...]] | None = make
        self._made: tuple[LayerReading, ...] = ()

    def _layers(self) -> tuple[LayerReading, ...]:
        if self._make is not None:
            self._made, self._make = self._make(), None
        return self._made

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> LayerReading: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[LayerReading]: ...
    def __getitem__(self, index: int | slice) -> LayerReading | Sequence[LayerReading]:
        return self._layers()[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._layers() == tuple(other)

    def __hash__(self) -> int:
        return hash(self._layers())

    def __repr__(self) -> str:
        return repr(self._layers())

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (self._layers(),)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one step showed of the whole model, layers in forward order."""

    step: int
    layers: Sequence[LayerReading]
    silent: tuple[str, ...] = ()  #: probed modules that were not called in this step
    unprobed: tuple[str, ...] = ()  #: parameters that have gradients, while no module that owns them was called
    optimizer: str | None = None  #: whose step it was, where the monitor has several
    micro_batches: MicroBatches | None = None  #: if they are measured and there were several

    @property
    def learning_layers(self) -> tuple[LayerReading, ...]:
        """The layers that have parameters and saw a gradient at their output."""
        return tuple(layer for layer in self.layers if layer.has_parameters and layer.gradient.count)
