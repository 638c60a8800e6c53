import json
import math
import sys
from dataclasses import replace

import pandas as pd
import pytest
import torch
from rich.console import Console

from experiments import __main__ as command_line
from experiments import calibrate, calibrate_networks, calibrate_page, calibrate_scores, calibrate_tasks
from experiments.calibrate import Settings
from experiments.calibrate_plan import GRIDS, OTHER_KINDS, Grid, plan, quick
from experiments.calibrate_runs import OPTIMISERS, RUN_COLUMNS, Run, attempt, run_all
from experiments.calibrate_scores import (
    COMPARISONS,
    RULES,
    Confusion,
    below,
    combined,
    combined_but,
    combined_with,
    confusion,
    fitted_threshold,
    not_learned,
    wilson,
)
from torchact.diagnostics import Thresholds

COUNTS = ("caught", "false_alarms", "missed", "passed")
RUN = Run(architecture="MLP", activation="tanh", initialisation="xavier", depth=2, optimiser="SGD", seed=0, steps=60)


def rows(*changes):
    """Runs that finished, in which no rule said anything, with these changes."""
    quiet = dict.fromkeys(RUN_COLUMNS, "") | {
        "architecture": "MLP",
        "activation": "relu",
        "initialisation": "he",
        "depth": 3,
        "family": "sgd",
        "status": "finished",
        "seed": 1,
        "ratio": 0.5,
        "first_to_last": 0.0,
        "mean_gradient": 1e-3,
        "first_weight_gradient": 0.1,
        "weight_gradient_ratio": 1.0,
        "accuracy": 0.9,
    }
    return pd.DataFrame([quiet | change for change in changes])


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The folders of results and documentation that a small real calibration wrote, through the command line."""
    out, docs = tmp_path_factory.mktemp("calibrate"), tmp_path_factory.mktemp("docs")
    page = f"before\n{calibrate_page.BEGIN}old\n{calibrate_page.END}after\n"
    (docs / "calibration.md").write_text(page)
    grid = Grid(architecture="MLP", depths=(2, 6), activations=("sigmoid", "relu"), initialisations=("default",))
    other = Grid(architecture="GRU", depths=(1,), activations=("tanh",), initialisations=("default",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibrate, "GRIDS", (grid,))
        patch.setattr(calibrate, "OTHERS", (other,))
        options = ["--seeds", "2", "--steps", "40", "--workers", "1", "--out", str(out), "--write", str(docs)]
        patch.setattr(sys, "argv", ["experiments", "calibrate", *options])
        command_line.main()
    return out, docs


def test_results_are_written(published):
    out, _ = published
    runs = pd.read_csv(out / "runs.csv", comment="#")
    assert len(runs) == (2 * 2 + 1) * len(OPTIMISERS) * 2
    assert set(runs["status"]) == {"finished"}
    assert set(runs["seed"][runs["held_out"]]) == {1}
    deep = runs[(runs["activation"] == "sigmoid") & (runs["depth"] == 6)]
    assert not deep["learned"].any()
    assert deep["verdict"][deep["family"] == "sgd"].all()
    shallow = runs[(runs["activation"] == "relu") & (runs["depth"] == 2)]
    assert not shallow["verdict"].any()
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["held_out"]) == {"sgd", "adaptive"}
    assert sum(summary["held_out"]["adaptive"]["will not learn"][count] for count in COUNTS) == 4
    assert sum(summary["other_kinds"]["adaptive"]["will not learn"][count] for count in COUNTS) == 1
    assert summary["held_out"]["sgd"]["will not learn"]["false_alarms"] == 0
    assert (out / "calibration.png").stat().st_size > 10_000


def test_the_page_is_rewritten_between_its_markers(published):
    _, docs = published
    page = (docs / "calibration.md").read_text()
    assert page.startswith("before\n")
    assert page.endswith("after\n")
    assert "old\n" not in page
    assert "trained 24 networks" in page
    main, others = page.split("## Networks of other kinds")
    assert "| Adam | GRU |" in others
    assert "GRU" not in main
    assert all(name in page for name in RULES)
    assert (docs / "calibration.png").exists()
    widths = [line.count(" | ") for line in page.splitlines() if line.startswith("| SGD and momentum | TA")]
    assert len(widths) == len(RULES)
    assert len(set(widths)) == 1


def test_a_page_without_markers_is_left_alone(tmp_path):
    (tmp_path / "calibration.md").write_text("mine")
    with pytest.raises(SystemExit, match="no lines"):
        calibrate_page.write(tmp_path / "calibration.md", "new")
    assert (tmp_path / "calibration.md").read_text() == "mine"


def test_a_run_is_the_same_in_another_process():
    runs = [replace(RUN, steps=12)]
    (here, _), (elsewhere, _) = (run_all(runs, workers, Console(quiet=True)) for workers in (1, 2))
    pd.testing.assert_frame_equal(pd.DataFrame(here), pd.DataFrame(elsewhere))


def test_after_ctrl_c_nothing_is_written(tmp_path, monkeypatch):
    def interrupt(run):
        raise KeyboardInterrupt

    monkeypatch.setattr("experiments.calibrate_runs.attempt", interrupt)
    with pytest.raises(SystemExit, match="Interrupted: nothing was written"):
        calibrate.main(Settings(quick=True, workers=1, out=tmp_path))
    assert not (tmp_path / "runs.csv").exists()


@pytest.mark.parametrize("architecture", calibrate_networks.ARCHITECTURES)
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_every_network_is_watched(architecture, optimiser):
    row = attempt(replace(RUN, architecture=architecture, optimiser=optimiser, depth=1, steps=10))
    assert set(row) == set(RUN_COLUMNS)
    assert row["status"] == "finished"
    assert row["family"] == ("adaptive" if optimiser == "Adam" else "sgd")
    assert 0 < row["ratio"] < 100
    assert row["rule_vanishing"] in ("", "info", "warning", "error")


def test_the_ratio_decides_as_the_rule_does():
    """The quantity in the table is the one that the vanishing rule compares with its threshold."""
    table = pd.DataFrame(
        [
            attempt(replace(RUN, activation="sigmoid", depth=depth, optimiser=optimiser, steps=10))
            for depth in (2, 3, 4, 6)
            for optimiser in ("SGD", "momentum")
        ]
    )
    fires = calibrate_scores.speaks(table, "rule_vanishing")
    assert (fires == (table["ratio"] < Thresholds().vanishing_ratio_sgd)).all()
    assert 0 < fires.sum() < len(fires)


def test_a_run_that_diverges_has_not_learned(monkeypatch):
    monkeypatch.setattr(
        "experiments.calibrate_runs.OPTIMISERS", {"SGD": lambda parameters: torch.optim.SGD(parameters, lr=1e30)}
    )
    row = attempt(replace(RUN, activation="relu", steps=20))
    assert row["status"].startswith("diverged")
    assert row["rule_non_finite"] == "error"
    assert not_learned(pd.DataFrame([row])).all()
    assert combined(pd.DataFrame([row])).all()


def test_a_run_that_fails_says_why():
    row = attempt(replace(RUN, activation="unheard-of"))
    assert row["status"].startswith("failed: ValueError")
    assert set(row) == set(RUN_COLUMNS)


def test_initialisations_are_those_of_the_fan_in():
    model = calibrate_networks.build("CNN", "relu", "he", 2, seed=0)
    last = [layer for layer in model if isinstance(layer, torch.nn.Conv2d)][-1]
    assert last.weight.var().item() == pytest.approx(2 / (calibrate_networks.CHANNELS * 9), rel=0.15)
    assert last.bias.abs().max() == 0


def test_branches_that_begin_as_zeros_leave_the_embedding_alone():
    images = torch.randn(5, 64)
    model = calibrate_networks.build("transformer from zero", "gelu", "xavier", 3, seed=0)
    assert model(images).abs().max() == 0
    tokens = torch.randn(5, 8, calibrate_networks.MODEL_WIDTH)
    assert torch.equal(model.blocks(tokens), tokens)
    assert all(block.feed_forward[0].weight.abs().max() > 0 for block in model.blocks)


def test_recurrent_layers_are_drawn_by_the_seed():
    def weights(seed):
        return calibrate_networks.build("LSTM", "tanh", "default", 2, seed).recurrent.weight_hh_l1

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))
    assert weights(0).abs().max() <= calibrate_networks.HIDDEN**-0.5


def test_what_is_to_be_learned():
    classes = torch.arange(10).repeat(3)
    regression = calibrate_tasks.REGRESSION
    targets = ((classes - 4.5) / classes.double().std(correction=0)).unsqueeze(1)
    assert regression.loss(targets, classes, classes).item() == pytest.approx(0, abs=1e-12)
    assert regression.score(targets, classes) == pytest.approx(1)
    assert regression.score(0.5 * targets, classes) == pytest.approx(0.75)
    assert regression.score(torch.zeros(30, 1), classes) == pytest.approx(0, abs=1e-6)
    assert regression.score(torch.full((30, 1), math.nan), classes) == 0
    images, logits = torch.ones(30, 64), torch.nn.functional.one_hot(classes, 10).double()
    heads = calibrate_tasks.TWO_HEADS
    alone = calibrate_tasks.CLASSIFICATION.loss(logits, images, classes)
    assert heads.loss((logits, torch.zeros(30, 1)), images, classes) == pytest.approx(
        alone.item() + calibrate_tasks.SECOND_HEAD
    )
    assert heads.score((logits, torch.zeros(30, 1)), classes) == 1


def test_what_the_verdict_is_made_of():
    runs = rows(
        {},
        {"rule_vanishing": "warning"},
        {"rule_vanishing": "info"},
        {"rule_at_epsilon": "error"},
        {"rule_zero_gradient": "warning"},
        {"rule_zero_gradient": "error"},
        {"rule_non_finite": "error"},
        {"rule_decay": "info", "rule_initial_variance": "warning"},
    )
    assert list(combined(runs)) == [False, True, False, True, False, True, True, False]
    others = [False, False, False, True, False, True, True, False]
    assert list(combined_but("rule_vanishing")(runs)) == others
    assert list(combined_with(below(1.0), "rule_vanishing")(runs)) == [True] * 8
    assert list(combined_with(below(0.1), "rule_vanishing")(runs)) == others
    first = rows({}, {"rule_restless": "warning"}, {"rule_shrinking_output": "warning"}, {"rule_stalled": "warning"})
    assert list(combined(first)) == [False, True, True, True]


def test_a_ratio_says_nothing_where_the_gradient_gets_past_it():
    runs = rows({"ratio": 1e-5}, {"ratio": 1e-5, "first_to_last": 0.1})
    assert list(below(1e-2)(runs)) == [True, False]


@pytest.mark.parametrize(("family", "optimiser"), [("sgd", "momentum"), ("adaptive", "Adam")])
def test_rules_of_the_first_steps_decide_by_the_quantities_in_the_table(family, optimiser):
    """The middle one of the thresholds that the page tries is the default one."""
    kinds = (
        {"activation": "relu", "initialisation": "he", "depth": 30},
        {"activation": "tanh", "initialisation": "xavier", "depth": 30},
        {"activation": "sigmoid", "initialisation": "default", "depth": 3},
        {"architecture": "bare transformer", "activation": "sigmoid", "initialisation": "default", "depth": 1},
    )
    runs = [replace(RUN, optimiser=optimiser, seed=seed, steps=10, **kind) for kind in kinds for seed in range(2)]
    table = pd.DataFrame(map(attempt, runs))
    for rule, detectors in calibrate_scores.of_first_steps(family):
        default = list(detectors.values())[1]
        fires = calibrate_scores.speaks(table, rule)
        assert (fires == default(table)).all()
        assert 0 < fires.sum() < len(fires)


def test_comparison_lines():
    runs = rows({}, {"mean_gradient": 1e-8}, {"first_weight_gradient": 1e-5}, {"weight_gradient_ratio": 1e-4})
    faded = rows({"first_weight_gradient": 1e-5, "weight_gradient_ratio": 1e-4})
    sagemaker, autotrainer = COMPARISONS.values()
    assert list(sagemaker(runs)) == [False, True, False, False]
    assert not autotrainer(runs).any()
    assert autotrainer(faded).all()


def test_confusion():
    foretold = pd.Series([True, True, True, False, False, False, False])
    failed = pd.Series([True, True, False, True, False, False, False])
    score = confusion(foretold, failed)
    assert score == Confusion(caught=2, false_alarms=1, missed=1, passed=3)
    assert (score.recall, score.precision) == (2 / 3, 2 / 3)
    assert score.f1 == pytest.approx(2 / 3)
    assert not score.reached
    silent = confusion(~failed & False, failed)
    assert math.isnan(silent.precision)
    assert not silent.reached


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_intervals(successes, trials, low, high):
    """The last one is the example of Newcombe 1998, table I."""
    assert wilson(successes, trials) == pytest.approx((low, high), abs=1e-4)


def test_a_threshold_is_fitted_in_the_gap():
    runs = rows({"ratio": 1e-6, "accuracy": 0.1}, {"ratio": 1e-4, "accuracy": 0.1}, {"ratio": 1e-2}, {"ratio": 1.0})
    assert fitted_threshold(runs) == pytest.approx(1e-3)


def test_a_fitted_threshold_is_precise_first_of_all():
    """One false alarm in the middle: going beyond it would catch more, but be wrong too often."""
    runs = rows({"ratio": 1e-6, "accuracy": 0.1}, {"ratio": 1e-4}, {"ratio": 1e-2, "accuracy": 0.1}, {"ratio": 1.0})
    assert fitted_threshold(runs) == pytest.approx(1e-5)
    assert math.isnan(fitted_threshold(rows({"ratio": 1e-6}, {"ratio": 1.0})))


def test_boosting_finds_what_no_threshold_of_one_quantity_tells():
    quiet = dict.fromkeys(calibrate_scores.QUANTITIES, 1.0)
    apart = [
        quiet | {"ratio": ratio, "decay": decay, "accuracy": 0.1 if (ratio < 1) == (decay < 1) else 0.9}
        for ratio in (0.1, 10.0, math.inf)
        for decay in (0.1, 10.0, math.nan)
    ]
    runs = rows(*apart * 30)
    detector = calibrate_scores.boosted(runs)
    assert list(detector(runs)) == list(not_learned(runs))


def test_runs_without_a_ratio_are_not_below_a_threshold():
    runs = rows({"ratio": math.nan, "accuracy": 0.1}, {"ratio": 1e-4, "accuracy": 0.1}, {"ratio": 1.0})
    assert fitted_threshold(runs) == pytest.approx(1e-2)
    assert list(below(1e-2)(runs)) == [False, True, False]


def test_the_plan_is_large_enough():
    runs = plan(GRIDS, seeds=3, steps=200)
    assert 300 <= len(runs) == len(set(runs)) <= 600
    architectures = [grid.architecture for grid in GRIDS]
    assert {run.architecture for run in runs} == set(architectures)
    assert set(calibrate_networks.ARCHITECTURES) == {*architectures, *OTHER_KINDS}
    assert OTHER_KINDS.isdisjoint(architectures)
    assert len(plan(quick(GRIDS), seeds=2, steps=200)) < 150


@pytest.mark.parametrize(("name", "value"), [("seeds", 1), ("steps", 9), ("workers", 0)])
def test_settings_that_make_no_sense(name, value):
    with pytest.raises(ValueError, match=f"{name}: expected a whole number of at least"):
        Settings(**{name: value})


def test_a_quick_calibration_is_not_published(tmp_path):
    with pytest.raises(ValueError, match="not from the quick ones"):
        Settings(quick=True, write=tmp_path)
