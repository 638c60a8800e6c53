"""How much faster than torch each activation must be, and how much faster it was measured to be.

A floor holds for each dtype and number of threads by itself, on the CPU from 64 K to 1 M elements unless it says
otherwise. It is data, never an assertion: a machine that is busy with something else misses some.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

import numpy as np
import pandas as pd

from benchmarks.cases import MODES, Mode

_GELU_TANH = {"gelu_tanh", "gelu, approximate=tanh"}
_TANH_LIKE = frozenset({"tanh", "mish", "tanhshrink", *_GELU_TANH})
_EXPONENTIAL = frozenset({"elu", "selu", "celu", "softplus", "logsigmoid"})

#: The labels of those activations that the floors name, into each of which an exponential goes.
TRANSCENDENTAL = _TANH_LIKE | _EXPONENTIAL | {"sigmoid", "silu", "gelu"}

#: The columns of ratios that a floor can require.
OVER = ("over_eager", "over_compile", "over_copy")

_BOTH_DTYPES = ("float32", "bfloat16")
_KERNELS = frozenset({"activations", "gated", "softmax"})


@dataclass(frozen=True, kw_only=True)
class Floor:
    """What the speed of a provider over that of eager torch, of torch.compile and of a copy must reach."""

    what: str
    labels: frozenset[str] | None = None  #: of the cases, by default all
    benchmarks: frozenset[str] = frozenset({"activations"})
    modes: tuple[Mode, ...] = MODES
    dtypes: tuple[str, ...] = _BOTH_DTYPES
    sizes: tuple[float, float] = (2**16, 2**20)  #: for which it holds, both included
    provider: Literal["torchact", "accelerated"] = "torchact"
    over_eager: float | None = None
    over_compile: float | None = None
    over_copy: float | None = None  #: its bytes a second over those of a copy
    mean: bool = False  #: whether it is the geometric mean over all that must reach it, rather than each

    def rows(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return those rows of a measurement for which it holds."""
        meant = (
            rows["benchmark"].isin(self.benchmarks)
            & (rows["provider"] == self.provider)
            & rows["mode"].isin(self.modes)
            & rows["dtype"].isin(self.dtypes)
            & rows["elements"].between(*self.sizes)
        )
        return rows[meant if self.labels is None else meant & labels(rows).isin(self.labels)]


def labels(rows: pd.DataFrame) -> pd.Series:
    """Return the label of each row's case: its activation, and its form if it has one."""
    form = rows["form"].fillna("")
    return rows["activation"].where(form == "", rows["activation"] + ", " + form)


def _of_labels(what: str, names: frozenset[str], mode: Mode, eager: float, compiled: float, *dtypes: str) -> Floor:
    what = f"{what} {mode}"
    dtypes = dtypes or _BOTH_DTYPES
    return Floor(what=what, labels=names, modes=(mode,), dtypes=dtypes, over_eager=eager, over_compile=compiled)


def _names(*names: str) -> frozenset[str]:
    return frozenset(names)


_OF_ACTIVATIONS = (
    _of_labels("tanh, mish, tanhshrink, tanh-GELU", _TANH_LIKE, "forward", 4, 3, "float32"),
    _of_labels("mish, tanh-GELU", _names("mish", *_GELU_TANH), "backward", 4, 3, "float32"),
    _of_labels("elu, selu, celu, softplus, logsigmoid", _EXPONENTIAL, "forward", 2.5, 2, "float32"),
    _of_labels("gelu", _names("gelu"), "forward", 1, 1, "float32"),
    _of_labels("gelu", _names("gelu"), "backward", 1.5, 1.3, "float32"),
    _of_labels("tanh, mish, elu, softplus", _names("tanh", "mish", "elu", "softplus"), "forward", 3, 2, "bfloat16"),
    _of_labels("silu, gelu, mish", _names("silu", "gelu", "mish"), "backward", 2, 1.5, "bfloat16"),
    _of_labels("sigmoid, silu", _names("sigmoid", "silu"), "forward", 1.2, 1.1),
)

_GATED = Floor(
    what="packed swiglu, geglu forward, backward",
    labels=_names("swiglu, packed", "geglu, packed"),
    benchmarks=_names("gated"),
    modes=("forward", "backward"),
    over_eager=1.6,
    over_compile=1.1,
)

_MEAN = Floor(
    what="geometric mean, transcendental, forward, backward",
    labels=TRANSCENDENTAL,
    modes=("forward", "backward"),
    over_eager=2,
    over_compile=1.7,
    mean=True,
)

_NEVER_BELOW = (
    Floor(what="any, any mode, from 1 M up", benchmarks=_KERNELS, sizes=(2**20, math.inf), over_eager=0.95),
    Floor(what="any, any mode, 64 K", benchmarks=_KERNELS, sizes=(2**16, 2**16), over_eager=0.75),
    Floor(what="any, forward + backward, 16", benchmarks=_KERNELS, modes=("both",), sizes=(16, 16), over_eager=0.6),
)

_ACCELERATED = _names("tanh", "mish", "silu", "gelu, approximate=tanh")


def _accelerated() -> Iterator[Floor]:
    """Yield what torch's own functions must reach when accelerated: the same, for those that are named."""
    for floor in _OF_ACTIVATIONS:
        named = (floor.labels or frozenset()) & _ACCELERATED
        if named:
            names = ", ".join(sorted(label.replace(", approximate=", "-") for label in named))
            what = f"accelerated {names} {', '.join(floor.modes)}"
            yield replace(floor, what=what, labels=named, provider="accelerated", over_compile=None)
    yield Floor(
        what="accelerated tanh, mish, silu, gelu-tanh, 16",
        labels=_ACCELERATED,
        sizes=(16, 16),
        provider="accelerated",
        over_eager=0.7,
    )


_STATISTICS = Floor(
    what="statistics in one pass, 1 M",
    labels=_names("reductions_and_histogram"),
    benchmarks=_names("statistics"),
    modes=("forward",),
    sizes=(2**20, 2**20),
    over_eager=10,
)

# On a GPU memory is the bound of all of them, if there is enough to do.
_AS_FAST_AS_MEMORY = Floor(
    what="elementwise, forward, backward, from 16 M up",
    modes=("forward", "backward"),
    sizes=(2**24, math.inf),
    over_compile=0.95,
    over_copy=0.85,
)
_ON_CUDA = (
    _AS_FAST_AS_MEMORY,
    replace(
        _AS_FAST_AS_MEMORY,
        what="packed swiglu, forward, backward, from 16 M up",
        labels=_names("swiglu, packed"),
        benchmarks=_names("gated"),
    ),
    Floor(
        what="gated units, forward, backward, from 16 M up",
        benchmarks=_names("gated"),
        modes=("forward", "backward"),
        sizes=(2**24, math.inf),
        over_eager=2,
    ),
)

#: By the device on which they hold.
FLOORS: Mapping[str, tuple[Floor, ...]] = MappingProxyType(
    {
        "cpu": (*_OF_ACTIVATIONS, _GATED, _MEAN, *_NEVER_BELOW, *_accelerated(), _STATISTICS),
        "cuda": _ON_CUDA,
    }
)


@dataclass(frozen=True)
class Reached:
    """What was measured for a floor, with one dtype and number of threads; NaN where nothing was."""

    floor: Floor
    dtype: str
    threads: int
    over_eager: float  #: the lowest median, or the geometric mean of all
    over_compile: float
    over_copy: float
    lowest: str  #: which is the lowest over what is required first: label, mode and elements

    @property
    def met(self) -> bool | None:
        """Whether all are reached; None if one that is required was not measured."""
        required = [(getattr(self, over), least) for over in OVER if (least := getattr(self.floor, over)) is not None]
        if any(reached < least for reached, least in required):
            return False
        return None if any(math.isnan(reached) for reached, _ in required) else True


def geometric_mean(values: pd.Series) -> float:
    """Return the geometric mean of those that were measured; NaN of none."""
    values = values.dropna()
    return float(np.exp(np.log(values).mean())) if len(values) else math.nan


def check(rows: pd.DataFrame, floors: Sequence[Floor] = FLOORS["cpu"]) -> list[Reached]:
    """Return what was reached of every floor for which something was measured, dtypes and threads apart.

    Args:
        rows: of :func:`benchmarks.results.write`, of one command or of several, on one device.
        floors: of that device.
    """
    return [
        _reached(floor, str(dtype), int(threads), group)
        for floor in floors
        for (threads, dtype), group in floor.rows(rows).groupby(["threads", "dtype"], sort=False)
    ]


def _reached(floor: Floor, dtype: str, threads: int, rows: pd.DataFrame) -> Reached:
    combine = geometric_mean if floor.mean else pd.Series.min
    over = {column: float(combine(rows[column])) for column in OVER}
    required = next(column for column in OVER if getattr(floor, column) is not None)
    return Reached(floor, dtype, threads, **over, lowest=_lowest(rows, required))


def _lowest(rows: pd.DataFrame, over: str) -> str:
    if rows[over].isna().all():
        return ""
    index = rows[over].idxmin()
    row = rows.loc[index]
    return f"{labels(rows)[index]}, {row['mode']}, {row['elements']}"
