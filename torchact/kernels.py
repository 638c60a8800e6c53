"""The one place that chooses the kernels of each activation: a fused kernel where it wins, torch's own elsewhere.

No fused kernel is built yet, so every entry is torch's. A forward kernel takes (input, *parameters); a backward kernel
takes (grad_output, saved, *parameters), where ``saved`` is the tensor that the catalogue names in ``saves``. Neither is
differentiable, and neither writes into its arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from torchact import catalogue

# `OpOverload._op` is the operator without OpOverload's Python __call__, which costs 1 µs a call.
_aten = torch.ops.aten
_sigmoid_backward = _aten.sigmoid_backward.default._op
_tanh_backward = _aten.tanh_backward.default._op
_threshold_backward = _aten.threshold_backward.default._op
_leaky_relu_backward = _aten.leaky_relu_backward.default._op
_softmax_backward = torch._softmax_backward_data


class Kernels(NamedTuple):
    """The pair of kernels of one activation."""

    forward: Callable[..., Tensor]
    backward: Callable[..., Tensor]


_ONE = {
    dtype: torch.ones((), dtype=dtype, device="cpu")
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
}


def _binary_step_forward(input: Tensor, surrogate: str | None) -> Tensor:
    one = _ONE.get(input.dtype)
    return torch.ge(input, 0).to(input.dtype) if one is None else torch.heaviside(input, one)


def _binary_step_backward(grad_output: Tensor, input: Tensor, surrogate: str | None) -> Tensor:
    if surrogate is None:
        return torch.zeros_like(input)
    dtype = torch.promote_types(input.dtype, torch.float32)
    derivative = catalogue.CATALOGUE["binary_step"].derivative(input.to(dtype), surrogate)
    return (derivative * grad_output.to(dtype)).to(input.dtype)


KERNELS: Mapping[str, Kernels] = MappingProxyType(
    {
        "sigmoid": Kernels(torch.sigmoid, _sigmoid_backward),
        "tanh": Kernels(torch.tanh, _tanh_backward),
        "relu": Kernels(torch.relu, lambda grad_output, output: _threshold_backward(grad_output, output, 0)),
        "leaky_relu": Kernels(
            torch._C._nn.leaky_relu,
            # torch takes a zero-dimensional tensor for a number, `_op` does not.
            lambda grad_output, input, negative_slope: _leaky_relu_backward(
                grad_output, input, float(negative_slope), False
            ),
        ),
        "softmax": Kernels(
            torch.softmax, lambda grad_output, output, dim: _softmax_backward(grad_output, output, dim, output.dtype)
        ),
        "binary_step": Kernels(_binary_step_forward, _binary_step_backward),
        "identity": Kernels(torch.clone, torch.clone),
    }
)
