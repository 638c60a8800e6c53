import dataclasses
import math

import pytest
import torch
from torch import nn

from experiments import digits, network, training
from experiments.training import LAYER_COLUMNS, RunSettings, train
from torchact import RReLU, catalogue, modules
from torchact.diagnostics import GradientMonitor

#: Those that the network can have behind its hidden layers.
HIDDEN = [
    *(key for key, activation in catalogue.CATALOGUE.items() if activation.elementwise),
    *("softmax", "softmin", "log_softmax"),
]
SMALL = RunSettings(
    activation="relu", initialisation="he", depth=2, seed=0, width=16, steps=20, every=10, learning_rate=0.1
)


def test_the_digits_are_split_and_standardised_once_and_for_all():
    data = digits.load()
    assert data.train_images.shape == (1500, 64)
    assert data.test_images.shape == (297, 64)
    assert data.train_images.mean().abs() < 1e-6
    assert data.mean_square == pytest.approx(61 / 64, rel=1e-3)  # three pixels are the same in every image
    assert torch.isfinite(data.test_images).all()
    assert sorted(data.train_classes.unique().tolist()) == list(range(10))
    assert digits.load() is data


def test_a_network_has_the_layers_and_the_initialisation_asked_for():
    model = network.build("tanh", "xavier", depth=3, width=8, seed=0)
    assert [name for name, _ in model.named_children()] == [
        "linear_01",
        "activation_01",
        "linear_02",
        "activation_02",
        "linear_03",
        "activation_03",
        "linear_04",
    ]
    assert [tuple(p.shape) for name, p in model.named_parameters() if "weight" in name] == [
        (8, 64),
        (8, 8),
        (8, 8),
        (10, 8),
    ]
    assert all((p == 0).all() for name, p in model.named_parameters() if "bias" in name)
    twin = network.build("relu", "xavier", depth=3, width=8, seed=0)
    assert torch.equal(twin.linear_02.weight, model.linear_02.weight)  # the activation does not change the draw
    assert not torch.equal(network.build("tanh", "xavier", 3, 8, seed=1).linear_02.weight, model.linear_02.weight)


def test_rows_hold_what_autograd_measures_at_initialisation():
    result = train(SMALL)
    rows = [row for row in result.layers if row["step"] == 0]
    data = digits.load()
    model = network.build("relu", "he", 2, 16, 0)
    batch = torch.randint(len(data.train_images), (64,), generator=torch.Generator().manual_seed(0))
    x = data.train_images[batch]
    preactivations = []
    for name, module in model.named_children():
        x = module(x)
        if name.startswith("linear"):
            x.retain_grad()
            preactivations.append(x)
    torch.nn.functional.cross_entropy(x, data.train_classes[batch]).backward()
    assert [row["layer"] for row in rows] == [1, 2, 3]
    for row, z, linear in zip(rows, preactivations, [model.linear_01, model.linear_02, model.linear_03], strict=True):
        assert row["preactivation_gradient_norm"] == pytest.approx(z.grad.double().norm().item(), rel=1e-12)
        assert row["weight_gradient_norm"] == pytest.approx(linear.weight.grad.double().norm().item(), rel=1e-12)
        assert row["preactivation_deviation"] == pytest.approx(z.double().std(correction=0).item(), rel=1e-9)
    assert rows[0]["zero_fraction"] == rows[0]["saturated_fraction"] == (preactivations[0] <= 0).double().mean()
    assert rows[2]["zero_fraction"] is None


def test_every_measurement_is_there_and_described():
    result = train(SMALL)
    assert [row["step"] for row in result.curve] == [0, 10, 20]
    assert [(row["step"], row["layer"]) for row in result.layers] == [(s, y) for s in (0, 10, 20) for y in (1, 2, 3)]
    assert set(result.layers[0]) == set(SMALL.key) | set(LAYER_COLUMNS)
    assert set(result.curve[0]) == set(SMALL.key) | set(training.CURVE_COLUMNS)
    assert result.status == "finished"
    assert result.curve[-1]["train_loss"] < result.curve[0]["train_loss"]


def test_the_same_seed_gives_the_same_numbers_and_another_gives_others():
    assert train(SMALL) == train(SMALL)
    assert train(SMALL).curve != train(dataclasses.replace(SMALL, seed=1)).curve


@pytest.mark.parametrize("activation", HIDDEN)
def test_any_activation_that_keeps_the_shape_can_follow_a_hidden_layer(activation):
    # A squared ReLU diverges at a learning rate of 0.1.
    result = train(dataclasses.replace(SMALL, activation=activation, steps=2, every=1, learning_rate=1e-3))
    assert result.status == "finished"
    assert len(result.layers) == 3 * 3
    passes = [row["preactivation_gradient_norm"] > 0 for row in result.layers[:3]]
    assert passes == [activation != "binary_step", activation != "binary_step", True]
    profile = network.predict(activation, "he", 2, 16)
    assert (profile is None) == (not catalogue.CATALOGUE[activation].elementwise)


def test_random_slopes_come_from_the_seed_alone():
    settings = dataclasses.replace(SMALL, activation="rrelu")
    first = train(settings)
    torch.rand(7)
    assert train(settings) == first
    assert train(dataclasses.replace(settings, seed=1)).curve != first.curve
    mean = modules.create("leaky_relu", negative_slope=(1 / 8 + 1 / 3) / 2)
    model = network.build("rrelu", "he", 2, 16, 0)
    x = digits.load().train_images[:64]
    assert not torch.equal(model.activation_01(x), mean(x))
    assert torch.equal(model.activation_01.eval()(x), mean(x))


def test_random_slopes_are_not_the_numbers_that_the_weights_were_drawn_from():
    state = torch.get_rng_state()
    with training._seeded(0):
        slopes = torch.rand(100)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(slopes, torch.rand(100, generator=torch.Generator().manual_seed(0)))


def test_accuracy_is_that_of_the_mean_slope_and_draws_nothing(monkeypatch):
    modes = []
    original = nn.RReLU.forward
    monkeypatch.setattr(RReLU, "forward", lambda self, x: modes.append((self.training, len(x))) or original(self, x))
    train(dataclasses.replace(SMALL, activation="rrelu", steps=1, every=1))
    assert set(modes) == {(True, 64), (False, 297)}


def test_watching_does_not_change_the_training(monkeypatch):
    watched = train(SMALL)
    monkeypatch.setattr(GradientMonitor, "_end", lambda self, *step: None)
    assert train(SMALL).curve == watched.curve


def test_a_loss_that_turns_nan_ends_the_run_and_keeps_what_was_measured():
    result = train(dataclasses.replace(SMALL, learning_rate=1e30))
    assert result.status.startswith("diverged at step ")
    assert result.layers[0]["step"] == 0
    assert math.isfinite(result.curve[0]["train_loss"])


def test_gradients_of_a_binary_step_network_are_zero_and_the_run_goes_on():
    result = train(dataclasses.replace(SMALL, activation="step", initialisation="kaiming"))
    assert result.settings.name == "binary_step-he-depth02-seed0"
    assert result.status == "finished"
    assert [row["preactivation_gradient_norm"] == 0 for row in result.layers[:3]] == [True, True, False]


def test_a_softmax_network_runs_over_the_units():
    assert train(dataclasses.replace(SMALL, activation="softmax")).status == "finished"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "sigmod"}, "activation: unknown name 'sigmod'; did you mean 'sigmoid'"),
        (
            {"activation": "SwiGLU"},
            r"activation: expected one .* \(sigmoid, .*\), got 'SwiGLU', which halves the units",
        ),
        ({"activation": "softmax2d"}, "activation: expected .*, got 'softmax2d', which takes images"),
        ({"initialisation": "xavir"}, "initialisation: unknown name 'xavir'; did you mean 'xavier'"),
        ({"depth": 0}, "depth: expected a whole number of at least 1, got 0"),
        ({"width": 0}, "width: expected"),
        ({"steps": -1}, "steps: expected"),
        ({"batch_size": 0}, "batch_size: expected"),
        ({"every": 0}, "every: expected"),
        ({"learning_rate": 0.0}, "learning_rate: expected a positive finite number, got 0.0"),
        ({"learning_rate": math.nan}, "learning_rate: expected a positive finite number, got nan"),
    ],
)
def test_settings_that_make_no_sense(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **change)
