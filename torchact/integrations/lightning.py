"""The callback for the ``Trainer`` of Lightning, under either of its names."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

import torch

from torchact.integrations import MonitoredTraining

if TYPE_CHECKING:
    from pytorch_lightning import Callback, LightningModule, Trainer

__all__ = ["GradientMonitorCallback"]


def _lightning() -> ModuleType:
    """Import Lightning under the name that is in use, since each name has classes of its own."""
    for name in sorted(("lightning.pytorch", "pytorch_lightning"), key=lambda name: name not in sys.modules):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in (name, name.partition(".")[0]):
                raise
    raise ImportError("torchact.integrations.lightning needs Lightning: pip install lightning")


if not TYPE_CHECKING:
    Callback = _lightning().Callback


class GradientMonitorCallback(MonitoredTraining, Callback):
    """Attaches a :class:`.GradientMonitor` to what a Lightning ``Trainer`` trains.

    A step is a step of the optimiser, after all its accumulated micro-batches. Steps are counted from 0 at each call of
    ``fit()``. Parameter gradients are those after clipping; where the Trainer clips, their norms before are read too.
    Validation and the sanity check before training count for nothing, unless they turn gradients on.

    Args:
        log_dir: the TensorBoard run's folder; None keeps readings in memory only.
        every: record each step whose number is a multiple of this.
        **arguments: what else :class:`.GradientMonitor` takes by keyword.

    Raises:
        TypeError, ValueError: as :class:`.GradientMonitor`.

    Example:
        >>> import torch
        >>> from pytorch_lightning import LightningModule, Trainer
        >>> from torchact.integrations.lightning import GradientMonitorCallback
        >>> class Regression(LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
        ...
        ...     def training_step(self, batch, batch_idx):
        ...         return self.network(batch).square().mean()
        ...
        ...     def configure_optimizers(self):
        ...         return torch.optim.SGD(self.parameters(), lr=0.1)
        >>> callback = GradientMonitorCallback()
        >>> trainer = Trainer(max_steps=4, callbacks=[callback])  # doctest: +SKIP
        >>> trainer.fit(Regression(), torch.utils.data.DataLoader(torch.ones(8, 4)))  # doctest: +SKIP
        >>> [reading.step for reading in callback.monitor.history]  # doctest: +SKIP
        [0, 1, 2, 3]
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._attach(pl_module, trainer.optimizers)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if self.monitor is not None and trainer.gradient_clip_val:
            self.monitor.before_clipping()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.close()
