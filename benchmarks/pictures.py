"""The picture of a measurement of speed: how many times as fast as eager torch each activation is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.floors import geometric_mean, labels
from benchmarks.tables import elements, threads

_MODES = {"forward": "forward", "backward": "backward", "both": "forward + backward"}

#: How each provider is drawn, in the order of the legend; later ones lie above.
_LOOKS: dict[str, dict[str, Any]] = {
    "compile": {"color": "#9aa0a6", "marker": "s", "label": "torch.compile"},
    "accelerated": {"color": "#e67e22", "marker": "D", "label": "torch, accelerated by torchact"},
    "torchact": {"color": "#1f5fa8", "marker": "o", "label": "torchact"},
}


def draw(rows: pd.DataFrame, pictured: int) -> Figure:
    """Draw speed-ups over eager torch, a panel a mode and dtype, a line an activation.

    Args:
        rows: of one command.
        pictured: the number of elements to draw; the largest if it was not measured. Of numbers of threads it is the
            first.
    """
    sizes, first = rows["elements"].unique(), rows["threads"].iloc[0]
    size = pictured if pictured in sizes else sizes.max()
    rows = rows[(rows["elements"] == size) & (rows["threads"] == first) & rows["provider"].isin(list(_LOOKS))]
    rows = rows.assign(label=labels(rows)).dropna(subset="over_eager")
    order, modes, dtypes = _slowest_first(rows), list(rows["mode"].unique()), list(rows["dtype"].unique())
    shape = max(len(dtypes), 1), max(len(modes), 1)
    height = 1.6 + shape[0] * (0.7 + 0.2 * len(order))
    figure = Figure(figsize=(2.4 + 3.6 * shape[1], max(height, 3)), layout="constrained")
    panels = figure.subplots(*shape, sharex=True, sharey=True, squeeze=False)
    for row, dtype in enumerate(dtypes):
        for column, mode in enumerate(modes):
            axes = panels[row, column]
            _draw_panel(axes, rows[(rows["dtype"] == dtype) & (rows["mode"] == mode)], order)
            axes.set_title(f"{_MODES[mode]}, {dtype}", fontsize=10)
    for axes in panels[-1]:
        axes.set_xlabel("times as fast as eager torch", fontsize=9)
    _draw_legend(figure)
    figure.suptitle(f"{elements(int(size))} elements, {threads(int(first))}: median, and 20 to 80 % of the rounds")
    return figure


def write(figure: Figure, path: Path) -> None:
    """Write the figure as PNG, in the place of an earlier one once it is whole."""
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, format="png", dpi=130)
    temporary.replace(path)


def _slowest_first(rows: pd.DataFrame) -> list[str]:
    """Return the labels by torchact's speed-up over all panels, so that the fastest is drawn on top."""
    ours = rows[rows["provider"] == "torchact"] if (rows["provider"] == "torchact").any() else rows
    means = ours.groupby("label", sort=False)["over_eager"].apply(geometric_mean).sort_values()
    return [str(label) for label in means.index]


def _draw_legend(figure: Figure) -> None:
    drawn = (axes.get_legend_handles_labels() for axes in figure.axes)
    handles = {text: handle for handles, texts in drawn for handle, text in zip(handles, texts, strict=True)}
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), frameon=False)


def _draw_panel(axes: Axes, rows: pd.DataFrame, order: Sequence[str]) -> None:
    place = {label: position for position, label in enumerate(order)}
    axes.axvline(1, color="black", linewidth=0.9, zorder=1)
    for provider, look in _LOOKS.items():
        of_provider = rows[rows["provider"] == provider]
        if len(of_provider):
            _draw_provider(axes, of_provider, [place[label] for label in of_provider["label"]], look)
    axes.set_xscale("log")
    axes.set_yticks(range(len(order)), order, fontsize=8)
    axes.set_ylim(-0.7, len(order) - 0.3)
    axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", labelsize=8, labelbottom=True)
    axes.grid(True, which="major", alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_provider(axes: Axes, rows: pd.DataFrame, places: Sequence[int], look: dict[str, Any]) -> None:
    median = rows["over_eager"].to_numpy()
    errors = np.stack([median - rows["over_eager_low"], rows["over_eager_high"] - median]).clip(min=0)
    axes.errorbar(median, places, xerr=errors, linestyle="none", markersize=4.5, elinewidth=1.2, zorder=2, **look)
