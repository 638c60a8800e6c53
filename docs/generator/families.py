"""The catalogue by families, one a file of it."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from typing import NamedTuple

from torchact import catalogue
from torchact.catalogue import CATALOGUE, Activation


class Family(NamedTuple):
    """The activations in one file of the catalogue."""

    name: str
    description: str
    activations: tuple[Activation, ...]

    @property
    def anchor(self) -> str:
        """The label of its section."""
        return f"family-{self.name.replace(' ', '-')}"


@functools.cache
def families() -> tuple[Family, ...]:
    """Return the families in the catalogue's order, each described by the first paragraph of its file."""
    found = []
    for file in pkgutil.iter_modules(catalogue.__path__):
        module = importlib.import_module(f"{catalogue.__name__}.{file.name}")
        if hasattr(module, "ACTIVATIONS"):
            description = inspect.cleandoc(module.__doc__ or "").partition("\n\n")[0]
            found.append(Family(file.name.replace("_", " "), description, module.ACTIVATIONS))
    order = list(CATALOGUE)
    return tuple(sorted(found, key=lambda family: order.index(family.activations[0].key)))


def family_of(activation: Activation) -> Family:
    """Return the family that an activation is in."""
    return next(family for family in families() if activation in family.activations)
