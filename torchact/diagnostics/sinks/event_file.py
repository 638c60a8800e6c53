"""TensorBoard's event files, written whole and at once: no thread holds what a killed process would lose."""

from __future__ import annotations

import itertools
import os
import socket
import struct
import time
from pathlib import Path

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from torch.utils.tensorboard import FileWriter, SummaryWriter

from torchact.diagnostics.sinks.base import append


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
        # No other writer of this process in this second names its file so.
        name = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}.torchact"
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


class Writer(SummaryWriter):
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
