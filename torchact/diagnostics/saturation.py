"""Where an activation is saturated, as intervals: found once, so that counting saturated inputs is one pass."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchact.catalogue import Activation

#: The derivative is looked at every 1/128 as far as ±1000; what holds there is taken to hold beyond.
_STEP, _REACH = 1 / 128, 1000.0
_MOST_INTERVALS = 8


@functools.lru_cache(maxsize=256)
def saturated_intervals(
    activation: Activation, parameters: tuple[tuple[str, Any], ...], fraction: float
) -> Tensor | None:
    """Return the intervals in which |φ'(z)| is at most a fraction of max |φ'|; if that is infinite, in which it is 0.

    Args:
        activation: an elementwise activation.
        parameters: names and values of all its parameters, which are numbers.
        fraction: that fraction.

    Returns:
        float64 numbers of shape (2, n), the lower ends and the upper ends, infinite where the interval is; or None if
        there are too many intervals, as of a wave.
    """
    chosen = dict(parameters)
    greatest = activation.max_derivative(**chosen)
    limit = 0.0 if math.isinf(greatest) else fraction * greatest

    def is_saturated(z: Tensor) -> Tensor:
        return activation.derivative(z, **chosen).abs() <= limit

    grid = torch.arange(-_REACH, _REACH + _STEP, _STEP, dtype=torch.float64, device="cpu")
    outside = torch.zeros(1, dtype=torch.bool, device="cpu")
    change = torch.cat([outside, is_saturated(grid), outside]).int().diff()
    first, last = (change > 0).nonzero().flatten(), (change < 0).nonzero().flatten() - 1
    if len(first) > _MOST_INTERVALS:
        return None
    end = len(grid) - 1
    low = bisected(is_saturated, grid[(first - 1).clamp(min=0)], grid[first])
    high = bisected(is_saturated, grid[(last + 1).clamp(max=end)], grid[last])
    return torch.stack([torch.where(first > 0, low, -math.inf), torch.where(last < end, high, math.inf)])


def zeros_are_saturated(activation: Activation) -> bool:
    """Whether in every dtype an output is zero just where the input is saturated, so that inputs need not be read."""
    return activation.key == "relu" and activation.origin is None


@functools.lru_cache(maxsize=256)
def has_dead_side(activation: Activation) -> bool:
    """Whether a unit can die: far to the left the activation and its derivative are zero, and to the right it grows."""
    if not activation.elementwise:
        return False
    places = torch.tensor([-16.0, 8.0], dtype=torch.float64, device="cpu")
    left, right = activation.value(places).abs().tolist()
    return left < 1e-5 and right > 1.5 and activation.derivative(places)[0].abs().item() < 1e-3


def bisected(condition: Callable[[Tensor], Tensor], outside: Tensor, inside: Tensor) -> Tensor:
    """Return, for each pair of points, where the condition ends to hold between them."""
    for _ in range(80):
        middle = (outside + inside) / 2
        holds = condition(middle)
        outside, inside = torch.where(holds, outside, middle), torch.where(holds, middle, inside)
    return inside
