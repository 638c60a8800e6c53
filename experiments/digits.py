"""Real images that ship with scikit-learn: 1,797 handwritten digits of 8×8 pixels (Alpaydin and Kaynak 1998)."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

INPUTS = 64
CLASSES = 10
_TRAINING_IMAGES = 1_500


class Digits(NamedTuple):
    """The images as float32 rows of 64 pixels, and their classes; the same split every time."""

    train_images: Tensor
    train_classes: Tensor
    test_images: Tensor
    test_classes: Tensor

    @property
    def mean_square(self) -> float:
        """Mean of the squared training pixels: the q^0 that mean-field theory starts from."""
        return self.train_images.square().mean().item()


@functools.cache
def load() -> Digits:
    """Return the digits, each pixel shifted and scaled to mean 0 and deviation 1 over the training images.

    Pixels that are the same in every training image become 0.
    """
    from sklearn.datasets import load_digits  # takes longer to import than torch, and --help does not need it

    images, classes = load_digits(return_X_y=True)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    pixels, labels = torch.from_numpy(images)[order], torch.from_numpy(classes)[order]
    train, test = pixels[:_TRAINING_IMAGES], pixels[_TRAINING_IMAGES:]
    mean, deviation = train.mean(dim=0), train.std(dim=0)
    scale = torch.where(deviation > 0, deviation, torch.inf)
    return Digits(
        ((train - mean) / scale).float(),
        labels[:_TRAINING_IMAGES],
        ((test - mean) / scale).float(),
        labels[_TRAINING_IMAGES:],
    )
