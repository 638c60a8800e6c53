"""Gradient descent on one weight: J(w) = Σ (z − w·x)² for z = 2x, and what the learning rate α does to it.

Each step is w ← w − α·dJ/dw with dJ/dw from ``torch.autograd`` in float64. Since J(w) = S·(w − 2)², with S = Σ x² (or
its mean over x), every step multiplies the error w − 2 by one and the same factor ρ = 1 − 2αS::

    w_t = 2 + (w_0 − 2)·ρ^t        J_t = S·(w_0 − 2)²·ρ^(2t)

so α alone decides between five regimes: from one side for α < 1/(2S), in one step at 1/(2S), oscillating up to 1/S,
cycling at 1/S and diverging beyond. The run is checked against this closed form.

Run it with ``python -m experiments gradient-descent``. All quantities are pure numbers, without a unit.

Example:
    >>> settings = Settings(x=(1.0,))
    >>> [round(step.weight, 10) for step in itertools.islice(descent(settings), 4)]
    [0.2, 1.64, 1.928, 1.9856]
    >>> regime(settings)
    'from one side'
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.animation import PillowWriter
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import Console
from rich.table import Table
from torch import Tensor

from experiments.results import ResultsFolder

Regime = Literal["from one side", "in one step", "oscillating", "cycling", "diverging"]

TRUE_WEIGHT = 2.0

#: The learning rates that are compared with the chosen one, in units of α* = 1/(2S), the one that lands in one step.
MULTIPLES = (0.01, 0.1, 0.5, 1.0, 1.5, 1.9, 2.0, 2.1)

#: Those of them that are drawn beside the run as too small.
SLOW = (0.01, 0.1)

#: A run has arrived when its error |w − 2| is this fraction of the initial one.
ARRIVED = 1e-6

#: Iterations after which a run that has not arrived is given up; 0.01·α* takes 1,375.
PATIENCE = 2_000

#: A factor ρ this close to 0 or −1 counts as equal to it: α, x and S are rounded decimals, and a difference this small
#: could not be seen in PATIENCE iterations.
SAME = 1e-9

#: What S and w_0 may be, so that J(w_0) stays far from the ends of float64's range.
SMALLEST, LARGEST = 1e-50, 1e50

#: A loss above this is drawn at the upper edge: matplotlib puts ticks beyond an axis and they must not overflow.
HIGHEST_DRAWN = 1e200

#: The animation stops after this many steps, and in the ``--quick`` version the run does after so many.
ANIMATED_STEPS, QUICK_STEPS = 20, 6

SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")

COLUMNS = {
    "iteration": "t, the number of steps taken",
    "weight": "w_t, by gradient descent",
    "loss": "J(w_t)",
    "gradient": "dJ/dw at w_t, by torch.autograd",
    "closed_form_weight": "w_t = 2 + (w_0 − 2)·(1 − 2αS)^t",
    "closed_form_loss": "J_t = S·(w_0 − 2)²·(1 − 2αS)^(2t)",
}

COMPARISON_COLUMNS = {
    "multiple": "α / α*, where α* = 1/(2S) lands in one step",
    "learning_rate": "α",
    "factor": "ρ = 1 − 2αS, by which one step multiplies the error w − 2",
    "regime": "what the run does",
    "iterations": f"iterations until |w − 2| ≤ {ARRIVED:g}·|w_0 − 2|, counted; empty if more than {PATIENCE:,}",
    "predicted_iterations": "the same by the closed form; inf if it is never reached",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Gradient descent on J(w) = Σ (z − w·x)² for z = 2x, and what the learning rate α does to it.

    Raises:
        ValueError: an argument is outside what is accepted; the message names it, its value and what would be.
    """

    x: tuple[float, ...] = (0.6, 0.8, 1.0)
    """Inputs; the targets are z = 2x.
    At α = 0.4 the default (Σ x² = 2) converges oscillating,
    "1" comes from one side, "0.5 1" lands in one step,
    "0.5 1.5" cycles and "1 1 1" diverges."""

    w0: float = 0.2
    """The weight to start from; the minimum is at 2."""

    learning_rate: float = 0.4
    """Learning rate α."""

    reduction: Literal["sum", "mean"] = "sum"
    """Whether J adds up or averages the squared errors.
    Averaging divides the steps by the number of x."""

    iterations: int = 30
    """Steps to take."""

    quick: bool = False
    """Take at most 6 steps, for a look that is over in a few seconds."""

    out: Path = Path("runs/gradient-descent")
    """Folder for the tables, pictures and summary."""

    def __post_init__(self) -> None:
        if not self.x or not all(map(math.isfinite, self.x)):
            raise ValueError(f"x: expected one or more finite numbers, got {self.x!r}")
        if not SMALLEST <= self.curvature <= LARGEST:
            raise ValueError(
                f"x: expected a {self.reduction} of squares between {SMALLEST:g} and {LARGEST:g} (all zero leaves "
                f"nothing to learn), got {self.curvature:g} from {self.x!r}"
            )
        if not abs(self.w0) <= LARGEST:
            raise ValueError(f"w0: expected a number between {-LARGEST:g} and {LARGEST:g}, got {self.w0!r}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate: expected a finite number above 0, got {self.learning_rate!r}")
        if self.reduction not in ("sum", "mean"):
            raise ValueError(f"reduction: expected 'sum' or 'mean', got {self.reduction!r}")
        if self.iterations < 1:
            raise ValueError(f"iterations: expected 1 or more, got {self.iterations!r}")

    @property
    def curvature(self) -> float:
        """S = Σ x², or the mean of x²: J(w) = S·(w − 2)²."""
        squares = sum(value * value for value in self.x)
        return squares / len(self.x) if self.reduction == "mean" else squares

    @property
    def factor(self) -> float:
        """ρ = 1 − 2αS, by which every step multiplies the error w − 2."""
        return 1 - 2 * self.learning_rate * self.curvature

    @property
    def one_step_rate(self) -> float:
        """α* = 1/(2S), the learning rate that lands in one step (Newton's step, as J'' = 2S)."""
        return 0.5 / self.curvature

    @property
    def largest_rate(self) -> float:
        """α_max = 1/S, at which the weight cycles between two values and beyond which it diverges."""
        return 1 / self.curvature

    @property
    def steps(self) -> int:
        """The number of steps to take, ``iterations`` or, with ``quick``, at most 6."""
        return min(self.iterations, QUICK_STEPS) if self.quick else self.iterations


class Step(NamedTuple):
    """Where a run stands: the weight w, J(w) and dJ/dw."""

    weight: float
    loss: float
    gradient: float


def objective(weight: Tensor, x: Tensor, reduction: str) -> Tensor:
    """Return J(w) = Σ (z − w·x)² for z = 2x, or the mean instead of the sum."""
    squared_errors = (TRUE_WEIGHT * x - weight * x) ** 2
    return squared_errors.mean() if reduction == "mean" else squared_errors.sum()


def descent(settings: Settings) -> Iterator[Step]:
    """Yield w_0, w_1, … of w ← w − α·dJ/dw in float64, without end unless the loss leaves float64's range.

    The first step whose loss or gradient is infinite is the last one: what follows would be NaN.
    """
    x = torch.tensor(settings.x, dtype=torch.float64)
    weight = torch.tensor(settings.w0, dtype=torch.float64, requires_grad=True)
    while True:
        loss = objective(weight, x, settings.reduction)
        (gradient,) = torch.autograd.grad(loss, weight)
        step = Step(weight.item(), loss.item(), gradient.item())
        yield step
        if not math.isfinite(step.loss) or not math.isfinite(step.gradient):
            return
        with torch.no_grad():
            weight -= settings.learning_rate * gradient


def regime(settings: Settings) -> Regime:
    """Name what the run does, from ρ = 1 − 2αS; see :data:`SAME` for when ρ counts as 0 or −1."""
    if abs(settings.factor) <= SAME:
        return "in one step"
    if settings.factor > 0:
        return "from one side"
    if abs(settings.factor + 1) <= SAME:
        return "cycling"
    return "oscillating" if settings.factor > -1 else "diverging"


def predicted_iterations(settings: Settings) -> float:
    """Return the smallest t with |ρ|^t ≤ 1e-6, the iterations until the run has arrived, or infinity."""
    if regime(settings) in ("cycling", "diverging"):
        return math.inf
    if regime(settings) == "in one step":
        return 1
    # |1 − u| = 1 − min(u, 2 − u) for 0 < u < 2; log1p keeps the logarithm exact where ρ itself rounds to ±1.
    distance = 2 * settings.learning_rate * settings.curvature
    return math.ceil(math.log(ARRIVED) / math.log1p(-min(distance, 2 - distance)))


def counted_iterations(settings: Settings) -> int | None:
    """Return after how many steps of an actual run |w − 2| ≤ 1e-6·|w_0 − 2|, or None if PATIENCE does not suffice."""
    goal = ARRIVED * abs(settings.w0 - TRUE_WEIGHT)
    for iteration, step in enumerate(itertools.islice(descent(settings), PATIENCE + 1)):
        if abs(step.weight - TRUE_WEIGHT) <= goal:
            return iteration
    return None


def run(settings: Settings) -> pd.DataFrame:
    """Return the descent, step by step, beside the closed form; the columns are described in :data:`COLUMNS`."""
    table = pd.DataFrame(itertools.islice(descent(settings), settings.steps + 1))
    iteration = torch.arange(len(table), dtype=torch.float64)
    error = (settings.w0 - TRUE_WEIGHT) * torch.tensor(settings.factor, dtype=torch.float64) ** iteration
    table.insert(0, "iteration", range(len(table)))
    table["closed_form_weight"] = (TRUE_WEIGHT + error).numpy()
    table["closed_form_loss"] = (settings.curvature * error**2).numpy()
    return table


def compare(settings: Settings) -> pd.DataFrame:
    """Return how long the chosen α and others take; the columns are described in :data:`COMPARISON_COLUMNS`."""
    rates = [multiple * settings.one_step_rate for multiple in MULTIPLES]
    rates = [rate for rate in rates if not math.isclose(rate, settings.learning_rate)]
    rows = []
    for rate in sorted([*rates, settings.learning_rate]):
        other = replace(settings, learning_rate=rate)
        rows.append(
            {
                "multiple": rate / settings.one_step_rate,
                "learning_rate": rate,
                "factor": other.factor,
                "regime": regime(other),
                "iterations": counted_iterations(other),
                "predicted_iterations": predicted_iterations(other),
            }
        )
    return pd.DataFrame(rows).astype({"iterations": "Int64"})


def disagreement(table: pd.DataFrame) -> float:
    """Return the largest |w_t − closed form| / max(1, |closed form|) over the steps whose weights are finite."""
    finite = table[np.isfinite(table["weight"]) & np.isfinite(table["closed_form_weight"])]
    scale = finite["closed_form_weight"].abs().clip(lower=1)
    return float(((finite["weight"] - finite["closed_form_weight"]).abs() / scale).max())


def finding(settings: Settings, table: pd.DataFrame, comparison: pd.DataFrame) -> str:
    """Say in a few sentences what the run did, why, and what another learning rate would do."""
    if settings.w0 == TRUE_WEIGHT:
        return f"w0 = {TRUE_WEIGHT:g} is the minimum itself: the gradient is 0 and no learning rate moves the weight."
    what = {
        "from one side": "it converges from one side",
        "in one step": "it lands in one step",
        "oscillating": "it converges oscillating, stepping over the minimum every time",
        "cycling": "it cycles between two weights for ever",
        "diverging": "it diverges, each step landing further away on the other side",
    }[regime(settings)]
    if not math.isfinite(table["loss"].iloc[-1]):
        what += f" until J leaves float64's range at iteration {len(table) - 1:,}"
    slowest = comparison.iloc[0]
    slow = f"more than {PATIENCE:,}" if pd.isna(slowest["iterations"]) else f"{slowest['iterations']:,}"
    return (
        f"At α = {settings.learning_rate:g} each step multiplies the error w − 2 by 1 − 2αS = {settings.factor:.4g} "
        f"(S = {settings.curvature:.6g}, the {settings.reduction} of x²), so {what}. "
        f"It comes from one side below α = {settings.one_step_rate:.6g}, lands in one step there, oscillates above, "
        f"cycles at α = {settings.largest_rate:.6g} and diverges beyond. Too small an α is slow: "
        f"α = {slowest['learning_rate']:.4g} takes {slow} iterations to bring the error down to {ARRIVED:g} of what "
        f"it was."
    )


def draw_parabola(axes: Axes, settings: Settings, table: pd.DataFrame, steps: int) -> None:
    """Draw J(w) and the first ``steps`` steps on it, in a window that holds the first few even of a diverging run."""
    start = abs(settings.w0 - TRUE_WEIGHT) or 1.0
    errors = table["weight"].to_numpy() - TRUE_WEIGHT
    outside = np.flatnonzero(~(np.abs(errors) <= 6 * start))
    half_width = 1.25 * float(np.abs(errors[: outside[0] if len(outside) else None]).max()) or 1.25
    # A run that leaves the window is drawn up to its first point outside, and no further than the renderer can reach.
    errors = np.clip(errors[: outside[0] + 1 if len(outside) else None], -10 * half_width, 10 * half_width)
    weights, losses = TRUE_WEIGHT + errors[: steps + 1], settings.curvature * errors[: steps + 1] ** 2
    curve = np.linspace(-half_width, half_width, 401)
    axes.plot(TRUE_WEIGHT + curve, settings.curvature * curve**2, color="0.6", linewidth=2)
    axes.plot(weights, losses, "o-", color="tab:blue", markersize=5, linewidth=1)
    axes.plot(weights[-1:], losses[-1:], "o", color="tab:blue", markersize=9)
    axes.plot(TRUE_WEIGHT, 0, "*", color="tab:green", markersize=14, zorder=3)
    top = settings.curvature * half_width**2
    labelled: list[float] = []
    for iteration, (weight, loss) in enumerate(zip(weights, losses, strict=True)):
        side = math.copysign(1, weight - TRUE_WEIGHT)
        inside = abs(weight - TRUE_WEIGHT) <= half_width
        if inside and all(abs(weight - other) > 0.14 * half_width for other in [*labelled, TRUE_WEIGHT]):
            text = f"w{iteration}".translate(SUBSCRIPTS)
            axes.annotate(text, (weight, loss), (9 * side, -4), textcoords="offset points", ha="center", va="top")
            labelled.append(weight)
    axes.set(xlim=(TRUE_WEIGHT - half_width, TRUE_WEIGHT + half_width), ylim=(-0.06 * top, 1.02 * top))
    axes.set(xlabel="weight w", ylabel="J(w)", title=f"The steps on the parabola: {regime(settings)}")


def draw_loss(axes: Axes, settings: Settings, table: pd.DataFrame, steps: int) -> None:
    """Draw J over the first ``steps`` iterations on a logarithmic axis, beside runs at smaller α by the closed form.

    What lies beyond the axis, 0 and infinity included, is drawn as a triangle at its edge.
    """
    iterations, losses = table["iteration"].to_numpy(), table["loss"].to_numpy()
    start = losses[0] or 1.0
    slow = [losses[0] * (1 - multiple) ** (2.0 * iterations) for multiple in SLOW]
    # Below 1e-30 of J_0 the error w − 2 is within a few roundings of w.
    bottom = max(1e-30 * start, min(losses.min(), slow[-1].min()) / 10)
    top = max(10 * start, min(10 * losses.max(), HIGHEST_DRAWN))
    # The limits come first, since autoscaling to values near float64's largest overflows.
    axes.set(xlim=(-0.02 * len(losses), 1.02 * iterations[-1]), ylim=(bottom / 5, 5 * top), yscale="log")
    for multiple, values, style in zip(SLOW, slow, (":", "--"), strict=True):
        label = f"α = {multiple * settings.one_step_rate:.3g}, too small"
        axes.plot(iterations, values, style, color="tab:orange", label=label)
    visible = np.clip(losses, bottom, top)[: steps + 1]
    label = f"α = {settings.learning_rate:.3g}"
    style = "o-" if len(losses) <= 60 else "-"
    axes.plot(iterations[: steps + 1], visible, style, color="tab:blue", markersize=4, label=label)
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


def draw_comparison(axes: Axes, settings: Settings, comparison: pd.DataFrame) -> None:
    """Draw the iterations that each α takes, counted and by the closed form, with the regimes shaded."""
    best, largest, top = settings.one_step_rate, settings.largest_rate, 30 * PATIENCE
    right = min(max(2.7 * best, 1.1 * settings.learning_rate), 3.5 * best)
    rates = best * np.linspace(0.001, 1.999, 1000)
    predicted = [predicted_iterations(replace(settings, learning_rate=rate)) for rate in rates]
    axes.plot(rates, predicted, color="0.5", label="closed form")
    arrived = comparison.dropna(subset="iterations")
    counts = arrived["iterations"].astype(float)
    axes.plot(arrived["learning_rate"], counts, "o", color="tab:orange", markersize=7, label="counted")
    label = f"α = {settings.learning_rate:.3g}" + (" →" if settings.learning_rate > right else "")
    axes.axvline(min(settings.learning_rate, right), color="tab:blue", linewidth=2, label=label)
    spans = (
        (0, best, "from\none side", "white"),
        (best, largest, "oscillating", "0.92"),
        (largest, right, "diverging", "mistyrose"),
    )
    for left, end, name, colour in spans:
        axes.axvspan(left, end, color=colour, zorder=0)
        axes.text((left + end) / 2, top / 1.5, name, ha="center", va="top")
    axes.set_yscale("log")
    axes.set(xlim=(-0.02 * right, right), ylim=(0.7, top))
    axes.set(xlabel=f"learning rate α   (one step at {best:.3g}, cycling at {largest:.3g})")
    axes.set(ylabel=f"iterations to {ARRIVED:g} of the initial error", title="Too small an α is slow, too large fails")
    axes.legend(loc="upper center", bbox_to_anchor=(best / right, 0.88))


def draw(settings: Settings, table: pd.DataFrame, comparison: pd.DataFrame) -> Figure:
    """Return the picture: the steps on the parabola, J over the iterations, and the iterations that each α takes."""
    figure = Figure(figsize=(16, 5), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    draw_parabola(left, settings, table, steps=len(table))
    draw_loss(middle, settings, table, steps=len(table))
    draw_comparison(right, settings, comparison)
    figure.suptitle(_title(settings), fontsize=14)
    return figure


def animate(path: Path, settings: Settings, table: pd.DataFrame) -> None:
    """Write the run as an animated GIF, one frame a step, two steps a second; it replaces ``path`` when it is whole."""
    figure = Figure(figsize=(10, 4.5))
    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.08, right=0.98, bottom=0.12, top=0.85, wspace=0.25)
    writer = PillowWriter(fps=2)
    temporary = path.with_name(f".{path.name}")
    with writer.saving(figure, temporary, dpi=80):
        for steps in range(min(len(table), ANIMATED_STEPS + 1)):
            figure.suptitle(f"{_title(settings)},  t = {steps}")
            left.clear()
            right.clear()
            draw_parabola(left, settings, table, steps)
            draw_loss(right, settings, table, steps)
            writer.grab_frame()
    temporary.replace(path)


def _title(settings: Settings) -> str:
    sign = "Σ" if settings.reduction == "sum" else "mean of "
    return (
        f"J(w) = {sign}(2x − w·x)²,  S = {settings.curvature:.4g},  α = {settings.learning_rate:.4g},  "
        f"error × {settings.factor:.4g} a step: {regime(settings)}"
    )


def print_run(console: Console, settings: Settings, table: pd.DataFrame) -> None:
    """Print the first ten steps and the last."""
    grid = Table(title=f"{_title(settings)}\nthe closed form differs by at most {disagreement(table):.1e}")
    for heading in ("t", "w", "J(w)", "dJ/dw", "w by the closed form"):
        grid.add_column(heading, justify="right")
    columns = ["weight", "loss", "gradient", "closed_form_weight"]
    for iteration, numbers in enumerate(table[columns].to_numpy()):
        if iteration < 10 or iteration == len(table) - 1:
            grid.add_row(str(iteration), *(f"{number:.10g}" for number in numbers))
        elif iteration == 10:
            grid.add_row(*"⋮" * 5)
    console.print(grid)


def print_comparison(console: Console, settings: Settings, comparison: pd.DataFrame) -> None:
    """Print what each learning rate does and how long it takes."""
    grid = Table(title=f"Iterations until |w − 2| is {ARRIVED:g} of what it was")
    for heading in ("α", "α/α*", "error × a step", "regime", "counted", "closed form"):
        grid.add_column(heading, justify="left" if heading == "regime" else "right")
    for row in comparison.to_dict("records"):
        counted = f"> {PATIENCE:,}" if pd.isna(row["iterations"]) else f"{row['iterations']:,}"
        predicted = f"{row['predicted_iterations']:,.0f}" if math.isfinite(row["predicted_iterations"]) else "never"
        numbers = (row["learning_rate"], row["multiple"], row["factor"])
        style = "bold" if row["learning_rate"] == settings.learning_rate else None
        grid.add_row(*(f"{number:.4g}" for number in numbers), row["regime"], counted, predicted, style=style)
    console.print(grid)


def main(settings: Settings) -> None:
    """Run the descent, compare it with other learning rates, and write and print what came out.

    Writes the steps (descent.csv, descent.gif), the comparison of learning rates (learning_rates.csv), a picture of
    both (gradient_descent.png) and the summary (summary.json).

    Args:
        settings: what to descend on, from where and how fast.

    Raises:
        SystemExit: ``settings.out`` cannot be written to.
    """
    folder = ResultsFolder(settings.out)
    table, comparison = run(settings), compare(settings)
    sentence = finding(settings, table, comparison)
    folder.write_table("descent", table, COLUMNS)
    folder.write_table("learning_rates", comparison, COMPARISON_COLUMNS)
    folder.write_picture("gradient_descent", draw(settings, table, comparison))
    animate(folder.path / "descent.gif", settings, table)
    folder.write_summary(
        "summary",
        {
            "finding": sentence,
            "regime": regime(settings),
            "factor": settings.factor,
            "curvature": settings.curvature,
            "one_step_rate": settings.one_step_rate,
            "largest_rate": settings.largest_rate,
            "final_weight": table["weight"].iloc[-1],
            "final_loss": table["loss"].iloc[-1],
            "closed_form_disagreement": disagreement(table),
            "settings": vars(settings),
        },
    )
    console = Console()
    print_run(console, settings, table)
    print_comparison(console, settings, comparison)
    console.print(sentence, highlight=False)
    console.print(f"Written to {folder.path}", highlight=False)
