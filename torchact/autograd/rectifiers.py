"""The piecewise linear activations with a kink at 0: ReLU and leaky ReLU.

Their derivative at 0 is the left one, as torch's. They pull back by torch's own operators, which select rather than
multiply, so that an infinite ``grad_output`` does not become NaN where the derivative is zero, and whose second
derivative is a zero that can be differentiated again, where a comparison would cut the graph.
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
        return torch.ops.aten.threshold_backward(grad_output, output, 0)


class LeakyReLU(ActivationFunction):
    r"""With a = ``negative_slope``: :math:`\partial y / \partial x` is 1 where x > 0, else a."""

    activation = catalogue.get("leaky_relu")
    derivative = staticmethod(activation.derivative)

    @classmethod
    def pullback(cls, grad_output: Tensor, input: Tensor, negative_slope: float) -> Tensor:
        return torch.ops.aten.leaky_relu_backward(grad_output, input, float(negative_slope), False)
