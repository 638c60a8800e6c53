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
_compiler = torch.compiler  # its is_compiling() is one of the next two, in three times as long
_is_dynamo_tracing = torch.compiler.is_dynamo_compiling  # all that there is for compiled autograd
_grad_is_enabled = torch.is_grad_enabled
_OWN_TENSOR_TYPES = frozenset((Tensor, torch.nn.Parameter))
_STRIDED = torch.strided
_HALF_TYPES = frozenset((torch.bfloat16, torch.float16))


def _is_dense_and_real(x: Tensor) -> bool:
    """Whether hand-derived derivatives are for tensors like this one: not sparse, nested or complex."""
    return x.layout is _STRIDED and not x.dtype.is_complex and not x.is_nested


def _as_one_operator(
    formula: Callable[..., Tensor],
    torch_function: Callable[..., Tensor] | None = None,
    operands: int = 1,
    result_type: Callable[..., torch.dtype] = catalogue.input_type,
) -> Callable[..., Tensor]:
    """Return a formula of several operators that behaves as one operator of torch's does.

    It rounds half types only at its end, and returns the dtype that ``result_type`` makes of its operands. Sparse,
    nested and complex tensors, which lack operators, get torch's own function if there is one; what is no tensor, a
    TypeError.
    """

    def operator(*arguments: Any) -> Tensor:
        tensors = arguments[:operands]
        if isinstance(tensors[0], torch.fx.Proxy):
            return formula(*arguments)
        for x in tensors:
            if not isinstance(x, Tensor):
                name = "input" if x is tensors[0] else "other"
                raise TypeError(f"{name}: expected a tensor, got {x!r} of type {type(x).__name__}")
        if torch_function is not None and not all(map(_is_dense_and_real, tensors)):
            return torch_function(*arguments)
        if not any(x.dtype in _HALF_TYPES for x in tensors):
            result = formula(*arguments)
        else:
            wide = (x.float() if x.dtype in _HALF_TYPES else x for x in tensors)
            result = formula(*wide, *arguments[operands:])
        return result.to(result_type(*tensors)) if tensors[0].is_floating_point() else result

    return operator


def _any_requires_grad(parameters: tuple[Any, ...]) -> bool:
    """Whether a parameter that the Function takes for a number is to learn: the formula then gives its gradient."""
    for parameter in parameters:  # `any` takes three times as long, which shows in calls on few numbers
        if type(parameter) is not float and isinstance(parameter, Tensor) and parameter.requires_grad:
            return True
    return False


def _by_position(activation: catalogue.Activation) -> Callable[..., Tensor] | None:
    """Return torch's own function with positional parameters, in the catalogue's order."""
    torch_function = activation.torch_function
    if torch_function is None:
        return None
    return lambda input, *parameters: torch_function(input, **dict(zip(activation.parameters, parameters, strict=True)))


def _others_differentiate(grad_output: Tensor) -> bool:
    """Whether a backward pass is itself differentiated, batched or traced."""
    return (
        _grad_is_enabled()
        or _is_dynamo_tracing()
        or _functorch_is_active()
        or forward_ad._current_level >= 0
        or _is_batch(grad_output)
    )


class _DirectBackward(FunctionMeta):
    """Has the graph's node run ``backward`` at once, where torch's first looks for a ``vjp``: 5 % of a call pair."""

    def __init__(cls, name: str, bases: tuple[type, ...], attributes: dict[str, Any]) -> None:
        super().__init__(name, bases, attributes)
        cls._backward_cls.apply = cls.backward  # type: ignore[attr-defined]
        cls._backward_cls.parameters = ()  # type: ignore[attr-defined]
        # The public `apply` looks for functorch transforms once more, which `call` has done, and costs 1 µs.
        cls.node = super(torch.autograd.Function, cls).apply  # type: ignore[misc]


class ActivationFunction(torch.autograd.Function, metaclass=_DirectBackward):
    """An activation's hand-derived backward.

    A subclass names its catalogue record and states only its mathematics::

        class Sigmoid(ActivationFunction):
            activation = catalogue.get("sigmoid")
            derivative = staticmethod(lambda output: output * (1 - output))

    ``derivative`` is φ' in plain differentiable torch, as a function of the one tensor that the catalogue says is
    saved; where that is the input, it is by default the catalogue's. ``formula`` is the activation in plain torch, by
    default the catalogue's value. The kernels come from ``torchact.kernels``.

    Users call the functions of ``torchact.functional``, which enter through :meth:`call`.
    """

    activation: ClassVar[catalogue.Activation]
    formula: ClassVar[Callable[..., Tensor]]
    derivative: ClassVar[Callable[..., Tensor]]
    forward_kernel: ClassVar[Callable[..., Tensor]]
    backward_kernel: ClassVar[Callable[..., Tensor]]
    saves_output: ClassVar[bool]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "activation" in vars(cls):
            cls.saves_output = cls.activation.saves == "output"
            cls._complete()

    @classmethod
    def _complete(cls) -> None:
        """Take from the catalogue and the kernels what the class does not state itself."""
        activation = cls.activation
        value = activation.value
        if value is not activation.torch_function:
            value = _as_one_operator(value, _by_position(activation))
        cls._state("formula", value)
        if cls.activation.saves == "input":
            cls._state("derivative", cls.activation.derivative)
        forward_kernel, backward_kernel = kernels.KERNELS[cls.activation.key]
        cls._state("forward_kernel", forward_kernel)
        cls._state("backward_kernel", backward_kernel)

    @classmethod
    def _state(cls, name: str, function: Callable[..., Any]) -> None:
        if name not in vars(cls):
            setattr(cls, name, staticmethod(function))

    @classmethod
    def call(cls, input: Tensor, *parameters: Any) -> Tensor:
        """Apply the activation by whichever of the three paths is right here."""
        if (
            type(input) not in _OWN_TENSOR_TYPES
            or _is_dynamo_tracing()
            or _compiler._is_compiling_flag
            or _functorch_is_active()
            or forward_ad._current_level >= 0
            or _is_tracing()
        ):
            return cls.formula(input, *parameters)
        if parameters and _any_requires_grad(parameters) and _grad_is_enabled():
            return cls.formula(input, *parameters)
        if not (input.requires_grad and _grad_is_enabled()):
            return cls.forward_kernel(input, *parameters)
        if not _is_dense_and_real(input):
            return cls.formula(input, *parameters)
        return cls.node(input, *parameters)

    @classmethod
    def forward(cls, ctx: FunctionCtx, input: Tensor, *parameters: Any) -> Tensor:
        output = cls.forward_kernel(input, *parameters)
        if parameters:
            ctx.parameters = parameters  # type: ignore[attr-defined]
        ctx.save_for_backward(output if cls.saves_output else input)
        return output

    @staticmethod  # compiled autograd traces no class method
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        cls = ctx._forward_cls
        (saved,) = ctx.saved_tensors
        parameters = ctx.parameters
        if _others_differentiate(grad_output):
            dtype = grad_output.dtype
            if dtype in _HALF_TYPES:
                grad_output, saved = grad_output.float(), saved.float()
            grad_input = cls.pullback(grad_output, saved, *parameters).to(dtype)
        else:
            if saved.dtype is not grad_output.dtype:  # autocast had the output computed in float32
                saved = saved.to(grad_output.dtype)
            grad_input = cls.backward_kernel(grad_output, saved, *parameters)
        return (grad_input, *(None,) * len(parameters)) if parameters else grad_input

    @classmethod
    def pullback(cls, grad_output: Tensor, saved: Tensor, *parameters: Any) -> Tensor:
        """Return the product of ``grad_output`` and the derivative in plain torch; half types arrive as float32."""
        return grad_output * cls.derivative(saved, *parameters)


class PackedFunction(ActivationFunction):
    """A gated unit whose halves are one tensor, which is saved, and whose gradient is written in one piece.

    Its parameters are (dim, gate, *those of the unit).
    """

    @classmethod
    def _complete(cls) -> None:
        activation = cls.activation
        cls._state("formula", _as_one_operator(lambda input, *p: activation.value(input, **cls._named(p))))
        cls._state("derivative", lambda input, *p: activation.derivative(input, **cls._named(p)))
        forward_kernel, backward_kernel = kernels.PACKED_KERNELS[activation.key]
        cls._state("forward_kernel", forward_kernel)
        cls._state("backward_kernel", backward_kernel)

    @classmethod
    def _named(cls, parameters: tuple[Any, ...]) -> dict[str, Any]:
        return dict(zip(cls.activation.parameters, parameters, strict=True))

    @classmethod
    def pullback(cls, grad_output: Tensor, input: Tensor, dim: int, gate: str, *parameters: Any) -> Tensor:
        return torch.cat([grad_output, grad_output], dim) * cls.derivative(input, dim, gate, *parameters)


class PairFunction(ActivationFunction):
    """An activation of two tensors, which broadcast: of input and learnable parameter, or of both halves of a gate.

    The catalogue's ``pair`` gives formula and derivatives. Both operands are saved.
    """

    partials: ClassVar[Callable[..., tuple[Tensor, Tensor]]]
    packed: ClassVar[type[PackedFunction]]  #: of a gated unit, the Function of its halves in one tensor

    @classmethod
    def _complete(cls) -> None:
        pair = cls.activation.pair
        assert pair is not None
        cls._state("formula", _as_one_operator(pair.value, operands=2, result_type=pair.result_type))
        cls._state("partials", pair.partials)
        forward_kernel, backward_kernel = kernels.PAIR_KERNELS[cls.activation.key]
        cls._state("forward_kernel", forward_kernel)
        cls._state("backward_kernel", backward_kernel)
        if cls.activation.kind == "gated":
            attributes = {"activation": cls.activation, "__module__": cls.__module__, "__doc__": cls.__doc__}
            cls.packed = _DirectBackward(f"Packed{cls.__name__}", (PackedFunction,), attributes)  # type: ignore[assignment]

    @classmethod
    def call(cls, first: Tensor, second: Tensor, *parameters: Any) -> Tensor:
        """Apply the activation by whichever of the three paths is right here."""
        if (
            type(first) not in _OWN_TENSOR_TYPES
            or type(second) not in _OWN_TENSOR_TYPES
            or _is_dynamo_tracing()
            or _compiler._is_compiling_flag
            or _functorch_is_active()
            or forward_ad._current_level >= 0
            or _is_tracing()
        ):
            return cls.formula(first, second, *parameters)
        if parameters and _any_requires_grad(parameters) and _grad_is_enabled():
            return cls.formula(first, second, *parameters)
        if not ((first.requires_grad or second.requires_grad) and _grad_is_enabled()):
            return cls.forward_kernel(first, second, *parameters)
        if not (_is_dense_and_real(first) and _is_dense_and_real(second)):
            return cls.formula(first, second, *parameters)
        return cls.node(first, second, *parameters)

    @classmethod
    def forward(cls, ctx: FunctionCtx, first: Tensor, second: Tensor, *parameters: Any) -> Tensor:
        ctx.save_for_backward(first, second)
        if parameters:
            ctx.parameters = parameters  # type: ignore[attr-defined]
        return cls.forward_kernel(first, second, *parameters)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        cls = ctx._forward_cls
        first, second = ctx.saved_tensors
        parameters = ctx.parameters
        if _others_differentiate(grad_output):
            wide = [x.float() if x.dtype in _HALF_TYPES else x for x in (grad_output, first, second)]
            by_first, by_second = cls.pullback(*wide, *parameters)
        else:
            by_first, by_second = cls.backward_kernel(grad_output, first, second, *parameters)
        needs = ctx.needs_input_grad
        return (
            _gradient_of(first, by_first) if needs[0] else None,
            _gradient_of(second, by_second) if needs[1] else None,
            *(None,) * len(parameters),
        )

    @classmethod
    def pullback(cls, grad_output: Tensor, first: Tensor, second: Tensor, *parameters: Any) -> Any:
        """Return the products of ``grad_output`` and both derivatives in plain torch, before they are summed."""
        by_first, by_second = cls.partials(first, second, *parameters)
        return grad_output * by_first, grad_output * by_second


def _gradient_of(operand: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient in the operand's shape and dtype."""
    if gradient.shape != operand.shape:
        gradient = gradient.sum_to_size(operand.shape)
    return gradient if gradient.dtype is operand.dtype else gradient.to(operand.dtype)
