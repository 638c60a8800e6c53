"""What vanishing does to training: the first layers learn slowly, training takes long, and accuracy is compromised.

Networks on the digits that differ in activation and depth alone are trained by plain stochastic gradient descent. A
layer's speed of learning is ‖∂L/∂b^l‖, as in Nielsen, "Neural Networks and Deep Learning", chapter 5. L is the mean
loss of a mini-batch: of the quantities called gradient norm this is the norm of the *mean* gradient, which is what the
optimiser takes its step from, and neither a mean of per-image norms nor a mean of |∂L/∂b|. ‖∂L/∂W^l‖ is recorded
beside it, but is itself no measure of vanishing: in ReLU networks it is about the same in every layer, because the
outputs that it is multiplied with fade where the gradient grows.

At the end one network goes from untrainable to trained: nothing but its activation and initialisation are changed.

Run it with ``python -m experiments learning-speed``.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from rich import box
from rich.console import Console
from rich.table import Table

from experiments import style, sweep
from experiments.results import ResultsFolder
from experiments.training import (
    CURVE_COLUMNS,
    KEY_COLUMNS,
    LAYER_COLUMNS,
    RunResult,
    RunSettings,
    curve_table,
    layer_table,
)
from torchact import catalogue, initialisations

#: The activations and initialisations that the deepest network is given one after the other.
CURE = (("sigmoid", "default"), ("sigmoid", "xavier"), ("relu", "default"), ("relu", "he"))

RUN_COLUMNS = KEY_COLUMNS | {
    "status": "finished, diverged at step n (loss NaN or infinite), or failed",
    "initial_speed_ratio": "‖∂L/∂b^1‖/‖∂L/∂b^L‖ at initialisation, the speed of learning of the first hidden layer by "
    "that of the last, each the norm of the batch's mean gradient; empty when the last is 0",
    "speed_ratio": "the same during training: median over the measurements",
    "steps_to_accuracy": "first measured step with at least the accuracy in the summary's settings; empty when the run "
    "ended before (censored)",
    "train_loss": "cross-entropy of the last measured batch, in nats",
    "test_accuracy": "fraction of the 297 test images classified correctly at the last measurement; 0.1 is chance",
}
_WHOLE = {"steps_to_accuracy": "Int64"}
_NUMBERS = dict.fromkeys(("initial_speed_ratio", "speed_ratio", "train_loss", "test_accuracy"), "float64")

SPEED = "speed of learning ‖∂L/∂b‖"
WEIGHT_SPEED = "‖∂L/∂W‖"

QUICK_STEPS = 200


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Vanishing against training: speed of learning of each layer, steps to an accuracy, final accuracy, and a cure."""

    activations: tuple[str, ...] = ("sigmoid", "tanh", "relu", "leaky_relu")
    """Activations of the hidden layers: any in the catalogue."""
    initialisation: str = "xavier"
    """The one initialisation with which activations are compared: default (torch's own), xavier, he, orthogonal."""
    depths: tuple[int, ...] = (1, 2, 3, 5, 10)
    """Numbers of hidden layers. The deepest network is the one that is cured."""
    accuracy: float = 0.8
    """Fraction of the test images to classify correctly: the steps that it takes to get there are counted."""
    seeds: int = 3
    """Runs of each combination, with seeds 0, 1, 2, …"""
    width: int = 100
    """Units in each hidden layer."""
    steps: int = 500
    """Optimiser steps of each run."""
    batch_size: int = 64
    """Images a step."""
    learning_rate: float = 0.1
    """Of plain stochastic gradient descent."""
    every: int = 10
    """Steps between measurements; steps to an accuracy are multiples of it."""
    workers: int = dataclasses.field(default_factory=sweep.default_workers)
    """Processes that share the runs; the numbers do not depend on it."""
    out: Path = Path("runs/learning-speed")
    """Folder for the results."""
    quick: bool = False
    """One seed and at most 200 steps, to see what comes out."""

    def __post_init__(self) -> None:
        if self.quick:
            object.__setattr__(self, "seeds", 1)
            object.__setattr__(self, "steps", min(self.steps, QUICK_STEPS))
        for name in ("activations", "depths"):
            if not getattr(self, name):
                raise ValueError(f"{name}: expected at least one")
        for name in ("seeds", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected a whole number of at least 1, got {getattr(self, name)}")
        if not 0 < self.accuracy <= 1:
            raise ValueError(f"accuracy: expected a fraction above 0 and at most 1, got {self.accuracy}")
        keys = dict.fromkeys(catalogue.get(name, "activations").key for name in self.activations)
        object.__setattr__(self, "activations", tuple(keys))
        object.__setattr__(self, "initialisation", initialisations.get(self.initialisation).key)
        _ = self.runs  # each validates itself

    @property
    def deepest(self) -> int:
        """The number of hidden layers of the network that is cured."""
        return max(self.depths)

    @property
    def runs(self) -> list[RunSettings]:
        """The settings of every run: the comparison of activations, then those of the cure that it does not contain."""
        compared = itertools.product(self.activations, [self.initialisation], self.depths)
        cured = ((activation, initialisation, self.deepest) for activation, initialisation in CURE)
        shared = {name: getattr(self, name) for name in ("width", "steps", "batch_size", "learning_rate", "every")}
        runs = (
            RunSettings(activation=activation, initialisation=initialisation, depth=depth, seed=seed, **shared)
            for activation, initialisation, depth in (*compared, *cured)
            for seed in range(self.seeds)
        )
        return list(dict.fromkeys(runs))

    def compared(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of a table whose runs compare activations."""
        return table[(table["initialisation"] == self.initialisation) & table["activation"].isin(self.activations)]

    def cured(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of a table whose runs belong to the cure, in its order."""
        deep = table[table["depth"] == self.deepest]
        stages = [deep[(deep["activation"] == name) & (deep["initialisation"] == draw)] for name, draw in CURE]
        return pd.concat(stages)


def main(settings: Settings) -> None:
    """Measure what vanishing does to training, for activations × depths × seeds, and cure one network."""
    console = Console()
    folder = ResultsFolder(settings.out)
    jobs = [sweep.Job(run, None) for run in settings.runs]
    results, interrupted = sweep.run(jobs, settings.workers, console)
    if not results:
        raise SystemExit("No run was finished, so there is nothing to write.")
    runs, layers, curves = run_table(results, settings.accuracy), layer_table(results), curve_table(results)
    folder.write_table("layers", layers, KEY_COLUMNS | LAYER_COLUMNS)
    folder.write_table("curves", curves, KEY_COLUMNS | CURVE_COLUMNS)
    folder.write_table("runs", runs, RUN_COLUMNS)
    pictures = draw_all(runs, layers, curves, settings, folder)
    finding = describe(runs, settings)
    folder.write_summary("summary", summarise(settings, runs, finding, len(jobs)))
    for title, part in _parts(runs, settings).items():
        console.print(outcome_table(title, part, settings), "")
    console.print(*finding, sep="\n", highlight=False)
    console.print("\nPictures:", *(str(path) for path in pictures.values()), highlight=False, soft_wrap=True)
    if interrupted:
        console.print(f"Interrupted: {len(results)} of {len(jobs)} runs were finished, and the results cover those.")
        sys.exit(130)


def steps_to_accuracy(curve: Iterable[Mapping[str, Any]], accuracy: float) -> int | None:
    """Return the first measured step whose test accuracy is at least ``accuracy``, or None if there is none.

    Args:
        curve: a run's learning curve, in the order of its steps.
        accuracy: a fraction of the test images.

    Example:
        >>> curve = [{"step": step, "test_accuracy": step / 100} for step in (0, 20, 40, 60)]
        >>> steps_to_accuracy(curve, 0.35)
        40
        >>> steps_to_accuracy(curve, 0.8) is None
        True
    """
    return next((row["step"] for row in curve if row["test_accuracy"] >= accuracy), None)


def median_steps(steps: pd.Series) -> float:
    """Return the median over seeds, in which a run that never got there counts as infinitely long.

    Example:
        >>> median_steps(pd.Series([100, None, 300], dtype="Int64"))
        300.0
        >>> median_steps(pd.Series([100, None, None], dtype="Int64"))
        inf
    """
    return float(np.median(steps.to_numpy(dtype=float, na_value=math.inf)))


def run_table(results: Sequence[RunResult], accuracy: float) -> pd.DataFrame:
    """Return the tidy table of runs, with the steps that each took to ``accuracy``."""
    runs = pd.DataFrame([_run_row(result, accuracy) for result in results], columns=list(RUN_COLUMNS))
    return runs.astype(_NUMBERS | _WHOLE)


def _run_row(result: RunResult, accuracy: float) -> dict[str, Any]:
    ratios = _speed_ratios(result)
    last = result.curve[-1] if result.curve else {}
    return result.settings.key | {
        "status": result.status,
        "initial_speed_ratio": ratios[0] if ratios else math.nan,
        "speed_ratio": float(pd.Series(ratios, dtype=float).median()),
        "steps_to_accuracy": steps_to_accuracy(result.curve, accuracy),
        "train_loss": last.get("train_loss"),
        "test_accuracy": last.get("test_accuracy"),
    }


def _speed_ratios(result: RunResult) -> list[float]:
    """Return the speed of the first hidden layer by that of the last, at every measurement."""
    norms = {(row["step"], row["layer"]): row["bias_gradient_norm"] for row in result.layers}
    pairs = ((norm, norms[step, result.settings.depth]) for (step, layer), norm in norms.items() if layer == 1)
    return [first / last if last > 0 else math.nan for first, last in pairs]


def _ran(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that say something about training: also those that diverged, but not those that failed."""
    return runs[~runs["status"].str.startswith("failed")]


def _parts(runs: pd.DataFrame, settings: Settings) -> dict[str, pd.DataFrame]:
    """Return the two parts of the experiment, each with a title, as far as there are runs of it."""
    parts = {
        f"The same initialisation ({settings.initialisation.capitalize()}) for all": settings.compared(_ran(runs)),
        "One network: only activation and initialisation change": settings.cured(_ran(runs)),
    }
    return {title: part for title, part in parts.items() if len(part)}


def outcome(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each activation, initialisation and depth, over its seeds; infinite steps mean "never"."""
    return (
        runs.groupby(["activation", "initialisation", "depth"], sort=False)
        .agg(
            runs=("status", "size"),
            finished=("status", lambda statuses: int((statuses == "finished").sum())),
            initial_speed_ratio=("initial_speed_ratio", style.geometric_mean),
            speed_ratio=("speed_ratio", style.geometric_mean),
            reached=("steps_to_accuracy", "count"),
            median_steps_to_accuracy=("steps_to_accuracy", median_steps),
            test_accuracy=("test_accuracy", "mean"),
            lowest_test_accuracy=("test_accuracy", "min"),
            highest_test_accuracy=("test_accuracy", "max"),
        )
        .reset_index()
    )


def outcome_table(title: str, runs: pd.DataFrame, settings: Settings) -> Table:
    """Return a table of one part of the experiment: a row for each activation, initialisation and depth."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("activation", "init."):
        table.add_column(heading)
    speeds = ("1st÷last\nat first", "1st÷last\nin training")
    for heading in ("layers", *speeds, f"steps\nto {settings.accuracy:.0%}", "test\naccuracy"):
        table.add_column(heading, justify="right")
    rows = outcome(runs).to_dict("records")
    table.caption = "1st÷last: speed of learning of the first hidden layer by that of the last"
    table.caption_justify = "left"
    for row, following in itertools.zip_longest(rows, rows[1:]):
        table.add_row(
            row["activation"],
            row["initialisation"],
            str(row["depth"]),
            f"{row['initial_speed_ratio']:.2g}",
            f"{row['speed_ratio']:.2g}",
            _steps_in_words(row, settings.steps),
            f"{row['test_accuracy']:.0%}",
            end_section=following is not None and following["activation"] != row["activation"],
        )
    return table


def _steps_in_words(row: Mapping[str, Any], limit: int) -> str:
    """Return the median of the steps and, where it differs, how many seeds were on the other side of the limit."""
    steps, reached, runs = row["median_steps_to_accuracy"], row["reached"], row["runs"]
    if math.isinf(steps):
        return f"not in {limit:,}" + (f" ({reached} of {runs} did)" if reached else "")
    return f"{steps:,.0f}" + (f" ({runs - reached} of {runs} not in {limit:,})" if reached < runs else "")


def describe(runs: pd.DataFrame, settings: Settings) -> list[str]:
    """Return the finding in words: slow, long, compromised, and the cure."""
    comparison, cure = outcome(settings.compared(_ran(runs))), outcome(settings.cured(_ran(runs)))
    sentences = []
    if len(comparison):
        deepest = comparison[comparison["depth"] == comparison["depth"].max()]
        sentences += [_slow(deepest), _long(comparison, settings), _compromised(deepest)]
    if len(cure):
        sentences.append(_cured(cure, settings))
    lost = (runs["status"] != "finished").sum()
    if lost:
        sentences.append(f"{lost} of {len(runs)} runs diverged or failed; runs.csv names them.")
    return sentences


def _slow(deepest: pd.DataFrame) -> str:
    depth, draw = deepest.iloc[0][["depth", "initialisation"]]
    ratios = (
        f"{catalogue.get(row.activation).name} {row.initial_speed_ratio:.2g}, then {row.speed_ratio:.2g}"
        for row in deepest.itertuples()
    )
    return (
        f"Slow: with {depth} hidden layers and {draw.capitalize()} initialisation the first layer's speed of learning "
        "(‖∂L/∂b‖ of the batch's mean loss) is this many times the last hidden layer's, at the "
        f"start and then as the median over training: {'; '.join(ratios)}."
    )


def _long(comparison: pd.DataFrame, settings: Settings) -> str:
    phrases = []
    for activation, group in comparison.groupby("activation", sort=False):
        steps = group.sort_values("depth").set_index("depth")["median_steps_to_accuracy"]
        arrived = steps[np.isfinite(steps)]
        ends = dict.fromkeys([arrived.index[0], arrived.index[-1]]) if len(arrived) else {}
        clauses = [f"{arrived[depth]:,.0f} with {depth}" for depth in ends]
        if len(arrived) < len(steps):
            clauses.append(f"not in {settings.steps:,} with {_and(steps.index.difference(arrived.index))}")
        phrases.append(f"{catalogue.get(str(activation)).name} {', '.join(clauses)}")
    return f"Long: steps to {settings.accuracy:.0%} of the test images, by hidden layers: {'; '.join(phrases)}."


def _compromised(deepest: pd.DataFrame) -> str:
    accuracies = [f"{row.test_accuracy:.0%} with {catalogue.get(row.activation).name}" for row in deepest.itertuples()]
    depth = deepest["depth"].iloc[0]
    return f"Compromised: the accuracy after training with {depth} hidden layers is {_and(accuracies)} (chance: 10%)."


def _cured(cure: pd.DataFrame, settings: Settings) -> str:
    stages = (
        f"{catalogue.get(row.activation).name} + {row.initialisation.capitalize()} {row.test_accuracy:.0%}"
        for row in cure.itertuples()
    )
    verdict = "Cured" if math.isfinite(cure["median_steps_to_accuracy"].iloc[-1]) else "Not cured"
    return (
        f"{verdict}: the same {settings.deepest}-layer network, with the same images in the same order, optimiser and "
        f"learning rate {settings.learning_rate:g}, ends at this accuracy: {' → '.join(stages)}."
    )


def _and(items: Iterable[object]) -> str:
    *first, last = map(str, items)
    return f"{', '.join(first)} and {last}" if first else last


def summarise(settings: Settings, runs: pd.DataFrame, finding: Sequence[str], planned: int) -> dict[str, object]:
    """Return what the summary JSON holds; steps are null where the median run did not get there."""
    ran = _ran(runs)
    return {
        "finding": " ".join(finding),
        "runs_planned": planned,
        "runs_done": len(runs),
        "settings": dataclasses.asdict(settings),
        "comparison": outcome(settings.compared(ran)).to_dict("records"),
        "cure": outcome(settings.cured(ran)).to_dict("records"),
    }


def draw_all(
    runs: pd.DataFrame, layers: pd.DataFrame, curves: pd.DataFrame, settings: Settings, folder: ResultsFolder
) -> dict[str, Path]:
    """Draw and write every picture that there are runs for; return their paths by name."""
    comparison, cure = settings.compared(_ran(runs)), settings.cured(_ran(runs))
    figures = {}
    if len(comparison):
        figures["speed_by_layer"] = speeds(settings.compared(layers), "bias_gradient_norm", SPEED)
        figures["weight_speed_by_layer"] = speeds(settings.compared(layers), "weight_gradient_norm", WEIGHT_SPEED)
        figures["learning_curves"] = learning_curves(settings.compared(curves), settings)
        figures["outcome_by_depth"] = outcome_by_depth(comparison, settings)
    if len(cure):
        figures["cure"] = before_and_after(settings.cured(curves), settings.cured(layers), settings)
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


def learning_curves(curves: pd.DataFrame, settings: Settings) -> Figure:
    """Draw test accuracy over training: a panel an activation, a line a depth with a band over seeds."""
    activations, depths = list(curves["activation"].unique()), sorted(curves["depth"].unique())
    shades = dict(zip(depths, style.shades(len(depths)), strict=True))
    figure = Figure(figsize=(1.2 + 3.2 * len(activations), 4.2), layout="constrained")
    panels = figure.subplots(1, len(activations), sharey=True, squeeze=False)[0]
    for axes, activation in zip(panels, activations, strict=True):
        for depth, group in curves[curves["activation"] == activation].groupby("depth"):
            style.with_band(axes, group, "step", "test_accuracy", log=False, color=shades[depth], label=str(depth))
        _draw_target(axes, settings)
        style.accuracy_axes(axes, catalogue.get(activation).name, "optimiser steps")
        axes.label_outer()
    handles, labels = panels[0].get_legend_handles_labels()
    title = "hidden layers"
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, title=title)
    figure.suptitle(_conditions("Test accuracy during training", settings))
    return figure


def _conditions(subject: str, settings: Settings) -> str:
    seeds = f"{settings.seeds} seeds" if settings.seeds > 1 else "one seed"
    return (
        f"{subject}: {settings.initialisation.capitalize()} initialisation, "
        f"learning rate {settings.learning_rate:g}, {seeds}"
    )


def _draw_target(axes: Axes, settings: Settings) -> None:
    axes.axhline(settings.accuracy, color="black", linewidth=0.8, linestyle=(0, (4, 3)))
    across = axes.get_yaxis_transform()
    text = f"target {settings.accuracy:.0%}"
    axes.text(1, settings.accuracy - 0.01, text, transform=across, ha="right", va="top", fontsize=8)


def outcome_by_depth(runs: pd.DataFrame, settings: Settings) -> Figure:
    """Draw the steps to the accuracy, and the accuracy after training, against depth: a line an activation."""
    figure = Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    activations = list(runs["activation"].unique())
    # Markers at the same height are set apart, so that they do not hide each other.
    apart = 0.013 * max(runs["depth"].max() - runs["depth"].min(), 1)
    for place, activation in enumerate(activations):
        rows = runs[runs["activation"] == activation]
        look: dict[str, Any] = {"color": style.colour(activation), "label": catalogue.get(activation).name}
        shift = apart * (place - (len(activations) - 1) / 2)
        _draw_steps(left, rows, settings, shift, **look)
        shifted = rows.assign(depth=rows["depth"] + shift)
        style.with_band(right, shifted, "depth", "test_accuracy", log=False, marker="o", markersize=5, **look)
    _label_steps_axes(left, settings)
    _draw_target(right, settings)
    style.accuracy_axes(right, f"Compromised: accuracy after {settings.steps:,} steps", "hidden layers")
    for axes in (left, right):
        axes.set_xticks(sorted(runs["depth"].unique()))
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle(_conditions("What vanishing does to training", settings))
    return figure


_ABOVE = 1.5  #: where runs that did not get there are drawn, in units of the limit


def _draw_steps(axes: Axes, runs: pd.DataFrame, settings: Settings, shift: float, **look: Any) -> None:
    """Draw medians over seeds, and the seeds as dots.

    A median that was not reached is hollow and above the limit, at the end of a dotted line.
    """
    never = settings.steps * _ABOVE
    medians = runs.groupby("depth")["steps_to_accuracy"].apply(median_steps)
    reached = np.isfinite(medians.to_numpy())
    places, heights = medians.index.to_numpy() + shift, style.positive(medians.clip(upper=never).tolist())
    axes.plot(places, heights, color=look["color"], linewidth=1, linestyle=":")
    axes.plot(places, np.where(reached, heights, np.nan), marker="o", markersize=5, **look)
    seeds = style.positive(runs["steps_to_accuracy"].to_numpy(dtype=float, na_value=never).tolist())
    axes.plot(runs["depth"] + shift, seeds, ".", color=look["color"], alpha=0.4, markersize=4)
    hollow: dict[str, Any] = {"marker": "o", "markersize": 7, "linestyle": "none", "markerfacecolor": "white"}
    axes.plot(places[~reached], heights[~reached], color=look["color"], **hollow)


def _label_steps_axes(axes: Axes, settings: Settings) -> None:
    """Label the axes of steps, with ticks up to the limit and a grey band above it, where there is no number."""
    limit = settings.steps
    ticks = [digit * 10**power for power in range(len(str(limit))) for digit in (1, 2, 5)]
    lowest, highest = min(settings.every, limit) / _ABOVE, limit * _ABOVE**3
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
    axes.set_title(f"Long: steps to {settings.accuracy:.0%} test accuracy", fontsize=11)
    style.tidy(axes)


def before_and_after(curves: pd.DataFrame, layers: pd.DataFrame, settings: Settings) -> Figure:
    """Draw one network's accuracy over training at each stage of the cure, beside the gradient it started with."""
    figure = Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.3, 1))
    initial = layers[(layers["step"] == 0) & (layers["layer"] <= settings.deepest)]
    for stage, (activation, initialisation) in enumerate(CURE, start=1):
        look = style.line(initialisation) | {"color": style.colour(activation)}
        rows = curves[(curves["activation"] == activation) & (curves["initialisation"] == initialisation)]
        label = f"{stage}. {style.label(activation, initialisation)}"
        spaced = max(1, rows["step"].nunique() // 10)
        style.with_band(left, rows, "step", "test_accuracy", log=False, label=label, markevery=spaced, **look)
        rows = initial[(initial["activation"] == activation) & (initial["initialisation"] == initialisation)]
        style.with_band(right, rows, "layer", "bias_gradient_norm", **look)
    _draw_target(left, settings)
    style.accuracy_axes(left, "Accuracy during training", "optimiser steps")
    style.gradient_axes(right, "Speed of learning at initialisation", style.LAYER, SPEED)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, handlelength=3.5)
    figure.suptitle(
        f"One network with {settings.deepest} hidden layers: the same images, optimiser and learning rate; "
        "only activation and initialisation change",
        fontsize=13,
    )
    return figure
