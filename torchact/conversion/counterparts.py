"""The rule without a mapping: a module of torch.nn becomes torchact's counterpart and computes the same."""

from __future__ import annotations

import copyreg
import functools

from torch import nn
from torch.nn.modules import activation as torch_activations

from torchact import catalogue, modules
from torchact.conversion.change import Change, LeftAlone, refuse_own_forward
from torchact.conversion.report import class_name
from torchact.conversion.source import implementations

_KNOWN = {nn.MultiheadAttention, *(record.torch_module for record in catalogue.CATALOGUE.values())}

#: torch's activations that torchact does not have.
WITHOUT_COUNTERPART: tuple[type[nn.Module], ...] = tuple(
    {getattr(torch_activations, name) for name in torch_activations.__all__} - _KNOWN
)


def to_counterpart(module: nn.Module) -> Change | None:
    """Return what makes ``module`` torchact's, or None where it is no activation or is torchact's already.

    An instance of a user's subclass remains one, and becomes an instance of torchact's class as well.

    Raises:
        LeftAlone: it is an activation that cannot become torchact's.
    """
    activation = modules.activation_of(module)
    if activation is None:
        if isinstance(module, WITHOUT_COUNTERPART):
            raise LeftAlone("torchact has no counterpart")
        return None
    before: type = type(module)
    kind = activation.torch_module
    counterpart: type = modules.MODULES[activation.key]
    if kind is None or isinstance(module, counterpart):
        return None
    refuse_own_forward(module)
    if vars(kind)["forward"] not in implementations(before, "forward"):
        raise LeftAlone("its class overrides forward")
    if before is kind:
        return Change(class_name(counterpart), functools.partial(_set_class, module, counterpart))
    after = f"{class_name(before)}, {class_name(counterpart)}"
    return Change(after, functools.partial(_set_class, module, combined(before, counterpart)))


def _set_class(module: nn.Module, after: type[nn.Module]) -> None:
    module.__class__ = after


@functools.cache  # two modules of one class remain of one class
def combined(subclass: type, counterpart: type) -> type:
    """Return ``subclass`` with ``counterpart`` put between it and the class of torch.nn that both inherit from."""
    attributes = {name: getattr(subclass, name) for name in ("__module__", "__qualname__", "__doc__")}
    return _picklable(type(subclass))(subclass.__name__, (subclass, counterpart), attributes)


@functools.cache
def _picklable(metaclass: type) -> type:
    """Return a metaclass whose classes pickle as a call of :func:`combined`, since no import would find them."""
    made: type = type(metaclass.__name__, (metaclass,), {})
    copyreg.pickle(made, lambda module_class: (combined, module_class.__bases__))
    return made
