"""The activation that jumps, the binary step, and the surrogates for its derivative."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from torchact import lookup
from torchact.catalogue.record import Activation
from torchact.catalogue.sigmoidal import logistic_derivative


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
                derivative=logistic_derivative,
                source="Neftci, Mostafa and Zenke 2019, arXiv:1901.09948",
            ),
            Surrogate(
                key="atan",
                derivative_formula=r"\frac{1}{1 + (\pi x)^2}",
                # πx and its square could overflow, and what autograd makes of that is NaN.
                value=lambda x: torch.atan2(x, torch.full_like(x, 1 / math.pi)) / math.pi,
                derivative=lambda x: (1 / math.pi / torch.hypot(x, torch.full_like(x, 1 / math.pi))) ** 2,
                source="Fang et al. 2021, arXiv:2007.05785",
            ),
            Surrogate(
                key="fast_sigmoid",
                derivative_formula=r"\frac{1}{(1 + |x|)^2}",
                value=_fast_sigmoid,
                derivative=lambda x: (1 / (1 + x.abs())) ** 2,
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


def _binary_step(x: Tensor, surrogate: str | None = None) -> Tensor:
    return (x >= 0).to(x.dtype)


def _binary_step_derivative(x: Tensor, surrogate: str | None = None) -> Tensor:
    return torch.zeros_like(x) if surrogate is None else SURROGATES[surrogate].derivative(nan_as_negative_infinity(x))


def _binary_step_second_derivative(x: Tensor, surrogate: str | None = None) -> Tensor:
    if surrogate is None:
        return torch.zeros_like(x)
    return torch.func.vmap(torch.func.grad(SURROGATES[surrogate].derivative))(x.flatten()).reshape(x.shape)


BINARY_STEP = Activation(
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
)

ACTIVATIONS = (BINARY_STEP,)
