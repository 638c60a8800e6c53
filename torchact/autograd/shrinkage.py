"""The activations that push small inputs towards zero."""

from __future__ import annotations

import torch
from torch import Tensor

from torchact import catalogue
from torchact.autograd.function import ActivationFunction


class Tanhshrink(ActivationFunction):
    r"""With y = x - tanh(x): :math:`\partial y / \partial x = \tanh^2(x)`."""

    activation = catalogue.get("tanhshrink")


class Softshrink(ActivationFunction):
    r"""With λ = ``lambd``: :math:`\partial y / \partial x` is 1 where \|x\| > λ, else 0."""

    activation = catalogue.get("softshrink")

    @classmethod
    def pullback(cls, grad_output: Tensor, input: Tensor, lambd: float) -> Tensor:
        return torch.ops.aten.softshrink_backward(grad_output, input, float(lambd))


class Hardshrink(ActivationFunction):
    r"""With λ = ``lambd``: :math:`\partial y / \partial x` is 1 where \|x\| > λ, else 0."""

    activation = catalogue.get("hardshrink")

    @classmethod
    def pullback(cls, grad_output: Tensor, input: Tensor, lambd: float) -> Tensor:
        return torch.ops.aten.hardshrink_backward(grad_output, input, float(lambd))
