"""Gradient descent on one weight: J(w) = Σ (z − w·x)² for z = 2x, and what the learning rate α does to it.

Each step is w ← w − α·dJ/dw with dJ/dw from ``torch.autograd`` in float64. The run is checked against its closed form,
which ``gradient_descent_problem`` derives.

Run it with ``python -m experiments gradient-descent``. All quantities are pure numbers, without a unit.

Example:
    >>> [round(step.weight, 10) for step in itertools.islice(descent(Settings(x=(1.0,))), 4)]
    [0.2, 1.64, 1.928, 1.9856]
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from experiments import gradient_descent_pictures, style
from experiments.gradient_descent_problem import (
    ARRIVED,
    PATIENCE,
    TRUE_WEIGHT,
    Problem,
    headline,
    predicted_iterations,
    regime,
)
from experiments.results import ResultsFolder

#: The learning rates that are compared with the chosen one, in units of α* = 1/(2S), the one that lands in one step.
MULTIPLES = (0.01, 0.1, 0.5, 1.0, 1.5, 1.9, 2.0, 2.1)

#: In the ``--quick`` version the run stops after this many steps.
QUICK_STEPS = 6

#: Longer runs are printed without their middle: this many steps at the start, and the last.
PRINTED_STEPS = 10

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
class Settings(Problem):
    """Gradient descent on J(w) = Σ (z − w·x)² for z = 2x, and what the learning rate α does to it.

    Raises:
        ValueError: an argument is outside what is accepted; the message names it, its value and what would be.
    """

    iterations: int = 30
    """Steps to take."""

    quick: bool = False
    """Take at most 6 steps, for a look that is over in a few seconds."""

    out: Path = Path("runs/gradient-descent")
    """Folder for the tables, pictures and summary."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iterations < 1:
            raise ValueError(f"iterations: expected 1 or more, got {self.iterations!r}")

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


def summarise(settings: Settings, table: pd.DataFrame, sentence: str) -> dict[str, object]:
    """Return what the summary JSON holds."""
    return {
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
    }


def print_run(console: Console, settings: Settings, table: pd.DataFrame) -> None:
    """Print the first steps and the last."""
    grid = Table(title=f"{headline(settings)}\nthe closed form differs by at most {disagreement(table):.1e}")
    for heading in ("t", "w", "J(w)", "dJ/dw", "w by the closed form"):
        grid.add_column(heading, justify="right")
    numbers = table[["weight", "loss", "gradient", "closed_form_weight"]].to_numpy().tolist()
    for row in style.ends([*enumerate(numbers)], PRINTED_STEPS, 1):
        texts = "⋮" * 5 if row is None else (str(row[0]), *(f"{number:.10g}" for number in row[1]))
        grid.add_row(*texts)
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
        emphasis = "bold" if row["learning_rate"] == settings.learning_rate else None
        grid.add_row(*(f"{number:.4g}" for number in numbers), row["regime"], counted, predicted, style=emphasis)
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
    folder.write_picture("gradient_descent", gradient_descent_pictures.draw(settings, table, comparison))
    folder.write_animation("descent", gradient_descent_pictures.animate(settings, table))
    folder.write_summary("summary", summarise(settings, table, sentence))
    console = Console()
    print_run(console, settings, table)
    print_comparison(console, settings, comparison)
    console.print(sentence, highlight=False)
    console.print(f"Written to {folder.path}", highlight=False)
