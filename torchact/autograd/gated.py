"""The gated units v · φ(g), each a function of its two halves."""

from __future__ import annotations

from torchact import catalogue
from torchact.autograd.function import PairFunction


class GLU(PairFunction):
    r"""With y = v σ(g): :math:`\partial y / \partial v = \sigma(g)`, :math:`\partial y / \partial g = v \sigma'(g)`."""

    activation = catalogue.get("glu")


class ReGLU(PairFunction):
    r"""With y = v max(0, g): :math:`\partial y / \partial v = \max(0, g)`; :math:`\partial y / \partial g` is v where
    g > 0, else 0.
    """

    activation = catalogue.get("reglu")


class GEGLU(PairFunction):
    r"""With y = v f(g), f = GELU: :math:`\partial y / \partial v = f(g)`, :math:`\partial y / \partial g = v f'(g)`."""

    activation = catalogue.get("geglu")


class SwiGLU(PairFunction):
    r"""With y = (v + o) g σ(a g): :math:`\partial y / \partial v = g \sigma(a g)` and :math:`\partial y / \partial g =
    (v + o) \sigma(a g) (1 + a g \sigma(-a g))`, both 0 where ``limit`` holds v or g back.
    """

    activation = catalogue.get("swiglu")


class Bilinear(PairFunction):
    r"""With y = v g: :math:`\partial y / \partial v = g` and :math:`\partial y / \partial g = v`."""

    activation = catalogue.get("bilinear")
