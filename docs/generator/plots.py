"""The picture on an activation's page: its value and, below it, its derivative."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import NamedTuple

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from docs.generator.curves import Curve
from docs.generator.saturation import Flatness, Interval

_POINTS = 600
_BESIDE_KINK = 1e-9


class Theme(NamedTuple):
    """The colours on a light or a dark page; the background is the page's."""

    name: str
    ink: str
    grid: str
    value: str
    slope: str
    flat: str
    dead: str


LIGHT = Theme("light", "#333333", "#dddddd", "#2471a3", "#c0392b", "#fbe3b5", "#d0d3d4")
DARK = Theme("dark", "#cfd0d0", "#3b3d40", "#6cb4e4", "#f1887c", "#4d4020", "#35383c")


def pictures(curve: Curve, found: Flatness) -> dict[str, str]:
    """Draw a curve and return the picture as SVG for light and for dark pages."""
    file = StringIO()
    # Text stays text, and two builds of the same picture give the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "torchact", "font.size": 9}):
        draw(curve, found).savefig(file, format="svg", transparent=True, metadata={"Date": None})
    light = dark = file.getvalue()
    for before, after in zip(LIGHT[1:], DARK[1:], strict=True):
        dark = dark.replace(before, after)
    return {LIGHT.name: light, DARK.name: dark}


def draw(curve: Curve, found: Flatness) -> Figure:
    """Draw the value above the derivative, with the dead, saturated and nearly flat intervals shaded.

    Where a line jumps it has a gap, with a dot at what is taken for the value there.
    """
    figure = Figure(figsize=(6.4, 4.4))
    upper, lower = figure.subplots(2, 1, sharex=True)
    figure.subplots_adjust(left=0.11, right=0.985, top=0.93, bottom=0.1, hspace=0.12)
    for axes, function, label, colour in (
        (upper, curve.value, curve.value_label, LIGHT.value),
        (lower, curve.slope, curve.slope_label, LIGHT.slope),
    ):
        _shade(axes, curve, (*found.saturated, *found.nearly_flat), LIGHT.flat)
        _shade(axes, curve, found.dead, LIGHT.dead)
        _line(axes, curve, function, colour)
        axes.set_ylabel(label, color=colour)
        _dress(axes)
    lower.set_xlabel(curve.variable, color=LIGHT.ink)
    lower.set_xlim(*curve.window)
    _legend(upper, found)
    return figure


def _line(axes: Axes, curve: Curve, function: Callable[[Tensor], Tensor], colour: str) -> None:
    low, high = curve.window
    kinks = torch.tensor([kink for kink in curve.kinks if low < kink < high], dtype=torch.float64)
    even = torch.linspace(low, high, _POINTS, dtype=torch.float64)
    x = torch.cat([even, kinks - _BESIDE_KINK, kinks, kinks + _BESIDE_KINK]).unique()
    y = function(x)
    at = torch.searchsorted(x, kinks)
    jumps = at[(y[at + 1] - y[at - 1]).abs() > 1e-6]
    axes.plot(x[jumps], y[jumps], "o", color=colour, markersize=4)
    y[jumps] = torch.nan
    axes.plot(x, y, color=colour, linewidth=1.8, solid_capstyle="round")


def _shade(axes: Axes, curve: Curve, intervals: tuple[Interval, ...], colour: str) -> None:
    low, high = curve.window
    for interval in intervals:
        if interval.low < high and interval.high > low:
            axes.axvspan(max(interval.low, low), min(interval.high, high), color=colour, linewidth=0, zorder=0)


def _dress(axes: Axes) -> None:
    axes.grid(color=LIGHT.grid, linewidth=0.6)
    axes.axhline(0, color=LIGHT.ink, linewidth=0.6, zorder=1)
    axes.set_axisbelow(True)
    axes.tick_params(colors=LIGHT.ink, length=0)
    axes.spines[:].set_visible(False)


def _legend(axes: Axes, found: Flatness) -> None:
    words = {"saturated": found.saturated, "nearly flat": found.nearly_flat}
    flat = " or ".join(word for word, intervals in words.items() if intervals)
    shown = ((flat, LIGHT.flat), ("dead" if found.dead else "", LIGHT.dead))
    patches = [Patch(color=colour, label=word) for word, colour in shown if word]
    if patches:
        axes.legend(
            handles=patches,
            loc="lower left",
            bbox_to_anchor=(-0.01, 0.97),
            ncols=len(patches),
            frameon=False,
            labelcolor=LIGHT.ink,
        )
