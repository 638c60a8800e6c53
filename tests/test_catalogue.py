"""The facts of every record, checked against each other and against mathematics written out anew."""

import dataclasses
import inspect
import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.conftest import CASES, DTYPES, assert_within_ulp, preactivations, smooth_points
from torchact import autograd, catalogue, functional, kernels, lookup, modules

GRID = torch.linspace(-8, 8, 1601, dtype=torch.float64)  # contains every hundredth, and so every kink


#: Each surrogate's h' for one number, without torch.
SURROGATE_DERIVATIVES = {
    None: lambda x: 0,
    "straight_through": lambda x: 1,
    "sigmoid": lambda x: 1 / (2 + math.exp(x) + math.exp(-x)),
    "atan": lambda x: 1 / (1 + math.pi * math.pi * x * x),
    "fast_sigmoid": lambda x: 1 / (1 + 2 * abs(x) + x * x),
    "triangular": lambda x: max(0, 1 - abs(x)),
}


def logistic(x):
    return 1 / (1 + math.exp(-x))


def bell(x):
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def normal(x):
    return math.erfc(-x / math.sqrt(2)) / 2


def swish(x, beta=1):
    return x * logistic(beta * x)


def swish_derivative(x, beta=1):
    return logistic(beta * x) + beta * swish(x, beta) * logistic(-beta * x)


def gelu_tanh(x):
    return x * logistic(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


def gelu_tanh_derivative(x):
    u = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return logistic(2 * u) + x / 2 / math.cosh(u) ** 2 * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)


def mish_derivative(x):
    t = math.tanh(math.log1p(math.exp(x)))
    return t + x * (1 - t * t) * logistic(x)


def outside(x, lambd=0.5):
    return float(abs(x) > lambd)


ALPHA, SCALE = 1.6732632423543772848, 1.0507009873554804934  # SELU's

#: φ and φ' for one number, without torch.
MATHEMATICS = {
    "sigmoid": (lambda x: 1 / (1 + math.exp(-x)), lambda x: 1 / (2 + math.exp(x) + math.exp(-x))),
    "tanh": (math.tanh, lambda x: 4 / (math.exp(x) + math.exp(-x)) ** 2),
    "relu": (lambda x: max(0, x), lambda x: float(x > 0)),
    "leaky_relu": (
        lambda x, negative_slope=0.01: x if x > 0 else negative_slope * x,
        lambda x, negative_slope=0.01: 1 if x > 0 else negative_slope,
    ),
    "binary_step": (
        lambda x, surrogate=None: float(x >= 0),
        lambda x, surrogate=None: SURROGATE_DERIVATIVES[surrogate](x),
    ),
    "identity": (lambda x: x, lambda x: 1),
    "logsigmoid": (lambda x: -math.log1p(math.exp(-x)), lambda x: logistic(-x)),
    "softsign": (lambda x: x / (1 + abs(x)), lambda x: 1 / (1 + abs(x)) ** 2),
    "hardtanh": (
        lambda x, min_val=-1, max_val=1: min(max(x, min_val), max_val),
        lambda x, min_val=-1, max_val=1: float(min_val < x < max_val),
    ),
    "hardsigmoid": (lambda x: min(max(x + 3, 0), 6) / 6, lambda x: float(-3 < x < 3) / 6),
    "relu6": (lambda x: min(max(x, 0), 6), lambda x: float(0 < x < 6)),
    "prelu": (lambda x, weight: x if x > 0 else weight * x, lambda x, weight: 1 if x > 0 else weight),
    "rrelu": (
        lambda x, lower=1 / 8, upper=1 / 3: x if x > 0 else (lower + upper) / 2 * x,
        lambda x, lower=1 / 8, upper=1 / 3: 1 if x > 0 else (lower + upper) / 2,
    ),
    "threshold": (lambda x, threshold, value: x if x > threshold else value, lambda x, threshold, value: x > threshold),
    "squared_relu": (lambda x: max(0, x) ** 2, lambda x: 2 * max(0, x)),
    "elu": (
        lambda x, alpha=1: x if x > 0 else alpha * math.expm1(x),
        lambda x, alpha=1: 1 if x > 0 else alpha * math.exp(x),
    ),
    "selu": (
        lambda x: SCALE * (x if x > 0 else ALPHA * math.expm1(x)),
        lambda x: SCALE * (1 if x > 0 else ALPHA * math.exp(x)),
    ),
    "celu": (
        lambda x, alpha=1: x if x > 0 else alpha * math.expm1(x / alpha),
        lambda x, alpha=1: 1 if x > 0 else math.exp(x / alpha),
    ),
    "softplus": (
        lambda x, beta=1, threshold=20: x if beta * x > threshold else math.log1p(math.exp(beta * x)) / beta,
        lambda x, beta=1, threshold=20: 1 if beta * x > threshold else logistic(beta * x),
    ),
    "silu": (swish, swish_derivative),
    "swish": (swish, swish_derivative),
    "quick_gelu": (lambda x: swish(x, 1.702), lambda x: swish_derivative(x, 1.702)),
    "gelu": (
        lambda x, approximate="none": x * normal(x) if approximate == "none" else gelu_tanh(x),
        lambda x, approximate="none": normal(x) + x * bell(x) if approximate == "none" else gelu_tanh_derivative(x),
    ),
    "gelu_tanh": (gelu_tanh, gelu_tanh_derivative),
    "mish": (lambda x: x * math.tanh(math.log1p(math.exp(x))), mish_derivative),
    "hardswish": (
        lambda x: x * min(max(x + 3, 0), 6) / 6,
        lambda x: 0 if x <= -3 else 1 if x >= 3 else x / 3 + 0.5,
    ),
    "tanhshrink": (lambda x: x - math.tanh(x), lambda x: math.tanh(x) ** 2),
    "softshrink": (lambda x, lambd=0.5: math.copysign(max(0, abs(x) - lambd), x), outside),
    "hardshrink": (lambda x, lambd=0.5: x if abs(x) > lambd else 0, outside),
    "gaussian": (lambda x: math.exp(-x * x), lambda x: -2 * x * math.exp(-x * x)),
    "sine": (lambda x, omega=30: math.sin(omega * x), lambda x, omega=30: omega * math.cos(omega * x)),
    "snake": (
        lambda x, alpha=1: x + math.sin(alpha * x) ** 2 / alpha,
        lambda x, alpha=1: 1 + math.sin(2 * alpha * x),
    ),
}

#: max |φ'|, in closed form or from the literature: SiLU's and GELU's are at the zeros of their second derivatives
MAX_DERIVATIVE = {
    "sigmoid": 0.25,
    "hardsigmoid": 1 / 6,
    "squared_relu": math.inf,
    "elu-alpha=1.5": 1.5,
    "selu": ALPHA * SCALE,
    "silu": pytest.approx(1.09983932012886692, abs=1e-9),
    "swish": pytest.approx(1.09983932012886692, abs=1e-9),
    "swish-beta=0.5": pytest.approx(1.09983932012886692, abs=1e-9),
    "swish-beta=tensor(0.75)": pytest.approx(1.09983932012886692, abs=1e-9),
    "quick_gelu": pytest.approx(1.09983932012886692, abs=1e-9),
    "gelu": pytest.approx(normal(math.sqrt(2)) + math.sqrt(2) * bell(math.sqrt(2)), abs=1e-9),
    "gelu-approximate=tanh": pytest.approx(1.12899306865876537, abs=1e-9),
    "gelu_tanh": pytest.approx(1.12899306865876537, abs=1e-9),
    "mish": pytest.approx(1.08849816125172786, abs=1e-9),
    "hardswish": pytest.approx(1.5, abs=1e-5),  # the supremum, at the kink
    "gaussian": pytest.approx(math.sqrt(2 / math.e), abs=1e-9),
    "sine": 30,
    "sine-omega=2.0": 2,
    "snake": pytest.approx(2, abs=1e-9),
    "snake-alpha=0.5": pytest.approx(2, abs=1e-9),
    "snake-alpha=tensor(0.75)": pytest.approx(2, abs=1e-9),
    "softmin-dim=-1": 0.25,
    "softmin-dim=0": 0.25,
    "log_softmax-dim=-1": 1,
    "log_softmax-dim=0": 1,
    "glu-dim=0": 0.25,
    "glu-dim=0-gate=first": 0.25,
    "geglu-dim=0": pytest.approx(1.129, abs=1e-4),
    "geglu-dim=0-gate=first-approximate=tanh": pytest.approx(1.129, abs=1e-4),
    "swiglu-dim=0": pytest.approx(1.09983932012886692, abs=1e-9),
    "swiglu-dim=0-alpha=1.702-limit=1.5-offset=1.0": pytest.approx(2 * 1.09983932012886692, abs=1e-9),
    "leaky_relu-negative_slope=-0.5": 1,
    "softmax-dim=-1": 0.25,
    "softmax-dim=0": 0.25,
    "binary_step": 0,
    "binary_step-surrogate=sigmoid": 0.25,
}  # 1 for all others

#: The papers that introduced the surrogate derivatives.
SURROGATE_PAPERS = {
    "straight_through": "arXiv:1308.3432",
    "sigmoid": "arXiv:1901.09948",
    "atan": "arXiv:2007.05785",
    "fast_sigmoid": "arXiv:1705.11146",
    "triangular": "arXiv:1603.08270",
}

elementwise = pytest.mark.parametrize("case", [case for case in CASES if case.activation.elementwise], ids=str)


def diagonal(function, x):
    """Return ∂y_i/∂x_i by autograd."""
    return torch.autograd.functional.jacobian(function, x).reshape(x.numel(), x.numel()).diagonal().reshape(x.shape)


def slopes(function, x):
    """Return by autograd the derivative of the one output that each input has a part in."""
    return torch.autograd.functional.vjp(function, x, torch.ones_like(function(x)))[1]


# ---- one name


def test_the_catalogue_has_the_introductory_canon():
    canon = {"sigmoid", "tanh", "relu", "leaky_relu", "softmax", "binary_step", "identity"}
    assert canon <= set(catalogue.CATALOGUE)


def test_one_name_leads_to_function_module_autograd_function_and_kernels(activation):
    assert callable(getattr(functional, activation.key))
    assert activation.key in functional.__all__
    assert modules.MODULES[activation.key] is getattr(modules, activation.name)
    assert activation.name in modules.__all__
    if activation.key == "softmax2d":  # which is softmax along the channels
        return
    assert getattr(autograd, activation.name).activation is activation
    assert activation.name in autograd.__all__
    assert activation.key in kernels.KERNELS or activation.key in kernels.PAIR_KERNELS


def test_every_name_and_alias_is_found_however_it_is_spelled(activation):
    for name in (activation.key, activation.name, *activation.aliases):
        for spelling in (name, name.upper(), name.replace("_", "-"), name.replace("_", " ").title()):
            assert catalogue.get(spelling) is activation


def test_no_alias_stands_for_two_activations():
    spellings = [
        (lookup.normalise(name), activation.key)
        for activation in catalogue.CATALOGUE.values()
        for name in {activation.key, activation.name, *activation.aliases}
    ]
    assert len({name for name, _ in spellings}) == len(set(spellings))


def test_an_unknown_activation_is_an_error_that_lists_the_nearest_and_all():
    with pytest.raises(ValueError, match="activation: unknown name 'sigmod'; did you mean 'sigmoid'") as raised:
        catalogue.get("sigmod")
    for key in catalogue.CATALOGUE:
        assert key in str(raised.value)
    with pytest.raises(ValueError, match="hidden: unknown name"):
        catalogue.get("sigmod", argument="hidden")


def test_an_unknown_surrogate_is_an_error_that_lists_the_nearest_and_all():
    with pytest.raises(ValueError, match="surrogate: unknown name 'triangle'; did you mean 'triangular'") as raised:
        catalogue.surrogate("triangle")
    for key in catalogue.SURROGATES:
        assert key in str(raised.value)


def test_records_cannot_be_changed(activation):
    with pytest.raises(dataclasses.FrozenInstanceError):
        activation.key = "other"
    with pytest.raises(TypeError):
        activation.parameters["negative_slope"] = 1
    with pytest.raises(TypeError):
        catalogue.CATALOGUE["other"] = activation


def test_every_source_names_authors_and_year(activation):
    assert re.match(r"\w[\w ,.]* (19|20)\d\d, \S", activation.source)
    assert activation.formula
    assert activation.derivative_formula


def test_parameters_are_those_of_the_function_and_of_the_module_with_the_same_defaults(activation):
    for signature in (
        inspect.signature(getattr(functional, activation.key)),
        inspect.signature(modules.MODULES[activation.key]),
    ):
        defaults = {name: parameter.default for name, parameter in signature.parameters.items()}
        for detail in (
            *("input", "self", "args", "kwargs", "inplace", "_stacklevel", "dtype", "device", "training", "other"),
            *("learnable", "num_parameters", "min_value", "max_value"),
        ):
            defaults.pop(detail, None)
        if activation.key in ("prelu", "threshold"):  # torch has no defaults for threshold, and calls the weight init
            assert set(defaults) in (set(activation.parameters), {"init"})
            assert defaults.get("init", 0.25) == 0.25 or activation.key == "threshold"
        else:
            assert defaults == dict(activation.parameters)


def test_parameters_are_read_from_a_module(case):
    expected = {**case.activation.parameters, **case.parameters}
    assert case.activation.parameters_of(case.module()) == expected


def test_counterparts_are_torch_s_own(activation):
    if activation.torch_function is not None:
        assert activation.torch_function in (getattr(torch, activation.key, None), getattr(F, activation.key, None))
    if activation.torch_module is not None:
        assert activation.torch_module is getattr(nn, activation.name)
    for spelling in activation.functional_spellings:
        assert any(hasattr(place, spelling) for place in (torch, F, torch.Tensor, torch.special)), spelling


# ---- mathematics


@elementwise
def test_value_and_derivative_are_those_of_the_formula_written_without_torch(case):
    x = torch.cat([smooth_points().flatten(), torch.tensor([-15.0, 0.0, 15.0], dtype=torch.float64)])
    second = case.activation.second_derivative(x, **case.parameters_for(x))
    slopes = (case.derivative(x), second)
    parameters = {name: float(v) if isinstance(v, torch.Tensor) else v for name, v in case.parameters.items()}
    for reference, formula, slope in zip((case.value, case.derivative), MATHEMATICS[case.key], slopes, strict=True):
        expected = torch.tensor([formula(float(number), **parameters) for number in x], dtype=torch.float64)
        # Both may be as far off as the exact result for an input that is wrong by an ULP.
        assert_within_ulp(reference(x), expected, ulp=8, scale=expected.abs() + (x * slope).abs())


@pytest.mark.parametrize("gate", ["first", "second"])
@pytest.mark.parametrize(
    ("key", "control"), [("glu", "sigmoid"), ("reglu", "relu"), ("geglu", "gelu"), ("swiglu", "silu")]
)
def test_a_gated_unit_multiplies_one_half_by_the_activation_of_the_other(key, control, gate):
    x = preactivations()
    halves = x[:2], x[2:]
    gated, controlling = halves if gate == "second" else halves[::-1]
    y = catalogue.get(key).value(x, dim=0, gate=gate)
    assert_within_ulp(y, gated * catalogue.get(control).value(controlling))
    slope = catalogue.get(key).derivative(x, dim=0, gate=gate)
    by_gated, by_control = (slope[:2], slope[2:]) if gate == "second" else (slope[2:], slope[:2])
    assert_within_ulp(by_gated, catalogue.get(control).value(controlling))
    assert_within_ulp(by_control, gated * catalogue.get(control).derivative(controlling))


def test_the_swiglu_of_gpt_oss_is_the_published_formula():
    gate = torch.linspace(-12, 12, 49, dtype=torch.float64)
    value = gate.flip(0) * 1.1
    y = catalogue.get("swiglu").value(torch.cat([gate, value]), gate="first", alpha=1.702, limit=7.0, offset=1.0)
    clamped_gate, clamped_value = gate.clamp(max=7.0), value.clamp(-7.0, 7.0)
    assert_within_ulp(y, clamped_gate / (1 + torch.exp(-1.702 * clamped_gate)) * (clamped_value + 1), ulp=8)


def test_halving_needs_a_dimension_of_even_size_and_a_known_gate():
    with pytest.raises(RuntimeError, match="Halving dimension must be even, but dimension 1 is size 3"):
        catalogue.halves(torch.zeros(2, 3), 1)
    with pytest.raises(RuntimeError, match="0-dimensional"):
        catalogue.halves(torch.zeros(()))
    with pytest.raises(IndexError):
        catalogue.halves(torch.zeros(2, 2), 2)
    with pytest.raises(ValueError, match="gate: expected 'first' or 'second', got 'third'"):
        catalogue.halves(torch.zeros(2, 2), 1, "third")


def test_softmax_is_the_normalised_exponential():
    x = smooth_points()
    exponentials = [[math.exp(number) for number in row] for row in x.tolist()]
    expected = [[number / sum(row) for number in row] for row in exponentials]
    y = catalogue.get("softmax").value(x, dim=-1)
    assert_within_ulp(y, torch.tensor(expected, dtype=torch.float64))
    assert_within_ulp(catalogue.get("softmax").derivative(x, dim=-1), y - y * y)


def test_derivative_is_the_derivative_of_the_value(torch_case):
    x = smooth_points()
    expected = diagonal(torch_case.value, x) if torch_case.activation.kind != "gated" else slopes(torch_case.value, x)
    assert_within_ulp(torch_case.derivative(x), expected, scale=torch_case.max_derivative())


def test_second_derivative_is_the_derivative_of_the_derivative(case):
    x = smooth_points()
    second = case.activation.second_derivative(x, **case.parameters_for(x))
    expected = diagonal(case.derivative, x)
    assert_within_ulp(second, expected, ulp=8, scale=max(case.max_derivative(), float(expected.abs().max())))


def test_derivative_at_a_kink_is_torch_s(torch_case):
    for kink in torch_case.activation.kinks:
        x = torch.tensor([kink], dtype=torch.float64, requires_grad=True)
        (expected,) = torch.autograd.grad(torch_case.smooth(x), x)
        assert float(torch_case.derivative(x.detach())) == float(expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_reference_keeps_shape_and_dtype(case, dtype):
    x = smooth_points(dtype)
    for function in (case.activation.value, case.activation.derivative, case.activation.second_derivative):
        result = function(x, **case.parameters_for(x))
        halved = case.activation.kind == "gated" and function is case.activation.value
        assert (result.shape, result.dtype) == ((1, 3) if halved else x.shape, dtype)


@pytest.mark.parametrize("slope", [0.1, 1 / 3, -0.7])
def test_the_float64_reference_has_float64_parameters(slope):
    minus_one = torch.tensor([-1.0], dtype=torch.float64)
    assert catalogue.get("leaky_relu").derivative(minus_one, negative_slope=slope).item() == slope
    assert catalogue.get("leaky_relu").max_derivative(negative_slope=10 * slope) == max(1, abs(10 * slope))


def usual(activation, x):
    """Return φ(x) for a column of numbers with the usual parameters: of two classes, or of the gate beside a one."""
    x = torch.stack([x, torch.ones_like(x)], dim=1)
    if activation.elementwise:
        return activation.value(x)[:, 0]
    if activation.kind == "gated":
        return activation.value(x, dim=1, gate="first")[:, 0]
    return activation.value(x, dim=1)[:, 0]


def test_range_is_where_the_values_are_and_how_far_they_get(activation):
    low, high = activation.range
    fine = torch.linspace(-8, 8, 160001, dtype=torch.float64)
    y = torch.cat([usual(activation, fine), usual(activation, torch.tensor([-1e9, 1e9, 0.0], dtype=torch.float64))])
    if activation.kind == "gated":  # the other half may be any number, too
        y = torch.cat([1e9 * y, -1e9 * y])
    assert float(y.min()) >= low
    assert float(y.max()) <= high
    assert math.isclose(y.min(), low, abs_tol=1e-8) if math.isfinite(low) else float(y.min()) < -1e6
    assert math.isclose(y.max(), high, abs_tol=1e-6) if math.isfinite(high) else float(y.max()) > 1e6


def test_monotone_means_that_values_never_fall(activation):
    rises = bool((usual(activation, GRID).diff() >= 0).all())
    assert activation.monotone == (rises and activation.kind != "gated")  # whose other half may be negative


def test_kinks_are_where_value_or_derivative_jump_and_nowhere_else(activation):
    if not activation.elementwise:
        assert activation.kinks == ((0.0,) if activation.key == "reglu" else ())
        return
    step = float(GRID[1] - GRID[0])
    # From one point of the grid to the next, a smooth function moves by a step times its slope, a jump by much more.
    jumps = torch.zeros(len(GRID) - 1, dtype=torch.bool)
    for function, slope in (("value", "derivative"), ("derivative", "second_derivative")):
        steepest = float(getattr(activation, slope)(GRID).abs().max())
        jumps |= getattr(activation, function)(GRID).diff().abs() > 2 * step * max(1, steepest)
    where = GRID[1:][jumps]
    kinks = torch.tensor(activation.kinks, dtype=torch.float64)
    assert all(bool((kinks - x).abs().min() < 1.5 * step) for x in where)
    assert all(bool((where - kink).abs().min() < 1.5 * step) for kink in kinks)


def test_max_derivative_is_the_known_maximum(case):
    assert case.activation.max_derivative(**case.parameters) == MAX_DERIVATIVE.get(str(case), 1)


@elementwise
def test_no_derivative_exceeds_max_derivative(case):
    greatest = case.activation.max_derivative(**case.parameters)
    assert float(case.derivative(GRID).abs().max()) <= greatest * (1 + 1e-9)


def test_max_derivative_of_learnt_parameters_is_that_of_the_largest():
    weight = torch.tensor([0.5, -3.0, 2.0], requires_grad=True)
    assert catalogue.get("prelu").max_derivative(weight=weight) == 3
    with torch.no_grad():
        weight *= 2
    assert catalogue.get("prelu").max_derivative(weight=weight) == 6


def test_max_derivative_rejects_a_parameter_that_the_activation_does_not_have():
    with pytest.raises(TypeError):
        catalogue.get("sigmoid").max_derivative(negative_slope=0.1)


# ---- surrogates


def test_the_surrogates_are_the_named_ones_each_with_its_paper():
    assert list(catalogue.SURROGATES) == list(SURROGATE_PAPERS)
    for name, paper in SURROGATE_PAPERS.items():
        assert catalogue.SURROGATES[name].key == name
        assert re.match(r"\w[\w ,.]* (19|20)\d\d, ", catalogue.SURROGATES[name].source)
        assert catalogue.SURROGATES[name].source.endswith(paper)


@pytest.mark.parametrize("name", ["Straight-Through", "straight through", "STRAIGHT_THROUGH"])
def test_a_surrogate_is_found_however_it_is_spelled(name):
    assert catalogue.surrogate(name) is catalogue.SURROGATES["straight_through"]


def test_a_surrogate_s_value_has_its_derivative(surrogate_case):
    surrogate = catalogue.SURROGATES[surrogate_case.surrogate]
    x = preactivations().requires_grad_()
    (slope,) = torch.autograd.grad(surrogate.value(x).sum(), x)
    assert_within_ulp(slope, surrogate.derivative(x), scale=surrogate_case.max_derivative())


def test_a_surrogate_s_value_is_the_integral_of_its_derivative(surrogate_case):
    surrogate = catalogue.SURROGATES[surrogate_case.surrogate]
    # Simpson's rule on intervals of 1e-3 that end at the kinks: its error is 1e-12 / 180 times the integral of the
    # fourth derivative, which is below 24 π⁴ for all of these.
    x = torch.linspace(-8, 8, 16001, dtype=torch.float64)
    y = surrogate.derivative(x)
    integral = float(y[0] + 4 * y[1::2].sum() + 2 * y[2:-1:2].sum() + y[-1]) * 1e-3 / 3
    assert math.isclose(integral, float(surrogate.value(x[-1]) - surrogate.value(x[0])), abs_tol=1e-9)


def test_a_surrogate_is_finite_and_flat_at_infinity(surrogate_case):
    surrogate = catalogue.SURROGATES[surrogate_case.surrogate]
    x = torch.tensor([math.inf, -math.inf], dtype=torch.float64)
    assert bool(surrogate.value(x).isfinite().all())
    assert surrogate.derivative(x).tolist() == [0, 0]


def test_a_surrogate_is_symmetric_and_greatest_at_the_threshold(surrogate_case):
    derivative = catalogue.SURROGATES[surrogate_case.surrogate].derivative(GRID)
    assert_within_ulp(derivative, derivative.flip(0), ulp=8)
    assert float(derivative.max()) == float(derivative[800])
    assert bool((derivative >= 0).all())


# ---- functions of two tensors


@pytest.mark.parametrize("key", [key for key, record in catalogue.CATALOGUE.items() if record.pair is not None])
def test_the_partial_derivatives_of_a_pair_are_those_of_its_value(key):
    pair = catalogue.CATALOGUE[key].pair
    first, second = smooth_points(), smooth_points().flip(0) + 0.05
    parameters = {"geglu": ["tanh"], "swiglu": [1.702, 1.6, 1.0]}.get(key, [])
    by_autograd = torch.autograd.functional.vjp(
        lambda first, second: pair.value(first, second, *parameters), (first, second), torch.ones_like(first)
    )[1]
    for actual, expected in zip(pair.partials(first, second, *parameters), by_autograd, strict=True):
        assert_within_ulp(actual, expected, ulp=16, scale=max(1.0, float(expected.abs().max())))
