"""Which activation a function computes, and torchact's function in its place."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchact import catalogue, functional, lookup, modules
from torchact.conversion import foreign
from torchact.conversion.counterparts import WITHOUT_COUNTERPART, activation_of


class FunctionalActivation(NamedTuple):
    """An activation that a module computes without another module."""

    kind: type[nn.Module] | None  #: the module class that computes the same, None where code does not tell
    what: str
    reason: str
    own: bool = False  #: whether it is torchact's: only a mapping that names its kind is about it


def _kind(activation: catalogue.Activation) -> type[nn.Module]:
    return activation.torch_module or modules.MODULES[activation.key]


_SPELLINGS: dict[str, type[nn.Module]] = {
    **{lookup.normalise(kind.__name__): kind for kind in WITHOUT_COUNTERPART},
    **{
        lookup.normalise(spelling): _kind(activation)
        for activation in catalogue.CATALOGUE.values()
        for spelling in activation.functional_spellings
    },
    lookup.normalise(F.scaled_dot_product_attention.__name__): nn.Softmax,
}


def _activations_in(namespace: Any) -> dict[str, type[nn.Module]]:
    names = (name for name in dir(namespace) if not name.startswith("_"))
    return {name: _SPELLINGS[key] for name in names if (key := lookup.normalise(name)) in _SPELLINGS}


#: The activations among the methods of a tensor, with the module class that computes the same.
METHODS = _activations_in(Tensor)

# Functions are found by identity, since not every object that a model may hold can be hashed.
_KINDS = {
    id(getattr(namespace, name)): kind
    for namespace in (F, torch, torch.special, Tensor)
    for name, kind in _activations_in(namespace).items()
}

# Those of `torch` take what `torch.nn.functional`'s do, but for three: the third argument of `torch.softmax` and
# `torch.log_softmax` is the dtype, and the fifth of `torch.rrelu` the generator.
_COUNTERPARTS: dict[int, Callable[..., Tensor]] = {
    **{
        id(getattr(namespace, record.key)): getattr(functional, record.key)
        for namespace in (torch, F)
        for record in catalogue.CATALOGUE.values()
        if record.torch_function is not None and hasattr(namespace, record.key)
        if namespace is F or record.key not in ("softmax", "log_softmax", "rrelu")
    },
    id(torch.special.expit): functional.sigmoid,
}


def kind_of(value: Any) -> type[nn.Module] | None:
    """Return the module class that computes the same as the function ``value``, or None if it is no activation."""
    record = _own_record(value)
    return _KINDS.get(id(unwrapped(value))) if record is None else _kind(record)


def is_own(value: Any) -> bool:
    """Whether the function ``value`` is torchact's."""
    return _own_record(value) is not None


def _own_record(value: Any) -> catalogue.Activation | None:
    """Return the record of torchact's function ``value``, else None. Users' own activations come and go."""
    function = unwrapped(value)
    if not isinstance(function, FunctionType):
        return None
    records = catalogue.CATALOGUE.values()
    return next((record for record in records if vars(functional).get(record.key) is function), None)


def counterpart_of(value: Any) -> Callable[..., Tensor] | None:
    """Return torchact's function of the same signature for torch's function ``value``, or None if there is none."""
    function = _COUNTERPARTS.get(id(unwrapped(value)))
    if function is None or not isinstance(value, functools.partial):
        return function
    return functools.partial(function, *value.args, **value.keywords)


def unwrapped(value: Any) -> Any:
    """Return the function that ``value`` calls if it is a ``functools.partial``, else ``value``."""
    return value.func if isinstance(value, functools.partial) else value


def kind_of_module(module: nn.Module) -> type[nn.Module] | None:
    """Return the module class that computes the same as ``module``, or None if it is no activation."""
    kind, activation = activation_of(module)
    return kind if activation is None else _kind(activation)


def is_own_module(module: nn.Module) -> bool:
    """Whether ``module`` is an instance of one of torchact's classes."""
    return isinstance(module, tuple(modules.MODULES.values()))


def entries(table: Any) -> list[Any]:
    """Return the values of a dict, list or tuple, and nothing of anything else."""
    if isinstance(table, dict):
        return list(dict.values(table))  # so that nobody's own `values` runs
    return list(table) if isinstance(table, (list, tuple)) else []


def is_activation(value: Any) -> bool:
    """Whether ``value`` is an activation's function, module or class, or a tuple that begins with one."""
    if isinstance(value, nn.Module):
        return kind_of_module(value) is not None
    if isinstance(value, type):
        classes = tuple(map(_kind, catalogue.CATALOGUE.values()))  # torchact's are subclasses of torch's
        return issubclass(value, classes) or foreign.activation_among(value) is not None
    return kind_of(value) is not None or (isinstance(value, tuple) and is_activation(next(iter(value), None)))
