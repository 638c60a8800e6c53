"""The activations that bend exponentially on the left and run linearly on the right. All save their input."""

from __future__ import annotations

from torchact import catalogue
from torchact.autograd.function import ActivationFunction


class ELU(ActivationFunction):
    r"""With a = ``alpha``: :math:`\partial y / \partial x` is 1 where x > 0, else :math:`a e^x`."""

    activation = catalogue.get("elu")


class SELU(ActivationFunction):
    r"""With the paper's α and λ: :math:`\partial y / \partial x` is λ where x > 0, else :math:`\lambda \alpha e^x`."""

    activation = catalogue.get("selu")


class CELU(ActivationFunction):
    r"""With a = ``alpha``: :math:`\partial y / \partial x` is 1 where x > 0, else :math:`e^{x / a}`."""

    activation = catalogue.get("celu")


class Softplus(ActivationFunction):
    r"""With b = ``beta``: :math:`\partial y / \partial x = \sigma(b x)`, and 1 where b x > ``threshold``."""

    activation = catalogue.get("softplus")
