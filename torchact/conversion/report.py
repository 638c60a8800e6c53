"""What :func:`torchact.convert` hands back: what was replaced and what was not, in data and in words."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from torch import nn

from torchact import modules

_LONGEST_TEXT = 72
_MOST_PATHS = 2


@dataclass(frozen=True)
class Replaced:
    """One module that was converted, or one attribute of a module that held a function."""

    paths: tuple[str, ...]  #: where it stands in the model, "" for the model itself; several for a shared module
    before: str  #: its class, by its public name, or the attribute and its function
    after: str  #: the class that it has now, or the function


@dataclass(frozen=True)
class Left:
    """One activation that was not converted."""

    paths: tuple[str, ...]  #: the module, or all modules whose class makes the call
    what: str  #: the module's class, or the call and where it stands
    reason: str


@dataclass(frozen=True)
class Conversion:
    """What :func:`torchact.convert` did: modules in the order in which they are registered, then the calls they make.

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


def class_name(module_class: type[nn.Module]) -> str:
    """Return the name under which users import ``module_class``."""
    name = module_class.__name__
    if getattr(nn, name, None) is module_class:
        return f"torch.nn.{name}"
    if module_class in modules.MODULES.values():
        return f"torchact.{name}"
    return f"{module_class.__module__}.{module_class.__qualname__}"


def _table(title: str, rows: list[tuple[tuple[str, ...], str, str]]) -> list[str]:
    """Return the lines of a table with aligned columns; rows that differ in the place alone become one line."""
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    for paths, what, outcome in rows:
        places[what, outcome] += paths
    if not places:
        return []
    lines = [(_where(paths), _shortened(what), outcome) for (what, outcome), paths in places.items()]
    first, second = (max(len(line[column]) for line in lines) for column in (0, 1))
    return [title, *(f"  {where:<{first}}  {what:<{second}}  {outcome}" for where, what, outcome in lines)]


def _where(paths: list[str]) -> str:
    shown = ", ".join(path or "(model)" for path in paths[:_MOST_PATHS])
    return shown if len(paths) <= _MOST_PATHS else f"{shown}, ... ({len(paths)} places)"


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 3] + "..."
