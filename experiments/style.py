"""How the experiments' pictures look: a colour an activation, a dash pattern an initialisation, logs that survive 0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from torchact import catalogue, initialisations

_COLOURS = dict(
    zip(
        catalogue.CATALOGUE, ("#c0392b", "#2471a3", "#1e8449", "#b7950b", "#7d3c98", "#717d7e", "#212f3d"), strict=False
    )
)
_LINES = dict(
    zip(
        initialisations.INITIALISATIONS,
        (((0, (1, 1)), "s"), ((0, (5, 2)), "^"), ("-", "o"), ((0, (5, 2, 1, 2)), "D")),
        strict=True,
    )
)


def colour(activation: str) -> str:
    """Return the colour of the activation with this catalogue key."""
    return _COLOURS[activation]


def line(initialisation: str) -> dict[str, Any]:
    """Return the dash pattern and marker of the initialisation with this key, as arguments of ``Axes.plot``."""
    linestyle, marker = _LINES[initialisation]
    return {"linestyle": linestyle, "marker": marker, "markersize": 4}


def shades(count: int) -> list[str]:
    """Return ``count`` colours from light to dark, for an ordered quantity such as depth."""
    return [to_hex(colormaps["viridis_r"](position)) for position in np.linspace(0.2, 1.0, count)]


def geometric_mean(values: pd.Series) -> float:
    """Return the geometric mean over seeds, 0 when any value is 0; NaNs are left out."""
    values = values.dropna()
    if values.empty:
        return math.nan
    return float(np.exp(np.log(values).mean())) if (values > 0).all() else 0.0


def positive(values: Sequence[float]) -> np.ndarray:
    """Return the values with NaN in place of zeros and negative numbers, which a log axis cannot show."""
    array = np.asarray(values, dtype=float)
    return np.where(array > 0, array, np.nan)


def tidy(axes: Axes) -> None:
    """Draw a light grid behind the curves and leave out the frame's top and right."""
    axes.grid(True, which="major", alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
