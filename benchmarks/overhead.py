"""What a call costs on 16 elements, where the arithmetic is free and only the way to the kernel counts.

Expected before measuring, from a prototype: forward and backward at most 1.7 times torch's own, forward without a graph
at most twice. torch has no binary step with a gradient; without a graph it is compared with ``torch.heaviside``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

import torchact
from benchmarks.interleaved import Ratio, compare

_ONE = torch.ones(())

COUNTERPARTS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "sigmoid": (torchact.functional.sigmoid, torch.sigmoid),
    "tanh": (torchact.functional.tanh, torch.tanh),
    "relu": (torchact.functional.relu, F.relu),
    "leaky_relu": (torchact.functional.leaky_relu, F.leaky_relu),
    "softmax": (functools.partial(torchact.functional.softmax, dim=0), functools.partial(F.softmax, dim=0)),
    "binary_step": (torchact.functional.binary_step, lambda x: torch.heaviside(x, _ONE)),
    "identity": (torchact.functional.identity, torch.nn.Identity()),
}


def measure(elements: int = 16) -> Iterator[tuple[str, str, Ratio]]:
    """Yield (activation, mode, ratio) for every activation and both modes."""
    x = torch.randn(elements)
    leaf = x.clone().requires_grad_()
    grad_output = torch.ones(elements)
    for name, (ours, reference) in COUNTERPARTS.items():
        forward = functools.partial(ours, x), functools.partial(reference, x)
        with torch.no_grad():
            yield name, "no graph", compare(*forward)
        if name not in ("binary_step", "identity"):  # torch has no gradient for one, and the other does nothing
            both = functools.partial(_forward_and_backward, leaf=leaf, grad_output=grad_output)
            yield name, "forward + backward", compare(functools.partial(both, ours), functools.partial(both, reference))


def _forward_and_backward(function: Callable[[Tensor], Tensor], leaf: Tensor, grad_output: Tensor) -> object:
    return torch.autograd.grad(function(leaf), leaf, grad_output)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    table = Table(
        "activation", "mode", "ours µs", "torch µs", "ratio", "20-80 %", title="16 float32 elements, one thread"
    )
    for name, mode, ratio in measure():
        spread = f"{ratio.low:.2f}-{ratio.high:.2f}"
        table.add_row(name, mode, f"{ratio.ours:.2f}", f"{ratio.reference:.2f}", f"{ratio.ratio:.2f}", spread)
    Console().print(table)
