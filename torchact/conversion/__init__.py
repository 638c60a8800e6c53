"""Converting an existing model, in place: its activation modules change their kind, and a report says which did not."""

from torchact.conversion.converting import convert, functional_activations
from torchact.conversion.functions import FunctionalActivation
from torchact.conversion.report import Conversion, Left, Replaced

__all__ = ["Conversion", "FunctionalActivation", "Left", "Replaced", "convert", "functional_activations"]
