"""The S-shaped activations, whose derivatives are polynomials in their outputs: sigmoid and tanh."""

from __future__ import annotations

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
