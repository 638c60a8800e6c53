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
    smooth = stand_in(catalogue.nan_as_negative_infinity(input.to(torch.promote_types(input.dtype, torch.float32))))
    return step + (smooth - smooth.detach()).to(step.dtype)


class BinaryStep(ActivationFunction):
    r"""With y = 1 where x ≥ 0 and 0 elsewhere: :math:`\partial y / \partial x = 0`, or a named surrogate h'(x)."""

    activation = catalogue.get("binary_step")
    formula = staticmethod(_formula)
    derivative = staticmethod(activation.derivative)

    @classmethod
    def pullback(cls, grad_output: Tensor, input: Tensor, surrogate: str | None) -> Tensor:
        if surrogate is None:
            # Zero even where grad_output is infinite, and connected to the input, so that it has derivatives itself.
            return 0 * cls.call(input, None)
        return grad_output * cls.derivative(input, surrogate)
