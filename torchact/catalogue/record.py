"""What a record of the catalogue holds."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

TensorFunction = Callable[..., Tensor]


def input_type(first: Tensor, *others: Tensor) -> torch.dtype:
    """Return the dtype of the first operand: that of the others, which are parameters, does not count."""
    return first.dtype


def promoted_type(first: Tensor, second: Tensor) -> torch.dtype:
    """Return the dtype that holds the numbers of both operands, which count alike."""
    return torch.promote_types(first.dtype, second.dtype)


class Pair(NamedTuple):
    """A function of two tensors and its derivatives by each, in plain torch."""

    value: TensorFunction
    partials: Callable[..., tuple[Tensor, Tensor]]
    result_type: Callable[..., torch.dtype] = input_type  #: the dtype of the result, from both operands


@dataclass(frozen=True, kw_only=True, eq=False)
class Activation:
    """The record of one activation φ.

    ``value``, ``derivative`` and ``second_derivative`` take the pre-activation and the activation's parameters, and are
    plain torch: they are the reference that everything else is tested against. No finite input gives them, or what
    autograd makes of them, a NaN. At a kink they give torch's convention.

    Where φ is not elementwise they are the diagonal entries ∂y_i/∂x_i and ∂²y_i/∂x_i² (softmax), or the derivatives of
    the one output that each input has a part in (gated units).
    """

    key: str  #: name of the function in ``torchact.functional`` and of the file, test and label of everything about it
    name: str  #: name of the module class in ``torchact``
    formula: str  #: φ(x) in LaTeX
    derivative_formula: str  #: φ'(x) in LaTeX
    value: TensorFunction
    derivative: TensorFunction
    second_derivative: TensorFunction
    pair: Pair | None = None  #: φ of input and learnable parameter, or of both halves of a gated unit (value, gate)
    parameters: Mapping[str, Any] = field(default_factory=dict)  #: keyword parameters with their usual values
    learnable: str | None = None  #: the parameter that may be a tensor, and then has a gradient
    range: tuple[float, float]  #: infimum and supremum of φ with the usual parameters
    monotone: bool  #: whether φ with the usual parameters never falls
    kind: Literal["elementwise", "normalised", "gated"] = "elementwise"
    kinks: tuple[float, ...] = ()  #: where φ or φ' jumps, with the usual parameters
    moving_kinks: Callable[..., tuple[float, ...]] | None = None  #: where, if it depends on the parameters
    saves: Literal["nothing", "input", "output"]  #: the tensor that the backward pass keeps alive
    torch_function: TensorFunction | None = None  #: torch's own functional form
    torch_module: type[nn.Module] | None = None  #: torch's own module
    functional_spellings: tuple[str, ...] = ()  #: names under which torch or Tensor offers it as a function or method
    aliases: tuple[str, ...] = ()
    source: str  #: the paper that introduced it or established its use
    origin: str | None = None  #: of a user's own, the module that defines it when imported

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", MappingProxyType(dict(self.parameters)))
        if self.moving_kinks is not None:
            object.__setattr__(self, "kinks", self.kinks_with())

    @property
    def elementwise(self) -> bool:
        """Whether each output depends on one input."""
        return self.kind == "elementwise"

    @property
    def importable_name(self) -> str:
        """A name that another process knows too: of a user's own, with the module to import."""
        return self.key if self.origin is None else f"{self.origin}:{self.key}"

    def kinks_with(self, **parameters: Any) -> tuple[float, ...]:
        """Return where φ or φ' jumps with these parameters; those not given have their usual values."""
        if self.moving_kinks is None:
            return self.kinks
        return tuple(sorted(self.moving_kinks(**{**self.parameters, **parameters})))

    def max_derivative(self, **parameters: Any) -> float:
        """Return max |φ'|, over a float64 grid on [-16, 16] that is refined at the maximum, and far outside.

        It is infinite where φ' is unbounded. Of a gated unit it is that of the gate, the other half being 1.

        Args:
            **parameters: the activation's parameters; those not given have their usual values. Of a learnable one that
                is a tensor, the largest result for any of its entries.
        """
        names = [name for name, value in parameters.items() if isinstance(value, Tensor)]
        entries = [parameters[name].detach().flatten().tolist() for name in names]
        return max(
            _max_derivative(self, tuple(sorted({**parameters, **dict(zip(names, numbers, strict=True))}.items())))
            for numbers in itertools.product(*entries)
        )

    def parameters_of(self, module: nn.Module) -> dict[str, Any]:
        """Return this activation's parameters as ``module`` holds them, under the same attribute names.

        torch's ``nn.GLU`` has no ``gate``: what a module does not have is the usual.
        """
        return {name: getattr(module, name, usual) for name, usual in self.parameters.items()}


@functools.lru_cache(maxsize=256)
def _max_derivative(activation: Activation, parameters: tuple[tuple[str, Any], ...]) -> float:
    far = torch.tensor([-1e9, 1e9], dtype=torch.float64, device="cpu")
    grid = torch.cat([torch.linspace(-16, 16, 32 * 128 + 1, dtype=torch.float64, device="cpu"), far])
    slope = _slope(activation, grid, dict(parameters))
    if float(slope.max()) > 1e8:
        return math.inf
    around = float(grid[slope.argmax()])
    closer = _slope(
        activation,
        torch.linspace(around - 1 / 128, around + 1 / 128, 4097, dtype=torch.float64, device="cpu"),
        dict(parameters),
    )
    return max(float(slope.max()), float(closer.max()))


def _slope(activation: Activation, x: Tensor, parameters: dict[str, Any]) -> Tensor:
    """Return |φ'(x)|."""
    entry = 0
    if activation.kind == "normalised":
        # The logits of two classes, of which one is fixed, take the outputs through all that they can be.
        x, parameters = torch.stack([x, torch.zeros_like(x)], dim=1), {"dim": 1}
    elif activation.kind == "gated":
        entry = 0 if parameters.get("gate", "second") == "first" else 1
        ones = torch.ones_like(x)
        x, parameters = torch.stack([x, ones] if entry == 0 else [ones, x], dim=1), {**parameters, "dim": 1}
    with torch.no_grad():
        slope = activation.derivative(x, **parameters).abs()
    return slope if activation.elementwise else slope[:, entry]
