"""How a measurement of speed is printed: ratios, their means, and what they must reach."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pandas as pd
from rich.table import Table

from benchmarks.floors import OVER, TRANSCENDENTAL, Reached, geometric_mean, labels

#: The ratios that are shown: the heading, whose speed, and over whose.
RATIOS = (
    ("eager/torchact", "torchact", "over_eager"),
    ("compile/torchact", "torchact", "over_compile"),
    ("eager/accelerated", "accelerated", "over_eager"),
)


def elements(number: int) -> str:
    """Return a number of elements as people say it: 16, 4 K, 1 M."""
    for unit, factor in (("M", 2**20), ("K", 2**10)):
        if number >= factor and number % factor == 0:
            return f"{number // factor} {unit}"
    return str(number)


def threads(number: int) -> str:
    """Return a number of threads in words."""
    return "1 thread" if number == 1 else f"{number} threads"


def _shown(rows: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Return those ratios of which there is one."""
    return [ratio for ratio in RATIOS if rows.loc[rows["provider"] == ratio[1], ratio[2]].notna().any()]


def _with_spread(row: pd.Series | None, column: str) -> str:
    if row is None or math.isnan(row[column]):
        return "-"
    return f"{row[column]:.2f} ({row[f'{column}_low']:.2f}-{row[f'{column}_high']:.2f})"


def ratios(rows: pd.DataFrame) -> Table:
    """Return the table of one size, dtype and number of threads: each case and mode, above 1 where torchact is faster.

    In parentheses are the 20th and the 80th percentile over rounds.
    """
    first, shown = rows.iloc[0], _shown(rows)
    title = f"{elements(first['elements'])} × {first['dtype']}, {threads(first['threads'])}: times as fast (20-80 %)"
    copied = rows.loc[rows["provider"] == "copy", "gb_per_s"].median()
    headings = (heading for heading, _, _ in shown)
    table = Table("activation", "mode", *headings, "µs", "GB/s", "of copy", title=title)
    table.caption = f"On the right torchact's; a copy: {copied:.3g} GB/s"
    for (label, mode), group in rows.groupby([labels(rows), rows["mode"]], sort=False):
        by_provider = {row["provider"]: row for _, row in group.iterrows()}
        cells = [_with_spread(by_provider.get(provider), column) for _, provider, column in shown]
        ours = by_provider.get("torchact")
        speed = ("-",) * 3 if ours is None else _speed(ours)
        table.add_row(str(label), str(mode), *cells, *speed)
    return table


def _speed(row: pd.Series) -> tuple[str, str, str]:
    return f"{row['median_us']:.4g}", f"{row['gb_per_s']:.3g}", f"{row['over_copy']:.2f}"


def means(rows: pd.DataFrame) -> Table:
    """Return geometric means over the transcendental activations, by dtype, threads, mode and size."""
    meant, shown = rows[labels(rows).isin(TRANSCENDENTAL)], _shown(rows)
    headings = (heading for heading, _, _ in shown)
    title = "Geometric means over the transcendental activations"
    table = Table("dtype", "threads", "mode", "elements", *headings, title=title)
    for (number, dtype, mode, size), group in meant.groupby(["threads", "dtype", "mode", "elements"], sort=False):
        of = [geometric_mean(group.loc[group["provider"] == provider, column]) for _, provider, column in shown]
        cells = ["-" if math.isnan(mean) else f"{mean:.2f}" for mean in of]
        table.add_row(str(dtype), str(number), str(mode), elements(size), *cells)
    return table


def floors(reached: Sequence[Reached]) -> Table:
    """Return the table of what must be reached and what was; of several it shows the lowest."""
    over = [column for column in OVER if any(getattr(result.floor, column) is not None for result in reached)]
    headings = ("floor", "dtype", "threads", *(column.replace("_", " ") for column in over), "met", "lowest")
    table = Table(*headings, title="Must reach (reached / required)")
    for result in reached:
        table.add_row(*_floor_cells(result, over))
    return table


def _floor_cells(result: Reached, over: Sequence[str]) -> Iterator[str]:
    yield from (result.floor.what, result.dtype, str(result.threads))
    for column in over:
        reached, required = getattr(result, column), getattr(result.floor, column)
        measured = "-" if math.isnan(reached) else f"{reached:.3g}"
        yield "" if required is None else f"{measured} / {required:g}"
    yield {True: "yes", False: "NO", None: "?"}[result.met]
    yield result.lowest
