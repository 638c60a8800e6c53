"""The picture of the backpropagation experiment: the chain, its derivatives three ways, the error, the speeds."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments import style
from experiments.backpropagation_chain import Chain

#: Of a longer chain this many neurons are drawn at either end.
DRAWN_ENDS = 2

#: The longest chain whose neurons are told apart in the legend.
LONGEST_LABELLED = 10

#: Colours of what goes forward through the chain and what comes back.
FORWARD, BACKWARD = "tab:blue", "tab:red"


def draw(
    chain: Chain,
    values: pd.DataFrame,
    derivatives: pd.DataFrame,
    iterations: pd.DataFrame,
    neurons: pd.DataFrame,
    small_error: float,
) -> Figure:
    """Return the picture: the chain with its values, the derivatives three ways, the error and the learning speeds.

    Args:
        chain: what the values are of.
        values: the table of what each neuron computes before the first step.
        derivatives: the table of partial derivatives there.
        iterations: the table of output and error, step by step.
        neurons: the table of parameters and their derivatives, step by step.
        small_error: the error at which the iteration ends; 0 is not drawn.
    """
    figure = Figure(figsize=(16, 9), layout="constrained")
    grid = figure.add_gridspec(2, 3, height_ratios=(0.8, 1))
    draw_chain(figure.add_subplot(grid[0, :]), chain, values)
    left, middle, right = (figure.add_subplot(grid[1, column]) for column in range(3))
    draw_derivatives(left, derivatives)
    draw_error(middle, iterations, small_error)
    draw_speeds(right, neurons)
    length = len(values)
    figure.suptitle(
        f"Backpropagation through {length} neuron{'s' if length > 1 else ''}, φ = {chain.record.key}: "
        f"forward above, backward below",
        fontsize=14,
    )
    return figure


def draw_chain(axes: Axes, chain: Chain, values: pd.DataFrame) -> None:
    """Draw the chain with the values going forward above it and the derivatives coming back below it."""
    rows = style.ends(values.to_dict("records"), DRAWN_ENDS, DRAWN_ENDS)
    axes.text(0, 0, f"x = {chain.x:.4g}", ha="center", va="center", fontsize=12)
    for place, (row, following) in enumerate(itertools.pairwise([*rows, None]), start=1):
        if row is None:
            axes.text(place, 0, "…", ha="center", va="center", fontsize=20)
        else:
            _draw_neuron(axes, place, row)
        if row is not None and following is not None:
            factor = f"× w{following['neuron']}·φ'(z{row['neuron']})\n= {following['weight'] * row['slope']:.4g}"
            axes.text(place + 0.5, -0.14, factor, ha="center", va="top", color=BACKWARD)
    end = len(rows) + 1
    for place in range(end):
        _draw_arrow(axes, place + 0.2, place + 0.8, 0.06, FORWARD)
    for place in range(1, end):
        _draw_arrow(axes, place + 0.8, place + 0.2, -0.06, BACKWARD)
    length, last = len(values), values["activation"].iloc[-1]
    target = f"E = ½(T − a{length})²\n= {(chain.target - last) ** 2 / 2:.6g}\nT = {chain.target:.4g}"
    axes.text(end - 0.15, 0, target, ha="left", va="center", fontsize=12)
    axes.text(end - 0.5, -0.14, f"(a{length} − T)·φ'(z{length})", ha="center", va="top", color=BACKWARD)
    axes.set(xlim=(-0.3, end + 0.45), ylim=(-0.85, 0.85))
    axes.set_axis_off()


def _draw_neuron(axes: Axes, place: int, row: Mapping[str, Any]) -> None:
    neuron = row["neuron"]
    circle = {"boxstyle": "circle,pad=0.8", "facecolor": "0.95", "edgecolor": "0.3"}
    parameters = f"w{neuron} = {row['weight']:.4g}\nb{neuron} = {row['bias']:.4g}"
    forward_text = f"z{neuron} = {row['preactivation']:.6g}\na{neuron} = {row['activation']:.6g}"
    back_text = f"∂E/∂b{neuron} = {row['delta']:.4g}\n∂E/∂w{neuron} = {row['delta'] * row['input']:.4g}"
    axes.text(place, 0, str(neuron), ha="center", va="center", bbox=circle, fontsize=14)
    axes.text(place - 0.5, 0.14, parameters, ha="center", va="bottom", color=FORWARD)
    axes.text(place, 0.42, forward_text, ha="center", va="bottom", color=FORWARD, fontsize=12)
    axes.text(place, -0.42, back_text, ha="center", va="top", color=BACKWARD, fontsize=12)


def _draw_arrow(axes: Axes, start: float, end: float, height: float, colour: str) -> None:
    axes.annotate("", (end, height), (start, height), arrowprops={"arrowstyle": "->", "color": colour})


def draw_derivatives(axes: Axes, derivatives: pd.DataFrame) -> None:
    """Draw the size of each derivative before the first step, by the three methods, over the neurons."""
    markers = (("by_hand", "o", 11), ("by_functions", "x", 8), ("by_finite_differences", "+", 13))
    for parameter, colour in (("w", "tab:orange"), ("b", "tab:purple")):
        rows = derivatives[derivatives["parameter"] == parameter]
        for method, marker, size in markers:
            label = f"∂E/∂{parameter} {method.replace('_', ' ')}"
            sizes = style.positive(rows[method].abs())
            axes.plot(rows["neuron"], sizes, marker, markersize=size, fillstyle="none", color=colour, label=label)
    shown = style.positive(derivatives["by_hand"].abs())
    if np.isnan(shown).all():
        _say_all_zero(axes)
    else:
        axes.set(yscale="log", ylim=(np.nanmin(shown) / 3, np.nanmax(shown) * 3))
    _label(axes, "neuron (1 is nearest the input)", "|derivative| before the first step")
    axes.set_xlim(0.5, derivatives["neuron"].max() + 0.5)
    axes.set_title("Three ways, the same derivatives")
    axes.legend(fontsize="small")


def draw_error(axes: Axes, iterations: pd.DataFrame, small_error: float) -> None:
    """Draw the error over the iterations, and the small one at which they end."""
    look: dict[str, Any] = {"color": "tab:green", "linewidth": 2, "markersize": 4}
    axes.plot(iterations["iteration"], style.positive(iterations["error"]), style.curve(len(iterations)), **look)
    if small_error > 0:
        axes.axhline(small_error, color="0.5", linestyle=":", label=f"small: {small_error:g}")
        axes.legend()
    axes.set_yscale("log")
    _label(axes, "iteration", "error E = ½(T − a)²")
    axes.set_title("The error")


def draw_speeds(axes: Axes, neurons: pd.DataFrame) -> None:
    """Draw each neuron's learning speed over the iterations."""
    length = int(neurons["neuron"].max())
    few = length <= LONGEST_LABELLED
    for neuron, rows in neurons.groupby("neuron"):
        colour = colormaps["plasma"](0.85 * (neuron - 1) / max(1, length - 1))
        label = f"neuron {neuron}" if few or neuron in (1, length) else None
        if label and not rows["bias_gradient"].any():
            label += ": exactly 0"
        form = style.curve(len(rows)) if few else "-"
        speeds = style.positive(rows["bias_gradient"].abs())
        axes.plot(rows["iteration"], speeds, form, color=colour, label=label, markersize=4)
    if neurons["bias_gradient"].any():
        axes.set_yscale("log")
        if few:
            _point_at_standstill(axes, neurons)
    else:
        _say_all_zero(axes)
    _label(axes, "iteration", "learning speed |∂E/∂b|")
    axes.set_title("How fast each neuron learns")
    axes.legend()


def _point_at_standstill(axes: Axes, neurons: pd.DataFrame) -> None:
    """Point at the first dip where a weight changes sign: nothing comes back through it to the neurons before."""
    weights = neurons.pivot(index="iteration", columns="neuron", values="weight")
    speeds = neurons.pivot(index="iteration", columns="neuron", values="bias_gradient").abs()
    for neuron in weights.columns[1:]:
        weight, speed = weights[neuron].to_numpy(), speeds[neuron - 1].to_numpy()
        for crossing in np.flatnonzero(weight[:-1] * weight[1:] < 0):
            lowest = crossing + int(np.argmin(speed[crossing : crossing + 2]))
            if 0 < speed[lowest] < min(speed[0], speed[lowest:].max()):
                axes.annotate(
                    f"w{neuron} changes sign",
                    (lowest, speed[lowest]),
                    xytext=(0.03, 0.05),
                    textcoords="axes fraction",
                    arrowprops={"arrowstyle": "->"},
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
                )
                return


def _say_all_zero(axes: Axes) -> None:
    """Say what a logarithmic axis cannot show."""
    text = "every derivative is exactly 0"
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=12)
    axes.set_yticks([])


def _label(axes: Axes, x_label: str, y_label: str) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set(xlabel=x_label, ylabel=y_label)
