"""The S-shaped activations. The derivatives of sigmoid and tanh are polynomials in their outputs."""

from __future__ import annotations

import torch
from torch import Tensor

from torchact import catalogue
from torchact.autograd.function import ActivationFunction


class Sigmoid(ActivationFunction):
    r"""With y = σ(x): :math:`\partial y / \partial x = y (1 - y)`, at most 1/4, at x = 0."""

    activation = catalogue.get("sigmoid")
    derivative = staticmethod(lambda output: output * (1 - output))


class Tanh(ActivationFunction):
    r"""With y = tanh(x): :math:`\partial y / \partial x = 1 - y^2`, at most 1, at x = 0."""

    activation = catalogue.get("tanh")
    derivative = staticmethod(lambda output: 1 - output * output)


class LogSigmoid(ActivationFunction):
    r"""With y = log σ(x): :math:`\partial y / \partial x = \sigma(-x)`; 1 - σ(x) would cancel on the right."""

    activation = catalogue.get("logsigmoid")


class Softsign(ActivationFunction):
    r"""With y = x / (1 + \|x\|): :math:`\partial y / \partial x = 1 / (1 + |x|)^2`."""

    activation = catalogue.get("softsign")


class Hardtanh(ActivationFunction):
    r"""With y = x clamped to (a, b): :math:`\partial y / \partial x` is 1 between a and b, 0 at both and outside."""

    activation = catalogue.get("hardtanh")

    @classmethod
    def pullback(cls, grad_output: Tensor, input: Tensor, min_val: float, max_val: float) -> Tensor:
        return torch.ops.aten.hardtanh_backward(grad_output, input, float(min_val), float(max_val))


class Hardsigmoid(ActivationFunction):
    r"""With y = (x + 3) / 6 clamped to (0, 1): :math:`\partial y / \partial x` is 1/6 between -3 and 3, else 0."""

    activation = catalogue.get("hardsigmoid")

    @classmethod
    def pullback(cls, grad_output: Tensor, input: Tensor) -> Tensor:
        return torch.ops.aten.hardtanh_backward(grad_output / 6, input, -3.0, 3.0)
