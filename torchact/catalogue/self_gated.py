"""The activations x · g(x) with a gate g that opens from 0 to 1: SiLU, GELU, Mish and their relatives.

All of them fall to a shallow minimum left of 0 and come back to 0, so that their derivative is slightly negative there.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchact.catalogue.record import Activation, Pair
from torchact.catalogue.rectifiers import per_channel
from torchact.catalogue.sigmoidal import logistic_derivative, logistic_second_derivative

#: β of the sigmoid that stands for Φ in the quick GELU.
QUICK_GELU_BETA = 1.702

#: 2√(2/π), since the tanh approximation of Φ(x) is σ(2√(2/π)(x + 0.044715 x³)).
_TANH_SCALE = 2 * math.sqrt(2 / math.pi)
_TANH_CUBIC = 0.044715


def _logit(x: Tensor, beta: float | Tensor) -> Tensor:
    """Return βx within ±1000, where the sigmoid is 0 or 1 in every dtype, so that no product with it is 0 · ∞."""
    return (per_channel(beta, x) * x).clamp(-1000, 1000)


def _swish(x: Tensor, beta: float | Tensor = 1.0) -> Tensor:
    return x * torch.sigmoid(_logit(x, beta))


def _swish_derivative(x: Tensor, beta: float | Tensor = 1.0) -> Tensor:
    z = _logit(x, beta)
    return torch.sigmoid(z) * (1 + z * torch.sigmoid(-z))


def _swish_second_derivative(x: Tensor, beta: float | Tensor = 1.0) -> Tensor:
    z = _logit(x, beta)
    return per_channel(beta, x) * (2 * logistic_derivative(z) + z * logistic_second_derivative(z))


def _swish_partials(x: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    slope = logistic_derivative(_logit(x, beta))
    return _swish_derivative(x, beta), x * (x * slope)  # x² could overflow where the slope is 0


def _bell(x: Tensor) -> Tensor:
    """Return the standard normal density."""
    inside = x.clamp(-40, 40)  # outside it is 0 in every dtype, and x² could overflow
    return torch.exp(-inside * inside / 2) / math.sqrt(2 * math.pi)


def _gelu(x: Tensor, approximate: str = "none") -> Tensor:
    if approximate == "tanh":
        return _gelu_tanh(x)
    if approximate != "none":
        return F.gelu(x, approximate=approximate)  # which raises
    # Φ by erfc, since 1 + erf has lost all its digits at x = -6; erfc is 0 or 2 in every dtype beyond ±40.
    return 0.5 * x * torch.special.erfc(x.clamp(-40, 40) * -math.sqrt(0.5))


def _gelu_derivative(x: Tensor, approximate: str = "none") -> Tensor:
    if approximate == "tanh":
        return _gelu_tanh_derivative(x)
    inside = x.clamp(-40, 40)
    return 0.5 * torch.special.erfc(inside * -math.sqrt(0.5)) + inside * _bell(inside)


def _gelu_second_derivative(x: Tensor, approximate: str = "none") -> Tensor:
    if approximate == "tanh":
        return _gelu_tanh_second_derivative(x)
    return (2 - x.clamp(-40, 40).square()) * _bell(x)


def _tanh_argument(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return z with gelu_tanh(x) = x σ(z), and z', of x within ±30, where σ is 0 or 1 in every dtype."""
    square = x * x
    return _TANH_SCALE * x * (1 + _TANH_CUBIC * square), _TANH_SCALE * (1 + 3 * _TANH_CUBIC * square)


def _gelu_tanh(x: Tensor) -> Tensor:
    return x * torch.sigmoid(_tanh_argument(x.clamp(-30, 30))[0])


def _gelu_tanh_derivative(x: Tensor) -> Tensor:
    inside = x.clamp(-30, 30)
    z, slope = _tanh_argument(inside)
    return torch.sigmoid(z) * (1 + inside * slope * torch.sigmoid(-z))


def _gelu_tanh_second_derivative(x: Tensor) -> Tensor:
    inside = x.clamp(-30, 30)
    z, slope = _tanh_argument(inside)
    curvature = 6 * _TANH_SCALE * _TANH_CUBIC * inside
    first, second = logistic_derivative(z), logistic_second_derivative(z)
    return (2 * slope + inside * curvature) * first + inside * slope * second * slope


def _mish_gate(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return t = tanh(softplus(x)) and x t' = x (1 - t²) σ(x), of x within ±1000, where t is 0 or 1 in every dtype."""
    inside = x.clamp(-1000, 1000)
    softplus = F.softplus(inside, threshold=40)
    return torch.tanh(softplus), inside * (4 * logistic_derivative(2 * softplus) * torch.sigmoid(inside))


def _mish(x: Tensor) -> Tensor:
    return x * _mish_gate(x)[0]


def _mish_derivative(x: Tensor) -> Tensor:
    gate, slope = _mish_gate(x)
    return gate + slope


def _mish_second_derivative(x: Tensor) -> Tensor:
    inside = x.clamp(-1000, 1000)
    softplus = F.softplus(inside, threshold=40)
    gate, sigmoid = torch.tanh(softplus), torch.sigmoid(inside)
    slope = 4 * logistic_derivative(2 * softplus) * sigmoid
    return slope * (2 + inside * (1 - sigmoid - 2 * gate * sigmoid))


def _hardswish(x: Tensor) -> Tensor:
    return x * (F.relu6(x + 3) / 6)  # torch's x · relu6(x + 3) / 6 overflows at a sixth of the greatest number


def _hardswish_derivative(x: Tensor) -> Tensor:
    inside = x.clamp(-3, 3) / 3 + 0.5
    return torch.where(x <= -3, 0.0, torch.where(x < 3, inside, 1.0))


SILU = Activation(
    key="silu",
    name="SiLU",
    formula=r"x \sigma(x)",
    derivative_formula=r"\sigma(x) \left(1 + x \sigma(-x)\right)",
    value=F.silu,
    derivative=_swish_derivative,
    second_derivative=_swish_second_derivative,
    range=(-0.27846454276107374, math.inf),
    monotone=False,
    saves="input",
    torch_function=F.silu,
    torch_module=nn.SiLU,
    functional_spellings=("silu",),
    aliases=("sigmoid linear unit",),
    source="Elfwing, Uchibe and Doya 2017, Sigmoid-Weighted Linear Units, arXiv:1702.03118",
)

SWISH = Activation(
    key="swish",
    name="Swish",
    formula=r"x \sigma(\beta x), \quad \beta \text{ fixed or learnt}",
    derivative_formula=r"\sigma(\beta x) \left(1 + \beta x \sigma(-\beta x)\right); \quad "
    r"\frac{\partial \varphi}{\partial \beta} = x^2 \sigma(\beta x) \sigma(-\beta x)",
    value=_swish,
    derivative=_swish_derivative,
    second_derivative=_swish_second_derivative,
    parameters={"beta": 1.0},
    learnable="beta",
    pair=Pair(_swish, _swish_partials),
    range=(-0.27846454276107374, math.inf),
    monotone=False,
    saves="input",
    source="Ramachandran, Zoph and Le 2017, Searching for Activation Functions, arXiv:1710.05941",
)

QUICK_GELU = Activation(
    key="quick_gelu",
    name="QuickGELU",
    formula=r"x \sigma(1.702 x)",
    derivative_formula=r"\sigma(1.702 x) \left(1 + 1.702 x \sigma(-1.702 x)\right)",
    value=lambda x: _swish(x, QUICK_GELU_BETA),
    derivative=lambda x: _swish_derivative(x, QUICK_GELU_BETA),
    second_derivative=lambda x: _swish_second_derivative(x, QUICK_GELU_BETA),
    range=(-0.27846454276107374 / QUICK_GELU_BETA, math.inf),
    monotone=False,
    saves="input",
    aliases=("gelu sigmoid",),
    source="Hendrycks and Gimpel 2016, Gaussian Error Linear Units, arXiv:1606.08415, section 2",
)

GELU = Activation(
    key="gelu",
    name="GELU",
    formula=r"x \Phi(x), \quad \Phi(x) = \frac{1}{2} \operatorname{erfc}\left(\frac{-x}{\sqrt{2}}\right)",
    derivative_formula=r"\Phi(x) + x \frac{e^{-x^2 / 2}}{\sqrt{2 \pi}}",
    value=_gelu,
    derivative=_gelu_derivative,
    second_derivative=_gelu_second_derivative,
    parameters={"approximate": "none"},
    range=(-0.16997120747990369, math.inf),
    monotone=False,
    saves="input",
    torch_function=F.gelu,
    torch_module=nn.GELU,
    functional_spellings=("gelu",),
    aliases=("gaussian error linear unit", "gelu python"),
    source="Hendrycks and Gimpel 2016, Gaussian Error Linear Units, arXiv:1606.08415",
)

GELU_TANH = Activation(
    key="gelu_tanh",
    name="GELUTanh",
    formula=r"\frac{x}{2} \left(1 + \tanh(u)\right), \quad u = \sqrt{2 / \pi} \left(x + 0.044715 x^3\right)",
    derivative_formula=r"\sigma(2 u) \left(1 + 2 x u' \sigma(-2 u)\right), "
    r"\quad u' = \sqrt{2 / \pi} \left(1 + 0.134145 x^2\right)",
    value=_gelu_tanh,
    derivative=_gelu_tanh_derivative,
    second_derivative=_gelu_tanh_second_derivative,
    range=(-0.17004075057125405, math.inf),
    monotone=False,
    saves="input",
    aliases=("gelu new", "gelu fast", "gelu accurate", "gelu pytorch tanh"),
    source="Hendrycks and Gimpel 2016, Gaussian Error Linear Units, arXiv:1606.08415, section 2",
)

MISH = Activation(
    key="mish",
    name="Mish",
    formula=r"x \tanh\left(\log(1 + e^x)\right)",
    derivative_formula=r"t + x (1 - t^2) \sigma(x), \quad t = \tanh\left(\log(1 + e^x)\right)",
    value=_mish,
    derivative=_mish_derivative,
    second_derivative=_mish_second_derivative,
    range=(-0.30884341301725041, math.inf),
    monotone=False,
    saves="input",
    torch_function=F.mish,
    torch_module=nn.Mish,
    functional_spellings=("mish",),
    source="Misra 2019, arXiv:1908.08681",
)

HARDSWISH = Activation(
    key="hardswish",
    name="Hardswish",
    formula=r"\frac{x}{6} \min(\max(x + 3, 0), 6)",
    derivative_formula=r"0 \text{ if } x \le -3, \quad \frac{x}{3} + \frac{1}{2} \text{ if } |x| < 3, "
    r"\quad 1 \text{ if } x \ge 3",
    value=_hardswish,
    derivative=_hardswish_derivative,
    second_derivative=lambda x: ((x > -3) & (x < 3)).to(x.dtype) / 3,
    range=(-0.375, math.inf),
    monotone=False,
    kinks=(-3.0, 3.0),
    saves="input",
    torch_function=F.hardswish,
    torch_module=nn.Hardswish,
    functional_spellings=("hardswish",),
    source="Howard et al. 2019, Searching for MobileNetV3, arXiv:1905.02244",
)

ACTIVATIONS = (SILU, SWISH, QUICK_GELU, GELU, GELU_TANH, MISH, HARDSWISH)
