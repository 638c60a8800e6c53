"""The one place that chooses the kernels of each activation: the fastest of those that are accurate.

Accurate means, on the CPU and in every dtype, what docs/accuracy.md promises.

A forward kernel takes (input, *parameters); a backward kernel takes (grad_output, saved, *parameters), where ``saved``
is the tensor that the catalogue names in ``saves``. Of two operands a forward kernel takes (first, second,
*parameters), and a backward kernel takes (grad_output, first, second, *parameters) and returns both gradients, before
they are summed over dimensions that were broadcast. Of a packed gated unit they take (input, dim, gate, *parameters)
and (grad_output, input, dim, gate, *parameters). No kernel is differentiable, and none writes into its arguments.

:func:`status` says whether the compiled kernels are there. With ``TORCHACT_KERNELS=0`` in the environment they are not
used; results are then the same to a few units in the last place, and some are much slower.
"""

from torchact.kernels.choice import KERNELS, PACKED_KERNELS, PAIR_KERNELS, forget, register
from torchact.kernels.extension import Status, status
from torchact.kernels.reference import Kernels, rounded_once
from torchact.kernels.statistics import (
    BINS,
    MOST_INTERVALS,
    NO_INTERVALS,
    Flat,
    add_largest_of_units,
    add_largest_of_units_at,
    add_statistics,
    add_statistics_at,
    add_statistics_of_each,
    add_within_at,
    add_within_of_each,
    flat,
    is_one_pass,
    statistics,
    statistics_of_each_at,
    take,
)

__all__ = [
    "BINS",
    "KERNELS",
    "MOST_INTERVALS",
    "NO_INTERVALS",
    "PACKED_KERNELS",
    "PAIR_KERNELS",
    "Flat",
    "Kernels",
    "Status",
    "add_largest_of_units",
    "add_largest_of_units_at",
    "add_statistics",
    "add_statistics_at",
    "add_statistics_of_each",
    "add_within_at",
    "add_within_of_each",
    "flat",
    "forget",
    "is_one_pass",
    "register",
    "rounded_once",
    "statistics",
    "statistics_of_each_at",
    "status",
    "take",
]
