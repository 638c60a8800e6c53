"""The kernels of each activation against the float64 reference."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.conftest import (
    CASES,
    assert_grad_within_ulp,
    assert_same,
    assert_value_within_ulp,
    assert_within_ulp,
    noise_like,
    preactivations,
)
from torchact import catalogue, kernels


def table(case):
    return kernels.PAIR_KERNELS if case.pair else kernels.KERNELS


SILU = next(case for case in CASES if case.key == "silu")


def run_forward(case, x):
    return table(case)[case.key].forward(*case.operands(x), *case.positional)


def run_backward(case, grad_output, x, y):
    """Run the backward kernel of ``case`` and return the gradient of ``x``."""
    backward = table(case)[case.key].backward
    if case.activation.saves == "nothing":
        return backward(grad_output)
    if case.activation.saves == "output":
        return backward(grad_output, y, *case.positional)
    grad_input = backward(grad_output, *case.operands(x), *case.positional)
    if case.activation.kind == "gated":
        halves = catalogue.in_order(*grad_input, case.parameters.get("gate", "second"))
        return torch.cat(halves, case.parameters["dim"]).to(x.dtype)
    return grad_input[0].to(x.dtype) if case.learnt else grad_input


def test_every_activation_has_kernels_and_nothing_else_has():
    assert set(kernels.KERNELS) | set(kernels.PAIR_KERNELS) | {"softmax2d"} == set(catalogue.CATALOGUE)
    assert set(kernels.PAIR_KERNELS) == {record.key for record in catalogue.CATALOGUE.values() if record.pair}


def test_the_forward_kernel_computes_the_value(case, dtype):
    x = preactivations(dtype)
    y = run_forward(case, x)
    assert y.dtype == dtype
    assert_value_within_ulp(case, x, y)


def test_the_backward_kernel_computes_the_derivative_times_grad_output(case, dtype):
    x = preactivations(dtype)
    y = run_forward(case, x)
    grad_output = noise_like(y)
    grad_input = run_backward(case, grad_output, x, y)
    assert grad_input.dtype == dtype
    assert_grad_within_ulp(case, x, grad_output, grad_input)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_kernels_return_a_new_tensor_and_leave_their_arguments_alone(case, dtype):
    x = preactivations(dtype)
    y = run_forward(case, x)
    grad_output = noise_like(y)
    before = [argument.clone() for argument in (x, grad_output, y)]
    grad_input = run_backward(case, grad_output, x, y)
    for argument, copy in zip((x, grad_output, y), before, strict=True):
        assert_same(argument, copy)
        assert grad_input.data_ptr() != argument.data_ptr()
    assert y.data_ptr() != x.data_ptr()


def test_kernels_compute_half_types_in_wider_arithmetic(surrogate_case):
    # One rounding, of the result, leaves half a unit in the last place; rounding at every step leaves several.
    for dtype in (torch.bfloat16, torch.float16):
        x = preactivations(dtype)
        grad_input = run_backward(surrogate_case, torch.ones_like(x), x, None)
        assert_within_ulp(grad_input, surrogate_case.derivative(x), ulp=0.51)


class Dtypes(TorchDispatchMode):
    """Records the floating dtypes that operators return."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, operator, types, arguments=(), keywords=None):
        result = operator(*arguments, **(keywords or {}))
        self.seen |= {leaf.dtype for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)}
        return result


def test_kernels_on_other_devices_compute_in_float32(case):
    # On the CPU float64 costs twice as much, on a GPU up to 64 times.
    for dtype in (torch.float32, torch.bfloat16):
        x = preactivations(dtype).to("meta")
        with Dtypes() as dtypes:
            y = run_forward(case, x)
            grad_input = run_backward(case, torch.empty_like(y), x, y)
        assert (y.dtype, grad_input.dtype, grad_input.shape) == (dtype, dtype, x.shape)
        assert dtypes.seen <= {dtype, torch.float32, torch.bool}


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_the_step_s_derivative_is_exactly_zero_whatever_it_multiplies(value):
    grad_output = torch.full((3,), value)
    grad_input = kernels.KERNELS["binary_step"].backward(grad_output, torch.tensor([-1.0, 0.0, 1.0]), None)
    assert_same(grad_input, torch.zeros(3))


# ---- tables of half types

ROUNDED = [case for case in CASES if not case.pair and "rounded_once" in table(case)[case.key].forward.__qualname__]
half_types = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)


def all_numbers(dtype):
    return torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(dtype)


@half_types
@pytest.mark.parametrize("case", ROUNDED, ids=str)
def test_what_is_looked_up_is_what_would_be_computed_bit_for_bit(case, dtype):
    x = all_numbers(dtype)
    y = run_forward(case, x)
    grad_output = noise_like(x)
    grad_input = run_backward(case, grad_output, x, y)
    for part in range(0, 2**16, 2**14):  # too few to be looked up
        few = slice(part, part + 2**14)
        expected = run_forward(case, x[few])
        assert_same(y[few], expected)
        assert_same(y[few].signbit()[y[few] == 0], expected.signbit()[expected == 0])
        assert_same(grad_input[few], run_backward(case, grad_output[few], x[few], expected))


def test_a_table_is_made_once_and_from_plain_numbers_whoever_asks_first():
    x = all_numbers(torch.bfloat16).reshape(4, -1)
    expected = run_forward(SILU, x[:2]), run_forward(SILU, x[2:])
    kernels._table.cache_clear()
    with torch.inference_mode():
        assert_same(run_forward(SILU, x), torch.cat(expected))
    with Dtypes():  # a mode might be one of fake tensors
        assert_same(run_forward(SILU, x), torch.cat(expected))
    y = run_forward(SILU, x)
    assert not y.is_inference()
    assert_same(y, torch.cat(expected))
    assert kernels._table.cache_info().misses == 1


def test_what_does_not_lie_side_by_side_keeps_its_strides():
    x = all_numbers(torch.bfloat16).reshape(256, 256)
    y = run_forward(SILU, x.t())
    assert y.stride() == x.t().stride()
    assert_same(y.t(), run_forward(SILU, x))


def test_large_tensors_are_computed_piece_by_piece_with_the_same_result(monkeypatch):
    x = preactivations(torch.float32)
    expected = run_forward(SILU, x)
    grad_output = noise_like(x)
    expected_grad = run_backward(SILU, grad_output, x, expected)
    monkeypatch.setattr(kernels, "_PIECE", 100)
    assert_same(run_forward(SILU, x), expected)
    assert_same(run_backward(SILU, grad_output, x, expected), expected_grad)
    assert_same(run_forward(SILU, x.t()), expected.t())
