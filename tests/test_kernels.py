"""The kernels of each activation against the float64 reference."""

import pytest
import torch

from tests.conftest import (
    assert_grad_within_ulp,
    assert_same,
    assert_value_within_ulp,
    assert_within_ulp,
    noise_like,
    preactivations,
)
from torchact import catalogue, kernels


def saved_for(case, x, y):
    return {"input": x, "output": y, "nothing": None}[case.activation.saves]


def run_backward(case, grad_output, x, y):
    """Run the backward kernel of ``case``; that of an activation that saves nothing takes ``grad_output`` alone."""
    saved = saved_for(case, x, y)
    backward = kernels.KERNELS[case.key].backward
    return backward(grad_output) if saved is None else backward(grad_output, saved, *case.positional)


def test_every_activation_has_kernels_and_nothing_else_has():
    assert set(kernels.KERNELS) == set(catalogue.CATALOGUE)


def test_the_forward_kernel_computes_the_value(case, dtype):
    x = preactivations(dtype)
    y = kernels.KERNELS[case.key].forward(x, *case.positional)
    assert y.dtype == dtype
    assert_value_within_ulp(case, x, y)


def test_the_backward_kernel_computes_the_derivative_times_grad_output(case, dtype):
    x = preactivations(dtype)
    grad_output = noise_like(x)
    y = kernels.KERNELS[case.key].forward(x, *case.positional)
    grad_input = run_backward(case, grad_output, x, y)
    assert grad_input.dtype == dtype
    assert_grad_within_ulp(case, x, grad_output, grad_input)


def test_kernels_return_a_new_tensor_and_leave_their_arguments_alone(case):
    x = preactivations(torch.float32)
    grad_output = noise_like(x)
    y = kernels.KERNELS[case.key].forward(x, *case.positional)
    before = [argument.clone() for argument in (x, grad_output, y)]
    grad_input = run_backward(case, grad_output, x, y)
    for argument, copy in zip((x, grad_output, y), before, strict=True):
        assert_same(argument, copy)
        assert grad_input.data_ptr() != argument.data_ptr()
    assert y.data_ptr() != x.data_ptr()


def test_kernels_compute_half_types_in_float32(surrogate_case):
    # One rounding, of the result, leaves half a unit in the last place; rounding at every step leaves several.
    for dtype in (torch.bfloat16, torch.float16):
        x = preactivations(dtype)
        grad_input = run_backward(surrogate_case, torch.ones_like(x), x, None)
        assert_within_ulp(grad_input, surrogate_case.derivative(x), ulp=0.51)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_the_step_s_derivative_is_exactly_zero_whatever_it_multiplies(value):
    grad_output = torch.full((3,), value)
    grad_input = kernels.KERNELS["binary_step"].backward(grad_output, torch.tensor([-1.0, 0.0, 1.0]), None)
    assert_same(grad_input, torch.zeros(3))
