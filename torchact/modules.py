"""The activations as modules. Each is a subclass of its counterpart in ``torch.nn``.

So ``isinstance(module, torch.nn.ReLU)`` still holds, and constructor, attributes, ``repr``, pickling and state dict are
torch's; only ``forward`` differs.

Example:
    >>> import torch, torchact
    >>> torch.nn.Sequential(torch.nn.Linear(2, 2), torchact.LeakyReLU(0.1))[1]
    LeakyReLU(negative_slope=0.1)
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from torch import Tensor, nn

from torchact import catalogue, functional

__all__ = ["BinaryStep", "Identity", "LeakyReLU", "ReLU", "Sigmoid", "Softmax", "Tanh"]


@catalogue.documented("sigmoid")
class Sigmoid(nn.Sigmoid):
    """The logistic sigmoid, elementwise; the counterpart of :class:`torch.nn.Sigmoid`."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.sigmoid(input)


@catalogue.documented("tanh")
class Tanh(nn.Tanh):
    """The hyperbolic tangent, elementwise; the counterpart of :class:`torch.nn.Tanh`."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.tanh(input)


@catalogue.documented("relu")
class ReLU(nn.ReLU):
    """The rectified linear unit, elementwise; the counterpart of :class:`torch.nn.ReLU`."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.relu(input, self.inplace)


@catalogue.documented("leaky_relu")
class LeakyReLU(nn.LeakyReLU):
    """The leaky ReLU, elementwise; the counterpart of :class:`torch.nn.LeakyReLU`."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.leaky_relu(input, self.negative_slope, self.inplace)


@catalogue.documented("softmax")
class Softmax(nn.Softmax):
    """The softmax along a dimension; the counterpart of :class:`torch.nn.Softmax`."""

    def forward(self, input: Tensor) -> Tensor:
        # Of the warning that `dim` is missing: two frames of Module's stand between the caller and this one.
        return functional.softmax(input, self.dim, _stacklevel=6)


@catalogue.documented("binary_step")
class BinaryStep(nn.Module):
    """1 where the input is ≥ 0 and 0 elsewhere, elementwise.

    Args:
        surrogate: ``None`` for the true derivative, exactly zero, or the name of a surrogate derivative; see
            :func:`torchact.functional.binary_step`.

    Raises:
        ValueError: ``surrogate`` names no surrogate.
    """

    def __init__(self, surrogate: str | None = None) -> None:
        super().__init__()
        self.surrogate = None if surrogate is None else catalogue.surrogate(surrogate).key

    def forward(self, input: Tensor) -> Tensor:
        return functional.binary_step(input, self.surrogate)

    def extra_repr(self) -> str:
        return "" if self.surrogate is None else f"surrogate={self.surrogate!r}"


@catalogue.documented("identity")
class Identity(nn.Identity):
    """The identity, also called the linear activation; the counterpart of :class:`torch.nn.Identity`."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.identity(input)


#: Each activation's module class, by catalogue key.
MODULES: Mapping[str, type[nn.Module]] = MappingProxyType(
    {activation.key: globals()[activation.name] for activation in catalogue.CATALOGUE.values()}
)

_ACTIVATION_OF: Mapping[type[nn.Module], catalogue.Activation] = MappingProxyType(
    {
        module_class: activation
        for activation in catalogue.CATALOGUE.values()
        for module_class in (activation.torch_module, MODULES[activation.key])
        if module_class is not None
    }
)


def activation_of(module: nn.Module) -> catalogue.Activation | None:
    """Return the record of the activation that ``module`` is, torch's, torchact's or a subclass, else None."""
    return next((_ACTIVATION_OF[base] for base in type(module).__mro__ if base in _ACTIVATION_OF), None)


def create(name: str) -> nn.Module:
    """Return a new module of the activation called ``name``; a softmax runs over the last dimension.

    Raises:
        ValueError: no activation has that name.
    """
    activation = catalogue.get(name)
    return MODULES[activation.key](**({"dim": -1} if "dim" in activation.parameters else {}))
