"""What is found out of a function that nobody described: where it jumps, between which bounds it stays, if it falls.

All of it is numerical, in float64, and by autograd: what lies beyond the grid, or between its points, can be missed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torchact.catalogue import TensorFunction

#: The numbers that a definition is examined at: [-100, 100] in steps of 1/64, which holds every integer.
GRID = torch.linspace(-100, 100, 200 * 64 + 1, dtype=torch.float64, device="cpu")
#: Half of float64's digits: what the rounding errors of a sensible formula stay below, and no wrong formula does.
TOLERANCE = math.sqrt(torch.finfo(torch.float64).eps)

_NEAR = GRID.abs() <= 4  # where activations are mostly used
_HALVINGS = 60  # of 1/64: beyond float64's resolution
_LEAST_JUMP = 1e-6  # relative; rounding errors stay below
_DECADES = (8, 16, 32, 64)  # x⁴ does not overflow there
_FAR = torch.logspace(2, _DECADES[-1], 40 * (_DECADES[-1] - 2) + 1, dtype=torch.float64, device="cpu")
_EVERYWHERE = torch.cat([-_FAR.flip(0)[:-1], GRID, _FAR[1:]])


def scale_of(values: Tensor) -> float:
    """Return the mean magnitude within ±4 of a function's values on the grid: what is small beside it is rounding."""
    near = values[_NEAR].abs()
    near = near[near.isfinite()]
    return float(near.mean()) if near.numel() else 0.0


def jumps(*functions: TensorFunction) -> tuple[float, ...]:
    """Return where any of the functions jumps within ±100, in ascending order.

    Each step of the grid is halved, towards the half in which the function changes more, until two neighbouring float64
    numbers remain. Of several jumps within 1/64 it finds one.

    Example:
        >>> jumps(torch.sign, lambda x: (x > 1.5).double(), torch.tanh)
        (0.0, 1.5)
    """
    found: list[float] = []
    for place in sorted(place for function in functions for place in _jumps(function)):
        if not found or place - found[-1] > 1e-9:
            found.append(place)
    return tuple(found)


def _jumps(function: TensorFunction) -> list[float]:
    values = function(GRID)
    left, right, at_left, at_right = GRID[:-1], GRID[1:], values[:-1], values[1:]
    scale = scale_of(values)
    for _ in range(_HALVINGS):
        middle = (left + right) / 2
        at_middle = function(middle)
        go_left = (at_middle - at_left).abs() >= (at_right - at_middle).abs()
        left, at_left = torch.where(go_left, left, middle), torch.where(go_left, at_left, at_middle)
        right, at_right = torch.where(go_left, middle, right), torch.where(go_left, at_middle, at_right)
        least = _LEAST_JUMP * at_left.abs().maximum(at_right.abs()).clamp(max=torch.finfo(left.dtype).max, min=scale)
        jumping = (at_right - at_left).abs() > least
        left, right, at_left, at_right = (tensor[jumping] for tensor in (left, right, at_left, at_right))
    return [_plainest(*ends) for ends in zip(left.tolist(), right.tolist(), strict=True)]


def _plainest(left: float, right: float) -> float:
    """Return a number of nine decimals between two neighbours where there is one: 0.1 and not 0.10000000000000002."""
    rounded = round(right, 9)
    return rounded + 0.0 if left <= rounded <= right else right


def extent(function: TensorFunction) -> tuple[float, float]:
    """Return infimum and supremum of a function, infinite where it grows for ever.

    Example:
        >>> extent(torch.atan), extent(lambda x: torch.log1p(x * x))
        ((-1.5707963267948966, 1.5707963267948966), (0.0, inf))
    """
    return 0.0 - _supremum(lambda x: -function(x)), _supremum(function)


def _supremum(function: TensorFunction) -> float:
    values = function(_EVERYWHERE).nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)
    reached = [float(values[_EVERYWHERE.abs() <= 10.0**decade].max()) for decade in _DECADES]
    near = values[_EVERYWHERE.abs() <= 4]
    # Between 10^k and 10^2k a logarithm doubles its growth, log(log x) repeats it, and what has a limit halves it.
    before, last = reached[-2] - reached[-3], reached[-1] - reached[-2]
    if reached[-1] == math.inf or last > max(0.75 * before, 0.01 * float(near.max() - near.min())):
        return math.inf
    highest = max(reached[-1], _highest_near(function, float(GRID[function(GRID).nan_to_num(nan=-math.inf).argmax()])))
    return highest if abs(highest) > 1e-12 * float(near.abs().max()) else 0.0  # a limit that is not quite reached


def _highest_near(function: TensorFunction, peak: float) -> float:
    """Return a function's maximum within a step of the grid from ``peak``."""
    radius, highest = 1 / 64, -math.inf
    for _ in range(8):
        points = torch.linspace(peak - radius, peak + radius, 129, dtype=torch.float64, device="cpu")
        values = function(points).nan_to_num(nan=-math.inf)
        peak, highest, radius = float(points[values.argmax()]), max(highest, float(values.max())), radius / 16
    return highest


def first_fall(function: TensorFunction) -> float | None:
    """Return the first x at which a function is lower than left of it, None where it never falls.

    Example:
        >>> first_fall(torch.tanh), first_fall(lambda x: -x.relu())
        (None, 0.015625)
    """
    values = function(_EVERYWHERE)
    known = ~values.isnan()
    points, values = _EVERYWHERE[known], values[known]
    highest = values.cummax(0).values
    falls = highest - values > TOLERANCE * values.abs().clamp(min=scale_of(function(GRID)))
    return float(points[falls][0]) if bool(falls.any()) else None
