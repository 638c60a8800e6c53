"""The calibration's page in the documentation: what the runs say, as Markdown between two markers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from experiments import calibrate_scores
from experiments.calibrate_pictures import FAMILIES
from experiments.calibrate_scores import (
    COMPARISONS,
    FORETELLING,
    RULES,
    Confusion,
    Detector,
    below,
    combined,
    combined_but,
    combined_with,
)
from torchact import catalogue
from torchact.diagnostics import Thresholds
from torchact.diagnostics.evidence import Family

BEGIN, END = "<!-- calibration: begin -->\n", "<!-- calibration: end -->\n"
_SCORES = ("caught", "false alarms", "missed", "passed", "recall (95 %)", "precision (95 %)")
_LABELS = (0.2, 0.5, 0.8)  # accuracies that might count as having learned
_HEALTHY = 0.1  # of the last layer's gradient
_NEAR = (0.3, 0.7)  # accuracies near the bar
_COMBINATION = ["family", "architecture", "activation", "initialisation", "depth"]


def write(path: Path, section: str) -> None:
    """Replace what is between the markers in a file, which has to have them.

    Raises:
        SystemExit: it does not exist, or has no markers.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if BEGIN not in text or END not in text:
        raise SystemExit(f"write: {str(path)!r} has no lines {BEGIN.strip()!r} and {END.strip()!r} to write between")
    before, rest = text.split(BEGIN)
    path.write_text(f"{before}{BEGIN}{section}{END}{rest.split(END)[1]}", encoding="utf-8")


def section(
    held_out: pd.DataFrame,
    calibrated: pd.DataFrame,
    others: pd.DataFrame,
    fitted: Mapping[Family, float],
    command: str,
) -> str:
    """Return what is written between the markers.

    Args:
        held_out: the runs that are evaluated.
        calibrated: those that thresholds were fitted to.
        others: those of networks of other kinds, with the seeds of the former.
        fitted: by family, the threshold that was fitted.
        command: what made the runs.
    """
    parts = (
        _what_was_run(held_out, calibrated, command),
        "## Will not learn: the verdict after ten steps\n",
        _verdicts(held_out),
        "## Each rule by itself\n",
        _rules(held_out),
        "## What each rule adds\n",
        _additions(held_out),
        "## The thresholds\n",
        _thresholds(held_out, calibrated, fitted),
        "## What could be had of the same quantities\n",
        _attainable(held_out, calibrated),
        "## What the verdict missed, and its false alarms\n",
        _errors(held_out),
        "## Were the bar for having learned another\n",
        _labels(held_out),
        *(("## Networks of other kinds\n", _others(others)) if len(others) else ()),
    )
    return "\n".join(parts)


def _what_was_run(held_out: pd.DataFrame, calibrated: pd.DataFrame, command: str) -> str:
    runs = pd.concat([calibrated, held_out])
    diverged = (runs["status"] != "finished").sum()
    return (
        f"`{command}` trained {len(runs)} networks, of which {calibrate_scores.not_learned(runs).sum()} did not learn"
        f" ({diverged} diverged). Thresholds were fitted to seeds {_listed(calibrated['seed'])}"
        f" ({len(calibrated)} runs). Every other number and the picture are of seeds {_listed(held_out['seed'])}"
        f" ({len(held_out)} runs), which no threshold was fitted to.\n\n{_networks(runs)}"
    )


def _networks(runs: pd.DataFrame) -> str:
    rows = [
        (
            architecture,
            _listed(group["depth"]),
            _listed(group["activation"].map(_name)),
            _listed(group["initialisation"]),
            *(
                f"{calibrate_scores.not_learned(of_family).sum()} of {len(of_family)}"
                for of_family in _by_family(group).values()
            ),
        )
        for architecture, group in runs.groupby("architecture", sort=False)
    ]
    failed = (f"failed: {name}" for name in FAMILIES.values())
    return _table(("network", "depths", "activations", "initialisations", *failed), rows)


def _verdicts(runs: pd.DataFrame) -> str:
    rows = []
    for family, of_family in _by_family(runs).items():
        total = _score(combined, of_family)
        rows.append((f"**{FAMILIES[family]}**", "**all**", *_scores(total), "yes" if total.reached else "no"))
        rows += [(*row, "") for row in _by_architecture(family, of_family)]
    return _table(("optimiser", "network", *_SCORES, "reached"), rows)


def _by_architecture(family: Family, runs: pd.DataFrame) -> list[tuple[object, ...]]:
    return [
        (FAMILIES[family], architecture, *_scores(_score(combined, group)))
        for architecture, group in runs.groupby("architecture", sort=False)
    ]


def _others(runs: pd.DataFrame) -> str:
    rows = [row for family, of_family in _by_family(runs).items() for row in _by_architecture(family, of_family)]
    parts = (
        f"Nothing was fitted to these {len(runs)} runs, of the same seeds. A regression has learned where it explains"
        " half of the variance.\n",
        _networks(runs),
        _table(("optimiser", "network", *_SCORES), rows),
        _errors(runs),
    )
    return "\n".join(parts)


def _rules(runs: pd.DataFrame) -> str:
    rows = []
    for family, of_family in _by_family(runs).items():
        detectors = {"**will not learn**": combined, **RULES, **COMPARISONS}
        rows += [(FAMILIES[family], name, *_scores(_score(find, of_family))) for name, find in detectors.items()]
    return _table(("optimiser", "rule", *_SCORES), rows)


def _thresholds(held_out: pd.DataFrame, calibrated: pd.DataFrame, fitted: Mapping[Family, float]) -> str:
    fits, rows = _by_family(calibrated), []
    for family, of_family in _by_family(held_out).items():
        first = calibrate_scores.fitted_threshold(fits[family], "first_to_last")
        default = Thresholds().vanishing_ratio(family)
        ratios = {
            f"smallest ratio of a layer, default: < {default:.1e}": below(default),
            f"smallest ratio of a layer, fitted: < {fitted[family]:.1e}": below(fitted[family]),
            f"ratio of the first layer, fitted: < {first:.1e}": below(first, "first_to_last"),
        }
        tried = [("rule_vanishing", ratios), *calibrate_scores.of_first_steps(family)]
        for column, detectors in tried:
            for name, alone in detectors.items():
                cells: list[str] = []
                for detector in (alone, combined_with(alone, column)):
                    for runs in (fits[family], of_family):
                        score = _score(detector, runs)
                        cells.append(f"{_share(score.recall)}, {_share(score.precision)}")
                rows.append((FAMILIES[family], name, *cells))
    heading = (
        *("optimiser", "quantity and threshold", "alone, on the seeds of the fit", "alone, held out"),
        *("with the other rules, on the seeds of the fit", "with the other rules, held out"),
    )
    return (
        "Each cell has recall and precision. A fitted threshold has the highest F1 of those with a precision of"
        f" {calibrate_scores.PRECISION:g} on the seeds of the fit. The thresholds of the first steps were chosen on"
        f" those seeds by eye; smaller and larger ones stand beside them.\n\n{_table(heading, rows)}"
    )


def _attainable(held_out: pd.DataFrame, calibrated: pd.DataFrame) -> str:
    fits, rows = _by_family(calibrated), []
    for family, of_family in _by_family(held_out).items():
        detectors = {"rules": combined, "gradient boosting": calibrate_scores.boosted(fits[family])}
        rows += [(FAMILIES[family], name, *_scores(_score(find, of_family))) for name, find in detectors.items()]
    return (
        "Trees were boosted on all quantities that the rules and other tools go by, of the seeds of the fit. This is"
        " how they do on those that were held out.\n\n" + _table(("optimiser", "verdict of", *_SCORES), rows)
    )


def _additions(runs: pd.DataFrame) -> str:
    rows = []
    for family, of_family in _by_family(runs).items():
        together = _score(combined, of_family)
        for column, name in FORETELLING.items():
            without = _score(combined_but(column), of_family)
            alone = (together.caught - without.caught, together.false_alarms - without.false_alarms)
            if any(alone):
                rows.append((FAMILIES[family], name, *alone))
    return (
        "Of the rules that foretell, what one said and no other. Rules that are not here said nothing of the kind.\n\n"
        + _table(("optimiser", "rule", "caught by it alone", "false alarms of it alone"), rows)
    )


def _errors(runs: pd.DataFrame) -> str:
    foretold, failed = combined(runs), calibrate_scores.not_learned(runs)
    parts = []
    for title, chosen in (("Missed", failed & ~foretold), ("False alarms", foretold & ~failed)):
        rows = [
            (
                FAMILIES[family],
                f"{architecture}, {depth}",
                f"{_name(activation)}, {initialisation}",
                len(group),
                f"{group['ratio'].min():.0e} … {group['ratio'].max():.0e}",
                f"{group['accuracy'].min():.0%} … {group['accuracy'].max():.0%}",
            )
            for (family, architecture, activation, initialisation, depth), group in runs[chosen].groupby(
                _COMBINATION, sort=False
            )
        ]
        heading = ("optimiser", "network, depth", "activation, initialisation", "runs", "smallest ratio", "accuracy")
        parts.append(f"{title}: {_summary(runs[chosen])}\n\n{_table(heading, rows)}")
    return "\n".join(parts)


def _summary(runs: pd.DataFrame) -> str:
    healthy, near = (runs["ratio"] >= _HEALTHY).sum(), runs["accuracy"].between(*_NEAR).sum()
    return (
        f"{len(runs)} runs. In {healthy} of them no layer's gradient is below {_HEALTHY:g} of the last one's;"
        f" {near} ended near the bar, with an accuracy between {_NEAR[0]:.0%} and {_NEAR[1]:.0%}."
    )


def _labels(runs: pd.DataFrame) -> str:
    rows = []
    for family, of_family in _by_family(runs).items():
        for limit in _LABELS:
            score = calibrate_scores.confusion(combined(of_family), calibrate_scores.not_learned(of_family, limit))
            rows.append((FAMILIES[family], f"{limit:.0%}", *_scores(score)))
    return _table(("optimiser", "learned from", *_SCORES), rows)


def _by_family(runs: pd.DataFrame) -> dict[Family, pd.DataFrame]:
    return {family: runs[runs["family"] == family] for family in FAMILIES}


def _score(detector: Detector, runs: pd.DataFrame) -> Confusion:
    return calibrate_scores.confusion(detector(runs), calibrate_scores.not_learned(runs))


def _scores(score: Confusion) -> tuple[object, ...]:
    return (
        *(score.caught, score.false_alarms, score.missed, score.passed),
        _with_interval(score.recall, score.recall_interval),
        _with_interval(score.precision, score.precision_interval),
    )


def _with_interval(share: float, interval: tuple[float, float]) -> str:
    if math.isnan(share):
        return "–"
    return f"{share:.3f} ({interval[0]:.2f}–{interval[1]:.2f})"


def _share(share: float) -> str:
    return "–" if math.isnan(share) else f"{share:.2f}"


def _name(activation: str) -> str:
    return catalogue.get(activation).name


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, dict.fromkeys(values)))


def _table(heading: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    cells = [tuple(str(cell).replace("|", r"\|") for cell in row) for row in (heading, *rows)]
    lines = [cells[0], ("---",) * len(cells[0]), *cells[1:]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
