import json
import math
import sys

import pandas as pd
import pytest
from rich.console import Console

from experiments import __main__ as command_line
from experiments import learning_speed, sweep
from experiments.learning_speed import Settings, describe, median_steps, outcome, run_table, steps_to_accuracy
from experiments.learning_speed_plan import CURE
from experiments.training import LAYER_COLUMNS, RunResult, RunSettings, layer_table

PICTURES = ("speed_by_layer", "weight_speed_by_layer", "learning_curves", "outcome_by_depth", "cure")
SMALL = {"width": 8, "steps": 4, "every": 2, "workers": 1, "seeds": 1, "depths": (1, 2)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder that a small real experiment wrote: 8 hidden layers of 64 units, long enough to cure the network."""
    folder = tmp_path_factory.mktemp("learning-speed")
    settings = Settings(
        activations=("sigmoid", "ReLU"),
        depths=(2, 8),
        seeds=1,
        width=64,
        steps=120,
        every=20,
        workers=1,
        out=folder,
    )
    learning_speed.main(settings)
    return folder


def read(folder, name):
    return pd.read_csv(folder / f"{name}.csv", comment="#")


def curve(*accuracies, every=10):
    return [{"step": every * place, "test_accuracy": accuracy} for place, accuracy in enumerate(accuracies)]


def result(accuracies, activation="sigmoid", initialisation="xavier", depth=2, seed=0, status="finished"):
    """A run with this learning curve, whose first layer is four times as slow as its second."""
    settings = RunSettings(activation=activation, initialisation=initialisation, depth=depth, seed=seed, steps=20)
    rows = [
        {"step": row["step"], "layer": layer, "bias_gradient_norm": 4.0**layer}
        for row in curve(*accuracies)
        for layer in range(1, depth + 2)
    ]
    rows_of_curve = [row | {"train_loss": 1.0} for row in curve(*accuracies)]
    return RunResult(settings=settings, status=status, layers=rows, curve=rows_of_curve)


@pytest.mark.parametrize(
    ("accuracies", "steps"),
    [
        ((0.1, 0.5, 0.8, 0.9), 20),  # reached exactly
        ((0.1, 0.9, 0.2, 0.9), 10),  # the first time counts
        ((0.9, 0.9), 0),
        ((0.1, 0.79999), None),
        ((0.1, math.nan), None),
        ((), None),
    ],
)
def test_steps_to_an_accuracy(accuracies, steps):
    assert steps_to_accuracy(curve(*accuracies), 0.8) == steps


@pytest.mark.parametrize(
    ("steps", "median"),
    [
        ([10, 20, 90], 20),
        ([10, None, 20], 20),
        ([10, None, None], math.inf),
        ([None], math.inf),
        ([10, None], math.inf),
    ],
)
def test_a_run_that_never_gets_there_is_longer_than_any_other(steps, median):
    assert median_steps(pd.Series(steps, dtype="Int64")) == median


def test_a_censored_run_has_no_number_anywhere():
    results = [result((0.1, 0.9), seed=0), result((0.1, 0.2), seed=1), result((0.1, 0.3), seed=2)]
    runs = run_table(results, accuracy=0.8)
    assert runs["steps_to_accuracy"].isna().tolist() == [False, True, True]
    settings = Settings(activations=("sigmoid",), depths=(2,), steps=20)
    row = outcome(runs).to_dict("records")[0]
    assert (row["reached"], row["runs"], row["median_steps_to_accuracy"]) == (1, 3, math.inf)
    assert learning_speed._steps_in_words(row, settings.steps) == "not in 20 (1 of 3 did)"
    assert "Sigmoid not in 20 with 2." in " ".join(describe(runs, settings))
    row = outcome(run_table([*results, result((0.1, 0.8), seed=3), result((0.8,), seed=4)], 0.8)).to_dict("records")[0]
    assert learning_speed._steps_in_words(row, settings.steps) == "10 (2 of 5 not in 20)"


def test_the_first_layers_speed_is_compared_with_that_of_the_last_hidden_layer():
    runs = run_table([result((0.1, 0.2), depth=3)], accuracy=0.8)
    assert runs["initial_speed_ratio"].tolist() == runs["speed_ratio"].tolist() == [1 / 16]


def test_failed_runs_are_told_and_not_counted_as_slow():
    failed = RunResult(settings=result(()).settings, status="failed: MemoryError: no memory")
    settings = Settings(activations=("sigmoid",), depths=(2,), steps=20)
    runs = run_table([failed, result((0.1, 0.9), seed=1)], accuracy=0.8)
    finding = describe(runs, settings)
    assert "Sigmoid 10 with 2." in finding[1]
    assert finding[-1] == "1 of 2 runs diverged or failed; runs.csv names them."
    assert describe(run_table([failed], 0.8), settings) == ["1 of 1 runs diverged or failed; runs.csv names them."]


def test_sigmoids_first_layer_learns_slower_than_its_last(finished):
    runs, layers = read(finished, "runs"), read(finished, "layers")
    deep = runs[(runs["depth"] == 8) & (runs["initialisation"] == "xavier")].set_index(["activation", "seed"])
    assert (deep.loc["sigmoid"][["initial_speed_ratio", "speed_ratio"]] < 1e-3).all(axis=None)
    assert (deep.loc["relu"]["speed_ratio"] > 0.1).all()
    sigmoid = layers[(layers["activation"] == "sigmoid") & (layers["depth"] == 8) & (layers["layer"] <= 8)]
    by_layer = sigmoid.groupby(["initialisation", "seed", "step", "layer"])["bias_gradient_norm"].sum().unstack()
    assert (by_layer.diff(axis=1).iloc[:, 1:] > 0).all(axis=None)  # at every step, each layer faster than the one below


def test_the_cures_last_stage_alone_trains(finished):
    summary = json.loads((finished / "summary.json").read_text(encoding="utf-8"))
    stages = [(stage["activation"], stage["initialisation"]) for stage in summary["cure"]]
    assert stages == list(CURE)
    assert all(stage["test_accuracy"] < 0.3 and stage["reached"] == 0 for stage in summary["cure"][:-1])
    assert summary["cure"][-1]["test_accuracy"] > 0.8
    assert summary["cure"][-1]["reached"] == 1
    assert summary["cure"][0]["median_steps_to_accuracy"] is None


@pytest.mark.parametrize(("accuracy", "verdict"), [(0.9, "Cured: "), (0.7, "Not cured: ")])
def test_a_network_that_is_not_cured_is_not_called_so(accuracy, verdict):
    stages = [result((0.1, accuracy if stage == CURE[-1] else 0.1), *stage) for stage in CURE]
    finding = describe(run_table(stages, accuracy=0.8), Settings(depths=(2,)))
    assert finding[-1].startswith(verdict)


def test_the_runs_of_the_cure_differ_in_activation_and_initialisation_alone():
    settings = Settings(depths=(2, 8))
    cure = [run for run in settings.runs if (run.activation, run.initialisation) in CURE]
    same = {
        tuple(value for name, value in vars(run).items() if name not in ("activation", "initialisation"))
        for run in cure
        if run.depth == 8 and run.seed == 1
    }
    assert len(same) == 1


def test_tables_and_summary(finished):
    runs, layers = read(finished, "runs"), read(finished, "layers")
    assert len(runs) == 2 * 2 + 3  # sigmoid with Xavier at depth 8 belongs to both parts and is run once
    assert not runs.duplicated(["activation", "initialisation", "depth", "seed"]).any()
    assert list(layers["step"].unique()) == list(range(0, 121, 20))
    header = (finished / "layers.csv").read_text(encoding="utf-8")
    assert all(f"# {column}: " in header for column in LAYER_COLUMNS)
    summary = json.loads((finished / "summary.json").read_text(encoding="utf-8"))
    assert summary["runs_planned"] == summary["runs_done"] == 7
    assert summary["settings"]["activations"] == ["sigmoid", "relu"]
    for word in ("Slow: ", "Long: ", "not in 120 with 2 and 8", "Compromised: ", "Cured: ", "ReLU + He"):
        assert word in summary["finding"]


def test_the_pictures_are_there(finished):
    for name in PICTURES:
        assert (finished / f"{name}.png").stat().st_size > 10_000


def test_the_numbers_do_not_depend_on_the_number_of_workers():
    settings = Settings(activations=("tanh",), **SMALL)
    jobs = [sweep.Job(run, None) for run in settings.runs[:2]]
    first, second = (sweep.run(jobs, workers, Console(quiet=True)).results for workers in (1, 2))
    pd.testing.assert_frame_equal(run_table(first, 0.8), run_table(second, 0.8), check_exact=True)
    pd.testing.assert_frame_equal(layer_table(first), layer_table(second), check_exact=True)


@pytest.mark.parametrize("kept", [slice(1), slice(-1, None)], ids=["of the comparison", "of the cure"])
def test_ctrl_c_keeps_what_is_finished(kept, tmp_path, monkeypatch, capsys):
    run = sweep.run
    monkeypatch.setattr(sweep, "run", lambda jobs, *rest: sweep.Sweep(run(jobs[kept], *rest).results, True))
    with pytest.raises(SystemExit) as exit_:
        learning_speed.main(Settings(activations=("tanh",), out=tmp_path, **SMALL))
    assert exit_.value.code == 130
    assert len(read(tmp_path, "runs")) == 1
    assert "1 of 6 runs were finished" in capsys.readouterr().out.replace("\n", " ")


def test_a_network_without_gradients_or_depth_can_be_drawn(tmp_path):
    learning_speed.main(Settings(activations=("binary_step",), out=tmp_path, **SMALL | {"depths": (1,), "every": 9}))
    assert read(tmp_path, "runs")["initial_speed_ratio"].isna().tolist()[0]
    assert (tmp_path / "speed_by_layer.png").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activations": ()}, "activations: expected at least one"),
        ({"activations": ("sigmoyd",)}, "activations: .*sigmoid"),
        ({"activations": ("reglu",)}, "activations: expected .*, got 'reglu', which halves the units"),
        ({"initialisation": "havier"}, "initialisation: .*xavier"),
        ({"depths": ()}, "depths: expected at least one"),
        ({"depths": (0,)}, "depth: expected a whole number of at least 1, got 0"),
        ({"accuracy": 80.0}, "accuracy: expected a fraction above 0 and at most 1, got 80"),
        ({"accuracy": math.nan}, "accuracy: "),
        ({"seeds": 0}, "seeds: "),
        ({"workers": 0}, "workers: "),
        ({"steps": 0}, "steps: "),
        ({"every": 0}, "every: "),
        ({"learning_rate": -1.0}, "learning_rate: "),
    ],
)
def test_settings_that_make_no_sense(change, message):
    with pytest.raises(ValueError, match=message):
        Settings(**change)


def test_the_command_line_refuses_them_with_status_2_and_the_reason(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["experiments", "learning-speed", "--accuracy", "80"])
    with pytest.raises(SystemExit) as exit_:
        command_line.main()
    assert exit_.value.code == 2
    assert "accuracy: expected a fraction" in "".join(capsys.readouterr())


def test_quick_is_one_seed_and_few_steps():
    assert (Settings(quick=True).seeds, Settings(quick=True).steps) == (1, learning_speed.QUICK_STEPS)
    assert Settings(quick=True, steps=30).steps == 30
