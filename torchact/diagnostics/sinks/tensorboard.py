"""Readings as TensorBoard scalars, one protobuf a step, and the depth profile with the layer on the horizontal axis."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary
from torch.utils.tensorboard import FileWriter, SummaryWriter

from torchact.catalogue import CATALOGUE
from torchact.diagnostics.readings import LayerReading, Reading
from torchact.diagnostics.report import Report
from torchact.diagnostics.saturation import has_dead_side
from torchact.diagnostics.sinks.event_file import Writer
from torchact.diagnostics.statistics import bin_edges

#: What is logged of each layer, by the first part of the tag; None where it does not apply.
SIGNALS: dict[str, Callable[[LayerReading], float | None]] = {
    "gradient_norm": lambda layer: layer.gradient.norm if layer.gradient.count else None,
    "gradient_norm_log10": lambda layer: _log10(layer.gradient.norm) if layer.gradient.count else None,
    "gradient_per_sample": lambda layer: layer.gradient_per_sample if layer.gradient.count else None,
    "gradient_subnormal_fraction": lambda layer: _fraction(layer.gradient.subnormal, layer.gradient.count),
    "parameter_gradient_norm": lambda layer: layer.parameter_gradient_norm if layer.has_parameters else None,
    "unclipped_gradient_norm": lambda layer: layer.unclipped_gradient_norm,
    "weight_norm": lambda layer: layer.weight_norm if layer.has_parameters else None,
    "update_ratio": lambda layer: layer.update_ratio,
    "output_mean": lambda layer: layer.output.mean if layer.output.count else None,
    "output_deviation": lambda layer: layer.output.deviation if layer.output.count else None,
    "output_zero_fraction": lambda layer: layer.output.zero_fraction if layer.output.count else None,
    "saturated_fraction": lambda layer: layer.saturated_fraction,
    "dead_fraction": lambda layer: layer.dead_fraction,
}
_LOG2_EDGES = [math.log2(edge) for edge in bin_edges()]


class TensorBoardSink:
    """Writes readings to one TensorBoard run.

    Scalars are tagged ``<signal>/<position>_<layer>``, the position zero-padded so that tags sort in forward order.
    Norms are logged as they are and as log10, because TensorBoard keeps scalars as float32, whose smallest value is
    1e-45. The histograms ``gradient_exponents/<position>_<layer>`` have log2 of the magnitudes of δ on their axis, in
    bins of four; zeros, which have no place there, are left out. Where the monitor has several optimisers, tags begin
    with the optimiser's label. The tags ``depth_profile/log10_gradient_norm_at_start`` and ``…_at_end`` have the
    layer's position in place of the step. NaN and infinity are written like other values, and never left out.
    The text ``report`` has the verdicts and the table of the last of the first steps, and of the last reading.

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
            self.writer: SummaryWriter = Writer(str(log_dir))  #: for curves of your own in the same run
        except OSError as error:
            raise OSError(f"log_dir: cannot write to {str(log_dir)!r} ({error.strerror or error})") from error
        assert self.writer.file_writer is not None  # it is from SummaryWriter's construction until close()
        self._file_writer: FileWriter = self.writer.file_writer
        self._started: set[str | None] = set()  # the optimisers of which there was a reading

    def write(self, reading: Reading) -> None:
        """Write one reading."""
        if not self._started:
            self._write_layout(reading)
        if reading.optimizer not in self._started:
            self._started.add(reading.optimizer)
            self._write_profile(reading, "at_start")
        self._add(list(_values(reading)), reading.step)
        self._raise_what_failed()

    def note(self, report: Report) -> None:
        """Write a report in words, its verdicts first."""
        self.writer.add_text("report", report.markdown(), report.reading.step)
        self._raise_what_failed()

    def close(self, report: Report | None) -> None:
        """Write the last profile and the report in words, and close the run."""
        if report is not None:
            for reading in report.readings:
                self._write_profile(reading, "at_end")
            self.writer.add_text("report", report.markdown(), report.reading.step)
        try:
            self._raise_what_failed()
        finally:
            self.writer.close()

    def _write_profile(self, reading: Reading, when: str) -> None:
        for position, layer in enumerate(reading.learning_layers):
            value = _log10(layer.gradient.norm)
            if value is not None:
                tag = f"{_prefix(reading)}depth_profile/log10_gradient_norm_{when}"
                self._add([Summary.Value(tag=tag, simple_value=value)], position)

    def _add(self, values: list[Summary.Value], step: int) -> None:
        self._file_writer.add_summary(Summary(value=values), step)

    def _raise_what_failed(self) -> None:
        if self._file_writer.event_writer.error is not None:
            raise self._file_writer.event_writer.error

    def _write_layout(self, reading: Reading) -> None:
        """Put all layers' curves of a signal into one chart of the custom-scalars page, where tags are regexes.

        The layout names no layer, so runs of networks that differ share one page of charts.
        """
        prefix = "([0-9]+_[A-Za-z0-9]+/)?" if reading.optimizer else ""
        measured = [
            signal for signal, of in SIGNALS.items() if any(_is_measured(signal, of, layer) for layer in reading.layers)
        ]
        charts = {signal: ["Multiline", [f"^{prefix}{re.escape(signal)}/"]] for signal in measured}
        self.writer.add_custom_scalars({"torchact": charts})


def _is_measured(signal: str, of: Callable[[LayerReading], float | None], layer: LayerReading) -> bool:
    if signal == "dead_fraction":  # known once a window is full
        activation = CATALOGUE.get(layer.activation or "")
        return activation is not None and has_dead_side(activation)
    return of(layer) is not None


def _prefix(reading: Reading) -> str:
    """Return what the tags of an optimiser begin with, where the monitor has several."""
    return f"{reading.optimizer}/" if reading.optimizer else ""


def _values(reading: Reading) -> Iterator[Summary.Value]:
    """Yield a reading's scalars and histograms."""
    prefix = _prefix(reading)
    for layer in reading.layers:
        for signal, of in SIGNALS.items():
            value = of(layer)
            if value is not None:
                yield Summary.Value(tag=f"{prefix}{signal}/{layer.label}", simple_value=value)
        if layer.gradient.count > layer.gradient.zeros:
            lowest, *others = layer.gradient.exponents
            histogram = _histogram([lowest - layer.gradient.zeros, *others])
            yield Summary.Value(tag=f"{prefix}gradient_exponents/{layer.label}", histo=histogram)


def _histogram(counts: Sequence[float]) -> HistogramProto:
    """Return the bins that hold anything, and those between them."""
    full = [bin for bin, count in enumerate(counts) if count]
    first, last = min(full, default=0), max(full, default=0)
    edges = _LOG2_EDGES[first : last + 2]
    return HistogramProto(
        min=edges[0],
        max=edges[-1],
        num=sum(counts),
        bucket_limit=edges,
        bucket=[0.0, *counts[first : last + 1]],  # the first of TensorBoard's buckets ends at the first edge
    )


def _fraction(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _log10(value: float) -> float | None:
    """Return the decimal logarithm, None of zero: there is no point to draw, and the report says why."""
    return None if value == 0 else math.log10(value)
