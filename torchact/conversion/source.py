"""Reading Python code without running it: which functions a method call runs, and which names these use."""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
from collections import ChainMap
from collections.abc import Iterator, Mapping
from types import FunctionType
from typing import Any, NamedTuple

from torch import Tensor, nn

_UNKNOWN = object()  # stands for what is known only when the code runs


class Use(NamedTuple):
    """A name, or a dotted name, that a function reads.

    ``str`` gives it as it is written, with what follows if it is called or indexed or both.
    """

    expression: ast.expr
    line: int
    value: Any  #: the object that it stands for
    method: str | None  #: the method's name, where it is called as that of a tensor or of what is not known

    def __str__(self) -> str:
        return ast.unparse(self.expression)

    @property
    def has_arguments(self) -> bool:
        """Whether it is a call with positional arguments, as a module's is and an activation method's need not be."""
        return isinstance(self.expression, ast.Call) and bool(self.expression.args)


def implementations(module_class: type[nn.Module], name: str) -> Iterator[FunctionType]:
    """Yield what a call of method ``name`` runs: the first definition in the MRO, the next where that calls super."""
    for base in module_class.__mro__:
        function: Any = vars(base).get(name)
        if type(function) in (FunctionType, staticmethod, classmethod):
            function = inspect.unwrap(function)
        if isinstance(function, FunctionType):
            yield function
            if not {"super", name} <= set(function.__code__.co_names):
                return


def methods(module_class: type[nn.Module]) -> Iterator[FunctionType]:
    """Yield all that a call of an instance's methods may run, but for the constructor."""
    for name in dir(module_class):
        if name != "__init__":
            yield from implementations(module_class, name)


def uses(function: FunctionType, module: nn.Module) -> list[Use] | None:
    """Return the names that ``function`` reads as a method of ``module``, or None where its source is not available."""
    tree = _syntax_tree(function)
    if tree is None:
        return None
    names = _names_in(function, module)
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    entries = {id(node.value): node for node in ast.walk(tree) if isinstance(node, ast.Subscript)}
    reads = [
        node
        for node in ast.walk(tree)
        if isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load)
    ]
    reads.sort(key=lambda node: (node.end_lineno, node.end_col_offset))
    return [_use(node, calls, entries, names) for node in reads]


def _use(
    node: ast.Name | ast.Attribute,
    calls: Mapping[int, ast.Call],
    entries: Mapping[int, ast.Subscript],
    names: Mapping[str, Any],
) -> Use:
    method = None
    if id(node) in calls and isinstance(node, ast.Attribute):
        owner = _resolve(node.value, names)
        method = node.attr if owner is _UNKNOWN or isinstance(owner, Tensor) else None
    indexed = entries.get(id(node), node)
    return Use(calls.get(id(indexed), indexed), node.end_lineno or 0, _resolve(node, names), method)


def _syntax_tree(function: FunctionType) -> ast.Module | None:
    """Return the function's definition, with the line numbers that it has in its file."""
    try:
        lines, first_line = inspect.getsourcelines(function)
        # A method is indented, and taking the indentation away would fail on a docstring that is not.
        opening = "if True:\n" if lines[0][:1].isspace() else "\n"
        tree = ast.parse(opening + "".join(lines))
    except (OSError, TypeError, SyntaxError):  # SyntaxError: a lambda in the middle of an expression
        return None
    ast.increment_lineno(tree, first_line - 2)
    return tree


def _names_in(function: FunctionType, module: nn.Module) -> Mapping[str, Any]:
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
    """Return the object that a name or dotted name stands for, without running anybody's code."""
    if isinstance(expression, ast.Name):
        return names.get(expression.id, _UNKNOWN)
    if not isinstance(expression, ast.Attribute):
        return _UNKNOWN
    owner = _resolve(expression.value, names)
    if isinstance(owner, nn.Module):  # its other attributes may change before the code runs
        members = ChainMap[str, Any](owner._parameters, owner._buffers, owner._modules)
        if expression.attr in members or expression.attr in vars(owner):
            return members.get(expression.attr, _UNKNOWN)
        return _of_class(type(owner), expression.attr)
    if owner is _UNKNOWN or isinstance(owner, Tensor):
        return _UNKNOWN
    return inspect.getattr_static(owner, expression.attr, None)


def _of_class(module_class: type[nn.Module], name: str) -> Any:
    """Return what an instance finds under ``name`` in its class, unless it is made or bound when the code runs."""
    value = inspect.getattr_static(module_class, name, None)
    if isinstance(value, staticmethod):  # no function itself: those of the class are read in any case
        return functools.partial(value.__func__)
    if value is None or (hasattr(type(value), "__get__") and not isinstance(value, functools.partial)):
        return _UNKNOWN  # None stands for what the instance gets later
    return value
