"""Every activation as a curve of one variable, whatever its kind: what the plots draw and the words describe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from torchact.catalogue import Activation

_WIDEST, _MOST_TURNS = 6.0, 8


@dataclass(frozen=True, kw_only=True)
class Curve:
    """An activation with its usual parameters along one line of its inputs, in float64."""

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    kinks: tuple[float, ...]
    steepest: float  #: the largest magnitude of the slope, infinite where there is none
    variable: str = "x"
    value_label: str = "φ(x)"
    slope_label: str = "φ′(x)"
    setting: str = ""  #: along which line, as the end of a sentence; empty where there is one input

    @property
    def window(self) -> tuple[float, float]:
        """The interval to draw: [-6, 6], or less of a wave, so that its turns stay apart."""
        reach = _WIDEST
        while self._turns(reach) > _MOST_TURNS:
            reach /= 2
        return -reach, reach

    def _turns(self, reach: float) -> int:
        sign = self.slope(torch.linspace(-reach, reach, 4096, dtype=torch.float64)).sign()
        return int((sign[1:] * sign[:-1] < 0).sum())


def curve_of(activation: Activation) -> Curve:
    """Return the curve of an activation: for gated units that of the gate, for normalised ones that of two classes."""
    if activation.kind == "gated":
        return Curve(
            value=lambda gate: activation.value(_beside_one(gate), dim=1)[:, 0],
            slope=lambda gate: activation.derivative(_beside_one(gate), dim=1)[:, 1],
            kinks=activation.kinks,
            steepest=activation.max_derivative(),
            variable="g",
            value_label="y",
            slope_label="∂y/∂g",
            setting="against the gate g, where the half that it gates is v = 1",
        )
    if activation.kind == "normalised":
        return Curve(
            value=lambda x: activation.value(_beside_zero(x), dim=1)[:, 0],
            slope=lambda x: activation.derivative(_beside_zero(x), dim=1)[:, 0],
            kinks=activation.kinks,
            steepest=activation.max_derivative(),
            value_label="y₁",
            slope_label="∂y₁/∂x₁",
            setting="of the first of two classes, with the logits (x, 0)",
        )
    return Curve(
        value=activation.value,
        slope=activation.derivative,
        kinks=activation.kinks,
        steepest=activation.max_derivative(),
    )


def _beside_one(gate: Tensor) -> Tensor:
    return torch.stack([torch.ones_like(gate), gate], dim=1)


def _beside_zero(logit: Tensor) -> Tensor:
    return torch.stack([logit, torch.zeros_like(logit)], dim=1)
