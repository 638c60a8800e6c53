"""Finding a thing by the name a user typed, and saying what exists when there is no such thing."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TypeVar

Entry = TypeVar("Entry")


def normalise(name: str) -> str:
    """Fold the spellings people use for one name: ``"Leaky-ReLU"`` and ``"leaky_relu"`` become ``"leakyrelu"``."""
    return "".join(character for character in name.casefold() if character.isalnum())


def find(table: Mapping[str, Entry], name: str, argument: str, aliases: Mapping[str, str] | None = None) -> Entry:
    """Return ``table``'s entry for ``name``, whatever its capitals, hyphens and underscores.

    Args:
        table: what exists, by its proper name.
        name: what the user typed.
        argument: the name of the argument it was given for; error messages begin with it.
        aliases: other names, each with the proper name that it stands for.

    Raises:
        TypeError: ``name`` is not a string.
        ValueError: nothing has that name; the message lists the nearest matches and all that exists.

    Example:
        >>> find({"leaky_relu": 1, "relu": 2}, "LeakyReLU", "activation")
        1
    """
    if not isinstance(name, str):
        raise TypeError(f"{argument}: expected a name (str), got {name!r} of type {type(name).__name__}")
    proper_names = {normalise(key): key for key in table}
    proper_names |= {normalise(alias): key for alias, key in (aliases or {}).items()}
    key = proper_names.get(normalise(name))
    if key is not None:
        return table[key]
    matches = difflib.get_close_matches(normalise(name), proper_names, n=3)
    nearest = list(dict.fromkeys(proper_names[match] for match in matches))
    hint = f"; did you mean {' or '.join(map(repr, nearest))}?" if nearest else "."
    raise ValueError(f"{argument}: unknown name {name!r}{hint} Available: {', '.join(table)}")
