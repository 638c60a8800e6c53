"""The one place that chooses the kernels of each activation: the fastest of those that are accurate.

Accurate means, on the CPU and in every dtype: values at most one unit in the last place from the float64 reference in
bfloat16 and float16, at most four in float32, and the same for derivatives where the input is saved. Many of torch's
operators are not: they cancel, overflow or flush to zero (``python -m benchmarks accuracy`` shows how far off each is).
In place of those the catalogue's formula is evaluated in float64 and rounded once, or, of many numbers of 16 bits,
looked up in a table of all 65,536 results. Elsewhere than on the CPU torch's operators run, unless they give NaN.

A forward kernel takes (input, *parameters); a backward kernel takes (grad_output, saved, *parameters), where ``saved``
is the tensor that the catalogue names in ``saves``. Of two operands a forward kernel takes (first, second,
*parameters), and a backward kernel takes (grad_output, first, second, *parameters) and returns both gradients, before
they are summed over dimensions that were broadcast. No kernel is differentiable, and none writes into its arguments.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from torchact import catalogue

# `OpOverload._op` is the operator without OpOverload's Python __call__, which costs 1 µs a call.
_aten = torch.ops.aten
_sigmoid_backward = _aten.sigmoid_backward.default._op
_tanh_backward = _aten.tanh_backward.default._op
_threshold_backward = _aten.threshold_backward.default._op
_leaky_relu_backward = _aten.leaky_relu_backward.default._op
_hardtanh_backward = _aten.hardtanh_backward.default._op
_torch_hardsigmoid_backward = _aten.hardsigmoid_backward.default._op
_hardswish_backward = _aten.hardswish_backward.default._op
_elu_backward = _aten.elu_backward.default._op
_softplus_backward = _aten.softplus_backward.default._op
_silu_backward = _aten.silu_backward.default._op
_mish_backward = _aten.mish_backward.default._op
_hardshrink_backward = _aten.hardshrink_backward.default._op
_softshrink_backward = _aten.softshrink_backward.default._op
_prelu_backward = _aten._prelu_kernel_backward.default._op
_softmax_backward = torch._softmax_backward_data
_log_softmax_backward = _aten._log_softmax_backward_data.default._op


class Kernels(NamedTuple):
    """The pair of kernels of one activation."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]


_HALF_TYPES = frozenset((torch.bfloat16, torch.float16))
_FLOATING = frozenset((torch.float64, torch.float32, torch.bfloat16, torch.float16))


def _is_wide(tensor: Tensor) -> bool:
    """Whether a computation on this tensor is to run in float64."""
    return tensor.is_cpu and tensor.dtype in _FLOATING and tensor.layout is torch.strided and not tensor.is_nested


def _widened(tensor: Tensor) -> Tensor:
    """Return the tensor in the dtype that gradients are computed in: float64 on the CPU, else at least float32."""
    return tensor.double() if tensor.is_cpu else tensor.to(torch.promote_types(tensor.dtype, torch.float32))


# A function of a 16-bit number has 65,536 values: from so many entries on, computing all of them first is no loss.
_TABULATED_FROM = 2**16


def _is_tabulated(input: Tensor, parameters: tuple[Any, ...]) -> bool:
    """Whether values are to be looked up: those of many numbers of 16 bits that lie side by side."""
    return (
        input.dtype in _HALF_TYPES
        and input.numel() >= _TABULATED_FROM
        and _is_wide(input)
        and input.is_contiguous()
        and not any(isinstance(parameter, Tensor) for parameter in parameters)
        and torch._C._len_torch_dispatch_stack() == 0  # a mode's tensors must not stay in the table
    )


def _looked_up(
    function: Callable[..., Tensor], parameters: tuple[Any, ...], input: Tensor, dtype: torch.dtype
) -> Tensor:
    """Return ``function(input, *parameters)`` in this dtype, bit for bit as if it were computed in float64."""
    bits = input.detach().view(torch.uint16).flatten().int()
    return torch.index_select(_table(function, parameters, input.dtype, dtype), 0, bits).view(input.shape)


@functools.lru_cache(maxsize=32)  # of 128 KiB, or 512 for a derivative
def _table(
    function: Callable[..., Tensor], parameters: tuple[Any, ...], input_dtype: torch.dtype, dtype: torch.dtype
) -> Tensor:
    """Return a function's values at all numbers of a half type, in the order of their bits as unsigned integers."""
    with torch.inference_mode(False), torch.no_grad():
        every = torch.arange(2**16, dtype=torch.int32, device="cpu").to(torch.uint16).view(input_dtype)
        return function(every.double(), *parameters).to(dtype)


_PIECE = 2**20  # entries computed at a time, so that float64 copies stay small beside a large tensor


def _by_pieces(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Return ``function(*tensors)`` in the dtype of the last tensor, of large contiguous ones piece by piece."""
    last = tensors[-1]
    if last.numel() <= _PIECE or not all(tensor.is_contiguous() for tensor in tensors):
        return function(*tensors).to(last.dtype)
    result = torch.empty_like(last)
    pieces = (tensor.view(-1).split(_PIECE) for tensor in (result, *tensors))
    for into, *operands in zip(*pieces, strict=True):
        into.copy_(function(*operands))
    return result


def rounded_once(
    value: Callable[..., Tensor],
    derivative: Callable[..., Tensor],
    torch_forward: Callable[..., Tensor] | None = None,
    torch_backward: Callable[..., Tensor] | None = None,
    *,
    wide_forward: frozenset[torch.dtype] = _FLOATING,
    wide_backward: frozenset[torch.dtype] = _FLOATING,
) -> Kernels:
    """Return kernels that evaluate formulas in float64 on the CPU.

    Args:
        value: φ in plain torch.
        derivative: φ' in plain torch, as a function of the input.
        torch_forward: what runs on other devices and dtypes, by default ``value``; complex and integer inputs get its
            result or its error.
        torch_backward: the same for the derivative; by default ``derivative``, half types in float32.
        wide_forward: the dtypes that are not accurate enough to evaluate ``torch_forward`` in.
        wide_backward: the same for the derivative.
    """
    otherwise = torch_forward or value

    def forward(input: Tensor, *parameters: Any) -> Tensor:
        if _is_tabulated(input, parameters):
            return _looked_up(value, parameters, input, input.dtype)
        if input.dtype in wide_forward and _is_wide(input):
            return _by_pieces(lambda piece: value(piece.double(), *parameters), input)
        return otherwise(input, *parameters)

    def backward(grad_output: Tensor, input: Tensor, *parameters: Any) -> Tensor:
        if _is_tabulated(input, parameters):
            slope = _looked_up(derivative, parameters, input, torch.float64)
            return slope.mul_(grad_output).to(grad_output.dtype)
        if input.dtype not in wide_backward:
            return derivative(input, *parameters) * grad_output
        if _is_wide(input):
            return _by_pieces(
                lambda piece, grad_piece: derivative(piece.double(), *parameters) * grad_piece.double(),
                input,
                grad_output,
            )
        if torch_backward is None:
            return (derivative(_widened(input), *parameters) * _widened(grad_output)).to(grad_output.dtype)
        return torch_backward(grad_output, input, *parameters)

    return Kernels(forward, backward)


def _reference(
    key: str,
    torch_forward: Callable[..., Tensor] | None = None,
    torch_backward: Callable[..., Tensor] | None = None,
    *,
    wide_forward: frozenset[torch.dtype] = _FLOATING,
    wide_backward: frozenset[torch.dtype] = _FLOATING,
) -> Kernels:
    record = catalogue.CATALOGUE[key]
    return rounded_once(
        record.value,
        record.derivative,
        torch_forward,
        torch_backward,
        wide_forward=wide_forward,
        wide_backward=wide_backward,
    )


def _with_backward_of_reference(key: str, forward: Callable[..., Tensor]) -> Kernels:
    return Kernels(forward, _reference(key).backward)


def of_two(pair: catalogue.Pair) -> Kernels:
    """Return kernels of a function of two tensors, evaluated in float64 on the CPU."""

    def forward(first: Tensor, second: Tensor, *parameters: Any) -> Tensor:
        if _is_wide(first) and _is_wide(second):
            result = pair.value(first.double(), second.double(), *parameters)
            return result.to(pair.result_type(first, second))
        result = pair.value(first, second, *parameters)
        return result.to(pair.result_type(first, second)) if first.is_floating_point() else result

    def backward(grad_output: Tensor, first: Tensor, second: Tensor, *parameters: Any) -> tuple[Tensor, Tensor]:
        by_first, by_second = pair.partials(_widened(first), _widened(second), *parameters)
        wide = _widened(grad_output)
        return by_first * wide, by_second * wide

    return Kernels(forward, backward)


def _unless_scaled(key: str, torch_s: Kernels) -> Kernels:
    """Return torch's kernels for a first parameter that is a power of two, and the reference's for all others.

    torch multiplies or divides the input by it in the input's dtype, and exp magnifies the rounding of that.
    """
    reference = _reference(key, torch_s.forward)

    def is_exact(scale: Any) -> bool:
        return scale == 0 or abs(math.frexp(float(scale))[0]) == 0.5  # for 0, torch's raises

    def rounded_once_if_scaled(input: Tensor, scale: Any, *parameters: Any) -> Tensor:
        kernels = torch_s if is_exact(scale) else reference
        return kernels.forward(input, scale, *parameters)

    def backward(grad_output: Tensor, input: Tensor, scale: Any, *parameters: Any) -> Tensor:
        kernels = torch_s if is_exact(scale) else reference
        return kernels.backward(grad_output, input, scale, *parameters)

    return Kernels(rounded_once_if_scaled, backward)


def _in_float32(softmax: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return one of torch's softmaxes, of half types on the CPU in float32 and rounded once."""

    def forward(input: Tensor, dim: int) -> Tensor:
        if input.is_cpu and input.dtype in _HALF_TYPES:
            return softmax(input, dim, dtype=torch.float32).to(input.dtype)
        return softmax(input, dim)

    return forward


def _hardsigmoid_backward(grad_output: Tensor, input: Tensor) -> Tensor:
    if input.dtype is torch.float64:  # of which torch's operator has 1/6 with the digits of a float32
        return _reference("hardsigmoid").backward(grad_output, input)
    return _torch_hardsigmoid_backward(grad_output, input)


def _hardswish(input: Tensor) -> Tensor:
    if _is_wide(input):  # torch's operator overflows at a sixth of the greatest number
        return catalogue.CATALOGUE["hardswish"].value(input)
    return F.hardswish(input)


_ONE = {dtype: torch.ones((), dtype=dtype, device="cpu") for dtype in _FLOATING}


def _binary_step_forward(input: Tensor, surrogate: str | None) -> Tensor:
    one = _ONE.get(input.dtype)
    return torch.ge(input, 0).to(input.dtype) if one is None else torch.heaviside(input, one)


def _binary_step_backward(grad_output: Tensor, input: Tensor, surrogate: str | None) -> Tensor:
    if surrogate is None:
        return torch.zeros_like(input)
    derivative = catalogue.CATALOGUE["binary_step"].derivative(_widened(input), surrogate)
    return (derivative * _widened(grad_output)).to(input.dtype)


def _threshold_backward_at(grad_output: Tensor, input: Tensor, threshold: float, value: float) -> Tensor:
    return _threshold_backward(grad_output, input, float(threshold))


# torch takes a zero-dimensional tensor for a number, `_op` does not: hence the calls of float.
KERNELS: Mapping[str, Kernels] = MappingProxyType(
    _kernels := {
        "sigmoid": Kernels(torch.sigmoid, _sigmoid_backward),
        "tanh": Kernels(torch.tanh, _tanh_backward),
        "logsigmoid": _with_backward_of_reference("logsigmoid", F.logsigmoid),
        "softsign": _reference("softsign", F.softsign, wide_forward=_HALF_TYPES, wide_backward=_HALF_TYPES),
        "hardtanh": Kernels(
            F.hardtanh,
            lambda grad_output, input, low, high: _hardtanh_backward(grad_output, input, float(low), float(high)),
        ),
        "hardsigmoid": Kernels(F.hardsigmoid, _hardsigmoid_backward),
        "relu": Kernels(torch.relu, lambda grad_output, output: _threshold_backward(grad_output, output, 0)),
        "relu6": Kernels(F.relu6, lambda grad_output, input: _hardtanh_backward(grad_output, input, 0.0, 6.0)),
        "leaky_relu": Kernels(
            torch._C._nn.leaky_relu,
            lambda grad_output, input, negative_slope: _leaky_relu_backward(
                grad_output, input, float(negative_slope), False
            ),
        ),
        "rrelu": Kernels(
            lambda input, lower, upper: torch._C._nn.leaky_relu(input, float(lower + upper) / 2),
            lambda grad_output, input, lower, upper: _leaky_relu_backward(
                grad_output, input, float(lower + upper) / 2, False
            ),
        ),
        "threshold": Kernels(F.threshold, _threshold_backward_at),
        "squared_relu": _reference("squared_relu", wide_forward=_HALF_TYPES, wide_backward=_HALF_TYPES),
        "elu": Kernels(
            torch._C._nn.elu,
            lambda grad_output, input, alpha: _elu_backward(grad_output, float(alpha), 1.0, 1.0, False, input),
        ),
        "selu": Kernels(
            torch.selu,
            lambda grad_output, input: _elu_backward(
                grad_output, catalogue.SELU_ALPHA, catalogue.SELU_SCALE, 1.0, False, input
            ),
        ),
        "celu": _unless_scaled("celu", Kernels(torch.celu, _reference("celu").backward)),
        "softplus": _unless_scaled(
            "softplus",
            Kernels(
                torch._C._nn.softplus,
                lambda grad_output, input, beta, threshold: _softplus_backward(
                    grad_output, input, float(beta), float(threshold)
                ),
            ),
        ),
        "silu": _reference("silu", F.silu, _silu_backward),
        "swish": _reference("swish"),
        "quick_gelu": _reference("quick_gelu"),
        "gelu": _reference(
            "gelu",
            lambda input, approximate: torch._C._nn.gelu(input, approximate=approximate),
        ),
        "gelu_tanh": _reference("gelu_tanh", lambda input: torch._C._nn.gelu(input, approximate="tanh")),
        "mish": _reference("mish", F.mish, _mish_backward),
        "hardswish": _reference("hardswish", _hardswish, _hardswish_backward, wide_forward=_HALF_TYPES),
        "tanhshrink": _reference("tanhshrink", F.tanhshrink),
        "softshrink": Kernels(
            torch._C._nn.softshrink,
            lambda grad_output, input, lambd: _softshrink_backward(grad_output, input, float(lambd)),
        ),
        "hardshrink": Kernels(
            torch.hardshrink,
            lambda grad_output, input, lambd: _hardshrink_backward(grad_output, input, float(lambd)),
        ),
        "gaussian": _reference("gaussian"),
        "sine": _reference("sine"),
        "snake": _reference("snake"),
        "softmax": Kernels(
            _in_float32(torch.softmax),
            lambda grad_output, output, dim: _softmax_backward(grad_output, output, dim, output.dtype),
        ),
        "softmin": Kernels(
            _in_float32(F.softmin),
            lambda grad_output, output, dim: _softmax_backward(grad_output, output, dim, output.dtype).neg_(),
        ),
        "log_softmax": Kernels(
            _in_float32(torch.log_softmax),
            lambda grad_output, output, dim: _log_softmax_backward(grad_output, output, dim, output.dtype),
        ),
        "binary_step": Kernels(_binary_step_forward, _binary_step_backward),
        "identity": Kernels(torch.clone, torch.clone),
    }
)


def register(key: str, pair: Kernels) -> None:
    """Choose the kernels of a user's own activation."""
    _kernels[key] = pair


def forget(key: str) -> None:
    """Take back what :func:`register` did."""
    del _kernels[key]


#: Of those that are functions of two tensors: with a learnable parameter, or with a gate.
PAIR_KERNELS: Mapping[str, Kernels] = MappingProxyType(
    {
        **{record.key: of_two(record.pair) for record in catalogue.CATALOGUE.values() if record.pair is not None},
        "prelu": Kernels(torch._prelu_kernel, _prelu_backward),
    }
)
