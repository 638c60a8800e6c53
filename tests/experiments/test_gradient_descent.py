import dataclasses
import io
import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
import tyro
from PIL import Image

from experiments import gradient_descent, gradient_descent_pictures, gradient_descent_problem
from experiments.gradient_descent import Settings

TENTHS = tuple(tenth / 10 for tenth in range(1, 11))

# Inputs, S, regime and the first weights, at w0 = 0.2 and α = 0.4 with the squared errors summed.
KNOWN = [
    ((0.5,), 0.25, "from one side", (0.56, 0.848, 1.0784)),
    ((1.0,), 1.0, "from one side", (1.64, 1.928, 1.9856)),
    ((0.5, 1.0), 1.25, "in one step", (2, 2, 2)),
    ((1.0, 1.0), 2.0, "oscillating", (3.08, 1.352, 2.3888)),
    ((0.6, 0.8, 1.0), 2.0, "oscillating", (3.08, 1.352, 2.3888)),
    ((0.5, 1.5), 2.5, "cycling", (3.8, 0.2, 3.8)),
    (TENTHS, 3.85, "diverging", (5.744, -5.78752)),
]


def weights(settings, steps):
    return [step.weight for step in itertools.islice(gradient_descent.descent(settings), steps + 1)]


@pytest.mark.parametrize(("x", "curvature", "regime", "expected"), KNOWN)
def test_known_runs(x, curvature, regime, expected):
    settings = Settings(x=x)
    assert settings.curvature == pytest.approx(curvature, rel=1e-12)
    assert gradient_descent_problem.regime(settings) == regime
    assert weights(settings, len(expected)) == pytest.approx([0.2, *expected], rel=0, abs=1e-12)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("x", [known[0] for known in KNOWN])
def test_run_follows_the_closed_form(x, reduction):
    settings = Settings(x=x, reduction=reduction)
    table = gradient_descent.run(settings)
    assert table["iteration"].tolist() == list(range(settings.iterations + 1))
    assert gradient_descent.disagreement(table) < 1e-12
    start = 3.24 * settings.curvature
    losses = [start * (1 - 0.8 * settings.curvature) ** (2 * t) for t in range(len(table))]
    assert table["closed_form_loss"].to_numpy() == pytest.approx(losses, rel=1e-12, abs=1e-12)
    assert table["loss"].to_numpy() == pytest.approx(losses, rel=1e-12, abs=1e-12)


def test_mean_divides_the_curvature_by_the_number_of_inputs():
    summed, averaged = Settings(x=TENTHS), Settings(x=TENTHS, reduction="mean")
    assert averaged.curvature == pytest.approx(summed.curvature / 10, rel=1e-12)
    assert gradient_descent_problem.regime(summed) == "diverging"
    assert gradient_descent_problem.regime(averaged) == "from one side"
    slower = dataclasses.replace(summed, learning_rate=0.04)
    assert weights(averaged, 5) == pytest.approx(weights(slower, 5), rel=0, abs=1e-12)


@pytest.mark.parametrize(
    ("x", "regime"),
    [
        ((math.sqrt(1.25),), "in one step"),
        ((0.1,) * 125, "in one step"),
        ((math.sqrt(2.5),), "cycling"),
        ((0.1,) * 250, "cycling"),
    ],
)
def test_regime_where_rounding_leaves_the_factor_a_little_off(x, regime):
    settings = Settings(x=x)
    assert settings.factor not in (0, -1)
    assert gradient_descent_problem.regime(settings) == regime


@pytest.mark.parametrize("curvature", [1e-3, 0.1, 1 / 3, 1.25, math.pi, 1e6])
def test_regime_changes_at_the_two_rates_whatever_the_rounding(curvature):
    at_unit_rate = Settings(x=(math.sqrt(curvature),), learning_rate=1.0)
    best, largest = at_unit_rate.one_step_rate, at_unit_rate.largest_rate
    assert (best, largest) == pytest.approx((1 / (2 * curvature), 1 / curvature))
    rates = [0.99 * best, best, 1.01 * best, 0.99 * largest, largest, 1.01 * largest]
    names = [gradient_descent_problem.regime(dataclasses.replace(at_unit_rate, learning_rate=rate)) for rate in rates]
    assert names == ["from one side", "in one step", "oscillating", "oscillating", "cycling", "diverging"]


def test_comparison_counts_what_the_closed_form_predicts():
    comparison = gradient_descent.compare(Settings()).set_index("multiple")
    counted = comparison["iterations"].dropna()
    assert counted.to_dict() == pytest.approx(
        {0.01: 1375, 0.1: 132, 0.5: 20, 1.0: 1, 1.5: 20, 1.6: 28, 1.9: 132}, rel=1e-12
    )
    assert counted.tolist() == comparison.loc[counted.index, "predicted_iterations"].tolist()
    assert comparison.loc[[2.0, 2.1], "predicted_iterations"].tolist() == [math.inf, math.inf]


def test_prediction_of_a_rate_too_small_to_see():
    settings = Settings(learning_rate=1e-18)
    assert settings.factor == 1
    assert gradient_descent_problem.predicted_iterations(settings) == pytest.approx(math.log(1e6) / 4e-18)


def test_divergence_ends_where_float64_does():
    table = gradient_descent.run(Settings(x=TENTHS, iterations=2000))
    assert np.isfinite(table["loss"][:-1]).all()
    assert table["loss"].iloc[-1] == math.inf
    assert len(table) == pytest.approx(308 / math.log10(2.08**2), rel=0.01)
    assert gradient_descent.disagreement(table) < 1e-12


@pytest.mark.parametrize(
    "settings",
    [
        Settings(w0=2.0, quick=True),
        Settings(learning_rate=1e200),
        Settings(learning_rate=1e-18, quick=True),
        Settings(x=(1e24,), w0=1e50, learning_rate=1e250),
        Settings(x=(1.0,) * 4, iterations=800),
    ],
    ids=["at the minimum", "huge rate", "tiny rate", "huge numbers", "overflow"],
)
def test_pictures_survive_zeros_and_overflow(settings):
    table, comparison = gradient_descent.run(settings), gradient_descent.compare(settings)
    assert gradient_descent.finding(settings, table, comparison).endswith(".")
    gradient_descent_pictures.draw(settings, table, comparison).savefig(io.BytesIO(), format="png", dpi=30)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": ()}, r"x: expected one or more finite numbers, got \(\)"),
        ({"x": (1.0, math.nan)}, "x: expected one or more finite numbers"),
        ({"x": (0.0, 0.0)}, "x: .*all zero leaves nothing to learn"),
        ({"x": (1e-200,)}, "x: expected a sum of squares"),
        ({"x": (1e200,)}, "x: expected a sum of squares"),
        ({"w0": math.inf}, "w0: expected a number .* got inf"),
        ({"w0": math.nan}, "w0: expected a number .* got nan"),
        ({"learning_rate": 0.0}, "learning_rate: expected a finite number above 0, got 0.0"),
        ({"learning_rate": -0.4}, "learning_rate: .* got -0.4"),
        ({"learning_rate": math.nan}, "learning_rate: .* got nan"),
        ({"learning_rate": math.inf}, "learning_rate: .* got inf"),
        ({"iterations": 0}, "iterations: expected 1 or more, got 0"),
        ({"reduction": "median"}, "reduction: expected 'sum' or 'mean', got 'median'"),
    ],
)
def test_bad_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        Settings(**arguments)


def test_unwritable_folder(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(SystemExit, match="out: cannot write to"):
        gradient_descent.main(Settings(out=file, quick=True))


def test_command_line_writes_everything(tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    arguments = ["--x", "1", "1", "--learning-rate", "0.4", "--quick", "--out", str(out)]
    gradient_descent.main(tyro.cli(Settings, args=arguments))
    files = {"descent.csv", "learning_rates.csv", "gradient_descent.png", "descent.gif", "summary.json"}
    assert {path.name for path in out.iterdir()} == files
    steps = pd.read_csv(out / "descent.csv", comment="#")
    assert list(steps) == list(gradient_descent.COLUMNS)
    assert steps["weight"][:4].tolist() == pytest.approx([0.2, 3.08, 1.352, 2.3888], rel=0, abs=1e-12)
    assert list(pd.read_csv(out / "learning_rates.csv", comment="#")) == list(gradient_descent.COMPARISON_COLUMNS)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["regime"] == "oscillating"
    assert (summary["one_step_rate"], summary["largest_rate"]) == (0.25, 0.5)
    assert "converges oscillating" in summary["finding"]
    assert summary["finding"] in " ".join(capsys.readouterr().out.split())
    with Image.open(out / "descent.gif") as animation:
        assert animation.n_frames == gradient_descent.QUICK_STEPS + 1
