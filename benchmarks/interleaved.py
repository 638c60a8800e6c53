"""Timing callables in turns, so that a busy machine slows all of them alike and their ratios survive.

In a round each takes a turn, in an order drawn anew; a ratio is that of two turns of one round.
"""

from __future__ import annotations

import ctypes
import math
import random
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any, NamedTuple

#: Rounds that are taken however long they last: with fewer, percentiles say nothing.
FEWEST_ROUNDS = 5


class Spread(NamedTuple):
    """The middle of several measurements, and within what most of them are."""

    median: float
    low: float  #: 20th percentile
    high: float  #: 80th percentile


def spread(values: Iterable[float]) -> Spread:
    """Return median and percentiles, each of which but the median is one of the values."""
    ordered = sorted(values)
    return Spread(statistics.median(ordered), ordered[len(ordered) // 5], ordered[-1 - len(ordered) // 5])


def keep_freed_memory() -> None:
    """Have the C library keep all memory that is freed in this process, and map none anew for large tensors.

    Else the system gives each large result its pages again, which takes as long as computing it, or does not, as the
    heap happens to lie when it is the result's turn. With an allocator other than glibc's nothing happens.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if set_option is not None:
        trim_threshold, most_maps = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
        set_option(trim_threshold, 2**31 - 1)
        set_option(most_maps, 0)


def no_wait() -> None:
    """Return at once: what has been called has also been computed."""


@dataclass(frozen=True)
class Runner:
    """What is timed, and what surrounds a turn of it outside the timing."""

    call: Callable[[], object]
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    wait: Callable[[], None] = no_wait  #: returns when all that was called has been computed

    def microseconds(self, calls: int) -> float:
        """Return how long a call took, in µs, over one turn of so many; the device is waited for once."""
        call = self.call
        with self.around():
            self.wait()
            start = perf_counter_ns()
            for _ in range(calls):
                call()
            self.wait()
            return (perf_counter_ns() - start) / calls / 1e3

    def calls_in(self, milliseconds: float) -> int:
        """Return how many calls take so long, at least one; this warms up, too."""
        self.microseconds(1)
        calls = 1
        while (last := self.microseconds(calls)) * calls < 250 * milliseconds:
            calls *= 4
        return max(1, math.ceil(1e3 * milliseconds / last))


@dataclass(frozen=True)
class Timings:
    """Times of several runners in µs a call, one a round."""

    rounds: Mapping[str, list[float]]

    def time(self, name: str) -> Spread:
        """Return the time of one of them."""
        return spread(self.rounds[name])

    def ratio(self, name: str, other: str) -> Spread:
        """Return the time of one of them over the time that another took in the same round."""
        return spread(first / second for first, second in zip(self.rounds[name], self.rounds[other], strict=True))

    def together(self, rounds: int) -> Timings:
        """Return the means of so many rounds that follow each other as one; what is left over is dropped."""
        return Timings(
            {
                name: [statistics.fmean(group) for group in zip(*[iter(times)] * rounds, strict=False)]
                for name, times in self.rounds.items()
            }
        )


def in_turns(runners: Mapping[str, Runner], calls: Mapping[str, int], rounds: int, turns: int = 1) -> Timings:
    """Time runners against each other.

    Args:
        runners: by name; each should have been called before, for what a first call does besides.
        calls: of each, in a turn.
        rounds: how many times to measure.
        turns: of each in a round, of which the fastest counts.
    """
    order, generator = list(runners), random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds):
        of_round = dict.fromkeys(runners, math.inf)
        for _ in range(turns):
            generator.shuffle(order)
            for name in order:
                of_round[name] = min(of_round[name], runners[name].microseconds(calls[name]))
        for name, fastest in of_round.items():
            times[name].append(fastest)
    return Timings(times)


def within(runners: Mapping[str, Runner], seconds: float, rounds: int, milliseconds: float = 2) -> Timings:
    """Time runners against each other, one turn a round, with a limit to how long it takes.

    Args:
        runners: by name.
        seconds: about how long all together may take; but ``FEWEST_ROUNDS`` are always taken, or ``rounds`` if fewer.
        rounds: how many at most.
        milliseconds: how long a turn lasts at least.
    """
    calls = {name: runner.calls_in(milliseconds) for name, runner in runners.items()}
    round_in_seconds = sum(runner.microseconds(calls[name]) * calls[name] for name, runner in runners.items()) / 1e6
    affordable = int(seconds / round_in_seconds)
    return in_turns(runners, calls, min(rounds, max(FEWEST_ROUNDS, affordable)))


class Ratio(NamedTuple):
    """The median times of two callables in µs, and the median and spread over rounds of their ratio."""

    ours: float
    reference: float
    ratio: float
    low: float  #: 20th percentile of the ratio
    high: float  #: 80th percentile


def compare(
    ours: Callable[[], object], reference: Callable[[], object], rounds: int = 25, turns: int = 5, calls: int = 100
) -> Ratio:
    """Time ``ours`` against ``reference``.

    A round takes each callable's fastest turn of ``calls`` calls, the two taking turns.

    Returns:
        The median over rounds of each time (µs a call) and of the ratio ours/reference, with its percentiles.
    """
    runners = {"ours": Runner(ours), "reference": Runner(reference)}
    for runner in runners.values():
        runner.microseconds(calls)  # warm-up
    timings = in_turns(runners, dict.fromkeys(runners, calls), rounds, turns)
    return Ratio(timings.time("ours").median, timings.time("reference").median, *timings.ratio("ours", "reference"))
