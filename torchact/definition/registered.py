"""What a definition becomes: a Function, a function with the parameters' names, and a module class that pickles."""

from __future__ import annotations

import copyreg
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from torchact import autograd, catalogue, modules
from torchact.catalogue import Activation


class DefinedFunction(autograd.ActivationFunction):
    """The Function of a user's own activation.

    A parameter that is a tensor gets its gradient too: then autograd takes both from the plain formula.
    """

    @classmethod
    def call(cls, input: Tensor, *parameters: Any) -> Tensor:
        if any(isinstance(parameter, Tensor) for parameter in parameters):
            return cls.formula(input, *parameters)
        return super().call(input, *parameters)


def function_of(activation: Activation) -> type[DefinedFunction]:
    """Return the ``torch.autograd.Function`` of a record whose kernels are registered."""
    attributes = {"activation": activation, "__module__": activation.origin}
    return types.new_class(activation.name, (DefinedFunction,), exec_body=lambda body: body.update(attributes))


def functional_of(function: type[DefinedFunction]) -> Callable[..., Tensor]:
    """Return the function that stands in ``torchact.functional``."""
    activation = function.activation
    key, usual = activation.key, dict(activation.parameters)

    def functional(input: Tensor, *parameters: Any, **named: Any) -> Tensor:
        return function.call(input, *_chosen(key, usual, parameters, named))

    functional.__name__ = functional.__qualname__ = key
    functional.__module__ = "torchact.functional"
    functional.__doc__ = f"Apply {activation.name} elementwise; defined in ``{activation.origin}``."
    functional.__signature__ = _signature("input", usual)  # type: ignore[attr-defined]
    return catalogue.documented(key)(functional)


_NAMES = "_names_of_parameters"  # in a pickle's state: the definition that made it had these


class _ByName(type):
    """The kind of module classes that pickle by their activation's key and the module that defines it."""


class DefinedActivation(nn.Module, metaclass=_ByName):
    """The base of users' own activations as modules. Its arguments are the activation's parameters."""

    _function: ClassVar[type[DefinedFunction]]
    _usual: ClassVar[dict[str, Any]]

    def __init__(self, *parameters: Any, **named: Any) -> None:
        super().__init__()
        for name, value in zip(self._usual, _chosen(type(self).__name__, self._usual, parameters, named), strict=True):
            setattr(self, name, value)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, _NAMES: tuple(self._usual)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        names, known = state.pop(_NAMES, None), tuple(self._usual)
        if names is not None and set(names) != set(known):
            raise ValueError(
                f"{type(self).__name__}: it was pickled with the parameters {list(names)}, but is defined with "
                f"{list(known)} here; load it where it is defined with the former"
            )
        super().__setstate__(state)

    def forward(self, input: Tensor) -> Tensor:
        return self._function.call(input, *[getattr(self, name) for name in self._usual])

    def extra_repr(self) -> str:
        values = {name: getattr(self, name) for name in self._usual}
        return ", ".join(f"{name}={value!r}" for name, value in values.items() if not isinstance(value, Tensor))


def module_class_of(function: type[DefinedFunction]) -> type[DefinedActivation]:
    """Return the module class of a user's own activation."""
    activation = function.activation
    usual = dict(activation.parameters)
    attributes = {
        "_function": function,
        "_usual": usual,
        "__module__": activation.origin,
        "__doc__": f"{activation.name}, elementwise; defined in ``{activation.origin}``.",
        "__signature__": _signature(None, usual),
    }
    module_class = types.new_class(
        activation.name, (DefinedActivation,), exec_body=lambda body: body.update(attributes)
    )
    return catalogue.documented(activation.key)(module_class)


def module_class_named(key: str, origin: str) -> type[nn.Module]:
    """Return the module class of the user's own activation that a pickle names, and import what defines it.

    Raises:
        ValueError: it is not defined here, and importing ``origin`` does not define it.
    """
    record = catalogue.CATALOGUE.get(key)
    if record is None or record.origin is None or origin not in ("__main__", record.origin):
        try:
            record = catalogue.get(f"{origin}:{key}")
        except ValueError as error:
            raise ValueError(
                f"activation: {key!r} is not defined here; it was pickled where {origin!r} had defined it by "
                f"torchact.define, which must happen before it is loaded ({error})"
            ) from error
    return modules.MODULES[record.key]


def _reduced(module_class: Any) -> str | tuple[Any, ...]:
    if "_function" not in vars(module_class):
        return module_class.__qualname__  # a subclass, which an import finds, as any class
    activation = module_class._function.activation
    return module_class_named, (activation.key, activation.origin)


copyreg.pickle(_ByName, _reduced)


def _chosen(callee: str, usual: Mapping[str, Any], parameters: tuple[Any, ...], named: Mapping[str, Any]) -> list[Any]:
    """Return the values of all parameters, from those given by position, by name, and not at all."""
    if not parameters and not named:
        return list(usual.values())
    names = list(usual)
    by_position, by_name = names[: len(parameters)], names[len(parameters) :]
    for name in named:
        if name in by_position:
            raise TypeError(f"{callee}: got parameter {name!r} twice")
        if name not in by_name:
            raise TypeError(f"{callee}: expected parameters among {names}, got {name!r}")
    if len(parameters) > len(names):
        raise TypeError(f"{callee}: expected at most {len(names)} parameters, got {len(parameters)}")
    return [*parameters, *(named.get(name, usual[name]) for name in by_name)]


def _signature(first: str | None, usual: Mapping[str, Any]) -> inspect.Signature:
    either = inspect.Parameter.POSITIONAL_OR_KEYWORD
    own = [inspect.Parameter(first, either)] if first else []
    return inspect.Signature([*own, *(inspect.Parameter(name, either, default=usual[name]) for name in usual)])
