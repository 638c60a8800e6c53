"""The activations as functions, with the signatures of their counterparts in ``torch.nn.functional``.

Shapes: every function returns a tensor of its input's shape, dtype, device and memory format. Dtypes: those that
torch's counterpart takes; bfloat16 and float16 are computed in float32 arithmetic. Each raises what its counterpart
raises.

Example:
    >>> import torch, torchact
    >>> x = torch.tensor([-1.0, 0.0, 2.0], requires_grad=True)
    >>> y = torchact.functional.relu(x)
    >>> y.sum().backward()
    >>> x.grad
    tensor([0., 0., 1.])
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import _get_softmax_dim  # type: ignore[attr-defined]

from torchact import autograd, catalogue

__all__ = ["binary_step", "identity", "leaky_relu", "relu", "sigmoid", "softmax", "tanh"]


@catalogue.documented("sigmoid")
def sigmoid(input: Tensor) -> Tensor:
    """Apply the logistic sigmoid elementwise; the counterpart of :func:`torch.sigmoid`."""
    return autograd.Sigmoid.call(input)


@catalogue.documented("tanh")
def tanh(input: Tensor) -> Tensor:
    """Apply the hyperbolic tangent elementwise; the counterpart of :func:`torch.tanh`."""
    return autograd.Tanh.call(input)


@catalogue.documented("relu")
def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """Apply the rectified linear unit elementwise; the counterpart of :func:`torch.nn.functional.relu`.

    Args:
        input: any shape.
        inplace: overwrite ``input``. torch's own in-place operator does this, since it saves nothing but the output.
    """
    if inplace:
        return torch.relu_(input)
    return autograd.ReLU.call(input)


@catalogue.documented("leaky_relu")
def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """Apply the leaky ReLU elementwise; the counterpart of :func:`torch.nn.functional.leaky_relu`.

    Args:
        input: any shape.
        negative_slope: the slope a for negative inputs.
        inplace: overwrite ``input``, by torch's own operator, whose backward raises where ``negative_slope`` < 0.
    """
    if inplace:
        return torch.nn.functional.leaky_relu_(input, negative_slope)
    return autograd.LeakyReLU.call(input, negative_slope)


@catalogue.documented("softmax")
def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
    """Normalise the exponentials along a dimension to sum to 1; the counterpart of :func:`torch.nn.functional.softmax`.

    Args:
        input: any shape.
        dim: the dimension that sums to 1; leaving it out is deprecated, as in torch, and warns.
        dtype: the input is cast to this dtype first, and the result has it.
    """
    if dim is None and not torch.compiler.is_compiling():  # when compiling, torch's own function chooses
        dim = _get_softmax_dim("softmax", input.dim(), _stacklevel)
    if dtype is not None:
        input = input.to(dtype)
    return autograd.Softmax.call(input, dim)


@catalogue.documented("binary_step")
def binary_step(input: Tensor, surrogate: str | None = None) -> Tensor:
    """Return 1 where ``input`` ≥ 0 and 0 elsewhere (also at NaN); like ``torch.heaviside(input, 1)`` with a gradient.

    Args:
        input: any shape.
        surrogate: ``None`` for the true derivative, exactly zero, or the name of the derivative to use in its place:
            ``"straight_through"``, ``"sigmoid"``, ``"atan"``, ``"fast_sigmoid"`` or ``"triangular"``
            (``torchact.catalogue.SURROGATES`` has their formulas and sources).

    Raises:
        ValueError: ``surrogate`` names no surrogate.
    """
    if surrogate is not None and surrogate not in catalogue.SURROGATES:
        surrogate = catalogue.surrogate(surrogate).key
    return autograd.BinaryStep.call(input, surrogate)


@catalogue.documented("identity")
def identity(input: Tensor) -> Tensor:
    """Return ``input`` itself; the counterpart of :class:`torch.nn.Identity`."""
    return autograd.Identity.call(input)
