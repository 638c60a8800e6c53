"""Readings as TensorBoard scalars, one protobuf a step, and the depth profile with the layer on the horizontal axis."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

from torchact.diagnostics.report import Report
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

    Args:
        log_dir: the run's folder; made if need be.

    Raises:
        OSError: ``log_dir`` cannot be written to.
    """

    def __init__(self, log_dir: str | Path) -> None:
        try:
            Path(log_dir).mkdir(parents=True, exist_ok=True)
            self.writer = SummaryWriter(str(log_dir), flush_secs=10)
        except OSError as error:
            raise OSError(f"log_dir: cannot write to {str(log_dir)!r} ({error.strerror or error})") from error
        self._has_layout = False

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

    def close(self, report: Report | None) -> None:
        """Write the last profile and the report in words, and close the run."""
        if report is not None:
            self._write_profile(report.reading, "at_end")
            self.writer.add_text("report", f"```\n{report}\n```", report.reading.step)
        self.writer.close()

    def _write_profile(self, reading: Reading, when: str) -> None:
        for position, layer in enumerate(reading.learning_layers):
            value = _log10(layer.gradient.norm)
            if value is not None:
                tag = f"depth_profile/log10_gradient_norm_{when}"
                self._add([Summary.Value(tag=tag, simple_value=value)], position)

    def _add(self, values: list[Summary.Value], step: int) -> None:
        assert self.writer.file_writer is not None  # it is from SummaryWriter's construction until close()
        self.writer.file_writer.add_summary(Summary(value=values), step)

    def _write_layout(self) -> None:
        """Put all layers' curves of a signal into one chart of the custom-scalars page, where tags are regexes.

        The layout names no layer, so runs of networks that differ share one page of charts.
        """
        self._has_layout = True
        charts = {signal: ["Multiline", [f"^{re.escape(signal)}/"]] for signal in SIGNALS}
        self.writer.add_custom_scalars({"torchact": charts})


def _log10(value: float) -> float | None:
    """Return the decimal logarithm, None of zero: there is no point to draw, and the report says why."""
    return None if value == 0 else math.log10(value)
