"""The activations that normalise over a dimension, so that their derivative is a matrix: softmax."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchact import catalogue
from torchact.autograd.function import ActivationFunction

_autocast_is_enabled = torch._C._is_any_autocast_enabled


class Softmax(ActivationFunction):
    r"""With y = softmax(x): :math:`\partial y_i / \partial x_j = y_i (\delta_{ij} - y_j)`, a symmetric matrix.

    The product with ``grad_output`` g is therefore :math:`y_i \left(g_i - \sum_j g_j y_j\right)`.
    """

    activation = catalogue.get("softmax")
    formula = staticmethod(torch.softmax)
    derivative = staticmethod(lambda output, dim: output * (1 - output))

    @classmethod
    def call(cls, input: Tensor, *parameters: Any) -> Tensor:
        # Autocast decides on some devices that softmax runs in float32; only torch's own operator asks it.
        return torch.softmax(input, *parameters) if _autocast_is_enabled() else super().call(input, *parameters)

    @classmethod
    def pullback(cls, grad_output: Tensor, output: Tensor, dim: int) -> Tensor:
        dtype = grad_output.dtype
        if dtype in (torch.bfloat16, torch.float16):
            grad_output, output = grad_output.float(), output.float()
        weighted = grad_output * output
        return (weighted - output * weighted.sum(dim, keepdim=True)).to(dtype)
