"""The compiled operators ``torch.ops.torchact.*``: whether they are there, and why not."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_INSTRUCTIONS = ("baseline", "AVX2", "AVX-512")  # from the least to the best


@dataclass(frozen=True)
class Status:
    """What of the fused kernels there is."""

    loaded: bool  #: whether they are used
    instruction_set: str | None  #: what the CPU's run with: ``"baseline"``, ``"AVX2"`` or ``"AVX-512"``
    cuda: bool  #: whether those for CUDA were built, too
    reason: str | None  #: why they are not used

    def __str__(self) -> str:
        if not self.loaded:
            return f"torchact runs without fused kernels: {self.reason}"
        cuda = "with" if self.cuda else "without"
        return f"torchact runs with fused kernels for {self.instruction_set}, {cuda} those for CUDA"


def _load() -> Status:
    setting = os.environ.get("TORCHACT_KERNELS", "1")
    if setting not in ("0", "1"):
        raise ValueError(f"TORCHACT_KERNELS: expected 0 or 1, got {setting!r}")
    instructions = os.environ.get("TORCHACT_INSTRUCTIONS", _INSTRUCTIONS[-1])
    if instructions not in _INSTRUCTIONS:
        raise ValueError(f"TORCHACT_INSTRUCTIONS: expected one of {', '.join(_INSTRUCTIONS)}, got {instructions!r}")
    if setting == "0":
        return Status(False, None, False, "TORCHACT_KERNELS=0 turns them off")
    try:
        importlib.import_module("torchact._kernels")
    except ModuleNotFoundError:
        return Status(False, None, False, "they were not built when torchact was installed; TORCHACT_BUILD=1 says why")
    except ImportError as error:  # built for a torch or a system that this is not
        return Status(False, None, False, f"they do not load: {error}")
    operators = torch.ops.torchact
    cuda = torch._C._dispatch_has_kernel_for_dispatch_key("torchact::silu", "CUDA")
    return Status(True, operators.instruction_set(), cuda, None)


STATUS = _load()

#: Whether torch's tanh of float32 is the fastest: MKL's, where that runs its AVX-512 code.
TORCH_HAS_FAST_TANH: bool = (
    STATUS.loaded and torch.backends.mkl.is_available() and torch.ops.torchact.is_intel_with_avx512()
)


def status() -> Status:
    """Return what of the fused kernels there is, and why they are not used if they are not."""
    return STATUS


def operator(name: str) -> Callable[..., Any]:
    """Return the compiled operator of this name, without the Python part of its call, which costs 0.6 µs.

    Raises:
        ImportError: there is none, because the kernels were compiled from other sources than these.
    """
    try:
        return getattr(torch.ops.torchact, name).default._op
    except AttributeError as error:
        raise _other_version(name) from error


def function(name: str) -> Callable[..., Any]:
    """Return the compiled function of this name, which takes addresses instead of tensors and does not check them.

    Raises:
        ImportError: as of :func:`operator`.
    """
    try:
        return getattr(sys.modules["torchact._kernels"], name)
    except AttributeError as error:
        raise _other_version(name) from error


def _other_version(name: str) -> ImportError:
    return ImportError(
        f"torchact's compiled kernels have no {name}: they are of another version. Build them again with "
        "`python setup.py build_ext --inplace` or `pip install`, or set TORCHACT_KERNELS=0"
    )


def is_served(tensor: Tensor) -> bool:
    """Whether compiled operators take this tensor, if they are there and take its dtype."""
    return (
        (tensor.is_cpu or (STATUS.cuda and tensor.is_cuda)) and tensor.layout is torch.strided and not tensor.is_nested
    )


# ---- what the operators return without computing it, for fake tensors and the meta device


def _elementwise(input: Tensor, *parameters: float) -> Tensor:
    return input.neg()


def _elementwise_backward(grad_output: Tensor, saved: Tensor, *others: Any) -> Tensor:
    return grad_output * saved


def _pair(first: Tensor, second: Tensor, *parameters: float) -> Tensor:
    return first * second


def _pair_backward(grad_output: Tensor, first: Tensor, second: Tensor, *parameters: float) -> tuple[Tensor, Tensor]:
    product = grad_output * first * second
    return product, torch.empty_like(product)


def _packed(input: Tensor, dim: int, gate_first: bool, *parameters: float) -> Tensor:
    first, second = input.chunk(2, dim)
    return first * second


def _packed_backward(grad_output: Tensor, input: Tensor, dim: int, gate_first: bool, *parameters: float) -> Tensor:
    return input.neg()


def _statistics(input: Tensor, intervals: Tensor, exponents: bool) -> Tensor:
    bits = torch.finfo(input.dtype).bits
    return intervals.new_empty(8 + ((2048 if bits == 64 else 256) if exponents else 0))


def _in_place(*operands: Any) -> None:
    """Write into what was given."""


def _fake(name: str) -> Callable[..., Any]:
    if name == "statistics":
        return _statistics
    if name.startswith("add_"):
        return _in_place
    schema = getattr(torch.ops.torchact, name).default._schema
    operands = [argument.name for argument in schema.arguments]
    if "gate_first" in operands:
        return _packed_backward if name.endswith("_backward") else _packed
    if "second" in operands:
        return _pair_backward if name.endswith("_backward") else _pair
    return _elementwise_backward if name.endswith("_backward") else _elementwise


def operator_names() -> list[str]:
    """Return the names of the compiled operators that compute with tensors."""
    names = [name.removeprefix("torchact::") for name in torch._C._dispatch_get_all_op_names() if "torchact::" in name]
    return sorted(set(names) - {"instruction_set", "is_intel_with_avx512", "accelerate", "decelerate"})


if STATUS.loaded:
    _library = torch.library.Library("torchact", "IMPL")
    for _name in operator_names():
        torch.library.register_fake(f"torchact::{_name}", _fake(_name))
        if _name.startswith("add_"):  # autograd has nothing to do, and else would take as long as the operator
            _library.impl(_name, torch.library.fallthrough_kernel, "Autograd")
