"""The activations that bend exponentially on the left and run linearly on the right: ELU's family and softplus."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchact.catalogue.record import Activation
from torchact.catalogue.sigmoidal import logistic_derivative

#: The fixed point of SELU for mean 0 and variance 1, equation 14 of the paper, in the digits that torch has.
SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


def _left_exponential(x: Tensor, alpha: float, stretch: float = 1.0) -> Tensor:
    """Return α exp(x / stretch) for x ≤ 0 and 0 for x > 0, with a finite derivative everywhere."""
    return torch.where(x > 0, 0.0, alpha * torch.exp(x.clamp(max=0) / stretch))


def _elu_derivative(x: Tensor, alpha: float = 1.0) -> Tensor:
    return torch.where(x > 0, 1.0, _left_exponential(x, alpha))


def _celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    # The derivative of torch's own has, in float64, the digits of a float32.
    return torch.where(x > 0, x, alpha * torch.expm1(x.clamp(max=0) / alpha))


def _celu_derivative(x: Tensor, alpha: float = 1.0) -> Tensor:
    return torch.where(x > 0, 1.0, _left_exponential(x, 1.0, alpha))


def _softplus_derivative(x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    return torch.where(beta * x > threshold, 1.0, torch.sigmoid(beta * x))


def _softplus_second_derivative(x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    return torch.where(beta * x > threshold, 0.0, beta * logistic_derivative(beta * x))


ELU = Activation(
    key="elu",
    name="ELU",
    formula=r"x \text{ if } x > 0 \text{ else } \alpha (e^x - 1)",
    derivative_formula=r"1 \text{ if } x > 0 \text{ else } \alpha e^x",
    value=F.elu,
    derivative=_elu_derivative,
    second_derivative=lambda x, alpha=1.0: _left_exponential(x, alpha),
    parameters={"alpha": 1.0},
    range=(-1.0, math.inf),
    monotone=True,
    moving_kinks=lambda alpha: () if alpha == 1 else (0.0,),
    saves="input",
    torch_function=F.elu,
    torch_module=nn.ELU,
    functional_spellings=("elu", "elu_"),
    aliases=("exponential linear unit",),
    source="Clevert, Unterthiner and Hochreiter 2015, arXiv:1511.07289",
)

SELU = Activation(
    key="selu",
    name="SELU",
    formula=r"\lambda \left(x \text{ if } x > 0 \text{ else } \alpha (e^x - 1)\right), "
    r"\quad \alpha \approx 1.6733, \lambda \approx 1.0507",
    derivative_formula=r"\lambda \text{ if } x > 0 \text{ else } \lambda \alpha e^x",
    value=F.selu,
    derivative=lambda x: SELU_SCALE * _elu_derivative(x, SELU_ALPHA),
    second_derivative=lambda x: SELU_SCALE * _left_exponential(x, SELU_ALPHA),
    range=(-SELU_SCALE * SELU_ALPHA, math.inf),
    monotone=True,
    kinks=(0.0,),
    saves="input",
    torch_function=F.selu,
    torch_module=nn.SELU,
    functional_spellings=("selu", "selu_"),
    aliases=("scaled exponential linear unit",),
    source="Klambauer, Unterthiner, Mayr and Hochreiter 2017, Self-Normalizing Neural Networks, arXiv:1706.02515",
)

CELU = Activation(
    key="celu",
    name="CELU",
    formula=r"x \text{ if } x > 0 \text{ else } \alpha (e^{x / \alpha} - 1)",
    derivative_formula=r"1 \text{ if } x > 0 \text{ else } e^{x / \alpha}",
    value=_celu,
    derivative=_celu_derivative,
    second_derivative=lambda x, alpha=1.0: _left_exponential(x, 1 / alpha, alpha),
    parameters={"alpha": 1.0},
    range=(-1.0, math.inf),
    monotone=True,
    saves="input",
    torch_function=F.celu,
    torch_module=nn.CELU,
    functional_spellings=("celu", "celu_"),
    aliases=("continuously differentiable exponential linear unit",),
    source="Barron 2017, Continuously Differentiable Exponential Linear Units, arXiv:1704.07483",
)

SOFTPLUS = Activation(
    key="softplus",
    name="Softplus",
    formula=r"\frac{1}{\beta} \log(1 + e^{\beta x}), \text{ and } x \text{ where } \beta x > \text{threshold}",
    derivative_formula=r"\sigma(\beta x), \text{ and } 1 \text{ where } \beta x > \text{threshold}",
    value=F.softplus,
    derivative=_softplus_derivative,
    second_derivative=_softplus_second_derivative,
    parameters={"beta": 1.0, "threshold": 20.0},
    range=(0.0, math.inf),
    monotone=True,
    # The jump to x is of log(1 + exp(-threshold)): usually 2e-9, which is none to speak of.
    moving_kinks=lambda beta, threshold: () if threshold >= 20 else (threshold / beta,),
    saves="input",
    torch_function=F.softplus,
    torch_module=nn.Softplus,
    functional_spellings=("softplus",),
    source="Dugas, Bengio, Bélisle, Nadeau and Garcia 2000, Incorporating Second-Order Functional Knowledge for Better "
    "Option Pricing",
)

ACTIVATIONS = (ELU, SELU, CELU, SOFTPLUS)
