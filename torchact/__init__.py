"""Activations with hand-derived derivatives, and instruments that show how gradients vanish or explode with depth."""

from torchact import catalogue, functional, initialisations, kernels, theory
from torchact.conversion import Conversion, convert
from torchact.diagnostics import GradientMonitor, Report, diagnose
from torchact.modules import BinaryStep, Identity, LeakyReLU, ReLU, Sigmoid, Softmax, Tanh

__version__ = "0.1.0"

__all__ = [
    "BinaryStep",
    "Conversion",
    "GradientMonitor",
    "Identity",
    "LeakyReLU",
    "ReLU",
    "Report",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "catalogue",
    "convert",
    "diagnose",
    "functional",
    "initialisations",
    "kernels",
    "theory",
]
