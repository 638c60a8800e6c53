"""The callbacks in two processes: each has the numbers of one process that has all the data, and one writes them."""

import dataclasses
import os
import sys

import pytest
import torch
from torch import distributed as dist
from torch import nn
from torch.utils.data import DataLoader

import torchact
from tests.ranks import RANKS, Recorder, assert_same_numbers, on_ranks

os.environ["HF_HUB_OFFLINE"] = "1"
transformers = pytest.importorskip("transformers", reason="the extra `development` has transformers")
pytest.importorskip("accelerate", reason="the extra `development` has accelerate, without which there is no Trainer")
lightning = pytest.importorskip("pytorch_lightning", reason="the extra `development` has pytorch-lightning")
from torchact.integrations import lightning as for_lightning  # noqa: E402
from torchact.integrations import transformers as for_transformers  # noqa: E402

pytestmark = [
    pytest.mark.skipif(not dist.is_available() or sys.platform != "linux", reason="torch has no gloo here"),
    pytest.mark.filterwarnings(
        "ignore:.*does not have many workers:UserWarning",
        "ignore:`isinstance.treespec, LeafSpec.`:FutureWarning",
    ),
]
BATCH, STEPS, WIDTH = 4, 3, 16


def train_with_transformers(ranks=1):
    """Train by accelerate's DDP, if there are several ranks."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 13, "n_positions": 8, "n_embd": WIDTH, "n_layer": 2, "n_head": 2}
    dropped = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **dropped, bos_token_id=0, eos_token_id=1))
    tokens = torch.randint(13, (24, 8), generator=torch.Generator().manual_seed(1))
    recorder = Recorder()
    callback = for_transformers.GradientMonitorCallback(every=1, sinks=[recorder])
    quiet = {"report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no"}
    arguments = transformers.TrainingArguments(
        "nowhere",
        max_steps=STEPS,
        per_device_train_batch_size=BATCH // ranks,
        use_cpu=True,
        dataloader_pin_memory=False,
        **quiet,
    )
    assert arguments.world_size == ranks
    trainer = transformers.Trainer(
        model, arguments, train_dataset=[{"input_ids": row, "labels": row} for row in tokens], callbacks=[callback]
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return [without_positions(reading) for reading in callback.monitor.history], recorder.steps


def without_positions(reading):
    """Leave out the layer that every rank calls with the same input, of which there are then as many samples."""
    return dataclasses.replace(reading, layers=[layer for layer in reading.layers if layer.name != "transformer.wpe"])


class Regression(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(4, 8), torchact.Tanh(), nn.Linear(8, 1))

    def training_step(self, batch, batch_idx):
        return self.network(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train_with_lightning(ranks=1):
    """Train by Lightning's DDP, if there are several ranks."""
    recorder = Recorder()
    callback = for_lightning.GradientMonitorCallback(every=1, sinks=[recorder])
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        devices=ranks,
        strategy="ddp" if ranks > 1 else "auto",
        use_distributed_sampler=False,  # which shuffles
        callbacks=[callback],
        **quiet,
    )
    samples = torch.randn(BATCH * STEPS, 4, generator=torch.Generator().manual_seed(1))
    mine = samples[trainer.global_rank :: ranks]
    trainer.fit(Regression(), DataLoader(mine, BATCH // ranks))
    return list(callback.monitor.history), recorder.steps


LIBRARIES = {"transformers": train_with_transformers, "Lightning": train_with_lightning}


def work():
    return {library: train(RANKS) for library, train in LIBRARIES.items()}


@pytest.fixture(scope="module")
def ranks():
    return on_ranks(work)


@pytest.mark.parametrize("library", LIBRARIES)
def test_each_rank_has_the_numbers_of_one_process_and_the_first_one_writes_them(ranks, library):
    expected, steps = LIBRARIES[library]()
    assert steps == list(range(STEPS))
    for readings, _ in (measured[library] for measured in ranks):
        # The first token attends to itself alone: the attention that it pays, by its query, has a gradient of 0.
        assert_same_numbers(readings, expected, rounded_zeros={"attn.c_attn": BATCH * WIDTH})
    assert [written for _, written in (measured[library] for measured in ranks)] == [steps, []]
