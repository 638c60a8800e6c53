"""Derivatives of plain torch functions by autograd, and functions called with parameters by name or by position."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from torchact.catalogue import TensorFunction


def by_autograd(function: TensorFunction) -> TensorFunction:
    """Return the derivative of an elementwise function: its vector-Jacobian product with ones.

    It can be differentiated in turn, to any order, and works under ``torch.compile``, under every transform of
    ``torch.func``, with forward-mode AD, without grad mode and in inference mode.

    Example:
        >>> by_autograd(by_autograd(torch.sin))(torch.tensor([0.0, 0.5]))
        tensor([-0.0000, -0.4794])
    """

    def derivative(x: Tensor, *parameters: Any, **named: Any) -> Tensor:
        if _needs_transform(x):
            output, pullback = torch.func.vjp(lambda z: function(z, *parameters, **named), x)[:2]
            return pullback(torch.ones_like(output))[0]
        differentiable = torch.is_grad_enabled() and x.requires_grad
        with torch.enable_grad():
            point = x if differentiable else x.detach().requires_grad_()
            output = function(point, *parameters, **named)
            if not output.requires_grad:  # constant
                return torch.zeros_like(x)
            ones = torch.ones_like(output)
            (slope,) = torch.autograd.grad(output, point, ones, create_graph=differentiable, materialize_grads=True)
        return slope

    return derivative


def _needs_transform(x: Tensor) -> bool:
    """Whether ``torch.autograd.grad`` would not do; where it does, it is four times as fast as ``torch.func``."""
    return (
        type(x) not in (Tensor, torch.nn.Parameter)
        or torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch.is_inference_mode_enabled()
        or x.is_inference()
    )


def taking(function: TensorFunction, usual: Mapping[str, Any]) -> TensorFunction:
    """Return ``function`` so that it takes the parameters ``usual`` by name or by position, in that order.

    Whatever its own signature is, it gets them by name; those not given have their usual values.
    """
    if not usual:
        return function
    names, defaults = tuple(usual), dict(usual)

    @functools.wraps(function)
    def called(x: Tensor, *parameters: Any, **named: Any) -> Tensor:
        return function(x, **{**defaults, **dict(zip(names, parameters, strict=False)), **named})

    return called
