"""Activations that are no modules: calls of functions and tensors' methods, and fused kernels. They cannot be replaced.

Calls in Python code are found by reading its source, so that calls in branches not taken are found as well.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from torch import nn

from torchact.conversion import foreign
from torchact.conversion.functions import (
    METHODS,
    FunctionalActivation,
    entries,
    is_activation,
    is_own,
    is_own_module,
    kind_of,
    kind_of_module,
    unwrapped,
)
from torchact.conversion.report import class_name
from torchact.conversion.source import Use, methods, uses


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
    if isinstance(module, nn.TransformerEncoderLayer):
        return {0: (), 1: (nn.ReLU,), 2: (nn.GELU,)}[module.activation_relu_or_gelu]
    return ()


def called_by(module: nn.Module, members: Container[nn.Module]) -> Iterator[FunctionalActivation]:
    """Yield the functional calls in the methods of ``module`` and in the functions of their package that these use.

    Args:
        module: one of a class; what is found is the same for all of them.
        members: the modules of the model. Others that the code calls cannot be converted.
    """
    name = class_name(type(module))
    if isinstance(module, torch.jit.ScriptModule):
        yield FunctionalActivation(None, name, "TorchScript cannot be changed")
    functions = [function for function in methods(type(module)) if not _is_known(function)]
    yield from _calls_in(functions, module, members, ("forward", name))


def called_by_held(module: nn.Module, members: Container[nn.Module]) -> Iterator[FunctionalActivation]:
    """Yield the functional calls in the Python functions, lambdas among them, that ``module`` holds as attributes."""
    for name, value in vars(module).items():
        function = unwrapped(value)
        if isinstance(function, FunctionType) and not _is_known(function):
            held = f"{name} = {function.__name__}"
            yield from _calls_in([function], module, members, (function.__name__, held))


def _calls_in(
    functions: list[FunctionType], module: nn.Module, members: Container[nn.Module], needed: tuple[str, str]
) -> Iterator[FunctionalActivation]:
    """Yield the functional calls in ``functions``, or that the ``needed`` one (its name, what it is) cannot be read."""
    children = {path.rpartition(".")[2] for path, _ in module.named_modules()}
    for function in functions:  # which grows meanwhile
        found = uses(function, module)
        if found is None and function.__name__ == needed[0]:
            reason = "its source is not available: functional calls were not seen"
            yield FunctionalActivation(None, needed[1], reason)
        for use in found or ():
            what = f"{Path(function.__code__.co_filename).name}:{use.line} {use}"
            call = _activation_in(use, what, children, members)
            if call is not None:
                yield call
            elif _package(use.value) == _package(function) and use.value not in functions:
                functions.append(use.value)


def _activation_in(
    use: Use, what: str, children: set[str], members: Container[nn.Module]
) -> FunctionalActivation | None:
    kind = kind_of(use.value)
    if use.method and not (use.method in children and use.has_arguments):  # `block.relu(x)` calls a module
        kind = kind or METHODS.get(use.method)
    if kind is not None:
        return FunctionalActivation(kind, what, "functional call; only modules are swapped", own=is_own(use.value))
    if isinstance(use.value, nn.Module) and use.value not in members:
        kind = kind_of_module(use.value)
    if kind is not None:
        return FunctionalActivation(kind, what, "a module that is no part of the model", own=is_own_module(use.value))
    if isinstance(use.value, dict) and any(is_activation(entry) for entry in entries(use.value)):
        return FunctionalActivation(None, what, "which activation the table gives is known only when the code runs")
    return None


def _is_known(function: FunctionType) -> bool:
    """Whether ``function`` stands where no activation is that is not a module's, or a kernel's."""
    place = function.__module__
    return (
        _package(function) in ("torch", "torchact") or foreign.is_activation_file(place) or foreign.is_framework(place)
    )


def _package(value: Any) -> str | None:
    """Return the package that ``value`` was written in if it is a Python function, else None."""
    return (value.__module__ or "").partition(".")[0] if isinstance(value, FunctionType) else None
