"""What the calibration's networks are to learn of the digits: classes, a number, or classes and something besides."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from experiments import digits

#: What a network answers to a batch of rows of 64 pixels.
Outputs = Tensor | tuple[Tensor, Tensor]
SECOND_HEAD = 0.01  #: the weight of the loss of a second head


@dataclass(frozen=True)
class Task:
    """A loss and a score."""

    loss: Callable[[Outputs, Tensor, Tensor], Tensor]  #: of outputs, images and classes
    score: Callable[[Outputs, Tensor], float]  #: of outputs and classes: at best 1, by chance 0.1, of a regression 0


def _cross_entropy(outputs: Outputs, images: Tensor, classes: Tensor) -> Tensor:
    return nn.functional.cross_entropy(_first(outputs), classes)


def _accuracy(outputs: Outputs, classes: Tensor) -> float:
    return (_first(outputs).argmax(dim=1) == classes).double().mean().item()


def _first(outputs: Outputs) -> Tensor:
    return outputs if isinstance(outputs, Tensor) else outputs[0]


def _standardised(classes: Tensor) -> Tensor:
    """Return the digits as numbers with mean 0 and variance 1, were each as frequent as the others."""
    return (classes - (digits.CLASSES - 1) / 2) / math.sqrt((digits.CLASSES**2 - 1) / 12)


def _squared_error(outputs: Outputs, classes: Tensor) -> Tensor:
    return nn.functional.mse_loss(_first(outputs).squeeze(1), _standardised(classes))


def _explained(outputs: Outputs, classes: Tensor) -> float:
    """Return the fraction of the variance that is explained, at least 0; of NaN 0, too."""
    variance = _standardised(classes).var(correction=0)
    return max(0.0, 1 - (_squared_error(outputs, classes) / variance).item())


def _of_two_heads(outputs: Outputs, images: Tensor, classes: Tensor) -> Tensor:
    error = nn.functional.mse_loss(outputs[1].squeeze(1), images.mean(dim=1))
    return _cross_entropy(outputs, images, classes) + SECOND_HEAD * error


CLASSIFICATION = Task(_cross_entropy, _accuracy)
REGRESSION = Task(lambda outputs, images, classes: _squared_error(outputs, classes), _explained)
TWO_HEADS = Task(_of_two_heads, _accuracy)  #: classes, and the mean of an image's pixels
