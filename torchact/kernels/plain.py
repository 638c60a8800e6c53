"""The kernels that need nothing compiled: torch's operators where they are accurate, else the catalogue's formulas.

Many of torch's operators are not: they cancel, overflow or flush to zero (``python -m benchmarks accuracy`` shows how
far off each is). In place of those the formula is evaluated in float64 and rounded once, or, of many numbers of 16
bits, looked up in a table of all 65,536 results. Elsewhere than on the CPU torch's operators run, unless they give NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchact import catalogue
from torchact.kernels.reference import FLOATING, Kernels, is_wide, of_record, of_two, widened
from torchact.kernels.tables import HALF_TYPES

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


def _unless_scaled(key: str, torch_s: Kernels) -> Kernels:
    """Return torch's kernels for a first parameter that is a power of two, and the reference's for all others.

    torch multiplies or divides the input by it in the input's dtype, and exp magnifies the rounding of that.
    """
    reference = of_record(key, torch_s.forward)

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
        if input.is_cpu and input.dtype in HALF_TYPES:
            return softmax(input, dim, dtype=torch.float32).to(input.dtype)
        return softmax(input, dim)

    return forward


def _hardsigmoid_backward(grad_output: Tensor, input: Tensor) -> Tensor:
    if input.dtype is torch.float64:  # of which torch's operator has 1/6 with the digits of a float32
        return of_record("hardsigmoid").backward(grad_output, input)
    return _torch_hardsigmoid_backward(grad_output, input)


def _hardswish(input: Tensor) -> Tensor:
    if is_wide(input):  # torch's operator overflows at a sixth of the greatest number
        return catalogue.CATALOGUE["hardswish"].value(input)
    return F.hardswish(input)


_ONE = {dtype: torch.ones((), dtype=dtype, device="cpu") for dtype in FLOATING}


def _binary_step_forward(input: Tensor, surrogate: str | None) -> Tensor:
    one = _ONE.get(input.dtype)
    return torch.ge(input, 0).to(input.dtype) if one is None else torch.heaviside(input, one)


def _binary_step_backward(grad_output: Tensor, input: Tensor, surrogate: str | None) -> Tensor:
    if surrogate is None:
        return torch.zeros_like(input)
    derivative = catalogue.CATALOGUE["binary_step"].derivative(widened(input), surrogate)
    return (derivative * widened(grad_output)).to(input.dtype)


def _threshold_backward_at(grad_output: Tensor, input: Tensor, threshold: float, value: float) -> Tensor:
    return _threshold_backward(grad_output, input, float(threshold))


# torch takes a zero-dimensional tensor for a number, `_op` does not: hence the calls of float.
PLAIN: Mapping[str, Kernels] = MappingProxyType(
    {
        "sigmoid": Kernels(torch.sigmoid, _sigmoid_backward),
        "tanh": Kernels(torch.tanh, _tanh_backward),
        "logsigmoid": Kernels(F.logsigmoid, of_record("logsigmoid").backward),
        "softsign": of_record("softsign", F.softsign, wide_forward=HALF_TYPES, wide_backward=HALF_TYPES),
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
        "squared_relu": of_record("squared_relu", wide_forward=HALF_TYPES, wide_backward=HALF_TYPES),
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
        "celu": _unless_scaled("celu", Kernels(torch.celu, of_record("celu").backward)),
        "softplus": _unless_scaled(
            "softplus",
            Kernels(
                torch._C._nn.softplus,
                lambda grad_output, input, beta, threshold: _softplus_backward(
                    grad_output, input, float(beta), float(threshold)
                ),
            ),
        ),
        "silu": of_record("silu", F.silu, _silu_backward),
        "swish": of_record("swish"),
        "quick_gelu": of_record("quick_gelu"),
        "gelu": of_record(
            "gelu",
            lambda input, approximate: torch._C._nn.gelu(input, approximate=approximate),
        ),
        "gelu_tanh": of_record("gelu_tanh", lambda input: torch._C._nn.gelu(input, approximate="tanh")),
        "mish": of_record("mish", F.mish, _mish_backward),
        "hardswish": of_record(
            "hardswish",
            _hardswish,
            _hardswish_backward,
            wide_forward=HALF_TYPES,
            wide_backward=FLOATING - HALF_TYPES,
        ),
        "tanhshrink": of_record("tanhshrink", F.tanhshrink),
        "softshrink": Kernels(
            torch._C._nn.softshrink,
            lambda grad_output, input, lambd: _softshrink_backward(grad_output, input, float(lambd)),
        ),
        "hardshrink": Kernels(
            torch.hardshrink,
            lambda grad_output, input, lambd: _hardshrink_backward(grad_output, input, float(lambd)),
        ),
        "gaussian": of_record("gaussian"),
        "sine": of_record("sine"),
        "snake": of_record("snake"),
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

_BILINEAR = catalogue.CATALOGUE["bilinear"].pair
assert _BILINEAR is not None

#: Of those that are functions of two tensors: with a learnable parameter, or with a gate.
PLAIN_PAIRS: Mapping[str, Kernels] = MappingProxyType(
    {
        **{record.key: of_two(record.pair) for record in catalogue.CATALOGUE.values() if record.pair is not None},
        "prelu": Kernels(torch._prelu_kernel, _prelu_backward),
        "bilinear": Kernels(torch.mul, of_two(_BILINEAR).backward),
    }
)
