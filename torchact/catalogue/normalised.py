"""The activations that normalise along a dimension, so that their derivative is a matrix: softmax and its relatives."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchact.catalogue.record import Activation


def _softmax(x: Tensor, dim: int = -1) -> Tensor:
    return torch.softmax(x, dim)


def _softmax_derivative(x: Tensor, dim: int = -1) -> Tensor:
    y = torch.softmax(x, dim)
    return y * (1 - y)


def _softmax_second_derivative(x: Tensor, dim: int = -1) -> Tensor:
    y = torch.softmax(x, dim)
    return y * (1 - y) * (1 - 2 * y)


_BRIDLE = (
    "Bridle 1990, Probabilistic Interpretation of Feedforward Classification Network Outputs, "
    "doi:10.1007/978-3-642-76153-9_28"
)

SOFTMAX = Activation(
    key="softmax",
    name="Softmax",
    formula=r"y_i = \frac{e^{x_i}}{\sum_j e^{x_j}}",
    derivative_formula=r"\frac{\partial y_i}{\partial x_j} = y_i (\delta_{ij} - y_j)",
    value=_softmax,
    derivative=_softmax_derivative,
    second_derivative=_softmax_second_derivative,
    parameters={"dim": None},
    range=(0.0, 1.0),
    monotone=True,
    kind="normalised",
    saves="output",
    torch_function=F.softmax,
    torch_module=nn.Softmax,
    functional_spellings=("softmax",),
    source=_BRIDLE,
)

SOFTMIN = Activation(
    key="softmin",
    name="Softmin",
    formula=r"y_i = \frac{e^{-x_i}}{\sum_j e^{-x_j}}",
    derivative_formula=r"\frac{\partial y_i}{\partial x_j} = -y_i (\delta_{ij} - y_j)",
    value=lambda x, dim=-1: torch.softmax(-x, dim),
    derivative=lambda x, dim=-1: -_softmax_derivative(-x, dim),
    second_derivative=lambda x, dim=-1: _softmax_second_derivative(-x, dim),
    parameters={"dim": None},
    range=(0.0, 1.0),
    monotone=False,
    kind="normalised",
    saves="output",
    torch_function=F.softmin,
    torch_module=nn.Softmin,
    functional_spellings=("softmin",),
    source=_BRIDLE,
)

LOG_SOFTMAX = Activation(
    key="log_softmax",
    name="LogSoftmax",
    formula=r"y_i = x_i - \log \sum_j e^{x_j}",
    derivative_formula=r"\frac{\partial y_i}{\partial x_j} = \delta_{ij} - e^{y_j}",
    value=lambda x, dim=-1: torch.log_softmax(x, dim),
    derivative=lambda x, dim=-1: 1 - torch.softmax(x, dim),
    second_derivative=lambda x, dim=-1: -_softmax_derivative(x, dim),
    parameters={"dim": None},
    range=(-math.inf, 0.0),
    monotone=True,
    kind="normalised",
    saves="output",
    torch_function=F.log_softmax,
    torch_module=nn.LogSoftmax,
    functional_spellings=("log_softmax",),
    source=_BRIDLE,
)

SOFTMAX2D = Activation(
    key="softmax2d",
    name="Softmax2d",
    formula=r"y_{chw} = \frac{e^{x_{chw}}}{\sum_k e^{x_{khw}}}, \text{ over the channels of an image}",
    derivative_formula=r"\frac{\partial y_{chw}}{\partial x_{khw}} = y_{chw} (\delta_{ck} - y_{khw})",
    value=lambda x, dim=-3: torch.softmax(x, dim),
    derivative=lambda x, dim=-3: _softmax_derivative(x, dim),
    second_derivative=lambda x, dim=-3: _softmax_second_derivative(x, dim),
    range=(0.0, 1.0),
    monotone=True,
    kind="normalised",
    saves="output",
    torch_module=nn.Softmax2d,
    source=_BRIDLE,
)

ACTIVATIONS = (SOFTMAX, SOFTMIN, LOG_SOFTMAX, SOFTMAX2D)
