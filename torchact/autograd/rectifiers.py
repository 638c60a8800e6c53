"""The activations that let one side through: ReLU and what was made of it.

Their derivative at a kink is the left one, as torch's. They pull back by torch's own operators, which select rather
than multiply, so that an infinite ``grad_output`` does not become NaN where the derivative is zero, and whose second
derivative is a zero that can be differentiated again, where a comparison would cut the graph.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from torchact import catalogue
from torchact.autograd.function import ActivationFunction, PairFunction


class ReLU(ActivationFunction):
    r"""With y = max(0, x): :math:`\partial y / \partial x` is 0 where y is 0, else 1 (also at NaN, as torch's)."""

    activation = catalogue.get("relu")
    derivative = staticmethod(lambda output: (~(output <= 0)).to(output.dtype))

    @classmethod
    def pullback(cls, grad_output: Tensor, output: Tensor) -> Tensor:
        return torch.ops.aten.threshold_backward(grad_output, output, 0)


class ReLU6(ActivationFunction):
    r"""With y = x clamped to (0, 6): :math:`\partial y / \partial x` is 1 between 0 and 6, 0 at both and outside."""

    activation = catalogue.get("relu6")

    @classmethod
    def pullback(cls, grad_output: Tensor, input: Tensor) -> Tensor:
        return torch.ops.aten.hardtanh_backward(grad_output, input, 0.0, 6.0)


class LeakyReLU(ActivationFunction):
    r"""With a = ``negative_slope``: :math:`\partial y / \partial x` is 1 where x > 0, else a."""

    activation = catalogue.get("leaky_relu")

    @classmethod
    def pullback(cls, grad_output: Tensor, input: Tensor, negative_slope: float) -> Tensor:
        return torch.ops.aten.leaky_relu_backward(grad_output, input, float(negative_slope), False)


class PReLU(PairFunction):
    r"""With w = ``weight``: :math:`\partial y / \partial x` is 1 where x > 0, else w.

    :math:`\partial y / \partial w` is min(0, x), summed over all that share the weight.
    """

    activation = catalogue.get("prelu")

    @classmethod
    def pullback(cls, grad_output: Tensor, first: Tensor, second: Tensor) -> Any:
        return torch.ops.aten._prelu_kernel_backward(grad_output, first, second)


class RReLU(ActivationFunction):
    r"""In evaluation, with a the mean of the bounds: :math:`\partial y / \partial x` is 1 where x > 0, else a."""

    activation = catalogue.get("rrelu")

    @classmethod
    def pullback(cls, grad_output: Tensor, input: Tensor, lower: float, upper: float) -> Tensor:
        return torch.ops.aten.leaky_relu_backward(grad_output, input, float(lower + upper) / 2, False)


def _random(input: Tensor, lower: float, upper: float) -> Tensor:
    return F.rrelu(input, lower, upper, training=True)


class RandomRReLU(ActivationFunction):
    r"""In training: :math:`\partial y / \partial x` is the slope that was drawn, 1 where x > 0.

    torch's own operator draws the slopes, so that a seed gives torch's numbers, and nothing else is kept.
    """

    activation = catalogue.get("rrelu")
    formula = staticmethod(_random)
    forward_kernel = staticmethod(_random)
    derivative = staticmethod(lambda slopes, lower, upper: slopes)
    backward_kernel = staticmethod(lambda grad_output, slopes, lower, upper: grad_output * slopes)

    @classmethod
    def forward(cls, ctx: FunctionCtx, input: Tensor, *parameters: Any) -> Tensor:
        slopes = torch.empty_like(input)
        output = torch.ops.aten.rrelu_with_noise(input, slopes, *parameters, True)
        ctx.save_for_backward(slopes)
        ctx.parameters = parameters  # type: ignore[attr-defined]
        return output


class Threshold(ActivationFunction):
    r"""With t = ``threshold``: :math:`\partial y / \partial x` is 1 where x > t, else 0."""

    activation = catalogue.get("threshold")

    @classmethod
    def pullback(cls, grad_output: Tensor, input: Tensor, threshold: float, value: float) -> Tensor:
        return torch.ops.aten.threshold_backward(grad_output, input, float(threshold))


class SquaredReLU(ActivationFunction):
    r"""With y = max(0, x)²: :math:`\partial y / \partial x = 2 \max(0, x)`."""

    activation = catalogue.get("squared_relu")
