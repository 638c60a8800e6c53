"""Activations that are no modules: torch's functions, tensors' methods and fused kernels. They cannot be replaced.

Calls in Python code are found by reading its source, so that calls in branches not taken are found as well.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchact import catalogue, lookup, modules
from torchact.conversion.counterparts import WITHOUT_COUNTERPART
from torchact.conversion.report import class_name
from torchact.conversion.source import methods, uses


class FunctionalActivation(NamedTuple):
    """An activation that a module computes without another module."""

    kind: type[nn.Module] | None  #: the module class that computes the same, None where code cannot be read
    what: str
    reason: str


_SPELLINGS: dict[str, type[nn.Module]] = {
    **{lookup.normalise(kind.__name__): kind for kind in WITHOUT_COUNTERPART},
    **{
        lookup.normalise(spelling): activation.torch_module or modules.MODULES[activation.key]
        for activation in catalogue.CATALOGUE.values()
        for spelling in activation.functional_spellings
    },
    lookup.normalise(F.scaled_dot_product_attention.__name__): nn.Softmax,
}


def _activations_in(namespace: Any) -> dict[str, type[nn.Module]]:
    names = (name for name in dir(namespace) if not name.startswith("_"))
    return {name: _SPELLINGS[key] for name in names if (key := lookup.normalise(name)) in _SPELLINGS}


_METHODS = _activations_in(Tensor)
_FUNCTIONS = {  # by identity: not every object that a model may hold can be hashed
    id(getattr(namespace, name)): kind
    for namespace in (F, torch, torch.special, Tensor)
    for name, kind in _activations_in(namespace).items()
}


def held_by(module: nn.Module) -> Iterator[FunctionalActivation]:
    """Yield torch's activation functions among the attributes of ``module``."""
    for name, value in vars(module).items():
        function = _unwrapped(value)
        kind = _FUNCTIONS.get(id(function))
        if kind is not None:
            reason = "a function held by an attribute; only modules are swapped"
            yield FunctionalActivation(kind, f"{name} = {function.__name__}", reason)


def fused_in(module: nn.Module) -> Iterator[FunctionalActivation]:
    """Yield the activations that ``module`` computes in a kernel that does more than the activation."""
    when = " in eval mode" if isinstance(module, nn.TransformerEncoderLayer) else ""
    for kind in _fused_kinds(module):
        yield FunctionalActivation(kind, class_name(type(module)), f"computes {kind.__name__} in a fused kernel{when}")


def _fused_kinds(module: nn.Module) -> tuple[type[nn.Module], ...]:
    if isinstance(module, (nn.LSTM, nn.LSTMCell, nn.GRU, nn.GRUCell)):
        return nn.Sigmoid, nn.Tanh
    if isinstance(module, (nn.RNN, nn.RNNCell)):
        return (nn.ReLU if module.nonlinearity == "relu" else nn.Tanh,)
    if isinstance(module, nn.MultiheadAttention):
        return (nn.Softmax,)
    if isinstance(module, nn.TransformerEncoderLayer) and isinstance(module.activation, nn.Module):
        return {0: (), 1: (nn.ReLU,), 2: (nn.GELU,)}[module.activation_relu_or_gelu]
    return ()


def called_by(module: nn.Module) -> Iterator[FunctionalActivation]:
    """Yield the functional calls in the methods of ``module`` and in the functions of their package that these use."""
    name = class_name(type(module))
    children = {path.rpartition(".")[2] for path, _ in module.named_modules()}
    if isinstance(module, torch.jit.ScriptModule):
        yield FunctionalActivation(None, name, "TorchScript cannot be changed")
    functions = [function for function in methods(type(module)) if _package(function) not in ("torch", "torchact")]
    for function in functions:  # which grows meanwhile
        found = uses(function, module)
        if found is None and function.__name__ == "forward":
            yield FunctionalActivation(None, name, "its source is not available: functional calls were not seen")
        for use in found or ():
            kind = _FUNCTIONS.get(id(_unwrapped(use.value)))
            if use.method and not (use.method in children and use.has_arguments):  # `block.relu(x)` calls a module
                kind = kind or _METHODS.get(use.method)
            if kind is not None:
                place = f"{Path(function.__code__.co_filename).name}:{use.line}"
                yield FunctionalActivation(kind, f"{place} {use}", "functional call; only modules are swapped")
            elif _package(use.value) == _package(function) and use.value not in functions:
                functions.append(use.value)


def _unwrapped(value: Any) -> Any:
    return value.func if isinstance(value, functools.partial) else value


def _package(value: Any) -> str | None:
    """Return the package that ``value`` was written in if it is a Python function, else None."""
    return (value.__module__ or "").partition(".")[0] if isinstance(value, FunctionType) else None
