"""How the gradient passes through networks of different depth, activation and initialisation, and which of them learn.

Every combination is trained on the digits by plain stochastic gradient descent. At initialisation and during training
the norms of δ^l = ∂L/∂z^l and of ∂L/∂W^l are measured in every layer. The prediction of mean-field theory is drawn
beside them.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from experiments import depth_pictures, network, style, sweep
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
from experiments.workers import default_workers
from torchact import catalogue

RUN_COLUMNS = KEY_COLUMNS | {
    "status": "finished, diverged at step n (loss NaN or infinite), or failed",
    "first_to_last": "‖δ^1‖/‖δ^L‖ at initialisation, L being the last hidden layer; 1 where depth changes nothing, "
    "0 where no gradient arrives",
    "ratio_per_layer": "geometric mean over hidden layers of ‖δ^l‖/‖δ^(l+1)‖ at initialisation",
    "predicted_ratio_per_layer": "the same by mean-field theory for infinite width; empty where there is no theory",
    "train_loss": "cross-entropy of the last batch, in nats",
    "test_accuracy": "fraction of the 297 test images classified correctly after training; 0.1 is chance",
}
LEARNED = 0.5  # test accuracy from which a run counts as having learned; chance is 0.1


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Gradient against depth: activations × initialisations × depths × seeds, trained on 8×8 digits."""

    activations: tuple[str, ...] = ("sigmoid", "tanh", "relu")
    """Activations of the hidden layers: any in the catalogue but gated units and softmax2d."""
    initialisations: tuple[str, ...] = ("default", "xavier", "he", "orthogonal")
    """Initialisations: default (torch's own), xavier, he, orthogonal."""
    depths: tuple[int, ...] = (2, 10, 20)
    """Numbers of hidden layers."""
    seeds: int = 3
    """Runs of each combination, with seeds 0, 1, 2, …"""
    width: int = 100
    """Units in each hidden layer."""
    steps: int = 400
    """Optimiser steps of each run."""
    batch_size: int = 64
    """Images a step."""
    learning_rate: float = 0.03
    """Of plain stochastic gradient descent."""
    every: int = 50
    """Steps between measurements."""
    workers: int = dataclasses.field(default_factory=default_workers)
    """Processes that share the runs; the numbers do not depend on it."""
    out: Path = Path("runs/depth")
    """Folder for the results."""
    tensorboard: bool = True
    """TensorBoard runs, of seed 0, are written unless this says no."""
    quick: bool = False
    """One seed and at most 50 steps, to see what comes out."""

    def __post_init__(self) -> None:
        if self.quick:
            object.__setattr__(self, "seeds", 1)
            object.__setattr__(self, "steps", min(self.steps, 50))
        for name in ("activations", "initialisations", "depths"):
            if not getattr(self, name):
                raise ValueError(f"{name}: expected at least one")
        for name in ("seeds", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected a whole number of at least 1, got {getattr(self, name)}")
        _ = self.runs  # each validates itself

    @property
    def runs(self) -> list[RunSettings]:
        """The settings of every run."""
        combinations = itertools.product(self.activations, self.initialisations, self.depths, range(self.seeds))
        shared = {name: getattr(self, name) for name in ("width", "steps", "batch_size", "learning_rate", "every")}
        runs = (
            RunSettings(activation=activation, initialisation=initialisation, depth=depth, seed=seed, **shared)
            for activation, initialisation, depth, seed in combinations
        )
        return list(dict.fromkeys(runs))


def main(settings: Settings) -> None:
    """Measure gradients against depth for activations × initialisations × depths × seeds."""
    console = Console()
    folder = ResultsFolder(settings.out)
    board = settings.out / "tensorboard"
    _clear(board)
    jobs = [
        sweep.Job(run, board / run.name if settings.tensorboard and run.seed == 0 else None) for run in settings.runs
    ]
    results, interrupted = sweep.run(jobs, settings.workers, console)
    if not results:
        raise SystemExit("No run was finished, so there is nothing to write.")
    runs, layers, curves = tables(results)
    folder.write_table("layers", layers, KEY_COLUMNS | LAYER_COLUMNS)
    folder.write_table("curves", curves, KEY_COLUMNS | CURVE_COLUMNS)
    folder.write_table("runs", runs, RUN_COLUMNS)
    measured = runs[runs["first_to_last"].notna()]
    if measured.empty:
        raise SystemExit(f"No run came as far as a gradient; the column status of {folder.path / 'runs.csv'} says why.")
    pictures = depth_pictures.draw_all(measured, layers, settings.width, folder)
    verdict = describe(runs)
    folder.write_summary("summary", summarise(settings, runs, verdict, len(jobs)))
    if settings.tensorboard:
        depth_pictures.show_in_tensorboard(board / "overview", pictures, verdict)
    console.print(outcome_table(measured))
    console.print(*verdict, sep="\n", highlight=False)
    _say_where(console, pictures, board if settings.tensorboard else None, runs["depth"].max())
    if interrupted:
        console.print(f"Interrupted: {len(results)} of {len(jobs)} runs were finished, and the results cover those.")
        sys.exit(130)


def _clear(board: Path) -> None:
    """Remove the TensorBoard runs of an earlier sweep, which the dashboard would show among those of this one."""
    for events in board.glob("*/events.out.tfevents.*"):
        events.unlink()
        if not any(events.parent.iterdir()):
            events.parent.rmdir()


def tables(results: Sequence[RunResult]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return the tidy tables of runs, of layers and of learning curves."""
    runs = pd.DataFrame([_run_row(result) for result in results], columns=list(RUN_COLUMNS))
    return runs, layer_table(results), curve_table(results)


def _run_row(result: RunResult) -> dict[str, object]:
    depth = result.settings.depth
    norms = [row["preactivation_gradient_norm"] for row in result.layers if row["step"] == 0][:depth]
    first_to_last = _ratio(norms[0], norms[-1]) if norms else math.nan
    last = result.curve[-1] if result.curve else {}
    return result.settings.key | {
        "status": result.status,
        "first_to_last": first_to_last,
        "ratio_per_layer": first_to_last ** (1 / (depth - 1)) if depth > 1 else math.nan,
        "predicted_ratio_per_layer": _predicted_ratio(result.settings),
        "train_loss": last.get("train_loss"),
        "test_accuracy": last.get("test_accuracy"),
    }


def _ratio(first: float, last: float) -> float:
    """Return first/last, 0 where no gradient arrives even in the last layer."""
    return first / last if last > 0 else 0.0 * first


def _predicted_ratio(settings: RunSettings) -> float:
    profile = network.predict(settings.activation, settings.initialisation, settings.depth, settings.width)
    return profile.ratio_per_layer if profile is not None and settings.depth > 1 else math.nan


def outcome_table(runs: pd.DataFrame) -> Table:
    """Return the table that the command ends with: a row for each activation and initialisation, means over seeds."""
    deepest = runs["depth"].max()
    depths = sorted(runs["depth"].unique())
    title = f"Gradient through {deepest} hidden layers at initialisation; test accuracy by depth after training"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("activation", "init."):
        table.add_column(heading)
    for heading in ("× a layer", "theory", "first\n÷ last", *(f"acc. {depth}" for depth in depths)):
        table.add_column(heading, justify="right")
    for (activation, initialisation), group in runs.groupby(["activation", "initialisation"], sort=False):
        deep = group[group["depth"] == deepest]
        accuracies = (group[group["depth"] == depth]["test_accuracy"].mean() for depth in depths)
        table.add_row(
            activation,
            initialisation,
            _number(style.geometric_mean(deep["ratio_per_layer"])),
            _number(deep["predicted_ratio_per_layer"].mean()),
            _number(style.geometric_mean(deep["first_to_last"]), ".1e"),
            *(_number(accuracy, ".0%") for accuracy in accuracies),
        )
    return table


def describe(runs: pd.DataFrame) -> list[str]:
    """Return the verdict in words: which combinations learn at the greatest depth, and how the gradient fares there."""
    deepest = runs[runs["depth"] == runs["depth"].max()]
    measured = deepest[deepest["first_to_last"].notna()]
    groups = measured.groupby(["activation", "initialisation"], sort=False)
    outcome = pd.DataFrame(
        {"ratio": groups["first_to_last"].apply(style.geometric_mean), "accuracy": groups["test_accuracy"].mean()}
    )
    learned = outcome["accuracy"] >= LEARNED
    depth = deepest["depth"].iloc[0]
    sentences = [
        f"With {depth} hidden layers, {learned.sum()} of {len(outcome)} combinations learned to classify at least "
        f"{LEARNED:.0%} of the test images."
    ]
    faded = outcome[~learned & (outcome["ratio"] < 1)]
    if len(faded):
        sentences.append(_sentence(faded["ratio"].idxmin(), outcome, "The gradient fades most in"))
    if learned.any() and depth > 1:
        nearest = outcome[learned]["ratio"].map(lambda ratio: abs(_log10(ratio))).idxmin()
        sentences.append(_sentence(nearest, outcome, "The gradient is kept best in"))
    lost = deepest[deepest["status"] != "finished"]
    if len(lost):
        sentences.append(
            f"{len(lost)} of the {len(deepest)} runs at this depth diverged or failed; runs.csv names them."
        )
    return sentences


def _sentence(combination: tuple[str, str], outcome: pd.DataFrame, beginning: str) -> str:
    ratio, accuracy = outcome.loc[combination]
    activation, initialisation = combination
    return (
        f"{beginning} {catalogue.get(activation).name} networks with {initialisation.capitalize()} initialisation: the "
        f"first layer receives {ratio:.2g} times what the last hidden layer does, and {accuracy:.0%} of the test "
        "images come out right (chance: 10%)."
    )


def summarise(settings: Settings, runs: pd.DataFrame, verdict: list[str], planned: int) -> dict[str, object]:
    """Return what the summary JSON holds."""
    groups = runs.groupby(["activation", "initialisation", "depth"], sort=False)
    outcome = groups.agg(
        runs=("status", "size"),
        finished=("status", lambda statuses: int((statuses == "finished").sum())),
        ratio_per_layer=("ratio_per_layer", style.geometric_mean),
        predicted_ratio_per_layer=("predicted_ratio_per_layer", "mean"),
        first_to_last=("first_to_last", style.geometric_mean),
        test_accuracy=("test_accuracy", "mean"),
    )
    return {
        "finding": " ".join(verdict),
        "runs_planned": planned,
        "runs_done": len(runs),
        "settings": dataclasses.asdict(settings),
        "outcome": outcome.reset_index().to_dict(orient="records"),
    }


def _log10(ratio: float) -> float:
    return math.log10(ratio) if ratio > 0 else -math.inf


def _number(value: float, form: str = ".3f") -> str:
    return "" if math.isnan(value) else format(value, form)


def _profiles_page(depth: int) -> str:
    """Return TensorBoard's page of the deepest networks' profiles, unsmoothed: their horizontal axis is the layer."""
    query = {"smoothing": "0", "tagFilter": "story|depth_profile", "runFilter": f"overview|depth{depth:02d}"}
    return f"http://localhost:6006/?{urlencode(query)}#timeseries"


def _say_where(console: Console, pictures: Mapping[str, Path], board: Path | None, depth: int) -> None:
    console.print("\nPictures:", *(str(path) for path in pictures.values()), highlight=False, soft_wrap=True)
    if board is not None:
        tensorboard = Path(sys.executable).with_name("tensorboard")
        console.print("TensorBoard:", highlight=False)
        console.print(f"  {tensorboard} --logdir {board}", highlight=False, soft_wrap=True)
        console.print(f"and open {_profiles_page(depth)}", highlight=False, soft_wrap=True)
