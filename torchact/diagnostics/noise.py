"""The gradient noise scale, from the gradients of micro-batches that a step accumulates."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from torchact.diagnostics import distributed

if TYPE_CHECKING:
    from torchact.diagnostics.probes import Switch
    from torchact.diagnostics.readings import Reading


@dataclass(frozen=True, kw_only=True)
class MicroBatches:
    """What the k micro-batches of a step, of b samples each, say of the gradient: g_j of one, ḡ their mean."""

    count: int  #: k
    samples: float  #: b
    squares: float  #: mean of ‖g_j‖²
    square_of_mean: float  #: ‖ḡ‖²

    @property
    def gradient_squares(self) -> float:
        """Unbiased estimate of ‖G‖² of the true gradient, (k ‖ḡ‖² − mean ‖g_j‖²) / (k − 1); it may be negative."""
        return (self.count * self.square_of_mean - self.squares) / (self.count - 1)

    @property
    def noise_trace(self) -> float:
        """Unbiased estimate of tr Σ of the gradient of one sample, b (mean ‖g_j‖² − ‖ḡ‖²) k / (k − 1)."""
        return self.samples * (self.squares - self.square_of_mean) * self.count / (self.count - 1)


def noise_scale(readings: Iterable[Reading]) -> float:
    """Return the simple noise scale tr Σ / ‖G‖² in samples, both averaged over readings.

    Batches much smaller than it waste steps, much larger ones waste samples (McCandlish et al. 2018, arXiv:1812.06162,
    section 2.2 and appendix A.1). NaN where no reading has micro-batches, or where their mean ‖G‖² is not positive.
    """
    measured = [reading.micro_batches for reading in readings if reading.micro_batches is not None]
    gradient = sum(each.gradient_squares for each in measured)
    return sum(each.noise_trace for each in measured) / gradient if gradient > 0 else math.nan


class MicroBatchHooks:
    """Hooks on parameters that sum up ‖g_j‖² of each backward pass, and keep the norm of what has accumulated.

    Both are taken before clipping and unscaling, and on several ranks from this rank's own gradients.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], switch: Switch) -> None:
        self._parameters = parameters
        self._switch = switch
        self._passes = [0] * len(parameters)
        # For each parameter Σ‖g_j‖², and ‖Σ g_j‖² after the last pass.
        self._squares = [torch.zeros(2, dtype=torch.float64, device=parameter.device) for parameter in parameters]

    def attach(self) -> Iterator[RemovableHandle]:
        """Register the hooks and yield their handles."""
        for index, parameter in enumerate(self._parameters):
            if parameter.requires_grad:
                yield parameter.register_hook(functools.partial(self._on_gradient, index))
                yield parameter.register_post_accumulate_grad_hook(functools.partial(self._on_sum, index))

    def _on_gradient(self, index: int, gradient: Tensor) -> None:
        if self._switch.on:
            self._passes[index] += 1
            self._squares[index][0] += _squares(gradient)

    def _on_sum(self, index: int, parameter: Tensor) -> None:
        if self._switch.on and parameter.grad is not None:
            self._squares[index][1] = _squares(parameter.grad)

    @property
    def passes(self) -> int:
        """How many backward passes there were."""
        return max(self._passes, default=0)

    def total(self) -> Tensor:
        """Return Σ‖g_j‖² and ‖Σ g_j‖² over all parameters."""
        device = self._squares[0].device
        return torch.stack([squares.to(device) for squares in self._squares]).sum(0)

    def reset(self) -> None:
        """Forget this step."""
        self._passes = [0] * len(self._parameters)
        for squares in self._squares:
            squares.zero_()


def _squares(gradient: Tensor) -> Tensor:
    total = torch.zeros((), dtype=torch.float64, device=gradient.device)
    for own in distributed.own_entries(gradient.detach()):
        values = own.coalesce().values() if own.is_sparse else own
        total = total + values.double().square().sum()
    return total
