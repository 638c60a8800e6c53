"""The gated units: half of the features, times an activation of the other half.

A record's ``value``, ``derivative`` and ``second_derivative`` take the packed tensor, as ``torch.nn.functional.glu``
does. Each of its entries has a part in one entry of the result, and the derivative is that of this one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchact.catalogue.linear import IDENTITY
from torchact.catalogue.record import Activation, Pair, promoted_type
from torchact.catalogue.rectifiers import RELU
from torchact.catalogue.self_gated import GELU, SWISH
from torchact.catalogue.sigmoidal import SIGMOID

Gate = Literal["first", "second"]
_SHAZEER = "Shazeer 2020, GLU Variants Improve Transformer, arXiv:2002.05202"


def halves(x: Tensor, dim: int = -1, gate: Gate = "second") -> tuple[Tensor, Tensor]:
    """Return the half of ``x`` that is gated and the half that gates it, in this order.

    Raises:
        RuntimeError: ``x`` has no dimensions, or an odd size along ``dim``, as in torch's ``glu``.
        IndexError: ``x`` has no dimension ``dim``.
        ValueError: ``gate`` is neither ``"first"`` nor ``"second"``.
    """
    traced = isinstance(x, torch.fx.Proxy) or torch.jit.is_tracing()  # type: ignore[attr-defined]
    if not traced:  # else sizes are no numbers
        if x.dim() == 0:
            raise RuntimeError("input: gated units do not support 0-dimensional tensors")
        if x.size(dim) % 2:
            raise RuntimeError(f"input: Halving dimension must be even, but dimension {dim} is size {x.size(dim)}")
    first, second = x.chunk(2, dim)
    return in_order(first, second, gate)


def in_order(first: Tensor, second: Tensor, gate: Gate) -> tuple[Tensor, Tensor]:
    """Return (what is gated, what gates it).

    Raises:
        ValueError: ``gate`` is neither ``"first"`` nor ``"second"``.
    """
    return (first, second) if checked_gate(gate) == "second" else (second, first)


def checked_gate(gate: Gate) -> Gate:
    """Return ``gate``.

    Raises:
        ValueError: it is neither ``"first"`` nor ``"second"``.
    """
    if gate not in ("first", "second"):
        raise ValueError(f"gate: expected 'first' or 'second', got {gate!r}")
    return gate


def _gated_by(record: Activation) -> Pair:
    """Return the unit v · φ(g) for the activation φ."""

    def value(v: Tensor, g: Tensor, *parameters: Any) -> Tensor:
        return v * record.value(g, *parameters)

    def partials(v: Tensor, g: Tensor, *parameters: Any) -> tuple[Tensor, Tensor]:
        return record.value(g, *parameters), v * record.derivative(g, *parameters)

    return Pair(value, partials, promoted_type)


def _clamped(v: Tensor, g: Tensor, limit: float | None) -> tuple[Tensor, Tensor]:
    """Return the halves of a SwiGLU within the limit, if there is one: the value on both sides, the gate above only."""
    return (v, g) if limit is None else (v.clamp(-limit, limit), g.clamp(max=limit))


def _swiglu(v: Tensor, g: Tensor, alpha: float = 1.0, limit: float | None = None, offset: float = 0.0) -> Tensor:
    v, g = _clamped(v, g, limit)
    return (v + offset) * SWISH.value(g, alpha)


def _swiglu_partials(
    v: Tensor, g: Tensor, alpha: float = 1.0, limit: float | None = None, offset: float = 0.0
) -> tuple[Tensor, Tensor]:
    inside_v, inside_g = _clamped(v, g, limit)
    by_value, by_gate = SWISH.value(inside_g, alpha), (inside_v + offset) * SWISH.derivative(inside_g, alpha)
    if limit is None:
        return by_value, by_gate
    return torch.where(v.abs() <= limit, by_value, 0.0), torch.where(g <= limit, by_gate, 0.0)


def _record(pair: Pair, **facts: Any) -> Activation:
    """Return the record of a gated unit, whose functions of the packed tensor are made from those of its halves."""

    def value(x: Tensor, dim: int = -1, gate: Gate = "second", **parameters: Any) -> Tensor:
        return pair.value(*halves(x, dim, gate), *{**own, **parameters}.values())

    def derivative(x: Tensor, dim: int = -1, gate: Gate = "second", **parameters: Any) -> Tensor:
        partials = pair.partials(*halves(x, dim, gate), *{**own, **parameters}.values())
        return torch.cat(in_order(*partials, gate), dim)

    def second_derivative(x: Tensor, dim: int = -1, gate: Gate = "second", **parameters: Any) -> Tensor:
        def slope(control: Tensor, gated: Tensor) -> Tensor:
            return pair.partials(gated, control, *{**own, **parameters}.values())[1]

        gated, control = halves(x, dim, gate)
        curvature = torch.func.vmap(torch.func.grad(slope))(control.flatten(), gated.flatten()).reshape(gated.shape)
        return torch.cat(in_order(torch.zeros_like(gated), curvature, gate), dim)

    own: Mapping[str, Any] = facts.pop("parameters", {})
    return Activation(
        value=value,
        derivative=derivative,
        second_derivative=second_derivative,
        pair=pair,
        parameters={"dim": -1, "gate": "second", **own},
        range=(-math.inf, math.inf),
        monotone=False,
        kind="gated",
        saves="input",
        **facts,
    )


GLU = _record(
    _gated_by(SIGMOID),
    key="glu",
    name="GLU",
    formula=r"v \sigma(g)",
    derivative_formula=r"\frac{\partial y}{\partial v} = \sigma(g), \quad "
    r"\frac{\partial y}{\partial g} = v \sigma(g) \sigma(-g)",
    torch_function=F.glu,
    torch_module=nn.GLU,
    functional_spellings=("glu",),
    aliases=("gated linear unit",),
    source="Dauphin, Fan, Auli and Grangier 2016, Language Modeling with Gated Convolutional Networks, "
    "arXiv:1612.08083",
)

REGLU = _record(
    _gated_by(RELU),
    key="reglu",
    name="ReGLU",
    formula=r"v \max(0, g)",
    derivative_formula=r"\frac{\partial y}{\partial v} = \max(0, g), \quad "
    r"\frac{\partial y}{\partial g} = v \text{ if } g > 0 \text{ else } 0",
    kinks=(0.0,),
    source=_SHAZEER,
)

GEGLU = _record(
    _gated_by(GELU),
    key="geglu",
    name="GEGLU",
    formula=r"v g \Phi(g)",
    derivative_formula=r"\frac{\partial y}{\partial v} = g \Phi(g), \quad "
    r"\frac{\partial y}{\partial g} = v \left(\Phi(g) + g \varphi(g)\right)",
    parameters={"approximate": "none"},
    source=_SHAZEER,
)

SWIGLU = _record(
    Pair(_swiglu, _swiglu_partials, promoted_type),
    key="swiglu",
    name="SwiGLU",
    formula=r"(v + o) g \sigma(\alpha g), \quad v \text{ within } \pm \text{limit}, g \text{ at most limit}",
    derivative_formula=r"\frac{\partial y}{\partial v} = g \sigma(\alpha g), \quad \frac{\partial y}{\partial g} = "
    r"(v + o) \sigma(\alpha g) \left(1 + \alpha g \sigma(-\alpha g)\right), \quad 0 \text{ beyond the limit}",
    parameters={"alpha": 1.0, "limit": None, "offset": 0.0},
    source=_SHAZEER + "; limit and offset: OpenAI 2025, gpt-oss, arXiv:2508.10925",
)

BILINEAR = _record(
    _gated_by(IDENTITY),
    key="bilinear",
    name="Bilinear",
    formula=r"v g",
    derivative_formula=r"\frac{\partial y}{\partial v} = g, \quad \frac{\partial y}{\partial g} = v",
    source=_SHAZEER,
)

ACTIVATIONS = (GLU, REGLU, GEGLU, SWIGLU, BILINEAR)
