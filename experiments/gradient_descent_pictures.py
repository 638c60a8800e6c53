"""The pictures of the gradient descent experiment: the steps on the parabola, J over them, and what each α takes."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.animation import FuncAnimation
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments import style
from experiments.gradient_descent_problem import (
    ARRIVED,
    PATIENCE,
    TRUE_WEIGHT,
    Problem,
    headline,
    predicted_iterations,
    regime,
)

#: The learning rates of runs that are drawn as too slow, in units of the one that lands in one step, and their lines.
SLOW = {0.01: ":", 0.1: "--"}

#: The animation stops after this many steps.
ANIMATED_STEPS = 20

SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def draw(problem: Problem, table: pd.DataFrame, comparison: pd.DataFrame) -> Figure:
    """Return the picture: the steps on the parabola, J over the iterations, and the iterations that each α takes."""
    figure = Figure(figsize=(16, 5), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    draw_parabola(left, problem, table, steps=len(table))
    draw_loss(middle, problem, table, steps=len(table))
    draw_comparison(right, problem, comparison)
    figure.suptitle(headline(problem), fontsize=14)
    return figure


def animate(problem: Problem, table: pd.DataFrame) -> FuncAnimation:
    """Return the run as an animation, one frame a step, two steps a second."""
    figure = Figure(figsize=(10, 4.5))
    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.08, right=0.98, bottom=0.12, top=0.85, wspace=0.25)

    def draw_frame(steps: int) -> list[Axes]:
        figure.suptitle(f"{headline(problem)},  t = {steps}")
        left.clear()
        right.clear()
        draw_parabola(left, problem, table, steps)
        draw_loss(right, problem, table, steps)
        return [left, right]

    return FuncAnimation(figure, draw_frame, frames=min(len(table), ANIMATED_STEPS + 1), interval=500)


def draw_parabola(axes: Axes, problem: Problem, table: pd.DataFrame, steps: int) -> None:
    """Draw J(w) and the first ``steps`` steps on it, in a window that holds the first few even of a diverging run."""
    start = abs(problem.w0 - TRUE_WEIGHT) or 1.0
    errors = table["weight"].to_numpy() - TRUE_WEIGHT
    inside = np.abs(errors) <= 6 * start
    shown = len(errors) if inside.all() else int(np.argmin(inside))
    half_width = 1.25 * float(np.abs(errors[:shown]).max()) or 1.25
    # A run that leaves the window is drawn up to its first point outside, and no further than the renderer can reach.
    errors = np.clip(errors[: shown + 1], -10 * half_width, 10 * half_width)[: steps + 1]
    weights, losses = TRUE_WEIGHT + errors, problem.curvature * errors**2
    curve = np.linspace(-half_width, half_width, 401)
    axes.plot(TRUE_WEIGHT + curve, problem.curvature * curve**2, color="0.6", linewidth=2)
    axes.plot(weights, losses, "o-", color="tab:blue", markersize=5, linewidth=1)
    axes.plot(weights[-1:], losses[-1:], "o", color="tab:blue", markersize=9)
    axes.plot(TRUE_WEIGHT, 0, "*", color="tab:green", markersize=14, zorder=3)
    _label_steps(axes, weights, losses, half_width)
    top = problem.curvature * half_width**2
    axes.set(xlim=(TRUE_WEIGHT - half_width, TRUE_WEIGHT + half_width), ylim=(-0.06 * top, 1.02 * top))
    axes.set(xlabel="weight w", ylabel="J(w)", title=f"The steps on the parabola: {regime(problem)}")


def _label_steps(axes: Axes, weights: np.ndarray, losses: np.ndarray, half_width: float) -> None:
    """Write w₀, w₁, … beside the points in the window that leave room for it."""
    taken = [TRUE_WEIGHT]
    for iteration, (weight, loss) in enumerate(zip(weights, losses, strict=True)):
        error = weight - TRUE_WEIGHT
        if abs(error) <= half_width and all(abs(weight - other) > 0.14 * half_width for other in taken):
            text, offset = f"w{iteration}".translate(SUBSCRIPTS), (9 * math.copysign(1, error), -4)
            axes.annotate(text, (weight, loss), offset, textcoords="offset points", ha="center", va="top")
            taken.append(weight)


def draw_loss(axes: Axes, problem: Problem, table: pd.DataFrame, steps: int) -> None:
    """Draw J over the first ``steps`` iterations on a logarithmic axis, beside runs at smaller α by the closed form.

    What lies beyond the axis, 0 and infinity included, is drawn as a triangle at its edge.
    """
    iterations, losses = table["iteration"].to_numpy(), table["loss"].to_numpy()
    start = losses[0] or 1.0
    slow = {multiple: losses[0] * (1 - multiple) ** (2.0 * iterations) for multiple in SLOW}
    # Below 1e-30 of J_0 the error w − 2 is within a few roundings of w.
    bottom = max(1e-30 * start, min(losses.min(), slow[max(SLOW)].min()) / 10)
    top = max(10 * start, min(10 * losses.max(), style.LARGEST_DRAWN))
    # The limits come first, since autoscaling to values near float64's largest overflows.
    axes.set(xlim=(-0.02 * len(losses), 1.02 * iterations[-1]), ylim=(bottom / 5, 5 * top), yscale="log")
    for multiple, values in slow.items():
        label = f"α = {multiple * problem.one_step_rate:.3g}, too small"
        axes.plot(iterations, values, SLOW[multiple], color="tab:orange", label=label)
    visible = np.clip(losses, bottom, top)[: steps + 1]
    label = f"α = {problem.learning_rate:.3g}"
    form = style.curve(len(losses))
    axes.plot(iterations[: steps + 1], visible, form, color="tab:blue", markersize=4, label=label)
    for edge, marker, meaning in ((bottom, "v", "0 or nearly"), (top, "^", f"above {top:.0e}")):
        beyond = np.flatnonzero(visible == edge)
        if len(beyond):
            axes.plot(beyond, visible[beyond], marker, color="tab:blue", markersize=8, label=meaning)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="iteration t", ylabel="J(w) after t iterations", title="J over the iterations")
    # The corner that the whole run leaves free, so that the legend stays in its place throughout the animation.
    arrived_early = losses[len(losses) // 2] <= bottom
    rises = losses[-1] > 2 * losses[0]
    axes.legend(loc="upper left" if rises else "center right" if arrived_early else "lower left")


def draw_comparison(axes: Axes, problem: Problem, comparison: pd.DataFrame) -> None:
    """Draw the iterations that each α takes, counted and by the closed form, with the regimes shaded."""
    best, rate = problem.one_step_rate, problem.learning_rate
    right = min(max(2.7 * best, 1.1 * rate), 3.5 * best)
    rates = best * np.linspace(0.001, 1.999, 1000)
    predicted = [predicted_iterations(replace(problem, learning_rate=other)) for other in rates]
    axes.plot(rates, predicted, color="0.5", label="closed form")
    arrived = comparison.dropna(subset="iterations")
    counts = arrived["iterations"].astype(float)
    axes.plot(arrived["learning_rate"], counts, "o", color="tab:orange", markersize=7, label="counted")
    label = f"α = {rate:.3g}" + (" →" if rate > right else "")
    axes.axvline(min(rate, right), color="tab:blue", linewidth=2, label=label)
    top = 30 * PATIENCE
    _shade_regimes(axes, problem, right, top / 1.5)
    axes.set_yscale("log")
    axes.set(xlim=(-0.02 * right, right), ylim=(0.7, top))
    axes.set(xlabel=f"learning rate α   (one step at {best:.3g}, cycling at {problem.largest_rate:.3g})")
    axes.set(ylabel=f"iterations to {ARRIVED:g} of the initial error", title="Too small an α is slow, too large fails")
    axes.legend(loc="upper center", bbox_to_anchor=(best / right, 0.88))


def _shade_regimes(axes: Axes, problem: Problem, right: float, height: float) -> None:
    """Shade the learning rates from 0 to ``right`` by regime, whose names stand at ``height``."""
    edges = (0, problem.one_step_rate, problem.largest_rate, right)
    looks = (("from\none side", "white"), ("oscillating", "0.92"), ("diverging", "mistyrose"))
    for (left, end), (name, colour) in zip(itertools.pairwise(edges), looks, strict=True):
        axes.axvspan(left, end, color=colour, zorder=0)
        axes.text((left + end) / 2, height, name, ha="center", va="top")
