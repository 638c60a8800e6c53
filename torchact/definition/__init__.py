"""A user's own activation: :func:`define` registers it, and from then on it is treated like those of the catalogue."""

from torchact.definition.defining import define, undefine

__all__ = ["define", "undefine"]
