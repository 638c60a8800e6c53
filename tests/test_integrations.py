"""The callbacks read what a monitor in a plain training loop reads, and leave the training as it is."""

import copy
import gc
import importlib
import logging
import os
import pickle
import re
import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import torchact
from torchact import GradientMonitor

os.environ["HF_HUB_OFFLINE"] = "1"
transformers = pytest.importorskip("transformers", reason="the extra `development` has transformers")
pytest.importorskip("accelerate", reason="the extra `development` has accelerate, without which there is no Trainer")
lightning = pytest.importorskip("pytorch_lightning", reason="the extra `development` has pytorch-lightning")
from torchact.integrations import lightning as for_lightning  # noqa: E402
from torchact.integrations import transformers as for_transformers  # noqa: E402

logging.getLogger("transformers").setLevel(logging.ERROR)
for name in ("pytorch_lightning", "lightning.pytorch"):
    logging.getLogger(name).setLevel(logging.ERROR)

CALLBACKS = (for_transformers.GradientMonitorCallback, for_lightning.GradientMonitorCallback)


def hook_count(model):
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, name)) for module in model.modules() for name in hooks)


def steps(callback):
    return [reading.step for reading in callback.monitor.history]


def assert_same_weights(model, twin):
    for (name, ours), theirs in zip(model.state_dict().items(), twin.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


def strip_numbers(text):
    return re.sub(r"[-+.e\d]+", "", text)


class Failing(Exception):
    pass


class TestImport:
    def test_torchact_imports_neither_library(self):
        program = (
            "import sys, torchact, torchact.integrations\n"
            "print({'transformers', 'lightning', 'pytorch_lightning'} & set(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout == "set()\n"

    @pytest.mark.parametrize(
        ("module", "absent", "message"),
        [
            (
                "transformers",
                ["transformers"],
                "torchact.integrations.transformers needs transformers and accelerate:"
                " pip install 'transformers[torch]'",
            ),
            (
                "lightning",
                ["lightning", "lightning.pytorch", "pytorch_lightning"],
                "torchact.integrations.lightning needs Lightning: pip install lightning",
            ),
        ],
    )
    def test_without_the_library_one_line_says_what_to_install(self, monkeypatch, module, absent, message):
        for name in absent:
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ImportError) as raised:
            freshly_imported(monkeypatch, module)
        assert str(raised.value) == message
        assert raised.value.__suppress_context__ or raised.value.__context__ is None

    def test_the_name_of_lightning_that_is_in_use_is_taken(self, monkeypatch):
        class Callback(lightning.Callback):
            pass

        other = type(sys)("lightning.pytorch")
        other.Callback = Callback
        monkeypatch.setitem(sys.modules, "lightning", type(sys)("lightning"))
        monkeypatch.setitem(sys.modules, "lightning.pytorch", other)
        assert issubclass(freshly_imported(monkeypatch, "lightning").GradientMonitorCallback, Callback)


def freshly_imported(monkeypatch, module):
    name = f"torchact.integrations.{module}"
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(torchact.integrations, module, None)
    return importlib.import_module(name)


@pytest.mark.parametrize("callback_class", CALLBACKS)
class TestArguments:
    def test_wrong_ones_are_refused_at_once(self, callback_class):
        with pytest.raises(ValueError, match="every: expected a whole number of at least 1, got 0"):
            callback_class(every=0)
        with pytest.raises(ValueError, match="keep: expected a whole number of at least 1, got 0"):
            callback_class(keep=0)
        with pytest.raises(TypeError, match="unexpected keyword argument 'evry'"):
            callback_class(evry=2)

    def test_a_callback_draws_no_random_numbers(self, callback_class):
        state = torch.get_rng_state()
        callback_class()
        assert torch.equal(torch.get_rng_state(), state)

    def test_sinks_are_closed_only_after_training(self, callback_class):
        class Sink:
            closed = False

            def write(self, reading):
                pass

            def close(self, report):
                self.closed = True

        sink = Sink()
        callback_class(sinks=[sink])
        assert not sink.closed

    def test_before_a_training_there_is_no_monitor(self, callback_class):
        callback = callback_class()
        callback.close()
        assert callback.monitor is None


# ---- transformers


def gpt2(**config):
    torch.manual_seed(0)
    sizes = {"vocab_size": 13, "n_positions": 8, "n_embd": 16, "n_layer": 2, "n_head": 2}
    tokens = {"bos_token_id": 0, "eos_token_id": 1}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **tokens, **config))


def texts(count=24):
    tokens = torch.randint(13, (count, 8), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": row, "labels": row} for row in tokens]


class FailingTrainer(transformers.Trainer):
    fail_at = 2

    def training_step(self, *arguments, **keywords):
        if self.state.global_step == self.fail_at:
            raise Failing
        return super().training_step(*arguments, **keywords)


class TestTransformers:
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path):
        self.folder = tmp_path

    def trainer(self, model, *callbacks, trainer_class=transformers.Trainer, optimizers=(None, None), **arguments):
        """A silent Trainer that makes six steps of two texts each."""
        defaults = {"max_steps": 6, "per_device_train_batch_size": 2, "learning_rate": 1e-2}
        quiet = {"report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no"}
        on_cpu = {"use_cpu": True, "dataloader_pin_memory": False}
        trainer = trainer_class(
            model,
            transformers.TrainingArguments(str(self.folder), **{**defaults, **quiet, **on_cpu, **arguments}),
            train_dataset=texts(),
            eval_dataset=texts(4),
            callbacks=list(callbacks),
            optimizers=optimizers,
        )
        trainer.remove_callback(transformers.PrinterCallback)
        return trainer

    def callback(self, **arguments):
        return for_transformers.GradientMonitorCallback(**arguments)

    def test_steps_are_those_of_the_optimiser(self):
        callback = self.callback(every=2, first=0)
        self.trainer(gpt2(), callback, gradient_accumulation_steps=2).train()
        assert steps(callback) == [0, 2, 4]
        assert "transformer.h.1.mlp.c_fc" in [layer.name for layer in callback.monitor.history[-1].layers]

    @pytest.mark.parametrize("accumulated", [1, 3])
    @pytest.mark.parametrize("max_grad_norm", [0.0, 0.1])
    def test_readings_are_those_of_a_plain_loop(self, accumulated, max_grad_norm):
        model = gpt2(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
        twin = copy.deepcopy(model)
        fetched = []

        def collate(examples):
            fetched.append({name: torch.stack([example[name] for example in examples]) for name in examples[0]})
            return fetched[-1]

        def sgd(model):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)

        callback = self.callback(every=2, first=0)
        arguments = {"gradient_accumulation_steps": accumulated, "max_grad_norm": max_grad_norm, "max_steps": 3}
        trainer = self.trainer(model, callback, optimizers=sgd(model), **arguments)
        trainer.data_collator = collate
        trainer.train()

        optimizer, _ = sgd(twin)
        with GradientMonitor(twin, optimizer, every=2, first=0) as monitor:
            for step in range(3):
                optimizer.zero_grad()
                batches = fetched[step * accumulated : (step + 1) * accumulated]
                items = torch.tensor(sum(batch["labels"].numel() for batch in batches))
                for batch in batches:
                    twin(**batch, num_items_in_batch=items).loss.backward()
                if max_grad_norm:
                    nn.utils.clip_grad_norm_(twin.parameters(), max_grad_norm)
                optimizer.step()
        assert_same_weights(model, twin)
        assert list(callback.monitor.history) == list(monitor.history)
        assert callback.monitor.verdicts() == monitor.verdicts()

    def test_weights_are_bit_identical_with_and_without(self):
        model, twin = gpt2(), gpt2()
        self.trainer(model, self.callback(every=1), eval_strategy="steps", eval_steps=2).train()
        self.trainer(twin, eval_strategy="steps", eval_steps=2).train()
        assert_same_weights(model, twin)

    def test_evaluation_counts_for_nothing(self):
        callback = self.callback(every=1)
        self.trainer(gpt2(), callback, eval_strategy="steps", eval_steps=1, eval_on_start=True).train()
        assert steps(callback) == [0, 1, 2, 3, 4, 5]
        assert {reading.layers[0].output.count for reading in callback.monitor.history} == {2 * 8 * 16}

    def test_bfloat16(self):
        callback = self.callback(every=1)
        self.trainer(gpt2(), callback, bf16=True).train()
        assert all(layer.gradient.norm > 0 for layer in callback.monitor.history[-1].learning_layers)

    def test_it_prints_nothing(self, capsys):
        self.trainer(gpt2(), self.callback(every=1)).train()
        printed = capsys.readouterr().out
        self.trainer(gpt2()).train()
        assert strip_numbers(printed) == strip_numbers(capsys.readouterr().out)

    def test_hooks_are_gone_after_training(self):
        model = gpt2()
        callback = self.callback()
        trainer = self.trainer(model, callback)
        trainer.train()
        assert callback.monitor.closed
        assert hook_count(model) == 0
        assert not trainer.optimizer.optimizer._optimizer_step_pre_hooks

    def test_a_second_training_has_a_monitor_of_its_own(self):
        callback = self.callback(every=2, first=0)
        trainer = self.trainer(gpt2(), callback)
        trainer.train()
        first = callback.monitor
        trainer.train()
        assert callback.monitor is not first
        assert steps(callback) == [0, 2, 4]

    def interrupted(self, model, callback):
        """Train until the third step fails."""
        trainer = self.trainer(model, callback, trainer_class=FailingTrainer)
        with pytest.raises(Failing):
            trainer.train()
        return trainer

    def test_after_an_exception_the_next_training_of_the_model_takes_the_hooks_away(self):
        model, earlier, callback = gpt2(), self.callback(every=1), self.callback(every=2, first=0)
        self.interrupted(model, earlier)
        assert steps(earlier) == [0, 1]
        self.trainer(model, callback).train()
        assert steps(callback) == [0, 2, 4]
        assert earlier.monitor.closed
        assert hook_count(model) == 0

    def test_after_an_exception_a_with_block_takes_the_hooks_away(self):
        model = gpt2()
        with self.callback(every=1) as callback:
            self.interrupted(model, callback)
            assert hook_count(model) > 0
        assert hook_count(model) == 0

    def test_after_an_exception_a_callback_that_is_dropped_takes_its_hooks_along(self):
        model = gpt2()
        self.interrupted(model, self.callback())
        gc.collect()
        assert hook_count(model) == 0

    def test_after_an_exception_the_same_trainer_trains_again(self):
        model, callback = gpt2(), self.callback(every=1)
        trainer = self.interrupted(model, callback)
        interrupted = callback.monitor
        trainer.fail_at = None
        trainer.train()
        assert steps(callback) == [0, 1, 2, 3, 4, 5]
        assert interrupted.closed
        assert hook_count(model) == 0

    def test_a_model_with_a_monitor_of_the_users_is_refused(self):
        model = gpt2()
        with GradientMonitor(model), pytest.raises(RuntimeError, match="already attached"):
            self.trainer(model, self.callback()).train()

    def test_copies_and_pickles_have_no_monitor_and_can_be_used(self):
        callback = self.callback(every=2, first=0)
        trainer = self.trainer(gpt2(), callback)
        trainer.train()
        for twin in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
            assert twin.monitor is None
            self.trainer(gpt2(), twin).train()
            assert steps(twin) == [0, 2, 4]

    def test_a_checkpoint_is_saved_during_training_and_another_training_resumes_from_it(self):
        self.trainer(gpt2(), self.callback(every=1), save_strategy="steps", save_steps=4).train()
        model, callback = gpt2(), self.callback(every=1)
        self.trainer(model, callback).train(resume_from_checkpoint=str(self.folder / "checkpoint-4"))
        assert steps(callback) == [0, 1]

    def test_readings_are_written_where_they_are_wanted(self):
        callback = self.callback(log_dir=self.folder / "gradients", every=1)
        self.trainer(gpt2(), callback).train()
        assert [path.name for path in self.folder.iterdir()] == ["gradients"]
        assert list((self.folder / "gradients").glob("events.out.tfevents.*"))


# ---- Lightning


class Regression(lightning.LightningModule):
    def __init__(self, fail_at=None):
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(4, 8), torchact.Tanh(), nn.Linear(8, 1))
        self.fail_at = fail_at

    def training_step(self, batch, batch_idx):
        if batch_idx == self.fail_at:
            raise Failing
        return self.network(batch).square().mean()

    def validation_step(self, batch, batch_idx):
        self.network(batch)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Noisy(Regression):
    """Has dropout and a schedule."""

    def __init__(self):
        super().__init__()
        self.network.append(nn.Dropout(0.5))

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.1)
        return [optimizer], [{"scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 2), "interval": "step"}]


class Adversarial(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.automatic_optimization = False
        self.generator, self.discriminator = nn.Linear(4, 4), nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        generating, discriminating = self.optimizers()
        for optimizer, sign in ((generating, 1), (discriminating, -1)):
            if optimizer is discriminating and batch_idx % 2:
                continue
            optimizer.zero_grad()
            self.manual_backward(sign * self.discriminator(self.generator(batch)).mean())
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.generator, self.discriminator)]


def rows():
    """Eight batches of three."""
    return DataLoader(torch.randn(24, 4, generator=torch.Generator().manual_seed(1)), batch_size=3)


@pytest.mark.filterwarnings(
    "ignore:.*does not have many workers:UserWarning",
    "ignore:.*defined a `validation_step` but have no `val_dataloader`:UserWarning",
    "ignore:`isinstance.treespec, LeafSpec.`:FutureWarning",
)
class TestLightning:
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path):
        self.folder = tmp_path

    def fit(self, model, *callbacks, validate=False, ckpt_path=None, **arguments):
        """Fit a model silently, for one epoch of eight batches."""
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        quiet |= {"enable_checkpointing": False, "num_sanity_val_steps": 0}
        defaults = {"max_epochs": 1, "accelerator": "cpu", "default_root_dir": self.folder}
        trainer = lightning.Trainer(**{**quiet, **defaults, **arguments}, callbacks=list(callbacks))
        trainer.fit(model, rows(), rows() if validate else None, ckpt_path=ckpt_path)
        return trainer

    def callback(self, **arguments):
        return for_lightning.GradientMonitorCallback(**arguments)

    def test_steps_are_those_of_the_optimiser(self):
        callback = self.callback(every=2, first=0)
        self.fit(Regression(), callback, accumulate_grad_batches=2)
        assert steps(callback) == [0, 2]
        names = [layer.name for layer in callback.monitor.history[-1].layers]
        assert names == ["network.0", "network.1", "network.2"]

    @pytest.mark.parametrize("accumulated", [1, 3])
    @pytest.mark.parametrize("clip", [None, 0.01])
    @pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
    def test_readings_are_those_of_a_plain_loop(self, accumulated, clip, precision):
        model, twin = Regression(), Regression()
        callback = self.callback(every=2, first=0, updates=True)
        arguments = {"accumulate_grad_batches": accumulated, "gradient_clip_val": clip, "precision": precision}
        self.fit(model, callback, validate=True, val_check_interval=1, **arguments)

        optimizer = twin.configure_optimizers()
        batches = list(rows())
        with GradientMonitor(twin, optimizer, every=2, first=0, updates=True) as monitor:
            for position, batch in enumerate(batches):
                with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed", cache_enabled=False):
                    loss = twin.training_step(batch, position) / accumulated
                loss.backward()
                if (position + 1) % accumulated == 0 or position + 1 == len(batches):
                    if clip is not None:
                        monitor.before_clipping()
                        nn.utils.clip_grad_norm_(twin.parameters(), clip)
                    optimizer.step()
                    optimizer.zero_grad()
        assert_same_weights(model, twin)
        assert list(callback.monitor.history) == list(monitor.history)
        assert callback.monitor.verdicts() == monitor.verdicts()

    @pytest.mark.parametrize("arguments", [{}, {"accumulate_grad_batches": 3, "gradient_clip_val": 0.01}])
    def test_weights_are_bit_identical_with_and_without(self, arguments):
        models = []
        for callbacks in ([self.callback(every=1)], []):
            models.append(Noisy())
            self.fit(models[-1], *callbacks, validate=True, val_check_interval=3, num_sanity_val_steps=2, **arguments)
        assert_same_weights(*models)

    def test_validation_and_the_sanity_check_count_for_nothing(self):
        callback = self.callback(every=1)
        for inference_mode in (True, False):
            arguments = {"val_check_interval": 1, "num_sanity_val_steps": 2, "inference_mode": inference_mode}
            self.fit(Regression(), callback, validate=True, **arguments)
            assert steps(callback) == list(range(8))
            assert {reading.layers[0].output.count for reading in callback.monitor.history} == {3 * 8}

    def test_lbfgs_evaluates_the_closure_several_times(self):
        class Model(Regression):
            def configure_optimizers(self):
                return torch.optim.LBFGS(self.parameters(), max_iter=3)

        model, twin = Model(), Model()
        callback = self.callback(every=1)
        self.fit(model, callback)
        self.fit(twin)
        assert_same_weights(model, twin)
        assert steps(callback) == list(range(8))

    def test_manual_optimisation_with_several_optimisers(self):
        model, twin = Adversarial(), Adversarial()
        callback = self.callback(every=2, first=0)
        self.fit(model, callback)
        self.fit(twin)
        assert_same_weights(model, twin)
        by_optimizer = {}
        for reading in callback.monitor.history:
            by_optimizer.setdefault(reading.optimizer, []).append(reading.step)
        assert by_optimizer == {"0_SGD": [0, 2, 4, 6], "1_SGD": [0, 2]}

    def test_a_step_without_a_loss_is_skipped(self):
        class Model(Regression):
            def training_step(self, batch, batch_idx):
                return None if batch_idx == 1 else super().training_step(batch, batch_idx)

        callback = self.callback(every=1)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`training_step` returned `None`")
            self.fit(Model(), callback)
        assert steps(callback)[:1] == [0]
        assert callback.monitor.closed

    def test_hooks_are_gone_after_training(self):
        model, callback = Regression(), self.callback()
        trainer = self.fit(model, callback)
        assert callback.monitor.closed
        assert hook_count(model) == 0
        assert not any(each._optimizer_step_pre_hooks for each in trainer.optimizers)

    def test_hooks_are_gone_after_an_exception(self):
        model, callback = Regression(fail_at=3), self.callback(every=1)
        with pytest.raises(Failing):
            self.fit(model, callback)
        assert steps(callback) == [0, 1, 2]
        assert callback.monitor.closed
        assert hook_count(model) == 0
        model.fail_at = None
        self.fit(model, callback)
        assert steps(callback) == list(range(8))

    def test_an_error_verdict_stops_the_training_before_the_step_where_that_is_asked_for(self):
        class Model(Regression):
            def training_step(self, batch, batch_idx):
                return super().training_step(batch, batch_idx) * float("nan")

        model, callback = Model(), self.callback(every=1, on_error="raise")
        with pytest.raises(torchact.diagnostics.GradientError):
            self.fit(model, callback)
        assert_same_weights(model, Model())
        assert hook_count(model) == 0

    def test_a_second_fit_has_a_monitor_of_its_own(self):
        model, callback = Regression(), self.callback(every=4, first=0)
        trainer = self.fit(model, callback)
        first = callback.monitor
        trainer.fit_loop.max_epochs = 2
        trainer.fit(model, rows())
        assert callback.monitor is not first
        assert steps(callback) == [0, 4]
        trainer.validate(model, rows(), verbose=False)
        assert hook_count(model) == 0

    def test_copies_and_pickles_have_no_monitor_and_can_be_used(self):
        callback = self.callback(every=4, first=0)
        self.fit(Regression(), callback)
        for twin in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
            assert twin.monitor is None
            self.fit(Regression(), twin)
            assert steps(twin) == [0, 4]

    def test_the_callback_and_the_model_can_be_copied_while_it_watches(self):
        class Copying(lightning.Callback):
            def on_train_batch_end(self, *others):
                self.copies = copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))
                self.model = copy.deepcopy(model.network)

        model, callback, copying = Regression(), self.callback(every=1), Copying()
        self.fit(model, callback, copying)
        assert [each.monitor for each in copying.copies] == [None, None]
        assert_same_weights(model.network, copying.model)
        assert steps(callback) == list(range(8))

    def test_a_training_that_resumes_from_a_checkpoint_counts_its_own_steps(self):
        self.fit(Regression(), self.callback()).save_checkpoint(self.folder / "last.ckpt")
        callback = self.callback(every=4, first=0)
        trainer = self.fit(Regression(), callback, ckpt_path=self.folder / "last.ckpt", max_epochs=2)
        assert trainer.global_step == 16
        assert steps(callback) == [0, 4]

    def test_readings_are_written_where_they_are_wanted(self):
        self.fit(Regression(), self.callback(log_dir=self.folder / "gradients", every=1))
        assert [path.name for path in self.folder.iterdir()] == ["gradients"]
        assert list((self.folder / "gradients").glob("events.out.tfevents.*"))
