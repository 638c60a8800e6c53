import dataclasses
import math

import pytest
import torch

from torchact import catalogue
from torchact.diagnostics import Thresholds, depth, rules
from torchact.diagnostics.evidence import optimizer_family
from torchact.diagnostics.readings import LayerReading, ParameterReading, Reading
from torchact.diagnostics.statistics import Statistics


def parameter(size):
    return ParameterReading(gradient=Statistics(count=64, squares=1.0), weight=Statistics(count=64, squares=1.0 + size))


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
        parameters={} if activation else {"weight": parameter(index)},
    )


def network(*norms):
    """A chain of linear layers with these norms of δ."""
    return Reading(step=0, layers=tuple(layer(index, norm) for index, norm in enumerate(norms)))


def zeroed(entry):
    """The layer with weights that are zero."""
    weight = dataclasses.replace(entry.parameters["weight"], weight=Statistics(count=64, zeros=64.0))
    return dataclasses.replace(entry, parameters={"weight": weight})


AT_ONCE = Thresholds(warm_up=0, patience=1)


def judged(reading, family="sgd", thresholds=AT_ONCE):
    """Return by their titles the verdicts that are more than information."""
    verdicts = rules.judge(reading, family, thresholds)
    return {verdict.title: verdict for verdict in verdicts if verdict.severity != "info"}


def test_gradients_of_like_size_get_no_verdict():
    assert judged(network(0.9, 1.1, 1.0)) == {}


def test_vanishing_names_the_layers_below_the_threshold_and_no_others():
    verdict = judged(network(1e-5, 1e-3, 0.0101, 1.0))["vanishing"]
    assert verdict.layers == ("layer0", "layer1")
    assert verdict.value == pytest.approx(1e-5)
    assert verdict.threshold == 4e-3
    assert "Layers layer0 … layer1 (2 of 4) do not learn" in verdict.explanation


def test_vanishing_depends_on_the_optimiser():
    assert judged(network(1e-3, 1e-9, 1.0), "adaptive") == {}
    assert judged(network(0.9e-10, 1e-4, 1.0), "adaptive")["vanishing"].layers == ("layer0",)


def test_exploding_names_the_layers_above_the_threshold():
    verdict = judged(network(900.0, 30.0, 1.0))["exploding"]
    assert verdict.layers == ("layer0",)
    assert verdict.severity == "warning"


def test_thresholds_can_be_overridden():
    reading = network(1e-3, 1.0)
    assert judged(reading, thresholds=dataclasses.replace(AT_ONCE, vanishing_ratio_sgd=1e-4)) == {}
    assert "exploding" in judged(network(3.0, 1.0), thresholds=Thresholds(exploding_ratio=2.0))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Thresholds().exploding_ratio = 1.0


def test_decay_is_the_slope_over_layers_of_like_shape():
    norms = [0.5**power for power in (4, 3, 2, 1, 0)]
    assert depth.decay_per_layer(network(*norms)) == pytest.approx(0.5, rel=1e-12)
    odd_shapes = [
        layer(0, 1e9, shape=(3,)),
        *(layer(i, norm) for i, norm in enumerate(norms, 1)),
        layer(9, 7.0, shape=(2,)),
    ]
    assert depth.decay_per_layer(Reading(step=0, layers=tuple(odd_shapes))) == pytest.approx(0.5, rel=1e-12)
    assert depth.decay_per_layer(network(4.0, 2.0, 1.0)) == pytest.approx(2.0, rel=1e-12)


def test_decay_of_layers_that_all_differ_is_over_all_of_them():
    layers = [layer(index, 0.5 ** (3 - index), shape=(9 - index,)) for index in range(4)]
    assert depth.decay_per_layer(Reading(step=0, layers=tuple(layers))) == pytest.approx(0.5, rel=1e-12)


def test_decay_needs_two_layers_with_a_gradient():
    assert math.isnan(depth.decay_per_layer(network(1.0)))
    assert math.isnan(depth.decay_per_layer(network(0.0, 1.0)))
    assert math.isnan(depth.decay_per_layer(network()))


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
    for key in ("tanhshrink", "softshrink", "hardshrink"):
        shrunk = judged(with_activation("It", key, 0.0, 1.0, 1.0))["zero-gradient"]
        assert "All units of It (layer1) shrink their inputs to nothing" in shrunk.explanation
        assert "larger initial weights" in shrunk.suggestion
    for key in ("hardtanh", "squared_relu", "gaussian", "threshold"):
        assert (
            "All units of It (layer1) are dead"
            in judged(with_activation("It", key, 0.0, 1.0, 1.0))["zero-gradient"].explanation
        )
    underflow = judged(network(0.0, 0.0, 1e-42, 1e-20))["zero-gradient"]
    assert "underflowed" in underflow.explanation
    assert underflow.layers == ("layer0", "layer1")
    detached = judged(network(0.0, 1.0))["zero-gradient"]
    assert "Nothing behind it passes a gradient back" in detached.explanation


def test_a_gated_unit_whose_gates_are_all_shut_is_told():
    reading = with_activation("ReGLU", "reglu", 0.0, 1.0, None)
    assert "Nothing behind it" in judged(reading)["zero-gradient"].explanation
    first, unit, last = reading.layers
    shut = dataclasses.replace(unit, output=Statistics(count=64, zeros=64))
    verdict = judged(dataclasses.replace(reading, layers=(first, shut, last)))["zero-gradient"]
    assert "All units of ReGLU (layer1) are dead" in verdict.explanation


def test_an_activation_that_learns_its_parameter_is_no_layer_of_its_own_to_the_decay():
    learning = {"weight": parameter(0)}
    pairs = [
        (layer(2 * i, 0.5 ** (3 - i)), layer(2 * i + 1, 0.5 ** (3 - i), kind="PReLU", activation="prelu"))
        for i in range(4)
    ]
    layers = [
        entry if not entry.activation else dataclasses.replace(entry, parameters=learning)
        for pair in pairs
        for entry in pair
    ]
    assert depth.decay_per_layer(Reading(step=0, layers=tuple(layers))) == pytest.approx(0.5, rel=1e-12)


@pytest.mark.parametrize(
    ("key", "cure"),
    [
        ("hardsigmoid", "ReLU with He"),
        ("prelu", "Use He"),
        ("gelu", "Use He"),
        ("selu", "Use Xavier"),
        ("sine", "keeps"),
    ],
)
def test_the_cure_of_vanishing_depends_on_the_activation(key, cure):
    assert cure in judged(with_activation("It", key, 1e-5, 1.0, 0.0))["vanishing"].suggestion


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


def test_saturation_is_reported_above_its_threshold():
    assert judged(with_activation("Sigmoid", "sigmoid", 1.0, 1.0, 0.51))["saturation"].layers == ("layer1",)
    assert judged(with_activation("Sigmoid", "sigmoid", 1.0, 1.0, 0.5)) == {}


def test_an_output_may_be_saturated():
    reading = with_activation("Sigmoid", "sigmoid", 1.0, 1.0, 0.9)
    assert judged(dataclasses.replace(reading, layers=reading.layers[:2])) == {}


#: Rectifiers, whose flat side is half of what they are, and those that have no level to saturate at.
NEVER_SATURATED = {
    *("relu", "relu6", "leaky_relu", "prelu", "rrelu", "threshold", "squared_relu", "binary_step"),
    *("tanhshrink", "softshrink", "hardshrink", "snake", "identity"),
    *("softmax", "softmin", "softmax2d", "log_softmax"),  # of many entries, nearly all are small
}


@pytest.mark.parametrize("key", [key for key, activation in catalogue.CATALOGUE.items() if activation.kind != "gated"])
def test_saturation_is_reported_for_what_levels_off_only(key):
    verdicts = judged(with_activation("It", key, 1.0, 1.0, 0.9))
    assert list(verdicts) == ([] if key in NEVER_SATURATED else ["saturation"])


def test_a_gated_unit_is_never_reported_as_saturated():
    assert judged(with_activation("GLU", "glu", 1.0, 1.0, None)) == {}


def test_what_is_not_in_the_catalogue_any_more_gets_no_verdict():
    assert judged(with_activation("It", "taken_back", 1.0, 1.0, 0.9)) == {}
    verdict = judged(with_activation("It", "taken_back", 0.0, 1.0, 1.0))["zero-gradient"]
    assert "Nothing behind it" in verdict.explanation


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
    assert optimizer_family(instance) == family


def test_an_unknown_relative_is_known_by_its_name():
    class AdamW8bit(torch.optim.Optimizer):
        pass

    assert optimizer_family(AdamW8bit([torch.zeros(1, requires_grad=True)], {})) == "adaptive"


def test_a_subclass_belongs_to_its_base_classs_family():
    class Mine(torch.optim.Adam):
        pass

    assert optimizer_family(Mine([torch.zeros(1, requires_grad=True)])) == "adaptive"


# ---- over several readings


def run(*networks, start=0, learning=True):
    """Give readings their steps, and each other weights, as training does."""
    return [
        dataclasses.replace(
            reading,
            step=start + i,
            layers=tuple(with_other_weights(entry, i) if learning else entry for entry in reading.layers),
        )
        for i, reading in enumerate(networks)
    ]


def with_other_weights(entry, total):
    parameters = {
        name: dataclasses.replace(own, weight=dataclasses.replace(own.weight, total=float(total)))
        for name, own in entry.parameters.items()
    }
    return dataclasses.replace(entry, parameters=parameters)


def by_rule(readings, family="sgd", thresholds=None):
    return {(verdict.rule, verdict.severity): verdict for verdict in rules.judge(readings, family, thresholds)}


def test_vanishing_has_to_last_for_several_readings_after_the_warm_up():
    faded, healthy = network(1e-4, 1.0), network(1.0, 1.0)
    assert ("TA101", "error") in by_rule(run(*[faded] * 3, start=5))
    assert ("TA101", "info") in by_rule(run(*[faded] * 3, start=4))  # the first of them is still in the warm-up
    assert ("TA101", "info") in by_rule(run(*[faded] * 2, start=5))
    assert ("TA101", "error") not in by_rule(run(faded, healthy, faded, start=5))
    assert not {rule for rule, _ in by_rule(run(faded, faded, healthy, start=5))} & {"TA101"}
    verdict = by_rule(run(*[faded] * 3, start=5))["TA101", "error"]
    assert verdict.window == 3
    assert verdict.source
    assert ("TA102", "error") in by_rule(run(*[network(1e-11, 1.0)] * 3, start=5), "adaptive")


def test_a_gradient_below_a_250th_warns_and_a_thousandth_is_an_error():
    assert by_rule(run(*[network(4.1e-3, 1.0)] * 3, start=5)) == {}
    assert ("TA101", "warning") in by_rule(run(*[network(3.9e-3, 1.0)] * 3, start=5))
    mixed = run(network(5e-4, 1.0), network(3e-3, 1.0), network(5e-4, 1.0), start=5)
    assert ("TA101", "warning") in by_rule(mixed)
    assert ("TA101", "error") in by_rule(run(*[network(5e-4, 1.0)] * 3, start=5))


def test_under_an_adaptive_optimiser_a_faint_first_layer_warns_and_another_one_does_not():
    verdict = by_rule(run(*[network(0.9e-4, 1.0)] * 3, start=5), "adaptive")["TA102", "warning"]
    assert (verdict.layers, verdict.value, verdict.window) == (("layer0",), pytest.approx(0.9e-4), 3)
    assert verdict.source
    for readings in (
        run(*[network(0.9e-4, 1.0)] * 2, start=5),
        run(*[network(0.9e-4, 1.0)] * 3, start=4),
        run(network(0.9e-4, 1.0), network(1.1e-4, 1.0), network(0.9e-4, 1.0), start=5),
        run(*[network(1.0, 0.9e-4, 1.0)] * 3, start=5),
        run(*[network(0.0, 1.0, 1.0)] * 3, start=5),
    ):
        assert ("TA102", "warning") not in by_rule(readings, "adaptive")
    assert ("TA102", "warning") not in by_rule(run(*[network(0.9e-4, 1.0)] * 3, start=5), "sgd")


def test_where_the_gradient_gets_past_the_faint_layers_vanishing_is_information():
    """As in a residual network, in which a branch has faded."""
    verdict = by_rule(run(*[network(0.031, 1e-5, 1.0)] * 3, start=5))["TA101", "info"]
    assert verdict.layers == ("layer1",)
    assert "by another way" in verdict.explanation
    assert by_rule(run(*[network(0.029, 1e-5, 1.0)] * 3, start=5))["TA101", "error"].layers == ("layer1",)


def swinging(by, steps=10, start=0, layers=8):
    """Readings in which the first layer's share of the gradient goes up and down by a factor of exp(by)."""
    return run(*(network(math.exp(by * (-1) ** i), *[1.0] * (layers - 1)) for i in range(steps)), start=start)


def test_a_first_layer_whose_gradient_swings_in_the_first_steps():
    verdict = by_rule(swinging(0.45))["TA106", "warning"]
    assert (verdict.layers, verdict.value, verdict.window) == (("layer0",), pytest.approx(0.45), 10)
    assert ("TA106", "warning") not in by_rule(swinging(0.43))
    assert ("TA106", "warning") not in by_rule(swinging(0.45), "adaptive")
    assert ("TA106", "warning") not in by_rule(swinging(0.45, layers=7))


def test_layers_that_begin_with_zeros_have_to_change():
    def from_zero(readings):
        first, *others = readings[0].layers
        return [dataclasses.replace(readings[0], layers=(zeroed(first), *others)), *readings[1:]]

    assert ("TA106", "warning") not in by_rule(from_zero(swinging(1.0)))
    steps = run(*[with_update(0.5)] * 10)
    assert by_rule(steps)["TA301", "warning"].layers == ("layer0", "layer1")
    assert by_rule(from_zero(steps))["TA301", "warning"].layers == ("layer1",)


def test_layers_in_front_of_one_that_begins_with_zeros_may_make_small_steps_while_these_grow():
    def last_from_zero(readings):
        *others, last = readings[0].layers
        return [dataclasses.replace(readings[0], layers=(*others, zeroed(last))), *readings[1:]]

    growing = run(*(with_update(1e-6 * 1.1**i) for i in range(10)))
    constant = run(*(with_update(1e-6) for _ in range(10)))
    assert by_rule(growing)["TA301", "warning"].layers == ("layer0", "layer1")
    assert by_rule(last_from_zero(growing))["TA301", "warning"].layers == ("layer1",)
    assert by_rule(last_from_zero(constant))["TA301", "warning"].layers == ("layer0", "layer1")


def test_the_first_steps_are_judged_when_all_were_read_and_until_soon_after():
    assert ("TA106", "warning") in by_rule(swinging(1.0, steps=20))
    silent = [swinging(1.0, steps=9), swinging(1.0, steps=21), swinging(1.0, start=1), swinging(1.0, steps=20)[::2]]
    assert not any(("TA106", "warning") in by_rule(readings) for readings in silent)
    later = [*run(*[network(*[1.0] * 8)] * 10), *swinging(1.0, start=10)]
    assert ("TA106", "warning") not in by_rule(later)  # it is the first steps that are judged, not the latest
    faded_to_nothing = swinging(1.0)[:9] + run(network(0.0, *[1.0] * 7), start=9)
    assert ("TA106", "warning") not in by_rule(faded_to_nothing)


def with_outputs(*deviations):
    """Readings whose last layer has outputs of mean 3 and these deviations."""
    readings = run(*[network(1.0, 1.0)] * len(deviations))
    outputs = [Statistics(count=64, total=64 * 3.0, squares=64 * (9 + value**2)) for value in deviations]
    return [
        dataclasses.replace(reading, layers=(reading.layers[0], dataclasses.replace(reading.layers[1], output=output)))
        for reading, output in zip(readings, outputs, strict=True)
    ]


def test_a_last_layer_whose_outputs_shrink_in_the_first_steps():
    shrinking = with_outputs(2.0, *[5.0] * 6, 0.66, 0.67, 0.65)
    verdict = by_rule(shrinking)["TA205", "warning"]
    assert (verdict.layers, verdict.value, verdict.window) == (("layer1",), pytest.approx(0.335), 10)
    assert ("TA205", "warning") not in by_rule(shrinking, "adaptive")
    assert ("TA205", "warning") not in by_rule(with_outputs(2.0, *[5.0] * 6, 0.66, 0.69, 0.65))
    assert ("TA205", "warning") not in by_rule(with_outputs(0.0, *[0.0] * 9))

    def with_last_gradient(reading, norm):
        return dataclasses.replace(
            reading,
            layers=(
                reading.layers[0],
                dataclasses.replace(reading.layers[1], gradient=Statistics(count=64, squares=norm**2, largest=norm)),
            ),
        )

    for norm, told in ((0.51, True), (0.49, False)):  # a loss that falls, as of a regression that began too high
        falling = [*shrinking[:7], *(with_last_gradient(reading, norm) for reading in shrinking[7:])]
        assert (("TA205", "warning") in by_rule(falling)) == told


def test_a_faint_gradient_that_does_not_grow_under_an_adaptive_optimiser():
    faint = network(0.029, 1.6e-3, 1.0)
    assert len(rules.judge(run(*[network(1e-5, 1.0)] * 10), "adaptive")) == 1  # one rule of two that it meets
    verdict = by_rule(run(*[faint] * 10), "adaptive")["TA102", "warning"]
    assert (verdict.layers, verdict.value) == (("layer0", "layer1"), pytest.approx(1.6e-3))
    assert by_rule(run(*[network(1.6e-3, 1.0)] * 10), "adaptive")["TA102", "warning"].layers == ("layer0",)
    assert ("TA102", "warning") not in by_rule(run(*[faint] * 10))
    for readings in (
        run(*[network(0.029, 1.8e-3, 1.0)] * 10),
        run(*[network(0.031, 1.6e-3, 1.0)] * 10),
        run(*[network(0.029 / 1.13, 1.6e-3, 1.0)] * 7, *[faint] * 3),  # it grows
        run(*[faint] * 9, network(0.029, 1.8e-3, 1.0)),
    ):
        assert ("TA102", "warning") not in by_rule(readings, "adaptive")
    slower = run(*[network(0.029 / 1.11, 1.6e-3, 1.0)] * 7, *[faint] * 3)
    assert ("TA102", "warning") in by_rule(slower, "adaptive")


def with_gradient_norm(norm):
    reading = network(1.0, 1.0)
    gradient = Statistics(count=64, squares=norm**2, largest=norm)
    layers = [
        dataclasses.replace(entry, parameters={"weight": dataclasses.replace(parameter(i), gradient=gradient)})
        for i, entry in enumerate(reading.layers)
    ]
    return dataclasses.replace(reading, layers=tuple(layers))


def test_doubling_five_times_running_is_an_explosion():
    growing = run(*(with_gradient_norm(2.0**i) for i in range(6)))
    assert by_rule(growing)["TA105", "warning"].value == pytest.approx(2)
    assert by_rule(growing)["TA105", "warning"].window == 6
    assert by_rule(growing[:5]) == {}
    slower = run(*(with_gradient_norm(1.99**i) for i in range(6)))
    assert by_rule(slower) == {}


def test_ten_times_the_largest_of_the_first_hundred_is_an_explosion():
    calm = [with_gradient_norm(1.0 + i % 2) for i in range(100)]
    assert ("TA105", "warning") in by_rule(run(*calm, with_gradient_norm(20.1)))
    assert by_rule(run(*calm, with_gradient_norm(19.9))) == {}
    assert by_rule(run(*calm[:99], with_gradient_norm(100.0))) == {}  # one of the first hundred itself


def with_update(ratio):
    reading = network(1.0, 1.0)
    own = dataclasses.replace(parameter(3), update_norm=2 * ratio)  # of a weight whose norm is 2
    return dataclasses.replace(
        reading, layers=tuple(dataclasses.replace(entry, parameters={"weight": own}) for entry in reading.layers)
    )


@pytest.mark.parametrize(("ratio", "told"), [(0.9e-4, True), (1.1e-4, False), (0.09, False), (0.11, True)])
def test_steps_that_are_too_small_or_too_large_beside_the_weights(ratio, told):
    readings = run(*[with_update(ratio)] * 5, start=5)
    assert (("TA301", "warning") in by_rule(readings)) == told
    assert by_rule(readings[:4]) == {}
    if told:
        assert by_rule(readings)["TA301", "warning"].value == pytest.approx(ratio, rel=1e-6)


def test_unchanged_weights_are_told_after_three_readings():
    still = run(*[network(1.0, 1.0)] * 3, learning=False)
    assert by_rule(still)["TA302", "error"].layers == ("layer0", "layer1")
    assert by_rule(still[:2]) == {}
    assert by_rule(run(*[network(1.0, 1.0)] * 3)) == {}


def test_variances_of_outputs_that_differ_in_the_beginning():
    def reading(*deviations):
        layers = [
            dataclasses.replace(entry, output=Statistics(count=64, squares=64 * deviation**2))
            for entry, deviation in zip(network(*[1.0] * len(deviations)).layers, deviations, strict=True)
        ]
        return Reading(step=0, layers=tuple(layers))

    assert by_rule(reading(1.0, 0.31, 99.0))["TA204", "info"].layers == ("layer1", "layer0")
    assert by_rule(reading(1.0, 0.32, 99.0)) == {}  # the last layer's variance is the task's
    assert by_rule(dataclasses.replace(reading(1.0, 0.1, 1.0), step=10)) == {}
    unlike = reading(1.0, 0.1, 1.0, 1.0)
    norm = dataclasses.replace(unlike.layers[1], kind="LayerNorm")
    assert by_rule(dataclasses.replace(unlike, layers=(unlike.layers[0], norm, *unlike.layers[2:]))) == {}


def test_gradients_that_are_mostly_zero_at_the_output_and_at_the_parameters():
    def reading(of_output, of_weight):
        gradient, own = (Statistics(count=64, squares=1.0, largest=1.0, zeros=n) for n in (of_output, of_weight))
        first, last = network(1.0, 1.0).layers
        weight = {"weight": dataclasses.replace(parameter(0), gradient=own)}
        return Reading(step=0, layers=(dataclasses.replace(first, gradient=gradient, parameters=weight), last))

    assert by_rule(reading(45, 45))["TA303", "warning"].value == 45 / 64
    assert by_rule(reading(44, 64)) == {}  # of an embedding, whose other words did not occur
    assert by_rule(reading(64, 44)) == {}  # of a convolution in front of pooling


def test_layers_before_weights_that_are_zero_wait_for_the_first_step():
    """As of a head, of a residual branch or of LoRA's second matrix that begins with zeros."""

    first, second, third, last = network(0.0, 0.0, 1.0, 1.0).layers
    verdicts = by_rule(Reading(step=0, layers=(first, second, zeroed(third), last)))
    assert list(verdicts) == [("TA303", "info")]
    assert verdicts["TA303", "info"].layers == ("layer0", "layer1")
    assert "such as those of layer2" in verdicts["TA303", "info"].explanation
    assert ("TA303", "error") in by_rule(Reading(step=0, layers=(first, second, third, zeroed(last))))


def test_an_explosion_that_does_not_grow_with_depth_is_information():
    """As where the last layer called is a second head whose loss has a small weight."""
    assert ("TA105", "info") in by_rule(network(*[71.0, 72.0] * 4, 1.0))
    assert ("TA105", "warning") in by_rule(network(*(3.0 ** (8 - i) for i in range(8)), 1.0))
    assert ("TA105", "info") in by_rule(network(71.0, 69.0, 1.0))
    assert ("TA105", "warning") in by_rule(network(71.0, 1.0))  # too few to know


def test_decay_is_told_with_its_interval_where_a_few_layers_agree():
    fading = network(*(0.5 ** (7 - i) for i in range(8)))
    verdict = by_rule(fading)["TA104", "info"]
    assert verdict.value == pytest.approx(0.5)
    assert "95 % interval" in verdict.explanation
    assert "float16 after" in verdict.explanation
    assert ("TA104", "info") not in by_rule(network(0.25, 0.5))  # any line meets two points
    assert ("TA104", "info") not in by_rule(network(*(0.8 ** (7 - i) for i in range(8))))


def test_entries_without_a_gradient_do_not_count_as_stuck_at_epsilon():
    def reading(at_epsilon, zeros, step=5):
        gradient = Statistics(count=64, squares=1.0, largest=1.0, zeros=zeros)
        own = {"weight": dataclasses.replace(parameter(0), gradient=gradient, at_epsilon=at_epsilon)}
        layers = network(1.0, 1.0).layers
        return Reading(step=step, layers=(dataclasses.replace(layers[0], parameters=own), layers[1]))

    assert ("TA102", "error") in by_rule(reading(0.75, 0), "adaptive")
    assert ("TA102", "error") not in by_rule(reading(0.75, 32), "adaptive")  # those of silent units
    assert by_rule(reading(0.875, 32), "adaptive")["TA102", "error"].value == 3 / 4
    assert ("TA102", "error") not in by_rule(reading(1.0, 64), "adaptive")
    assert ("TA102", "error") not in by_rule(reading(1.0, 0, step=4), "adaptive")  # the first steps may be anything


def test_rules_know_their_ids_and_every_verdict_its_source():
    broken = Statistics(count=64, squares=math.nan, non_finite=3, largest=math.nan)
    layers = network(1e-9, 1e-6, 1.0).layers
    reading = Reading(step=0, layers=(dataclasses.replace(layers[0], output=broken), *layers[1:]))
    verdicts = rules.judge([reading] * 25, thresholds=AT_ONCE)
    assert all(verdict.rule.startswith("TA") and verdict.source and verdict.suggestion for verdict in verdicts)
    (first,) = (verdict for verdict in verdicts if verdict.rule == "TA001")
    assert len(first.readings) == 20
