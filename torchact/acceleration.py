"""torch's own operators with torchact's kernels: models that people already have, faster on the CPU and unchanged.

After :func:`accelerate`, ``torch.tanh``, ``nn.GELU``, ``F.silu`` and the others of :data:`OPERATORS` run the compiled
kernels, wherever in a model they are called, in-place forms included. Autograd, functorch, checkpointing and autocast
are torch's, untouched, and ``torch.compile`` goes on generating its own code. What the kernels do not serve (complex
and integer tensors, among others) goes on to torch's own; errors that those raise arrive as ``RuntimeError``. Results
are those of ``torchact.functional``.

Not covered are operators that take a ``Scalar`` (``elu``, ``celu``, ``leaky_relu``, ``softplus``, ``hardtanh``,
``threshold``), which torch's stable ABI cannot implement; ``selu``, which is composed of ``elu``, and would lose its
gradient; forms that write into a given tensor (``out=``), which serve as the way to torch's own; and the derivatives of
tanh, sigmoid and logsigmoid, which run as fast as memory does. On Intel's processors with AVX-512 torch's own tanh of
float32 stays in ``torchact.functional``, since it is MKL's, and here from 16,384 numbers on; of fewer, results differ
from those by some units in the last place.

torch warns on the standard error stream when an operator's kernel is replaced, once a process, since two libraries that
do so would be in each other's way. Here that is what was asked for, and the warning is kept from the user.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from torchact import catalogue
from torchact.kernels import extension, tables

#: The operators of torch that are accelerated, by their names in ``torch.ops.aten``; logsigmoid's is its forward pass.
OPERATORS = (
    "tanh",
    "tanh_",
    "sigmoid",
    "sigmoid_",
    "silu",
    "silu_",
    "silu_backward",
    "mish",
    "mish_",
    "mish_backward",
    "gelu",
    "gelu_",
    "gelu_backward",
    "log_sigmoid_forward",
)
# In the order of csrc/accelerate.cpp; those from silu on have a table of their derivative as well.
_TABULATED = ("tanh", "sigmoid", "silu", "mish", "gelu", "gelu_tanh")
_WITH_DERIVATIVE = _TABULATED[2:]

_asked_for = 0  # how many blocks, and the process, want it now
_for_the_process = False


def accelerate(on: bool = True) -> None:
    """Give torch's operators torchact's kernels, for the process; or torch's own again.

    Args:
        on: ``False`` ends what an earlier call began. Blocks of :func:`accelerated` that are still open keep it.

    Raises:
        RuntimeError: there are no compiled kernels; :func:`torchact.kernels.status` says why.

    Example:
        >>> import torch, torchact
        >>> if torchact.kernels.status().loaded:
        ...     torchact.accelerate()
        ...     y = torch.tanh(torch.randn(8))
        ...     torchact.accelerate(False)
    """
    global _for_the_process
    if on and not _for_the_process:
        _begin()
    if not on and _for_the_process:
        _end()
    _for_the_process = on


@contextlib.contextmanager
def accelerated() -> Iterator[None]:
    """Give torch's operators torchact's kernels while a ``with`` block runs, in all threads.

    Raises:
        RuntimeError: there are no compiled kernels; :func:`torchact.kernels.status` says why.

    Example:
        >>> import torch, torchact
        >>> if torchact.kernels.status().loaded:
        ...     with torchact.accelerated():
        ...         y = torch.nn.functional.gelu(torch.randn(8))
    """
    _begin()
    try:
        yield
    finally:
        _end()


def is_accelerated() -> bool:
    """Whether torch's operators run torchact's kernels now."""
    return _asked_for > 0


class _Registration(torch.autograd.Function):
    """Registers the kernels; torch hands the C++ warnings of a Function, unlike an operator's, to Python's filters."""

    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor, derivatives: Tensor) -> None:
        torch.ops.torchact.accelerate(values, derivatives, extension.TORCH_HAS_FAST_TANH)


def _begin() -> None:
    global _asked_for
    if not extension.STATUS.loaded:
        raise RuntimeError(f"accelerate: {extension.STATUS}")
    if _asked_for == 0:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Warning only once for all operators", UserWarning)
            _Registration.apply(*_tables())
    _asked_for += 1


def _end() -> None:
    global _asked_for
    _asked_for -= 1
    if _asked_for == 0:
        torch.ops.torchact.decelerate()


@functools.cache
def _tables() -> tuple[Tensor, Tensor]:
    """Return the tables of values, as bits, and of derivatives; of each operator for bfloat16 and float16."""
    values = [catalogue.CATALOGUE[key].value for key in _TABULATED]
    derivatives = [catalogue.CATALOGUE[key].derivative for key in _WITH_DERIVATIVE]
    half_types = torch.bfloat16, torch.float16
    return (
        torch.stack([tables.of_values(value, (), dtype).view(torch.int16) for value in values for dtype in half_types]),
        torch.stack([tables.of_derivatives(slope, (), dtype) for slope in derivatives for dtype in half_types]),
    )
