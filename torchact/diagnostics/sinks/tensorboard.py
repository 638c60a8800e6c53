"""Readings as TensorBoard scalars, one protobuf a step, and the depth profile with the layer on the horizontal axis."""

from __future__ import annotations

import itertools
import math
import os
import re
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import FileWriter, SummaryWriter

from torchact.diagnostics.report import Report
from torchact.diagnostics.sinks.base import append
from torchact.diagnostics.statistics import LayerReading, Reading

#: What is logged of each layer, by the first part of the tag; None where it does not apply.
SIGNALS: dict[str, Callable[[LayerReading], float | None]] = {
    "gradient_norm": lambda layer: layer.gradient.norm if layer.gradient.count else None,
    "gradient_norm_log10": lambda layer: _log10(layer.gradient.norm) if layer.gradient.count else None,
    "parameter_gradient_norm": lambda layer: layer.parameter_gradient_norm if layer.has_parameters else None,
    "output_mean": lambda layer: layer.output.mean,
    "output_deviation": lambda layer: layer.output.deviation,
    "output_zero_fraction": lambda layer: layer.output.zero_fraction,
    "saturated_fraction": lambda layer: layer.saturated_fraction,
}


class TensorBoardSink:
    """Writes readings to one TensorBoard run.

    Scalars are tagged ``<signal>/<position>_<layer>``, the position zero-padded so that tags sort in forward order.
    Norms are logged as they are and as log10, because TensorBoard keeps scalars as float32, whose smallest value is
    1e-45. The tags ``depth_profile/log10_gradient_norm_at_start`` and ``…_at_end`` have the layer's position in place
    of the step. NaN and infinity are written like other values, and never left out.

    Each reading is with the operating system before training goes on, and so survives whatever ends the process. The
    same holds for scalars and other summaries of your own in :attr:`writer`. These do not raise when the disk is full
    or the folder gone. From then on everything is left out, and :meth:`write` and :meth:`close` raise.

    Args:
        log_dir: the run's folder, on a file system of this machine; made if need be.

    Raises:
        OSError: ``log_dir`` cannot be written to; of :meth:`write` and :meth:`close`, it cannot be any more.
        ValueError: ``log_dir`` is a URL.
    """

    def __init__(self, log_dir: str | Path) -> None:
        if "://" in str(log_dir):
            raise ValueError(f"log_dir: expected a folder of this machine's file system, got the URL {str(log_dir)!r}")
        try:
            self.writer: SummaryWriter = _Writer(str(log_dir))  #: for curves of your own in the same run
        except OSError as error:
            raise OSError(f"log_dir: cannot write to {str(log_dir)!r} ({error.strerror or error})") from error
        assert self.writer.file_writer is not None  # it is from SummaryWriter's construction until close()
        self._file_writer: FileWriter = self.writer.file_writer
        self._has_layout: bool = False

    def write(self, reading: Reading) -> None:
        """Write one reading."""
        if not self._has_layout:
            self._write_layout()
            self._write_profile(reading, "at_start")
        values = [
            Summary.Value(tag=f"{signal}/{layer.label}", simple_value=value)
            for layer in reading.layers
            for signal, of in SIGNALS.items()
            if (value := of(layer)) is not None
        ]
        self._add(values, reading.step)
        self._raise_what_failed()

    def close(self, report: Report | None) -> None:
        """Write the last profile and the report in words, and close the run."""
        if report is not None:
            self._write_profile(report.reading, "at_end")
            self.writer.add_text("report", f"```\n{report}\n```", report.reading.step)
        try:
            self._raise_what_failed()
        finally:
            self.writer.close()

    def _write_profile(self, reading: Reading, when: str) -> None:
        for position, layer in enumerate(reading.learning_layers):
            value = _log10(layer.gradient.norm)
            if value is not None:
                tag = f"depth_profile/log10_gradient_norm_{when}"
                self._add([Summary.Value(tag=tag, simple_value=value)], position)

    def _add(self, values: list[Summary.Value], step: int) -> None:
        self._file_writer.add_summary(Summary(value=values), step)

    def _raise_what_failed(self) -> None:
        if self._file_writer.event_writer.error is not None:
            raise self._file_writer.event_writer.error

    def _write_layout(self) -> None:
        """Put all layers' curves of a signal into one chart of the custom-scalars page, where tags are regexes.

        The layout names no layer, so runs of networks that differ share one page of charts.
        """
        self._has_layout = True
        charts = {signal: ["Multiline", [f"^{re.escape(signal)}/"]] for signal in SIGNALS}
        self.writer.add_custom_scalars({"torchact": charts})


class EventFile:
    """A run's event file, with the methods of tensorboard's ``EventFileWriter``, in whose place it stands.

    That one hands events to a thread. What is in its queue is lost when the process ends, and when its thread fails it
    prints a traceback, tears the last record, and raises in the user's next ``add_scalar``. This one has no thread. An
    event is in the file, whole, when :meth:`add_event` returns. When it cannot be written, that is kept in
    :attr:`error`, and nothing is written from then on.

    Args:
        log_dir: the run's folder; made if need be.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, log_dir: str) -> None:
        self.error: OSError | None = None  #: why nothing is written any more
        self._log_dir = log_dir
        name = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self.path = Path(log_dir, f"events.out.tfevents.{name}").absolute()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch(exist_ok=False)
        append(self.path, _record(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString()))

    def get_logdir(self) -> str:
        """Return the run's folder."""
        return self._log_dir

    def add_event(self, event: Event) -> None:
        """Write one event."""
        if self.error is None:
            try:
                append(self.path, _record(event.SerializeToString()))
            except OSError as error:
                self.error = error

    def flush(self) -> None:
        """Do nothing: every event is written already."""

    def close(self) -> None:
        """Do nothing: no file is open."""


_numbers = itertools.count()  # tell the files of one process apart


class _FileWriter(FileWriter):
    def __init__(self, log_dir: str) -> None:
        self.event_writer = EventFile(log_dir)


class _Writer(SummaryWriter):
    """A SummaryWriter on an :class:`EventFile`."""

    def _get_file_writer(self) -> FileWriter:
        file_writer: FileWriter | None = self.file_writer
        if file_writer is None:
            file_writer = _FileWriter(self.log_dir)
            vars(self).update(file_writer=file_writer, all_writers={self.log_dir: file_writer})
        return file_writer


def _record(data: bytes) -> bytes:
    """Frame an event as TFRecord does: its length and itself, each followed by its masked checksum."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, _masked_crc32c(length), data, _masked_crc32c(data)))


def _masked_crc32c(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def crc32c(data: bytes) -> int:
    """Return the checksum CRC-32C (Castagnoli, RFC 3720) of at least 4 bytes.

    tensorboard takes a byte at a time in Python, which for 1,000 tags is 7 ms. But the register after some bytes is
    linear over GF(2) in the register before and in the bytes. So all words of 4 bytes are taken at once. Then
    neighbours merge, which halves their number each time: the left one advances over as many zeros as the right one is
    long, and the two are added. Zeros in front change nothing and make the number of words a power of two. That the
    register begins with ones is the same as the first 4 bytes inverted.
    """
    words = -(-len(data) // 4)
    padded = np.zeros(4 << (words - 1).bit_length(), np.uint8)
    tail = padded[-len(data) :]
    tail[:] = np.frombuffer(data, np.uint8)
    tail[:4] ^= 0xFF
    registers = padded.view("<u4")
    for over_zeros in _OVER_ZEROS:
        if len(registers) == 1:
            break
        registers = _advance(registers[::2], over_zeros) ^ registers[1::2]
    return int(_advance(registers, _OVER_ZEROS[0])[0]) ^ 0xFFFFFFFF


def _advance(registers: np.ndarray, over_zeros: np.ndarray) -> np.ndarray:
    """Advance registers over a number of zeros, by a table of shape (4, 256) of what becomes of each of its bytes."""
    lanes = registers.astype("<u4").view(np.uint8).reshape(-1, 4)
    first, second, third, fourth = (table.take(lane) for table, lane in zip(over_zeros, lanes.T, strict=True))
    return first ^ second ^ third ^ fourth


def _tables(count: int) -> list[np.ndarray]:
    """Return the tables for 4, 8, 16, … zeros."""
    table = np.arange(256, dtype=np.uint32) << (8 * np.arange(4, dtype=np.uint32))[:, None]
    for _ in range(32):  # bits
        table = np.where(table & 1, table >> 1 ^ np.uint32(0x82F63B78), table >> 1)
    tables = [table]
    while len(tables) < count:
        tables.append(_advance(tables[-1].ravel(), tables[-1]).reshape(4, 256))
    return tables


_OVER_ZEROS = _tables(29)  # enough for the 2 GiB that a protobuf may have


def _log10(value: float) -> float | None:
    """Return the decimal logarithm, None of zero: there is no point to draw, and the report says why."""
    return None if value == 0 else math.log10(value)
