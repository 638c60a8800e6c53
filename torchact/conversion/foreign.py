"""The activation modules of other packages, known by name, so that none of these packages is imported here.

They compute what torchact's do, each rounding in its own way, with two exceptions. ``FastGELUActivation`` has √(2/π) to
ten digits, which moves its values and derivatives by up to 2e-12. And at ±3 timm's ``HardSigmoidMe``, ``HardSwishMe``,
their ``Jit`` twins and the ``HardSigmoid`` in place have the inner side's slope, torchact as torch has the outer one's.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from torch import nn

#: By package and class name, the key of the activation that it computes. The classes stand in the packages' files
#: ``activations*.py``; a module class there that is missing here has no counterpart.
_KEYS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "transformers": {
            "AccurateGELUActivation": "gelu_tanh",
            "FastGELUActivation": "gelu_tanh",
            "GELUActivation": "gelu",
            "GELUTanh": "gelu_tanh",
            "LinearActivation": "identity",
            "MishActivation": "mish",
            "NewGELUActivation": "gelu_tanh",
            "PytorchGELUTanh": "gelu_tanh",
            "QuickGELUActivation": "quick_gelu",
            "ReLUSquaredActivation": "squared_relu",
            "SiLUActivation": "silu",
        },
        "timm": {
            "GELU": "gelu",
            "GELUTanh": "gelu_tanh",
            "PReLU": "prelu",
            "QuickGELU": "quick_gelu",
            "Sigmoid": "sigmoid",
            "Tanh": "tanh",
            **{
                name + variant: key
                for name, key in {
                    "HardSigmoid": "hardsigmoid",
                    "HardSwish": "hardswish",
                    "Mish": "mish",
                    "Swish": "silu",
                }.items()
                for variant in ("", "Jit", "Me")  # scripted, and with a derivative by hand
            },
        },
    }
)


def is_activation(module_class: type) -> bool:
    """Whether ``module_class`` itself, not one of its bases, is an activation of another package."""
    return is_activation_file(module_class.__module__) and issubclass(module_class, nn.Module)


def is_activation_file(module_name: str | None) -> bool:
    """Whether the Python module of that name holds another package's activations."""
    parts = (module_name or "").split(".")
    return parts[0] in _KEYS and parts[-1].startswith("activations")


def is_framework(module_name: str | None) -> bool:
    """Whether the Python module of that name holds what all models of a package share and no model's computation.

    In transformers that is loading, saving, generating text: some 700 functions, which take seconds to read.
    """
    name = module_name or ""
    return name.startswith("transformers.") and not name.startswith("transformers.models.")


def activation_among(module_class: type) -> type | None:
    """Return the activation of another package that ``module_class`` is or derives from, or None."""
    return next((base for base in module_class.__mro__ if is_activation(base)), None)


def key_of(activation: type) -> str | None:
    """Return the catalogue's key for an activation of another package, or None where torchact does not have it."""
    return _KEYS[activation.__module__.partition(".")[0]].get(activation.__name__)
