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
from rich import box
from rich.console import Console
from rich.table import Table

from experiments import learning_speed_pictures, style, sweep
from experiments.learning_speed_plan import Plan
from experiments.results import ResultsFolder
from experiments.training import (
    CURVE_COLUMNS,
    KEY_COLUMNS,
    LAYER_COLUMNS,
    RunResult,
    curve_table,
    layer_table,
)
from experiments.workers import default_workers
from torchact import catalogue

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

#: In the ``--quick`` version a run ends after this many steps at the latest.
QUICK_STEPS = 200


@dataclass(frozen=True, kw_only=True)
class Settings(Plan):
    """Vanishing against training: speed of learning of each layer, steps to an accuracy, final accuracy, and a cure."""

    workers: int = dataclasses.field(default_factory=default_workers)
    """Processes that share the runs; the numbers do not depend on it."""
    out: Path = Path("runs/learning-speed")
    """Folder for the results."""
    quick: bool = False
    """One seed and at most 200 steps, to see what comes out."""

    def __post_init__(self) -> None:
        if self.quick:
            object.__setattr__(self, "seeds", 1)
            object.__setattr__(self, "steps", min(self.steps, QUICK_STEPS))
        if self.workers < 1:
            raise ValueError(f"workers: expected a whole number of at least 1, got {self.workers}")
        super().__post_init__()


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
    outcomes = outcome(runs)
    pictures = learning_speed_pictures.draw_all(_ran(runs), outcomes, layers, curves, settings, folder)
    finding = describe(runs, settings)
    folder.write_summary("summary", summarise(settings, runs, finding, len(jobs)))
    for title, part in _parts(outcomes, settings).items():
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
    return float(np.median(steps.astype("Float64").to_numpy(dtype=float, na_value=math.inf)))


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
        "speed_ratio": float(pd.Series(ratios, dtype=float).dropna().median()),
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


def _parts(outcomes: pd.DataFrame, settings: Settings) -> dict[str, pd.DataFrame]:
    """Return the outcomes of the two parts of the experiment, each with a title, as far as there are any."""
    parts = {
        f"The same initialisation ({settings.initialisation.capitalize()}) for all": settings.compared(outcomes),
        "One network: only activation and initialisation change": settings.cured(outcomes),
    }
    return {title: part for title, part in parts.items() if len(part)}


def outcome(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each activation, initialisation and depth, over its seeds; infinite steps mean "never"."""
    return (
        _ran(runs)
        .astype({"steps_to_accuracy": "Float64"})  # whole numbers have no infinity for a median to be
        .groupby(["activation", "initialisation", "depth"], sort=False)
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
        .astype({"median_steps_to_accuracy": float})
        .reset_index()
    )


def outcome_table(title: str, outcomes: pd.DataFrame, settings: Settings) -> Table:
    """Return a table of one part of the experiment: a row for each activation, initialisation and depth."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("activation", "init."):
        table.add_column(heading)
    speeds = ("1st÷last\nat first", "1st÷last\nin training")
    for heading in ("layers", *speeds, f"steps\nto {settings.accuracy:.0%}", "test\naccuracy"):
        table.add_column(heading, justify="right")
    rows = outcomes.to_dict("records")
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
    outcomes = outcome(runs)
    comparison, cure = settings.compared(outcomes), settings.cured(outcomes)
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
    outcomes = outcome(runs)
    return {
        "finding": " ".join(finding),
        "runs_planned": planned,
        "runs_done": len(runs),
        "settings": dataclasses.asdict(settings),
        "comparison": settings.compared(outcomes).to_dict("records"),
        "cure": settings.cured(outcomes).to_dict("records"),
    }
