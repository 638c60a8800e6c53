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
}

#: max |φ'|
MAX_DERIVATIVE = {
    "sigmoid": 0.25,
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


# ---- one name


def test_the_catalogue_has_the_introductory_canon():
    canon = {"sigmoid", "tanh", "relu", "leaky_relu", "softmax", "binary_step", "identity"}
    assert canon <= set(catalogue.CATALOGUE)


def test_one_name_leads_to_function_module_autograd_function_and_kernels(activation):
    assert callable(getattr(functional, activation.key))
    assert activation.key in functional.__all__
    assert modules.MODULES[activation.key] is getattr(modules, activation.name)
    assert activation.name in modules.__all__
    assert getattr(autograd, activation.name).activation is activation
    assert activation.name in autograd.__all__
    assert activation.key in kernels.KERNELS


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
        for implementation_detail in ("input", "self", "args", "kwargs", "inplace", "_stacklevel", "dtype"):
            defaults.pop(implementation_detail, None)
        assert defaults == dict(activation.parameters)


def test_parameters_are_read_from_a_module(case):
    assert case.activation.parameters_of(case.module()) == {**case.activation.parameters, **case.parameters}


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
    for reference, formula in zip((case.value, case.derivative), MATHEMATICS[case.key], strict=True):
        expected = torch.tensor([formula(float(number), **case.parameters) for number in x], dtype=torch.float64)
        assert_within_ulp(reference(x), expected, ulp=8)


def test_softmax_is_the_normalised_exponential():
    x = smooth_points()
    exponentials = [[math.exp(number) for number in row] for row in x.tolist()]
    expected = [[number / sum(row) for number in row] for row in exponentials]
    y = catalogue.get("softmax").value(x, dim=-1)
    assert_within_ulp(y, torch.tensor(expected, dtype=torch.float64))
    assert_within_ulp(catalogue.get("softmax").derivative(x, dim=-1), y - y * y)


def test_derivative_is_the_derivative_of_the_value(torch_case):
    x = smooth_points()
    expected = diagonal(torch_case.value, x)
    assert_within_ulp(torch_case.derivative(x), expected, scale=torch_case.max_derivative())


def test_second_derivative_is_the_derivative_of_the_derivative(case):
    x = smooth_points()
    second = case.activation.second_derivative(x, **case.parameters)
    if case.activation.elementwise:
        expected = torch.func.vmap(torch.func.grad(case.derivative))(x.flatten()).reshape(x.shape)
    else:
        expected = diagonal(lambda x: diagonal_of_softmax(x, case.parameters["dim"]), x)
    assert_within_ulp(second, expected, scale=case.max_derivative())


def diagonal_of_softmax(x, dim):
    y = torch.softmax(x, dim)
    return y - y * y


def test_derivative_at_a_kink_is_torch_s(torch_case):
    for kink in torch_case.activation.kinks:
        x = torch.tensor([kink], dtype=torch.float64, requires_grad=True)
        (expected,) = torch.autograd.grad(torch_case.smooth(x), x)
        assert float(torch_case.derivative(x)) == float(expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_reference_keeps_shape_and_dtype(case, dtype):
    x = smooth_points(dtype)
    for function in (case.activation.value, case.activation.derivative, case.activation.second_derivative):
        result = function(x, **case.parameters)
        assert (result.shape, result.dtype) == (x.shape, dtype)


@pytest.mark.parametrize("slope", [0.1, 1 / 3, -0.7])
def test_the_float64_reference_has_float64_parameters(slope):
    minus_one = torch.tensor([-1.0], dtype=torch.float64)
    assert catalogue.get("leaky_relu").derivative(minus_one, negative_slope=slope).item() == slope
    assert catalogue.get("leaky_relu").max_derivative(negative_slope=10 * slope) == max(1, abs(10 * slope))


def test_range_is_where_the_values_are_and_how_far_they_get(activation):
    low, high = activation.range
    parameters = {"dim": 0} if activation.key == "softmax" else {}
    far = torch.tensor([-1e9, 1e9, 0.0], dtype=torch.float64)
    grid = torch.stack([GRID, -GRID]) if activation.key == "softmax" else GRID
    for x in (grid, far):
        y = activation.value(x, **parameters)
        assert float(y.min()) >= low
        assert float(y.max()) <= high
    assert float(y.min()) == low if math.isfinite(low) else float(y.min()) < -1e6
    assert float(y.max()) == high if math.isfinite(high) else float(y.max()) > 1e6


def test_monotone_means_that_values_never_fall(activation):
    if activation.elementwise:
        increments = activation.value(GRID).diff()
    else:  # softmax: of one element, the others fixed
        x = torch.stack([GRID, torch.zeros_like(GRID)])
        increments = activation.value(x, dim=0)[0].diff()
    assert activation.monotone == bool((increments >= 0).all())


def test_kinks_are_where_value_or_derivative_jump_and_nowhere_else(activation):
    if not activation.elementwise:
        assert not activation.kinks
        return
    step = float(GRID[1] - GRID[0])
    # From one point of the grid to the next a function with slope of at most 1 moves by one step, a jump by much more.
    jumps = (activation.value(GRID).diff().abs() > 2 * step) | (activation.derivative(GRID).diff().abs() > 2 * step)
    where = GRID[1:][jumps]
    kinks = torch.tensor(activation.kinks, dtype=torch.float64)
    assert all(bool((kinks - x).abs().min() < 1.5 * step) for x in where)
    assert all(bool((where - kink).abs().min() < 1.5 * step) for kink in kinks)


def test_max_derivative_is_the_known_maximum(case):
    assert case.max_derivative() == MAX_DERIVATIVE.get(str(case), 1)


@elementwise
def test_no_derivative_exceeds_max_derivative(case):
    assert float(case.derivative(GRID).abs().max()) <= case.max_derivative()


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
