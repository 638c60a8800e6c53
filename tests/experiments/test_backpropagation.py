import io
import json
import math
import re

import pandas as pd
import pytest
import torch
import tyro

import torchact
from experiments import backpropagation, backpropagation_chain, backpropagation_pictures
from experiments.backpropagation import Settings
from experiments.backpropagation_chain import Parameters
from torchact import catalogue

ELEMENTWISE = [key for key, activation in catalogue.CATALOGUE.items() if activation.elementwise]
METHODS = [
    backpropagation_chain.by_hand,
    backpropagation_chain.by_functions,
    backpropagation_chain.by_finite_differences,
]

# The worked example: x = 0.1, T = 0.25, two sigmoid neurons.
DERIVATIVES = {
    "w1": 0.00102139588147634,
    "w2": 0.0570703982010549,
    "b1": 0.0102139588147634,
    "b2": 0.0947562809690847,
}
UPDATED = {"w1": 0.149591441647409, "w2": 0.427171840719578, "b1": 0.395914416474095, "b2": 0.612097487612366}


def exactly(expected):
    return pytest.approx(expected, rel=0, abs=1e-12)


def named(table, column):
    return dict(zip(table["parameter"] + table["neuron"].astype(str), table[column], strict=True))


def as_list(gradient: Parameters) -> list[float]:
    return torch.cat(gradient).tolist()


def test_every_intermediate_value_of_the_worked_example():
    first, second = backpropagation.chain_table(Settings()).to_dict("records")
    assert (first["preactivation"], first["activation"]) == exactly((0.415, 0.602286176888631))
    assert (second["preactivation"], second["activation"]) == exactly((0.921028779599884, 0.715251680252756))
    assert (first["input"], second["input"]) == exactly((0.1, 0.602286176888631))
    assert (first["delta"], second["delta"]) == exactly((DERIVATIVES["b1"], DERIVATIVES["b2"]))
    assert next(backpropagation.learning(Settings())).error == exactly(0.108229562989006)


def test_derivatives_and_updates_of_the_worked_example():
    table = backpropagation.derivative_table(Settings())
    assert named(table, "by_hand") == exactly(DERIVATIVES)
    assert named(table, "by_functions") == exactly(DERIVATIVES)
    # Rounding leaves central differences an error of about ε·E/h, 4e-12 here.
    assert named(table, "by_finite_differences") == pytest.approx(DERIVATIVES, rel=0, abs=2e-11)
    assert named(table, "updated") == exactly(UPDATED)


def test_iteration_of_the_worked_example():
    iterations, neurons = backpropagation.learning_tables(Settings())
    assert iterations["output"][[10, 50, 500]].tolist() == pytest.approx(
        [0.6035325713, 0.34767154, 0.2500101851], rel=0, abs=1e-8
    )
    assert iterations["error"].iloc[-1] <= 1e-12 < iterations["error"].iloc[-2]
    after_one = neurons[neurons["iteration"] == 1]
    assert [*after_one["weight"], *after_one["bias"]] == exactly(list(UPDATED.values()))


def test_ratio_of_learning_speeds_of_the_worked_example():
    ratios = backpropagation.chain_table(Settings())["speed_ratio"]
    assert ratios[0] == pytest.approx(DERIVATIVES["b2"] / DERIVATIVES["b1"], rel=1e-12)
    assert math.isnan(ratios[1])


def test_ratio_of_learning_speeds_is_what_going_back_through_a_neuron_costs():
    chain = backpropagation.chain_table(Settings(neurons=6))
    speeds = chain["delta"].abs()
    factors = (chain["slope"][:-1] * chain["weight"].shift(-1)[:-1]).abs()
    assert chain["speed_ratio"][:-1].tolist() == pytest.approx((1 / factors).tolist(), rel=1e-12)
    assert chain["speed_ratio"][:-1].prod() == pytest.approx(speeds.iloc[-1] / speeds.iloc[0], rel=1e-12)


def test_mean_squared_error_of_torch_lacks_the_half():
    settings = Settings()
    leaves = [parameter.requires_grad_() for parameter in backpropagation_chain.initial_parameters(settings)]
    output = backpropagation_chain.forward(Parameters(*leaves), settings.x, torchact.functional.sigmoid)[1][-1]
    loss = torch.nn.MSELoss()(output, torch.tensor(settings.target, dtype=torch.float64))
    doubled = torch.cat(torch.autograd.grad(loss, leaves)).tolist()
    assert doubled == exactly([2 * derivative for derivative in DERIVATIVES.values()])


def test_softmax_of_the_published_example():
    scores = torch.tensor([1.6, 0.55, 0.98], dtype=torch.float64)
    probabilities = torchact.functional.softmax(scores, dim=0).tolist()
    assert probabilities == pytest.approx([0.529694, 0.185360, 0.284946], rel=0, abs=5e-7)
    assert probabilities != pytest.approx([0.51, 0.18, 0.31], rel=0, abs=0.01)


def error_of_differences(parameters, settings, slack=2):
    """Return what central differences may be off by: h²/6 |∂³E|, and the rounding of E divided by h.

    E is rounded by a few ε of the terms of each z_l, which go on to E as ∂E/∂z_l = ∂E/∂b_l.
    """
    point = torch.cat(parameters)
    steps = backpropagation_chain.difference_steps(point, settings)

    def error_along(direction):
        def error(step):
            moved = Parameters(*(point + step * direction).chunk(2))
            output = backpropagation_chain.forward(moved, settings.x, settings.record.value)[1][-1]
            return backpropagation_chain.error(output, settings.target)

        return error

    zero = torch.zeros((), dtype=torch.float64)
    thirds = []
    for direction in torch.eye(len(point), dtype=torch.float64):
        function = error_along(direction)
        for _ in range(3):
            function = torch.func.grad(function)
        thirds.append(function(zero).abs())
    _, activations = backpropagation_chain.forward(parameters, settings.x, settings.record.value)
    deltas = backpropagation_chain.by_hand(parameters, settings).biases.abs()
    terms = (parameters.weights * activations[:-1]).abs() + parameters.biases.abs()
    rounding = 4 * torch.finfo(torch.float64).eps * ((deltas * terms).sum() + (activations[-1] ** 2 + 1))
    return slack * (steps**2 / 6 * torch.stack(thirds) + rounding / steps)


@pytest.mark.parametrize("activation", ELEMENTWISE)
@pytest.mark.parametrize("neurons", [1, 2, 5])
@pytest.mark.parametrize("x", [-0.3, 0.9])
def test_three_ways_agree_for_any_activation_and_length(activation, neurons, x):
    record = catalogue.get(activation)
    steepness = record.max_derivative()
    # Weights that make up for a steep φ: else E turns faster than float64 can tell from one z to the next.
    scale = max(1.0, steepness) if math.isfinite(steepness) else 1.0
    weights = tuple(weight / scale for weight in (0.8, -1.2, 1.1, -0.7, 0.6))
    biases = (0.3, -0.6, 0.2, 0.45, -0.2)
    settings = Settings(activation=activation, neurons=neurons, x=x, weights=weights, biases=biases)
    parameters = backpropagation_chain.initial_parameters(settings)
    preactivations, _ = backpropagation_chain.forward(parameters, x, record.value)
    assert all(bool((preactivations - kink).abs().min() > 1e-3) for kink in record.kinks), "too near a kink"
    by_hand, by_functions, by_differences = (as_list(method(parameters, settings)) for method in METHODS)
    assert len(by_hand) == 2 * neurons
    assert by_functions == exactly(by_hand)
    bound = error_of_differences(parameters, settings)
    errors = torch.tensor(by_differences, dtype=torch.float64) - torch.tensor(by_hand, dtype=torch.float64)
    assert bool((errors.abs() <= bound).all()), (errors / bound).tolist()
    assert float(bound.max()) < 1e-7 * max(1.0, *map(abs, by_hand))  # so that the comparison says something


def test_a_fast_sine_is_differentiated_as_precisely_as_a_slow_one():
    settings = Settings(activation="sine")
    table = backpropagation.derivative_table(settings)
    size = table["by_hand"].abs().max()
    assert backpropagation.disagreement(table, "by_finite_differences") < 1e-6 * size


def test_random_slopes_have_their_mean_and_a_learnt_one_is_double():
    for activation, slope in (("rrelu", (1 / 8 + 1 / 3) / 2), ("prelu", 0.25)):
        settings = Settings(activation=activation, weights=(1.0,), biases=(-1.0,))
        (row,) = backpropagation.chain_table(settings).to_dict("records")
        assert row["activation"] == pytest.approx(-0.9 * slope, rel=1e-15)
        assert next(backpropagation.learning(settings)).output == pytest.approx(-0.9 * slope, rel=1e-15)


def test_longer_chains_begin_with_the_given_neurons_and_depend_on_the_seed_alone():
    shorter, longer = (backpropagation_chain.initial_parameters(Settings(neurons=neurons)) for neurons in (4, 7))
    assert longer.weights[:2].tolist() == [0.15, 0.45]
    assert longer.biases[:2].tolist() == [0.4, 0.65]
    assert torch.equal(torch.stack(longer)[:, :4], torch.stack(shorter))
    assert all(0 <= drawn < 1 for drawn in torch.stack(longer)[:, 2:].flatten().tolist())
    other = backpropagation_chain.initial_parameters(Settings(neurons=7, seed=1))
    assert not torch.equal(other.weights, longer.weights)
    assert backpropagation_chain.initial_parameters(Settings(neurons=1)).weights.tolist() == [0.15]


def test_small_error_ends_the_iteration_and_so_does_the_limit():
    assert len(list(backpropagation.learning(Settings(iterations=3)))) == 4
    assert len(list(backpropagation.learning(Settings(quick=True)))) == backpropagation.QUICK_ITERATIONS + 1
    assert len(list(backpropagation.learning(Settings(small_error=1.0)))) == 1


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (Settings(activation="step"), "Learning never starts: .* derivative of binary_step is 0 everywhere"),
        (Settings(activation="relu", biases=(0.4, -9.0)), "Learning never starts: .* 0 in neuron 2"),
        (Settings(activation="relu", biases=(-9.0, 0.65)), "first neuron does not learn: .* 0 in neuron 1"),
        (Settings(weights=(0.15, 0.0)), "first neuron does not learn: .* weight of neuron 2 is 0"),
        (Settings(neurons=900, iterations=1), "first neuron does not learn: .* underflows float64"),
        (Settings(activation="linear", weights=(1.0,), biases=(0.15,)), "the output is the target already"),
        (Settings(activation="linear", learning_rate=50.0), "leaves float64's range after 5 iterations: .* too large"),
        (Settings(neurons=1, quick=True), "The one neuron learns at"),
        (Settings(iterations=1), "at the limit of 1 iteration,"),
    ],
    ids=["step", "dead last", "dead first", "zero weight", "underflow", "arrived", "diverging", "one neuron", "limit"],
)
def test_findings_say_why_and_pictures_survive(settings, why):
    results = backpropagation.run(settings)
    finding = backpropagation.finding(settings, results)
    assert re.search(why, finding), finding
    assert "nan" not in finding
    picture = backpropagation_pictures.draw(settings, *results, small_error=settings.small_error)
    picture.savefig(io.BytesIO(), format="png", dpi=30)


def test_binary_step_has_zero_derivatives_and_no_ratio():
    settings = Settings(activation="binary_step")
    results = backpropagation.run(settings)
    for method in ("by_hand", "by_functions", "by_finite_differences"):
        assert not results.derivatives[method].any()
    assert results.chain["speed_ratio"].isna().all()
    assert len(results.iterations) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": "sigmoyd"}, "activation: unknown name 'sigmoyd'; did you mean 'sigmoid'"),
        ({"activation": "softmax"}, "activation: expected one that takes each number by itself .*, got 'softmax'"),
        ({"activation": "glu"}, "activation: expected one that takes each number by itself .*, got 'glu', .* halves"),
        ({"weights": (1.0,)}, "weights, biases: .* got 1 weights .* and 2 biases"),
        ({"weights": (), "biases": ()}, "weights, biases: .* got 0 weights"),
        ({"weights": (1.0, math.nan)}, "weights: expected finite numbers"),
        ({"biases": (1.0, math.inf)}, "biases: expected finite numbers"),
        ({"x": math.nan}, "x: expected finite numbers, got nan"),
        ({"target": math.inf}, "target: expected finite numbers, got inf"),
        ({"target": 1e200}, "target: .* got the error inf"),
        ({"learning_rate": 0.0}, "learning_rate: expected a finite number above 0, got 0.0"),
        ({"learning_rate": math.nan}, "learning_rate: .* got nan"),
        ({"neurons": 0}, "neurons: expected 1 or more, got 0"),
        ({"iterations": 0}, "iterations: expected 1 or more, got 0"),
        ({"small_error": -1.0}, "small_error: .* got -1.0"),
        ({"small_error": math.nan}, "small_error: .* got nan"),
    ],
)
def test_bad_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        Settings(**arguments)


def test_unwritable_folder(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(SystemExit, match="out: cannot write to"):
        backpropagation.main(Settings(out=file, quick=True))


def test_command_line_writes_everything(tmp_path, capsys):
    arguments = ["--weights", "0.15", "0.45", "--biases", "0.4", "0.65", "--neurons", "12", "--quick"]
    backpropagation.main(tyro.cli(Settings, args=[*arguments, "--out", str(tmp_path)]))
    tables = {
        "chain": backpropagation.CHAIN_COLUMNS,
        "derivatives": backpropagation.DERIVATIVE_COLUMNS,
        "iterations": backpropagation.ITERATION_COLUMNS,
        "neurons": backpropagation.NEURON_COLUMNS,
    }
    files = {f"{name}.csv" for name in tables} | {"backpropagation.png", "summary.json"}
    assert {path.name for path in tmp_path.iterdir()} == files
    for name, columns in tables.items():
        assert list(pd.read_csv(tmp_path / f"{name}.csv", comment="#")) == list(columns)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert len(summary["speed_ratios"]) == 11
    assert summary["finding"].startswith("Before the first step the last neuron learns")
    printed = capsys.readouterr().out
    assert summary["finding"] in " ".join(printed.split())
    assert all(name in printed for name in ("w1", "w12", "b1", "b12"))
