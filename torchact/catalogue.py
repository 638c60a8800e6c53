"""What is known of each activation: one record each, from which everything else reads.

The functional forms, the modules, conversion, the saturation statistics, the theory, the documentation, the tests and
the experiments' command line all take names, formulas, derivatives, ranges and counterparts from here.

Example:
    >>> from torchact import catalogue
    >>> catalogue.get("linear").name
    'Identity'
    >>> catalogue.get("sigmoid").max_derivative()
    0.25
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchact import lookup

TensorFunction = Callable[..., Tensor]
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Activation:
    """The record of one activation φ.

    ``value``, ``derivative`` and ``second_derivative`` take the pre-activation and the activation's parameters, and are
    plain torch: they are the reference that everything else is tested against. At a kink they give torch's convention.
    For an activation that is not elementwise (softmax) they are the diagonal entries ∂y_i/∂x_i and ∂²y_i/∂x_i².
    """

    key: str  #: name of the function in ``torchact.functional`` and of the file, test and label of everything about it
    name: str  #: name of the module class in ``torchact``
    formula: str  #: φ(x) in LaTeX
    derivative_formula: str  #: φ'(x) in LaTeX
    value: TensorFunction
    derivative: TensorFunction
    second_derivative: TensorFunction
    parameters: Mapping[str, Any] = field(default_factory=dict)  #: keyword parameters with their defaults
    range: tuple[float, float]  #: infimum and supremum of φ
    monotone: bool
    elementwise: bool = True
    kinks: tuple[float, ...] = ()  #: where φ or φ' jumps
    saves: Literal["nothing", "input", "output"]  #: the tensor that the backward pass keeps alive
    torch_function: TensorFunction | None = None  #: torch's own functional form
    torch_module: type[nn.Module] | None = None  #: torch's own module
    functional_spellings: tuple[str, ...] = ()  #: names under which torch or Tensor offers it as a function or method
    aliases: tuple[str, ...] = ()
    source: str  #: the paper that introduced it or established its use

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", MappingProxyType(dict(self.parameters)))

    def max_derivative(self, **parameters: Any) -> float:
        """Return max |φ'|, over a fine float64 grid on [-16, 16] that contains 0 and every integer.

        Outside that interval every activation here is at its asymptote.

        Args:
            **parameters: the activation's parameters; those not given have their defaults.
        """
        return _max_derivative(self.key, tuple(sorted(parameters.items())))

    def parameters_of(self, module: nn.Module) -> dict[str, Any]:
        """Return this activation's parameters as ``module`` holds them, under the same attribute names."""
        return {name: getattr(module, name) for name in self.parameters}


@dataclass(frozen=True, kw_only=True)
class Surrogate:
    """A stand-in h for the binary step, whose derivative h' takes the place of the step's zero derivative in backward.

    ``value`` is h in plain torch, finite for every finite and infinite input, so that
    ``step(x).detach() + (h(x) - h(x).detach())`` is exactly the step in value and h in derivative.
    """

    key: str
    derivative_formula: str  #: h'(x) in LaTeX
    value: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]
    source: str


def nan_as_negative_infinity(x: Tensor) -> Tensor:
    """Return ``x`` with −∞ for NaN: the binary step is 0 at NaN as at −∞, and so are its surrogate derivatives."""
    return torch.where(x.isnan(), -math.inf, x)


def _finite(x: Tensor) -> Tensor:
    return torch.isfinite(x).to(x.dtype)


def _one_sided_abs(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return |x| and sign(x), both with their right-hand derivative at 0, where torch gives ``abs`` derivative 0."""
    sign = torch.where(x >= 0, 1.0, -1.0).to(x.dtype)
    return sign * x, sign


def _fast_sigmoid(x: Tensor) -> Tensor:
    magnitude, sign = _one_sided_abs(x)
    return sign * (1 - 1 / (1 + magnitude))


def _triangular_integral(x: Tensor) -> Tensor:
    magnitude, sign = _one_sided_abs(x)
    inside = magnitude.clamp(max=1)
    return sign * (inside - inside * inside / 2)


def _logistic_derivative(x: Tensor) -> Tensor:
    # As σ(x)(1 - σ(x)) the right tail would cancel.
    return torch.sigmoid(x) * torch.sigmoid(-x)


SURROGATES: Mapping[str, Surrogate] = MappingProxyType(
    {
        surrogate.key: surrogate
        for surrogate in (
            Surrogate(
                key="straight_through",
                derivative_formula=r"1 \text{ for finite } x",
                value=lambda x: torch.where(torch.isfinite(x), x, 0.0),
                derivative=_finite,
                source="Bengio, Léonard and Courville 2013, arXiv:1308.3432",
            ),
            Surrogate(
                key="sigmoid",
                derivative_formula=r"\sigma(x)(1 - \sigma(x))",
                value=torch.sigmoid,
                derivative=_logistic_derivative,
                source="Neftci, Mostafa and Zenke 2019, arXiv:1901.09948",
            ),
            Surrogate(
                key="atan",
                derivative_formula=r"\frac{1}{1 + (\pi x)^2}",
                value=lambda x: torch.atan(math.pi * x) / math.pi,
                derivative=lambda x: 1 / (1 + (math.pi * x) ** 2),
                source="Fang et al. 2021, arXiv:2007.05785",
            ),
            Surrogate(
                key="fast_sigmoid",
                derivative_formula=r"\frac{1}{(1 + |x|)^2}",
                value=_fast_sigmoid,
                derivative=lambda x: 1 / (1 + x.abs()) ** 2,
                source="Zenke and Ganguli 2018, arXiv:1705.11146",
            ),
            Surrogate(
                key="triangular",
                derivative_formula=r"\max(0, 1 - |x|)",
                value=_triangular_integral,
                derivative=lambda x: (1 - x.abs()).clamp(min=0),
                source="Esser et al. 2016, arXiv:1603.08270",
            ),
        )
    }
)


def surrogate(name: str) -> Surrogate:
    """Return the surrogate derivative called ``name``.

    Raises:
        ValueError: no surrogate has that name.
    """
    return lookup.find(SURROGATES, name, "surrogate")


def _sigmoid_second_derivative(x: Tensor) -> Tensor:
    return _logistic_derivative(x) * (1 - 2 * torch.sigmoid(x))


def _softmax_derivative(x: Tensor, dim: int = -1) -> Tensor:
    y = torch.softmax(x, dim)
    return y * (1 - y)


def _softmax_second_derivative(x: Tensor, dim: int = -1) -> Tensor:
    y = torch.softmax(x, dim)
    return y * (1 - y) * (1 - 2 * y)


def _tanh_derivative(x: Tensor) -> Tensor:
    return 1 / torch.cosh(x) ** 2


def _leaky_relu_derivative(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    return torch.where(x > 0, torch.ones_like(x), negative_slope)


def _binary_step(x: Tensor, surrogate: str | None = None) -> Tensor:
    return (x >= 0).to(x.dtype)


def _binary_step_derivative(x: Tensor, surrogate: str | None = None) -> Tensor:
    return torch.zeros_like(x) if surrogate is None else SURROGATES[surrogate].derivative(nan_as_negative_infinity(x))


def _binary_step_second_derivative(x: Tensor, surrogate: str | None = None) -> Tensor:
    if surrogate is None:
        return torch.zeros_like(x)
    return torch.func.vmap(torch.func.grad(SURROGATES[surrogate].derivative))(x.flatten()).reshape(x.shape)


CATALOGUE: Mapping[str, Activation] = MappingProxyType(
    {
        activation.key: activation
        for activation in (
            Activation(
                key="sigmoid",
                name="Sigmoid",
                formula=r"\sigma(x) = \frac{1}{1 + e^{-x}}",
                derivative_formula=r"\sigma(x)(1 - \sigma(x))",
                value=torch.sigmoid,
                derivative=_logistic_derivative,
                second_derivative=_sigmoid_second_derivative,
                range=(0.0, 1.0),
                monotone=True,
                saves="output",
                torch_function=torch.sigmoid,
                torch_module=nn.Sigmoid,
                functional_spellings=("sigmoid", "sigmoid_", "expit"),
                aliases=("logistic",),
                source="Rumelhart, Hinton and Williams 1986, doi:10.1038/323533a0",
            ),
            Activation(
                key="tanh",
                name="Tanh",
                formula=r"\tanh(x) = \frac{e^{x} - e^{-x}}{e^{x} + e^{-x}}",
                derivative_formula=r"1 - \tanh^2(x)",
                value=torch.tanh,
                derivative=_tanh_derivative,
                second_derivative=lambda x: -2 * torch.tanh(x) * _tanh_derivative(x),
                range=(-1.0, 1.0),
                monotone=True,
                saves="output",
                torch_function=torch.tanh,
                torch_module=nn.Tanh,
                functional_spellings=("tanh", "tanh_"),
                aliases=("hyperbolic tangent",),
                source="LeCun, Bottou, Orr and Müller 1998, Efficient BackProp, doi:10.1007/3-540-49430-8_2",
            ),
            Activation(
                key="relu",
                name="ReLU",
                formula=r"\max(0, x)",
                derivative_formula=r"1 \text{ if } x > 0 \text{ else } 0",
                value=F.relu,
                derivative=lambda x: (x > 0).to(x.dtype),
                second_derivative=torch.zeros_like,
                range=(0.0, math.inf),
                monotone=True,
                kinks=(0.0,),
                saves="output",
                torch_function=F.relu,
                torch_module=nn.ReLU,
                functional_spellings=("relu", "relu_"),
                aliases=("rectifier", "rectified linear unit"),
                source="Nair and Hinton 2010, Rectified Linear Units Improve Restricted Boltzmann Machines",
            ),
            Activation(
                key="leaky_relu",
                name="LeakyReLU",
                formula=r"x \text{ if } x > 0 \text{ else } a x, \quad a = \text{negative slope}",
                derivative_formula=r"1 \text{ if } x > 0 \text{ else } a",
                value=F.leaky_relu,
                derivative=_leaky_relu_derivative,
                second_derivative=lambda x, negative_slope=0.01: torch.zeros_like(x),
                parameters={"negative_slope": 0.01},
                range=(-math.inf, math.inf),
                monotone=True,
                kinks=(0.0,),
                # The output would do where a > 0, but then `leaky_relu(x).add_(1)`, which torch allows, would raise.
                saves="input",
                torch_function=F.leaky_relu,
                torch_module=nn.LeakyReLU,
                functional_spellings=("leaky_relu", "leaky_relu_"),
                aliases=("lrelu",),
                source="Maas, Hannun and Ng 2013, Rectifier Nonlinearities Improve Neural Network Acoustic Models",
            ),
            Activation(
                key="softmax",
                name="Softmax",
                formula=r"y_i = \frac{e^{x_i}}{\sum_j e^{x_j}}",
                derivative_formula=r"\frac{\partial y_i}{\partial x_j} = y_i (\delta_{ij} - y_j)",
                value=lambda x, dim=-1: torch.softmax(x, dim),
                derivative=_softmax_derivative,
                second_derivative=_softmax_second_derivative,
                parameters={"dim": None},
                range=(0.0, 1.0),
                monotone=True,
                elementwise=False,
                saves="output",
                torch_function=F.softmax,
                torch_module=nn.Softmax,
                functional_spellings=("softmax",),
                source="Bridle 1990, Probabilistic Interpretation of Feedforward Classification Network Outputs, "
                "doi:10.1007/978-3-642-76153-9_28",
            ),
            Activation(
                key="binary_step",
                name="BinaryStep",
                formula=r"1 \text{ if } x \ge 0 \text{ else } 0",
                derivative_formula=r"0, \text{ or the derivative of the chosen surrogate}",
                value=_binary_step,
                derivative=_binary_step_derivative,
                second_derivative=_binary_step_second_derivative,
                parameters={"surrogate": None},
                range=(0.0, 1.0),
                monotone=True,
                kinks=(0.0,),
                saves="input",
                functional_spellings=("heaviside", "heaviside_"),
                aliases=("step", "heaviside", "threshold unit"),
                source="McCulloch and Pitts 1943, doi:10.1007/BF02478259",
            ),
            Activation(
                key="identity",
                name="Identity",
                formula=r"x",
                derivative_formula=r"1",
                value=lambda x: x,
                derivative=torch.ones_like,
                second_derivative=torch.zeros_like,
                range=(-math.inf, math.inf),
                monotone=True,
                saves="nothing",
                torch_module=nn.Identity,
                aliases=("linear", "none"),
                source="Widrow and Hoff 1960, Adaptive Switching Circuits (IRE WESCON)",
            ),
        )
    }
)

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        spelling: activation.key
        for activation in CATALOGUE.values()
        for spelling in (activation.name, *activation.aliases)
    }
)


def get(name: str, argument: str = "activation") -> Activation:
    """Return the record of the activation called ``name``: its key, its class name or an alias, in any spelling.

    Args:
        name: for example ``"leaky_relu"``, ``"LeakyReLU"`` or ``"linear"``.
        argument: the name of the argument it was given for, for the error message.

    Raises:
        ValueError: no activation has that name; the message lists the nearest matches and all that exists.
    """
    return lookup.find(CATALOGUE, name, argument, ALIASES)


def documented(key: str) -> Callable[[Function], Function]:
    """Return a decorator that appends what the catalogue knows of activation ``key`` to a docstring."""

    def decorate(function: Function) -> Function:
        activation = CATALOGUE[key]
        low, high = activation.range
        facts = (
            f".. math:: {activation.formula}",
            f"Derivative: :math:`{activation.derivative_formula}`. Range: ({low:g}, {high:g}). "
            f"Saved for backward: {activation.saves}.",
            f"Source: {activation.source}.",
        )
        indent = " " * (4 if function.__doc__ and "\n    " in function.__doc__ else 0)
        function.__doc__ = (function.__doc__ or "").rstrip() + "".join(f"\n\n{indent}{fact}" for fact in facts) + "\n"
        return function

    return decorate


@functools.lru_cache(maxsize=256)
def _max_derivative(key: str, parameters: tuple[tuple[str, Any], ...]) -> float:
    activation = CATALOGUE[key]
    if not activation.elementwise:
        # Each diagonal entry y(1 - y) of a softmax takes every value in (0, 1/4], the maximum at y = 1/2.
        two_classes = torch.zeros(1, 2, dtype=torch.float64)
        return float(activation.derivative(two_classes, dim=-1).abs().max())
    grid = torch.linspace(-16, 16, 32 * 128 + 1, dtype=torch.float64)
    return float(activation.derivative(grid, **dict(parameters)).abs().max())
