"""What a destination of readings is, and several of them at once, none of which can stop the training."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeGuard, runtime_checkable

if TYPE_CHECKING:
    from torchact.diagnostics.readings import Reading
    from torchact.diagnostics.report import Report


@runtime_checkable
class Sink(Protocol):
    """A destination of readings. An object of your own needs these two methods and no base class."""

    def write(self, reading: Reading) -> None:
        """Take one reading. It is called once for each recorded step."""

    def close(self, report: Report | None) -> None:
        """Take the report of the last reading, None when there was no reading, and finish."""


@runtime_checkable
class NotingSink(Sink, Protocol):
    """A sink that takes the report of the run's first steps as well."""

    def note(self, report: Report) -> None:
        """Take the report of the last of the run's first steps, when it was recorded."""


class Sinks:
    """Several sinks, each of which gets every reading.

    A sink that raises is left out from then on, after one warning; its ``close`` is not called any more. The others
    and the training go on.

    Args:
        sinks: any number of objects with the methods of :class:`Sink`.
        board: another one, which gets every reading first.

    Raises:
        TypeError: ``sinks`` is not iterable, or holds something that lacks one of the two methods.

    Example:
        >>> from torchact.diagnostics import Reading
        >>> from torchact.diagnostics.sinks import MemorySink
        >>> memory = MemorySink()
        >>> Sinks([memory]).write(Reading(step=0, layers=()))
        >>> [reading.step for reading in memory.readings]
        [0]
    """

    def __init__(self, sinks: Iterable[Sink], board: Sink | None = None) -> None:
        try:
            self._sinks = [*([board] if board else []), *sinks]
        except TypeError:
            raise TypeError(f"sinks: expected an iterable of sinks, such as [sink], got {sinks!r}") from None
        for sink in self._sinks:
            if isinstance(sink, type) or not all(callable(getattr(sink, name, None)) for name in ("write", "close")):
                raise TypeError(
                    f"sinks: expected objects with the methods write(reading) and close(report), got {sink!r}"
                )

    def write(self, reading: Reading) -> None:
        """Give a reading to all sinks."""
        self._each(lambda sink: sink.write(reading))

    def note(self, report: Callable[[], Report]) -> None:
        """Give those that take it a report of the run's first steps, which is made if there is one."""
        if any(map(_takes_notes, self._sinks)):
            made = report()
            self._each(lambda sink: sink.note(made) if _takes_notes(sink) else None)

    def close(self, report: Report | None) -> None:
        """Close all sinks, once; a second call does nothing."""
        try:
            self._each(lambda sink: sink.close(report))
        finally:
            self._sinks = []

    def _each(self, do: Callable[[Sink], None]) -> None:
        failures: list[tuple[Sink, Exception]] = []
        for sink in self._sinks:
            try:
                do(sink)
            except Exception as raised:
                failures.append((sink, raised))
        self._sinks = [sink for sink in self._sinks if all(sink is not failed for failed, _ in failures)]
        # Warnings come last, because a filter may turn them into errors.
        for sink, error in failures:
            warnings.warn(
                f"{type(sink).__name__} failed and gets no more readings; training goes on without it: "
                f"{type(error).__name__}: {error}",
                stacklevel=3,
            )


def _takes_notes(sink: Sink) -> TypeGuard[NotingSink]:
    return isinstance(sink, NotingSink) and callable(sink.note)  # which a protocol does not look at


def append(path: Path, data: bytes) -> None:
    """Add data to the end of a file that exists, all of it or nothing.

    The file is opened anew each time, because a file that was deleted can still be written to while it is open, and
    nobody would notice. When this returns, the data is with the operating system, and survives the process.

    Raises:
        OSError: the file is gone, or the disk is full.
    """
    try:
        size = path.stat().st_size
        try:
            with open(path, "ab", opener=_open_existing) as file:
                file.write(data)
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(path, size)
            raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _open_existing(path: str, flags: int) -> int:
    return os.open(path, flags & ~os.O_CREAT)
