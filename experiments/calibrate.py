"""How well the rules foretell, from ten steps, which networks will not learn: their confusions over many small runs.

Networks that differ in architecture, depth, activation and initialisation are trained on the digits by SGD, by momentum
and by Adam. The monitor watches the first ten steps of each and the rules judge them; then the monitor is closed, and
the run goes on and turns out to learn or not. Thresholds are fitted to some seeds and evaluated on the others.

Networks of other kinds, to which nothing is fitted, are trained besides: how far the rules hold there is counted apart.

Run it with ``python -m experiments calibrate``; ``--write docs`` puts what came out into the documentation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from experiments import calibrate_page, calibrate_pictures, calibrate_runs, calibrate_scores
from experiments.calibrate_pictures import FAMILIES
from experiments.calibrate_plan import GRIDS, OTHER_KINDS, OTHERS, calibration_seeds, plan, quick
from experiments.calibrate_scores import COMPARISONS, RULES, Confusion, combined, confusion, not_learned
from experiments.results import ResultsFolder
from experiments.workers import default_workers
from torchact.diagnostics import Thresholds
from torchact.diagnostics.evidence import Family

RUN_COLUMNS = calibrate_runs.RUN_COLUMNS | {
    "learned": f"whether the run finished with an accuracy of at least {calibrate_scores.LEARNED:g}",
    "verdict": "whether a rule that foretells it, or TA303 as an error, said after ten steps that it will not learn",
    "held_out": "whether the run is one that thresholds were not fitted to",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The rules' confusions: MLPs, CNNs and transformers × optimisers × seeds, judged after ten steps, then trained."""

    seeds: int = 4
    """Runs of each combination, with seeds 0, 1, 2, …; thresholds are fitted to the first half."""
    steps: int = 200
    """Optimiser steps of each run, the ten that are watched among them."""
    workers: int = dataclasses.field(default_factory=default_workers)
    """Processes that share the runs; the numbers do not depend on it."""
    out: Path = Path("runs/calibrate")
    """Folder for the results."""
    write: Path | None = None
    """Folder of the documentation, whose calibration.md and calibration.png are to be rewritten."""
    quick: bool = False
    """Two seeds of shallow fully connected networks, to see what comes out."""

    def __post_init__(self) -> None:
        for name, least in (("seeds", 2), ("steps", calibrate_runs.WATCHED), ("workers", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected a whole number of at least {least}, got {getattr(self, name)}")
        if self.quick and self.write is not None:
            raise ValueError("write: the documentation is written from all runs, not from the quick ones")


def main(settings: Settings) -> None:
    """Train the networks, and score what the rules said of their first ten steps."""
    console = Console()
    folder = ResultsFolder(settings.out)
    grids, seeds = (quick(GRIDS), 2) if settings.quick else ((*GRIDS, *OTHERS), settings.seeds)
    rows, interrupted = calibrate_runs.run_all(plan(grids, seeds, settings.steps), settings.workers, console)
    if interrupted:
        raise SystemExit("Interrupted: nothing was written, since a part of the runs would say something else.")
    publish(labelled(pd.DataFrame(rows), seeds), settings, folder, console)


def labelled(runs: pd.DataFrame, seeds: int) -> pd.DataFrame:
    """Return the runs with what became of them, what was foretold, and which part of the split they are in."""
    return runs.assign(
        learned=~not_learned(runs), verdict=combined(runs), held_out=~runs["seed"].isin(calibration_seeds(seeds))
    )


def publish(runs: pd.DataFrame, settings: Settings, folder: ResultsFolder, console: Console) -> None:
    """Write table, summary, picture and, if so asked, the documentation's page, and print the verdict's scores."""
    folder.write_table("runs", runs, RUN_COLUMNS)
    lost = runs["status"].str.startswith("failed")
    if lost.any():
        console.print(f"{lost.sum()} of {len(runs)} runs failed and are left out; runs.csv says why.", highlight=False)
    other = runs["architecture"].isin(OTHER_KINDS)
    others, kept = runs[~lost & other & runs["held_out"]], runs[~lost & ~other]
    held_out, fitting = kept[kept["held_out"]], kept[~kept["held_out"]]
    fitted = {family: calibrate_scores.fitted_threshold(fitting[fitting["family"] == family]) for family in FAMILIES}
    folder.write_summary("summary", summarise(settings, held_out, others, fitted))
    picture = calibrate_pictures.draw(held_out, fitted)
    path = folder.write_picture("calibration", picture)
    if settings.write is not None:
        command = f"python -m experiments calibrate --seeds {settings.seeds} --steps {settings.steps}"
        text = calibrate_page.section(held_out, fitting, others, fitted, command)
        calibrate_page.write(settings.write / "calibration.md", text)
        path = ResultsFolder(settings.write).write_picture("calibration", picture)
    console.print(score_table(held_out, "“Will not learn”, said after ten steps, on the seeds that were held out"))
    if len(others):
        console.print(score_table(others, "The same of networks of other kinds"))
    console.print(*describe(held_out, fitted), sep="\n", highlight=False)
    console.print(f"\nPicture: {path}", highlight=False, soft_wrap=True)


def scores(runs: pd.DataFrame) -> dict[str, Confusion]:
    """Return how well the verdict, each rule by itself and other tools' thresholds do on these runs, by name."""
    failed = not_learned(runs)
    detectors = {"will not learn": combined, **RULES, **COMPARISONS}
    return {name: confusion(foretells(runs), failed) for name, foretells in detectors.items()}


def score_table(runs: pd.DataFrame, title: str) -> Table:
    """Return a table that the command ends with: the verdict's confusion by family and architecture."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("optimiser", "network"):
        table.add_column(heading)
    for heading in ("caught", "false\nalarms", "missed", "passed", "recall", "precision"):
        table.add_column(heading, justify="right")
    for family, optimiser in FAMILIES.items():
        of_family = runs[runs["family"] == family]
        groups = {"all": of_family, **dict(iter(of_family.groupby("architecture", sort=False)))}
        for name, group in groups.items():
            score = confusion(combined(group), not_learned(group))
            counts = (score.caught, score.false_alarms, score.missed, score.passed)
            shares = (f"{score.recall:.2f}", f"{score.precision:.2f}")
            table.add_row(optimiser, name, *map(str, counts), *shares, end_section=name == list(groups)[-1])
    return table


def describe(runs: pd.DataFrame, fitted: Mapping[Family, float]) -> list[str]:
    """Return in words, for each family, whether the verdict is as good as it should be, and the fitted threshold."""
    sentences = []
    for family, title in FAMILIES.items():
        score = scores(runs[runs["family"] == family])["will not learn"]
        sentences.append(
            f"{title}: recall {score.recall:.2f} and precision {score.precision:.2f}, "
            f"{'which is' if score.reached else 'which is not'} what it should be ({calibrate_scores.RECALL:g} and "
            f"{calibrate_scores.PRECISION:g}). The fitted threshold of the ratio is {fitted[family]:.1e}; the default "
            f"one is {Thresholds().vanishing_ratio(family):.0e}."
        )
    return sentences


def summarise(
    settings: Settings, runs: pd.DataFrame, others: pd.DataFrame, fitted: Mapping[Family, float]
) -> dict[str, object]:
    """Return what the summary JSON holds."""
    return {
        "finding": " ".join(describe(runs, fitted)),
        "settings": dataclasses.asdict(settings),
        "fitted_thresholds": fitted,
        "held_out": _scores_by_family(runs),
        **({"other_kinds": _scores_by_family(others)} if len(others) else {}),
    }


def _scores_by_family(runs: pd.DataFrame) -> dict[str, dict[str, dict[str, object]]]:
    return {
        family: {
            name: dataclasses.asdict(score)
            | {
                "recall": score.recall,
                "recall_interval": score.recall_interval,
                "precision": score.precision,
                "precision_interval": score.precision_interval,
            }
            for name, score in scores(runs[runs["family"] == family]).items()
        }
        for family in FAMILIES
    }
