"""What the tests share: the catalogue's activations with the parameters worth testing, and tolerances in ULP."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torchact import autograd, functional, modules
from torchact.catalogue import CATALOGUE, SURROGATES, Activation

torch.set_num_threads(1)  # the suite runs in one process a core, and a result must not depend on how a sum is split

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

#: Parameters to test besides the defaults. Softmax's default dimension is deprecated, so that these replace it.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "leaky_relu": [{"negative_slope": slope} for slope in (0.0, 0.3, -0.5)],
    "softmax": [{"dim": -1}, {"dim": 0}],
    "binary_step": [{"surrogate": name} for name in SURROGATES],
}


@dataclass(frozen=True, eq=False)
class Case:
    """An activation with its parameters chosen."""

    activation: Activation
    parameters: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join([self.key, *(f"{name}={value}" for name, value in self.parameters.items())])

    @property
    def key(self) -> str:
        return self.activation.key

    @property
    def surrogate(self) -> str | None:
        return self.parameters.get("surrogate")

    @property
    def ours(self) -> Callable[[Tensor], Tensor]:
        """The function of ``torchact.functional``."""
        return functools.partial(getattr(functional, self.key), **self.parameters)

    @property
    def inplace(self) -> bool:
        """Whether the function can overwrite its input."""
        return "inplace" in inspect.signature(self.ours).parameters

    @property
    def smooth(self) -> Callable[[Tensor], Tensor]:
        """Plain torch with the derivatives, of every order, that the activation should have.

        That is torch's counterpart. The binary step has none, and takes its derivatives from the surrogate.
        """
        if self.key == "binary_step":
            return SURROGATES[self.surrogate].value if self.surrogate else lambda x: 0 * x
        return functools.partial(self.activation.torch_function or self.activation.value, **self.parameters)

    @property
    def function(self) -> type[autograd.ActivationFunction]:
        return getattr(autograd, self.activation.name)

    @property
    def positional(self) -> tuple[Any, ...]:
        """The parameters as kernels and Functions take them."""
        return tuple({**self.activation.parameters, **self.parameters}.values())

    def module(self) -> nn.Module:
        return modules.MODULES[self.key](**self.parameters)

    def value(self, x: Tensor) -> Tensor:
        """Return the reference value in float64."""
        return self.activation.value(x.double(), **self.parameters)

    def derivative(self, x: Tensor) -> Tensor:
        """Return the reference derivative, or the diagonal of the Jacobian, in float64."""
        return self.activation.derivative(x.double(), **self.parameters)

    def grad_input(self, x: Tensor, grad_output: Tensor) -> Tensor:
        """Return the reference vector-Jacobian product in float64."""
        x, grad_output = x.detach().double(), grad_output.double()
        if self.activation.elementwise:
            return grad_output * self.derivative(x)
        y = self.value(x)
        return y * (grad_output - (grad_output * y).sum(self.parameters["dim"], keepdim=True))

    def max_derivative(self) -> float:
        return self.activation.max_derivative(**self.parameters)


CASES = [
    Case(activation, parameters)
    for activation in CATALOGUE.values()
    for parameters in ([] if activation.key == "softmax" else [{}]) + VARIANTS.get(activation.key, [])
]
SURROGATE_CASES = [case for case in CASES if case.surrogate]
INPLACE_CASES = [case for case in CASES if case.inplace]
#: In place, torch has no gradient for a negative slope.
INPLACE_GRADIENT_CASES = [case for case in INPLACE_CASES if case.parameters.get("negative_slope", 0) >= 0]
TORCH_CASES = [case for case in CASES if case.key != "binary_step"]  # those with a counterpart in torch


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    """Every activation with every set of parameters."""
    return request.param


@pytest.fixture(params=TORCH_CASES, ids=str)
def torch_case(request: pytest.FixtureRequest) -> Case:
    """Those that torch has too."""
    return request.param


@pytest.fixture(params=SURROGATE_CASES, ids=str)
def surrogate_case(request: pytest.FixtureRequest) -> Case:
    """The binary step with each surrogate."""
    return request.param


@pytest.fixture(params=CATALOGUE.values(), ids=lambda activation: activation.key)
def activation(request: pytest.FixtureRequest) -> Activation:
    """Every record of the catalogue."""
    return request.param


@pytest.fixture(params=DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """The floating-point types that every activation takes."""
    return request.param


@pytest.fixture
def fresh_dynamo() -> Iterator[None]:
    """Forget compiled code before and after, so that recompilations count from zero."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def preactivations(dtype: torch.dtype = torch.float64) -> Tensor:
    """Return a 4 × 65 tensor over [-20, 20], dense in [-8, 8], with 0 and every integer in between."""
    return torch.cat([torch.linspace(-8, 8, 257), torch.tensor([-20.0, 20.0, 1e-3])]).reshape(4, 65).to(dtype)


def smooth_points(dtype: torch.dtype = torch.float64) -> Tensor:
    """Return a 2 × 3 tensor at least 0.2 away from 0 and ±1, where activations and surrogates have kinks."""
    return torch.tensor([[-2.0, -1.2, -0.4], [0.3, 1.2, 1.7]], dtype=dtype)


def extremes(dtype: torch.dtype) -> Tensor:
    """Return an n × 2 tensor: NaN, ±∞, ±0, and normal and subnormal numbers at the ends of the range, each beside ½."""
    info = torch.finfo(dtype)
    numbers = [math.nan, math.inf, -math.inf, 0.0, -0.0]
    for magnitude in (info.max, info.smallest_normal, info.smallest_normal * info.eps, info.eps, 1.0, 20.0, 1e4):
        numbers += [magnitude, -magnitude]
    special = torch.tensor(numbers, dtype=torch.float64).to(dtype)
    return torch.stack([special, torch.full_like(special, 0.5)], dim=1)


def noise_like(x: Tensor) -> Tensor:
    """Return standard normal numbers, the same at every call, of ``x``'s shape, dtype and memory format."""
    generator = torch.Generator().manual_seed(0)
    return torch.empty_like(x).copy_(torch.randn(x.shape, generator=generator, dtype=torch.float64))


def leaf(x: Tensor) -> Tensor:
    """Return a copy of ``x``, strides included, that requires a gradient."""
    return x.detach().clone().requires_grad_()


def value_and_grad(
    function: Callable[[Tensor], Tensor], x: Tensor, grad_output: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return ``function(x)`` and its vector-Jacobian product with ``grad_output``, by default :func:`noise_like`."""
    x = leaf(x)
    output = function(x)
    (grad_input,) = torch.autograd.grad(output, x, noise_like(output) if grad_output is None else grad_output)
    return output.detach(), grad_input


def assert_same(actual: Tensor, expected: Tensor) -> None:
    """Assert that two tensors are equal in every bit that matters: dtype, strides, values, NaN in the same places."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True, check_stride=True)


def assert_close_with_same_nan(actual: Tensor, expected: Tensor, ulp: float = 4) -> None:
    """Assert that two tensors have NaN and ±∞ in the same places and elsewhere agree, in ULP of themselves or of 1."""
    tolerance = ulp * torch.finfo(actual.dtype).eps
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance, equal_nan=True)


def assert_within_ulp(actual: Tensor, expected: Tensor, ulp: float = 4, scale: float | Tensor | None = None) -> None:
    """Assert that ``actual`` is within ``ulp`` units in the last place of its dtype from ``expected``.

    Args:
        actual: the tensor to check.
        expected: the reference, in whichever dtype.
        ulp: the greatest error.
        scale: the magnitude whose last place counts: by default each element's own.
    """
    info = torch.finfo(actual.dtype)
    expected = expected.detach().double()
    error = (actual.detach().double() - expected).abs()
    bound = ulp * (info.eps * (expected.abs() if scale is None else scale) + info.eps * info.smallest_normal)
    assert actual.shape == expected.shape
    assert bool((error <= bound).all()), f"{float((error / bound).max()) * ulp:.3g} ULP, more than {ulp}"


def assert_value_within_ulp(case: Case, x: Tensor, y: Tensor, ulp: float = 4) -> None:
    """Assert that ``y`` is the reference's value at ``x``, each element to a few of its own ULP."""
    expected = case.value(x.detach())
    if case.activation.elementwise:
        assert_within_ulp(y, expected, ulp)
    else:  # exp(x - max) magnifies the rounding of x - max, half a ULP of it, by as much as x - max is large
        magnification = x.detach().double().amax(case.parameters["dim"], keepdim=True) - x.detach().double()
        assert_within_ulp(y, expected, ulp, scale=expected * (1 + magnification / ulp / 2))


def assert_grad_within_ulp(case: Case, x: Tensor, grad_output: Tensor, grad_input: Tensor, ulp: float = 4) -> None:
    """Assert that ``grad_input`` is the reference's, to a few ULP of the greatest gradient that is possible."""
    greatest = float(grad_output.abs().max()) * case.max_derivative() if grad_output.numel() else 0
    assert_within_ulp(grad_input, case.grad_input(x, grad_output), ulp, scale=greatest)
