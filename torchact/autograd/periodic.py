"""The activations that come back: a bell, and waves with and without a slope. All save their input."""

from __future__ import annotations

from torchact import catalogue
from torchact.autograd.function import ActivationFunction, PairFunction


class Gaussian(ActivationFunction):
    r"""With y = exp(-x²): :math:`\partial y / \partial x = -2 x e^{-x^2}`."""

    activation = catalogue.get("gaussian")


class Sine(ActivationFunction):
    r"""With ω = ``omega``: :math:`\partial y / \partial x = \omega \cos(\omega x)`."""

    activation = catalogue.get("sine")


class Snake(ActivationFunction):
    r"""With a fixed a = ``alpha``: :math:`\partial y / \partial x = 1 + \sin(2 a x)`."""

    activation = catalogue.get("snake")


class LearnableSnake(PairFunction):
    r"""With a = ``alpha``, a tensor: :math:`\partial y / \partial x` as of :class:`Snake`, and :math:`\partial y /
    \partial a = x \sin(2 a x) / a - \sin^2(a x) / a^2`, summed over all that share it; x² for a = 0.
    """

    activation = catalogue.get("snake")
