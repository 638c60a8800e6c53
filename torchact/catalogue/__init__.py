"""What is known of each activation: one record each, from which everything else reads.

The functional forms, the modules, conversion, the saturation statistics, the theory, the documentation, the tests and
the experiments' command line all take names, formulas, derivatives, ranges and counterparts from here. One file holds
one family.

Example:
    >>> from torchact import catalogue
    >>> catalogue.get("linear").name
    'Identity'
    >>> catalogue.get("sigmoid").max_derivative()
    0.25
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from torchact import lookup
from torchact.catalogue import (
    exponential,
    gated,
    linear,
    normalised,
    periodic,
    rectifiers,
    self_gated,
    shrinkage,
    sigmoidal,
    step,
)
from torchact.catalogue.exponential import SELU_ALPHA, SELU_SCALE
from torchact.catalogue.gated import Gate, checked_gate, halves, in_order
from torchact.catalogue.record import Activation, Pair, TensorFunction, input_type
from torchact.catalogue.rectifiers import per_channel
from torchact.catalogue.step import SURROGATES, Surrogate, nan_as_negative_infinity, surrogate

__all__ = [
    "ALIASES",
    "CATALOGUE",
    "SELU_ALPHA",
    "SELU_SCALE",
    "SURROGATES",
    "Activation",
    "Gate",
    "Pair",
    "Surrogate",
    "TensorFunction",
    "checked_gate",
    "documented",
    "forget",
    "get",
    "halves",
    "in_order",
    "input_type",
    "nan_as_negative_infinity",
    "per_channel",
    "register",
    "surrogate",
]

Function = TypeVar("Function", bound=Callable[..., Any])

_records: dict[str, Activation] = {
    activation.key: activation
    for family in (
        sigmoidal,
        rectifiers,
        exponential,
        self_gated,
        shrinkage,
        periodic,
        normalised,
        gated,
        step,
        linear,
    )
    for activation in family.ACTIVATIONS
}

#: Every activation by its key.
CATALOGUE: Mapping[str, Activation] = MappingProxyType(_records)

_aliases = {
    spelling: activation.key for activation in _records.values() for spelling in (activation.name, *activation.aliases)
}

#: The keys by all other names.
ALIASES: Mapping[str, str] = MappingProxyType(_aliases)


def register(activation: Activation) -> None:
    """Put a user's own activation in the catalogue; :func:`torchact.define` does it and checks it first."""
    _records[activation.key] = activation
    _aliases.update(dict.fromkeys((activation.name, *activation.aliases), activation.key))


def forget(key: str) -> None:
    """Take a user's own activation out of the catalogue."""
    del _records[key]
    for spelling in [spelling for spelling, meant in _aliases.items() if meant == key]:
        del _aliases[spelling]


def get(name: str, argument: str = "activation") -> Activation:
    """Return the record of the activation called ``name``: its key, its class name or an alias, in any spelling.

    Args:
        name: for example ``"leaky_relu"``, ``"LeakyReLU"`` or ``"linear"``; ``"my_package.my_module:bent_identity"``
            imports the module and names an activation that it defines by :func:`torchact.define`.
        argument: the name of the argument it was given for, for the error message.

    Raises:
        ValueError: no activation has that name; the message lists the nearest matches and all that exists. Or its
            module cannot be imported.
    """
    if isinstance(name, str) and ":" in name:
        module, _, own_name = name.rpartition(":")
        return _defined_in(module, own_name, argument)
    return lookup.find(CATALOGUE, name, argument, ALIASES)


def _defined_in(module: str, name: str, argument: str) -> Activation:
    """Import ``module`` and return the activation that it or a part of it defines, or that it imports as ``name``."""
    try:
        namespace = importlib.import_module(module)
    except Exception as error:
        raise ValueError(
            f"{argument}: cannot import the module of {f'{module}:{name}'!r}: {type(error).__name__}: {error}"
        ) from error
    own = {
        key: activation
        for key, activation in CATALOGUE.items()
        if activation.origin is not None and f"{activation.origin}.".startswith(f"{module}.")
    }
    imported = getattr(getattr(namespace, name, None), "__name__", None)
    for key, activation in CATALOGUE.items():
        if activation.origin is not None and imported in (key, activation.name):
            own[key] = activation
            name = key
    if not own:
        raise ValueError(f"{argument}: module {module!r} defines no activation, by torchact.define, called {name!r}")
    return lookup.find(
        own, name, f"{argument} in {module!r}", {spelling: key for spelling, key in ALIASES.items() if key in own}
    )


def documented(key: str) -> Callable[[Function], Function]:
    """Return a decorator that appends what the catalogue knows of activation ``key`` to a docstring."""

    def decorate(function: Function) -> Function:
        activation = CATALOGUE[key]
        low, high = activation.range
        facts = (
            f".. math:: {activation.formula}",
            f"Derivative: :math:`{activation.derivative_formula}`. Range: ({low:g}, {high:g}). "
            f"Saved for backward: {activation.saves}.",
            f"Source: {activation.source}.",
        )
        indent = " " * (4 if function.__doc__ and "\n    " in function.__doc__ else 0)
        function.__doc__ = (function.__doc__ or "").rstrip() + "".join(f"\n\n{indent}{fact}" for fact in facts) + "\n"
        return function

    return decorate
