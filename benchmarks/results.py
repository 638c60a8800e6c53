"""What is kept of a measurement: one row a provider, in a CSV that documents its columns."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
import torch

from torchact import kernels

#: What each column of the CSV means, in the order in which they are written.
COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "benchmark": "the command that measured it",
        "activation": "the function, by its name in torchact.functional; of statistics, what torch computes",
        "form": "what tells it from others of this function: a parameter, the shape; empty if there is one",
        "mode": "forward: without a graph; backward: alone, on a graph built before; both: forward with a graph, then "
        "backward",
        "dtype": "of all operands",
        "elements": "of all operands together, but for learnable parameters",
        "threads": "torch's, for all providers",
        "provider": "eager: torch's function; compile: torch.compile of it alone; torchact: ours; accelerated: torch's "
        "function under torchact.accelerated(); copy: of as many elements, into memory that is there already",
        "rounds": "how often it was measured, in turns with the others",
        "median_us": "time of a call in µs, median over rounds",
        "low_us": "the same, 20th percentile",
        "high_us": "the same, 80th percentile",
        "bytes": "what any implementation reads and writes at least: forward the operands and the result, backward the "
        "gradient, what was saved, and the operands' gradients",
        "gb_per_s": "bytes over the median time, in 10^9 bytes a second",
        "over_eager": "eager's time over this one's of the same round, median: above 1, this is the faster; empty if "
        "eager was not timed",
        "over_eager_low": "the same, 20th percentile",
        "over_eager_high": "the same, 80th percentile",
        "over_compile": "compile's time over this one's of the same round, median",
        "over_compile_low": "the same, 20th percentile",
        "over_compile_high": "the same, 80th percentile",
        "over_copy": "GB/s over the copy's of the same round, median: 1 is as fast as memory; it may be more, since a "
        "result that is new may stay in the cache",
        "over_copy_low": "the same, 20th percentile",
        "over_copy_high": "the same, 80th percentile",
        "device": "the name of the processor, or of the GPU, on which it was measured",
        "torch_instructions": "the vector instructions that torch uses",
        "instructions": "those that torchact's compiled kernels use; empty if there are none",
        "torch": "torch's version",
        "date": "when the run began, UTC",
    }
)


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _instructions() -> str | None:
    status = getattr(kernels, "status", None)
    return None if status is None else status().instruction_set


def circumstances(device: str = "cpu") -> dict[str, Any]:
    """Return the columns that are the same in all rows of a run on a device."""
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "torch_instructions": torch.backends.cpu.get_cpu_capability(),
        "instructions": _instructions(),
        "torch": str(torch.__version__),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def write(rows: pd.DataFrame, path: Path) -> None:
    """Write the rows, after one comment line a column with its meaning; an earlier file stays until this is whole.

    Read it back with ``pandas.read_csv(path, comment="#")``.

    Raises:
        ValueError: the rows' columns are not those that are documented.
    """
    if set(rows.columns) != set(COLUMNS):
        raise ValueError(f"rows: expected the columns {sorted(COLUMNS)}, got {sorted(rows.columns)}")
    header = "".join(f"# {column}: {meaning}\n" for column, meaning in COLUMNS.items())
    body = rows.to_csv(columns=list(COLUMNS), index=False, lineterminator="\n", float_format="%.6g")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes((header + body).encode())
    temporary.replace(path)
