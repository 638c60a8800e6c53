"""The picture of the calibration: the ratio that the first steps showed against the accuracy that came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from experiments import calibrate_scores, style
from torchact.diagnostics import Thresholds
from torchact.diagnostics.evidence import Family

FAMILIES: dict[Family, str] = {"sgd": "SGD and momentum", "adaptive": "Adam"}
_COLOURS = {"MLP": "#2471a3", "CNN": "#1e8449", "transformer": "#b7950b", "bare transformer": "#c0392b"}
_LEFT, _RIGHT = 1e-26, 1e2  #: of the axis of ratios; what is smaller is drawn at its end


def draw(runs: pd.DataFrame, fitted: Mapping[Family, float]) -> Figure:
    """Draw each run as a point, a panel a family of optimisers: filled where a verdict foretold that it fails.

    Args:
        runs: those that were held out.
        fitted: by family, the threshold that was fitted to the other runs.
    """
    figure = Figure(figsize=(12, 5.6), layout="constrained")
    panels = figure.subplots(1, len(FAMILIES), sharey=True)
    for axes, (family, title) in zip(panels, FAMILIES.items(), strict=True):
        of_family = runs[runs["family"] == family]
        _draw_runs(axes, of_family)
        _draw_lines(axes, _defaults(family), fitted[family])
        style.accuracy_axes(
            axes, f"{title}: {len(of_family)} runs", "smallest ‖δ‖ of a layer ÷ ‖δ‖ of the last layer, steps 8 to 10"
        )
        axes.set_ylabel("training accuracy in the end")
        axes.set_ylim(0, 1.03)
        axes.label_outer()
    figure.legend(handles=_legend(runs), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.suptitle(
        "What ten steps show, and what comes of it: to the left the gradient has faded, below the line it did not learn"
    )
    return figure


def _defaults(family: Family) -> Sequence[float]:
    thresholds = Thresholds()
    if family == "adaptive":
        return (thresholds.vanishing_ratio_adaptive,)
    return thresholds.vanishing_ratio_sgd, thresholds.vanishing_ratio_sgd_error


def _draw_runs(axes: Axes, runs: pd.DataFrame) -> None:
    foretold = calibrate_scores.combined(runs)
    places = runs["ratio"].fillna(_LEFT).clip(_LEFT, _RIGHT / 1.5)
    for architecture, colour in _COLOURS.items():
        for says in (True, False):
            chosen = (runs["architecture"] == architecture) & (foretold == says)
            axes.scatter(
                places[chosen],
                runs["accuracy"][chosen],
                s=26,
                marker="o",
                facecolors=colour if says else "none",
                edgecolors=colour,
                alpha=0.75,
                linewidths=1.1,
                zorder=3,
            )
    axes.set_xscale("log")
    axes.set_xlim(_LEFT / 10, _RIGHT)
    axes.xaxis.set_major_locator(LogLocator(numticks=8))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.text(_LEFT, 0.16, "← and less", fontsize=8, ha="left")


def _draw_lines(axes: Axes, defaults: Sequence[float], fitted: float) -> None:
    axes.axhline(calibrate_scores.LEARNED, color="#717d7e", linewidth=0.9)
    for default in defaults:
        axes.axvline(default, color="black", linewidth=1.1)
    if np.isfinite(fitted):
        axes.axvline(fitted, color="#7d3c98", linewidth=1.3, linestyle=(0, (5, 2)))
    look: dict[str, Any] = {"fontsize": 9, "color": "#515a5a", "transform": axes.transAxes}
    axes.text(0.03, 0.95, "faded, and learned all the same", va="top", **look)


def _legend(runs: pd.DataFrame) -> list[Line2D]:
    point: dict[str, Any] = {"marker": "o", "linestyle": "none", "markersize": 6}
    shown = [name for name in _COLOURS if (runs["architecture"] == name).any()]
    return [
        *(Line2D([], [], color=_COLOURS[name], label=name, **point) for name in shown),
        Line2D([], [], color="black", label="filled: “will not learn”, said after ten steps", **point),
        Line2D([], [], color="black", label="open: not said", markerfacecolor="none", **point),
        Line2D([], [], color="black", linewidth=1.1, label="default thresholds (SGD: warning and error)"),
        Line2D(
            [], [], color="#7d3c98", linewidth=1.3, linestyle=(0, (5, 2)), label="threshold fitted to the other seeds"
        ),
    ]
