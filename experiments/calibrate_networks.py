"""The small networks that the calibration trains on the digits."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from experiments import digits
from experiments.calibrate_tasks import CLASSIFICATION, REGRESSION, TWO_HEADS, Task
from torchact import initialisations, modules

WIDTH = 48  #: units of a hidden layer of the fully connected networks
CHANNELS = 8  #: of the convolutional networks, with 3×3 filters
MODEL_WIDTH = 16  #: of a transformer's tokens; its feed-forward layers have twice as many units
HEADS = 2  #: of its attention
HIDDEN = 32  #: of a recurrent network's state
_SIDE = 8  # pixels; the tokens of transformers and recurrent networks are the image's rows

Make = Callable[[], nn.Module]


def fully_connected(activation: Make, depth: int, outputs: int = digits.CLASSES) -> nn.Module:
    """Return ``depth`` hidden layers and a readout, without normalisation."""
    return nn.Sequential(*_hidden_layers(activation, depth), nn.Linear(WIDTH, outputs))


def _hidden_layers(activation: Make, depth: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for fan_in in (digits.INPUTS, *[WIDTH] * depth)[:depth]:
        layers += [nn.Linear(fan_in, WIDTH), activation()]
    return layers


class TwoHeads(nn.Module):
    """A fully connected body with two readouts: of classes, and of how bright the image is."""

    def __init__(self, activation: Make, depth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_hidden_layers(activation, depth))
        self.classes, self.brightness = nn.Linear(WIDTH, digits.CLASSES), nn.Linear(WIDTH, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and brightness of a batch of rows of 64 pixels."""
        hidden = self.body(images)
        return self.classes(hidden), self.brightness(hidden)


def convolutional(activation: Make, depth: int) -> nn.Module:
    """Return ``depth`` convolutions that keep the image's size and a readout, without normalisation."""
    layers: list[nn.Module] = [nn.Unflatten(1, (1, _SIDE, _SIDE))]
    for channels in (1, *[CHANNELS] * depth)[:depth]:
        layers += [nn.Conv2d(channels, CHANNELS, 3, padding=1), activation()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(CHANNELS * _SIDE**2, digits.CLASSES))


class Recurrent(nn.Module):
    """A recurrent network that reads the image row by row, with a readout of its last state.

    Args:
        make: ``nn.RNN``, ``nn.LSTM`` or ``nn.GRU``, with the activation given where there is a choice.
        depth: number of recurrent layers, which are one module.
    """

    def __init__(self, make: Callable[..., nn.RNNBase], depth: int) -> None:
        super().__init__()
        self.recurrent = make(_SIDE, HIDDEN, depth, batch_first=True)
        self.readout = nn.Linear(HIDDEN, digits.CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of a batch of rows of 64 pixels."""
        states: Tensor = self.recurrent(images.unflatten(1, (_SIDE, _SIDE)))[0]
        return self.readout(states[:, -1])


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


@dataclass(frozen=True)
class Architecture:
    """A kind of network."""

    make: Callable[[Make, int], nn.Module]  #: of what makes its activations, and its depth
    task: Task = CLASSIFICATION
    zeros: Callable[[nn.Module], Iterable[nn.Linear]] = lambda model: ()  #: the layers that begin as zeros


def _ends_of_branches(model: nn.Module) -> Iterable[nn.Linear]:
    assert isinstance(model, Transformer)
    yield model.readout
    for layer in model.modules():
        if isinstance(layer, _Block):
            yield from (layer.attention.output, layer.feed_forward[-1])  # type: ignore[misc]


def _transformer(residual: bool) -> Callable[[Make, int], nn.Module]:
    return lambda activation, depth: Transformer(activation, depth, residual)


def _simple_recurrent(activation: Make, depth: int) -> nn.Module:
    record = modules.activation_of(activation())
    assert record is not None
    return Recurrent(functools.partial(nn.RNN, nonlinearity=record.key), depth)


#: Each kind of network by its name.
ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "MLP": Architecture(fully_connected),
        "CNN": Architecture(convolutional),
        "transformer": Architecture(_transformer(residual=True)),
        "bare transformer": Architecture(_transformer(residual=False)),
        "transformer from zero": Architecture(_transformer(residual=True), zeros=_ends_of_branches),
        "regression": Architecture(lambda activation, depth: fully_connected(activation, depth, 1), REGRESSION),
        "two heads": Architecture(TwoHeads, TWO_HEADS),
        "RNN": Architecture(_simple_recurrent),
        "LSTM": Architecture(lambda activation, depth: Recurrent(nn.LSTM, depth)),
        "GRU": Architecture(lambda activation, depth: Recurrent(nn.GRU, depth)),
    }
)


def build(architecture: str, activation: str, initialisation: str, depth: int, seed: int) -> nn.Module:
    """Return a network whose linear layers and convolutions, the readout too, are drawn by the initialisation.

    Recurrent layers are drawn as torch does it, and those that begin as zeros are zero.

    Args:
        architecture: a key of ``ARCHITECTURES``.
        activation: any name of an activation; an LSTM and a GRU have their own.
        initialisation: any name of an initialisation; a filter's fan-in is its channels times its area.
        depth: hidden layers, or blocks of a transformer.
        seed: of the generator that draws.
    """
    draw = initialisations.get(initialisation)
    generator = torch.Generator().manual_seed(seed)
    kind = ARCHITECTURES[architecture]
    model = kind.make(lambda: modules.create(activation), depth)
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            draw.draw_weight(layer.weight, generator)
            if layer.bias is not None:
                draw.draw_bias(layer.bias, math.prod(layer.weight.shape[1:]), generator)
        elif isinstance(layer, nn.RNNBase):
            bound = 1 / math.sqrt(layer.hidden_size)
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
    for layer in kind.zeros(model):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return model
