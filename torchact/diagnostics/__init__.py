"""Instruments that show how gradients pass through a model: hooks, statistics, verdicts, reports."""

from torchact.diagnostics.depth import Decay
from torchact.diagnostics.diagnosis import diagnose
from torchact.diagnostics.evidence import Evidence, Thresholds, Verdict
from torchact.diagnostics.monitor import GradientError, GradientMonitor
from torchact.diagnostics.readings import LayerReading, ParameterReading, Reading
from torchact.diagnostics.report import Report
from torchact.diagnostics.statistics import Statistics

__all__ = [
    "Decay",
    "Evidence",
    "GradientError",
    "GradientMonitor",
    "LayerReading",
    "ParameterReading",
    "Reading",
    "Report",
    "Statistics",
    "Thresholds",
    "Verdict",
    "diagnose",
]
