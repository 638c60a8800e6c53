"""The piecewise linear activations with a kink at 0: ReLU and leaky ReLU.

Their derivative at 0 is the left one, as torch's. ``torch.where`` rather than a product keeps an infinite
``grad_output`` from becoming NaN where the derivative is zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from torchact import catalogue
from torchact.autograd.function import ActivationFunction


class ReLU(ActivationFunction):
    r"""With y = max(0, x): :math:`\partial y / \partial x` is 0 where y is 0, else 1 (also at NaN, as torch's)."""

    activation = catalogue.get("relu")
    derivative = staticmethod(lambda output: (~(output <= 0)).to(output.dtype))

    @classmethod
    def pullback(cls, grad_output: Tensor, output: Tensor) -> Tensor:
        return torch.where(output <= 0, 0, grad_output)


class LeakyReLU(ActivationFunction):
    r"""With a = ``negative_slope``: :math:`\partial y / \partial x` is 1 where x > 0, else a."""

    activation = catalogue.get("leaky_relu")
    derivative = staticmethod(lambda input, negative_slope: torch.where(input > 0, 1, negative_slope).to(input.dtype))

    @classmethod
    def pullback(cls, grad_output: Tensor, input: Tensor, negative_slope: float) -> Tensor:
        return torch.where(input > 0, grad_output, grad_output * negative_slope)
