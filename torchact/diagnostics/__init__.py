"""Instruments that show how gradients pass through a model: hooks, statistics, verdicts, reports."""

from torchact.diagnostics.monitor import GradientMonitor, diagnose
from torchact.diagnostics.report import Report
from torchact.diagnostics.rules import Thresholds, Verdict
from torchact.diagnostics.statistics import LayerReading, Reading, Statistics

__all__ = ["GradientMonitor", "LayerReading", "Reading", "Report", "Statistics", "Thresholds", "Verdict", "diagnose"]
