"""Where an experiment's results go: one folder with CSV tables, a JSON, pictures, and a sentence of finding."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.animation import Animation
from matplotlib.figure import Figure


class ResultsFolder:
    """The folder that one experiment writes into, made (with its parents) when this is created.

    Args:
        path: the folder; files of an earlier run in it are replaced one by one, each only when its successor is whole.

    Raises:
        SystemExit: the folder cannot be made or written to; the message says which and why.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise SystemExit(
                f"out: cannot write to {str(self.path)!r} ({error.strerror}); choose a writable folder"
            ) from error

    def write_table(self, name: str, table: pd.DataFrame, columns: Mapping[str, str]) -> Path:
        """Write ``table`` as ``<name>.csv``, after one comment line a column with its meaning and unit.

        Read it back with ``pandas.read_csv(path, comment="#")``.

        Args:
            name: the file's name without its ending.
            table: tidy rows; its columns are exactly those described.
            columns: what each column means, with its unit, in the order in which they are written.

        Raises:
            ValueError: ``table`` and ``columns`` do not name the same columns.
        """
        if set(table.columns) != set(columns):
            raise ValueError(f"columns: described {sorted(columns)}, but the table has {sorted(table.columns)}")
        header = "".join(f"# {column}: {meaning}\n" for column, meaning in columns.items())
        body = table.to_csv(columns=list(columns), index=False, lineterminator="\n")
        return self._replace(f"{name}.csv", lambda temporary: temporary.write_bytes((header + body).encode()))

    def write_summary(self, name: str, summary: Mapping[str, Any]) -> Path:
        """Write ``summary`` as ``<name>.json``; NaN and infinities, which JSON lacks, become null."""
        text = json.dumps(_jsonable(summary), indent=2, ensure_ascii=False, allow_nan=False)
        return self._replace(f"{name}.json", lambda temporary: temporary.write_bytes((text + "\n").encode()))

    def write_picture(self, name: str, figure: Figure) -> Path:
        """Write ``figure`` as ``<name>.png``."""
        return self._replace(
            f"{name}.png", lambda temporary: figure.savefig(temporary, format="png", dpi=150, bbox_inches="tight")
        )

    def write_animation(self, name: str, animation: Animation) -> Path:
        """Write ``animation``, which brings its own speed, as ``<name>.gif``."""
        return self._replace(f"{name}.gif", lambda temporary: animation.save(temporary, writer="pillow", dpi=80))

    def _replace(self, name: str, write: Callable[[Path], object]) -> Path:
        """Have a temporary file written, and put it in the place of ``name`` once it is whole."""
        path = self.path / name
        temporary = self.path / f".{name}"
        write(temporary)
        temporary.replace(path)
        return path


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(entry) for entry in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
