"""The promise of docs/accuracy.md, at all inputs of the half types and at 2^22 of float32."""

import dataclasses
import itertools
import math
from pathlib import Path

import pytest
import torch
from torch.func import grad, vmap
from torch.testing import assert_close

from benchmarks.accuracy import DTYPES as NARROW
from benchmarks.accuracy import ELEMENTWISE, GATED, LEARNABLE, NORMALISED, SECTIONS, measure
from benchmarks.ulp import error_in_ulp, inputs, random_rows, ulp, value_and_gradients
from tests.conftest import DTYPES, extremes
from torchact import functional

FLOAT32_INPUTS = 2**22
PAGE = (Path(__file__).parent.parent / "docs" / "accuracy.md").read_text(encoding="utf-8")
ELEMENTWISE_SAVING_OUTPUT = [case for case in ELEMENTWISE if case.activation.saves == "output"]
PAIRS = LEARNABLE + GATED

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
narrow_dtype = pytest.mark.parametrize("dtype", NARROW, ids=lambda dtype: str(dtype).removeprefix("torch."))


def cases(*lists):
    return pytest.mark.parametrize("case", list(itertools.chain(*lists)), ids=str)


def ours_alone(case):
    """Return the case without its counterpart, which takes time."""
    return dataclasses.replace(case, theirs=None)


def tiny_in_normal_numbers(results, expected, operands):
    """Return errors in ULP, but of results below 128 times the smallest normal number in multiples of that number."""
    smallest = torch.finfo(results[0].dtype).smallest_normal
    units = (torch.where(exact.abs() < 128 * smallest, smallest, ulp(exact, results[0].dtype)) for exact in expected)
    return tuple(map(error_in_ulp, results, expected, units))


# ---- within the bound


@narrow_dtype
@cases(ELEMENTWISE)
def test_values_and_derivatives_are_within_the_bound(case, dtype):
    (value,), (derivative,) = measure(ours_alone(case), dtype, FLOAT32_INPUTS)
    of_value, of_derivative = case.bound(dtype)
    assert value.error <= of_value, value
    assert value.nan == derivative.nan == 0
    if case.activation.saves != "output":
        assert derivative.error <= of_derivative, derivative


@narrow_dtype
@cases(PAIRS)
def test_functions_of_two_operands_and_both_derivatives_are_within_the_bound(case, dtype):
    case = dataclasses.replace(ours_alone(case), errors=tiny_in_normal_numbers)
    for (worst,), bound in zip(measure(case, dtype, 2**20), (case.bound(dtype) * 2)[:3], strict=True):
        assert worst.error <= bound, worst
        assert worst.nan == 0


def root(derivative):
    """Return the float32 number next to where a derivative changes its sign between -2 and -0.5, or None."""
    low, high = torch.tensor([-2.0, -0.5], dtype=torch.float64)
    if bool(derivative(low) * derivative(high) >= 0):
        return None
    while (low.float() - high.float()).abs() > torch.finfo(torch.float32).eps * 2:
        middle = (low + high) / 2
        low, high = (middle, high) if derivative(middle) * derivative(low) > 0 else (low, middle)
    return low.float()


WITH_ROOT = {"silu", "swish", "quick_gelu", "gelu", "gelu, approximate=tanh", "gelu_tanh", "mish"}


@cases(ELEMENTWISE)
def test_derivatives_are_within_the_bound_next_to_their_roots(case):
    near = root(lambda x: case.reference(x)[1])
    if near is None or case.name.startswith(("sine", "snake")):
        assert case.name not in WITH_ROOT
        return
    assert case.name in WITH_ROOT or case.name == "hardswish"
    x = (near.view(torch.int32) + torch.arange(-(2**14), 2**14, dtype=torch.int32)).view(torch.float32)
    _, derivative = case.results(case.ours, (x,))
    _, expected = case.reference(x.double())
    assert float(error_in_ulp(derivative, expected).max()) <= case.bound(torch.float32)[1]


@narrow_dtype
@cases(NORMALISED)
def test_normalised_rows_are_within_what_torch_s_kernels_reach(case, dtype):
    (value,), (gradient,) = measure(ours_alone(case), dtype, 2**20)
    assert value.error <= (5 if dtype is torch.float32 else 1), value
    assert value.nan == gradient.nan == 0


@narrow_dtype
@pytest.mark.parametrize("length", [64, 127, 3000])
@pytest.mark.parametrize("along", ["rows", "columns"])
@cases([case for case in NORMALISED if case.activation.key != "softmax2d"])
def test_long_rows_and_columns_are_within_the_bound(case, along, length, dtype):
    x, grad_output = next(random_rows(dtype, 130, length))
    if along == "rows":
        results = case.results(case.ours, (x, grad_output))
    else:
        function = getattr(functional, case.activation.key)
        columns = value_and_gradients(lambda x: function(x, dim=0), (x.t().contiguous(),), grad_output.t().contiguous())
        results = tuple(result.t() for result in columns)
    expected = case.reference(x.double(), grad_output.double())
    value, gradient = (error.max() for error in case.errors(results, expected, (x, grad_output)))
    assert value <= (3 if dtype is torch.float32 else 0.51)
    assert gradient <= 1


@every_dtype
@pytest.mark.parametrize("along", ["rows", "columns"])
@pytest.mark.parametrize("key", ["softmax", "softmin", "log_softmax"])
def test_long_rows_and_columns_with_infinities_and_nan_are_torch_s(key, along, dtype):
    x = torch.randn(130, 127, generator=torch.Generator().manual_seed(0)).to(dtype)
    x[0, 5], x[1, 3], x[2, 126] = math.nan, math.inf, -math.inf
    x[3], x[4], x[5, :60] = -math.inf, math.inf, -math.inf
    x, dim = (x, -1) if along == "rows" else (x.t().contiguous(), 0)
    value, expected = (getattr(each, key)(x, dim=dim) for each in (functional, torch.nn.functional))
    some = 16 * torch.finfo(dtype).eps
    assert_close(value, expected, rtol=some, atol=some if key == "log_softmax" else 0, equal_nan=True)


@narrow_dtype
@cases(ELEMENTWISE_SAVING_OUTPUT, NORMALISED)
def test_where_the_output_is_saved_the_greatest_errors_are_no_greater_than_torch_s(case, dtype):
    greatest = torch.zeros(2, 2, dtype=torch.float64)  # of value and derivative, by ours and by theirs
    for operands in case.operands(dtype, 2**20):
        expected = case.reference(*(operand.double() for operand in operands))
        for i, function in enumerate((case.ours, case.theirs)):
            errors = case.errors(case.results(function, operands), expected, operands)
            greatest[:, i] = greatest[:, i].maximum(torch.stack([error.max() for error in errors]))
    (value, their_value), (derivative, their_derivative) = greatest.tolist()
    if case in NORMALISED:  # of half types our output is another, rounded once, and so is what is made of it
        assert value <= max(0.51, their_value, 5 if dtype is torch.float32 else 0)
        assert derivative <= max(0.51, their_derivative)
    else:
        assert value <= max(case.bound(dtype)[0], their_value)
        assert derivative <= their_derivative


# ---- no NaN from finite inputs, by whichever path, and to the second derivative


def finite(dtype):
    """Return all finite numbers of a half type, else 2^16, and the ends of the range."""
    special = extremes(dtype).flatten()
    return torch.cat([*inputs(dtype, 2**16), special[special.isfinite()]])


def finite_pairs(dtype):
    """Return all pairs of numbers at the ends of the range and between."""
    special = extremes(dtype).flatten().unique()
    return torch.cartesian_prod(*[special[special.isfinite()]] * 2).unbind(1)


def finite_rows(dtype):
    return torch.stack(finite_pairs(dtype), dim=1)


def has_nan(tensors):
    return any(bool(tensor.isnan().any()) for tensor in tensors)


@every_dtype
@cases(ELEMENTWISE)
def test_no_finite_input_gives_nan(case, dtype):
    x = finite(dtype)
    assert not has_nan([case.ours(x), *value_and_gradients(case.ours, (x,))])


@every_dtype
@cases(ELEMENTWISE)
def test_no_finite_input_gives_nan_in_the_formula_and_its_derivatives(case, dtype):
    first = grad(case.ours)
    assert not has_nan(vmap(function)(finite(dtype)) for function in (case.ours, first, grad(first)))


@every_dtype
@cases(ELEMENTWISE)
def test_no_finite_input_gives_nan_in_the_second_derivative(case, dtype):
    x = finite(dtype).requires_grad_()
    (first,) = torch.autograd.grad(case.ours(x), x, torch.ones_like(x), create_graph=True)
    if first.requires_grad:  # the derivative of the identity is a constant
        assert not has_nan(torch.autograd.grad(first, x, torch.ones_like(x)))


@every_dtype
@cases(PAIRS)
def test_no_finite_pair_gives_nan(case, dtype):
    first, second = finite_pairs(dtype)
    assert not has_nan(value_and_gradients(case.ours, (first[None], second)))  # a channel each, for a parameter's sake


@every_dtype
@cases(PAIRS)
def test_no_finite_pair_whose_product_is_finite_gives_nan_in_the_formula_s_derivatives(case, dtype):
    first, second = finite_pairs(dtype)
    pairs = [operand[(first * second).isfinite()] for operand in (first, second)]
    assert not has_nan(vmap(grad(case.ours, argnums=(0, 1)))(*pairs))


@every_dtype
@cases(NORMALISED)
def test_no_finite_row_gives_nan(case, dtype):
    rows = finite_rows(dtype)
    ours = case.ours if case.activation.key != "softmax2d" else lambda x: case.ours(x[..., None, None])
    assert not has_nan(value_and_gradients(ours, (rows,)))

    def first_output(row):
        return ours(row).flatten()[0]

    assert not has_nan(vmap(grad(first_output))(rows).unbind())


# ---- the page


@cases(*SECTIONS.values())
def test_the_page_has_a_row_of_each_dtype_for_every_case(case):
    assert PAGE.count(f"\n| `{case}` | `{case.counterpart}` |") == len(NARROW), "run `python -m benchmarks accuracy`"
