"""The S-shaped activations, flat at both ends, and the logarithm of the sigmoid."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchact.catalogue.record import Activation


def logistic_derivative(x: Tensor) -> Tensor:
    """Return σ'(x), without the cancellation that σ(x)(1 - σ(x)) suffers on the right."""
    return torch.sigmoid(x) * torch.sigmoid(-x)


def logistic_second_derivative(x: Tensor) -> Tensor:
    """Return σ''(x)."""
    return -logistic_derivative(x) * torch.tanh(x / 2)


def _tanh_derivative(x: Tensor) -> Tensor:
    # 1 - tanh² would cancel, and 1 / cosh² has an infinite denominator, whose own derivative is NaN.
    return 4 * logistic_derivative(2 * x)


def _between(x: Tensor, low: float, high: float) -> Tensor:
    return ((x > low) & (x < high)).to(x.dtype)


SIGMOID = Activation(
    key="sigmoid",
    name="Sigmoid",
    formula=r"\sigma(x) = \frac{1}{1 + e^{-x}}",
    derivative_formula=r"\sigma(x)(1 - \sigma(x))",
    value=torch.sigmoid,
    derivative=logistic_derivative,
    second_derivative=logistic_second_derivative,
    range=(0.0, 1.0),
    monotone=True,
    saves="output",
    torch_function=torch.sigmoid,
    torch_module=nn.Sigmoid,
    functional_spellings=("sigmoid", "sigmoid_", "expit"),
    aliases=("logistic",),
    source="Rumelhart, Hinton and Williams 1986, doi:10.1038/323533a0",
)

TANH = Activation(
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
)

LOGSIGMOID = Activation(
    key="logsigmoid",
    name="LogSigmoid",
    formula=r"\log \sigma(x) = -\log(1 + e^{-x})",
    derivative_formula=r"\sigma(-x)",
    value=F.logsigmoid,
    derivative=lambda x: torch.sigmoid(-x),
    second_derivative=lambda x: -logistic_derivative(x),
    range=(-math.inf, 0.0),
    monotone=True,
    saves="input",
    torch_function=F.logsigmoid,
    torch_module=nn.LogSigmoid,
    functional_spellings=("logsigmoid",),
    source="Cox 1958, The Regression Analysis of Binary Sequences, doi:10.1111/j.2517-6161.1958.tb00292.x",
)

SOFTSIGN = Activation(
    key="softsign",
    name="Softsign",
    formula=r"\frac{x}{1 + |x|}",
    derivative_formula=r"\frac{1}{(1 + |x|)^2}",
    value=lambda x: x / (1 + x.abs()),
    derivative=lambda x: (1 / (1 + x.abs())) ** 2,
    second_derivative=lambda x: -2 * x.sign() * (1 / (1 + x.abs())) ** 3,
    range=(-1.0, 1.0),
    monotone=True,
    saves="input",
    torch_function=F.softsign,
    torch_module=nn.Softsign,
    functional_spellings=("softsign",),
    source="Turian, Bergstra and Bengio 2009, Quadratic Features and Deep Architectures for Chunking",
)

HARDTANH = Activation(
    key="hardtanh",
    name="Hardtanh",
    formula=r"\min(\max(x, a), b), \quad a = \text{min\_val}, b = \text{max\_val}",
    derivative_formula=r"1 \text{ if } a < x < b \text{ else } 0",
    value=F.hardtanh,
    derivative=lambda x, min_val=-1.0, max_val=1.0: _between(x, min_val, max_val),
    second_derivative=lambda x, min_val=-1.0, max_val=1.0: torch.zeros_like(x),
    parameters={"min_val": -1.0, "max_val": 1.0},
    range=(-1.0, 1.0),
    monotone=True,
    moving_kinks=lambda min_val, max_val: (min_val, max_val),
    saves="input",
    torch_function=F.hardtanh,
    torch_module=nn.Hardtanh,
    functional_spellings=("hardtanh", "hardtanh_"),
    source="Collobert 2004, Large Scale Machine Learning (thesis, Université Paris VI)",
)

HARDSIGMOID = Activation(
    key="hardsigmoid",
    name="Hardsigmoid",
    formula=r"\frac{1}{6} \min(\max(x + 3, 0), 6)",
    derivative_formula=r"\frac{1}{6} \text{ if } |x| < 3 \text{ else } 0",
    value=lambda x: F.relu6(x + 3) / 6,  # torch's own has no second derivative, and a float64 one with float32 digits
    derivative=lambda x: _between(x, -3, 3) / 6,
    second_derivative=torch.zeros_like,
    range=(0.0, 1.0),
    monotone=True,
    kinks=(-3.0, 3.0),
    saves="input",
    torch_function=F.hardsigmoid,
    torch_module=nn.Hardsigmoid,
    functional_spellings=("hardsigmoid",),
    source="Courbariaux, Bengio and David 2015, BinaryConnect, arXiv:1511.00363 (torch's slope: Howard et al. 2019, "
    "arXiv:1905.02244)",
)

ACTIVATIONS = (SIGMOID, TANH, LOGSIGMOID, SOFTSIGN, HARDTANH, HARDSIGMOID)
