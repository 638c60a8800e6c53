"""What a GradientMonitor adds to a training step, by how often it records: a 20-layer MLP, one thread.

Expected before measuring, from a prototype with stock operators: about 2.25 times the step when every step is recorded,
6 to 20 % more at every tenth, and next to nothing when it is attached and idle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import torchact
from benchmarks.interleaved import Ratio, compare


def _step(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    inputs, targets = torch.randn(128, 256), torch.randint(10, (128,))

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()

    return step


def _network() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    layers = [layer for _ in range(20) for layer in (nn.Linear(256, 256), torchact.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(256, 10))
    return model, torch.optim.SGD(model.parameters(), lr=1e-4)


def measure() -> Iterator[tuple[str, Ratio]]:
    """Yield (how often it records, ratio of step times), each against the same network without a monitor."""
    for label, every in (
        ("attached, idle", 10**9),
        ("every 50th step", 50),
        ("every 10th step", 10),
        ("every step", 1),
    ):
        plain, watched = _network(), _network()
        with torchact.GradientMonitor(*watched, every=every):
            # Turns of 50 steps hold a whole number of recorded ones.
            yield label, compare(_step(*watched), _step(*plain), rounds=5, turns=1, calls=50)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    table = Table("recording", "with ms", "without ms", "ratio", "20-80 %", title="20 layers of 256 units, batch 128")
    for label, ratio in measure():
        spread = f"{ratio.low:.2f}-{ratio.high:.2f}"
        table.add_row(label, f"{ratio.ours / 1e3:.2f}", f"{ratio.reference / 1e3:.2f}", f"{ratio.ratio:.3f}", spread)
    Console().print(table)
