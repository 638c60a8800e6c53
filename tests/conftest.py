"""What the tests share: the catalogue's activations with the parameters worth testing, and tolerances in ULP."""

from __future__ import annotations

import gc
import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torchact import autograd, catalogue, functional, kernels, modules
from torchact.catalogue import CATALOGUE, SURROGATES, Activation

torch.set_num_threads(1)  # the suite runs in one process a core, and a result must not depend on how a sum is split


def pytest_collection_finish() -> None:
    """Have the garbage collector leave alone what lives until the end; torch.compile and others call it often."""
    gc.collect()
    gc.freeze()


GATED = {key for key, activation in CATALOGUE.items() if activation.kind == "gated"}

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

needs_kernels = pytest.mark.skipif(not kernels.status().loaded, reason=str(kernels.status()))

#: Parameters to test besides the usual ones. A tensor is a learnable parameter; it takes the input's dtype.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "hardtanh": [{"min_val": -0.7, "max_val": 1.5}],
    "leaky_relu": [{"negative_slope": slope} for slope in (0.0, 0.3, -0.5)],
    "prelu": [{"weight": torch.tensor(weight)} for weight in (0.25, -0.5)],
    "rrelu": [{"lower": 0.1, "upper": 0.5}],
    "threshold": [{"threshold": 0.0, "value": 0.0}, {"threshold": 0.1, "value": -3.0}],
    "elu": [{"alpha": 1.5}],
    "celu": [{"alpha": 1.5}],
    "softplus": [{"beta": 2.0, "threshold": 15.0}, {"beta": 0.7}],
    "swish": [{"beta": 0.5}, {"beta": torch.tensor(0.75)}],
    "gelu": [{"approximate": "tanh"}],
    "softshrink": [{"lambd": 0.25}],
    "hardshrink": [{"lambd": 0.25}],
    "sine": [{"omega": 2.0}],
    "snake": [{"alpha": 0.5}, {"alpha": torch.tensor(0.75)}],
    "softmax": [{"dim": -1}, {"dim": 0}],
    "softmin": [{"dim": -1}, {"dim": 0}],
    "log_softmax": [{"dim": -1}, {"dim": 0}],
    "glu": [{"dim": 0}, {"dim": 0, "gate": "first"}],
    "reglu": [{"dim": 0}],
    "geglu": [{"dim": 0}, {"dim": 0, "gate": "first", "approximate": "tanh"}],
    "swiglu": [{"dim": 0}, {"dim": 0, "alpha": 1.702, "limit": 1.5, "offset": 1.0}],
    "bilinear": [{"dim": 0}],
    "binary_step": [{"surrogate": name} for name in SURROGATES],
}
#: Those whose usual parameters are no choice: torch has none, or has deprecated it.
ONLY_VARIANTS = {"prelu", "threshold", "softmax", "softmin", "log_softmax", *GATED}

#: torch's functions that cannot serve as reference: they lack vmap, a second derivative, or forward mode in vmap.
INCOMPLETE_IN_TORCH = {"rrelu", "hardsigmoid", "glu"}


@dataclass(frozen=True, eq=False)
class Case:
    """An activation with its parameters chosen, as a function of one tensor."""

    activation: Activation
    parameters: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join([self.key, *(f"{name}={_short(value)}" for name, value in self.parameters.items())])

    @property
    def key(self) -> str:
        return self.activation.key

    @property
    def surrogate(self) -> str | None:
        return self.parameters.get("surrogate")

    @property
    def learnt(self) -> str | None:
        """The name of the parameter that is a tensor."""
        return next((name for name, value in self.parameters.items() if isinstance(value, Tensor)), None)

    def parameters_for(self, x: Tensor) -> dict[str, Any]:
        """Return the parameters with tensors in the dtype and on the device of ``x``."""
        return {k: v.to(x.device, x.dtype) if isinstance(v, Tensor) else v for k, v in self.parameters.items()}

    def ours(self, x: Any, **more: Any) -> Tensor:
        """Apply the function of ``torchact.functional``."""
        parameters = self.parameters_for(x) if isinstance(x, Tensor) else self.parameters
        return getattr(functional, self.key)(x, **parameters, **more)

    @property
    def inplace(self) -> bool:
        """Whether the function can overwrite its input."""
        return "inplace" in inspect.signature(getattr(functional, self.key)).parameters

    @property
    def has_counterpart(self) -> bool:
        """Whether torch has this function, with these parameters."""
        return self.activation.torch_function is not None and self.parameters.get("gate", "second") == "second"

    @property
    def torch_parameters(self) -> dict[str, Any]:
        """The parameters that torch's counterpart takes."""
        return {name: value for name, value in self.parameters.items() if name != "gate"}

    def counterpart(self, x: Any, **more: Any) -> Tensor:
        """Apply torch's counterpart."""
        assert self.activation.torch_function is not None
        parameters = {k: v for k, v in self.parameters_for(x).items() if k in self.torch_parameters}
        return self.activation.torch_function(x, **parameters, **more)

    def smooth(self, x: Tensor) -> Tensor:
        """Apply plain torch with the derivatives, of every order, that the activation should have.

        That is torch's counterpart, or else the catalogue's formula. The binary step takes its derivatives from the
        surrogate.
        """
        if self.key == "binary_step":
            return SURROGATES[self.surrogate].value(x) if self.surrogate else 0 * x
        if self.has_counterpart and self.key not in INCOMPLETE_IN_TORCH:
            return self.counterpart(x)
        return self.activation.value(x, **self.parameters_for(x))

    def along(self, dim: int) -> Case:
        """Return the same activation with another dimension, if it has one."""
        return self if self.activation.elementwise else Case(self.activation, {**self.parameters, "dim": dim})

    @property
    def function(self) -> type[autograd.ActivationFunction]:
        prefix = "Learnable" if self.learnt and self.key != "prelu" else ""
        function = getattr(autograd, prefix + self.activation.name)
        return function.packed if self.activation.kind == "gated" else function

    @property
    def pair(self) -> bool:
        """Whether it is computed as a function of two tensors: the halves of a gated unit here are one."""
        return issubclass(self.function, autograd.PairFunction)

    @property
    def values_are_torch_s(self) -> bool:
        """Whether the forward kernel is torch's own operator."""
        return self.has_counterpart and not _rounds_once(self.kernels.forward) and not self._is_scaled

    @property
    def gradients_are_torch_s(self) -> bool:
        """Whether the backward kernel is torch's own operator, too."""
        return self.values_are_torch_s and not _rounds_once(self.kernels.backward) and self.key != "celu"

    @property
    def _is_scaled(self) -> bool:
        """Whether the input is scaled by a number that is no power of two."""
        return any(math.frexp(self.parameters.get(name, 1.0))[0] != 0.5 for name in ("alpha", "beta"))

    @property
    def kernels(self) -> kernels.Kernels:
        gated = kernels.PACKED_KERNELS if self.activation.kind == "gated" else kernels.KERNELS
        return (kernels.PAIR_KERNELS if self.pair else gated)[self.key]

    @property
    def positional(self) -> tuple[Any, ...]:
        """The parameters as kernels and Functions take them."""
        chosen = {**self.activation.parameters, **self.parameters}
        return tuple(value for value in chosen.values() if not isinstance(value, Tensor))

    def operands(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return what kernels and Functions take of ``x``: itself, with the learnt parameter if there is one."""
        return (x, self.parameters_for(x)[self.learnt]) if self.learnt else (x,)

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what of ``x`` is gated, and what gates it."""
        return catalogue.halves(x, self.parameters["dim"], self.parameters.get("gate", "second"))

    def module(self, dtype: torch.dtype = torch.float64) -> nn.Module:
        module_class = modules.MODULES[self.key]
        if self.learnt is None:
            return module_class(**self.parameters)
        value = float(self.parameters[self.learnt])
        if self.key == "prelu":
            return module_class(init=value, dtype=dtype)
        return module_class(**{self.learnt: value}, learnable=True).to(dtype)

    def value(self, x: Tensor) -> Tensor:
        """Return the reference value in float64."""
        x = x.double()
        return self.activation.value(x, **self.parameters_for(x))

    def derivative(self, x: Tensor) -> Tensor:
        """Return the reference derivative, or what of the Jacobian the catalogue has, in float64."""
        x = x.double()
        return self.activation.derivative(x, **self.parameters_for(x))

    def grad_input(self, x: Tensor, grad_output: Tensor) -> Tensor:
        """Return the reference vector-Jacobian product in float64."""
        x, grad_output = x.detach().double(), grad_output.double()
        if self.activation.kind == "gated":
            return torch.cat([grad_output, grad_output], self.parameters["dim"]) * self.derivative(x)
        if self.activation.elementwise:
            return grad_output * self.derivative(x)
        dim, y = self.parameters["dim"], self.value(x)
        if self.key == "log_softmax":
            return grad_output - y.exp() * grad_output.sum(dim, keepdim=True)
        sign = -1 if self.key == "softmin" else 1
        return sign * y * (grad_output - (grad_output * y).sum(dim, keepdim=True))

    def tangent(self, x: Tensor, tangent: Tensor) -> Tensor:
        """Return the reference Jacobian-vector product in float64."""
        if self.activation.kind == "gated":
            x, tangent = x.detach().double(), tangent.double()
            return sum((tangent * self.derivative(x)).chunk(2, self.parameters["dim"]))
        if self.key == "log_softmax":
            probabilities, tangent = self.value(x.detach()).exp(), tangent.double()
            return tangent - (probabilities * tangent).sum(self.parameters["dim"], keepdim=True)
        return self.grad_input(x, tangent)  # all other Jacobians are symmetric

    def max_derivative(self, x: Tensor | None = None) -> float:
        """Return the greatest derivative, or where there is none, the greatest at ``x``."""
        if self.activation.kind == "gated" or self.key == "squared_relu":
            return float(self.derivative(x if x is not None else smooth_points()).abs().nan_to_num(0, 0, 0).max())
        return self.activation.max_derivative(**self.parameters)


def _short(value: Any) -> str:
    return f"tensor({float(value):g})" if isinstance(value, Tensor) else str(value)


def _rounds_once(kernel: Callable[..., Any]) -> bool:
    """Whether a kernel computes by itself, where others call torch's operator."""
    made_by = (kernel.__module__ or "").removeprefix("torchact.kernels.")
    return made_by in ("fused", "reference", "choice") or kernel.__qualname__.startswith("_in_float32")


CASES = [
    Case(activation, parameters)
    for activation in CATALOGUE.values()
    if activation.key != "softmax2d"  # which takes images only, and is softmax
    for parameters in ([] if activation.key in ONLY_VARIANTS else [{}]) + VARIANTS.get(activation.key, [])
]
SURROGATE_CASES = [case for case in CASES if case.surrogate]
INPLACE_CASES = [case for case in CASES if case.inplace]
#: In place, torch has no gradient for a negative slope.
INPLACE_GRADIENT_CASES = [case for case in INPLACE_CASES if case.parameters.get("negative_slope", 0) >= 0]
TORCH_CASES = [case for case in CASES if case.has_counterpart]


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
    """Return a 2 × 3 tensor at least 0.05 away from where activations and surrogates have kinks."""
    return torch.tensor([[-2.0, -1.2, -0.4], [0.3, 1.2, 1.7]], dtype=dtype)


def extremes(dtype: torch.dtype) -> Tensor:
    """Return an n × 2 tensor: NaN, ±∞, ±0, and normal and subnormal numbers at the ends of the range, each beside ½."""
    info = torch.finfo(dtype)
    numbers = [math.nan, math.inf, -math.inf, 0.0, -0.0, 3.0]
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


def assert_value_within_ulp(case: Case, x: Tensor, y: Tensor, ulp: float = 4, *, formula: bool = False) -> None:
    """Assert that ``y`` is the reference's value at ``x``, each element to a few of its own ULP.

    Args:
        case: the activation.
        x: the input.
        y: the output to check.
        ulp: the greatest error.
        formula: whether ``y`` was computed by the formula in its own dtype, and may be as far off as the value of an
            input that is wrong by as many ULP. In float64 the reference itself is such a formula;
            ``tests/test_reference.py`` compares both with 50 digits.
    """
    x = x.detach()
    expected = case.value(x)
    formula = formula or y.dtype is torch.float64
    if formula and case.activation.elementwise:
        inexact = (x.double() * case.derivative(x)).abs()
        # A self-gated activation multiplies its input by a gate that is wrong by some ULP of 1.
        assert_within_ulp(y, expected, ulp, scale=expected.abs() + inexact + x.double().abs())
    elif formula and case.activation.kind == "gated":
        gated, control = (half.double().abs() for half in case.halves(x))
        # An error of the gate of some ULP of 1, or of its argument, times what is gated and the gate's factor.
        assert_within_ulp(y, expected, ulp, scale=(1 + gated) * (1 + control))
    elif case.activation.kind != "normalised":
        assert_within_ulp(y, expected, ulp)
    else:  # exp(x - max) magnifies the rounding of x - max, half a ULP of it, by as much as x - max is large
        sign = -1 if case.key == "softmin" else 1
        below = (sign * x.double()).amax(case.parameters["dim"], keepdim=True) - sign * x.double()
        if case.key == "log_softmax":
            assert_within_ulp(y, expected, ulp, scale=1 + below)
        else:
            assert_within_ulp(y, expected, ulp, scale=expected * (1 + below / ulp / 2))


def assert_grad_within_ulp(
    case: Case, x: Tensor, grad_output: Tensor, grad_input: Tensor, ulp: float = 4, *, formula: bool = False
) -> None:
    """Assert that ``grad_input`` is the reference's, to a few ULP of the greatest gradient that is possible.

    Args:
        case: the activation.
        x: the input.
        grad_output: the gradient of the output.
        grad_input: the gradient to check.
        ulp: the greatest error.
        formula: whether the derivative was computed by a formula in its own dtype, and may be as far off as that of an
            input that is wrong by as many ULP.
    """
    scale = _greatest_gradient(case, x, grad_output, formula)
    assert_within_ulp(grad_input, case.grad_input(x, grad_output), ulp, scale=scale)


def assert_tangent_within_ulp(case: Case, x: Tensor, tangent: Tensor, actual: Tensor, ulp: float = 4) -> None:
    """Assert that ``actual`` is the reference's Jacobian-vector product, as :func:`assert_grad_within_ulp` does."""
    scale = _greatest_gradient(case, x, tangent, formula=True)
    assert_within_ulp(actual, case.tangent(x, tangent), ulp, scale=scale)


def _greatest_gradient(case: Case, x: Tensor, grad_output: Tensor, formula: bool) -> float:
    if not grad_output.numel():
        return 0.0
    x = x.detach()
    greatest = case.max_derivative(x)
    if formula and case.activation.kind != "normalised":
        curvature = case.activation.second_derivative(x.double(), **case.parameters_for(x.double()))
        greatest += float((x.double() * curvature).abs().max())
    greatest *= float(grad_output.abs().max())
    if case.key == "log_softmax":  # which sums them
        greatest += float(grad_output.double().abs().sum(case.parameters["dim"]).max())
    return greatest
