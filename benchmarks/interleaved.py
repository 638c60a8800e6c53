"""Timing two callables in turns, so that a busy machine slows both alike and their ratio survives."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Ratio(NamedTuple):
    """The times of one round's fastest runs in µs, and the median and spread over rounds of their ratio."""

    ours: float
    reference: float
    ratio: float
    low: float  #: 20th percentile of the ratio
    high: float  #: 80th percentile


def _microseconds(function: Callable[[], object], calls: int) -> float:
    start = time.perf_counter_ns()
    for _ in range(calls):
        function()
    return (time.perf_counter_ns() - start) / calls / 1e3


def compare(
    ours: Callable[[], object], reference: Callable[[], object], rounds: int = 25, turns: int = 5, calls: int = 100
) -> Ratio:
    """Time ``ours`` against ``reference``.

    A round takes each callable's fastest turn of ``calls`` calls, the two taking turns.

    Returns:
        The median over rounds of each time (µs a call) and of the ratio ours/reference, with its percentiles.
    """
    _microseconds(ours, calls), _microseconds(reference, calls)  # warm-up
    times = []
    for _ in range(rounds):
        pairs = [(_microseconds(ours, calls), _microseconds(reference, calls)) for _ in range(turns)]
        times.append(tuple(map(min, zip(*pairs, strict=True))))
    ratios = sorted(first / second for first, second in times)
    return Ratio(
        statistics.median(first for first, _ in times),
        statistics.median(second for _, second in times),
        statistics.median(ratios),
        ratios[len(ratios) // 5],
        ratios[-1 - len(ratios) // 5],
    )
