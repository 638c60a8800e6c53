"""The pictures of the learning speed experiment: each layer's speed, learning curves, outcomes by depth, the cure."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from experiments import style
from experiments.learning_speed_plan import CURE, Plan
from experiments.results import ResultsFolder
from torchact import catalogue

SPEED = "speed of learning ‖∂L/∂b‖"
WEIGHT_SPEED = "‖∂L/∂W‖"

#: Where runs that did not get there are drawn, in units of the limit.
_ABOVE = 1.5


def draw_all(
    runs: pd.DataFrame,
    outcomes: pd.DataFrame,
    layers: pd.DataFrame,
    curves: pd.DataFrame,
    plan: Plan,
    folder: ResultsFolder,
) -> dict[str, Path]:
    """Draw and write every picture that there are runs for; return their paths by name."""
    figures = {}
    if len(comparison := plan.compared(runs)):
        compared = plan.compared(layers)
        figures["speed_by_layer"] = speeds(compared, "bias_gradient_norm", SPEED)
        figures["weight_speed_by_layer"] = speeds(compared, "weight_gradient_norm", WEIGHT_SPEED)
        figures["learning_curves"] = learning_curves(plan.compared(curves), plan)
        figures["outcome_by_depth"] = outcome_by_depth(comparison, plan.compared(outcomes), plan)
    if len(plan.cured(runs)):
        figures["cure"] = before_and_after(plan.cured(curves), plan.cured(layers), plan)
    return {name: folder.write_picture(name, figure) for name, figure in figures.items()}


def speeds(layers: pd.DataFrame, column: str, label: str) -> Figure:
    """Draw each layer's gradient norm over training in the deepest networks: a panel an activation, a line a layer.

    Args:
        layers: the layers of the runs that compare activations.
        column: which norm is drawn.
        label: what it is called.
    """
    depth = int(layers["depth"].max())
    deepest = layers[(layers["depth"] == depth) & (layers["layer"] <= depth)]
    activations = list(deepest["activation"].unique())
    shades = style.shades(depth)
    look: dict[str, Any] = {"linewidth": 1.3, "marker": "o", "markersize": 2}  # a run that diverges may be one point
    figure = Figure(figsize=(1.8 + 3.2 * len(activations), 5), layout="constrained")
    panels = figure.subplots(1, len(activations), sharex=True, sharey=True, squeeze=False)[0]
    for axes, activation in zip(panels, activations, strict=True):
        of_activation = deepest[deepest["activation"] == activation]
        for layer, shade in enumerate(shades, start=1):
            rows = of_activation[of_activation["layer"] == layer]
            style.with_band(axes, rows, "step", column, band=False, color=shade, **look)
        style.gradient_axes(axes, _speed_title(of_activation, column, depth), "optimiser steps", label)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10), integer=True))
        axes.label_outer()
    colours = ScalarMappable(BoundaryNorm(np.arange(0.5, depth + 1), max(depth, 2)), ListedColormap(shades))
    bar = figure.colorbar(colours, ax=list(panels), label="hidden layer (1 is nearest to the input)", aspect=30)
    bar.set_ticks(range(1, depth + 1, math.ceil(depth / 12)))
    bar.ax.invert_yaxis()
    draw = layers["initialisation"].iloc[0].capitalize()
    figure.suptitle(
        f"Each layer during training, {depth} hidden layers, {draw} initialisation: {label}, "
        "the norm of the batch's mean gradient"
    )
    return figure


def _speed_title(layers: pd.DataFrame, column: str, depth: int) -> str:
    """Return a panel's title: the activation, and how the first layer compares with the last."""
    norms = layers.pivot_table(index=["seed", "step"], columns="layer", values=column)
    ratios = (norms[1] / norms[depth].where(norms[depth] > 0)).groupby("seed")
    first, middle = style.geometric_mean(ratios.first()), style.geometric_mean(ratios.median())
    name = catalogue.get(layers["activation"].iloc[0]).name
    return f"{name}\nlayer 1 ÷ layer {depth}:\n{first:.2g} at first, median {middle:.2g}"


def learning_curves(curves: pd.DataFrame, plan: Plan) -> Figure:
    """Draw test accuracy over training: a panel an activation, a line a depth with a band over seeds."""
    activations, depths = list(curves["activation"].unique()), sorted(curves["depth"].unique())
    shades = dict(zip(depths, style.shades(len(depths)), strict=True))
    figure = Figure(figsize=(1.2 + 3.2 * len(activations), 4.2), layout="constrained")
    panels = figure.subplots(1, len(activations), sharey=True, squeeze=False)[0]
    for axes, activation in zip(panels, activations, strict=True):
        for depth, group in curves[curves["activation"] == activation].groupby("depth"):
            style.with_band(axes, group, "step", "test_accuracy", log=False, color=shades[depth], label=str(depth))
        _draw_target(axes, plan)
        style.accuracy_axes(axes, catalogue.get(activation).name, "optimiser steps")
        axes.label_outer()
    handles, labels = panels[0].get_legend_handles_labels()
    title = "hidden layers"
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, title=title)
    figure.suptitle(_conditions("Test accuracy during training", plan))
    return figure


def _conditions(subject: str, plan: Plan) -> str:
    seeds = f"{plan.seeds} seeds" if plan.seeds > 1 else "one seed"
    return (
        f"{subject}: {plan.initialisation.capitalize()} initialisation, learning rate {plan.learning_rate:g}, {seeds}"
    )


def _draw_target(axes: Axes, plan: Plan) -> None:
    axes.axhline(plan.accuracy, color="black", linewidth=0.8, linestyle=(0, (4, 3)))
    across = axes.get_yaxis_transform()
    text = f"target {plan.accuracy:.0%}"
    axes.text(1, plan.accuracy - 0.01, text, transform=across, ha="right", va="top", fontsize=8)


def outcome_by_depth(runs: pd.DataFrame, outcomes: pd.DataFrame, plan: Plan) -> Figure:
    """Draw the steps to the accuracy, and the accuracy after training, against depth: a line an activation."""
    figure = Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    activations, colours = list(runs["activation"].unique()), style.colours(runs["activation"])
    # Markers at the same height are set apart, so that they do not hide each other.
    apart = 0.013 * max(runs["depth"].max() - runs["depth"].min(), 1)
    for place, activation in enumerate(activations):
        rows = runs[runs["activation"] == activation]
        look: dict[str, Any] = {"color": colours[activation], "label": catalogue.get(activation).name}
        shift = apart * (place - (len(activations) - 1) / 2)
        medians = outcomes[outcomes["activation"] == activation].set_index("depth")["median_steps_to_accuracy"]
        _draw_steps(left, rows, medians.sort_index(), plan.steps, shift, **look)
        shifted = rows.assign(depth=rows["depth"] + shift)
        style.with_band(right, shifted, "depth", "test_accuracy", log=False, marker="o", markersize=5, **look)
    _label_steps_axes(left, plan)
    _draw_target(right, plan)
    style.accuracy_axes(right, f"Compromised: accuracy after {plan.steps:,} steps", "hidden layers")
    for axes in (left, right):
        axes.set_xticks(sorted(runs["depth"].unique()))
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle(_conditions("What vanishing does to training", plan))
    return figure


def _draw_steps(axes: Axes, runs: pd.DataFrame, medians: pd.Series, limit: int, shift: float, **look: Any) -> None:
    """Draw medians over seeds, and the seeds as dots.

    A median that was not reached is hollow and above the limit, at the end of a dotted line.
    """
    never = limit * _ABOVE
    reached = np.isfinite(medians.to_numpy())
    places, heights = medians.index.to_numpy() + shift, style.positive(medians.clip(upper=never))
    axes.plot(places, heights, color=look["color"], linewidth=1, linestyle=":")
    axes.plot(places, np.where(reached, heights, np.nan), marker="o", markersize=5, **look)
    seeds = style.positive(runs["steps_to_accuracy"].to_numpy(dtype=float, na_value=never))
    axes.plot(runs["depth"] + shift, seeds, ".", color=look["color"], alpha=0.4, markersize=4)
    hollow: dict[str, Any] = {"marker": "o", "markersize": 7, "linestyle": "none", "markerfacecolor": "white"}
    axes.plot(places[~reached], heights[~reached], color=look["color"], **hollow)


def _label_steps_axes(axes: Axes, plan: Plan) -> None:
    """Label the axes of steps, with ticks up to the limit and a grey band above it, where there is no number."""
    limit = plan.steps
    ticks = [digit * 10**power for power in range(len(str(limit))) for digit in (1, 2, 5)]
    lowest, highest = min(plan.every, limit) / _ABOVE, limit * _ABOVE**3
    axes.set_yscale("log")
    axes.set_yticks([tick for tick in ticks if lowest <= tick <= limit], minor=False)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(lowest, highest)
    axes.axhspan(limit, highest, color="#eeeeee", zorder=0)
    across = axes.get_yaxis_transform()
    axes.text(0.02, limit * _ABOVE**2, f"not in {limit:,} steps", transform=across, va="center", fontsize=9)
    axes.set_xlabel("hidden layers")
    axes.set_ylabel("optimiser steps")
    axes.set_title(f"Long: steps to {plan.accuracy:.0%} test accuracy", fontsize=11)
    style.tidy(axes)


def before_and_after(curves: pd.DataFrame, layers: pd.DataFrame, plan: Plan) -> Figure:
    """Draw one network's accuracy over training at each stage of the cure, beside the gradient it started with."""
    figure = Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.3, 1))
    initial = layers[(layers["step"] == 0) & (layers["layer"] <= plan.deepest)]
    colours = style.colours(activation for activation, _ in CURE)
    for stage, (activation, initialisation) in enumerate(CURE, start=1):
        look = style.line(initialisation) | {"color": colours[activation]}
        rows = curves[(curves["activation"] == activation) & (curves["initialisation"] == initialisation)]
        label = f"{stage}. {style.label(activation, initialisation)}"
        spaced = max(1, rows["step"].nunique() // 10)
        style.with_band(left, rows, "step", "test_accuracy", log=False, label=label, markevery=spaced, **look)
        rows = initial[(initial["activation"] == activation) & (initial["initialisation"] == initialisation)]
        style.with_band(right, rows, "layer", "bias_gradient_norm", **look)
    _draw_target(left, plan)
    style.accuracy_axes(left, "Accuracy during training", "optimiser steps")
    style.gradient_axes(right, "Speed of learning at initialisation", style.LAYER, SPEED)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, handlelength=3.5)
    figure.suptitle(
        f"One network with {plan.deepest} hidden layers: the same images, optimiser and learning rate; "
        "only activation and initialisation change",
        fontsize=13,
    )
    return figure
