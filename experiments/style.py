"""How the experiments' pictures and tables look.

In a picture each activation has a colour, and an initialisation its dash pattern; log axes survive zeros and the ends
of float64's range; long tables and chains leave out their middle.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike

from torchact import catalogue, initialisations

#: Activations that have the same colour in every picture.
_OWN_COLOURS = {
    "sigmoid": "#c0392b",
    "tanh": "#2471a3",
    "relu": "#1e8449",
    "leaky_relu": "#b7950b",
    "softmax": "#7d3c98",
    "binary_step": "#717d7e",
    "identity": "#212f3d",
}

#: Colours for the others, of middle lightness; each is as far as can be from those before it (in CIELAB) and from grey.
_OTHER_COLOURS = (
    *("#ff55a0", "#5f3c0a", "#8ccd46", "#1e82ff", "#00cdcd", "#782341", "#e6a5e6"),
    *("#f5a57d", "#b4be78", "#5a6900", "#00d278", "#3cc8ff", "#e1781e", "#d7788c"),
)

_LINES = dict(
    zip(
        initialisations.INITIALISATIONS,
        (((0, (1, 1)), "s"), ((0, (5, 2)), "^"), ("-", "o"), ((0, (5, 2, 1, 2)), "D")),
        strict=True,
    )
)

Row = TypeVar("Row")

#: What a log axis can show: matplotlib places ticks beyond an axis, and they must stay within float64's range too.
SMALLEST_DRAWN, LARGEST_DRAWN = 1e-200, 1e200

#: The label of an axis of layers.
LAYER = "layer (1 is nearest to the input)"


def colours(activations: Iterable[str]) -> dict[str, str]:
    """Return the colours that activations have in a picture, by catalogue key; up to 21 are all different.

    Args:
        activations: the keys in the order in which the picture shows them; repetitions do not count.
    """
    keys = dict.fromkeys(activations)
    own = {key: _OWN_COLOURS[key] for key in keys if key in _OWN_COLOURS}
    free = [colour for colour in (*_OTHER_COLOURS, *_OWN_COLOURS.values()) if colour not in own.values()]
    others = zip([key for key in keys if key not in own], itertools.cycle(free), strict=False)
    return own | dict(others)


def line(initialisation: str) -> dict[str, Any]:
    """Return the dash pattern and marker of the initialisation with this key, as arguments of ``Axes.plot``."""
    linestyle, marker = _LINES[initialisation]
    return {"linestyle": linestyle, "marker": marker, "markersize": 4}


def label(activation: str, initialisation: str) -> str:
    """Return what a combination is called in legends, titles and sentences."""
    return f"{catalogue.get(activation).name}, {initialisation.capitalize()}"


def shades(count: int) -> list[str]:
    """Return ``count`` colours from light to dark, for an ordered quantity such as depth."""
    return [to_hex(colormaps["viridis_r"](position)) for position in np.linspace(0.2, 1.0, count)]


def geometric_mean(values: pd.Series) -> float:
    """Return the geometric mean over seeds, 0 when any value is 0; NaNs are left out."""
    values = values.dropna()
    if values.empty:
        return math.nan
    return float(np.exp(np.log(values).mean())) if (values > 0).all() else 0.0


def positive(values: ArrayLike) -> np.ndarray:
    """Return the values with NaN for what a log axis cannot show: zeros, negative numbers, the ends of the range."""
    array = np.asarray(values, dtype=float)
    return np.where((array > SMALLEST_DRAWN) & (array < LARGEST_DRAWN), array, np.nan)


def curve(points: int) -> str:
    """Return matplotlib's format of a curve through so many points: as long as they can be told apart, with dots."""
    return "o-" if points <= 60 else "-"


def ends(rows: Sequence[Row], first: int, last: int) -> list[Row | None]:
    """Return the first and the last rows, with None in place of those between."""
    return [*rows] if len(rows) <= first + last else [*rows[:first], None, *rows[-last:]]


def tidy(axes: Axes) -> None:
    """Draw a light grid behind the curves and leave out the frame's top and right."""
    axes.grid(True, which="major", alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def with_band(
    axes: Axes, rows: pd.DataFrame, x: str, y: str, *, band: bool = True, log: bool = True, **look: Any
) -> None:
    """Draw the mean over seeds (geometric on a log axis) and a band from the smallest to the largest seed."""
    groups = rows.groupby(x)[y]
    middle = groups.apply(geometric_mean) if log else groups.mean()
    draw = positive if log else np.asarray
    axes.plot(middle.index, draw(middle), **look)
    low, high = draw(groups.min()), draw(groups.max())
    if band and np.isfinite(high).any():
        axes.fill_between(middle.index, low, high, color=look["color"], alpha=0.18, linewidth=0)


def gradient_axes(axes: Axes, title: str, x_label: str, y_label: str = "") -> None:
    """Give the axes on which gradient norms are drawn a log scale and labels, and say so where all norms are 0."""
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_title(title, fontsize=11)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if any(np.isfinite(line.get_ydata()).any() for line in axes.lines):
        axes.set_yscale("log")  # which needs something positive to show
    else:
        axes.text(0.5, 0.5, "exactly zero in every layer", transform=axes.transAxes, ha="center", color="#717d7e")
    tidy(axes)


def accuracy_axes(axes: Axes, title: str, x_label: str) -> None:
    """Give the axes on which test accuracy is drawn its range, labels and the line of chance."""
    axes.axhline(0.1, color="black", linewidth=0.8, linestyle=(0, (1, 3)))
    axes.text(1, 0.11, "chance", transform=axes.get_yaxis_transform(), ha="right", va="bottom", fontsize=8)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel(x_label)
    axes.set_ylabel("test accuracy")
    axes.set_title(title, fontsize=11)
    tidy(axes)
