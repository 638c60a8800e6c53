"""The activations that normalise over a dimension, so that their derivative is a matrix: softmax and its relatives.

Autocast has some devices compute y in float32, which the forward kernels, being torch's operators, obey; autograd casts
the gradient.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from torchact import catalogue
from torchact.autograd.function import ActivationFunction


def _product(grad_output: Tensor, output: Tensor, dim: int) -> Tensor:
    weighted = grad_output * output
    return weighted - output * weighted.sum(dim, keepdim=True)


class Softmax(ActivationFunction):
    r"""With y = softmax(x): :math:`\partial y_i / \partial x_j = y_i (\delta_{ij} - y_j)`, a symmetric matrix.

    The product with ``grad_output`` g is therefore :math:`y_i \left(g_i - \sum_j g_j y_j\right)`.
    """

    activation = catalogue.get("softmax")
    formula = staticmethod(F.softmax)
    derivative = staticmethod(lambda output, dim: output * (1 - output))

    @classmethod
    def pullback(cls, grad_output: Tensor, output: Tensor, dim: int) -> Tensor:
        return _product(grad_output, output, dim)


class Softmin(ActivationFunction):
    r"""With y = softmax(-x): the negative of what softmax has, :math:`\partial y_i / \partial x_j = -y_i (\delta_{ij} -
    y_j)`.
    """

    activation = catalogue.get("softmin")
    formula = staticmethod(F.softmin)
    derivative = staticmethod(lambda output, dim: output * (output - 1))

    @classmethod
    def pullback(cls, grad_output: Tensor, output: Tensor, dim: int) -> Tensor:
        return -_product(grad_output, output, dim)


class LogSoftmax(ActivationFunction):
    r"""With y = log softmax(x): :math:`\partial y_i / \partial x_j = \delta_{ij} - e^{y_j}`.

    The product with ``grad_output`` g from the left is :math:`g_j - e^{y_j} \sum_i g_i`.
    """

    activation = catalogue.get("log_softmax")
    formula = staticmethod(F.log_softmax)
    derivative = staticmethod(lambda output, dim: -output.expm1())

    @classmethod
    def pullback(cls, grad_output: Tensor, output: Tensor, dim: int) -> Tensor:
        return grad_output - output.exp() * grad_output.sum(dim, keepdim=True)
