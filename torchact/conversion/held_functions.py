"""Activations that a module holds as functions in its attributes: torchact's function takes the place of torch's."""

from __future__ import annotations

import functools
from collections.abc import Container, Iterator
from typing import Any

import torch
from torch import nn

from torchact.conversion import foreign
from torchact.conversion.change import Change
from torchact.conversion.functions import (
    FunctionalActivation,
    counterpart_of,
    entries,
    is_own,
    is_own_module,
    kind_of,
    kind_of_module,
    unwrapped,
)
from torchact.conversion.report import class_name
from torchact.conversion.source import implementations


def to_counterparts(module: nn.Module) -> Iterator[Change]:
    """Yield what puts torchact's functions in the place of torch's among the attributes of ``module``."""
    for name, value in _attributes(module):
        function = counterpart_of(value)
        if function is not None:
            after = f"torchact.functional.{unwrapped(function).__name__}"
            yield Change(_written(name, value), after, functools.partial(vars(module).__setitem__, name, function))


def held_by(module: nn.Module, replaced: bool) -> Iterator[FunctionalActivation]:
    """Yield the activation functions that ``module`` has in its attributes, and in dicts, lists and tuples there.

    Args:
        module: whose attributes.
        replaced: leave out those that :func:`to_counterparts` replaces.
    """
    for name, value in _attributes(module):
        kind = kind_of(value)
        if kind is not None and not (replaced and counterpart_of(value) is not None):
            reason = "torchact has none of its signature" if replaced else "only modules are swapped"
            reason = f"a function held by an attribute; {reason}"
            yield FunctionalActivation(kind, _written(name, value), reason, is_own(value))
        for entry in entries(value):
            kind = kind_of(entry)
            if kind is not None:
                reason = "a function in a table that an attribute holds"
                yield FunctionalActivation(kind, _written(f"{name}[...]", entry), reason, is_own(entry))


def modules_held_by(module: nn.Module, members: Container[nn.Module]) -> Iterator[FunctionalActivation]:
    """Yield the activation modules, each class once, in the dicts, lists and tuples that ``module`` has as attributes.

    Args:
        module: whose attributes.
        members: the modules of the model. These can be converted, and are left out.
    """
    found: dict[FunctionalActivation, None] = {}
    for name, value in _attributes(module):
        held = [inner for entry in entries(value) if isinstance(entry, nn.Module) for inner in entry.modules()]
        for inner in held:
            kind = None if inner in members else kind_of_module(inner)
            if kind is not None:
                what, reason = f"{name}[...] = {class_name(type(inner))}", "a module that is no part of the model"
                found[FunctionalActivation(kind, what, reason, is_own_module(inner))] = None
    yield from found


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of ``module`` that it can compute with.

    TorchScript cannot be changed, and what is torchact's, or can become it, needs no other function.
    """
    forward = next(implementations(type(module), "forward"), None)
    place = "" if forward is None or "forward" in vars(module) else (forward.__module__ or "")
    settled = place.startswith("torchact.") or foreign.is_activation_file(place)
    if not (settled or isinstance(module, torch.jit.ScriptModule)):
        yield from vars(module).items()


def _written(name: str, value: Any) -> str:
    return f"{name} = {unwrapped(value).__name__}"
