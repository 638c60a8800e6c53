"""Readings in a list."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchact.diagnostics.readings import Reading
    from torchact.diagnostics.report import Report


class MemorySink:
    """Keeps all readings in memory, however many; a monitor's ``history`` keeps the latest ones only."""

    def __init__(self) -> None:
        self.readings: list[Reading] = []  #: in the order in which they came
        self.report: Report | None = None  #: of the last reading, once the monitor is closed

    def write(self, reading: Reading) -> None:
        """Keep one reading."""
        self.readings.append(reading)

    def close(self, report: Report | None) -> None:
        """Keep the report."""
        self.report = report
