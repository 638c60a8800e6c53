"""The identity, known in introductions as the "linear" activation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from torchact import catalogue
from torchact.autograd.function import ActivationFunction


class Identity(ActivationFunction):
    r"""With y = x: :math:`\partial y / \partial x = 1`. Nothing is computed and nothing is saved.

    :meth:`call` hands the input back, as :class:`torch.nn.Identity` does: a node of its own in the graph could only
    cost time and forbid in-place operations on the result. ``Identity.apply`` makes that node, for who wants to see it.
    """

    activation = catalogue.get("identity")
    formula = staticmethod(lambda input: input)
    derivative = staticmethod(torch.ones_like)

    @classmethod
    def call(cls, input: Tensor, *parameters: Any) -> Tensor:
        return input

    @classmethod
    def forward(cls, ctx: FunctionCtx, input: Tensor) -> Tensor:
        return cls.forward_kernel(input)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        return grad_output
