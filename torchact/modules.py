"""The activations as modules. Each that torch.nn has too is a subclass of its counterpart there.

So ``isinstance(module, torch.nn.ReLU)`` still holds, and constructor, attributes, ``repr``, pickling and state dict are
torch's; only ``forward`` differs. The gated units add an argument.

Example:
    >>> import torch, torchact
    >>> torch.nn.Sequential(torch.nn.Linear(2, 2), torchact.LeakyReLU(0.1))[1]
    LeakyReLU(negative_slope=0.1)
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from torchact import catalogue, functional

if TYPE_CHECKING:
    from torchact.catalogue import Gate

__all__ = [
    "CELU",
    "ELU",
    "GEGLU",
    "GELU",
    "GLU",
    "SELU",
    "Bilinear",
    "BinaryStep",
    "GELUTanh",
    "Gaussian",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "Identity",
    "LeakyReLU",
    "LogSigmoid",
    "LogSoftmax",
    "Mish",
    "PReLU",
    "QuickGELU",
    "RReLU",
    "ReGLU",
    "ReLU",
    "ReLU6",
    "SiLU",
    "Sigmoid",
    "Sine",
    "Snake",
    "Softmax",
    "Softmax2d",
    "Softmin",
    "Softplus",
    "Softshrink",
    "Softsign",
    "SquaredReLU",
    "SwiGLU",
    "Swish",
    "Tanh",
    "Tanhshrink",
    "Threshold",
]


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


@catalogue.documented("logsigmoid")
class LogSigmoid(nn.LogSigmoid):
    """The logarithm of the logistic sigmoid, elementwise; the counterpart of :class:`torch.nn.LogSigmoid`."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.logsigmoid(input)


@catalogue.documented("softsign")
class Softsign(nn.Softsign):
    """x / (1 + abs(x)), elementwise; the counterpart of :class:`torch.nn.Softsign`."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.softsign(input)


@catalogue.documented("hardtanh")
class Hardtanh(nn.Hardtanh):
    """The clamp to an interval, elementwise; the counterpart of :class:`torch.nn.Hardtanh`."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.hardtanh(input, self.min_val, self.max_val, self.inplace)


@catalogue.documented("hardsigmoid")
class Hardsigmoid(nn.Hardsigmoid):
    """The piecewise linear sigmoid, elementwise; the counterpart of :class:`torch.nn.Hardsigmoid`."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.hardsigmoid(input, self.inplace)


@catalogue.documented("relu")
class ReLU(nn.ReLU):
    """The rectified linear unit, elementwise; the counterpart of :class:`torch.nn.ReLU`."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.relu(input, self.inplace)


@catalogue.documented("relu6")
class ReLU6(nn.ReLU6):
    """The ReLU that stops at 6, elementwise; the counterpart of :class:`torch.nn.ReLU6`."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.relu6(input, self.inplace)


@catalogue.documented("leaky_relu")
class LeakyReLU(nn.LeakyReLU):
    """The leaky ReLU, elementwise; the counterpart of :class:`torch.nn.LeakyReLU`."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.leaky_relu(input, self.negative_slope, self.inplace)


@catalogue.documented("prelu")
class PReLU(nn.PReLU):
    """The leaky ReLU with slopes that are learnt, elementwise; the counterpart of :class:`torch.nn.PReLU`."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.prelu(input, self.weight)


@catalogue.documented("rrelu")
class RReLU(nn.RReLU):
    """The leaky ReLU with random slopes in training, elementwise; the counterpart of :class:`torch.nn.RReLU`."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.rrelu(input, self.lower, self.upper, self.training, self.inplace)


@catalogue.documented("threshold")
class Threshold(nn.Threshold):
    """A value where a threshold is not exceeded, elementwise; the counterpart of :class:`torch.nn.Threshold`."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.threshold(input, self.threshold, self.value, self.inplace)


@catalogue.documented("squared_relu")
class SquaredReLU(nn.Module):
    """The square of the rectified linear unit, elementwise."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.squared_relu(input)


@catalogue.documented("elu")
class ELU(nn.ELU):
    """The exponential linear unit, elementwise; the counterpart of :class:`torch.nn.ELU`."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.elu(input, self.alpha, self.inplace)


@catalogue.documented("selu")
class SELU(nn.SELU):
    """The self-normalising exponential linear unit, elementwise; the counterpart of :class:`torch.nn.SELU`."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.selu(input, self.inplace)


@catalogue.documented("celu")
class CELU(nn.CELU):
    """The continuously differentiable ELU, elementwise; the counterpart of :class:`torch.nn.CELU`."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.celu(input, self.alpha, self.inplace)


@catalogue.documented("softplus")
class Softplus(nn.Softplus):
    """The smooth ReLU, elementwise; the counterpart of :class:`torch.nn.Softplus`."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.softplus(input, self.beta, self.threshold)


@catalogue.documented("silu")
class SiLU(nn.SiLU):
    """The sigmoid linear unit, elementwise; the counterpart of :class:`torch.nn.SiLU`."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.silu(input, self.inplace)


class _Learnable(nn.Module):
    """An activation with one parameter, a number or learnt, under the name that the catalogue has for it."""

    _key: str

    def _set(self, value: float, learnable: bool, num_parameters: int) -> None:
        self.learnable, self.num_parameters = learnable, num_parameters
        if num_parameters != 1 and not learnable:
            raise ValueError(f"num_parameters: expected 1 where the parameter is not learnable, got {num_parameters!r}")
        name = catalogue.CATALOGUE[self._key].learnable
        assert name is not None
        setattr(self, name, nn.Parameter(torch.full((num_parameters,), float(value))) if learnable else value)

    def extra_repr(self) -> str:
        name = catalogue.CATALOGUE[self._key].learnable
        if not self.learnable:
            return f"{name}={getattr(self, str(name))}"
        return f"learnable=True, num_parameters={self.num_parameters}"


@catalogue.documented("swish")
class Swish(_Learnable):
    """The Swish, elementwise.

    Args:
        beta: β, or where it begins if it is learnt.
        learnable: make ``beta`` a parameter of the module, a tensor of shape (``num_parameters``,).
        num_parameters: how many are learnt: 1, or one for each channel (dimension 1 of the input).

    Raises:
        ValueError: ``num_parameters`` is not 1 although nothing is learnt.
    """

    _key = "swish"

    beta: float | nn.Parameter

    def __init__(self, beta: float = 1.0, learnable: bool = False, num_parameters: int = 1) -> None:
        super().__init__()
        self._set(beta, learnable, num_parameters)

    def forward(self, input: Tensor) -> Tensor:
        return functional.swish(input, self.beta)


@catalogue.documented("quick_gelu")
class QuickGELU(nn.Module):
    """The sigmoid approximation of the GELU, elementwise."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.quick_gelu(input)


@catalogue.documented("gelu")
class GELU(nn.GELU):
    """The Gaussian error linear unit, elementwise; the counterpart of :class:`torch.nn.GELU`."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.gelu(input, approximate=self.approximate)


@catalogue.documented("gelu_tanh")
class GELUTanh(nn.Module):
    """The tanh approximation of the GELU, elementwise; :class:`GELU` with ``approximate="tanh"``."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.gelu_tanh(input)


@catalogue.documented("mish")
class Mish(nn.Mish):
    """The Mish, elementwise; the counterpart of :class:`torch.nn.Mish`."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.mish(input, self.inplace)


@catalogue.documented("hardswish")
class Hardswish(nn.Hardswish):
    """The piecewise quadratic Swish, elementwise; the counterpart of :class:`torch.nn.Hardswish`."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.hardswish(input, self.inplace)


@catalogue.documented("tanhshrink")
class Tanhshrink(nn.Tanhshrink):
    """x - tanh(x), elementwise; the counterpart of :class:`torch.nn.Tanhshrink`."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.tanhshrink(input)


@catalogue.documented("softshrink")
class Softshrink(nn.Softshrink):
    """The soft shrinkage, elementwise; the counterpart of :class:`torch.nn.Softshrink`."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.softshrink(input, self.lambd)


@catalogue.documented("hardshrink")
class Hardshrink(nn.Hardshrink):
    """The hard shrinkage, elementwise; the counterpart of :class:`torch.nn.Hardshrink`."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.hardshrink(input, self.lambd)


@catalogue.documented("gaussian")
class Gaussian(nn.Module):
    """The Gaussian bell, elementwise."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.gaussian(input)


@catalogue.documented("sine")
class Sine(nn.Module):
    """The sine wave of a SIREN, elementwise.

    Args:
        omega: the angular frequency ω.
    """

    def __init__(self, omega: float = 30.0) -> None:
        super().__init__()
        self.omega = omega

    def forward(self, input: Tensor) -> Tensor:
        return functional.sine(input, self.omega)

    def extra_repr(self) -> str:
        return f"omega={self.omega}"


@catalogue.documented("snake")
class Snake(_Learnable):
    """The Snake, elementwise.

    Args:
        alpha: α, or where it begins if it is learnt.
        learnable: make ``alpha`` a parameter of the module, a tensor of shape (``num_parameters``,).
        num_parameters: how many are learnt: 1, or one for each channel (dimension 1 of the input).

    Raises:
        ValueError: ``num_parameters`` is not 1 although nothing is learnt.
    """

    _key = "snake"

    alpha: float | nn.Parameter

    def __init__(self, alpha: float = 1.0, learnable: bool = False, num_parameters: int = 1) -> None:
        super().__init__()
        self._set(alpha, learnable, num_parameters)

    def forward(self, input: Tensor) -> Tensor:
        return functional.snake(input, self.alpha)


@catalogue.documented("softmax")
class Softmax(nn.Softmax):
    """The softmax along a dimension; the counterpart of :class:`torch.nn.Softmax`."""

    def forward(self, input: Tensor) -> Tensor:
        # Of the warning that `dim` is missing: two frames of Module's stand between the caller and this one.
        return functional.softmax(input, self.dim, _stacklevel=6)


@catalogue.documented("softmin")
class Softmin(nn.Softmin):
    """The softmin along a dimension; the counterpart of :class:`torch.nn.Softmin`."""

    def forward(self, input: Tensor) -> Tensor:
        # Of the warning that `dim` is missing: two frames of Module's stand between the caller and this one.
        return functional.softmin(input, self.dim, _stacklevel=6)


@catalogue.documented("log_softmax")
class LogSoftmax(nn.LogSoftmax):
    """The logarithm of the softmax along a dimension; the counterpart of :class:`torch.nn.LogSoftmax`."""

    def forward(self, input: Tensor) -> Tensor:
        # Of the warning that `dim` is missing: two frames of Module's stand between the caller and this one.
        return functional.log_softmax(input, self.dim, _stacklevel=6)


@catalogue.documented("softmax2d")
class Softmax2d(nn.Softmax2d):
    """The softmax over the channels of images; the counterpart of :class:`torch.nn.Softmax2d`."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.softmax2d(input)


class _Gated(nn.Module):
    """What the gated units have in common: the dimension they halve, and which half is the gate."""

    _key: str

    def __init__(self, dim: int = -1, *, gate: Gate = "second") -> None:
        super().__init__()
        self.dim, self.gate = dim, catalogue.checked_gate(gate)

    def forward(self, input: Tensor, other: Tensor | None = None) -> Tensor:
        function = getattr(functional, self._key)
        return function(input, **catalogue.CATALOGUE[self._key].parameters_of(self), other=other)

    def extra_repr(self) -> str:
        parameters = catalogue.CATALOGUE[self._key].parameters
        values = {name: getattr(self, name) for name in parameters}
        return ", ".join(
            f"{name}={value!r}" for name, value in values.items() if name == "dim" or value != parameters[name]
        )


@catalogue.documented("glu")
class GLU(_Gated, nn.GLU):
    """One half of the input, gated by the sigmoid of the other; the counterpart of :class:`torch.nn.GLU`.

    ``forward`` takes the packed input, or both halves: ``module(first, second)``.

    Args:
        dim: the dimension to halve.
        gate: which half is the gate, ``"second"`` as in torch's ``nn.GLU`` or ``"first"``.

    Raises:
        ValueError: ``gate`` is neither of the two.
    """

    _key = "glu"


@catalogue.documented("reglu")
class ReGLU(_Gated):
    """One half of the input, gated by the ReLU of the other.

    ``forward`` takes the packed input, or both halves: ``module(first, second)``.

    Args:
        dim: the dimension to halve.
        gate: which half is the gate, ``"second"`` as in torch's ``nn.GLU`` or ``"first"``.

    Raises:
        ValueError: ``gate`` is neither of the two.
    """

    _key = "reglu"


@catalogue.documented("geglu")
class GEGLU(_Gated):
    """One half of the input, gated by the GELU of the other.

    ``forward`` takes the packed input, or both halves: ``module(first, second)``.

    Args:
        dim: the dimension to halve.
        gate: which half is the gate, ``"second"`` as in torch's ``nn.GLU`` or ``"first"``.
        approximate: ``"none"`` or ``"tanh"``, as of :class:`GELU`.

    Raises:
        ValueError: ``gate`` is neither of the two.
    """

    _key = "geglu"

    def __init__(self, dim: int = -1, *, gate: Gate = "second", approximate: str = "none") -> None:
        super().__init__(dim, gate=gate)
        self.approximate = approximate


@catalogue.documented("swiglu")
class SwiGLU(_Gated):
    """One half of the input, gated by the Swish of the other.

    ``forward`` takes the packed input, or both halves: ``module(first, second)``.

    Args:
        dim: the dimension to halve.
        gate: which half is the gate, ``"second"`` as in torch's ``nn.GLU`` or ``"first"``.
        alpha: β of the Swish.
        limit: bounds what is gated to ± this, and the gate from above.
        offset: what is added to the half that is gated, after the limit.

    Raises:
        ValueError: ``gate`` is neither of the two.
    """

    _key = "swiglu"

    def __init__(
        self,
        dim: int = -1,
        *,
        gate: Gate = "second",
        alpha: float = 1.0,
        limit: float | None = None,
        offset: float = 0.0,
    ) -> None:
        super().__init__(dim, gate=gate)
        self.alpha, self.limit, self.offset = alpha, limit, offset


@catalogue.documented("bilinear")
class Bilinear(_Gated):
    """The product of both halves of the input.

    ``forward`` takes the packed input, or both halves: ``module(first, second)``.

    Args:
        dim: the dimension to halve.
        gate: which half is the gate, ``"second"`` as in torch's ``nn.GLU`` or ``"first"``.

    Raises:
        ValueError: ``gate`` is neither of the two.
    """

    _key = "bilinear"


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
    _modules := {activation.key: globals()[activation.name] for activation in catalogue.CATALOGUE.values()}
)

#: It keeps no class alive, so that of definitions that are replaced nothing stays.
_ACTIVATION_OF: WeakKeyDictionary[type[nn.Module], catalogue.Activation] = WeakKeyDictionary(
    {
        module_class: activation
        for activation in catalogue.CATALOGUE.values()
        for module_class in (activation.torch_module, MODULES[activation.key])
        if module_class is not None
    }
)


def register(activation: catalogue.Activation, module_class: type[nn.Module]) -> None:
    """Make known the module class of a user's own activation; :func:`torchact.define` does it."""
    _modules[activation.key] = globals()[activation.name] = module_class
    _ACTIVATION_OF[module_class] = activation
    __all__.append(activation.name)


def forget(key: str) -> None:
    """Take back what :func:`register` did; modules that exist are still known for what they are."""
    name = _modules.pop(key).__name__
    del globals()[name]
    __all__.remove(name)


def activation_of(module: nn.Module) -> catalogue.Activation | None:
    """Return the record of the activation that ``module`` is, torch's, torchact's or a subclass, else None."""
    return next((_ACTIVATION_OF[base] for base in type(module).__mro__ if base in _ACTIVATION_OF), None)


def has_own_forward(module: nn.Module) -> bool:
    """Whether an activation computes what torch's or torchact's class does, and no subclass something else besides."""
    known: Any = next((base for base in type(module).__mro__ if base in _ACTIVATION_OF), None)
    own: Any = type(module)
    return known is not None and own.forward is known.forward and "forward" not in vars(module)


def create(name: str, **parameters: Any) -> nn.Module:
    """Return a new module of the activation called ``name``, with the catalogue's usual parameters.

    A softmax runs over the last dimension.

    Args:
        name: any name of the activation.
        **parameters: arguments of the module's constructor that are to be others than usual.

    Raises:
        ValueError: no activation has that name.
    """
    activation = catalogue.get(name)
    usual = {name: value for name, value in activation.parameters.items() if name != activation.learnable}
    if usual.get("dim", -1) is None:  # torch's choice of one is deprecated
        usual["dim"] = -1
    return MODULES[activation.key](**{**usual, **parameters})
