"""The binary step, whose true derivative is zero wherever it exists, and its surrogate derivatives."""

from __future__ import annotations

import torch
from torch import Tensor

from torchact import catalogue
from torchact.autograd.function import ActivationFunction


def _formula(input: Tensor, surrogate: str | None) -> Tensor:
    """Return the step in value and the surrogate in derivative, for whoever differentiates this by their own means.

    Without a surrogate, ``sign`` provides the zero derivative: its graph is connected, as that of the Function is.
    """
    stand_in = torch.sign if surrogate is None else catalogue.SURROGATES[surrogate].value
    step = torch.ge(input, 0).to(input.dtype)
    if not input.is_floating_point():
        return step
    smooth = stand_in(input)
    return step + (smooth - smooth.detach())


class BinaryStep(ActivationFunction):
    r"""With y = 1 where x ≥ 0 and 0 elsewhere: :math:`\partial y / \partial x = 0`, or a named surrogate h'(x)."""

    activation = catalogue.get("binary_step")
    formula = staticmethod(_formula)
    derivative = staticmethod(catalogue.CATALOGUE["binary_step"].derivative)
