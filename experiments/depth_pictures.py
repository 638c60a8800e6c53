"""The pictures of the depth experiment: gradient norm against layer, and accuracy against depth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.lines import Line2D
from torch.utils.tensorboard import SummaryWriter

from experiments import network, style
from experiments.results import ResultsFolder
from torchact import catalogue

DELTA = "‖δ‖ = ‖∂L/∂z‖ at initialisation"
WEIGHT = "‖∂L/∂W‖ at initialisation"


def draw_all(runs: pd.DataFrame, layers: pd.DataFrame, width: int, folder: ResultsFolder) -> dict[str, Path]:
    """Draw and write every picture; return their paths by name."""
    initial = layers[layers["step"] == 0]
    figures = {
        "story": story(runs, initial, width),
        "gradient_by_layer": grid(initial, "preactivation_gradient_norm", DELTA, width),
        "weight_gradient_by_layer": grid(initial, "weight_gradient_norm", WEIGHT),
        "accuracy_by_depth": accuracy(runs),
    }
    return {name: folder.write_picture(name, figure) for name, figure in figures.items()}


def story(runs: pd.DataFrame, initial: pd.DataFrame, width: int) -> Figure:
    """Draw the lesson at a glance: the gradient in the deepest networks beside what became of their training.

    Highlighted are each activation's initialisation that keeps the gradient best, and the combination that fades most;
    the others are grey.
    """
    depth = int(runs["depth"].max())
    deepest = initial[(initial["depth"] == depth) & (initial["layer"] <= depth)]
    highlighted, colours = _highlights(runs[runs["depth"] == depth]), style.colours(runs["activation"])
    figure = Figure(figsize=(12, max(5.2, 2 + 0.2 * len(highlighted))), layout="constrained")  # the legend is in it
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
    for (activation, initialisation), group in deepest.groupby(["activation", "initialisation"], sort=False):
        chosen = (activation, initialisation) in highlighted
        look = _look(activation, initialisation, colours[activation] if chosen else None)
        predicted = chosen and network.predict(activation, initialisation, depth, width) is not None
        measured = look | {"linestyle": "none"} if predicted else look
        style.with_band(left, group, "layer", "preactivation_gradient_norm", band=chosen, **measured)
        of_combination = runs[(runs["activation"] == activation) & (runs["initialisation"] == initialisation)]
        style.with_band(right, of_combination, "depth", "test_accuracy", band=chosen, log=False, **look)
        if chosen:
            line = {"color": look["color"], "linestyle": look["linestyle"]}
            _draw_prediction(left, group, activation, initialisation, depth, width, **line)
    left.plot([], [], color="black", linewidth=1, label="lines: mean-field theory")
    style.gradient_axes(left, f"Gradient at initialisation, {depth} hidden layers", style.LAYER, DELTA)
    left.legend(fontsize=9, loc="lower right", frameon=False)
    style.accuracy_axes(right, "Accuracy after training", "hidden layers")
    right.set_xticks(sorted(runs["depth"].unique()))
    figure.suptitle(
        "Backpropagation multiplies a factor a layer: where it is far from 1, the first layers do not learn",
        fontsize=13,
    )
    return figure


def grid(initial: pd.DataFrame, column: str, label: str, width: int | None = None) -> Figure:
    """Draw a panel for each activation (row) and initialisation (column), a line a depth with a band over seeds.

    Args:
        initial: the layers' table at step 0.
        column: what is drawn against the layer, on a log axis that all panels share.
        label: that axis's label.
        width: units in a hidden layer; given, the prediction for δ is drawn as a line through the last hidden layer.
    """
    activations, initialisations = list(initial["activation"].unique()), list(initial["initialisation"].unique())
    figure = Figure(figsize=(1.5 + 2.9 * len(initialisations), 1.2 + 2.4 * len(activations)), layout="constrained")
    panels = figure.subplots(len(activations), len(initialisations), sharex=True, sharey=True, squeeze=False)
    groups = dict(iter(initial.groupby(["activation", "initialisation"])))
    for row, activation in enumerate(activations):
        for place, initialisation in enumerate(initialisations):
            axes = panels[row, place]
            if (activation, initialisation) in groups:
                _draw_depths(axes, groups[activation, initialisation], column, width)
            x_label = "layer" if row == len(activations) - 1 else ""
            style.gradient_axes(axes, style.label(activation, initialisation), x_label)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.supylabel(label)
    return figure


def accuracy(runs: pd.DataFrame) -> Figure:
    """Draw final test accuracy against depth: a panel an activation, a line an initialisation, bands over seeds."""
    activations, colours = list(runs["activation"].unique()), style.colours(runs["activation"])
    figure = Figure(figsize=(1.5 + 3.2 * len(activations), 4), layout="constrained")
    panels = figure.subplots(1, len(activations), sharey=True, squeeze=False)[0]
    for axes, activation in zip(panels, activations, strict=True):
        of_activation = runs[runs["activation"] == activation]
        for initialisation, group in of_activation.groupby("initialisation", sort=False):
            look = style.line(initialisation) | {"color": colours[activation]}
            style.with_band(axes, group, "depth", "test_accuracy", log=False, **look)
        style.accuracy_axes(axes, catalogue.get(activation).name, "hidden layers")
        axes.set_xticks(sorted(runs["depth"].unique()))
        axes.label_outer()
    shown = runs["initialisation"].unique()
    handles = [Line2D([], [], color="black", label=key.capitalize(), **style.line(key)) for key in shown]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, handlelength=3.5)
    return figure


def show_in_tensorboard(log_dir: Path, pictures: Mapping[str, Path], verdict: Sequence[str]) -> None:
    """Put the pictures and the verdict into a TensorBoard run of their own."""
    with SummaryWriter(str(log_dir)) as writer:
        for name, path in pictures.items():
            writer.add_image(f"at_a_glance/{name}", imread(path)[..., :3], dataformats="HWC")
        writer.add_text("at_a_glance/verdict", "\n\n".join(verdict))


def _draw_depths(axes: Axes, group: pd.DataFrame, column: str, width: int | None) -> None:
    depths = sorted(group["depth"].unique())
    activation, initialisation = group.iloc[0][["activation", "initialisation"]]
    for depth, shade in zip(depths, style.shades(len(depths)), strict=True):
        of_depth = group[(group["depth"] == depth) & (group["layer"] <= depth)]
        predicted = width is not None and network.predict(activation, initialisation, depth, width) is not None
        look: dict[str, Any] = {"color": shade, "marker": "o", "ms": 3.5, "linestyle": "none" if predicted else "-"}
        style.with_band(axes, of_depth, "layer", column, label=f"{depth} hidden layers", **look)
        if width is not None and predicted:
            label = "lines: mean-field theory" if depth == depths[-1] else None
            _draw_prediction(axes, of_depth, activation, initialisation, depth, width, color=shade, label=label)


def _draw_prediction(
    axes: Axes, rows: pd.DataFrame, activation: str, initialisation: str, depth: int, width: int, **look: Any
) -> None:
    """Draw mean-field theory's profile through the gradient measured in the last hidden layer."""
    profile = network.predict(activation, initialisation, depth, width)
    if profile is not None:
        anchor = style.geometric_mean(rows[rows["layer"] == depth]["preactivation_gradient_norm"])
        norms = style.positive([anchor * norm for norm in profile.gradient_norms])
        axes.plot(range(1, depth + 1), norms, linewidth=1, **look)


def _highlights(deepest: pd.DataFrame) -> set[tuple[str, str]]:
    """Choose each activation's initialisation that keeps the gradient best, and the combination that fades most."""
    ratios = deepest.groupby(["activation", "initialisation"], sort=False)["first_to_last"].apply(style.geometric_mean)
    distance = pd.Series({key: abs(math.log10(ratio)) if ratio > 0 else math.inf for key, ratio in ratios.items()})
    best = {distance[distance.index.get_level_values(0) == name].idxmin() for name in deepest["activation"].unique()}
    return {*best, ratios.idxmin()}


def _look(activation: str, initialisation: str, colour: str | None) -> dict[str, Any]:
    """Return how a combination's line looks in the story: in colour with a label, or grey without one."""
    if colour is None:
        return {"color": "#c8c8c8", "linewidth": 1.0, "zorder": 1}
    look = {"color": colour, "zorder": 2, "label": style.label(activation, initialisation)}
    return style.line(initialisation) | look
