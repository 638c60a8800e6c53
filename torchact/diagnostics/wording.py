"""How verdicts name layers, and what they suggest."""

from __future__ import annotations

from collections.abc import Sequence

from torchact.diagnostics.readings import LayerReading, Reading

_RECTIFIERS = {
    *("relu", "relu6", "leaky_relu", "prelu", "rrelu", "threshold"),
    *("gelu", "gelu_tanh", "quick_gelu", "silu", "swish", "mish", "hardswish"),
}


def names(layers: Sequence[LayerReading]) -> str:
    """Name layers: the one, or the first and the last."""
    first, last = layers[0].name, layers[-1].name
    return first if len(layers) == 1 else f"{first} … {last} ({len(layers)} layers)"


def these(some: Sequence[LayerReading], layers: Sequence[LayerReading]) -> str:
    """Name layers in the beginning of a sentence that goes on with "not": "Layers a … c (3 of 5) do"."""
    if len(some) == 1:
        return f"Layer {some[0].name} (1 of {len(layers)}) does"
    return f"Layers {some[0].name} … {some[-1].name} ({len(some)} of {len(layers)}) do"


def cure(reading: Reading) -> str:
    """Return what helps against vanishing gradients where these activations are."""
    keys = {layer.activation for layer in reading.layers if layer.activation}
    if keys & {"sigmoid", "hardsigmoid", "softmax", "softmin"}:
        return (
            "Replace the sigmoid-like activations by ReLU with He initialisation, or tanh with Xavier initialisation."
        )
    if keys & _RECTIFIERS:
        return "Use He initialisation (σ_w² = 2), or normalisation layers."
    if keys & {"tanh", "hardtanh", "softsign", "selu"}:
        return "Use Xavier initialisation (σ_w² = 1), or normalisation layers."
    return "Use an initialisation that keeps the gradient's size, or normalisation layers."
