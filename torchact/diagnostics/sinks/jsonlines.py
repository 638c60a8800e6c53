"""Readings as JSON lines: one object a reading, with the fields of the dataclasses as keys."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from torchact.diagnostics.sinks.base import append

if TYPE_CHECKING:
    from torchact.diagnostics.readings import Reading
    from torchact.diagnostics.report import Report


class JSONLinesSink:
    """Writes each reading as one line at the end of a file.

    A line is a JSON object with the fields of :class:`.Reading`; what these hold, such as :class:`.Statistics`, are
    objects in it with their own fields. Numbers have all their digits. NaN and infinity are written as the words
    ``NaN``, ``Infinity`` and ``-Infinity``, as Python's ``json`` does. ``json.loads`` and
    ``pandas.read_json(lines=True)`` read them. JSON by its standard (RFC 8259) has no such numbers, so that a parser of
    another language may refuse these lines.

    Each line is with the operating system before training goes on. A process that is killed while it writes leaves at
    most one torn line, the last one. :func:`.jsonlines.read` skips it, and a new sink on the same file cuts it off.

    Args:
        path: the file. It is made if need be, with its folder; one that is there is continued.

    Raises:
        OSError: ``path`` cannot be written to.
        ValueError: the file is there, and its last line is no JSON object.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()  #: where the lines are, also after a change of the working directory
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab"):
                pass
            if self.path.is_file():
                _end_last_line(self.path)
        except OSError as error:
            raise OSError(f"path: cannot write to {str(path)!r} ({error.strerror or error})") from error

    def write(self, reading: Reading) -> None:
        """Write one reading."""
        append(self.path, json.dumps(reading, default=_as_json, separators=(",", ":")).encode() + b"\n")

    def close(self, report: Report | None) -> None:
        """Do nothing: every line is written already, and no file is open."""


def read(path: str | Path) -> list[dict[str, Any]]:
    """Return the readings of a file as dictionaries, without a last line that is torn.

    Args:
        path: a file that :class:`JSONLinesSink` wrote.

    Raises:
        OSError: ``path`` cannot be read.
        ValueError: a line other than the last one is no JSON.

    Example:
        >>> import tempfile
        >>> from torchact.diagnostics import Reading
        >>> path = Path(tempfile.mkdtemp(), "readings.jsonl")
        >>> JSONLinesSink(path).write(Reading(step=0, layers=()))
        >>> [reading["step"] for reading in read(path)]
        [0]
    """
    *lines, last = Path(path).read_bytes().split(b"\n")
    readings = []
    for number, line in enumerate(lines, start=1):
        try:
            readings.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"path: line {number} of {str(path)!r} is no JSON ({error})") from error
    with contextlib.suppress(ValueError):
        readings.append(json.loads(last))
    return readings


def _as_json(value: Any) -> list[Any] | dict[str, Any]:
    """Return layers, or a dataclass's own fields; ``dataclasses.asdict`` would copy all that they hold."""
    if isinstance(value, Sequence):
        return list(value)
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _end_last_line(path: Path) -> None:
    """Cut off a last line that is torn, so that the next one begins a line of its own."""
    with path.open("r+b") as file:
        line = _last_line(file)
        if not line:
            return
        if not line.startswith(b"{"):
            raise ValueError(f"path: expected a file of JSON lines, but {str(path)!r} ends with {line[-40:]!r}")
        try:
            json.loads(line)
        except ValueError:
            file.truncate(file.seek(-len(line), os.SEEK_END))
        else:
            file.write(b"\n")


def _last_line(file: BinaryIO) -> bytes:
    """Return what stands after the last end of line, and leave the file at its end."""
    size = file.seek(0, os.SEEK_END)
    length = 2**16
    while True:
        start = file.seek(max(size - length, 0))
        tail = file.read()
        if b"\n" in tail or start == 0:
            return tail.rpartition(b"\n")[2]
        length *= 2
