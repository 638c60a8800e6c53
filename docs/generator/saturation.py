"""Where an activation saturates or dies: found in the catalogue's derivative, in float64, and put into words.

It is *dead* where φ' is exactly 0 on an interval, and it *saturates* towards an end of the line where |φ'| stays below
the fraction ``Thresholds.saturated_slope`` of its largest value. Where |φ'| falls below that and comes back, it is
*nearly flat* in between.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from docs.generator.curves import Curve
from torchact.diagnostics import Thresholds
from torchact.diagnostics.saturation import bisected

Condition = Callable[[Tensor], Tensor]

#: Where the derivative is looked at: every 1/128 as far as ±1000, and, for what goes on to an end, at points beyond.
_STEP, _REACH, _FAR = 1 / 128, 1000.0, (1e4, 1e6, 1e9)
#: An interval of zeros counts only if φ' rises within _NEAR of its ends to _RISEN of its largest: others are rounding.
_NEAR, _RISEN = 1e-3, 1e-6
_MOST_LISTED = 3


class Interval(NamedTuple):
    """An interval of the line, open at infinite ends."""

    low: float
    high: float
    with_low: bool = False
    with_high: bool = False

    @property
    def bounded(self) -> bool:
        """Whether both ends are finite."""
        return self.low > -math.inf and self.high < math.inf

    def within(self, variable: str) -> str:
        """Return it as an inequality."""
        above, below = "≤" if self.with_low else "<", "≤" if self.with_high else "<"
        if self.bounded:
            return f"{number(self.low)} {above} {variable} {below} {number(self.high)}"
        if self.low > -math.inf:
            return f"{variable} {'≥' if self.with_low else '>'} {number(self.low)}"
        return f"{variable} {below} {number(self.high)}" if self.high < math.inf else f"every {variable}"


@dataclass(frozen=True)
class Flatness:
    """The intervals in which a curve has no slope or hardly any."""

    dead: tuple[Interval, ...]
    saturated: tuple[Interval, ...]  #: towards -∞ or ∞
    nearly_flat: tuple[Interval, ...]  #: in between


def flatness(curve: Curve) -> Flatness:
    """Find where a curve is dead, where it saturates and where it is nearly flat; no interval is in two of these."""
    grid = _grid(curve.slope)
    dead = tuple(
        interval
        for interval in _intervals(lambda x: curve.slope(x) == 0, grid)
        if interval.high - interval.low > _STEP and _risen(curve, interval)
    )
    if curve.steepest in (0, math.inf):
        return Flatness(dead, (), ())

    def flat(x: Tensor) -> Tensor:
        flat = curve.slope(x).abs() < Thresholds().saturated_slope * curve.steepest
        for interval in dead:
            flat &= (x < interval.low) | (x > interval.high)
        return flat

    intervals = _intervals(flat, grid)
    return Flatness(
        dead,
        tuple(interval for interval in intervals if not interval.bounded),
        tuple(interval for interval in intervals if interval.bounded),
    )


def words(curve: Curve, found: Flatness) -> dict[str, str]:
    """Say where a curve saturates, where it is nearly flat in between, if anywhere, and where it is dead."""
    if curve.steepest == math.inf:
        saturates = "never: the derivative is unbounded"
    elif found.saturated:
        saturates = f"for {' and '.join(_tail(interval, curve) for interval in found.saturated)}"
    else:
        saturates = "only where it is dead" if found.dead else "never"
    said = {"saturates": saturates}
    if found.nearly_flat:
        said["nearly flat"] = _between(found.nearly_flat, curve.variable)
    return said | {"dead": f"for {_listed(found.dead, curve.variable)}" if found.dead else "never"}


def number(value: float) -> str:
    """Return a number in three digits, with a minus sign that is one, and ∞."""
    return f"{value:.3g}".replace("inf", "∞").replace("-", "−")


def _grid(slope: Condition) -> Tensor:
    """Return where to look: a regular grid and, since dips may be narrower than its step, every zero between."""
    grid = torch.arange(-_REACH, _REACH + _STEP, _STEP, dtype=torch.float64)
    sign = slope(grid).sign()
    changes = (sign[1:] * sign[:-1] < 0).nonzero().flatten()
    before = sign[changes]
    zeros = bisected(lambda x: slope(x).sign() == before, grid[changes + 1], grid[changes])
    return torch.cat([grid, zeros]).sort().values


def _intervals(condition: Condition, grid: Tensor) -> list[Interval]:
    """Return the intervals in which the condition holds at every point of the grid, their ends by bisection.

    One that reaches an end of the grid is infinite if the condition holds far beyond too, and is left out otherwise.
    """
    outside = torch.zeros(1, dtype=torch.bool)
    change = torch.cat([outside, condition(grid), outside]).int().diff()
    first, last = (change > 0).nonzero().flatten(), (change < 0).nonzero().flatten() - 1
    end = len(grid) - 1
    low = bisected(condition, grid[(first - 1).clamp(min=0)], grid[first])
    high = bisected(condition, grid[(last + 1).clamp(max=end)], grid[last])
    far = torch.tensor(_FAR, dtype=torch.float64)
    low = torch.where(first > 0, low, -math.inf if condition(-far).all() else math.nan)
    high = torch.where(last < end, high, math.inf if condition(far).all() else math.nan)
    (low, with_low), (high, with_high) = _snapped(low, condition), _snapped(high, condition)
    rows = zip(*(x.tolist() for x in (low, high, with_low, with_high)), strict=True)
    return [Interval(*row) for row in rows if not any(map(math.isnan, row))]


def _snapped(ends: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
    """Return the ends and whether the condition holds there.

    Those next to a number of few decimals are put at it: they are jumps. At others, where a smooth curve passes, the
    condition is taken to hold no more.
    """
    rounded = ends.round(decimals=3)
    at_jump = (rounded - ends).abs() < 1e-9
    return torch.where(at_jump, rounded, ends), at_jump & condition(rounded)


def _risen(curve: Curve, dead: Interval) -> bool:
    """Tell zeros by definition from those by rounding: where φ' fades out it comes back slowly."""
    outside = [end for end in (dead.low - _NEAR, dead.high + _NEAR) if abs(end) < math.inf]
    slopes = curve.slope(torch.tensor(outside, dtype=torch.float64)).abs()
    return bool((slopes > _RISEN * min(curve.steepest, 1.0)).all())


def _listed(intervals: tuple[Interval, ...], variable: str) -> str:
    return " and ".join(interval.within(variable) for interval in intervals)


def _tail(interval: Interval, curve: Curve) -> str:
    """Return an interval that goes on to an end of the line, and the slope there if it is constant."""
    direction = 1 if interval.high == math.inf else -1
    start = interval.low if direction > 0 else interval.high
    near, far = curve.slope(torch.tensor([start + direction * _NEAR, direction * _REACH], dtype=torch.float64)).tolist()
    constant = f" (the slope is {number(far)} there)" if near == far else ""
    return interval.within(curve.variable) + constant


def _between(intervals: tuple[Interval, ...], variable: str) -> str:
    if len(intervals) <= _MOST_LISTED:
        return f"for {_listed(intervals, variable)}"
    middles = torch.tensor([(interval.low + interval.high) / 2 for interval in intervals], dtype=torch.float64)
    first, spacing = float(middles[middles > 0][0]), middles.diff()
    if float(spacing.max() - spacing.min()) < 1e-3 * float(spacing.mean()):
        return f"around {variable} = {number(first)} and again every {number(float(spacing.mean()))}"
    return f"around {variable} = {number(first)}, and in {len(intervals) - 1} more places within ±{_REACH:.0f}"
