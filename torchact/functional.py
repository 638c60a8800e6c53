"""The activations as functions, with the signatures of their counterparts in ``torch.nn.functional``.

Shapes: every function returns a tensor of its input's shape, dtype and device, but for the gated units, which halve one
dimension; its memory format is that of torch's counterpart. Dtypes: those that torch's counterpart takes; bfloat16 and
float16 are computed in wider arithmetic and rounded once. Each raises what its counterpart raises. ``inplace=True``
overwrites ``input`` and returns it; autograd then keeps what torch's own in-place operators keep. A number may be given
as a tensor without dimensions; where that requires a gradient, it gets one wherever torch's counterpart takes it.

Example:
    >>> import torch, torchact
    >>> x = torch.tensor([-1.0, 0.0, 2.0], requires_grad=True)
    >>> y = torchact.functional.relu(x)
    >>> y.sum().backward()
    >>> x.grad
    tensor([0., 0., 1.])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.functional import _get_softmax_dim  # type: ignore[attr-defined]

from torchact import autograd, catalogue

if TYPE_CHECKING:
    from collections.abc import Callable

    from torchact.catalogue import Gate

__all__ = [
    "bilinear",
    "binary_step",
    "celu",
    "elu",
    "gaussian",
    "geglu",
    "gelu",
    "gelu_tanh",
    "glu",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "identity",
    "leaky_relu",
    "log_softmax",
    "logsigmoid",
    "mish",
    "prelu",
    "quick_gelu",
    "reglu",
    "relu",
    "relu6",
    "rrelu",
    "selu",
    "sigmoid",
    "silu",
    "sine",
    "snake",
    "softmax",
    "softmax2d",
    "softmin",
    "softplus",
    "softshrink",
    "softsign",
    "squared_relu",
    "swiglu",
    "swish",
    "tanh",
    "tanhshrink",
    "threshold",
]


def _overwrite(function: type[autograd.ActivationFunction], input: Tensor, *parameters: float) -> Tensor:
    """Apply an activation that needs its input in backward, in place: autograd keeps a copy, as for torch's own."""
    return input.copy_(function.call(input.clone() if input.requires_grad else input, *parameters))


@catalogue.documented("sigmoid")
def sigmoid(input: Tensor) -> Tensor:
    """Apply the logistic sigmoid elementwise; the counterpart of :func:`torch.sigmoid`."""
    return autograd.Sigmoid.call(input)


@catalogue.documented("tanh")
def tanh(input: Tensor) -> Tensor:
    """Apply the hyperbolic tangent elementwise; the counterpart of :func:`torch.tanh`."""
    return autograd.Tanh.call(input)


@catalogue.documented("logsigmoid")
def logsigmoid(input: Tensor) -> Tensor:
    """Apply the logarithm of the logistic sigmoid elementwise.

    The counterpart of :func:`torch.nn.functional.logsigmoid`.
    """
    return autograd.LogSigmoid.call(input)


@catalogue.documented("softsign")
def softsign(input: Tensor) -> Tensor:
    """Apply x / (1 + abs(x)) elementwise; the counterpart of :func:`torch.nn.functional.softsign`."""
    return autograd.Softsign.call(input)


@catalogue.documented("hardtanh")
def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """Apply the clamp to an interval elementwise; the counterpart of :func:`torch.nn.functional.hardtanh`.

    Args:
        input: any shape.
        min_val: the lower bound.
        max_val: the upper bound, at least ``min_val``.
        inplace: overwrite ``input``.
    """
    if inplace:
        return F.hardtanh(input, min_val, max_val, inplace=True)
    return autograd.Hardtanh.call(input, min_val, max_val)


@catalogue.documented("hardsigmoid")
def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """Apply the piecewise linear sigmoid elementwise; the counterpart of :func:`torch.nn.functional.hardsigmoid`.

    Args:
        input: any shape.
        inplace: overwrite ``input``.
    """
    if inplace:
        return _overwrite(autograd.Hardsigmoid, input)
    return autograd.Hardsigmoid.call(input)


@catalogue.documented("relu")
def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """Apply the rectified linear unit elementwise; the counterpart of :func:`torch.nn.functional.relu`.

    Args:
        input: any shape.
        inplace: overwrite ``input``.
    """
    if inplace:
        return torch.relu_(input)
    return autograd.ReLU.call(input)


@catalogue.documented("relu6")
def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """Apply the ReLU that stops at 6 elementwise; the counterpart of :func:`torch.nn.functional.relu6`.

    Args:
        input: any shape.
        inplace: overwrite ``input``.
    """
    if inplace:
        return F.relu6(input, inplace=True)
    return autograd.ReLU6.call(input)


@catalogue.documented("leaky_relu")
def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """Apply the leaky ReLU elementwise; the counterpart of :func:`torch.nn.functional.leaky_relu`.

    Args:
        input: any shape.
        negative_slope: the slope a for negative inputs.
        inplace: overwrite ``input``, by torch's own operator, whose backward raises where ``negative_slope`` < 0.
    """
    if inplace:
        return F.leaky_relu_(input, negative_slope)
    return autograd.LeakyReLU.call(input, negative_slope)


@catalogue.documented("prelu")
def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """Apply the parametric ReLU elementwise; the counterpart of :func:`torch.nn.functional.prelu`.

    Args:
        input: any shape.
        weight: the slope w for negative inputs, with one entry, or one for each channel (dimension 1 of ``input``);
            its gradient is summed over the entries of ``input`` that share it.
    """
    if (
        torch.compiler.is_compiling()
        or torch._C._is_any_autocast_enabled()
        or not torch.is_grad_enabled()
        or not _is_prelu_weight(weight, input)
    ):
        return F.prelu(input, weight)  # which autocast may cast, and which raises; without a graph they are the same
    return autograd.PReLU.call(input, catalogue.per_channel(weight, input))


@catalogue.documented("rrelu")
def rrelu(
    input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False, inplace: bool = False
) -> Tensor:
    """Apply the leaky ReLU with random slopes elementwise; the counterpart of :func:`torch.nn.functional.rrelu`.

    Args:
        input: any shape.
        lower: the smallest slope for negative inputs.
        upper: the largest.
        training: draw a slope for each negative input, from torch's generator: after the same seed they are those that
            torch's function draws. Otherwise the slope is the mean of both bounds.
        inplace: overwrite ``input``.
    """
    if inplace or not lower <= upper:  # for which torch raises
        return F.rrelu(input, lower, upper, training, inplace)
    function = autograd.RandomRReLU if training else autograd.RReLU
    return function.call(input, lower, upper)


@catalogue.documented("threshold")
def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """Put ``value`` where ``input`` does not exceed a threshold.

    The counterpart of :func:`torch.nn.functional.threshold`.

    Args:
        input: any shape.
        threshold: inputs above it stay as they are.
        value: takes the place of all others.
        inplace: overwrite ``input``.
    """
    if inplace:
        return F.threshold(input, threshold, value, inplace=True)
    return autograd.Threshold.call(input, threshold, value)


@catalogue.documented("squared_relu")
def squared_relu(input: Tensor) -> Tensor:
    """Apply the square of the rectified linear unit elementwise."""
    return autograd.SquaredReLU.call(input)


@catalogue.documented("elu")
def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """Apply the exponential linear unit elementwise; the counterpart of :func:`torch.nn.functional.elu`.

    Args:
        input: any shape.
        alpha: minus the limit for x → −∞.
        inplace: overwrite ``input``.
    """
    if inplace:
        return F.elu(input, alpha, inplace=True)
    return autograd.ELU.call(input, alpha)


@catalogue.documented("selu")
def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """Apply the self-normalising exponential linear unit elementwise.

    The counterpart of :func:`torch.nn.functional.selu`.

    Args:
        input: any shape.
        inplace: overwrite ``input``.
    """
    if inplace:
        return F.selu(input, inplace=True)
    return autograd.SELU.call(input)


@catalogue.documented("celu")
def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """Apply the continuously differentiable exponential linear unit elementwise.

    The counterpart of :func:`torch.nn.functional.celu`.

    Args:
        input: any shape.
        alpha: minus the limit for x → −∞, not 0.
        inplace: overwrite ``input``.
    """
    if alpha == 0:
        return F.celu(input, alpha)  # which raises
    if inplace:
        return _overwrite(autograd.CELU, input, alpha)
    return autograd.CELU.call(input, alpha)


@catalogue.documented("softplus")
def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """Apply the smooth ReLU elementwise; the counterpart of :func:`torch.nn.functional.softplus`.

    Args:
        input: any shape.
        beta: the larger, the closer to a ReLU.
        threshold: where ``beta`` · x exceeds it, the result is x.
    """
    return autograd.Softplus.call(input, beta, threshold)


@catalogue.documented("silu")
def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """Apply the sigmoid linear unit elementwise; the counterpart of :func:`torch.nn.functional.silu`.

    Args:
        input: any shape.
        inplace: overwrite ``input``.
    """
    if inplace:
        return _overwrite(autograd.SiLU, input)
    return autograd.SiLU.call(input)


@catalogue.documented("swish")
def swish(input: Tensor, beta: float | Tensor = 1.0) -> Tensor:
    """Apply the Swish elementwise; with ``beta`` = 1 it is :func:`silu`.

    Args:
        input: any shape.
        beta: β, a number, or a tensor with one entry or one for each channel (dimension 1 of ``input``); of more
            dimensions if it is to broadcast otherwise. A tensor gets its gradient, summed over all that share it.
    """
    if isinstance(beta, Tensor):
        return autograd.LearnableSwish.call(input, _per_channel("beta", beta, input))
    return autograd.Swish.call(input, beta)


@catalogue.documented("quick_gelu")
def quick_gelu(input: Tensor) -> Tensor:
    """Apply the sigmoid approximation of the GELU elementwise."""
    return autograd.QuickGELU.call(input)


@catalogue.documented("gelu")
def gelu(input: Tensor, *, approximate: str = "none") -> Tensor:
    """Apply the Gaussian error linear unit elementwise; the counterpart of :func:`torch.nn.functional.gelu`.

    Args:
        input: any shape.
        approximate: ``"none"`` for xΦ(x), ``"tanh"`` for its approximation, :func:`gelu_tanh`.
    """
    return autograd.GELU.call(input, approximate)


@catalogue.documented("gelu_tanh")
def gelu_tanh(input: Tensor) -> Tensor:
    """Apply the tanh approximation of the GELU elementwise: :func:`gelu` with ``approximate="tanh"``."""
    return autograd.GELUTanh.call(input)


@catalogue.documented("mish")
def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """Apply the Mish elementwise; the counterpart of :func:`torch.nn.functional.mish`.

    Args:
        input: any shape.
        inplace: overwrite ``input``.
    """
    if inplace:
        return _overwrite(autograd.Mish, input)
    return autograd.Mish.call(input)


@catalogue.documented("hardswish")
def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """Apply the piecewise quadratic Swish elementwise; the counterpart of :func:`torch.nn.functional.hardswish`.

    Args:
        input: any shape.
        inplace: overwrite ``input``.
    """
    if inplace:
        return _overwrite(autograd.Hardswish, input)
    return autograd.Hardswish.call(input)


@catalogue.documented("tanhshrink")
def tanhshrink(input: Tensor) -> Tensor:
    """Apply x - tanh(x) elementwise; the counterpart of :func:`torch.nn.functional.tanhshrink`."""
    return autograd.Tanhshrink.call(input)


@catalogue.documented("softshrink")
def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """Apply the soft shrinkage elementwise; the counterpart of :func:`torch.nn.functional.softshrink`.

    Args:
        input: any shape.
        lambd: λ, within which inputs become 0, not negative.
    """
    return autograd.Softshrink.call(input, lambd)


@catalogue.documented("hardshrink")
def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """Apply the hard shrinkage elementwise; the counterpart of :func:`torch.nn.functional.hardshrink`.

    Args:
        input: any shape.
        lambd: λ, within which inputs become 0.
    """
    return autograd.Hardshrink.call(input, lambd)


@catalogue.documented("gaussian")
def gaussian(input: Tensor) -> Tensor:
    """Apply the Gaussian bell elementwise."""
    return autograd.Gaussian.call(input)


@catalogue.documented("sine")
def sine(input: Tensor, omega: float = 30.0) -> Tensor:
    """Apply the sine wave of a SIREN elementwise.

    Args:
        input: any shape.
        omega: the angular frequency ω.
    """
    return autograd.Sine.call(input, omega)


@catalogue.documented("snake")
def snake(input: Tensor, alpha: float | Tensor = 1.0) -> Tensor:
    """Apply the Snake elementwise.

    Args:
        input: any shape.
        alpha: α, a number, or a tensor with one entry or one for each channel (dimension 1 of ``input``); of more
            dimensions if it is to broadcast otherwise. A tensor gets its gradient, summed over all that share it. For
            α = 0 the result is x.
    """
    if isinstance(alpha, Tensor):
        return autograd.LearnableSnake.call(input, _per_channel("alpha", alpha, input))
    return autograd.Snake.call(input, alpha)


@catalogue.documented("softmax")
def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
    """Normalise the exponentials along a dimension to sum to 1; the counterpart of :func:`torch.nn.functional.softmax`.

    Args:
        input: any shape.
        dim: the dimension that sums to 1; leaving it out is deprecated, as in torch, and warns.
        dtype: the input is cast to this dtype first, and the result has it.
    """
    input, dim = _normalised_input("softmax", input, dim, _stacklevel, dtype)
    return autograd.Softmax.call(input, dim)


@catalogue.documented("softmin")
def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
    """Normalise the exponentials of -x along a dimension to sum to 1.

    The counterpart of :func:`torch.nn.functional.softmin`.

    Args:
        input: any shape.
        dim: the dimension that sums to 1; leaving it out is deprecated, as in torch, and warns.
        dtype: the input is cast to this dtype first, and the result has it.
    """
    input, dim = _normalised_input("softmin", input, dim, _stacklevel, dtype)
    return autograd.Softmin.call(input, dim)


@catalogue.documented("log_softmax")
def log_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> Tensor:
    """Return the logarithm of the softmax along a dimension.

    The counterpart of :func:`torch.nn.functional.log_softmax`.

    Args:
        input: any shape.
        dim: the dimension that sums to 1; leaving it out is deprecated, as in torch, and warns.
        dtype: the input is cast to this dtype first, and the result has it.
    """
    input, dim = _normalised_input("log_softmax", input, dim, _stacklevel, dtype)
    return autograd.LogSoftmax.call(input, dim)


@catalogue.documented("softmax2d")
def softmax2d(input: Tensor) -> Tensor:
    """Apply the softmax over the channels of images; the counterpart of :class:`torch.nn.Softmax2d`.

    Args:
        input: of shape (N, C, H, W) or (C, H, W).

    Raises:
        ValueError: ``input`` has another number of dimensions.
    """
    if input.dim() not in (3, 4):
        raise ValueError(f"Softmax2d: expected input to be 3D or 4D, got {input.dim()}D instead")
    return autograd.Softmax.call(input, -3)


@catalogue.documented("glu")
def glu(input: Tensor, dim: int = -1, *, gate: Gate = "second", other: Tensor | None = None) -> Tensor:
    """Gate one half of the input by the sigmoid of the other; the counterpart of :func:`torch.nn.functional.glu`.

    Args:
        input: of any shape with at least one dimension; packed, it holds both halves along ``dim``.
        dim: the dimension to halve, of an even size.
        gate: which half is the gate g: ``"second"`` as in torch's ``glu``, or ``"first"``.
        other: the second half, if it is not packed: ``input`` is then the first half, and nothing is halved.

    Raises:
        ValueError: ``gate`` is neither of the two.
        RuntimeError: the size along ``dim`` is odd.
    """
    if isinstance(input, Tensor) and not input.is_floating_point():
        return F.glu(input, dim)  # which raises
    if other is None:
        return autograd.GLU.packed.call(input, dim, gate)
    return autograd.GLU.call(*catalogue.in_order(input, other, gate))


@catalogue.documented("reglu")
def reglu(input: Tensor, dim: int = -1, *, gate: Gate = "second", other: Tensor | None = None) -> Tensor:
    """Gate one half of the input by the ReLU of the other.

    Args:
        input: of any shape with at least one dimension; packed, it holds both halves along ``dim``.
        dim: the dimension to halve, of an even size.
        gate: which half is the gate g: ``"second"`` as in torch's ``glu``, or ``"first"``.
        other: the second half, if it is not packed: ``input`` is then the first half, and nothing is halved.

    Raises:
        ValueError: ``gate`` is neither of the two.
        RuntimeError: the size along ``dim`` is odd.
    """
    if other is None:
        return autograd.ReGLU.packed.call(input, dim, gate)
    return autograd.ReGLU.call(*catalogue.in_order(input, other, gate))


@catalogue.documented("geglu")
def geglu(
    input: Tensor, dim: int = -1, *, gate: Gate = "second", other: Tensor | None = None, approximate: str = "none"
) -> Tensor:
    """Gate one half of the input by the GELU of the other.

    Args:
        input: of any shape with at least one dimension; packed, it holds both halves along ``dim``.
        dim: the dimension to halve, of an even size.
        gate: which half is the gate g: ``"second"`` as in torch's ``glu``, or ``"first"``.
        other: the second half, if it is not packed: ``input`` is then the first half, and nothing is halved.
        approximate: ``"none"`` or ``"tanh"``, as of :func:`gelu`.

    Raises:
        ValueError: ``gate`` is neither of the two.
        RuntimeError: the size along ``dim`` is odd.
    """
    if other is None:
        return autograd.GEGLU.packed.call(input, dim, gate, approximate)
    return autograd.GEGLU.call(*catalogue.in_order(input, other, gate), approximate)


@catalogue.documented("swiglu")
def swiglu(
    input: Tensor,
    dim: int = -1,
    *,
    gate: Gate = "second",
    other: Tensor | None = None,
    alpha: float = 1.0,
    limit: float | None = None,
    offset: float = 0.0,
) -> Tensor:
    """Gate one half of the input by the Swish of the other.

    The defaults are the SwiGLU of Llama; ``alpha=1.702, limit=7.0, offset=1.0`` is that of GPT-OSS, which
    interleaves its halves: ``swiglu(x[..., ::2], gate="first", other=x[..., 1::2], ...)``.

    Args:
        input: of any shape with at least one dimension; packed, it holds both halves along ``dim``.
        dim: the dimension to halve, of an even size.
        gate: which half is the gate g: ``"second"`` as in torch's ``glu``, or ``"first"``.
        other: the second half, if it is not packed: ``input`` is then the first half, and nothing is halved.
        alpha: β of the Swish.
        limit: bounds what is gated to ± this, and the gate from above; beyond it derivatives are 0.
        offset: what is added to the half that is gated, after the limit.

    Raises:
        ValueError: ``gate`` is neither of the two, or ``limit`` is negative.
        RuntimeError: the size along ``dim`` is odd.
    """
    if limit is not None and not limit >= 0:
        raise ValueError(f"limit: expected None or a number that is not negative, got {limit!r}")
    if other is None:
        return autograd.SwiGLU.packed.call(input, dim, gate, alpha, limit, offset)
    return autograd.SwiGLU.call(*catalogue.in_order(input, other, gate), alpha, limit, offset)


@catalogue.documented("bilinear")
def bilinear(input: Tensor, dim: int = -1, *, gate: Gate = "second", other: Tensor | None = None) -> Tensor:
    """Multiply one half of the input by the other.

    Args:
        input: of any shape with at least one dimension; packed, it holds both halves along ``dim``.
        dim: the dimension to halve, of an even size.
        gate: which half is the gate g: ``"second"`` as in torch's ``glu``, or ``"first"``.
        other: the second half, if it is not packed: ``input`` is then the first half, and nothing is halved.

    Raises:
        ValueError: ``gate`` is neither of the two.
        RuntimeError: the size along ``dim`` is odd.
    """
    if other is None:
        return autograd.Bilinear.packed.call(input, dim, gate)
    return autograd.Bilinear.call(*catalogue.in_order(input, other, gate))


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


def register(key: str, function: Callable[..., Tensor]) -> None:
    """Make ``function`` an attribute of this module; :func:`torchact.define` does it."""
    globals()[key] = function
    __all__.append(key)


def forget(key: str) -> None:
    """Take back what :func:`register` did."""
    del globals()[key]
    __all__.remove(key)


def _per_channel(name: str, parameter: Tensor, input: Tensor) -> Tensor:
    """Return a learnable parameter so that it broadcasts against the input, or raise where it has another size."""
    traced = isinstance(input, torch.fx.Proxy) or torch.jit.is_tracing()  # type: ignore[attr-defined]
    if not traced and parameter.dim() == 1 and parameter.numel() != 1:
        channels = input.size(1) if input.dim() > 1 else None
        if parameter.numel() != channels:
            raise RuntimeError(
                f"{name}: expected one entry, or one for each channel (dimension 1 of the input), "
                f"got {parameter.numel()} for an input of shape {tuple(input.shape)}"
            )
    return catalogue.per_channel(parameter, input)


def _is_prelu_weight(weight: Tensor, input: Tensor) -> bool:
    """Whether a PReLU's weight has one entry, or one for each channel, in the dtype of the input; both are tensors."""
    if not isinstance(input, Tensor) or not isinstance(weight, Tensor) or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return False
    one_each = weight.dim() < 2 and (weight.numel() == 1 or (input.dim() > 1 and weight.numel() == input.size(1)))
    return one_each and weight.dtype == input.dtype


def _normalised_input(
    name: str, input: Tensor, dim: int | None, stacklevel: int, dtype: torch.dtype | None
) -> tuple[Tensor, int | None]:
    """Return the input in the dtype asked for, and the dimension, by torch's choice where it was left out."""
    if dim is None and not torch.compiler.is_compiling():  # when compiling, torch's own function chooses
        dim = _get_softmax_dim(name, input.dim(), stacklevel + 1)
    return input if dtype is None else input.to(dtype), dim
