"""The small networks that the calibration trains on the digits: fully connected, convolutional and transformers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from experiments import digits
from torchact import initialisations, modules

WIDTH = 48  #: units of a hidden layer of the fully connected networks
CHANNELS = 8  #: of the convolutional networks, with 3×3 filters
MODEL_WIDTH = 16  #: of a transformer's tokens; its feed-forward layers have twice as many units
HEADS = 2  #: of its attention
_SIDE = 8  # pixels; a transformer's tokens are the image's rows

Make = Callable[[], nn.Module]


def fully_connected(activation: Make, depth: int) -> nn.Module:
    """Return ``depth`` hidden layers and a readout, without normalisation."""
    layers: list[nn.Module] = []
    for fan_in in (digits.INPUTS, *[WIDTH] * depth)[:depth]:
        layers += [nn.Linear(fan_in, WIDTH), activation()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, digits.CLASSES))


def convolutional(activation: Make, depth: int) -> nn.Module:
    """Return ``depth`` convolutions that keep the image's size and a readout, without normalisation."""
    layers: list[nn.Module] = [nn.Unflatten(1, (1, _SIDE, _SIDE))]
    for channels in (1, *[CHANNELS] * depth)[:depth]:
        layers += [nn.Conv2d(channels, CHANNELS, 3, padding=1), activation()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(CHANNELS * _SIDE**2, digits.CLASSES))


class Transformer(nn.Module):
    """A transformer encoder over the rows of the image, with a readout of the tokens' mean.

    A token is a row's pixels with its position as a one-hot vector beside them.

    Args:
        activation: makes the activation of the feed-forward layers.
        depth: number of blocks.
        residual: whether layers are normalised before each half of a block and skipped around it (pre-LN), or neither.
    """

    positions: Tensor

    def __init__(self, activation: Make, depth: int, residual: bool) -> None:
        super().__init__()
        self.embedding = nn.Linear(2 * _SIDE, MODEL_WIDTH)
        self.blocks = nn.Sequential(*(_Block(activation, residual) for _ in range(depth)))
        self.norm = nn.LayerNorm(MODEL_WIDTH) if residual else nn.Identity()
        self.readout = nn.Linear(MODEL_WIDTH, digits.CLASSES)
        self.register_buffer("positions", torch.eye(_SIDE))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of a batch of rows of 64 pixels."""
        rows = images.unflatten(1, (_SIDE, _SIDE))
        tokens = self.embedding(torch.cat((rows, self.positions.expand_as(rows)), dim=2))
        return self.readout(self.norm(self.blocks(tokens)).mean(dim=1))


class _Block(nn.Module):
    def __init__(self, activation: Make, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.norms = nn.ModuleList(nn.LayerNorm(MODEL_WIDTH) if residual else nn.Identity() for _ in range(2))
        self.attention = _Attention()
        self.feed_forward = nn.Sequential(
            nn.Linear(MODEL_WIDTH, 2 * MODEL_WIDTH), activation(), nn.Linear(2 * MODEL_WIDTH, MODEL_WIDTH)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        for norm, half in zip(self.norms, (self.attention, self.feed_forward), strict=True):
            changed = half(norm(tokens))
            tokens = tokens + changed if self.residual else changed
        return tokens


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.output = (nn.Linear(MODEL_WIDTH, MODEL_WIDTH) for _ in range(4))

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = (
            linear(tokens).unflatten(2, (HEADS, -1)).transpose(1, 2) for linear in (self.query, self.key, self.value)
        )
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.output(mixed.transpose(1, 2).flatten(2))


#: Makes a network of each architecture from what makes its activations, and its depth.
ARCHITECTURES: Mapping[str, Callable[[Make, int], nn.Module]] = MappingProxyType(
    {
        "MLP": fully_connected,
        "CNN": convolutional,
        "transformer": lambda activation, depth: Transformer(activation, depth, residual=True),
        "bare transformer": lambda activation, depth: Transformer(activation, depth, residual=False),
    }
)


def build(architecture: str, activation: str, initialisation: str, depth: int, seed: int) -> nn.Module:
    """Return a network whose linear layers and convolutions, the readout too, are drawn by the initialisation.

    Args:
        architecture: a key of ``ARCHITECTURES``.
        activation: any name of an activation.
        initialisation: any name of an initialisation; a filter's fan-in is its channels times its area.
        depth: hidden layers, or blocks of a transformer.
        seed: of the generator that draws.
    """
    draw = initialisations.get(initialisation)
    generator = torch.Generator().manual_seed(seed)
    model = ARCHITECTURES[architecture](lambda: modules.create(activation), depth)
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            draw.draw_weight(layer.weight, generator)
            if layer.bias is not None:
                draw.draw_bias(layer.bias, math.prod(layer.weight.shape[1:]), generator)
    return model
