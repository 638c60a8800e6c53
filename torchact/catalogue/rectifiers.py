"""The activations that let one side through: ReLU and what was made of it, piecewise linear but for its square."""

from __future__ import annotations

import math
from typing import overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchact.catalogue.record import Activation, Pair


@overload
def per_channel(parameter: Tensor, x: Tensor) -> Tensor: ...


@overload
def per_channel(parameter: float | Tensor, x: Tensor) -> float | Tensor: ...


def per_channel(parameter: float | Tensor, x: Tensor) -> float | Tensor:
    """Return a learnable parameter so that it broadcasts against ``x``: one value, or one a channel (dimension 1).

    Tensors of two and more dimensions broadcast as they are.
    """
    if not isinstance(parameter, Tensor) or parameter.dim() != 1:
        return parameter
    if isinstance(x, torch.fx.Proxy):
        if parameter.numel() > 1:
            raise TypeError("input: symbolic tracing does not know the dimensions that one entry a channel asks for")
        return parameter
    if x.dim() > 0 and not torch.jit.is_tracing() and parameter.numel() == 1:  # type: ignore[attr-defined]
        return parameter  # broadcasts as it is; a view would cost a node of the graph
    return parameter.reshape(-1, *(1,) * (x.dim() - 2)) if x.dim() > 1 else parameter.reshape(())


def _two_slopes(x: Tensor, negative_slope: float | Tensor) -> Tensor:
    return torch.where(x > 0, torch.ones_like(x), negative_slope)


def _leaky_relu_derivative(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    return _two_slopes(x, negative_slope)


def _prelu(x: Tensor, weight: float | Tensor = 0.25) -> Tensor:
    return torch.where(x > 0, x, per_channel(weight, x) * x)


def _prelu_derivative(x: Tensor, weight: float | Tensor = 0.25) -> Tensor:
    return _two_slopes(x, per_channel(weight, x))


def _prelu_partials(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return _prelu_derivative(x, weight), torch.where(x > 0, 0.0, x)


RELU = Activation(
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
)

RELU6 = Activation(
    key="relu6",
    name="ReLU6",
    formula=r"\min(\max(0, x), 6)",
    derivative_formula=r"1 \text{ if } 0 < x < 6 \text{ else } 0",
    value=F.relu6,
    derivative=lambda x: ((x > 0) & (x < 6)).to(x.dtype),
    second_derivative=torch.zeros_like,
    range=(0.0, 6.0),
    monotone=True,
    kinks=(0.0, 6.0),
    saves="input",
    torch_function=F.relu6,
    torch_module=nn.ReLU6,
    functional_spellings=("relu6",),
    source="Krizhevsky 2010, Convolutional Deep Belief Networks on CIFAR-10",
)

LEAKY_RELU = Activation(
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
)

PRELU = Activation(
    key="prelu",
    name="PReLU",
    formula=r"x \text{ if } x > 0 \text{ else } w x, \quad w \text{ learnt, for each channel}",
    derivative_formula=r"1 \text{ if } x > 0 \text{ else } w; \quad "
    r"\frac{\partial \varphi}{\partial w} = \min(0, x)",
    value=_prelu,
    derivative=_prelu_derivative,
    second_derivative=lambda x, weight=0.25: torch.zeros_like(x),
    parameters={"weight": 0.25},
    learnable="weight",
    pair=Pair(_prelu, _prelu_partials),
    range=(-math.inf, math.inf),
    monotone=True,
    kinks=(0.0,),
    saves="input",
    torch_function=F.prelu,
    torch_module=nn.PReLU,
    functional_spellings=("prelu",),
    aliases=("parametric relu",),
    source="He, Zhang, Ren and Sun 2015, Delving Deep into Rectifiers, arXiv:1502.01852",
)

RRELU = Activation(
    key="rrelu",
    name="RReLU",
    formula=r"x \text{ if } x > 0 \text{ else } a x, \quad a \sim U(\text{lower}, \text{upper}) \text{ in training, "
    r"the mean of the two in evaluation}",
    derivative_formula=r"1 \text{ if } x > 0 \text{ else } a",
    value=lambda x, lower=1 / 8, upper=1 / 3: F.leaky_relu(x, (lower + upper) / 2),  # torch's own has no vmap
    derivative=lambda x, lower=1 / 8, upper=1 / 3: _two_slopes(x, (lower + upper) / 2),
    second_derivative=lambda x, lower=1 / 8, upper=1 / 3: torch.zeros_like(x),
    parameters={"lower": 1 / 8, "upper": 1 / 3},
    range=(-math.inf, math.inf),
    monotone=True,
    kinks=(0.0,),
    saves="input",
    torch_function=F.rrelu,
    torch_module=nn.RReLU,
    functional_spellings=("rrelu", "rrelu_"),
    aliases=("randomised leaky relu", "randomized leaky relu"),
    source="Xu, Wang, Chen and Li 2015, Empirical Evaluation of Rectified Activations, arXiv:1505.00853",
)

THRESHOLD = Activation(
    key="threshold",
    name="Threshold",
    formula=r"x \text{ if } x > t \text{ else } v, \quad t = \text{threshold}, v = \text{value}",
    derivative_formula=r"1 \text{ if } x > t \text{ else } 0",
    value=lambda x, threshold=0.0, value=0.0: F.threshold(x, threshold, value),
    derivative=lambda x, threshold=0.0, value=0.0: (~(x <= threshold)).to(x.dtype),  # 1 at NaN
    second_derivative=lambda x, threshold=0.0, value=0.0: torch.zeros_like(x),
    parameters={"threshold": 0.0, "value": 0.0},
    range=(0.0, math.inf),
    monotone=True,
    moving_kinks=lambda threshold, value: (threshold,),
    saves="input",
    torch_function=F.threshold,
    torch_module=nn.Threshold,
    functional_spellings=("threshold", "threshold_"),
    source="Nair and Hinton 2010, Rectified Linear Units Improve Restricted Boltzmann Machines (t = v = 0)",
)

SQUARED_RELU = Activation(
    key="squared_relu",
    name="SquaredReLU",
    formula=r"\max(0, x)^2",
    derivative_formula=r"2 \max(0, x)",
    value=lambda x: torch.square(F.relu(x)),
    derivative=lambda x: 2 * F.relu(x),
    second_derivative=lambda x: 2 * (x > 0).to(x.dtype),
    range=(0.0, math.inf),
    monotone=True,
    saves="input",
    aliases=("relu2", "relu squared"),
    source="So et al. 2021, Primer, arXiv:2109.08668",
)

ACTIVATIONS = (RELU, RELU6, LEAKY_RELU, PRELU, RRELU, THRESHOLD, SQUARED_RELU)
