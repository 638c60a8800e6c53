"""How a linear layer starts: each initialisation once, as the variances it has and as the code that draws it.

The theory reads the variances and the experiments draw the weights from the same record, so a predicted curve and the
measured one beside it are about the same network.

Example:
    >>> import torch
    >>> from torchact import initialisations
    >>> he = initialisations.get("kaiming")
    >>> linear = he.apply(torch.nn.Linear(1024, 1024), torch.Generator().manual_seed(0))
    >>> he.variances(1024, 1024)
    Variances(weight=2.0, bias=0.0)
    >>> round(1024 * linear.weight.var().item(), 2)
    2.0
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import init

from torchact import lookup


class Variances(NamedTuple):
    """The variances of one layer's entries, in the units of mean-field theory."""

    weight: float  #: σ_w² = fan_in · Var[W]
    bias: float  #: σ_b² = Var[b]


@dataclass(frozen=True, kw_only=True)
class Initialisation:
    """The record of one initialisation of :class:`torch.nn.Linear`."""

    key: str
    formula: str  #: the distribution of W and b in LaTeX
    variances: Callable[[int, int], Variances]  #: of a layer with the given fan_in and fan_out
    draw_weight: Callable[[Tensor, torch.Generator | None], object]  #: overwrites a weight of shape (fan_out, fan_in)
    draw_bias: Callable[[Tensor, int, torch.Generator | None], object]  #: overwrites a bias, given fan_in
    aliases: tuple[str, ...] = ()
    source: str  #: the paper that introduced it or the code that defines it

    def apply(self, linear: nn.Linear, generator: torch.Generator | None = None) -> nn.Linear:
        """Draw the parameters of ``linear`` anew, in place, and return it.

        Args:
            linear: a layer of any floating dtype that ``torch.nn.init`` can draw, with or without a bias.
            generator: on the device of ``linear``; torch's global generator if None.

        Example:
            >>> layer = get("xavier").apply(torch.nn.Linear(4, 4), torch.Generator().manual_seed(0))
            >>> layer.bias.tolist()
            [0.0, 0.0, 0.0, 0.0]
        """
        self.draw_weight(linear.weight, generator)
        if linear.bias is not None:
            self.draw_bias(linear.bias, linear.in_features, generator)
        return linear

    def layers(self, widths: Sequence[int]) -> tuple[Variances, ...]:
        """Return the variances of each layer of a fully connected network.

        Args:
            widths: the number of inputs, then of each layer's units; one more than there are layers.

        Example:
            >>> [layer.weight for layer in get("orthogonal").layers([256, 1024, 1024])]
            [0.25, 1.0]
        """
        return tuple(self.variances(fan_in, fan_out) for fan_in, fan_out in itertools.pairwise(widths))


def _zero_bias(bias: Tensor, fan_in: int, generator: torch.Generator | None) -> object:
    return init.zeros_(bias)


def _default_bias(bias: Tensor, fan_in: int, generator: torch.Generator | None) -> object:
    bound = 1 / math.sqrt(fan_in)
    return init.uniform_(bias, -bound, bound, generator=generator)


INITIALISATIONS: Mapping[str, Initialisation] = MappingProxyType(
    {
        initialisation.key: initialisation
        for initialisation in (
            Initialisation(
                key="default",
                formula=r"W, b \sim U(\pm 1/\sqrt{n_{in}})",
                variances=lambda fan_in, fan_out: Variances(1 / 3, 1 / (3 * fan_in)),
                # The slope √5 makes He's bound 1/√fan_in; nn.Linear draws its weight by this very call.
                draw_weight=lambda weight, generator: init.kaiming_uniform_(weight, math.sqrt(5), generator=generator),
                draw_bias=_default_bias,
                aliases=("torch", "pytorch"),
                source="torch.nn.Linear.reset_parameters",
            ),
            Initialisation(
                key="xavier",
                formula=r"W \sim N(0, 2/(n_{in} + n_{out})), \quad b = 0",
                variances=lambda fan_in, fan_out: Variances(2 * fan_in / (fan_in + fan_out), 0.0),
                draw_weight=lambda weight, generator: init.xavier_normal_(weight, generator=generator),
                draw_bias=_zero_bias,
                aliases=("glorot",),
                source="Glorot and Bengio 2010, Understanding the Difficulty of Training Deep Feedforward Neural "
                "Networks",
            ),
            Initialisation(
                key="he",
                formula=r"W \sim N(0, 2/n_{in}), \quad b = 0",
                variances=lambda fan_in, fan_out: Variances(2.0, 0.0),
                draw_weight=lambda weight, generator: init.kaiming_normal_(
                    weight, nonlinearity="relu", generator=generator
                ),
                draw_bias=_zero_bias,
                aliases=("kaiming",),
                source="He, Zhang, Ren and Sun 2015, arXiv:1502.01852",
            ),
            Initialisation(
                key="orthogonal",
                formula=r"W^\top W = I \text{ or } W W^\top = I, \text{ uniformly}, \quad b = 0",
                variances=lambda fan_in, fan_out: Variances(fan_in / max(fan_in, fan_out), 0.0),
                draw_weight=lambda weight, generator: init.orthogonal_(weight, generator=generator),
                draw_bias=_zero_bias,
                source="Saxe, McClelland and Ganguli 2014, arXiv:1312.6120",
            ),
        )
    }
)

ALIASES: Mapping[str, str] = MappingProxyType(
    {alias: initialisation.key for initialisation in INITIALISATIONS.values() for alias in initialisation.aliases}
)


def get(name: str, argument: str = "initialisation") -> Initialisation:
    """Return the initialisation called ``name``: its key or an alias, in any spelling.

    Args:
        name: ``"default"`` (or ``"torch"``), ``"xavier"`` (``"glorot"``), ``"he"`` (``"kaiming"``) or ``"orthogonal"``.
        argument: the name of the argument it was given for, for the error message.

    Raises:
        ValueError: no initialisation has that name; the message lists the nearest matches and all that exists.

    Example:
        >>> get("Glorot").key
        'xavier'
    """
    return lookup.find(INITIALISATIONS, name, argument, ALIASES)
