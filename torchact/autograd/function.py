"""The base of every activation's ``torch.autograd.Function``, and the one predicate that decides which path it takes.

There are three situations and three paths:

1. Somebody else differentiates (``torch.compile``, a ``torch.func`` transform, forward-mode AD, ``torch.jit.trace``, a
   tensor subclass or a layout without a kernel): the plain torch formula is returned, and PyTorch's own machinery is
   right at every order.
2. No gradient is needed: the forward kernel runs alone.
3. Ordinary eager training: the Function, with its hand-derived backward.

In ``backward``, grad mode is on when ``create_graph`` was asked for, and ``grad_output`` stands for a batch under
``is_grads_batched`` or a functorch transform: then, and under compiled autograd, the derivative is applied in
differentiable plain torch, else by the backward kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import FunctionCtx, FunctionMeta

from torchact import catalogue, kernels

_functorch_is_active: Callable[[], bool] = torch._C._are_functorch_transforms_active
_is_batch: Callable[[Tensor], bool] = torch._C._functorch.is_legacy_batchedtensor
_is_tracing: Callable[[], bool] = torch._C._is_tracing
_is_compiling = torch.compiler.is_compiling
_is_dynamo_tracing = torch.compiler.is_dynamo_compiling  # faster, and enough for compiled autograd
_grad_is_enabled = torch.is_grad_enabled
_OWN_TENSOR_TYPES = frozenset((Tensor, torch.nn.Parameter))
_STRIDED = torch.strided
_HALF_TYPES = frozenset((torch.bfloat16, torch.float16))


class _DirectBackward(FunctionMeta):
    """Has the graph's node run ``backward`` at once, where torch's first looks for a ``vjp``: 5 % of a call pair."""

    def __init__(cls, name: str, bases: tuple[type, ...], attributes: dict[str, Any]) -> None:
        super().__init__(name, bases, attributes)
        cls._backward_cls.apply = cls.backward  # type: ignore[attr-defined]


class ActivationFunction(torch.autograd.Function, metaclass=_DirectBackward):
    """An activation's hand-derived backward.

    A subclass names its catalogue record and states only its mathematics::

        class Sigmoid(ActivationFunction):
            activation = catalogue.get("sigmoid")
            derivative = staticmethod(lambda output: output * (1 - output))

    ``derivative`` is φ' in plain differentiable torch, as a function of the one tensor that the catalogue says is
    saved. ``formula`` is the activation in plain torch, by default the catalogue's value. The kernels come from
    ``torchact.kernels``.

    Users call the functions of ``torchact.functional``, which enter through :meth:`call`.
    """

    activation: ClassVar[catalogue.Activation]
    formula: ClassVar[Callable[..., Tensor]]
    derivative: ClassVar[Callable[..., Tensor]]
    forward_kernel: ClassVar[Callable[..., Tensor]]
    backward_kernel: ClassVar[Callable[..., Tensor]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "formula" not in vars(cls):
            cls.formula = staticmethod(cls.activation.value)
        forward_kernel, backward_kernel = kernels.KERNELS[cls.activation.key]
        cls.forward_kernel = staticmethod(forward_kernel)
        cls.backward_kernel = staticmethod(backward_kernel)

    @classmethod
    def call(cls, input: Tensor, *parameters: Any) -> Tensor:
        """Apply the activation by whichever of the three paths is right here."""
        if (
            type(input) not in _OWN_TENSOR_TYPES
            or _is_compiling()
            or _functorch_is_active()
            or forward_ad._current_level >= 0
            or _is_tracing()
        ):
            return cls.formula(input, *parameters)
        if not input.requires_grad or not _grad_is_enabled():
            return cls.forward_kernel(input, *parameters)
        if input.layout is not _STRIDED or input.is_complex() or input.is_nested:
            return cls.formula(input, *parameters)
        # The public `apply` looks for functorch transforms once more and costs 1 µs; there are none here.
        return super(torch.autograd.Function, cls).apply(input, *parameters)  # type: ignore[misc]

    @classmethod
    def forward(cls, ctx: FunctionCtx, input: Tensor, *parameters: Any) -> Tensor:
        output = cls.forward_kernel(input, *parameters)
        ctx.save_for_backward(output if cls.activation.saves == "output" else input)
        ctx.parameters = parameters  # type: ignore[attr-defined]
        return output

    @staticmethod  # compiled autograd traces no class method
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        cls = ctx._forward_cls
        (saved,) = ctx.saved_tensors
        parameters = ctx.parameters
        if _is_dynamo_tracing() or _grad_is_enabled() or _functorch_is_active() or _is_batch(grad_output):
            dtype = grad_output.dtype
            if dtype in _HALF_TYPES:
                grad_output, saved = grad_output.float(), saved.float()
            grad_input = cls.pullback(grad_output, saved, *parameters).to(dtype)
        else:
            grad_input = cls.backward_kernel(grad_output, saved, *parameters)
        return (grad_input, *(None,) * len(parameters)) if parameters else grad_input

    @classmethod
    def pullback(cls, grad_output: Tensor, saved: Tensor, *parameters: Any) -> Tensor:
        """Return the product of ``grad_output`` and the derivative in plain torch; half types arrive as float32."""
        return grad_output * cls.derivative(saved, *parameters)
