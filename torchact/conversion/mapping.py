"""The rule of a mapping: a module of a key's kind becomes one of the value's kind."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from torchact import catalogue, modules
from torchact.conversion import foreign
from torchact.conversion.change import Change, LeftAlone, refuse_own_forward
from torchact.conversion.report import class_name

_BOOKKEEPING = frozenset(vars(nn.Module()))
_CONTENTS = frozenset({"_parameters", "_buffers", "_non_persistent_buffers_set", "_modules"})


def checked(mapping: Any) -> dict[type[nn.Module], Callable[[], nn.Module]]:
    """Return ``mapping`` with the classes in place of names, or raise what :func:`torchact.convert` raises."""
    if not isinstance(mapping, Mapping):
        raise TypeError(
            f"mapping: expected a mapping from module classes to module classes, "
            f"got {mapping!r} of type {type(mapping).__name__}"
        )
    swaps = {_kind(key): _own_class(value) if isinstance(value, str) else value for key, value in mapping.items()}
    for kind, value in swaps.items():
        _made_by(value, kind)  # so that a wrong value is found before anything is changed, whatever the model holds
    return swaps


def _own_class(name: str) -> type[nn.Module]:
    return modules.MODULES[catalogue.get(name, "mapping").key]


def _kind(key: Any) -> type[nn.Module]:
    if isinstance(key, str):
        return catalogue.get(key, "mapping").torch_module or _own_class(key)
    if isinstance(key, type) and issubclass(key, nn.Module):
        return key
    raise TypeError(f"mapping: expected keys that are module classes or activations' names, got {key!r}")


def to_mapped(module: nn.Module, mapping: Mapping[type[nn.Module], Callable[[], nn.Module]]) -> Change | None:
    """Return what gives ``module`` the kind that ``mapping`` asks for, or None where it asks for nothing new.

    Raises:
        LeftAlone: it is of a kind that the mapping names and cannot become another.
    """
    bases = _bases(type(module))
    kind = next((base for base in bases if base in mapping), None)
    if kind is None or mapping[kind] is type(module):
        return None
    refuse_own_forward(module)
    if any("forward" in vars(base) and not _is_known(base) for base in bases[: bases.index(kind)]):
        raise LeftAlone("its class overrides forward; name that class in the mapping to swap it")
    if module._modules:
        raise LeftAlone("it contains other modules")
    fresh = _made_by(mapping[kind], kind)
    if isinstance(mapping[kind], type):
        _take_over_parameters(fresh, module, related=isinstance(module, type(fresh)) or isinstance(fresh, kind))
    fresh.train(module.training)
    return Change(class_name(type(module)), class_name(type(fresh)), functools.partial(_become, module, fresh))


def _bases(module_class: type[nn.Module]) -> tuple[type, ...]:
    """Return the bases of ``module_class``, with torchact's and torch's after another package's activation."""
    bases = module_class.__mro__
    activation = foreign.activation_among(module_class)
    key = None if activation is None else foreign.key_of(activation)
    if activation is None or key is None:
        return bases
    place = bases.index(activation) + 1
    return (*bases[:place], *(base for base in modules.MODULES[key].__mro__ if base not in bases), *bases[place:])


def _is_known(base: type) -> bool:
    """Whether ``base`` is an activation of torchact or of another package, whose ``forward`` is what its name says."""
    return base in modules.MODULES.values() or foreign.is_activation(base)


def leave_fused_path(layer: nn.TransformerEncoderLayer) -> None:
    """Keep ``layer`` from computing the activation that it was built with, in eval mode, when that is now another."""
    fused = {1: nn.ReLU, 2: nn.GELU}.get(layer.activation_relu_or_gelu)
    if fused is not None and isinstance(layer.activation, nn.Module) and not isinstance(layer.activation, fused):
        layer.activation_relu_or_gelu = 0


def _made_by(value: Callable[[], Any], kind: type[nn.Module]) -> nn.Module:
    given = (
        f"mapping: expected values that are module classes, activations' names or functions without arguments that "
        f"return a module, got {value!r} for {class_name(kind)}"
    )
    try:
        fresh = value()
    except TypeError as error:
        raise TypeError(f"{given}: {error}") from error
    if not isinstance(fresh, nn.Module):
        raise TypeError(f"{given}, which returned {fresh!r}")
    return fresh


def _take_over_parameters(fresh: nn.Module, module: nn.Module, related: bool) -> None:
    """Give ``fresh`` the parameters of ``module`` that mean the same in both.

    ``inplace`` and ``dim`` say how and where an activation works. Others of one name can differ in meaning, as
    ``threshold`` does in ``nn.Threshold`` and ``nn.Softplus``, and are taken over between relatives only.
    """
    if vars(fresh).get("dim", -1) is None:  # torch's default, which is deprecated
        vars(fresh)["dim"] = -1
    for name in vars(module).keys() & vars(fresh).keys() - _BOOKKEEPING:
        if related or name in ("inplace", "dim"):
            setattr(fresh, name, getattr(module, name))


def _become(module: nn.Module, fresh: nn.Module) -> None:
    """Turn ``module`` into what ``fresh`` is, but for its mode, its hooks and what others have attached to it."""
    module.__class__ = type(fresh)
    vars(module).update(
        {name: value for name, value in vars(fresh).items() if name in _CONTENTS or name not in _BOOKKEEPING}
    )
