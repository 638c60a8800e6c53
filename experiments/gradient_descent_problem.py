"""The problem of the gradient descent experiment: a parabola, a start, a learning rate, and what theory says of them.

Since J(w) = Σ (z − w·x)² = S·(w − 2)² for z = 2x, with S = Σ x² (or its mean over x), every step w ← w − α·dJ/dw
multiplies the error w − 2 by one and the same factor ρ = 1 − 2αS::

    w_t = 2 + (w_0 − 2)·ρ^t        J_t = S·(w_0 − 2)²·ρ^(2t)

so α alone decides between five regimes: from one side for α < 1/(2S), in one step at 1/(2S), oscillating up to 1/S,
cycling at 1/S and diverging beyond.

Example:
    >>> problem = Problem(x=(1.0,))
    >>> regime(problem), predicted_iterations(problem)
    ('from one side', 9)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Regime = Literal["from one side", "in one step", "oscillating", "cycling", "diverging"]

TRUE_WEIGHT = 2.0

#: A run has arrived when its error |w − 2| is this fraction of the initial one.
ARRIVED = 1e-6

#: Iterations after which a run that has not arrived is given up; 0.01·α* takes 1,375.
PATIENCE = 2_000

#: A factor ρ this close to 0 or −1 counts as equal to it: α, x and S are rounded decimals, and a difference this small
#: could not be seen in PATIENCE iterations.
SAME = 1e-9

#: What S and w_0 may be, so that J(w_0) stays far from the ends of float64's range.
SMALLEST, LARGEST = 1e-50, 1e50


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is descended on, from where and at which learning rate.

    Raises:
        ValueError: an argument is outside what is accepted; the message names it, its value and what would be.
    """

    x: tuple[float, ...] = (0.6, 0.8, 1.0)
    """Inputs; the targets are z = 2x.
    At α = 0.4 the default (Σ x² = 2) converges oscillating,
    "1" comes from one side, "0.5 1" lands in one step,
    "0.5 1.5" cycles and "1 1 1" diverges."""

    w0: float = 0.2
    """The weight to start from; the minimum is at 2."""

    learning_rate: float = 0.4
    """Learning rate α."""

    reduction: Literal["sum", "mean"] = "sum"
    """Whether J adds up or averages the squared errors.
    Averaging divides the steps by the number of x."""

    def __post_init__(self) -> None:
        if not self.x or not all(map(math.isfinite, self.x)):
            raise ValueError(f"x: expected one or more finite numbers, got {self.x!r}")
        if not SMALLEST <= self.curvature <= LARGEST:
            raise ValueError(
                f"x: expected a {self.reduction} of squares between {SMALLEST:g} and {LARGEST:g} (all zero leaves "
                f"nothing to learn), got {self.curvature:g} from {self.x!r}"
            )
        if not abs(self.w0) <= LARGEST:
            raise ValueError(f"w0: expected a number between {-LARGEST:g} and {LARGEST:g}, got {self.w0!r}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate: expected a finite number above 0, got {self.learning_rate!r}")
        if self.reduction not in ("sum", "mean"):
            raise ValueError(f"reduction: expected 'sum' or 'mean', got {self.reduction!r}")

    @property
    def curvature(self) -> float:
        """S = Σ x², or the mean of x²: J(w) = S·(w − 2)²."""
        squares = sum(value * value for value in self.x)
        return squares / len(self.x) if self.reduction == "mean" else squares

    @property
    def factor(self) -> float:
        """ρ = 1 − 2αS, by which every step multiplies the error w − 2."""
        return 1 - 2 * self.learning_rate * self.curvature

    @property
    def one_step_rate(self) -> float:
        """α* = 1/(2S), the learning rate that lands in one step (Newton's step, as J'' = 2S)."""
        return 0.5 / self.curvature

    @property
    def largest_rate(self) -> float:
        """α_max = 1/S, at which the weight cycles between two values and beyond which it diverges."""
        return 1 / self.curvature


def regime(problem: Problem) -> Regime:
    """Name what the run does, from ρ = 1 − 2αS; see :data:`SAME` for when ρ counts as 0 or −1."""
    if abs(problem.factor) <= SAME:
        return "in one step"
    if problem.factor > 0:
        return "from one side"
    if abs(problem.factor + 1) <= SAME:
        return "cycling"
    return "oscillating" if problem.factor > -1 else "diverging"


def predicted_iterations(problem: Problem) -> float:
    """Return the smallest t with |ρ|^t ≤ 1e-6, the iterations until the run has arrived, or infinity."""
    if regime(problem) in ("cycling", "diverging"):
        return math.inf
    if regime(problem) == "in one step":
        return 1
    # |1 − u| = 1 − min(u, 2 − u) for 0 < u < 2; log1p keeps the logarithm exact where ρ itself rounds to ±1.
    distance = 2 * problem.learning_rate * problem.curvature
    return math.ceil(math.log(ARRIVED) / math.log1p(-min(distance, 2 - distance)))


def headline(problem: Problem) -> str:
    """Return what tables and pictures are headed with: J(w), its numbers and the regime."""
    sign = "Σ" if problem.reduction == "sum" else "mean of "
    return (
        f"J(w) = {sign}(2x − w·x)²,  S = {problem.curvature:.4g},  α = {problem.learning_rate:.4g},  "
        f"error × {problem.factor:.4g} a step: {regime(problem)}"
    )
