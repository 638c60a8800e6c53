"""What was measured, in words and tables."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import get_args

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from torchact.diagnostics import depth
from torchact.diagnostics.depth import Decay
from torchact.diagnostics.evidence import Severity, Verdict
from torchact.diagnostics.readings import LayerReading, Reading

_SEVERITIES: tuple[Severity, ...] = get_args(Severity)  # the most severe first
_LAYERS_THAT_DO_NOT = ("vanishing", "zero-gradient")  # learn, by titles of verdicts
_DISPENSABLE = ("kind", "mean", "std", "zero")  # columns, in the order in which they are left out
_MARKDOWN = re.compile(r"[\\`*_<>\[\]]")  # what would be more than itself


@dataclass(frozen=True, kw_only=True, repr=False)
class Report:
    """One reading, or the latest of each optimiser, and what the rules say. ``print`` shows tables and verdicts."""

    reading: Reading  #: the latest
    verdicts: tuple[Verdict, ...]
    readings: tuple[Reading, ...] = ()  #: the latest of each optimiser; by default the latest alone

    def __post_init__(self) -> None:
        if not self.readings:
            object.__setattr__(self, "readings", (self.reading,))

    @property
    def decay(self) -> Decay:
        """Factor by which ‖δ‖ changes a layer, going backward, with its confidence interval."""
        return depth.decay(self.reading)

    @property
    def decay_per_layer(self) -> float:
        """The factor alone."""
        return self.decay.factor

    @property
    def layers_until_underflow(self) -> dict[str, float]:
        """Behind how many layers each number format runs out; see :func:`.depth.layers_until_underflow`."""
        return depth.layers_until_underflow(self.reading)

    @property
    def finding(self) -> str:
        """The sentences that say which layers do not learn, or that all do; the most severe first."""
        verdicts = sorted(self.verdicts, key=lambda verdict: _SEVERITIES.index(verdict.severity))
        in_short = filter(None, map(self._in_short, self.readings))
        return "\n".join([*in_short, *map(str, verdicts)])

    def _in_short(self, reading: Reading) -> str | None:
        """Say that all layers learn, or that none received a gradient; None where verdicts say more."""
        layers = reading.learning_layers
        whose = f" of {reading.optimizer}" if reading.optimizer else ""
        if not layers:
            return f"No layer with parameters{whose} received a gradient in this step."
        verdicts = [verdict for verdict in self.verdicts if verdict.optimizer == reading.optimizer]
        if any(verdict.severity != "info" or verdict.title in _LAYERS_THAT_DO_NOT for verdict in verdicts):
            return None
        decay = depth.decay_per_layer(reading)
        changes = "" if math.isnan(decay) else f" and changes by a factor of {decay:.2g} a layer going backward"
        first = depth.first_over_last(reading)
        return (
            f"All {len(layers)} layers{whose} learn: the first layer's gradient is {first:.2g} times the last"
            f" layer's{changes}."
        )

    @property
    def coverage(self) -> str:
        """Say what was seen, and what was not."""
        layers = {layer.name for reading in self.readings for layer in reading.layers}
        seen = f"Seen: the outputs of {len(layers)} modules (functional calls are invisible)."
        silent = [name for name in self.reading.silent if name not in layers]
        return f"{seen} Not called, or called inside another's fused forward: {', '.join(silent)}." if silent else seen

    def print_to(self, console: Console) -> None:
        """Print the table, the decay, the finding and the coverage."""
        self._print_measurements(console)
        _say(console, self.finding)
        _say(console, self.coverage)

    def _print_measurements(self, console: Console) -> None:
        for reading in self.readings:
            left_out = _left_out(reading, console)
            console.print(_table(reading, left_out))
            if left_out:
                _say(console, f"Left out where lines are this short: {', '.join(left_out)}.")
        _say(
            console,
            "δ = ∂L/∂output of the layer; × next: its ‖δ‖ over that of the next layer with parameters; "
            "‖∂L/∂θ‖: of the layer's own parameters; mean, std, zero: of its output; "
            "sat.: fraction of an activation's inputs where its derivative is nearly zero; "
            "dead: of a rectifier's units that were never active.",
        )
        for reading in self.readings:
            decay = depth.decay(reading)
            if not math.isnan(decay.factor):
                interval = "" if math.isnan(decay.low) else f" (95 %: {decay.low:.3g} to {decay.high:.3g})"
                whose = f" of {reading.optimizer}" if reading.optimizer else ""
                _say(console, f"Decay per layer{whose}: × {decay.factor:.3g}{interval}")

    def markdown(self) -> str:
        """Return the report as Markdown, with the finding as a list before what was measured."""
        lines = _MARKDOWN.sub(r"\\\g<0>", self.finding).splitlines()
        finding = "\n".join(f"- {line}" for line in lines)
        return f"{finding}\n\n```\n{_printed(self._print_measurements)}\n{self.coverage}\n```"

    def __str__(self) -> str:
        return _printed(self.print_to)

    def __repr__(self) -> str:
        return (
            f"<Report of {len(self.reading.layers)} layers at step {self.reading.step}, {len(self.verdicts)} verdicts>"
        )


def _table(reading: Reading, without: Sequence[str] = ()) -> Table:
    """Return the layers in forward order as a table, without the columns of these headings."""
    title = f"Gradients by layer at step {reading.step}{f' of {reading.optimizer}' if reading.optimizer else ''}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    ratios = _ratios_to_next(reading)
    columns: dict[str, Callable[[LayerReading], str]] = {
        "layer": lambda layer: layer.name,
        "kind": lambda layer: layer.kind,
        "‖δ‖": lambda layer: _scientific(layer.gradient.norm if layer.gradient.count else None),
        "× next": lambda layer: _short(ratios.get(layer.index)),
        "‖∂L/∂θ‖": lambda layer: _scientific(layer.parameter_gradient_norm if layer.has_parameters else None),
        "mean": lambda layer: _short(layer.output.mean),
        "std": lambda layer: _short(layer.output.deviation),
        "zero": lambda layer: _percent(layer.output.zero_fraction),
        "sat.": lambda layer: _percent(layer.saturated_fraction),
        "dead": lambda layer: _percent(layer.dead_fraction),
    }
    shown = {heading: cell for heading, cell in columns.items() if heading not in without}
    for heading in shown:
        words = heading in ("layer", "kind")
        table.add_column(heading, justify="left" if words else "right", no_wrap=heading != "layer", overflow="fold")
    for layer in reading.layers:
        table.add_row(*(cell(layer) for cell in shown.values()))
    return table


def _left_out(reading: Reading, console: Console) -> Sequence[str]:
    """Return the columns without which the table is no wider than the console."""
    unlimited = console.options.update(max_width=10**6)
    fewer = (_DISPENSABLE[:count] for count in range(len(_DISPENSABLE)))
    fits = (
        some for some in fewer if Measurement.get(console, unlimited, _table(reading, some)).maximum <= console.width
    )
    return next(fits, _DISPENSABLE)


def _ratios_to_next(reading: Reading) -> dict[int, float]:
    layers = reading.learning_layers
    return {
        layer.index: layer.gradient.norm / following.gradient.norm
        for layer, following in itertools.pairwise(layers)
        if following.gradient.norm > 0
    }


def _say(console: Console, words: str) -> None:
    console.print(words, highlight=False, markup=False)


def _printed(to: Callable[[Console], None]) -> str:
    text = StringIO()
    to(Console(file=text, width=120))
    return text.getvalue().rstrip()


def _scientific(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2e}" if value else "0"


def _short(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.2g}"


def _percent(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.0%}"
