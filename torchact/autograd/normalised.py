"""The activations that normalise over a dimension, so that their derivative is a matrix: softmax."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from torchact import catalogue
from torchact.autograd.function import ActivationFunction


class Softmax(ActivationFunction):
    r"""With y = softmax(x): :math:`\partial y_i / \partial x_j = y_i (\delta_{ij} - y_j)`, a symmetric matrix.

    The product with ``grad_output`` g is therefore :math:`y_i \left(g_i - \sum_j g_j y_j\right)`. Autocast has some
    devices compute y in float32, which the forward kernel, being torch's operator, obeys; autograd casts the gradient.
    """

    activation = catalogue.get("softmax")
    formula = staticmethod(F.softmax)
    derivative = staticmethod(lambda output, dim: output * (1 - output))

    @classmethod
    def pullback(cls, grad_output: Tensor, output: Tensor, dim: int) -> Tensor:
        weighted = grad_output * output
        return weighted - output * weighted.sum(dim, keepdim=True)
