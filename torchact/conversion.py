"""Converting an existing model: its activation modules become torchact's, in place, and a report says what did not.

A module is converted by giving the object another class, not by putting another object where it stood. So every
reference to it, its hooks, its mode and its place in the state dict survive, whichever containers share it, and a model
that is itself one activation can be converted too.

Calls of torch's functions inside a Python ``forward`` cannot be replaced from outside. They are found by reading the
source, and reported.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import types
from collections import ChainMap, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, cast
from weakref import WeakValueDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import activation as torch_activations
from torch.nn.utils import parametrize

from torchact import catalogue, lookup, modules

__all__ = ["Conversion", "Left", "Replaced", "convert"]

ModuleClass = type[nn.Module]


@dataclass(frozen=True)
class Replaced:
    """One module that was converted."""

    paths: tuple[str, ...]  #: where it stands in the model, "" for the model itself; several for a shared module
    before: str  #: its class, by its public name
    after: str  #: the class that it has now


@dataclass(frozen=True)
class Left:
    """One activation that was not converted."""

    paths: tuple[str, ...]  #: the module, or all modules whose class makes the call
    what: str  #: the module's class, or the call as it is written and where
    reason: str


@dataclass(frozen=True)
class Conversion:
    """What :func:`convert` did, in the order in which the modules are registered.

    ``print`` it to read it; the text puts what is alike in one line, and of many places names the first.
    """

    replaced: tuple[Replaced, ...]
    left: tuple[Left, ...]

    def __str__(self) -> str:
        count = len(self.replaced)
        return "\n".join(
            (
                *_table("Replaced", [(it.paths, it.before, f"-> {it.after}") for it in self.replaced]),
                *_table("Left alone", [(it.paths, it.what, it.reason) for it in self.left]),
                f"Replaced {count} activation{'s' * (count != 1)}; left {len(self.left)} alone.",
            )
        )


def convert(
    model: nn.Module,
    mapping: Mapping[ModuleClass | str, ModuleClass | Callable[[], nn.Module] | str] | None = None,
) -> Conversion:
    """Replace torch.nn's activations by torchact's in ``model``, in place, or one kind of activation by another.

    Without a mapping, every module of torch.nn that torchact has a counterpart of becomes that counterpart; outputs and
    gradients stay equal. So does a module of a user's subclass: it remains an instance of that subclass, and is then an
    instance of torchact's class as well. Left alone, and reported, are

    - activations that torchact does not have (``nn.GELU``);
    - functional calls (``F.relu(x)``, ``x.sigmoid()``) in the methods of the model's modules and in the functions of
      the same package that these call, functions held by attributes, and what fused kernels compute (``nn.LSTM``);
    - modules whose forward is their own: subclasses that override it without calling torch's, instances that carry
      one, parametrized modules and TorchScript.

    With a mapping, the kinds it names are swapped and nothing else; the report then speaks of these kinds only. Call
    ``convert(model)`` as well for the rest. A swapped module takes its parameters and buffers from a new module of the
    other kind: convert before ``model.to(device)`` and before building the optimizer where that kind has any.

    The objects stay the same ones, with their hooks, train or eval mode and state-dict keys; shared modules stay
    shared. ``isinstance(module, nn.ReLU)`` holds as before, but ``type(module) is nn.ReLU`` no longer does, so fuse
    and quantise a model before converting it. ``torch.compile``, ``torch.export`` and ``torch.jit.trace`` take the
    result, ``torch.jit.script`` does not. Converting twice changes nothing more.

    Args:
        model: any module, also a single activation.
        mapping: from a kind to the kind that takes its place.

            A key is a module class, which its subclasses match too unless they override ``forward``, or an activation's
            name; the most specific key wins. A value is a module class or an activation's name, or a function without
            arguments that returns a new module. Classes and names take over ``inplace`` and ``dim`` from the module
            that they replace, and all parameters where one kind is a subclass of the other; a function's module is
            taken as it is.

    Returns:
        What was replaced, and what was left alone and why.

    Raises:
        TypeError: ``model`` is not a module, ``mapping`` not a mapping, or a key or value not one of the above.
        ValueError: a name in ``mapping`` is unknown, or two keys name the same class.

    Nothing was changed when an error is raised.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 4), nn.GELU(), nn.Sigmoid())
        >>> print(convert(model))
        Replaced
          1  torch.nn.ReLU     -> torchact.ReLU
          4  torch.nn.Sigmoid  -> torchact.Sigmoid
        Left alone
          3  torch.nn.GELU  torchact has no counterpart
        Replaced 2 activations; left 1 alone.
        >>> print(convert(model, {nn.Sigmoid: "tanh", nn.GELU: lambda: nn.LeakyReLU(0.2)}))
        Replaced
          3  torch.nn.GELU     -> torch.nn.LeakyReLU
          4  torchact.Sigmoid  -> torchact.Tanh
        Replaced 2 activations; left 0 alone.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {model!r} of type {type(model).__name__}")
    rule: _Rule = _ToCounterparts() if mapping is None else _ToMapped(mapping, model)
    places = _places(model)
    paths_by_class = _paths_by_class(places)
    replaced, left, changes = [], [], []
    for module, paths in places:
        try:
            change = _change(module, rule)
        except _LeftAloneError as obstacle:
            left.append(Left(paths, _name(type(module)), str(obstacle)))
        else:
            if change is not None:
                replaced.append(Replaced(paths, _name(type(module)), change.after))
                changes.append(change)
        left += [Left(paths, what, reason) for what, reason in _inside(module, rule)]
        class_paths = paths_by_class.pop(type(module), None)  # once a class, at its first module
        if class_paths is not None:
            left += [Left(class_paths, what, reason) for what, reason in _in_class(module, rule)]
    for change in changes:
        change.apply()
    return Conversion(tuple(replaced), tuple(left))


def _places(model: nn.Module) -> list[tuple[nn.Module, tuple[str, ...]]]:
    """Return each module once, with all its paths. What is inside TorchScript is TorchScript's own affair."""
    scripted = {id(it) for script in model.modules() if _is_scripted(script) for it in script.children()}
    found: dict[int, tuple[nn.Module, list[str]]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if id(module) not in scripted:
            found.setdefault(id(module), (module, []))[1].append(path)
    return [(module, tuple(paths)) for module, paths in found.values()]


def _paths_by_class(places: list[tuple[nn.Module, tuple[str, ...]]]) -> dict[ModuleClass, tuple[str, ...]]:
    by_class: dict[ModuleClass, list[str]] = defaultdict(list)
    for module, paths in places:
        by_class[type(module)] += paths
    return {module_class: tuple(paths) for module_class, paths in by_class.items()}


def _is_scripted(module: nn.Module) -> bool:
    return isinstance(module, torch.jit.ScriptModule)


# what an activation is ----------------------------------------------------------------------------

#: Each kind of activation in the catalogue: torch's module class, torchact's own where torch has none.
_KINDS: Mapping[ModuleClass, catalogue.Activation] = {
    activation.torch_module or modules.MODULES[activation.key]: activation
    for activation in catalogue.CATALOGUE.values()
}
_OWN_CLASSES = frozenset(modules.MODULES.values())
_UNCATALOGUED: tuple[ModuleClass, ...] = tuple(
    kind
    for kind in (getattr(torch_activations, name) for name in torch_activations.__all__)
    if kind not in _KINDS and kind is not nn.MultiheadAttention
)
_FUSED: Mapping[ModuleClass, tuple[ModuleClass, ...]] = {
    nn.LSTM: (nn.Sigmoid, nn.Tanh),
    nn.LSTMCell: (nn.Sigmoid, nn.Tanh),
    nn.GRU: (nn.Sigmoid, nn.Tanh),
    nn.GRUCell: (nn.Sigmoid, nn.Tanh),
    nn.MultiheadAttention: (nn.Softmax,),
}


def _kind_of(module_class: ModuleClass) -> ModuleClass | None:
    return next((kind for kind in module_class.__mro__ if kind in _KINDS), None)


def _functions_and_methods() -> tuple[dict[Any, ModuleClass], dict[str, ModuleClass]]:
    """Return the kind that each of torch's functions computes, and each method of ``Tensor`` by its name."""
    by_spelling = {spelling: kind for kind, record in _KINDS.items() for spelling in record.functional_spellings}
    by_name = {lookup.normalise(kind.__name__): kind for kind in _UNCATALOGUED}
    functions: dict[Any, ModuleClass] = {
        F.scaled_dot_product_attention: nn.Softmax,
        F.multi_head_attention_forward: nn.Softmax,
    }
    methods: dict[str, ModuleClass] = {}
    for namespace in (F, torch, torch.special, Tensor):
        for name in dir(namespace):
            kind = by_spelling.get(name) or (None if name[0] == "_" else by_name.get(lookup.normalise(name)))
            if kind is not None:
                functions[getattr(namespace, name)] = kind
                if namespace is Tensor:
                    methods[name] = kind
    return functions, methods


_FUNCTIONS, _METHODS = _functions_and_methods()
_FUNCTION_TYPES = tuple({type(function) for function in _FUNCTIONS})


def _function_in(value: Any) -> Any:
    """Return torch's activation function that ``value`` is or partially applies, else None."""
    while isinstance(value, (functools.partial, staticmethod)):
        value = value.func if isinstance(value, functools.partial) else value.__func__
    return value if isinstance(value, _FUNCTION_TYPES) and value in _FUNCTIONS else None


# which class it gets ------------------------------------------------------------------------------


class _LeftAloneError(Exception):
    """The reason why a module that is an activation stays as it is."""


class _Change(NamedTuple):
    """A conversion that is decided and cannot fail."""

    after: str
    apply: Callable[[], None]


class _Rule(Protocol):
    """What becomes of each module."""

    def covers(self, kind: ModuleClass) -> bool:
        """Return whether this kind of activation is to be converted."""

    def change(self, module: nn.Module) -> _Change | None:
        """Return what to do with ``module``, or None where it is no concern; raise the reason not to."""


def _change(module: nn.Module, rule: _Rule) -> _Change | None:
    if _is_scripted(module):
        raise _LeftAloneError("TorchScript cannot be changed")
    return rule.change(module)


def _check_swappable(module: nn.Module) -> None:
    if "forward" in vars(module):
        raise _LeftAloneError("the instance carries a forward of its own")
    if parametrize.is_parametrized(module):
        raise _LeftAloneError("parametrized")


class _ToCounterparts:
    """The rule without a mapping: torch.nn's module becomes torchact's."""

    def covers(self, kind: ModuleClass) -> bool:
        return True

    def change(self, module: nn.Module) -> _Change | None:
        before = type(module)
        kind = _kind_of(before)
        if kind is None:
            if isinstance(module, _UNCATALOGUED):
                raise _LeftAloneError("torchact has no counterpart")
            return None
        counterpart = modules.MODULES[_KINDS[kind].key]
        if isinstance(module, counterpart):
            return None
        _check_swappable(module)
        if _function_behind(kind.forward) not in set(_implementations(before, "forward")):
            raise _LeftAloneError("its class overrides forward")
        if before is kind:
            return _Change(_name(counterpart), functools.partial(_set_class, module, counterpart))
        try:
            after = _subclass(before, counterpart)
        except TypeError as error:
            raise _LeftAloneError(f"Python does not allow it: {error}") from error
        _check_layout(module, after)
        return _Change(f"{_name(after)}, {_name(counterpart)}", functools.partial(_set_class, module, after))


class _ToMapped:
    """The rule of a mapping: a module of a key's kind becomes one of the value's kind."""

    def __init__(self, mapping: Mapping[Any, Any], model: nn.Module) -> None:
        if not isinstance(mapping, Mapping):
            raise TypeError(
                f"mapping: expected a mapping from module classes to module classes, "
                f"got {mapping!r} of type {type(mapping).__name__}"
            )
        self.makers: dict[ModuleClass, Callable[[nn.Module], nn.Module | None]] = {}
        for key, value in mapping.items():
            kind = _kind_named(key)
            if kind in self.makers:
                raise ValueError(f"mapping: two keys name {_name(kind)}, the second is {key!r}; expected one")
            self.makers[kind] = _maker(kind, value)
        self.fused = {id(layer.activation) for layer in model.modules() if _has_fused_path(layer)}

    def covers(self, kind: ModuleClass) -> bool:
        return any(issubclass(kind, key) for key in self.makers)

    def change(self, module: nn.Module) -> _Change | None:
        bases = type(module).__mro__
        kind = next((base for base in bases if base in self.makers), None)
        if kind is None:
            return None
        _check_swappable(module)
        if any("forward" in vars(base) and base not in _OWN_CLASSES for base in bases[: bases.index(kind)]):
            raise _LeftAloneError("its class overrides forward; name that class in the mapping to swap it")
        if module._modules:
            raise _LeftAloneError("it contains other modules")
        if id(module) in self.fused:
            raise _LeftAloneError("in eval mode its TransformerEncoderLayer would go on computing this kind, fused")
        fresh = self.makers[kind](module)
        if fresh is None:
            return None
        fresh.train(module.training)
        _check_layout(module, type(fresh))
        return _Change(_name(type(fresh)), functools.partial(_become, module, fresh))


def _kind_named(key: Any) -> ModuleClass:
    if isinstance(key, str):
        activation = catalogue.get(key, "mapping")
        return activation.torch_module or modules.MODULES[activation.key]
    if isinstance(key, type) and issubclass(key, nn.Module):
        return key
    raise TypeError(f"mapping: expected keys that are module classes or activations' names, got {key!r}")


def _maker(kind: ModuleClass, value: Any) -> Callable[[nn.Module], nn.Module | None]:
    """Return what makes the new module for an old one, or None for one that needs no change."""
    if isinstance(value, str):
        activation = catalogue.get(value, "mapping")
        defaults = activation.parameters_of(modules.create(activation.key))
        return functools.partial(_make_alike, kind, modules.MODULES[activation.key], defaults)
    if isinstance(value, type) and issubclass(value, nn.Module):
        return functools.partial(_make_alike, kind, value, {})
    if isinstance(value, (type, nn.Module)) or not _is_callable_without_arguments(value):
        raise TypeError(
            f"mapping: expected values that are module classes, activations' names or functions without arguments "
            f"that return a module, got {value!r} for {_name(kind)}"
        )
    return functools.partial(_make_by, value, kind)


def _is_callable_without_arguments(value: Any) -> bool:
    if not callable(value) or _function_in(value) is not None:
        return False
    try:
        inspect.signature(value).bind()
    except TypeError:
        return False
    except ValueError:  # a builtin that does not tell its signature
        return True
    return True


def _make_alike(
    kind: ModuleClass, wanted: ModuleClass, defaults: Mapping[str, Any], module: nn.Module
) -> nn.Module | None:
    """Return a new module of class ``wanted`` with the parameters that mean the same in ``module``.

    ``inplace`` and ``dim`` say how and where an activation works. Others of one name can differ in meaning, as
    ``threshold`` does in ``nn.Threshold`` and ``nn.Softplus``, and are taken over between relatives only.
    """
    if type(module) is wanted:
        return None
    related = issubclass(wanted, kind) or isinstance(module, wanted)
    shared = {
        name: getattr(module, name)
        for name in _constructor_attributes(module)
        if name in inspect.signature(wanted).parameters and (related or name in ("inplace", "dim"))
    }
    try:
        return wanted(**{**defaults, **shared})
    except TypeError as error:
        raise TypeError(
            f"mapping: {_name(wanted)}, given for {_name(kind)}, cannot be made from {shared} alone ({error}); "
            f"expected a class that can, or a function such as lambda: {wanted.__name__}(...)"
        ) from error


def _make_by(factory: Callable[[], Any], kind: ModuleClass, module: nn.Module) -> nn.Module:
    fresh = factory()
    if not isinstance(fresh, nn.Module) or _is_scripted(fresh):
        raise TypeError(
            f"mapping: the function given for {_name(kind)} returned {fresh!r} of type {type(fresh).__name__}; "
            f"expected an ordinary torch.nn.Module"
        )
    return fresh


# giving it that class -----------------------------------------------------------------------------

_BOOKKEEPING = frozenset(vars(nn.Module()))
_CONTENTS = ("_parameters", "_buffers", "_non_persistent_buffers_set", "_modules")


def _constructor_attributes(module: nn.Module) -> list[str]:
    """Return the attributes that torch's constructors set from their arguments: it lists them in ``__constants__``."""
    return [name for name in getattr(module, "__constants__", ()) if name in vars(module) and name not in _BOOKKEEPING]


def _set_class(module: nn.Module, after: ModuleClass) -> None:
    object.__setattr__(module, "__class__", after)  # a class of the user's may have a __setattr__ with other ideas


def _check_layout(module: nn.Module, after: ModuleClass) -> None:
    """Find out whether Python allows the change of class, which it does not where ``__slots__`` differ."""
    before = type(module)
    try:
        _set_class(module, after)
    except TypeError as error:
        raise _LeftAloneError(f"Python does not allow it: {error}") from error
    _set_class(module, before)


def _become(module: nn.Module, fresh: nn.Module) -> None:
    """Turn ``module`` into what ``fresh`` is, but for its mode, its hooks and what others have attached to it."""
    state = vars(module)
    for name in _constructor_attributes(module):
        del state[name]
    for name in _CONTENTS:
        state[name].clear()
    _set_class(module, type(fresh))
    for name, value in vars(fresh).items():
        if name not in _BOOKKEEPING:
            state[name] = value
        elif isinstance(value, (dict, set)):  # hooks too: their keys are unique in the process
            state[name].update(value)


class _Subclassed(nn.Module):
    """The first base of the classes that :func:`_subclass` makes."""

    _origin: ClassVar[tuple[ModuleClass, ModuleClass]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Keep the class from the registries that the user's ``__init_subclass__`` may write: nobody wrote it."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Name the two classes that can be imported in place of this one."""
        before, counterpart = self._origin
        here = _subclass(before, counterpart)
        make, arguments, *state = cast(tuple[Any, ...], super().__reduce_ex__(protocol))
        importable = (before if item is here else item for item in (make, *arguments))
        return (_restore, (counterpart, *importable), *state)


#: Kept while there are instances, so that two modules of one class remain of one class.
_SUBCLASSES: WeakValueDictionary[tuple[ModuleClass, ModuleClass], ModuleClass] = WeakValueDictionary()


def _subclass(before: ModuleClass, counterpart: ModuleClass) -> ModuleClass:
    """Return ``before`` with ``counterpart`` put between it and the class of torch.nn that both inherit from."""
    origin = (before, counterpart)
    made = _SUBCLASSES.get(origin)
    if made is None:
        copied = {name: getattr(before, name) for name in ("__module__", "__qualname__", "__doc__")}
        namespace = {**copied, "_origin": origin}
        made = types.new_class(before.__name__, (_Subclassed, *origin), exec_body=lambda body: body.update(namespace))
        _SUBCLASSES[origin] = made
    return made


def _restore(counterpart: ModuleClass, make: Callable[..., nn.Module], *arguments: Any) -> nn.Module:
    """Unpickle a module of a class that :func:`_subclass` made."""
    module = make(*arguments)
    _set_class(module, _subclass(type(module), counterpart))
    return module


# what modules cannot be swapped -------------------------------------------------------------------


def _inside(module: nn.Module, rule: _Rule) -> Iterator[tuple[str, str]]:
    """Yield what ``module`` holds or computes itself that no swap of modules reaches, and why."""
    yield from _held_by(module, rule)
    fused = [kind.__name__ for kind in _fused_kinds(module) if rule.covers(kind)]
    if fused:
        when = " in eval mode" if _has_fused_path(module) else ""
        yield _name(type(module)), f"computes {' and '.join(fused)} in a fused kernel{when}"


def _in_class(module: nn.Module, rule: _Rule) -> Iterator[tuple[str, str]]:
    """Yield what ``module``'s class holds or computes for all its instances, likewise."""
    for base in type(module).__mro__:
        yield from _held_by(base, rule)
    yield from _calls_of(module, rule)


def _held_by(owner: nn.Module | type, rule: _Rule) -> Iterator[tuple[str, str]]:
    for name, value in vars(owner).items():
        choices = value.values() if isinstance(value, dict) else value
        held = choices if isinstance(value, (dict, list, tuple)) else (value,)
        for function in map(_function_in, held):
            if function is not None and rule.covers(_FUNCTIONS[function]):
                yield f"{name} = {function.__name__}", "a function held by an attribute; only modules are swapped"


def _has_fused_path(module: nn.Module) -> bool:
    """Return whether ``module`` holds an activation module that inference, fused, passes by."""
    return (
        isinstance(module, nn.TransformerEncoderLayer)
        and isinstance(module.activation, nn.Module)
        and bool(module.activation_relu_or_gelu)
    )


def _fused_kinds(module: nn.Module) -> tuple[ModuleClass, ...]:
    if isinstance(module, (nn.RNN, nn.RNNCell)):
        return (nn.ReLU if module.nonlinearity == "relu" else nn.Tanh,)
    if _has_fused_path(module):
        return (nn.ReLU if module.activation_relu_or_gelu == 1 else nn.GELU,)
    return next((kinds for fused, kinds in _FUSED.items() if isinstance(module, fused)), ())


# reading the source -------------------------------------------------------------------------------

_UNKNOWN = object()
_NOT_THE_USERS = (Path(str(torch.__file__)).parent, Path(__file__).parent)


class _Source(NamedTuple):
    tree: ast.Module
    text: str
    file: str
    line_offset: int  #: what to add to a line number in ``tree`` to get the one in ``file``

    def quote(self, expression: ast.expr, call: ast.Call | None) -> str:
        """Return the place of ``expression`` and how it, or the call of it, is written."""
        written = ast.get_source_segment(self.text, call or expression) or ""
        return f"{self.file}:{(expression.end_lineno or 0) + self.line_offset} {' '.join(written.split())}"


def _calls_of(module: nn.Module, rule: _Rule) -> Iterator[tuple[str, str]]:
    """Yield the functional calls that ``module``'s methods make, themselves or through functions of their package."""
    package = _package(type(module))
    pending = deque(_methods(type(module)))
    read = set()
    while pending:
        function = pending.popleft()
        if not _is_the_users(function) or function in read:
            continue
        read.add(function)
        source = _source(function)
        if source is None:
            if function.__name__ == "forward":
                yield _name(type(module)), "its source is not available: functional calls were not seen"
            continue
        names = _names_in(function, module)
        for expression, call in _reads(source.tree):
            kind = _kind_read(expression, call, names)
            value = _resolve(expression, names)
            if kind is not None and rule.covers(kind):
                yield source.quote(expression, call), "functional call; only modules are swapped"
            elif isinstance(value, types.FunctionType) and _package(value) == package:
                pending.append(value)


def _package(definition: Any) -> str:
    return (definition.__module__ or "").partition(".")[0]


def _methods(module_class: ModuleClass) -> Iterator[types.FunctionType]:
    """Yield what a call of an instance's methods may run, but for the constructor."""
    for name in dict.fromkeys(name for base in module_class.__mro__ for name in vars(base)):
        if name != "__init__":
            yield from _implementations(module_class, name)


def _implementations(module_class: ModuleClass, name: str) -> Iterator[types.FunctionType]:
    """Yield what a call of method ``name`` runs: the first definition in the MRO, the next where that calls super."""
    for base in module_class.__mro__:
        function = _function_behind(vars(base).get(name))
        if function is not None:
            yield function
            if not {"super", name} <= set(function.__code__.co_names):
                return


def _function_behind(attribute: Any) -> types.FunctionType | None:
    """Return the Python function that a class's attribute is, or wraps as a decorator does, else None."""
    if isinstance(attribute, (staticmethod, classmethod)):
        attribute = attribute.__func__
    if isinstance(attribute, types.FunctionType):
        attribute = inspect.unwrap(attribute)
    return attribute if isinstance(attribute, types.FunctionType) else None


def _is_the_users(function: types.FunctionType) -> bool:
    file = Path(function.__code__.co_filename)
    return not any(file.is_relative_to(folder) for folder in _NOT_THE_USERS)


def _source(function: types.FunctionType) -> _Source | None:
    file = function.__code__.co_filename.partition(" from ")[0]  # torch.fx adds where a graph was traced
    try:
        lines, first_line = inspect.getsourcelines(function)
        # A method is indented, and taking the indentation away would fail on a docstring that is not.
        text = ("if True:\n" if lines[0][:1].isspace() else "\n") + "".join(lines)
        tree = ast.parse(text)
    except (OSError, TypeError, SyntaxError):  # SyntaxError: a lambda in the middle of an expression
        return None
    return _Source(tree, text, Path(file).name, first_line - 2)


def _reads(tree: ast.Module) -> list[tuple[ast.Name | ast.Attribute, ast.Call | None]]:
    """Return each name and dotted name that is read, in the order of the text, with the call if it is called."""
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    reads = [
        (node, calls.get(id(node)))
        for node in ast.walk(tree)
        if isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load)
    ]
    return sorted(reads, key=lambda read: (read[0].end_lineno, read[0].end_col_offset))


def _names_in(function: types.FunctionType, module: nn.Module) -> Mapping[str, Any]:
    """Return what is known of the names that ``function`` sees: of its local variables, what ``self`` is."""
    code = function.__code__
    local = dict.fromkeys((*code.co_varnames, *code.co_cellvars), _UNKNOWN)
    if "self" in local:
        local["self"] = module
    enclosing = {}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # not assigned yet
            enclosing[name] = cell.cell_contents
    return ChainMap(local, enclosing, function.__globals__)


def _resolve(expression: ast.expr, names: Mapping[str, Any]) -> Any:
    """Return the object that a name or dotted name stands for, ``_UNKNOWN`` if that is known only when it runs."""
    if isinstance(expression, ast.Name):
        return names.get(expression.id, _UNKNOWN)
    if isinstance(expression, ast.Attribute):
        return _attribute(_resolve(expression.value, names), expression.attr)
    return _UNKNOWN


def _attribute(owner: Any, name: str) -> Any:
    """Look an attribute up without running anybody's code."""
    if isinstance(owner, (types.ModuleType, type)):
        return inspect.getattr_static(owner, name, None)
    if isinstance(owner, nn.Module):
        members = ChainMap(vars(owner), owner._parameters, owner._buffers, owner._modules)
        value = members.get(name, _UNKNOWN)
        return None if _function_in(value) is not None else value  # a held function is reported as such
    return _UNKNOWN if owner is _UNKNOWN or isinstance(owner, Tensor) else None


def _kind_read(expression: ast.expr, call: ast.Call | None, names: Mapping[str, Any]) -> ModuleClass | None:
    """Return the kind of activation that torch's function ``expression``, or a tensor's called method, computes."""
    function = _function_in(_resolve(expression, names))
    if function is not None:
        return _FUNCTIONS[function]
    if call is None or not isinstance(expression, ast.Attribute):
        return None
    owner = _resolve(expression.value, names)
    return _METHODS.get(expression.attr) if owner is _UNKNOWN or isinstance(owner, Tensor) else None


# writing the report -------------------------------------------------------------------------------

_LONGEST_TEXT = 72
_MOST_PATHS = 2


def _name(module_class: ModuleClass) -> str:
    """Return the name under which users import ``module_class``."""
    name = module_class.__name__
    if getattr(nn, name, None) is module_class:
        return f"torch.nn.{name}"
    if module_class in _OWN_CLASSES:
        return f"torchact.{name}"
    return f"{module_class.__module__}.{module_class.__qualname__}"


def _where(paths: list[str]) -> str:
    shown = ", ".join(path or "(model)" for path in paths[:_MOST_PATHS])
    return shown if len(paths) <= _MOST_PATHS else f"{shown}, ... ({len(paths)} places)"


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 3] + "..."


def _table(title: str, rows: list[tuple[tuple[str, ...], str, str]]) -> list[str]:
    """Return the lines of a table with aligned columns, those that differ in the place alone made one."""
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    for paths, what, outcome in rows:
        places[what, outcome] += paths
    if not places:
        return []
    lines = [(_where(paths), _shortened(what), outcome) for (what, outcome), paths in places.items()]
    first, second = (max(len(line[column]) for line in lines) for column in (0, 1))
    return [title, *(f"  {where:<{first}}  {what:<{second}}  {outcome}" for where, what, outcome in lines)]
