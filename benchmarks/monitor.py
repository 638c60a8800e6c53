"""What watching adds to a training step: a monitor's signals beside other ways to log gradient norms.

Expected before measuring: idle next to nothing; the parameters' norms at every step about 3 %; all signals at every
tenth step about 3 %, at every step 15 to 30 % with the compiled kernels. It was more where layers are small: the table
in ``docs/diagnostics.md`` has what was measured, and why.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import torchact
from benchmarks.interleaved import Runner, Spread, in_turns

Run = tuple[nn.Module, torch.optim.Optimizer, Callable[[], Tensor]]
CYCLE = 10  # steps, of which one is recorded by what records every tenth


def mlp() -> Run:
    """20 layers of 256 units, batch 128."""
    layers = [layer for _ in range(20) for layer in (nn.Linear(256, 256), torchact.ReLU())]
    return _run(nn.Sequential(*layers, nn.Linear(256, 10)), torch.randn(128, 256))


def cnn() -> Run:
    """8 convolutions of 32 channels, batch 32 of 16 × 16 pixels."""
    layers = [layer for _ in range(7) for layer in (nn.Conv2d(32, 32, 3, padding=1), torchact.ReLU())]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)]
    network = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), torchact.ReLU(), *layers, *head)
    return _run(network, torch.randn(32, 3, 16, 16))


def transformer() -> Run:
    """4 encoder layers of width 128, batch 16 of 32 tokens."""
    layer = nn.TransformerEncoderLayer(128, 4, 512, 0.0, torchact.GELU(), batch_first=True)
    encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
    return _run(nn.Sequential(encoder, nn.Flatten(), nn.Linear(32 * 128, 10)), torch.randn(16, 32, 128))


def _run(model: nn.Module, inputs: Tensor) -> Run:
    targets = torch.randint(10, inputs.shape[:1])
    return (
        model,
        torch.optim.SGD(model.parameters(), lr=1e-4),
        lambda: nn.functional.cross_entropy(model(inputs), targets),
    )


NETWORKS = {"MLP": mlp, "CNN": cnn, "transformer": transformer}


@dataclass(frozen=True)
class Watcher:
    """One way to watch: what is attached, and what is called between the backward pass and the step."""

    attached: Callable[[nn.Module, torch.optim.Optimizer], AbstractContextManager[Any]] = lambda *run: nullcontext()
    each_step: Callable[[nn.Module], object] = lambda model: None
    most: float | None = None  #: the ratio that it must not exceed


def _monitor(most: float | None, **arguments: Any) -> Watcher:
    return Watcher(lambda model, optimizer: torchact.GradientMonitor(model, optimizer, **arguments), most=most)


def _total_norm(model: nn.Module) -> float:
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients).item()


def _lightning_norms(model: nn.Module) -> object:
    from pytorch_lightning.utilities import grad_norm

    return {name: float(norm) for name, norm in grad_norm(model, 2).items()}


@contextmanager
def _wandb_watch(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Histograms of all gradients at every step, kept on this machine."""
    import wandb

    with (
        TemporaryDirectory() as folder,
        wandb.init(mode="offline", dir=folder, settings=wandb.Settings(silent=True)) as run,
    ):
        run.watch(model, log="gradients", log_freq=1)
        handle = optimizer.register_step_post_hook(lambda *step: run.log({}))
        yield
        handle.remove()
        run.unwatch(model)


def watchers() -> dict[str, Watcher]:
    """Return the ways to watch that can be measured here."""
    every_step = 1.15 if torchact.kernels.status().loaded else 1.3
    found = {
        "attached, idle": _monitor(1.005, every=10**9, first=0),
        "parameters, every step": _monitor(1.03, every=1, signals={"parameters"}),
        "all signals, every 10th step": _monitor(1.05, every=10, first=0),
        "all signals, every step": _monitor(every_step, every=1),
        "get_total_norm": Watcher(each_step=_total_norm),
    }
    if importlib.util.find_spec("pytorch_lightning"):
        found["Lightning's grad_norm"] = Watcher(each_step=_lightning_norms)
    if importlib.util.find_spec("wandb"):
        found["wandb.watch, every step"] = Watcher(attached=_wandb_watch)
    return found


def _step(run: Run, watcher: Watcher) -> Callable[[], None]:
    model, optimizer, loss = run

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        watcher.each_step(model)
        optimizer.step()

    return step


def measure(network: Callable[[], Run], watcher: Watcher, rounds: int = 21) -> tuple[Spread, Spread]:
    """Return the time of a step with the watcher in µs, and its ratio to one without, over cycles of ten steps.

    The two take turns at each step: what else the machine does then slows both.
    """
    torch.manual_seed(0)
    plain = network()
    torch.manual_seed(0)
    watched = network()
    with watcher.attached(*watched[:2]):
        runners = {"with": Runner(_step(watched, watcher)), "without": Runner(_step(plain, Watcher()))}
        for runner in runners.values():
            runner.microseconds(CYCLE)  # warm-up
        timings = in_turns(runners, dict.fromkeys(runners, 1), rounds * CYCLE).together(CYCLE)
    return timings.time("with"), timings.ratio("with", "without")


def rows() -> Iterator[tuple[str, str, Spread, Spread, float | None]]:
    """Yield (network, way to watch, time of a step, ratio, what the ratio must not exceed)."""
    for network_name, network in NETWORKS.items():
        for name, watcher in watchers().items():
            yield network_name, name, *measure(network, watcher), watcher.most


def main() -> None:
    """Print the table."""
    table = Table(
        *("network", "watching", "step, ms", "ratio to none", "20-80 %", "at most"),
        title=f"Training steps, {torch.get_num_threads()} threads; {torchact.kernels.status()}",
    )
    for network, name, time, ratio, most in rows():
        spread = f"{ratio.low:.3f}-{ratio.high:.3f}"
        limit = "" if most is None else f"{most:g}"
        table.add_row(network, name, f"{time.median / 1e3:.2f}", f"{ratio.median:.3f}", spread, limit)
    Console(width=120).print(table)
