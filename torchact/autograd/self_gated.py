"""The activations x · g(x) with a gate g that opens from 0 to 1. All save their input."""

from __future__ import annotations

from torchact import catalogue
from torchact.autograd.function import ActivationFunction, PairFunction


class SiLU(ActivationFunction):
    r"""With s = σ(x): :math:`\partial y / \partial x = s (1 + x (1 - s))`."""

    activation = catalogue.get("silu")


class Swish(ActivationFunction):
    r"""With a fixed b = ``beta`` and s = σ(b x): :math:`\partial y / \partial x = s (1 + b x (1 - s))`."""

    activation = catalogue.get("swish")


class LearnableSwish(PairFunction):
    r"""With b = ``beta``, a tensor: :math:`\partial y / \partial x` as of :class:`Swish`, and
    :math:`\partial y / \partial b = x^2 s (1 - s)`, summed over all that share it.
    """

    activation = catalogue.get("swish")


class QuickGELU(ActivationFunction):
    r"""With s = σ(1.702 x): :math:`\partial y / \partial x = s (1 + 1.702 x (1 - s))`."""

    activation = catalogue.get("quick_gelu")


class GELU(ActivationFunction):
    r"""With Φ and φ the normal distribution and density: :math:`\partial y / \partial x = \Phi(x) + x \varphi(x)`."""

    activation = catalogue.get("gelu")


class GELUTanh(ActivationFunction):
    r"""With s = σ(2u), u = √(2/π) (x + 0.044715 x³): :math:`\partial y / \partial x = s (1 + 2 x u' (1 - s))`."""

    activation = catalogue.get("gelu_tanh")


class Mish(ActivationFunction):
    r"""With t = tanh(softplus(x)): :math:`\partial y / \partial x = t + x (1 - t^2) \sigma(x)`."""

    activation = catalogue.get("mish")


class Hardswish(ActivationFunction):
    r"""With y = x (x + 3) / 6 between -3 and 3: :math:`\partial y / \partial x` is x / 3 + 1/2 there, 0 left of it and
    1 right of it.
    """

    activation = catalogue.get("hardswish")
