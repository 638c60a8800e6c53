"""The activations that come back: a bell, and waves with and without a slope."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torchact.catalogue.record import Activation, Pair
from torchact.catalogue.rectifiers import per_channel


def _bell(x: Tensor) -> Tensor:
    inside = x.clamp(-40, 40)  # outside it is 0 in every dtype, and x² could overflow
    return torch.exp(-inside * inside)


def phase(x: Tensor, frequency: float | Tensor) -> Tensor:
    """Return frequency · x, kept finite: one angle is as good as another where their spacing exceeds a period."""
    angle = frequency * x
    return torch.where(x.isfinite(), angle.nan_to_num(nan=math.nan), angle)


def _sine_derivative(x: Tensor, omega: float = 30.0) -> Tensor:
    return omega * torch.cos(phase(x, omega))


def _sine_second_derivative(x: Tensor, omega: float = 30.0) -> Tensor:
    return -(omega**2) * torch.sin(phase(x, omega))


def sinc(angle: Tensor) -> Tensor:
    """Return sin(angle) / angle, and 1 at 0: near 0 by its series, since derivatives of the quotient would cancel."""
    small = angle.abs() < 0.05
    square = torch.where(small, angle, 0.0).square()
    series = 1 + square * (-1 / 6 + square * (1 / 120 + square * (-1 / 5040 + square / 362880)))
    divisor = torch.where(small, 1.0, angle)
    return torch.where(small, series, torch.sin(angle) / divisor)


def _snake(x: Tensor, alpha: float | Tensor = 1.0) -> Tensor:
    angle = phase(x, per_channel(alpha, x))
    return x + x * (torch.sin(angle) * sinc(angle))  # sin²(αx) / α, and 0 for α = 0


def _snake_derivative(x: Tensor, alpha: float | Tensor = 1.0) -> Tensor:
    angle = phase(x, per_channel(alpha, x))
    return (torch.sin(angle) + torch.cos(angle)).square()  # 1 + sin(2αx) would cancel near its zeros


def _snake_second_derivative(x: Tensor, alpha: float | Tensor = 1.0) -> Tensor:
    alpha = per_channel(alpha, x)
    return 2 * alpha * torch.cos(phase(x, 2 * alpha))


def _snake_partials(x: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    angle = phase(x, per_channel(alpha, x))
    ratio = sinc(angle)
    return _snake_derivative(x, alpha), x * (x * (ratio * (2 * torch.cos(angle) - ratio)))


GAUSSIAN = Activation(
    key="gaussian",
    name="Gaussian",
    formula=r"e^{-x^2}",
    derivative_formula=r"-2 x e^{-x^2}",
    value=_bell,
    derivative=lambda x: -2 * (x * _bell(x)),
    second_derivative=lambda x: (4 * x.clamp(-40, 40).square() - 2) * _bell(x),
    range=(0.0, 1.0),
    monotone=False,
    saves="input",
    aliases=("radial basis function", "rbf"),
    source="Broomhead and Lowe 1988, Multivariable Functional Interpolation and Adaptive Networks",
)

SINE = Activation(
    key="sine",
    name="Sine",
    formula=r"\sin(\omega x)",
    derivative_formula=r"\omega \cos(\omega x)",
    value=lambda x, omega=30.0: torch.sin(phase(x, omega)),
    derivative=_sine_derivative,
    second_derivative=_sine_second_derivative,
    parameters={"omega": 30.0},
    range=(-1.0, 1.0),
    monotone=False,
    saves="input",
    aliases=("siren",),
    source="Sitzmann, Martel, Bergman, Lindell and Wetzstein 2020, Implicit Neural Representations with Periodic "
    "Activation Functions, arXiv:2006.09661",
)

SNAKE = Activation(
    key="snake",
    name="Snake",
    formula=r"x + \frac{\sin^2(\alpha x)}{\alpha}, \quad \alpha \text{ fixed or learnt}",
    derivative_formula=r"1 + \sin(2 \alpha x); \quad \frac{\partial \varphi}{\partial \alpha} = "
    r"\frac{x \sin(2 \alpha x)}{\alpha} - \frac{\sin^2(\alpha x)}{\alpha^2}",
    value=_snake,
    derivative=_snake_derivative,
    second_derivative=_snake_second_derivative,
    parameters={"alpha": 1.0},
    learnable="alpha",
    pair=Pair(_snake, _snake_partials),
    range=(-math.inf, math.inf),
    monotone=True,
    saves="input",
    source="Ziyin, Hartwig and Ueda 2020, Neural Networks Fail to Learn Periodic Functions and How to Fix It, "
    "arXiv:2006.08195",
)

ACTIVATIONS = (GAUSSIAN, SINE, SNAKE)
