"""The fully connected network that the experiments vary: its activation, initialisation, depth and width."""

from __future__ import annotations

import functools
import itertools
from collections import OrderedDict

import torch
from torch import nn

from experiments import digits
from torchact import catalogue, initialisations, modules, theory


def linear_name(layer: int) -> str:
    """Return the name of the linear map of layer ``layer``, from 1; the readout follows the last hidden layer."""
    return f"linear_{layer:02d}"


def activation_name(layer: int) -> str:
    """Return the name of the activation after the linear map of hidden layer ``layer``, from 1."""
    return f"activation_{layer:02d}"


def widths(depth: int, width: int) -> list[int]:
    """Return the number of inputs and of units in each of ``depth`` hidden layers and the readout."""
    return [digits.INPUTS, *[width] * depth, digits.CLASSES]


def hidden_activation(name: str, argument: str = "activation") -> str:
    """Return the key of an activation that can follow a hidden layer: it takes a row of units and returns as many.

    Args:
        name: any name of the activation.
        argument: the name of the argument it was given for, for the error message.

    Raises:
        ValueError: no activation has that name, or it cannot follow a hidden layer, as no gated unit can.
    """
    record = catalogue.get(name, argument)
    if not _takes_a_row(record):
        accepted = ", ".join(key for key, other in catalogue.CATALOGUE.items() if _takes_a_row(other))
        why = "halves the units" if record.kind == "gated" else "takes images"
        raise ValueError(
            f"{argument}: expected one that a row of units can go through ({accepted}), got {name!r}, which {why}"
        )
    return record.key


def _takes_a_row(record: catalogue.Activation) -> bool:
    """Whether it is elementwise, or normalises along any dimension."""
    return record.elementwise or (record.kind == "normalised" and "dim" in record.parameters)


def build(activation: str, initialisation: str, depth: int, width: int, seed: int) -> nn.Sequential:
    """Return a network with ``depth`` hidden layers of ``width`` units, each followed by the activation, and a readout.

    Every linear layer, the readout too, is drawn by the initialisation, from a generator seeded with ``seed``.

    Raises:
        ValueError: no activation or initialisation has that name.
    """
    draw = initialisations.get(initialisation)
    generator = torch.Generator().manual_seed(seed)
    sizes = widths(depth, width)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes), start=1):
        layers[linear_name(layer)] = draw.apply(nn.Linear(fan_in, fan_out), generator)
        if layer <= depth:
            layers[activation_name(layer)] = modules.create(activation)
    return nn.Sequential(layers)


@functools.cache  # pictures and tables ask for the same profiles, run after run
def predict(activation: str, initialisation: str, depth: int, width: int) -> theory.Profile | None:
    """Return mean-field theory's profile through the hidden layers, or None where there is no theory (softmax).

    Of RReLU it is that of the mean slope; the slopes drawn in training add 0.2 % to the gradient's factor a layer.
    """
    if not catalogue.get(activation).elementwise:
        return None
    variances = initialisations.get(initialisation).layers(widths(depth, width)[:-1])
    return theory.profile(activation, variances, digits.load().mean_square)
