"""Which networks the learning speed experiment trains: one comparison of activations over depths, and one cure."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pandas as pd

from experiments import network
from experiments.training import RunSettings
from torchact import initialisations

#: The activations and initialisations that the deepest network is given one after the other.
CURE = (("sigmoid", "default"), ("sigmoid", "xavier"), ("relu", "default"), ("relu", "he"))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The runs that compare activations and those that cure the deepest network, and which rows are of which.

    Raises:
        ValueError: an argument is outside what is accepted; the message names it, its value and what would be.
    """

    activations: tuple[str, ...] = ("sigmoid", "tanh", "relu", "leaky_relu")
    """Activations of the hidden layers: any in the catalogue but gated units and softmax2d."""
    initialisation: str = "xavier"
    """The one initialisation with which activations are compared: default (torch's own), xavier, he, orthogonal."""
    depths: tuple[int, ...] = (1, 2, 3, 5, 10)
    """Numbers of hidden layers. The deepest network is the one that is cured."""
    accuracy: float = 0.8
    """Fraction of the test images to classify correctly: the steps that it takes to get there are counted."""
    seeds: int = 3
    """Runs of each combination, with seeds 0, 1, 2, …"""
    width: int = 100
    """Units in each hidden layer."""
    steps: int = 500
    """Optimiser steps of each run."""
    batch_size: int = 64
    """Images a step."""
    learning_rate: float = 0.1
    """Of plain stochastic gradient descent."""
    every: int = 10
    """Steps between measurements; steps to an accuracy are multiples of it."""

    def __post_init__(self) -> None:
        for name in ("activations", "depths"):
            if not getattr(self, name):
                raise ValueError(f"{name}: expected at least one")
        if self.seeds < 1:
            raise ValueError(f"seeds: expected a whole number of at least 1, got {self.seeds}")
        if not 0 < self.accuracy <= 1:
            raise ValueError(f"accuracy: expected a fraction above 0 and at most 1, got {self.accuracy}")
        keys = dict.fromkeys(network.hidden_activation(name, "activations") for name in self.activations)
        object.__setattr__(self, "activations", tuple(keys))
        object.__setattr__(self, "initialisation", initialisations.get(self.initialisation).key)
        _ = self.runs  # each validates itself

    @property
    def deepest(self) -> int:
        """The number of hidden layers of the network that is cured."""
        return max(self.depths)

    @property
    def runs(self) -> list[RunSettings]:
        """The settings of every run: the comparison of activations, then those of the cure that it does not contain."""
        compared = itertools.product(self.activations, [self.initialisation], self.depths)
        cured = ((activation, initialisation, self.deepest) for activation, initialisation in CURE)
        shared = {name: getattr(self, name) for name in ("width", "steps", "batch_size", "learning_rate", "every")}
        runs = (
            RunSettings(activation=activation, initialisation=initialisation, depth=depth, seed=seed, **shared)
            for activation, initialisation, depth in (*compared, *cured)
            for seed in range(self.seeds)
        )
        return list(dict.fromkeys(runs))

    def compared(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of a table whose runs compare activations."""
        return table[(table["initialisation"] == self.initialisation) & table["activation"].isin(self.activations)]

    def cured(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of a table whose runs belong to the cure, in its order."""
        deep = table[table["depth"] == self.deepest]
        stages = [deep[(deep["activation"] == name) & (deep["initialisation"] == draw)] for name, draw in CURE]
        return pd.concat(stages)
