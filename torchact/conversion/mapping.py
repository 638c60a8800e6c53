"""The rule of a mapping: a module of a key's kind becomes one of the value's kind."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import nn

from torchact import catalogue, modules
from torchact.conversion import foreign
from torchact.conversion.change import Change, LeftAlone, refuse_own_forward
from torchact.conversion.report import class_name

_BOOKKEEPING = frozenset(vars(nn.Module()))
_CONTENTS = frozenset({"_parameters", "_buffers", "_non_persistent_buffers_set", "_modules"})
_ALWAYS_TAKEN_OVER = frozenset({"inplace", "dim", "gate"})


class Swaps(NamedTuple):
    """A mapping with classes in place of names."""

    by_class: dict[type[nn.Module], Callable[[], nn.Module]]  #: what takes the place of a class and its subclasses
    by_name: dict[type[nn.Module], Callable[[], nn.Module]]  #: what takes the place of one activation

    def concern(self, kind: type[nn.Module]) -> bool:
        """Whether one of the keys names ``kind``, the class of an activation that is no module of the model."""
        return kind in self.by_name or issubclass(kind, tuple(self.by_class))


def checked(mapping: Any) -> Swaps:
    """Return ``mapping`` with the classes in place of names, or raise what :func:`torchact.convert` raises."""
    if not isinstance(mapping, Mapping):
        raise TypeError(
            f"mapping: expected a mapping from module classes to module classes, "
            f"got {mapping!r} of type {type(mapping).__name__}"
        )
    swaps = Swaps({}, {})
    for key, value in mapping.items():
        kind = _kind(key)
        made = _own_class(value) if isinstance(value, str) else value
        (swaps.by_name if isinstance(key, str) else swaps.by_class)[kind] = made
        _made_by(made, kind)  # so that a wrong value is found before anything is changed, whatever the model holds
    return swaps


def _own_class(name: str) -> type[nn.Module]:
    return modules.MODULES[catalogue.get(name, "mapping").key]


def _kind(key: Any) -> type[nn.Module]:
    if isinstance(key, str):
        return catalogue.get(key, "mapping").torch_module or _own_class(key)
    if isinstance(key, type) and issubclass(key, nn.Module):
        return key
    raise TypeError(f"mapping: expected keys that are module classes or activations' names, got {key!r}")


def to_mapped(module: nn.Module, swaps: Swaps) -> Change | None:
    """Return what gives ``module`` the kind that ``swaps`` asks for, or None where it asks for nothing new.

    Raises:
        LeftAlone: it is of a kind that the mapping names and cannot become another.
    """
    bases = _bases(type(module))
    record = _record(module)
    own = () if record is None else (record.torch_module, modules.MODULES.get(record.key))
    values = {**swaps.by_class, **{kind: value for kind, value in swaps.by_name.items() if kind in own}}
    kind = next((base for base in bases if base in values), None)
    if kind is None or values[kind] is type(module):
        return None
    refuse_own_forward(module)
    if any("forward" in vars(base) and not _is_known(base) for base in bases[: bases.index(kind)]):
        raise LeftAlone("its class overrides forward; name that class in the mapping to swap it")
    if module._modules:
        raise LeftAlone("it contains other modules")
    fresh = _made_by(values[kind], kind)
    if isinstance(values[kind], type):
        inherits = isinstance(module, type(fresh)) or isinstance(fresh, kind)
        _take_over_parameters(fresh, module, related=inherits and _record(fresh) is record)
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


def _record(module: nn.Module) -> catalogue.Activation | None:
    """Return the record of the activation that ``module`` is; another package's is what it computes."""
    activation = foreign.activation_among(type(module))
    if activation is None:
        return modules.activation_of(module)
    key = foreign.key_of(activation)
    return None if key is None else catalogue.CATALOGUE[key]


def _is_known(base: type) -> bool:
    """Whether ``base`` is an activation of torchact or of another package, whose ``forward`` is what its name says."""
    ours = base.__module__ == modules.__name__ or base in modules.MODULES.values()
    return ours or foreign.is_activation(base)


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

    ``inplace``, ``dim`` and ``gate`` say how and where an activation works. Others of one name can differ in meaning,
    as ``threshold`` does in ``nn.Threshold`` and ``nn.Softplus``, and are taken over between relatives only. What is
    learnt stays the same object, so that an optimizer goes on with it.
    """
    if vars(fresh).get("dim", -1) is None:  # torch's default, which is deprecated
        vars(fresh)["dim"] = -1
    if not related:
        for name in vars(module).keys() & vars(fresh).keys() & _ALWAYS_TAKEN_OVER:
            vars(fresh)[name] = vars(module)[name]
        return
    sources, targets = _places(module), _places(fresh)
    for name in set().union(*sources) & set().union(*targets) - _BOOKKEEPING:
        for source, target in zip(sources, targets, strict=True):  # a parameter in one can be a number in the other
            target.pop(name, None)
            if name in source:
                target[name] = source[name]
        fresh._non_persistent_buffers_set.discard(name)
        fresh._non_persistent_buffers_set.update({name} & module._non_persistent_buffers_set)


def _places(module: nn.Module) -> tuple[dict[str, Any], ...]:
    """Return where ``module`` keeps what it computes with."""
    return vars(module), module._parameters, module._buffers


def _become(module: nn.Module, fresh: nn.Module) -> None:
    """Turn ``module`` into what ``fresh`` is, but for its mode, its hooks and what others have attached to it."""
    module.__class__ = type(fresh)
    for name in (*fresh._parameters, *fresh._buffers, *fresh._modules):
        vars(module).pop(name, None)  # a number of that name would hide it
    vars(module).update(
        {name: value for name, value in vars(fresh).items() if name in _CONTENTS or name not in _BOOKKEEPING}
    )
