import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from operator import mul
from pathlib import Path

import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments import __main__ as command_line
from experiments import depth, depth_pictures, style
from experiments.training import LAYER_COLUMNS
from torchact import catalogue

ROOT = Path(__file__).parent.parent.parent
SMALL = {"width": 16, "steps": 4, "every": 2, "workers": 1}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder that a small sweep wrote: sigmoid, ReLU and binary step, with torch's and He's initialisation."""
    folder = tmp_path_factory.mktemp("depth")
    settings = depth.Settings(
        activations=("sigmoid", "relu", "binary_step"),
        initialisations=("default", "he"),
        depths=(2, 8),
        seeds=2,
        out=folder,
        **SMALL,
    )
    depth.main(settings)
    return folder


def read(folder, name):
    return pd.read_csv(folder / f"{name}.csv", comment="#")


def test_the_tables_have_a_row_for_each_run_step_and_layer(finished):
    runs, layers = read(finished, "runs"), read(finished, "layers")
    assert len(runs) == 3 * 2 * 2 * 2
    assert len(layers) == 3 * 2 * 2 * 3 * (3 + 9)  # activations, initialisations, seeds, steps, layers
    assert (runs["status"] == "finished").all()
    assert not layers.duplicated(["activation", "initialisation", "depth", "seed", "step", "layer"]).any()
    header = (finished / "layers.csv").read_text(encoding="utf-8")
    for column in LAYER_COLUMNS:
        assert f"# {column}: " in header


def test_sigmoid_vanishes_and_relu_with_he_does_not(finished):
    runs = read(finished, "runs")
    deep = runs[runs["depth"] == 8].groupby(["activation", "initialisation"])["ratio_per_layer"].mean()
    assert deep["sigmoid", "default"] == pytest.approx(0.14, abs=0.02)
    assert deep["relu", "he"] == pytest.approx(1, abs=0.25)
    assert deep["binary_step", "he"] == 0


def test_the_prediction_stands_beside_the_measurement(finished):
    runs = read(finished, "runs")
    sigmoid = runs[(runs["activation"] == "sigmoid") & (runs["depth"] == 8)]
    # At a width of 16 the factor of one layer scatters by about √(5/16), that of seven layers by √(5/16/7) = 20 %.
    ratio = sigmoid["ratio_per_layer"] / sigmoid["predicted_ratio_per_layer"]
    assert ratio.between(0.8, 1.25).all()


def test_the_summary_holds_settings_outcome_and_finding(finished):
    summary = json.loads((finished / "summary.json").read_text(encoding="utf-8"))
    assert summary["runs_planned"] == summary["runs_done"] == 24
    assert summary["settings"]["depths"] == [2, 8]
    assert len(summary["outcome"]) == 12
    assert "With 8 hidden layers, " in summary["finding"]


def test_the_pictures_are_there(finished):
    for name in ("story", "gradient_by_layer", "weight_gradient_by_layer", "accuracy_by_depth"):
        assert (finished / f"{name}.png").stat().st_size > 10_000


def test_tensorboard_runs_of_seed_0_have_profiles_outcomes_and_hyperparameters(finished):
    board = finished / "tensorboard"
    assert len([path for path in board.iterdir() if path.name.endswith("seed0")]) == 12
    assert not list(board.glob("*seed1"))
    events = EventAccumulator(str(board / "sigmoid-default-depth08-seed0")).Reload()
    scalars = set(events.Tags()["scalars"])
    assert {"outcome/test_accuracy", "outcome/train_loss", "depth_profile/log10_gradient_norm_at_start"} <= scalars
    profile = [event.value for event in events.Scalars("depth_profile/log10_gradient_norm_at_start")]
    layers = read(finished, "layers")
    chosen = layers.query("activation == 'sigmoid' and initialisation == 'default' and depth == 8")
    first = chosen.query("seed == 0 and step == 0")["preactivation_gradient_norm"]
    assert profile == pytest.approx([math.log10(norm) for norm in first], rel=1e-6)
    hparams = events.SummaryMetadata("_hparams_/session_start_info").plugin_data
    assert hparams.plugin_name == "hparams"
    overview = EventAccumulator(str(board / "overview")).Reload()
    assert "at_a_glance/story" in overview.Tags()["images"]


def test_the_command_ends_with_a_table_a_verdict_and_the_tensorboard_command(tmp_path, capsys):
    out = tmp_path / "results"
    depth.main(depth.Settings(activations=("relu",), initialisations=("he",), depths=(3,), seeds=1, out=out, **SMALL))
    printed = capsys.readouterr().out
    assert "Gradient through 3 hidden layers at initialisation" in printed
    assert "With 3 hidden layers, " in printed
    assert f"tensorboard --logdir {out / 'tensorboard'}" in printed.replace("\n", "")


def test_a_run_that_diverges_is_marked_and_the_sweep_goes_on(tmp_path, capsys):
    settings = depth.Settings(
        activations=("relu",), initialisations=("he",), depths=(2,), seeds=1, learning_rate=1e30, out=tmp_path, **SMALL
    )
    depth.main(settings)
    assert read(tmp_path, "runs")["status"].str.startswith("diverged at step").all()
    assert "diverged" in capsys.readouterr().out


def test_ctrl_c_keeps_what_is_finished(tmp_path):
    command = [sys.executable, "-m", "experiments", "depth", "--workers", "2", "--out", str(tmp_path)]
    options = ["--activations", "relu", "--initialisations", "he", "--depths", *map(str, range(1, 30)), "--width", "8"]
    process = subprocess.Popen(
        [*command, *options, "--seeds", "1", "--steps", "50"],
        cwd=ROOT,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # in the background, shells have it ignored
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    board = tmp_path / "tensorboard"
    while process.poll() is None and not (board.is_dir() and len(list(board.iterdir())) > 4):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # what the terminal sends to a process and its children
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 130, printed
    runs = read(tmp_path, "runs")
    assert 2 < len(runs) < 29
    assert f"Interrupted: {len(runs)} of 29 runs were finished" in printed.replace("\n", " ")
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["runs_done"] == len(runs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activations": ("sigmod",)}, "unknown name 'sigmod'; did you mean 'sigmoid'"),
        ({"activations": ("relu", "glu")}, r"activation: expected .*, got 'glu', which halves the units"),
        ({"activations": ("softmax2d",)}, r"activation: expected .*, got 'softmax2d', which takes images"),
        ({"initialisations": ("hee",)}, "unknown name 'hee'; did you mean 'he'"),
        ({"depths": (2, 0)}, "depth: expected a whole number of at least 1, got 0"),
        ({"depths": ()}, "depths: expected at least one"),
        ({"seeds": 0}, "seeds: expected a whole number of at least 1, got 0"),
        ({"workers": 0}, "workers: expected a whole number of at least 1, got 0"),
    ],
)
def test_settings_that_make_no_sense(change, message):
    with pytest.raises(ValueError, match=message):
        depth.Settings(**change)


def test_the_command_line_refuses_them_with_status_2_and_the_reason(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["experiments", "depth", "--activations", "sigmod"])
    with pytest.raises(SystemExit) as exit_:
        command_line.main()
    assert exit_.value.code == 2
    printed = capsys.readouterr()
    assert "did you mean" in printed.err
    assert "Traceback" not in printed.out + printed.err


def test_a_combination_named_twice_is_run_once():
    runs = depth.Settings(
        activations=("linear", "identity"), initialisations=("he", "kaiming"), depths=(2,), seeds=1
    ).runs
    assert len(runs) == 1


def test_logs_survive_zeros():
    assert style.geometric_mean(pd.Series([1.0, 0.0])) == 0
    assert style.geometric_mean(pd.Series([4.0, 1.0])) == pytest.approx(2)
    assert math.isnan(style.geometric_mean(pd.Series([math.nan])))
    assert style.positive([1.0, 0.0]).tolist()[0] == 1
    assert math.isnan(style.positive([1.0, 0.0])[1])


def test_a_sweep_of_binary_steps_alone_can_be_drawn(finished):
    layers, runs = read(finished, "layers"), read(finished, "runs")
    only = [frame[frame["activation"] == "binary_step"] for frame in (runs, layers[layers["step"] == 0])]
    depth_pictures.story(*only, width=16).canvas.draw()
    depth_pictures.grid(only[1], "preactivation_gradient_norm", depth_pictures.DELTA, 16).canvas.draw()
    depth_pictures.accuracy(only[0]).canvas.draw()


@pytest.mark.parametrize(
    ("activation", "sizes"),
    [
        ("binary_step", {"depths": (3,)}),
        ("softmax", {"depths": (1,)}),
        ("linear", {"depths": (2,)}),
        ("prelu", {"depths": (2,)}),
        ("sine", {"depths": (12,)}),  # of which the gradient grows thirtyfold a layer
        ("squared_relu", {"depths": (4,)}),
    ],
)
def test_an_activation_alone_is_told_and_drawn_whatever_its_gradient(activation, sizes, tmp_path, capsys):
    settings = depth.Settings(
        activations=(activation,), initialisations=("he",), seeds=1, tensorboard=False, out=tmp_path, **sizes, **SMALL
    )
    depth.main(settings)
    assert (tmp_path / "story.png").is_file()
    assert "of 1 combinations learned" in " ".join(capsys.readouterr().out.split())


def test_many_activations_can_be_drawn_together(finished):
    layers, runs = read(finished, "layers"), read(finished, "runs")
    keys = [key for key, activation in catalogue.CATALOGUE.items() if activation.elementwise]
    copies = [
        pd.concat([frame[frame["activation"] == "relu"].assign(activation=key) for key in keys])
        for frame in (runs, layers[layers["step"] == 0])
    ]
    picture = depth_pictures.story(*copies, width=16)
    picture.canvas.draw()  # matplotlib warns where there is no room


def test_the_first_activations_keep_their_colours_and_no_two_in_a_picture_share_one():
    usual = style.colours(["relu", "tanh", "sigmoid", "sigmoid", "leaky_relu", "softmax", "binary_step", "identity"])
    assert (usual["sigmoid"], usual["tanh"], usual["relu"]) == ("#c0392b", "#2471a3", "#1e8449")
    assert (usual["leaky_relu"], usual["softmax"]) == ("#b7950b", "#7d3c98")
    assert (usual["binary_step"], usual["identity"]) == ("#717d7e", "#212f3d")
    keys = list(catalogue.CATALOGUE)
    for chosen in (keys, keys[::-1], keys[3::2]):
        colours = style.colours(chosen)
        assert colours.keys() == set(chosen)
        assert len(set(colours.values())) == min(len(chosen), 21)
        assert len(set(style.colours(chosen[:21]).values())) == len(chosen[:21])
    assert style.colours(["my_own", "gelu"]).keys() == {"my_own", "gelu"}


def test_colours_differ_enough_to_be_told_apart():
    """In CIELAB a difference of 2 can just be seen; the seven that there were differ by 32 at least."""
    colours = [torch.tensor(cielab(colour)) for colour in style.colours(map(str, range(21))).values()]
    assert min(torch.dist(first, second) for first, second in itertools.combinations(colours, 2)) > 30


def cielab(colour):
    """Return lightness L and the coordinates a (red) and b (yellow) of a colour, in white light D65 (CIE 15:2004)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    to_xyz = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.072175), (0.0193339, 0.119192, 0.9503041))
    x, y, z = (sum(map(mul, row, linear)) / white for row, white in zip(to_xyz, (0.95047, 1, 1.08883), strict=True))
    f = [t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x, y, z)]
    return 116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])


def test_a_run_that_diverges_late_is_not_credited_with_what_it_knew_before(tmp_path, monkeypatch):
    original = torch.nn.functional.cross_entropy
    calls = iter(range(1000))
    monkeypatch.setattr(
        torch.nn.functional, "cross_entropy", lambda *x: original(*x) * (math.nan if next(calls) == 3 else 1)
    )
    settings = depth.Settings(
        activations=("relu",), initialisations=("he",), depths=(2,), seeds=1, out=tmp_path, **(SMALL | {"every": 100})
    )
    depth.main(settings)
    (run,) = read(tmp_path, "runs").to_dict(orient="records")
    assert run["status"] == "diverged at step 3"
    assert math.isnan(run["train_loss"])
    assert read(tmp_path, "curves")["step"].tolist() == [0, 3]


def test_runs_that_all_fail_end_in_one_sentence_and_a_table_that_says_why(tmp_path):
    (tmp_path / "tensorboard").write_text("")
    settings = depth.Settings(
        activations=("relu",), initialisations=("he",), depths=(2,), seeds=1, out=tmp_path, **SMALL
    )
    with pytest.raises(SystemExit, match="No run came as far as a gradient"):
        depth.main(settings)
    assert read(tmp_path, "runs")["status"].str.startswith("failed: OSError").all()


def test_a_second_sweep_into_the_same_folder_replaces_the_first_in_the_dashboard(tmp_path):
    for activation in ("tanh", "relu"):
        depth.main(
            depth.Settings(
                activations=(activation,), initialisations=("he",), depths=(2,), seeds=1, out=tmp_path, **SMALL
            )
        )
    assert sorted(path.name for path in (tmp_path / "tensorboard").iterdir()) == ["overview", "relu-he-depth02-seed0"]
    assert len(list((tmp_path / "tensorboard" / "overview").iterdir())) == 1


def test_quick_never_takes_longer():
    assert depth.Settings(steps=5, quick=True).steps == 5
    assert depth.Settings(quick=True).steps == 50
