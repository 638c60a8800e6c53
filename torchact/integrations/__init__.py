"""A :class:`.GradientMonitor` in the training loops of other libraries: a callback for each, in a module of its own.

Importing this package imports none of those libraries; each module imports its own.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import nn

from torchact.diagnostics import GradientMonitor

__all__ = ["MonitoredTraining"]

#: The monitor that a callback attached last, by model. An interrupted training may have left it there.
_attached: weakref.WeakKeyDictionary[nn.Module, weakref.ref[GradientMonitor]] = weakref.WeakKeyDictionary()


class MonitoredTraining:
    """What the callbacks share: a monitor that is attached when a training begins and closed when it ends.

    It is also closed by :meth:`close`, at the end of a ``with`` block, when the next training of this callback or of
    the same model begins, and when the callback is garbage. A copied or unpickled callback has no monitor yet.

    Args:
        log_dir: the TensorBoard run's folder; None keeps readings in memory only.
        every: record each step whose number is a multiple of this.
        **arguments: what else :class:`.GradientMonitor` takes by keyword.

    Raises:
        TypeError, ValueError: as :class:`.GradientMonitor`.
    """

    def __init__(self, log_dir: str | Path | None = None, *, every: int = 10, **arguments: Any) -> None:
        super().__init__()
        # A wrong argument is refused now, and not when training begins. A LayerNorm draws no random numbers.
        GradientMonitor(nn.LayerNorm(1), every=every, **arguments)
        self.log_dir = log_dir
        self.arguments = {"every": every, **arguments}
        self.monitor: GradientMonitor | None = None  #: of the latest training, None before the first

    def close(self) -> None:
        """Remove the monitor's hooks, if a training ended without doing so; readings stay in its history."""
        if self.monitor is not None:
            self.monitor.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "monitor": None}

    def _attach(self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Attach a new monitor, and close those of this callback's and of the model's last training."""
        for earlier in (self.monitor, _attached.get(model, lambda: None)()):
            if earlier is not None:
                earlier.close()
        arguments = {"group": _all_ranks(), **self.arguments}
        self.monitor = GradientMonitor(model, optimizers, self.log_dir, **arguments)
        _attached[model] = weakref.ref(self.monitor)


def _all_ranks() -> dist.ProcessGroup | None:
    """Return the group of all ranks, each of which has the callback, if there are several."""
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return dist.group.WORLD if several else None
