"""A chain of single neurons, and the derivatives of its error by three methods, all in float64.

The chain is a_0 = x, z_l = w_l·a_(l−1) + b_l, a_l = φ(z_l), with the error E = ½(T − a_L)². The chain rule gives::

    δ_L = (a_L − T)·φ'(z_L)        δ_l = δ_(l+1)·w_(l+1)·φ'(z_l)
    ∂E/∂w_l = δ_l·a_(l−1)          ∂E/∂b_l = δ_l

Example:
    >>> chain = Chain()
    >>> gradient = by_hand(initial_parameters(chain), chain)
    >>> [round(delta, 6) for delta in gradient.biases.tolist()]
    [0.010214, 0.094756]
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from torchact import catalogue, modules

#: Step h of the central differences relative to max(1, |parameter|): the cube root of float64's ε, which balances
#: rounding (ε/h) against truncation (h²); Press et al., Numerical Recipes, section 5.7.
DIFFERENCE_STEP = torch.finfo(torch.float64).eps ** (1 / 3)


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A chain of neurons before it learns, and what its output should be.

    Raises:
        ValueError: an argument is outside what is accepted; the message names it, its value and what would be.
    """

    x: float = 0.1
    """Input of the first neuron."""

    weights: tuple[float, ...] = (0.15, 0.45)
    """Weight of each neuron, from the input to the output."""

    biases: tuple[float, ...] = (0.4, 0.65)
    """Bias of each neuron, as many as there are weights."""

    neurons: int | None = None
    """Length of the chain, if not the number of weights.
    Fewer neurons keep the first ones; more are appended
    at the output, with weights and biases drawn evenly from [0, 1)."""

    seed: int = 0
    """Seed of the neurons that are drawn."""

    target: float = 0.25
    """Target T of the output."""

    activation: str = "sigmoid"
    """Activation φ of every neuron: any elementwise one in torchact's catalogue."""

    def __post_init__(self) -> None:
        if not self.record.elementwise:
            choices = ", ".join(key for key, other in catalogue.CATALOGUE.items() if other.elementwise)
            why = "it halves a row" if self.record.kind == "gated" else "of one alone it is the same whatever that is"
            raise ValueError(
                f"activation: expected one that takes each number by itself ({choices}), got {self.activation!r}, "
                f"which needs several: {why}"
            )
        if not self.weights or len(self.weights) != len(self.biases):
            raise ValueError(
                f"weights, biases: expected one of each for every neuron, got {len(self.weights)} weights "
                f"{self.weights!r} and {len(self.biases)} biases {self.biases!r}"
            )
        for name in ("x", "weights", "biases", "target"):
            value = getattr(self, name)
            if not np.isfinite(value).all():
                raise ValueError(f"{name}: expected finite numbers, got {value!r}")
        if self.neurons is not None and self.neurons < 1:
            raise ValueError(f"neurons: expected 1 or more, got {self.neurons!r}")
        start = state(initial_parameters(self), self)
        if not math.isfinite(start.error) or not torch.cat(start.gradient).isfinite().all():
            raise ValueError(
                f"x, weights, biases, target: expected numbers whose error and derivatives stay within float64's "
                f"range, got the error {start.error:g}"
            )

    @property
    def record(self) -> catalogue.Activation:
        """What the catalogue knows of the activation."""
        return catalogue.get(self.activation)


class Parameters(NamedTuple):
    """The weights and biases of a chain, or the derivatives of E with respect to them; float64, one entry a neuron."""

    weights: Tensor
    biases: Tensor


class State(NamedTuple):
    """Where the iteration stands: the parameters, the gradient there, the output a_L and the error E."""

    parameters: Parameters
    gradient: Parameters
    output: float
    error: float


def initial_parameters(chain: Chain) -> Parameters:
    """Return the given weights and biases, cut or extended to ``chain.neurons``."""
    given = torch.tensor([chain.weights, chain.biases], dtype=torch.float64)
    length = given.shape[1] if chain.neurons is None else chain.neurons
    generator = torch.Generator().manual_seed(chain.seed)
    # Drawn neuron by neuron, so that a longer chain begins with the shorter one of the same seed.
    drawn = torch.rand(max(0, length - given.shape[1]), 2, generator=generator, dtype=torch.float64)
    return Parameters(*torch.cat([given[:, :length], drawn.T], dim=1))


def forward(parameters: Parameters, x: float, activation: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Return z_1 … z_L and a_0 … a_L of the chain, or of many chains side by side, one a column."""
    preactivations, activations = [], [torch.full_like(parameters.weights[0], x)]
    for weight, bias in zip(*parameters, strict=True):
        preactivations.append(weight * activations[-1] + bias)
        activations.append(activation(preactivations[-1]))
    return torch.stack(preactivations), torch.stack(activations)


def error(output: Tensor, target: float) -> Tensor:
    """Return E = ½(T − a_L)². ``torch.nn.MSELoss`` lacks the ½, so that its gradient is twice this one's."""
    return (target - output) ** 2 / 2


def by_hand(parameters: Parameters, chain: Chain) -> Parameters:
    """Return the gradient of E by the chain rule written out, from the catalogue's formula for φ'."""
    preactivations, activations = forward(parameters, chain.x, chain.record.value)
    slopes = chain.record.derivative(preactivations)
    deltas = torch.empty_like(preactivations)
    deltas[-1] = (activations[-1] - chain.target) * slopes[-1]
    for layer in reversed(range(len(deltas) - 1)):
        deltas[layer] = deltas[layer + 1] * parameters.weights[layer + 1] * slopes[layer]
    return Parameters(weights=deltas * activations[:-1], biases=deltas)


def by_functions(parameters: Parameters, chain: Chain) -> Parameters:
    """Return the gradient of E by torchact's Functions, which ``torch.autograd`` chains."""
    return state(parameters, chain).gradient


def difference_steps(point: Tensor, chain: Chain) -> Tensor:
    """Return the steps of the central differences: where φ is steep, as a fast sine is, E bends as much faster."""
    steepness = chain.record.max_derivative()
    return DIFFERENCE_STEP * point.abs().clamp(min=1) / (max(1.0, steepness) if math.isfinite(steepness) else 1.0)


def by_finite_differences(parameters: Parameters, chain: Chain) -> Parameters:
    """Return the gradient of E by central differences; across a kink of φ they are an average of both sides."""
    point = torch.cat(parameters)
    steps = difference_steps(point, chain)

    def errors_at(points: Tensor) -> Tensor:  # one point a column: all parameters are moved at once, each in its own
        _, activations = forward(Parameters(*points.chunk(2)), chain.x, chain.record.value)
        return error(activations[-1], chain.target)

    up, down = errors_at(point[:, None] + torch.diag(steps)), errors_at(point[:, None] - torch.diag(steps))
    return Parameters(*((up - down) / (2 * steps)).chunk(2))


def state(parameters: Parameters, chain: Chain) -> State:
    """Return the output, the error and its gradient at ``parameters``, by torchact's Functions."""
    leaves = Parameters(*(parameter.detach().requires_grad_() for parameter in parameters))
    # In double precision if it learns, and with the mean slope if it draws slopes in training.
    _, activations = forward(leaves, chain.x, modules.create(chain.activation).double().eval())
    value = error(activations[-1], chain.target)
    gradient = Parameters(*torch.autograd.grad(value, leaves))
    return State(parameters, gradient, activations[-1].item(), value.item())
