"""Which networks the calibration trains, and which of the runs may be looked at to set thresholds."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from experiments.calibrate_runs import OPTIMISERS, Run


@dataclass(frozen=True, kw_only=True)
class Grid:
    """All combinations of one kind of network."""

    architecture: str
    depths: tuple[int, ...]
    activations: tuple[str, ...]
    initialisations: tuple[str, ...]


#: The networks that thresholds are fitted to and judged on.
GRIDS = (
    Grid(
        architecture="MLP",
        depths=(3, 8, 15, 30),
        activations=("sigmoid", "tanh", "relu"),
        initialisations=("default", "xavier", "he"),
    ),
    Grid(
        architecture="CNN",
        depths=(3, 8),
        activations=("sigmoid", "tanh", "relu"),
        initialisations=("default", "he"),
    ),
    *(
        Grid(
            architecture=architecture,
            depths=(1, 4),
            activations=("sigmoid", "gelu"),
            initialisations=("default", "xavier"),
        )
        for architecture in ("transformer", "bare transformer")
    ),
)

#: Networks of other kinds, to which nothing is fitted: where rules that were made for the former are right, and wrong.
OTHERS = (
    Grid(
        architecture="transformer from zero",
        depths=(1, 4),
        activations=("sigmoid", "gelu"),
        initialisations=("default", "xavier"),
    ),
    Grid(
        architecture="regression",
        depths=(3, 8, 15),
        activations=("sigmoid", "tanh", "relu"),
        initialisations=("default", "xavier", "he"),
    ),
    Grid(
        architecture="two heads",
        depths=(3, 8),
        activations=("sigmoid", "tanh", "relu"),
        initialisations=("default", "he"),
    ),
    Grid(architecture="RNN", depths=(1, 3), activations=("tanh", "relu"), initialisations=("default",)),
    *(
        Grid(architecture=architecture, depths=(1, 3), activations=("tanh",), initialisations=("default",))
        for architecture in ("LSTM", "GRU")
    ),
)

OTHER_KINDS = frozenset(grid.architecture for grid in OTHERS)


def plan(grids: tuple[Grid, ...], seeds: int, steps: int) -> list[Run]:
    """Return every run: grids × optimisers × seeds.

    Example:
        >>> len(plan(GRIDS, seeds=4, steps=200))
        768
    """
    return [
        Run(
            architecture=grid.architecture,
            activation=activation,
            initialisation=initialisation,
            depth=depth,
            optimiser=optimiser,
            seed=seed,
            steps=steps,
        )
        for grid in grids
        for activation, initialisation, depth, optimiser, seed in itertools.product(
            grid.activations, grid.initialisations, grid.depths, OPTIMISERS, range(seeds)
        )
    ]


def calibration_seeds(seeds: int) -> range:
    """Return the seeds whose runs thresholds may be fitted to: the first half; the others are held out.

    Example:
        >>> calibration_seeds(4), calibration_seeds(5)
        (range(0, 2), range(0, 2))
    """
    return range(max(1, seeds // 2))


def quick(grids: tuple[Grid, ...]) -> tuple[Grid, ...]:
    """Return the shallow networks of the first grid."""
    return (replace(grids[0], depths=grids[0].depths[:2]),)
