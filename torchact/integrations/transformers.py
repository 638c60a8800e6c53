"""The callback for the ``Trainer`` of Hugging Face's transformers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from torchact.integrations import MonitoredTraining

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ModuleNotFoundError as error:
    if error.name != "transformers":
        raise
    raise ImportError(
        "torchact.integrations.transformers needs transformers and accelerate: pip install 'transformers[torch]'"
    ) from None

__all__ = ["GradientMonitorCallback"]


class GradientMonitorCallback(MonitoredTraining, TrainerCallback):
    """Attaches a :class:`.GradientMonitor` to what a ``transformers.Trainer`` trains.

    A step is a step of the optimiser, after all its accumulated micro-batches. Steps are counted from 0 at each call of
    ``train()``. Parameter gradients are those after clipping.

    The Trainer does not tell its callbacks of an exception. The hooks then stay until the next training begins, the
    callback is garbage, or :meth:`close` is called, as the end of a ``with`` block does.

    Args:
        log_dir: the TensorBoard run's folder; None keeps readings in memory only.
        every: record each step whose number is a multiple of this.
        **arguments: what else :class:`.GradientMonitor` takes by keyword.

    Raises:
        TypeError, ValueError: as :class:`.GradientMonitor`.

    Example:
        >>> import tempfile, torch
        >>> from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
        >>> from torchact.integrations.transformers import GradientMonitorCallback
        >>> model = GPT2LMHeadModel(GPT2Config(vocab_size=16, n_positions=8, n_embd=16, n_layer=2, n_head=2))
        >>> data = [{"input_ids": torch.arange(8), "labels": torch.arange(8)}] * 16
        >>> options = {"report_to": "none", "disable_tqdm": True, "save_strategy": "no", "use_cpu": True}
        >>> with tempfile.TemporaryDirectory() as folder, GradientMonitorCallback() as callback:
        ...     arguments = TrainingArguments(folder, max_steps=4, dataloader_pin_memory=False, **options)
        ...     trainer = Trainer(model, arguments, train_dataset=data, callbacks=[callback])
        ...     output = trainer.train()  # doctest: +ELLIPSIS
        {'train_runtime': ...}
        >>> [reading.step for reading in callback.monitor.history]
        [0, 1, 2, 3]
    """

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        **others: Any,
    ) -> None:
        assert model is not None
        assert optimizer is not None
        self._attach(model, [_unwrapped(optimizer)])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        self.close()


def _unwrapped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return the optimiser inside of accelerate's, which calls no hooks itself."""
    while isinstance(wrapped := getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = wrapped
    return optimizer
