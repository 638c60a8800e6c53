"""The rule without a mapping: another's activation module becomes torchact's counterpart and computes the same."""

from __future__ import annotations

import copyreg
import functools
from typing import Any

from torch import nn
from torch.nn.modules import activation as torch_activations

from torchact import catalogue, modules
from torchact.conversion import foreign
from torchact.conversion.change import Change, LeftAlone, refuse_own_forward
from torchact.conversion.report import class_name
from torchact.conversion.source import implementations

_KNOWN = {nn.MultiheadAttention, *(record.torch_module for record in catalogue.CATALOGUE.values())}

#: torch's activations that torchact does not have: those of a torch that is newer than torchact.
WITHOUT_COUNTERPART: tuple[type[nn.Module], ...] = tuple(
    {getattr(torch_activations, name) for name in torch_activations.__all__} - _KNOWN
)


def to_counterpart(module: nn.Module) -> Change | None:
    """Return what makes ``module`` torchact's, or None where it is no activation or is torchact's already.

    An instance of a user's subclass remains one, and becomes an instance of torchact's class as well.

    Raises:
        LeftAlone: it is an activation that cannot become torchact's.
    """
    before: type = type(module)
    kind: Any
    kind, activation = activation_of(module)
    if kind is None or (activation is not None and isinstance(module, modules.MODULES[activation.key])):
        return None
    if activation is None:
        raise LeftAlone("torchact has no counterpart")
    refuse_own_forward(module)
    if kind.forward not in implementations(before, "forward"):
        raise LeftAlone("its class overrides forward")
    after: type = modules.MODULES[activation.key]
    usual = vars(modules.create(activation.key))
    if getattr(module, "inplace", False) and "inplace" not in usual:
        raise LeftAlone("torchact has none that works in place")
    name = class_name(after)
    if kind is not activation.torch_module:
        after = combined(kind, after)
    if before is not kind:
        after, name = combined(before, after), f"{class_name(before)}, {name}"
    return Change(class_name(before), name, functools.partial(_become, module, after, usual))


def activation_of(module: nn.Module) -> tuple[type[nn.Module] | None, catalogue.Activation | None]:
    """Return the class that makes ``module`` an activation, and the record of that if torchact has it."""
    kind = foreign.activation_among(type(module))
    if kind is not None:
        key = foreign.key_of(kind)
        return kind, None if key is None else catalogue.CATALOGUE[key]
    activation = modules.activation_of(module)
    if activation is not None:
        return activation.torch_module or modules.MODULES[activation.key], activation
    return next((base for base in type(module).__mro__ if base in WITHOUT_COUNTERPART), None), None


def _become(module: nn.Module, after: type[nn.Module], usual: dict[str, object]) -> None:
    """Give ``module`` the class ``after``, and what instances of that have and it has not the ``usual`` value."""
    module.__class__ = after
    for name, value in usual.items():
        vars(module).setdefault(name, value)


@functools.cache  # two modules of one class remain of one class
def combined(subclass: type, counterpart: type) -> type:
    """Return ``subclass`` with ``counterpart`` put between it and the class that both inherit from.

    If ``subclass`` is another package's activation it has a ``forward`` of its own, and that of ``counterpart`` wins.
    """
    attributes = {name: getattr(subclass, name) for name in ("__module__", "__qualname__", "__doc__")}
    if foreign.is_activation(subclass):
        attributes["forward"] = vars(counterpart)["forward"]
    return _picklable(type(subclass))(subclass.__name__, (subclass, counterpart), attributes)


@functools.cache
def _picklable(metaclass: type) -> type:
    """Return a metaclass whose classes pickle as a call of :func:`combined`, since no import would find them."""
    made: type = type(metaclass.__name__, (metaclass,), {})
    copyreg.pickle(made, lambda module_class: (combined, module_class.__bases__))
    return made
