"""A user's own activation: what a definition must satisfy, what is found out of it, and that it is one like any other.

The common suite runs on definitions too: each of its tests that :data:`COMMON` names, with the cases of this file.
"""

import copy
import gc
import inspect
import math
import os
import pickle
import subprocess
import sys
import types
import weakref
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import torchact
from tests import test_autograd, test_catalogue, test_functional, test_kernels, test_modules
from tests.conftest import (
    Case,
    assert_same,
    extremes,
    noise_like,
    preactivations,
    smooth_points,
    value_and_grad,
)
from torchact import catalogue, functional, kernels, modules, theory
from torchact.definition import define, undefine

ROOT = Path(__file__).parent.parent
X = smooth_points()


def bent(x):
    return (torch.sqrt(x * x + 1) - 1) / 2 + x


def bent_derivative(x):
    return x / (2 * torch.sqrt(x * x + 1)) + 1


def corner(x, place=0.75, slope=0.25):
    return torch.where(x > place, x, place + slope * (x - place))


def corner_derivative(x, place=0.75, slope=0.25):
    return torch.where(x > place, torch.ones_like(x), slope)


def hyperbola(x, *, lean=0.5, softness=1.0):
    return lean * x + torch.sqrt(x * x + softness)


#: One with its derivative, one without, one with a kink and parameters, one with parameters by keyword only.
DEFINITIONS = {
    "bent_identity": {"value": bent, "derivative": bent_derivative, "aliases": ("bentid",)},
    "bell_wave": {"value": lambda x: torch.sin(x) * torch.exp(-x * x / 8)},
    "corner": {"value": corner, "derivative": corner_derivative},
    "hyperbola": {"value": hyperbola},
}
CHOICES = [
    ("bent_identity", {}),
    ("bell_wave", {}),
    ("corner", {}),
    ("corner", {"place": -1.0, "slope": -0.5}),
    ("hyperbola", {"softness": 2.0}),
]


@pytest.fixture(autouse=True, scope="module")
def definitions():
    """Define the activations of this file while its tests run."""
    for key, arguments in DEFINITIONS.items():
        define(key, **arguments)
    yield
    for key in DEFINITIONS:
        undefine(key)


@pytest.fixture(autouse=True)
def _nothing_stays():
    """Forget what a test has defined."""
    yield
    for key in [key for key, record in catalogue.CATALOGUE.items() if record.origin and key not in DEFINITIONS]:
        undefine(key)


@dataclass(frozen=True, eq=False)
class OwnCase(Case):
    """A definition with its parameters chosen."""

    @property
    def function(self):
        return modules.MODULES[self.key]._function


@pytest.fixture(params=CHOICES, ids=lambda choice: "-".join([choice[0], *map(str, choice[1].values())]))
def case(request):
    """Every definition, in place of every activation of the catalogue."""
    key, parameters = request.param
    return OwnCase(catalogue.CATALOGUE[key], parameters)


@pytest.fixture
def cases():
    """All definitions, in place of the groups that are compiled together."""
    return [OwnCase(catalogue.CATALOGUE[key], parameters) for key, parameters in CHOICES]


@pytest.fixture(params=DEFINITIONS)
def activation(request):
    """The record of every definition."""
    return catalogue.CATALOGUE[request.param]


# ---- the common suite

COMMON = {
    test_autograd: """
        test_ordinary_training_takes_the_function
        test_without_a_gradient_the_forward_kernel_runs_alone
        test_the_backward_kernel_serves_first_derivatives_and_the_pullback_all_others
        test_the_function_saves_what_the_record_says_and_nothing_else
        test_gradients_are_exact_when_saved_tensors_are_packed_away
        test_a_graph_can_be_used_twice_only_if_it_is_retained
        test_only_a_part_of_the_network_may_need_a_gradient
        test_gradcheck
        test_gradgradcheck
        test_derivatives_to_third_order_by_create_graph
        test_gradients_with_create_graph_are_as_accurate_as_without
        test_third_derivatives_by_every_nesting_of_jacobians
        test_autograd_functional
        test_transforms_give_the_derivatives
        test_transforms_give_the_value_beside_the_derivative
        test_vmap_maps_over_any_dimension_and_nests
        test_a_graph_made_outside_is_differentiated_inside_vmap
        test_batched_gradients_are_the_gradients_one_by_one
        test_forward_over_reverse_of_dual_numbers
        test_a_graph_made_outside_takes_dual_gradients
        test_checkpointing_changes_no_gradient
        test_compiled_in_a_model_the_gradients_are_those_of_eager_mode
        test_compiled_autograd_traces_the_backward_of_a_graph_made_in_eager_mode
        test_transforms_inside_a_compiled_function_give_the_derivatives
        test_a_traced_model_is_a_plain_graph_of_aten_operators
    """,
    test_catalogue: """
        test_every_name_and_alias_is_found_however_it_is_spelled
        test_records_cannot_be_changed
        test_parameters_are_those_of_the_function_and_of_the_module_with_the_same_defaults
        test_parameters_are_read_from_a_module
        test_second_derivative_is_the_derivative_of_the_derivative
        test_the_reference_keeps_shape_and_dtype
        test_range_is_where_the_values_are_and_how_far_they_get
        test_monotone_means_that_values_never_fall
        test_kinks_are_where_value_or_derivative_jump_and_nowhere_else
        test_no_derivative_exceeds_max_derivative
    """,
    test_functional: """
        test_the_docstring_has_formula_derivative_range_and_source
        test_values_are_the_reference_s
        test_gradients_are_the_reference_s
        test_a_parameter_is_a_tensor_like_any_other
        test_a_subclass_goes_through_with_its_gradient
        test_meta_tensors_have_the_shape_dtype_and_strides_of_real_ones
        test_fake_tensors_stay_fake
    """,
    test_kernels: """
        test_the_forward_kernel_computes_the_value
        test_the_backward_kernel_computes_the_derivative_times_grad_output
        test_kernels_return_a_new_tensor_and_leave_their_arguments_alone
        test_kernels_on_other_devices_compute_in_float32
    """,
    test_modules: """
        test_the_docstring_has_formula_and_source
        test_forward_is_the_function_with_the_module_s_parameters
        test_traced_symbolically_a_module_computes_the_same
        test_the_only_state_is_what_is_learnt
        test_a_copy_computes_the_same
        test_the_activation_of_a_module_is_found_for_ours_torch_s_and_subclasses
        test_a_module_is_made_by_any_of_its_names
    """,
}


def with_cases_of_this_file(test):
    """Return a test of the common suite without the choice of cases that it may have of its own."""
    twin = types.FunctionType(test.__code__, test.__globals__, test.__name__, test.__defaults__, test.__closure__)
    twin.pytestmark = [
        mark
        for mark in getattr(test, "pytestmark", [])
        if mark.name != "parametrize" or mark.args[0] not in ("case", "cases", "activation")
    ]
    return twin


for _suite, _names in COMMON.items():
    for _name in _names.split():
        globals()[_name] = with_cases_of_this_file(getattr(_suite, _name))


# ---- what the common suite leaves to those of the catalogue


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_values_and_gradients_are_rounded_once(case, dtype):
    x = preactivations(dtype)
    y, slope = value_and_grad(case.ours, x, torch.ones_like(x))
    assert_same(y, case.value(x).to(dtype))
    assert_same(slope, case.derivative(x).to(dtype))


def test_a_zero_dimensional_an_empty_and_a_transposed_tensor_keep_their_form(case):
    for x in (torch.tensor(0.5), torch.empty(2, 0, 3), torch.linspace(-3, 3, 12).reshape(3, 4).t()):
        y, grad_input = value_and_grad(case.ours, x)
        assert y.shape == grad_input.shape == x.shape
        assert y.stride() == grad_input.stride() == x.stride()


def test_extreme_numbers_have_the_formula_s_values(case):
    for dtype in (torch.float64, torch.bfloat16):
        x = extremes(dtype)
        y, slope = value_and_grad(case.ours, x, torch.ones_like(x))
        assert_same(y, case.value(x).to(dtype))
        assert_same(slope, case.derivative(x).to(dtype))


@pytest.mark.parametrize("enabled", [False, True])
def test_autocast_keeps_the_dtype_of_the_input(case, enabled):
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        for dtype in (torch.float32, torch.bfloat16):
            y, grad_input = value_and_grad(case.ours, preactivations(dtype))
            assert y.dtype == grad_input.dtype == dtype
        hidden = nn.Linear(6, 6)(torch.ones(2, 6))
        assert case.ours(hidden).dtype == (torch.bfloat16 if enabled else torch.float32)


@pytest.mark.usefixtures("fresh_dynamo")
def test_compiled_by_inductor_all_of_them_compute_the_same():
    layers = [nn.Linear(6, 6), *(modules.MODULES[key](**parameters) for key, parameters in CHOICES)]
    torch.manual_seed(0)
    model = nn.Sequential(*layers)
    x = noise_like(torch.empty(4, 6))
    expected = value_and_grad(model, x)
    for actual, reference in zip(value_and_grad(torch.compile(model, fullgraph=True), x), expected, strict=True):
        torch.testing.assert_close(actual, reference)


@pytest.mark.usefixtures("fresh_dynamo")
def test_compiled_functions_take_parameters_by_name_and_by_position():
    compiled = torch.compile(lambda x: functional.corner(x, -1.0, slope=0.5), fullgraph=True, backend="aot_eager")
    assert_same(compiled(X), corner(X, -1.0, 0.5))


# ---- what is defined is known everywhere


def test_the_derivatives_are_those_of_the_published_formula():
    x = torch.tensor([-2.0, 0.0, 0.75])
    y, slope = value_and_grad(functional.bent_identity, x, torch.ones(3))
    # (√(x² + 1) - 1) / 2 + x and x / (2√(x² + 1)) + 1 by hand: 0.75² + 1 is 1.25².
    torch.testing.assert_close(y, torch.tensor([(5**0.5 - 1) / 2 - 2, 0.0, 0.875]))
    torch.testing.assert_close(slope, torch.tensor([1 - 5**-0.5, 1.0, 1.3]))


def test_one_name_leads_to_record_function_kernels_and_module(activation):
    module_class = modules.MODULES[activation.key]
    assert catalogue.get(activation.name) is activation
    assert kernels.KERNELS[activation.key] is not None
    assert getattr(functional, activation.key).__name__ == activation.key
    assert getattr(modules, activation.name) is getattr(torchact, activation.name) is module_class
    assert module_class._function.activation is activation
    assert module_class.__name__ == activation.name
    assert activation.origin == module_class.__module__ == __name__


def test_the_registers_can_be_read_only():
    for register in (catalogue.CATALOGUE, catalogue.ALIASES, kernels.KERNELS, modules.MODULES):
        with pytest.raises(TypeError):
            register["bent_identity"] = None


def test_taken_back_nothing_is_left():
    before = registers()
    module = define("passing", value=bent, aliases=("transient",))()
    assert registers() != before
    undefine("passing")
    assert registers() == before
    for place in (functional, modules, torchact):
        assert not hasattr(place, "passing")
        assert not hasattr(place, "Passing")
    assert_same(module(X), bent(X))  # modules that exist go on
    with pytest.raises(ValueError, match=r"key: 'passing' is not defined; expected one of \['bent_identity'"):
        undefine("passing")
    with pytest.raises(ValueError, match="key: 'relu' is not defined"):
        undefine("relu")


def registers():
    """Return what is registered."""
    return (
        list(catalogue.CATALOGUE),
        dict(catalogue.ALIASES),
        list(kernels.KERNELS),
        list(modules.MODULES),
        list(functional.__all__),
        list(modules.__all__),
        sorted(vars(functional)),
        sorted(vars(modules)),
        sorted(vars(torchact)),
    )


def test_the_function_and_the_module_have_the_parameters_in_their_signature():
    assert str(inspect.signature(functional.corner)) == "(input, place=0.75, slope=0.25)"
    assert str(inspect.signature(modules.MODULES["corner"])) == "(place=0.75, slope=0.25)"
    assert repr(modules.create("corner", slope=0.5)) == "Corner(place=0.75, slope=0.5)"
    assert repr(modules.create("bent_identity")) == "BentIdentity()"
    assert_same(functional.hyperbola(X, 2.0, softness=3.0), hyperbola(X, lean=2.0, softness=3.0))
    assert_same(functional.hyperbola(input=X), hyperbola(X))


@pytest.mark.parametrize(
    "call", [lambda *a, **k: functional.corner(X, *a, **k), lambda *a, **k: torchact.Corner(*a, **k)]
)
@pytest.mark.parametrize(
    ("positional", "named", "message"),
    [
        ((1.0,), {"place": 2.0}, "got parameter 'place' twice"),
        ((), {"alpha": 2.0}, r"expected parameters among \['place', 'slope'\], got 'alpha'"),
        ((1.0, 2.0, 3.0), {}, "expected at most 2 parameters, got 3"),
    ],
)
def test_parameters_that_it_does_not_have_are_refused(call, positional, named, message):
    with pytest.raises(TypeError, match=f"(corner|Corner): {message}"):
        call(*positional, **named)


def test_a_parameter_that_is_a_tensor_is_learnt():
    module = torchact.Hyperbola(lean=nn.Parameter(torch.tensor(0.5)))
    x = torch.tensor([0.0, -2.0], requires_grad=True)
    module(x).sum().backward()
    assert float(module.lean.grad) == -2  # of lean · x
    torch.testing.assert_close(x.grad, torch.tensor([0.5, 0.5 - 2 / 5**0.5]))
    assert list(module.state_dict()) == ["lean"]
    assert repr(module) == "Hyperbola(softness=1.0)"
    assert catalogue.get("hyperbola").max_derivative(lean=module.lean) > 1.4


def test_documentation_without_formulas_names_the_activation_and_where_it_is_defined():
    documentation = inspect.getdoc(torchact.BentIdentity)
    assert r".. math:: \operatorname{bent\_identity}(x)" in documentation
    assert f"Source: defined in ``{__name__}``." in documentation
    define("documented", value=bent, formula="x^2", derivative_formula="2 x", source="Somebody 2020, A paper")
    documentation = inspect.getdoc(functional.documented)
    assert ".. math:: x^2" in documentation
    assert "Derivative: :math:`2 x`. Range: (-inf, inf)." in documentation
    assert "Source: Somebody 2020, A paper." in documentation


# ---- what treats it like one of the catalogue


def test_a_model_is_converted_to_it_and_from_it():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True), nn.Tanh())
    report = torchact.convert(model, {nn.ReLU: "bent identity", "tanh": torchact.Corner})
    assert [type(layer).__name__ for layer in model] == ["Linear", "BentIdentity", "Corner"]
    assert [replaced.after for replaced in report.replaced] == ["torchact.BentIdentity", "torchact.Corner"]
    assert model[2].slope == 0.25
    assert not torchact.convert(model).replaced  # they are torchact's already
    torchact.convert(model, {"bent_identity": nn.ReLU, torchact.Corner: "hyperbola"})
    assert [type(layer).__name__ for layer in model] == ["Linear", "ReLU", "Hyperbola"]


def test_a_model_is_converted_by_the_name_of_another_module(package):
    model = nn.Sequential(nn.ReLU())
    torchact.convert(model, {nn.ReLU: f"{package}.my_module:arch"})
    assert type(model[0]).__name__ == "Arch"


def test_the_monitor_measures_its_saturation():
    define("flat_top", value=lambda x: torch.where(x.abs() < 1, x, torch.sign(x)))
    linear = nn.Linear(4, 4)
    nn.init.constant_(linear.bias, 100.0)
    report = torchact.diagnose(
        nn.Sequential(linear, torchact.FlatTop(), nn.Linear(4, 1)), F.mse_loss, torch.randn(8, 4), torch.ones(8, 1)
    )
    layer = next(layer for layer in report.reading.layers if layer.activation == "flat_top")
    assert layer.saturated_fraction == 1
    assert layer.output.mean == 1


def test_the_theory_takes_it_with_its_kinks_and_parameters():
    key = "corner"
    expected = theory.nonlinearity(lambda x: corner(x, -1.0), kinks=(-1.0,))
    for q in (0.3, 7.0):
        wanted = theory.second_moment(expected, q), theory.mean_square_derivative(expected, q)
        for phi in (theory.nonlinearity(key, place=-1.0), torchact.Corner(-1.0)):
            assert theory.second_moment(phi, q) == pytest.approx(wanted[0], rel=1e-12)
            assert theory.mean_square_derivative(phi, q) == pytest.approx(wanted[1], rel=1e-12)
    assert theory.chi("bell_wave", 1.0, 1.0) > 0


# ---- what is found out


@pytest.mark.parametrize(
    ("value", "bounds", "monotone", "kinks"),
    [
        (torch.tanh, (-1, 1), True, ()),
        (torch.sin, (-1, 1), False, ()),
        (torch.atan, (-math.pi / 2, math.pi / 2), True, ()),
        (torch.exp, (0, math.inf), True, ()),
        (torch.abs, (0, math.inf), False, (0,)),
        (torch.neg, (-math.inf, math.inf), False, ()),
        (F.silu, (-0.27846454276107374, math.inf), False, ()),
        (F.hardswish, (-0.375, math.inf), False, (-3, 3)),
        (torch.zeros_like, (0, 0), True, ()),
        (lambda x: F.elu(x, alpha=2.0), (-2, math.inf), True, (0,)),
        (lambda x: torch.sign(x) * torch.log1p(x.abs()), (-math.inf, math.inf), True, (0,)),
        (lambda x: torch.log1p(torch.log1p(x.abs())), (0, math.inf), False, (0,)),
        (lambda x: -1 / (1 + torch.log1p(x.abs())), (-1, 0), False, (0,)),
        (lambda x: x * torch.sin(x), (-math.inf, math.inf), False, ()),
        (lambda x: x + torch.sin(x), (-math.inf, math.inf), True, ()),
        (lambda x: 1 / (1 + x * x), (0, 1), False, ()),
        (lambda x: torch.relu(x) ** 2, (0, math.inf), True, ()),
        (lambda x: (x > 1 / 3).to(x.dtype), (0, 1), True, (1 / 3,)),
        (lambda x: torch.relu(x - 0.1) + torch.relu(x - 50.3), (0, math.inf), True, (0.1, 50.3)),
    ],
)
def test_range_monotonicity_and_kinks_are_found(value, bounds, monotone, kinks):
    define("examined", value=value)
    record = catalogue.get("examined")
    # Where a limit is approached as slowly as 1 / log x, no number comes near it.
    assert record.range == pytest.approx(bounds, abs=1e-12 if bounds != (-1, 0) else 0.01)
    assert record.monotone is monotone
    assert record.kinks == pytest.approx(kinks, abs=1e-15)


def test_a_kink_moves_with_its_parameter_and_has_the_plainest_spelling():
    record = catalogue.get("corner")
    assert record.kinks == (0.75,)
    assert record.kinks_with(place=0.1) == (0.1,)
    assert record.kinks_with(place=-2.0, slope=1.0) == ()


def test_stated_kinks_stay_and_others_are_added():
    define("stated", value=lambda x, place=1 / 3: torch.relu(x - place) + x.abs(), kinks=lambda place: (place, 1000.0))
    assert catalogue.get("stated").kinks == (0.0, 1 / 3, 1000.0)
    assert catalogue.get("stated").kinks_with(place=0.7) == (0.0, 0.7, 1000.0)


def test_what_is_stated_of_range_and_monotonicity_counts():
    define("stated", value=torch.tanh, range=(-2, 2), monotone=False)
    assert catalogue.get("stated").range == (-2.0, 2.0)
    assert catalogue.get("stated").monotone is False


def test_the_greatest_derivative_is_found():
    assert catalogue.get("bent_identity").max_derivative() == pytest.approx(1.5)
    assert catalogue.get("corner").max_derivative(slope=-3.0) == 3


# ---- what is refused


def with_slope(factor):
    return {"value": bent, "derivative": lambda x: bent_derivative(x) * factor}


def on_shifted_numbers(x, count=1, doubled=False):
    return count * torch.tanh(x) * (2 if doubled else 1)


def tanh_derivative(x):
    return 1 - torch.tanh(x) ** 2


_learnt = nn.Parameter(torch.tensor(2.0))

REFUSED = {
    "value by numpy": (
        {"value": lambda x: torch.from_numpy(np.tanh(x.detach().numpy()))},
        r"value: autograd does not see all of it; at x = .* derivative by autograd is 0, but differences give 0\.99",
    ),
    "value that is half detached": (
        {"value": lambda x: torch.relu(x) * torch.tanh(x.data)},
        "value: autograd does not see all of it; at x = ",
    ),
    "value by numpy with its derivative": (
        {"value": lambda x: torch.from_numpy(np.tanh(x.detach().numpy())), "derivative": tanh_derivative},
        "value: autograd does not see all of it; at x = ",
    ),
    "value detached with another number": (
        {"value": lambda x, order=1: torch.tanh(x) if order == 1 else torch.tanh(x.detach())},
        "value with order=2: autograd does not see all of it",
    ),
    "value with a tensor that is learnt": (
        {"value": lambda x: torch.tanh(_learnt * x)},
        "value: it depends on a tensor that requires grad; make that a parameter",
    ),
    "derivative wrong for another integer": (
        {"value": on_shifted_numbers, "derivative": lambda x, count=1, doubled=False: tanh_derivative(x)},
        "derivative with count=2, doubled=False: at x = ",
    ),
    "derivative wrong for another truth value": (
        {"value": on_shifted_numbers, "derivative": lambda x, count=1, doubled=False: count * tanh_derivative(x)},
        "derivative with count=2, doubled=True: at x = ",
    ),
    "a parameter with a leading underscore": (
        {"value": lambda x, _usual=2.0: _usual * x},
        "parameters: expected names without a leading underscore, such as 'alpha', got '_usual'",
    ),
    "a parameter with a leading underscore that is given": (
        {"value": lambda x, **named: x * 1, "parameters": {"_function": 1.0}},
        "parameters: expected names without a leading underscore, such as 'alpha', got '_function'",
    ),
    "wrong derivative": (
        {"value": bent, "derivative": lambda x: x / (2 * torch.sqrt(x * x + 1)) - 1},
        r"derivative: at x = .* it gives .*, but φ' by autograd of value is ",
    ),
    "derivative wrong by a millionth": (with_slope(1 + 1e-6), "derivative: at x = "),
    "derivative wrong on one side": (
        {"value": torch.tanh, "derivative": lambda x: torch.where(x > -0.5, 1 - torch.tanh(x) ** 2, 0.0)},
        r"derivative: at x = -0\.5\d* it gives 0, but φ' by autograd of value is 0\.77",
    ),
    "derivative wrong at a point that is no kink": (
        {"value": torch.tanh, "derivative": lambda x: (1 - torch.tanh(x) ** 2) * (x != 0)},
        "derivative: at x = 0 it gives 0, but φ' by autograd of value is 1",
    ),
    "derivative wrong far outside": (
        {"value": F.softsign, "derivative": lambda x: torch.where(x.abs() < 500, (1 + x.abs()) ** -2.0, 1.0)},
        r"derivative: at x = -1000 it gives 1, but φ' by autograd of value is 9\.98",
    ),
    "derivative wrong for other parameters": (
        {"value": corner, "derivative": lambda x, place=0.75, slope=0.25: corner_derivative(x, place)},
        r"derivative with place=0\.90625, slope=0\.34375: at x = .* it gives 0\.25, but .* is 0\.34375",
    ),
    "derivative without a derivative": (
        {"value": bent, "derivative": lambda x: bent_derivative(x.detach())},
        r"derivative, differentiated by autograd: at x = .* it gives 0, but φ'' by autograd of value is 0\.",
    ),
    "wrong second derivative": (
        {"value": torch.sin, "second_derivative": torch.sin},
        r"second_derivative: at x = .* it gives .*, but φ'' by autograd of value is ",
    ),
    "derivative of another shape": (
        {"value": bent, "derivative": lambda x: bent_derivative(x).sum()},
        r"derivative: expected a tensor like its input, of a float64 tensor of shape \(12,\) it returned a float64 "
        r"tensor of shape \(\)",
    ),
    "derivative of another dtype": (
        {"value": bent, "derivative": lambda x: bent_derivative(x).float()},
        r"derivative: expected a tensor like its input, .* it returned a float32 tensor of shape \(12,\)",
    ),
    "derivative that is a number": ({"value": torch.clone, "derivative": lambda x: 1.0}, "derivative: .* returned 1.0"),
    "derivative with other parameters": (
        {"value": corner, "derivative": lambda x: x},
        "derivative: expected a function of a tensor with place=0.75, slope=0.25; .* it raised TypeError",
    ),
    "derivative with NaN": (
        {"value": torch.abs, "derivative": lambda x: x / x.abs()},
        "derivative: expected a number at every x from -100 to 100, got NaN at x = 0 in float64",
    ),
    "softmax": ({"value": lambda x: torch.softmax(x, -1)}, "value: expected an elementwise function, .* at x = -3.7 "),
    "mean": ({"value": lambda x: x - x.mean()}, "value: expected an elementwise function"),
    "cumulated": ({"value": lambda x: torch.cumsum(x, -1)}, "value: expected an elementwise function.* x = 2.3 "),
    "reversed": ({"value": lambda x: torch.flip(x, (0,))}, "value: expected an elementwise function"),
    "random": ({"value": lambda x: F.dropout(x * 1)}, "value: expected an elementwise function"),
    "shape": ({"value": lambda x: x.flatten()[:1] * 1}, r"value: expected a tensor like its input, .* of shape \(1,\)"),
    "dtype": ({"value": lambda x: x.double() * 2}, "value: .* of a float32 tensor .* it returned a float64 tensor"),
    "no tensor": ({"value": lambda x: 3}, "value: expected a tensor like its input, .* it returned 3"),
    "in place": ({"value": lambda x: x.tanh_()}, "value: expected its input unchanged; it writes into it"),
    "its input": ({"value": lambda x: x}, "value: expected a new tensor, it returned its input"),
    "a condition": (
        {"value": lambda x: x if x > 0 else -x},
        r"value: expected a function of a tensor; of a float64 tensor of shape \(12,\) it raised RuntimeError: Boolean",
    ),
    "NaN": ({"value": lambda x: torch.sqrt(x)}, r"value: .* got NaN at x = -0\.015625 in float64"),
    "NaN in float32": (
        {"value": lambda x: torch.exp(x) / (1 + torch.exp(x))},
        r"value: .* got NaN at x = 88\.\d+ in float32",
    ),
    "NaN by autograd": (
        {"value": lambda x: torch.where(x > 0, torch.sqrt(x), 0.0)},
        "value, differentiated by autograd: .* got NaN at x = -?0.* torch.where passes on",
    ),
    "a parameter without a value": (
        {"value": lambda x, alpha: alpha * x},
        r"value: parameter 'alpha' has no usual value; give it in parameters=\{...\}",
    ),
    "a parameter that value does not take": (
        {"value": bent, "parameters": {"alpha": 1.0}},
        "value: expected a function of a tensor with alpha=1.0; .* it raised TypeError",
    ),
    "a parameter with a module's name": (
        {"value": lambda x, training=True: x * 1},
        "parameters: expected names that a torch.nn.Module leaves free, got 'training'",
    ),
    "a parameter that is a list": (
        {"value": lambda x, places=(): x * 1},
        r"parameters: expected 'places' to be a number, a string or None, got \(\)",
    ),
    "range": (
        {"value": torch.tanh, "range": (0, 1)},
        r"range: expected bounds that value keeps, got \(0, 1\); it goes",
    ),
    "no range": ({"value": torch.tanh, "range": 1}, "range: expected infimum and supremum of value, got 1"),
    "monotone": (
        {"value": torch.sin, "monotone": True},
        "monotone: expected False, got True; value falls left of x = ",
    ),
    "kinks": ({"value": torch.tanh, "kinks": (math.nan,)}, r"kinks: expected finite numbers, got \[nan\]"),
    "name": ({"value": bent, "name": "Bent Identity"}, "name: expected an identifier, .* got 'Bent Identity'"),
    "name that is taken": ({"value": bent, "name": "ReLU"}, "name: 'ReLU' is a name of 'relu'; choose another"),
    "alias that is taken": ({"value": bent, "aliases": ["lrelu"]}, "aliases: 'lrelu' is a name of 'leaky_relu'"),
    "alias without letters": ({"value": bent, "aliases": ["?"]}, "aliases: expected names with letters or digits"),
    "name in use": ({"value": bent, "name": "Tensor"}, "name: 'Tensor' means something else in torchact.modules"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_a_definition_that_is_wrong_is_refused_and_leaves_nothing_behind(arguments, message):
    before = registers()
    with pytest.raises(ValueError, match=message):
        define("refused", **arguments)
    assert registers() == before


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("relu", "key: 'relu' is torchact's own; choose another"),
        ("re_lu", "key: 're_lu' is a name of 'relu'; choose another"),
        ("lrelu", "key: 'lrelu' is a name of 'leaky_relu'; choose another"),
        ("bentid", "key: 'bentid' is a name of 'bent_identity'; choose another"),
        ("Bent", "key: expected lower case, got 'Bent'"),
        ("bent identity", "key: expected an identifier, such as 'bent_identity', got 'bent identity'"),
        ("_bent", "key: expected an identifier"),
        ("lambda", "key: expected an identifier"),
        ("", "key: expected an identifier"),
        ("torch", "key: 'torch' means something else in torchact.functional; choose another"),
    ],
)
def test_a_key_that_is_taken_or_no_name_is_refused(key, message):
    before = registers()
    with pytest.raises(ValueError, match=message):
        define(key, value=bent)
    assert registers() == before


@pytest.mark.parametrize(
    ("key", "arguments", "message"),
    [
        (1, {"value": bent}, "key: expected a name .str., got 1 of type int"),
        ("bent", {"value": 1}, "value: expected a function of a tensor, got 1"),
        ("bent", {"value": bent, "derivative": 1}, "derivative: expected a function of a tensor, got 1"),
        (
            "bent",
            {"value": bent, "second_derivative": "x"},
            "second_derivative: expected a function of a tensor, got 'x'",
        ),
        (
            "bent",
            {"value": bent, "aliases": "bents"},
            "aliases: expected a collection of names, got the string 'bents'",
        ),
    ],
)
def test_what_is_of_the_wrong_type_is_refused(key, arguments, message):
    with pytest.raises(TypeError, match=message):
        define(key, **arguments)


@pytest.mark.parametrize("convention", [0.0, 0.25, 1.0])
def test_at_a_kink_the_derivative_is_up_to_the_user(convention):
    def derivative(x):
        return torch.where(x == 0, convention, (x > 0).to(x.dtype))

    define("ramp", value=torch.relu, derivative=derivative)
    _, slope = value_and_grad(functional.ramp, torch.zeros(1), torch.ones(1))
    assert float(slope) == convention


@pytest.mark.parametrize(
    "value",
    [
        torch.floor,
        lambda x: torch.round(x * 1024) / 1024,  # it jumps within each of the longer steps
        lambda x: torch.erf(x.float()).to(x.dtype),  # whose rounding spoils the shorter ones
        lambda x: 1e-30 * torch.tanh(x),
        lambda x: torch.sin(x) ** 2 + torch.cos(x) ** 2,
        lambda x: torch.sin(100 * x) + 1e3,
        lambda x: x**4,
        lambda x: x.abs().clamp(min=1e-20).sqrt(),
        lambda x: torch.relu(x - 1 / (64 * math.pi)) - torch.relu(-x),  # a kink where differences are taken
    ],
)
def test_jumps_kinks_rounding_and_steep_slopes_are_not_taken_for_what_autograd_does_not_see(value):
    define("seen", value=value)
    assert_same(functional.seen(X.double()), value(X.double()))


def test_other_numbers_that_value_does_not_take_are_not_tried():
    def value(x, order=2, share=1.0, alpha=1.0):
        if order != 2:
            raise ValueError("order")
        return alpha * math.nan * x if share > 1 else alpha * torch.tanh(x)

    def derivative(x, order=2, share=1.0, alpha=1.0):
        return alpha * tanh_derivative(x)

    define("choosy", value=value, derivative=derivative)
    with pytest.raises(ValueError, match=r"derivative with order=2, share=1.0, alpha=1.1875: at x = "):
        define("choosy", value=value, derivative=lambda x, order, share, alpha: tanh_derivative(x))


def test_kinks_are_those_of_every_entry_of_a_parameter():
    module = torchact.Corner(place=nn.Parameter(torch.tensor([0.5, -1.0, 0.5])))
    record = catalogue.get("corner")
    assert record.kinks_with(**record.parameters_of(module)) == (-1.0, 0.5)


# ---- defining again


def test_of_a_definition_that_is_replaced_nothing_stays():
    def defined(slope):
        def value(x):
            return slope * torch.tanh(x)

        module_class = define("rerun", value=value)
        assert catalogue.get("rerun").max_derivative() == slope
        assert modules.activation_of(module_class()) is catalogue.get("rerun")
        assert module_class()(torch.zeros(1)) == 0
        return weakref.ref(value)

    values = [defined(slope) for slope in (1.0, 2.0, 3.0)]
    gc.collect()
    assert [value() is None for value in values] == [True, True, False]


def test_a_pickle_of_a_definition_with_other_parameters_says_so():
    pickled = pickle.dumps(define("changing", value=lambda x, alpha=1.0: alpha * torch.tanh(x))(alpha=2.0))
    assert pickle.loads(pickled).alpha == 2.0
    define("changing", value=lambda x, beta=1.0: beta * torch.tanh(x))
    with pytest.raises(
        ValueError,
        match=r"Changing: it was pickled with the parameters \['alpha'\], but is defined with \['beta'\] here; load it",
    ):
        pickle.loads(pickled)


def test_defining_again_replaces_what_was_defined_here():
    former = define("again", value=torch.tanh, name="Former", aliases=("first",))
    old = former()
    latter = define("again", value=torch.sin)
    assert modules.MODULES["again"] is torchact.Again is latter
    assert not hasattr(torchact, "Former")
    assert_same(old(X), torch.tanh(X))
    assert_same(functional.again(X), torch.sin(X))
    assert modules.activation_of(old).value is torch.tanh  # the monitor still knows the module of before
    with pytest.raises(ValueError, match="unknown name 'first'"):
        catalogue.get("first")
    with pytest.raises(ValueError, match="derivative: "):
        define("again", value=torch.sin, derivative=torch.sin)
    assert modules.MODULES["again"] is latter  # which a definition that fails does not replace


def test_the_key_of_another_module_is_taken_but_for_a_notebook_s():
    define("shared", value=torch.tanh, module="some.module")
    with pytest.raises(
        ValueError, match=r"key: 'shared' is defined by 'some.module' already; choose another for 'other'"
    ):
        define("shared", value=torch.sin, module="other")
    define("shared", value=torch.sin, module="__main__")
    assert catalogue.get("shared").origin == "__main__"
    define("shared", value=torch.cos, module="some.module")
    assert catalogue.get("shared").origin == "some.module"
    assert catalogue.get("shared").importable_name == "some.module:shared"
    assert catalogue.get("relu").importable_name == "relu"


# ---- names in other modules, other processes

MODULE = '''
"""Defines activations."""

import torch

import torchact

Rainbow = torchact.define("arch", value=lambda x, height=1.0: height / (1 + x * x))
torchact.define("vault", value=lambda x: torch.exp(-x * x))
'''


@pytest.fixture
def package(tmp_path, monkeypatch, request):
    """The name of a package, of which ``my_module`` defines two activations."""
    name = f"package_{abs(hash(request.node.name))}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "my_module.py").write_text(MODULE)
    (folder / "facade.py").write_text("from .my_module import Rainbow as Bow\n")
    (folder / "nothing.py").write_text("relu = 3\n")
    (folder / "broken.py").write_text("import torchact\ntorchact.define('b', value=lambda x: x.sum())\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    yield name
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[module]


@pytest.mark.parametrize("name", ["my_module:arch", "my_module:Arch", "my_module:Rainbow", "facade:Bow"])
def test_a_name_with_a_module_imports_it(package, name):
    record = catalogue.get(f"{package}.{name}")
    assert record.key == "arch"
    assert record.importable_name == f"{package}.my_module:arch"
    assert catalogue.get("arch") is record is catalogue.get(f"{package}:arch")
    assert repr(modules.create(f"{package}.{name}", height=2.0)) == "Arch(height=2.0)"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "missing:arch",
            r"hidden: cannot import the module of '.*\.missing:arch': ModuleNotFoundError: No module named",
        ),
        ("broken:b", r"hidden: cannot import the module of '.*\.broken:b': ValueError: value: expected a tensor like"),
        ("nothing:relu", r"hidden: module '.*\.nothing' defines no activation, by torchact.define, called 'relu'"),
        (
            "my_module:arc",
            r"hidden in '.*\.my_module': unknown name 'arc'; did you mean 'arch'\? Available: arch, vault",
        ),
        ("my_module:relu", r"hidden in '.*\.my_module': unknown name 'relu'"),
        ("my_module:", r"hidden in '.*\.my_module': unknown name ''"),
    ],
)
def test_a_name_with_a_module_that_leads_nowhere_is_an_error(package, name, message):
    with pytest.raises(ValueError, match=message):
        catalogue.get(f"{package}.{name}", "hidden")


def test_a_name_without_a_module_before_the_colon_is_an_error():
    with pytest.raises(
        ValueError, match="activation: cannot import the module of ':relu': ValueError: Empty module name"
    ):
        catalogue.get(":relu")


def run_python(code, **options):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300, **options
    )


def test_a_pickled_model_is_loaded_where_nothing_was_imported(package, tmp_path):
    model = nn.Sequential(nn.Linear(2, 2), modules.create(f"{package}.my_module:arch", height=2.0))
    torch.save(model, tmp_path / "model.pt")
    outcome = run_python(
        "import torch; model = torch.load('model.pt', weights_only=False)\n"
        "print(model[1], model(torch.ones(2)).tolist())",
        cwd=tmp_path,
    )
    assert outcome.stderr == ""
    assert outcome.stdout.startswith("Arch(height=2.0) ")
    assert eval(outcome.stdout.partition(" ")[2]) == pytest.approx(model(torch.ones(2)).tolist())


LOADING = """
import pickle
with open("model.pkl", "rb") as file:
    model = file.read()
try:
    pickle.loads(model)
except ValueError as error:
    print(error)
import torch, torchact
Other = torchact.define("here", value=torch.tanh)
print(type(pickle.loads(model)) is Other)
"""


def test_where_it_cannot_be_defined_loading_says_what_is_missing(tmp_path):
    define("here", value=torch.tanh, module="__main__")
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(torchact.Here()))
    outcome = run_python(LOADING, cwd=tmp_path)
    assert outcome.stderr == ""
    assert outcome.stdout.startswith(
        "activation: 'here' is not defined here; it was pickled where '__main__' had defined it by torchact.define, "
        "which must happen before it is loaded"
    )
    assert outcome.stdout.endswith("\nTrue\n")


def test_of_two_definitions_with_one_key_a_pickle_means_its_own():
    define("here", value=torch.tanh, module="torch.random")
    pickled = pickle.dumps(torchact.Here())
    undefine("here")
    define("here", value=torch.sin, module="torch.hub")
    with pytest.raises(
        ValueError, match=r"'here' is not defined here; it was pickled where 'torch.random' had defined it"
    ):
        pickle.loads(pickled)
    undefine("here")
    define("here", value=torch.sin, module="torch.random")
    assert type(pickle.loads(pickled)) is torchact.Here


def test_a_class_is_pickled_whatever_it_is_assigned_to_and_so_is_a_subclass(monkeypatch):
    assert pickle.loads(pickle.dumps(torchact.BentIdentity)) is torchact.BentIdentity
    assert copy.deepcopy(torchact.Corner) is torchact.Corner
    subclass = type("Subclass", (torchact.Corner,), {"__module__": __name__})
    monkeypatch.setattr(sys.modules[__name__], "Subclass", subclass, raising=False)
    module = pickle.loads(pickle.dumps(subclass(slope=0.5)))
    assert type(module) is subclass
    assert module.slope == 0.5
    assert modules.activation_of(module) is catalogue.get("corner")


def test_an_experiment_runs_it_in_its_workers(package, monkeypatch, tmp_path):
    from experiments.__main__ import main

    name = f"{package}.my_module:arch"
    command = ["experiments", "depth", "--quick", "--no-tensorboard", "--workers", "2", "--out", str(tmp_path / "out")]
    settings = ["--initialisations", "he", "--depths", "2", "--steps", "2", "--width", "4", "--activations", "relu"]
    monkeypatch.setattr(sys, "argv", [*command, *settings, name])
    main()
    runs = pd.read_csv(tmp_path / "out" / "runs.csv", comment="#")
    assert runs["activation"].tolist() == ["relu", "arch"]
    assert runs["status"].tolist() == ["finished", "finished"]
    assert runs["predicted_ratio_per_layer"].notna().all()
    assert name in (tmp_path / "out" / "summary.json").read_text(encoding="utf-8")


def test_a_worker_that_cannot_define_it_says_so():
    from experiments import sweep
    from experiments.training import RunSettings

    define("here", value=torch.tanh, module="__main__")
    settings = RunSettings(activation="here", initialisation="he", depth=1, seed=0, width=4, steps=1)
    job = sweep.Job(settings, None)
    assert sweep._attempt(sweep._Elsewhere(job, "here")).status == "finished"
    result = sweep._attempt(sweep._Elsewhere(job, "no_such_module:here"))
    assert result.status.startswith("failed: activation: cannot import the module of 'no_such_module:here'")
