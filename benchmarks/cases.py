"""What is timed: each activation's function beside its counterpart, its operands, and the bytes it must move."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.counterparts import GATED, Function, functions
from torchact import functional
from torchact.catalogue import CATALOGUE, Activation
from torchact.diagnostics import statistics

Mode = Literal["forward", "backward", "both"]
MODES: tuple[Mode, ...] = get_args(Mode)
Operands = tuple[Tensor, ...]

_PACKED_ROW = 4096  # both halves of a gated unit, 2 · 2048
_ROWS = (64, 1024, 32768)  # of softmax: an attention head's keys, a long sequence of them, a vocabulary
_CHANNELS, _PIXELS = 64, 1024


@dataclass(frozen=True, kw_only=True)
class Case:
    """One function of torchact beside its counterpart in torch."""

    activation: str  #: its name, by which it is chosen
    form: str = ""  #: what tells it from others of the same name
    ours: Function
    theirs: Function
    operands: Callable[[int, torch.dtype], Operands]  #: with so many elements in all
    saves: str = "input"  #: what backward reads besides the gradient
    modes: tuple[Mode, ...] = MODES
    unit: int = 1  #: the number of elements must be a multiple of it

    @property
    def label(self) -> str:
        """Name and form, which no other case has."""
        return f"{self.activation}, {self.form}" if self.form else self.activation

    def bytes_moved(self, operands: Operands, output: Tensor, mode: Mode) -> int:
        """Return the bytes that any implementation reads and writes at least, if backward follows later."""
        inputs = sum(operand.nbytes for operand in operands)
        forward = inputs + output.nbytes
        saved = output.nbytes if self.saves == "output" else inputs
        backward = output.nbytes + saved + inputs
        return {"forward": forward, "backward": backward, "both": forward + backward}[mode]


def _random(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(math.prod(shape))).to(dtype)


def _vector(elements: int, dtype: torch.dtype) -> Operands:
    return (_random(elements, dtype=dtype),)


def _own(kind: str) -> list[Activation]:
    """Return the catalogue's activations of a kind, without those that a user has defined."""
    return [record for record in CATALOGUE.values() if record.kind == kind and record.origin is None]


# ---- elementwise


def _elementwise(record: Activation, form: str = "", **chosen: Any) -> Case:
    ours, theirs = functions(record, **{**record.parameters, **chosen})
    assert theirs is not None, record.key
    return Case(activation=record.key, form=form, ours=ours, theirs=theirs, operands=_vector, saves=record.saves)


def _prelu(record: Activation) -> Case:
    """Return the case with a weight that learns."""

    def operands(elements: int, dtype: torch.dtype) -> Operands:
        return *_vector(elements, dtype), torch.tensor([record.parameters["weight"]], dtype=dtype)

    return Case(activation=record.key, ours=functional.prelu, theirs=F.prelu, operands=operands)


def _binary_step(record: Activation) -> Case:
    """Return the case without backward, which torch's counterpart does not have."""
    ones = {dtype: torch.ones((), dtype=dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)}
    return Case(
        activation=record.key,
        ours=functional.binary_step,
        theirs=lambda x: torch.heaviside(x, ones[x.dtype]),
        operands=_vector,
        modes=("forward",),
    )


def activations() -> list[Case]:
    """Return every elementwise activation with its usual parameters, but for the identity, which does nothing."""
    special = {"prelu": _prelu, "binary_step": _binary_step}
    records = [record for record in _own("elementwise") if record.key != "identity"]
    cases = [special.get(record.key, _elementwise)(record) for record in records]
    return [*cases, _elementwise(CATALOGUE["gelu"], "approximate=tanh", approximate="tanh")]


# ---- gated


def _packed_operands(elements: int, dtype: torch.dtype) -> Operands:
    row = math.gcd(elements, _PACKED_ROW)
    return (_random(elements // row, row, dtype=dtype),)


def _two_operands(elements: int, dtype: torch.dtype) -> Operands:
    (packed,) = _packed_operands(elements, dtype)
    return tuple(half.contiguous() for half in packed.chunk(2, -1))


def _gated(record: Activation, form: str = "", **chosen: Any) -> tuple[Case, Case]:
    """Return the case with both halves in one tensor, and that with one tensor each."""
    ours = functools.partial(getattr(functional, record.key), **chosen)
    multiplied = functools.partial(GATED[record.key], **chosen)
    packed = Case(
        activation=record.key,
        form=f"{form}packed",
        ours=ours,
        theirs=record.torch_function or (lambda x: multiplied(*x.chunk(2, -1))),
        operands=_packed_operands,
        unit=2,
    )
    two = Case(
        activation=record.key,
        form=f"{form}two tensors",
        ours=lambda v, g: ours(v, other=g),
        theirs=multiplied,
        operands=_two_operands,
        unit=2,
    )
    return packed, two


def gated() -> list[Case]:
    """Return every gated unit, packed along the last dimension and in two tensors."""
    tanh = _gated(CATALOGUE["geglu"], "approximate=tanh, ", approximate="tanh")
    return [case for pair in (*map(_gated, _own("gated")), tanh) for case in pair]


# ---- normalised


def _rows(length: int, elements: int, dtype: torch.dtype) -> Operands:
    row = min(length, elements)
    return (_random(elements // row, row, dtype=dtype),)


def _images(elements: int, dtype: torch.dtype) -> Operands:
    channels = math.gcd(elements, _CHANNELS)
    pixels = math.gcd(elements // channels, _PIXELS)
    return (_random(elements // channels // pixels, channels, pixels, dtype=dtype),)


def _normalised(record: Activation, form: str, dim: int, operands: Callable[..., Operands], unit: int) -> Case:
    ours, theirs = functions(record, dim=dim)
    assert theirs is not None, record.key
    return Case(
        activation=record.key, form=form, ours=ours, theirs=theirs, operands=operands, saves=record.saves, unit=unit
    )


def softmax() -> list[Case]:
    """Return the softmax and its relatives, along rows of several lengths and along an inner dimension."""
    forms: list[tuple[str, int, Callable[..., Operands], int]] = [
        # The shortest rows are taken of fewer elements, too.
        (f"rows of {length}", -1, functools.partial(_rows, length), 1 if length == min(_ROWS) else length)
        for length in _ROWS
    ]
    forms.append((f"{_CHANNELS} channels", 1, _images, 1))
    records = [record for record in _own("normalised") if "dim" in record.parameters]
    return [_normalised(record, *form) for record in records for form in forms]


# ---- statistics of one tensor


def _reductions(x: Tensor) -> Tensor:
    norm, largest = torch.linalg.vector_norm(x), x.abs().max()
    zeros = x.numel() - torch.count_nonzero(x)
    non_finite = x.numel() - torch.count_nonzero(torch.isfinite(x))
    return torch.stack([part.double() for part in (x.sum(), norm, largest, zeros, non_finite)])


def _reductions_and_histogram(x: Tensor) -> Tensor:
    magnitudes = torch.histc(x.abs().log2().float(), bins=64, min=-64, max=64)
    return torch.cat([_reductions(x), magnitudes])


def statistics_of_a_tensor() -> list[Case]:
    """Return the statistics of one tensor in one call, against what one would write: each name is what of it."""
    counterparts: dict[str, Function] = {
        "reductions": _reductions,
        "reductions_and_histogram": _reductions_and_histogram,
        "norm": torch.linalg.vector_norm,
    }
    return [
        Case(activation=name, ours=statistics.reduce_tensor, theirs=theirs, operands=_vector, modes=("forward",))
        for name, theirs in counterparts.items()
    ]


#: The cases by the command that measures them; made when they are called.
COMMANDS: Mapping[str, Callable[[], list[Case]]] = MappingProxyType(
    {"activations": activations, "gated": gated, "softmax": softmax, "statistics": statistics_of_a_tensor}
)
