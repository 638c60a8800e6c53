"""``torchact.define``: everything is checked and found out first, then the activation is registered everywhere."""

from __future__ import annotations

import functools
import inspect
import itertools
import keyword
import math
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from torchact import catalogue, functional, kernels, lookup, modules
from torchact.catalogue import Activation, TensorFunction, record
from torchact.definition import examination, features
from torchact.definition.differentiation import by_autograd, taking
from torchact.definition.examination import Formulas, Sample
from torchact.definition.registered import function_of, functional_of, module_class_of

Kinks = Collection[float] | Callable[..., Collection[float]]


def define(
    key: str,
    *,
    value: TensorFunction,
    derivative: TensorFunction | None = None,
    second_derivative: TensorFunction | None = None,
    parameters: Mapping[str, Any] | None = None,
    name: str | None = None,
    range: tuple[float, float] | None = None,
    monotone: bool | None = None,
    kinks: Kinks = (),
    formula: str = "",
    derivative_formula: str = "",
    aliases: Collection[str] = (),
    source: str = "",
    module: str | None = None,
) -> type[nn.Module]:
    r"""Define an activation of your own, φ, and return its module class.

    From then on it is treated like those of the catalogue: ``torchact.functional`` has it as a function, and
    ``torchact.catalogue.get``, :func:`torchact.convert`, the monitor, the theory and the experiments know its name.
    Where another process is to know it too, as the workers of an experiment, call it
    ``"my_package.my_module:bent_identity"``: the module is imported, and must define it at its top level.

    What is given is checked, in float64 and float32 on [-100, 100] and at some points outside. What is not given is
    found out there: derivatives by autograd, range and monotonicity on a grid, and kinks, where φ or φ' jumps, by
    bisection. Of kinks nearer to each other than 1/64, or beyond ±100, give those that you know of.

    Shapes and dtypes: function and module take a tensor of any shape and return one of that shape and dtype. On the CPU
    both directions are computed in float64 and rounded once, in every floating-point type. Under ``torch.compile`` and
    the transforms of ``torch.func`` the plain ``value`` runs, and PyTorch differentiates it.

    Defining a key again from the same module replaces it, so that a notebook's cell can be run twice. Modules made
    before keep the former definition.

    Args:
        key: the name of the function: an identifier in lower case that no other activation has as a key, name or alias.
        value: φ(x, ``**parameters``) in plain torch, elementwise and differentiable by autograd, which is compared with
            differences. Tensors that are learnt are parameters of it.
        derivative: φ', of the same arguments; at a kink it is up to you. Without it, autograd differentiates ``value``.
            It is checked with the usual parameters, and with other numbers and truth values; of a string, only with
            the usual one.
        second_derivative: φ'', likewise; without it, autograd differentiates φ'.
        parameters: the keyword parameters of ``value`` with their usual values; by default those that its signature
            gives a default, but for ``inplace``. Function and module take them as arguments. One that is given as a
            tensor, such as an ``nn.Parameter``, broadcasts as ``value`` has it, and autograd takes its gradient.
        name: the name of the module class, by default ``key`` in camel case.
        range: infimum and supremum of φ with the usual parameters.
        monotone: whether φ with the usual parameters never falls.
        kinks: where φ or φ' jumps, or a function of the parameters (as keywords) that returns it; what else is found
            within ±100 is added.
        formula: φ(x) in LaTeX, for the documentation.
        derivative_formula: φ'(x) in LaTeX.
        aliases: other names.
        source: the paper.
        module: the module that defines it when imported, by default the caller's.

    Raises:
        TypeError: what is to be a function or a name is none.
        ValueError: ``key``, ``name`` or an alias is no identifier or taken; ``value`` is not elementwise, changes shape
            or dtype, does what autograd does not see, depends on another tensor that requires grad, needs parameters
            without a usual value, or gives NaN, itself or its derivative; a parameter's name belongs to
            ``torch.nn.Module`` or begins with an underscore; a derivative, ``range`` or ``monotone`` is wrong. The
            message names the argument and the point, and nothing is registered.

    Example:
        >>> import torch, torchact
        >>> BentIdentity = torchact.define(
        ...     "bent_identity",
        ...     value=lambda x: (torch.sqrt(x * x + 1) - 1) / 2 + x,
        ...     derivative=lambda x: x / (2 * torch.sqrt(x * x + 1)) + 1,
        ... )
        >>> torchact.functional.bent_identity(torch.tensor([-2.0, 0.0, 2.0]))
        tensor([-1.3820,  0.0000,  2.6180])
        >>> print(torchact.convert(torch.nn.Sequential(torch.nn.ReLU()), {torch.nn.ReLU: "bent_identity"}))
        Replaced
          0  torch.nn.ReLU  -> torchact.BentIdentity
        Replaced 1 activation; left 0 alone.
        >>> torchact.define("bent_identity", value=torch.tanh, derivative=lambda x: 1 - torch.tanh(x))
        Traceback (most recent call last):
        ...
        ValueError: derivative: at x = -1.51065 it gives 1.90705458, but φ' by autograd of value is 0.177251984
        >>> torchact.catalogue.get("bent_identity").range, torchact.catalogue.get("bent_identity").monotone
        ((-inf, inf), True)
        >>> torchact.definition.undefine("bent_identity")
    """
    origin = _origin(module if module is not None else sys._getframe(1).f_globals.get("__name__"))
    functions = {"value": value, "derivative": derivative, "second_derivative": second_derivative}
    given = _given(functions)
    name = _camel_case(key) if name is None else name
    _check_names(key, name, aliases, origin)
    usual = _usual_parameters(value, parameters)
    formulas = _completed({argument: taking(given[argument], usual) for argument in given}, usual)
    kinks_with = _finder_of_kinks(formulas.value, kinks)
    examination.check(formulas, given.keys() - {"value"}, kinks_with)
    phi = Sample("value", formulas.value, usual)
    activation = Activation(
        key=key,
        name=name,
        formula=formula or rf"\operatorname{{{_in_latex(key)}}}(x)",
        derivative_formula=derivative_formula or rf"\operatorname{{{_in_latex(key)}}}'(x)",
        value=formulas.value,
        derivative=formulas.derivative,
        second_derivative=formulas.second_derivative,
        parameters=usual,
        range=_range(phi, range),
        monotone=_monotone(phi, monotone),
        moving_kinks=kinks_with,
        saves="input",
        aliases=tuple(aliases),
        source=source or f"defined in ``{origin}``",
        origin=origin,
    )
    return _register(activation)


def undefine(key: str) -> None:
    """Take back a definition: its name is free again. Modules that exist go on working.

    Raises:
        ValueError: no definition has that key.
    """
    activation = catalogue.CATALOGUE.get(key)
    if activation is None or activation.origin is None:
        defined = [known.key for known in catalogue.CATALOGUE.values() if known.origin is not None]
        raise ValueError(f"key: {key!r} is not defined; expected one of {defined}")
    package = sys.modules["torchact"]
    if getattr(package, activation.name, None) is modules.MODULES[key]:
        delattr(package, activation.name)
    for registry in (modules, functional, kernels, catalogue):
        registry.forget(key)
    record._max_derivative.cache_clear()  # which keeps the records that it was asked about


def _register(activation: Activation) -> type[nn.Module]:
    """Make an activation known everywhere; nothing in here can fail."""
    key = activation.key
    if key in catalogue.CATALOGUE:
        undefine(key)
    catalogue.register(activation)
    kernels.register(key, kernels.rounded_once(activation.value, activation.derivative))
    function = function_of(activation)
    functional.register(key, functional_of(function))
    module_class = module_class_of(function)
    modules.register(activation, module_class)
    package = sys.modules["torchact"]
    if not hasattr(package, activation.name):
        setattr(package, activation.name, module_class)
    return module_class


def _origin(module: str | None) -> str:
    """Return the name of the module that a definition is imported from, ``__main__`` for a script or a notebook."""
    return "__main__" if module is None or module == "__mp_main__" else module  # the latter: a script in a worker


def _given(functions: Mapping[str, Any]) -> dict[str, TensorFunction]:
    """Return the functions that were given, or raise where one is none."""
    for argument, function in functions.items():
        if not callable(function) and (function is not None or argument == "value"):
            raise TypeError(f"{argument}: expected a function of a tensor, got {function!r}")
    return {argument: function for argument, function in functions.items() if function is not None}


def _completed(given: Mapping[str, TensorFunction], usual: Mapping[str, Any]) -> Formulas:
    """Return all formulas; autograd provides those that are missing."""
    value = given["value"]
    derivative = given.get("derivative") or by_autograd(value)
    return Formulas(usual, value, derivative, given.get("second_derivative") or by_autograd(derivative))


def _camel_case(key: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in str(key).split("_"))


def _in_latex(key: str) -> str:
    return key.replace("_", r"\_")


def _check_names(key: str, name: str, aliases: Collection[str], origin: str) -> None:
    """Raise where a name is none or belongs to something else. What is defined again is that: one of the same key."""
    for argument, given in (("key", key), ("name", name)):
        if not isinstance(given, str):
            raise TypeError(f"{argument}: expected a name (str), got {given!r} of type {type(given).__name__}")
        if not given.isidentifier() or keyword.iskeyword(given) or given.startswith("_"):
            raise ValueError(f"{argument}: expected an identifier, such as 'bent_identity', got {given!r}")
    if key != key.lower():
        raise ValueError(f"key: expected lower case, got {key!r}; name is the one of the module class")
    if isinstance(aliases, str):
        raise TypeError(f"aliases: expected a collection of names, got the string {aliases!r}")
    former = catalogue.CATALOGUE.get(key)
    if former is not None and former.origin is None:
        raise ValueError(f"key: {key!r} is torchact's own; choose another")
    if former is not None and former.origin != origin and "__main__" not in (former.origin, origin):
        raise ValueError(f"key: {key!r} is defined by {former.origin!r} already; choose another for {origin!r}")
    _check_free(key, former, {"key": [key], "name": [name], "aliases": [*aliases]})
    for argument, given, place in (("key", key, functional), ("name", name, modules)):
        if hasattr(place, given) and (former is None or given not in (former.key, former.name)):
            raise ValueError(f"{argument}: {given!r} means something else in {place.__name__}; choose another")


def _check_free(key: str, former: Activation | None, names: Mapping[str, list[str]]) -> None:
    others = [other for other in catalogue.CATALOGUE.values() if other is not former]
    taken = {
        lookup.normalise(spelling): other.key
        for other in others
        for spelling in (other.key, other.name, *other.aliases)
    }
    for argument, spellings in names.items():
        for spelling in spellings:
            if not lookup.normalise(spelling):
                raise ValueError(f"{argument}: expected names with letters or digits, got {spelling!r} for {key!r}")
            if lookup.normalise(spelling) in taken:
                owner = taken[lookup.normalise(spelling)]
                raise ValueError(f"{argument}: {spelling!r} is a name of {owner!r}; choose another")


def _usual_parameters(value: TensorFunction, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the parameters with their usual values: those given, else those that the signature gives a default."""
    try:
        _, *others = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):  # a function in C, or one that takes nothing
        others = []
    named = [other for other in others if other.kind in (other.POSITIONAL_OR_KEYWORD, other.KEYWORD_ONLY)]
    usual = {other.name: other.default for other in named if other.default is not other.empty}
    usual = {name: default for name, default in usual.items() if name != "inplace"} if given is None else dict(given)
    for other in named:
        if other.default is other.empty and other.name not in usual:
            raise ValueError(f"value: parameter {other.name!r} has no usual value; give it in parameters={{...}}")
    reserved = nn.Module()
    for name, default in usual.items():
        if default is not None and not isinstance(default, (int, float, str)):
            raise ValueError(f"parameters: expected {name!r} to be a number, a string or None, got {default!r}")
        if name.startswith("_"):
            raise ValueError(f"parameters: expected names without a leading underscore, such as 'alpha', got {name!r}")
        if not name.isidentifier() or keyword.iskeyword(name) or name == "input" or hasattr(reserved, name):
            raise ValueError(f"parameters: expected names that a torch.nn.Module leaves free, got {name!r}")
    return usual


def _finder_of_kinks(value: TensorFunction, stated: Kinks) -> Callable[..., tuple[float, ...]]:
    """Return a function of the parameters that returns where φ or φ' jumps, and remembers it.

    Of a parameter that is a tensor, it returns where that is for any of its entries.
    """
    find = functools.lru_cache(maxsize=128)(functools.partial(_kinks, value, stated))

    def kinks_with(**parameters: Any) -> tuple[float, ...]:
        entries = {
            name: sorted(set(given.detach().flatten().tolist())) if isinstance(given, Tensor) else [given]
            for name, given in parameters.items()
        }
        chosen = [dict(zip(entries, numbers, strict=True)) for numbers in itertools.product(*entries.values())]
        return tuple(sorted({place for choice in chosen for place in find(**choice)}))

    return kinks_with


def _kinks(value: TensorFunction, stated: Kinks, **parameters: Any) -> tuple[float, ...]:
    """Return where φ or φ' jumps with these parameters, as the user states it and as it is found."""
    places = [float(place) for place in (stated(**parameters) if callable(stated) else stated)]
    if not all(map(math.isfinite, places)):
        raise ValueError(f"kinks: expected finite numbers, got {places}")
    phi = Sample("value", value, parameters)
    found = features.jumps(phi, replace(phi, function=by_autograd(value)))
    unstated = [x for x in found if all(abs(x - place) > 1e-9 * max(1.0, abs(x)) for place in places)]
    return tuple(sorted({*places, *unstated}))


def _range(phi: Sample, given: tuple[float, float] | None) -> tuple[float, float]:
    """Return infimum and supremum, or raise where those given are too narrow."""
    found = features.extent(phi)
    if given is None:
        return found
    try:
        low, high = map(float, given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"range: expected infimum and supremum of value, got {given!r}") from error
    slack = features.TOLERANCE * features.scale_of(phi(features.GRID))
    if not (low - slack <= found[0] and found[1] <= high + slack):
        raise ValueError(
            f"range: expected bounds that value keeps, got {given!r}; it goes from {found[0]:.9g} to {found[1]:.9g}"
        )
    return low, high


def _monotone(phi: Sample, given: bool | None) -> bool:
    """Return whether φ never falls, or raise where that is stated and it does."""
    fall = features.first_fall(phi)
    if given and fall is not None:
        raise ValueError(f"monotone: expected False, got {given!r}; value falls left of x = {fall:g}")
    return fall is None if given is None else bool(given)
