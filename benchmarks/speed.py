"""How fast each activation is, beside eager torch, ``torch.compile`` of it alone, and a plain copy.

Expected before measuring: where memory is the bound (piecewise linear functions, 16 M elements) all alike; elsewhere
what ``benchmarks/floors.py`` requires, from a prototype of the fused kernels: 1.2 to 4 times eager torch. Without them
large float32 tensors take 3 to 20 times as long as torch's where torch is not accurate: ratios of 0.05 to 0.3.

Compiling takes a second or two for each function, dtype, size and number of threads, which is outside the timing;
Inductor keeps the result on disk, so that a second run does not wait for it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from rich.console import Console
from rich.progress import track

from benchmarks import floors, pictures, results, tables
from benchmarks.cases import COMMANDS, MODES, Case, Mode
from benchmarks.counterparts import Function
from benchmarks.interleaved import Runner, Spread, Timings, within
from benchmarks.providers import NAMES, PROVIDERS, Name, compiling, copy, missing, runner
from torchact import lookup
from torchact.catalogue import ALIASES

Dtype = Literal["float32", "bfloat16", "float16"]
_WIDTH = 150  # of what is printed into a file, in which nothing need be cut


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure."""

    only: tuple[str, ...] = ()  #: the activations, by default all of this command
    sizes: tuple[int, ...] = (16, 2**12, 2**16, 2**20, 2**24)  #: numbers of elements
    dtypes: tuple[Dtype, ...] = ("float32", "bfloat16")
    modes: tuple[Mode, ...] = MODES
    device: Literal["cpu", "cuda"] = "cpu"  #: where to measure
    threads: tuple[int, ...] = ()  #: numbers of threads, by default one and, on the CPU, all that torch uses
    providers: tuple[Name, ...] = NAMES  #: a copy is timed besides
    seconds: float = 0.3  #: about how long to measure one mode of one activation, all providers together
    rounds: int = 25  #: how often to measure it at most; 5 rounds are taken however long they last
    out: Path | None = None  #: the CSV; its picture goes beside it; by default runs/benchmarks/<command>.csv
    pictured: int = 2**20  #: the number of elements to draw; the largest one if it was not measured

    def validate(self) -> None:
        """Raise a ValueError, which begins with the setting's name, if one makes no sense here."""
        for name, smallest in (("sizes", 1), ("threads", 1), ("rounds", 1)):
            given = getattr(self, name)
            if min(given, default=smallest) < smallest if isinstance(given, tuple) else given < smallest:
                raise ValueError(f"{name}: expected at least {smallest}, got {given!r}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device: expected 'cpu', since torch finds no GPU, got 'cuda'")


@dataclass(frozen=True)
class Point:
    """Where cases are measured."""

    dtype: Dtype
    elements: int
    threads: int


def chosen(cases: Sequence[Case], only: Sequence[str]) -> list[Case]:
    """Return the cases of these names, in their own order.

    Raises:
        ValueError: no case has one of the names; the message lists the nearest matches.
    """
    names = {case.activation: case.activation for case in cases}
    aliases = {alias: key for alias, key in ALIASES.items() if key in names}
    wanted = {lookup.find(names, name, "only", aliases) for name in only} or set(names)
    return [case for case in cases if case.activation in wanted]


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure(case: Case, point: Point, settings: Settings, providers: Sequence[Name]) -> list[dict[str, Any]]:
    """Return a row for each mode and provider, and for the copy, of one case at one point."""
    functions: dict[Name, Function] = {}
    for name in providers:
        function = PROVIDERS[name].function(case)
        if function is not None:
            functions[name] = function
    modes = [mode for mode in settings.modes if mode in case.modes]
    with _threads(point.threads), compiling():
        return [row for mode in modes for row in _measure_mode(case, point, settings, functions, mode)]


def _measure_mode(
    case: Case, point: Point, settings: Settings, functions: dict[Name, Function], mode: Mode
) -> list[dict[str, Any]]:
    dtype: torch.dtype = getattr(torch, point.dtype)
    device = torch.device(settings.device)
    operands = tuple(operand.to(device) for operand in case.operands(point.elements, dtype))
    with torch.no_grad():
        output = case.theirs(*operands)
    grad_output = torch.randn(output.shape).to(device, output.dtype)
    copying, copied = copy(point.elements, dtype, device)
    runners: dict[str, Runner] = {
        name: runner(PROVIDERS[name], function, operands, grad_output, mode) for name, function in functions.items()
    }
    timings = within(runners | {"copy": copying}, settings.seconds, settings.rounds)
    moved = case.bytes_moved(operands, output, mode)
    of_case = {"activation": case.activation, "form": case.form, "mode": mode, **dataclasses.asdict(point)}
    return [
        {**of_case, **figures(timings, name, copied if name == "copy" else moved, copied)} for name in timings.rounds
    ]


def figures(timings: Timings, name: str, moved: int, copied: int) -> dict[str, Any]:
    """Return the columns of one provider that are numbers.

    Args:
        timings: of all providers, in the same rounds.
        name: whose.
        moved: bytes that it moves.
        copied: bytes that the copy moves.
    """
    time = timings.time(name)
    row: dict[str, Any] = {"provider": name, "rounds": len(timings.rounds[name])}
    row |= {"median_us": time.median, "low_us": time.low, "high_us": time.high}
    row |= {"bytes": moved, "gb_per_s": moved / time.median / 1e3}
    for other, factor in (("eager", 1.0), ("compile", 1.0), ("copy", moved / copied)):
        ratio = timings.ratio(other, name) if other in timings.rounds else Spread(math.nan, math.nan, math.nan)
        for suffix, value in zip(("", "_low", "_high"), ratio, strict=True):
            row[f"over_{other}{suffix}"] = factor * value
    return row


def points(settings: Settings) -> Iterator[Point]:
    """Yield where to measure, small sizes first."""
    usual = (1, torch.get_num_threads()) if settings.device == "cpu" else (1,)
    for threads in dict.fromkeys(settings.threads or usual):
        for elements in settings.sizes:
            for dtype in settings.dtypes:
                yield Point(dtype, elements, threads)


def run(command: str, settings: Settings, console: Console) -> pd.DataFrame:
    """Measure, print and write the cases of one command, and return all rows."""
    settings.validate()
    cases = chosen(COMMANDS[command](), settings.only)
    left_out = missing(settings.providers, settings.device)
    for line in left_out.values():
        console.print(line)
    providers = [name for name in settings.providers if name not in left_out]
    of_run = {"benchmark": command, **results.circumstances(settings.device)}
    rows: list[dict[str, Any]] = []
    for point in points(settings):
        fitting = [case for case in cases if point.elements % case.unit == 0]
        measured = (measure(case, point, settings, providers) for case in _tracked(fitting, point))
        of_point = [{**of_run, **row} for of_case in measured for row in of_case]
        if of_point:
            console.print(tables.ratios(pd.DataFrame(of_point)))
            rows += of_point
            results.write(pd.DataFrame(rows), _path(command, settings))  # what a run that is stopped has measured
    if not rows:
        raise ValueError(f"sizes: expected a size that a case can have, got {settings.sizes}")
    return pd.DataFrame(rows)


def _path(command: str, settings: Settings) -> Path:
    return settings.out or Path("runs", "benchmarks", f"{command}.csv")


def _tracked(cases: Sequence[Case], point: Point) -> Iterable[Case]:
    title = f"{point.elements} × {point.dtype}, threads: {point.threads}"
    return track(cases, title, console=Console(stderr=True), transient=True)


def report(command: str, settings: Settings) -> None:
    """Measure the cases of one command, write them and their picture, and print what they come to."""
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH
    rows = run(command, settings, console)
    means = tables.means(rows)
    if means.rows:
        console.print(means)
    console.print(tables.floors(floors.check(rows, floors.FLOORS[settings.device])))
    path = _path(command, settings)
    picture = path.with_suffix(".png")
    pictures.write(pictures.draw(rows, settings.pictured), picture)
    console.print(f"{path}, {picture}")


def activations(settings: Settings) -> None:
    """Time every elementwise activation."""
    report("activations", settings)


def gated(settings: Settings) -> None:
    """Time the gated units, packed and in two tensors."""
    report("gated", settings)


def softmax(settings: Settings) -> None:
    """Time the softmax and its relatives, along rows and along an inner dimension."""
    report("softmax", settings)


def statistics(settings: Settings) -> None:
    """Time the statistics of one tensor in one call."""
    report("statistics", settings)
