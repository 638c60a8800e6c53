"""The activations that push small inputs towards zero."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchact.catalogue.record import Activation
from torchact.catalogue.sigmoidal import TANH


def _outside(x: Tensor, lambd: float = 0.5) -> Tensor:
    return (x.abs() > lambd).to(x.dtype)


def _no_curvature(x: Tensor, lambd: float = 0.5) -> Tensor:
    return torch.zeros_like(x)


#: Coefficients of x³, x⁵, … in the Taylor series of x - tanh(x), by t' = 1 - t²; to rounding within ±0.3.
_TANHSHRINK_SERIES = (
    1 / 3,
    -2 / 15,
    17 / 315,
    -62 / 2835,
    1382 / 155925,
    -21844 / 6081075,
    929569 / 638512875,
    -6404582 / 10854718875,
    443861162 / 1856156927625,
    -18888466084 / 194896477400625,
    113927491862 / 2900518163668125,
)
_SERIES_REACH = 0.3


def _tanhshrink(x: Tensor) -> Tensor:
    small = x.clamp(-_SERIES_REACH, _SERIES_REACH)
    square = small * small
    series = torch.zeros_like(small)
    for coefficient in reversed(_TANHSHRINK_SERIES):
        series = series * square + coefficient
    # Near 0 the difference would cancel; x³/3 is all that is left of it.
    return torch.where(x.abs() < _SERIES_REACH, small * square * series, x - torch.tanh(x))


TANHSHRINK = Activation(
    key="tanhshrink",
    name="Tanhshrink",
    formula=r"x - \tanh(x)",
    derivative_formula=r"\tanh^2(x)",
    value=_tanhshrink,
    derivative=lambda x: torch.tanh(x).square(),
    second_derivative=lambda x: 2 * torch.tanh(x) * TANH.derivative(x),
    range=(-math.inf, math.inf),
    monotone=True,
    saves="input",
    torch_function=F.tanhshrink,
    torch_module=nn.Tanhshrink,
    functional_spellings=("tanhshrink",),
    source="Collobert, Kavukcuoglu and Farabet 2011, Torch7 (the module TanhShrink)",
)

SOFTSHRINK = Activation(
    key="softshrink",
    name="Softshrink",
    formula=r"\operatorname{sign}(x) \max(0, |x| - \lambda), \quad \lambda = \text{lambd}",
    derivative_formula=r"1 \text{ if } |x| > \lambda \text{ else } 0",
    value=F.softshrink,
    derivative=_outside,
    second_derivative=_no_curvature,
    parameters={"lambd": 0.5},
    range=(-math.inf, math.inf),
    monotone=True,
    moving_kinks=lambda lambd: (-lambd, lambd),
    saves="input",
    torch_function=F.softshrink,
    torch_module=nn.Softshrink,
    functional_spellings=("softshrink",),
    aliases=("soft thresholding",),
    source="Donoho 1995, De-noising by Soft-thresholding, doi:10.1109/18.382009",
)

HARDSHRINK = Activation(
    key="hardshrink",
    name="Hardshrink",
    formula=r"x \text{ if } |x| > \lambda \text{ else } 0, \quad \lambda = \text{lambd}",
    derivative_formula=r"1 \text{ if } |x| > \lambda \text{ else } 0",
    value=F.hardshrink,
    derivative=_outside,
    second_derivative=_no_curvature,
    parameters={"lambd": 0.5},
    range=(-math.inf, math.inf),
    monotone=True,
    moving_kinks=lambda lambd: (-lambd, lambd),
    saves="input",
    torch_function=F.hardshrink,
    torch_module=nn.Hardshrink,
    functional_spellings=("hardshrink",),
    aliases=("hard thresholding",),
    source="Donoho and Johnstone 1994, Ideal Spatial Adaptation by Wavelet Shrinkage, doi:10.1093/biomet/81.3.425",
)

ACTIVATIONS = (TANHSHRINK, SOFTSHRINK, HARDSHRINK)
