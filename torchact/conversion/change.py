"""A decided change of one module, or the reason against it.

A module is converted by giving the object another class, not by putting another object where it stood. So every
reference to it, its hooks, its mode and its place in the state dict survive, whichever containers share it, and a model
that is itself one activation can be converted too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import nn


class Change(NamedTuple):
    """A conversion that is decided and cannot fail."""

    before: str  #: the class that the module has, or the function that its attribute holds, for the report
    after: str  #: what will be there
    apply: Callable[[], None]


class LeftAlone(Exception):
    """The reason why a module that is an activation stays as it is."""


def refuse_own_forward(module: nn.Module) -> None:
    """Raise where another class would change nothing, because the instance carries a ``forward`` that wins."""
    if "forward" in vars(module):
        raise LeftAlone("the instance carries a forward of its own")
