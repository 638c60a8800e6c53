import dataclasses
import math

import pytest
import torch

from torchact.diagnostics import rules
from torchact.diagnostics.rules import Thresholds
from torchact.diagnostics.statistics import LayerReading, Reading, Statistics


def layer(index, norm, kind="Linear", activation=None, shape=(8,), saturated=None, **gradient):
    statistics = Statistics(count=64, squares=norm**2, largest=norm, **gradient)
    return LayerReading(
        index=index,
        name=f"layer{index}",
        kind=kind,
        activation=activation,
        shape=shape,
        output=Statistics(count=64, squares=64.0),
        gradient=statistics,
        saturated_fraction=saturated,
        parameter_gradients={} if activation else {"weight": Statistics(count=64, squares=1.0)},
    )


def network(*norms):
    """A chain of linear layers with these norms of δ."""
    return Reading(step=0, layers=tuple(layer(index, norm) for index, norm in enumerate(norms)))


def judged(reading, family="sgd", thresholds=None):
    return {verdict.rule: verdict for verdict in rules.judge(reading, family, thresholds)}


def test_gradients_of_like_size_get_no_verdict():
    assert judged(network(0.9, 1.1, 1.0)) == {}


def test_vanishing_names_the_layers_below_the_threshold_and_no_others():
    verdict = judged(network(1e-5, 1e-3, 0.0101, 1.0))["vanishing"]
    assert verdict.layers == ("layer0", "layer1")
    assert verdict.value == pytest.approx(1e-5)
    assert verdict.threshold == 1e-2
    assert "Layers layer0 … layer1 (2 of 4) do not learn" in verdict.explanation


def test_vanishing_depends_on_the_optimiser():
    reading = network(1e-9, 1e-4, 1.0)
    assert judged(reading, "adaptive") == {}
    assert judged(network(0.9e-10, 1e-4, 1.0), "adaptive")["vanishing"].layers == ("layer0",)


def test_exploding_names_the_layers_above_the_threshold():
    verdict = judged(network(71.0, 69.0, 1.0))["exploding"]
    assert verdict.layers == ("layer0",)
    assert verdict.severity == "warning"


def test_thresholds_can_be_overridden():
    reading = network(1e-3, 1.0)
    assert judged(reading, thresholds=Thresholds(vanishing_ratio_sgd=1e-4)) == {}
    assert "exploding" in judged(network(3.0, 1.0), thresholds=Thresholds(exploding_ratio=2.0))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Thresholds().exploding_ratio = 1.0


def test_decay_is_the_slope_over_layers_of_like_shape():
    norms = [0.5**power for power in (4, 3, 2, 1, 0)]
    assert rules.decay_per_layer(network(*norms)) == pytest.approx(0.5, rel=1e-12)
    odd_shapes = [
        layer(0, 1e9, shape=(3,)),
        *(layer(i, norm) for i, norm in enumerate(norms, 1)),
        layer(9, 7.0, shape=(2,)),
    ]
    assert rules.decay_per_layer(Reading(step=0, layers=tuple(odd_shapes))) == pytest.approx(0.5, rel=1e-12)
    assert rules.decay_per_layer(network(4.0, 2.0, 1.0)) == pytest.approx(2.0, rel=1e-12)


def test_decay_of_layers_that_all_differ_is_over_all_of_them():
    layers = [layer(index, 0.5 ** (3 - index), shape=(9 - index,)) for index in range(4)]
    assert rules.decay_per_layer(Reading(step=0, layers=tuple(layers))) == pytest.approx(0.5, rel=1e-12)


def test_decay_needs_two_layers_with_a_gradient():
    assert math.isnan(rules.decay_per_layer(network(1.0)))
    assert math.isnan(rules.decay_per_layer(network(0.0, 1.0)))
    assert math.isnan(rules.decay_per_layer(network()))


def with_activation(kind, activation, before, after, saturated):
    return Reading(
        step=0,
        layers=(
            layer(0, before),
            layer(1, after, kind=kind, activation=activation, saturated=saturated),
            layer(2, after),
        ),
    )


def test_an_exact_zero_is_told_by_its_kind():
    structural = judged(with_activation("BinaryStep", "binary_step", 0.0, 1.0, 1.0))["zero-gradient"]
    assert "structural zero: the derivative of BinaryStep (layer1)" in structural.explanation
    dead = judged(with_activation("ReLU", "relu", 0.0, 1.0, 1.0))["zero-gradient"]
    assert "All units of ReLU (layer1) are dead" in dead.explanation
    underflow = judged(network(0.0, 0.0, 1e-42, 1e-20))["zero-gradient"]
    assert "underflowed" in underflow.explanation
    assert underflow.layers == ("layer0", "layer1")
    detached = judged(network(0.0, 1.0))["zero-gradient"]
    assert "Nothing behind it passes a gradient back" in detached.explanation


def test_non_finite_names_the_first_layer_forward_else_the_first_backward():
    broken = Statistics(count=64, total=math.nan, squares=math.nan, non_finite=3, largest=math.nan)
    healthy = network(1.0, 1.0, 1.0)
    backward = [
        dataclasses.replace(entry, gradient=broken) if i < 2 else entry for i, entry in enumerate(healthy.layers)
    ]
    assert judged(Reading(step=0, layers=tuple(backward)))["non-finite"].layers[0] == "layer1"
    forward = [dataclasses.replace(entry, output=broken) if i else entry for i, entry in enumerate(backward)]
    verdict = judged(Reading(step=0, layers=tuple(forward)))["non-finite"]
    assert verdict.layers == ("layer1", "layer2")
    assert verdict.value == 3


def test_saturation_is_reported_for_smooth_activations_only():
    assert judged(with_activation("Sigmoid", "sigmoid", 1.0, 1.0, 0.51))["saturation"].layers == ("layer1",)
    assert judged(with_activation("Sigmoid", "sigmoid", 1.0, 1.0, 0.5)) == {}
    assert judged(with_activation("ReLU", "relu", 1.0, 1.0, 0.6)) == {}


def test_a_model_without_any_gradient_gets_no_verdict():
    assert judged(Reading(step=0, layers=())) == {}


@pytest.mark.parametrize(
    ("optimizer", "family"),
    [
        (None, "sgd"),
        (torch.optim.SGD, "sgd"),
        (torch.optim.LBFGS, "sgd"),
        (torch.optim.Adam, "adaptive"),
        (torch.optim.AdamW, "adaptive"),
        (torch.optim.RMSprop, "adaptive"),
        (torch.optim.Adagrad, "adaptive"),
        (torch.optim.Adadelta, "adaptive"),
        (torch.optim.Rprop, "adaptive"),
    ],
)
def test_the_family_of_an_optimiser(optimizer, family):
    instance = optimizer and optimizer([torch.zeros(1, requires_grad=True)], lr=0.1)
    assert rules.optimizer_family(instance) == family


def test_an_unknown_relative_is_known_by_its_name():
    class AdamW8bit(torch.optim.Optimizer):
        pass

    assert rules.optimizer_family(AdamW8bit([torch.zeros(1, requires_grad=True)], {})) == "adaptive"


def test_a_subclass_belongs_to_its_base_classs_family():
    class Mine(torch.optim.Adam):
        pass

    assert rules.optimizer_family(Mine([torch.zeros(1, requires_grad=True)])) == "adaptive"
