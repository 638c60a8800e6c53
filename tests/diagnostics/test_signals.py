"""Signals beyond norms and means: units, updates, clipping, exponents, several optimisers."""

import copy
import dataclasses
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import torchact
from torchact import GradientMonitor
from torchact.diagnostics import GradientError, Thresholds, depth, noise, readings, statistics
from torchact.diagnostics.evidence import Verdict


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def step(model, optimizer, inputs, clip=None, monitor=None):
    optimizer.zero_grad()
    model(inputs).square().mean().backward()
    if monitor:
        monitor.before_clipping()
    if clip:
        nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()


def layers_of(monitor):
    return {layer.name: layer for layer in monitor.history[-1].layers}


class TestExponents:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
    def test_bins_hold_what_lies_between_their_edges(self, dtype):
        x = (torch.randn(300, 7, dtype=torch.float64) * torch.logspace(-40, 39, 7, dtype=torch.float64)).to(dtype)
        x[0, 0] = 0
        counts = statistics.unpack(statistics.reduce_tensor(x, binned=True).tolist()).exponents
        edges = statistics.bin_edges()
        magnitudes = x.double().abs()
        below = [(magnitudes < edge).sum().item() for edge in edges[1:-1]]
        expected = [below[0], *(after - before for before, after in itertools.pairwise(below))]
        assert list(counts) == [*expected, x.numel() - below[-1]]

    def test_the_torch_code_counts_as_the_kernel_does(self, monkeypatch):
        x = torch.randn(1000) * torch.logspace(-44, 38, 1000)
        compiled = statistics.reduce_tensor(x, binned=True)
        monkeypatch.setattr(statistics.kernels, "is_one_pass", lambda tensor: False)
        torch.testing.assert_close(statistics.reduce_tensor(x, binned=True)[3:], compiled[3:], rtol=0, atol=0)

    def test_merged_they_add_up(self):
        x = torch.randn(2, 50)
        sums = torch.zeros(statistics.BINNED, dtype=torch.float64)
        for part in x:
            statistics.add_reduced(sums, part)
        torch.testing.assert_close(sums, statistics.reduce_tensor(x, binned=True), rtol=1e-14, atol=0)
        first, second = (statistics.unpack(statistics.reduce_tensor(part, binned=True).tolist()) for part in x)
        whole = statistics.unpack(sums.tolist())
        assert (first + second).exponents == whole.exponents
        assert (statistics.Statistics() + whole).exponents == whole.exponents

    def test_float16_counts_what_is_below_its_own_normal_range(self):
        x = torch.tensor([0.0, 3e-5, -5.9e-5, 6.2e-5, 1.0], dtype=torch.float16)
        assert statistics.unpack(statistics.reduce_tensor(x).tolist()).subnormal == 2

    def test_delta_has_them(self):
        model = nn.Linear(4, 2)
        with GradientMonitor(model, every=1) as monitor:
            model(torch.ones(3, 4)).sum().backward()  # δ is 1 everywhere
            layer = monitor.record().layers[0]
        (bin_of_one,) = (i for i, count in enumerate(layer.gradient.exponents) if count)
        assert statistics.bin_edges()[bin_of_one] <= 1 < statistics.bin_edges()[bin_of_one + 1]
        assert layer.gradient.exponents[bin_of_one] == 6


class TestSamples:
    def test_the_gradient_of_a_sample_is_the_root_mean_square_over_them(self):
        model = nn.Linear(4, 2)
        with GradientMonitor(model, every=1) as monitor:
            for size in (3, 5):
                (model(torch.randn(size, 4)) * torch.arange(size).unsqueeze(1)).sum().backward()
            layer = monitor.record().layers[0]
        squares = [2.0 * i**2 for size in (3, 5) for i in range(size)]  # of each sample's δ, of two entries
        assert layer.samples == 8
        assert layer.gradient_per_sample == pytest.approx(math.sqrt(sum(squares) / 8), rel=1e-12)


class TestUnits:
    def network(self, *dead, width=6):
        model = nn.Sequential(nn.Linear(4, width), torchact.ReLU(), nn.Linear(width, 1))
        with torch.no_grad():
            model[0].bias.fill_(3.0)
            model[0].bias[list(dead)] = -1e3
        return model

    def test_units_that_are_never_active_over_a_window_are_dead(self):
        model = self.network(1, 4)
        with GradientMonitor(model, every=1, thresholds=Thresholds(dead_window=20, dead_fraction=0.3)) as monitor:
            fractions = []
            for _ in range(4):
                model(torch.randn(10, 4)).sum().backward()
                fractions.append({layer.name: layer for layer in monitor.record().layers}["1"].dead_fraction)
        assert fractions == [None, None, 1 / 3, 1 / 3]  # a window is full before the reading that closes it
        (verdict,) = (verdict for verdict in monitor.verdicts() if verdict.rule == "TA201")
        assert verdict.layers == ("1",)
        assert verdict.value == 1 / 3

    def test_a_unit_is_alive_that_was_active_once(self):
        model = self.network(1)
        with GradientMonitor(model, every=1, thresholds=Thresholds(dead_window=10)) as monitor:
            for size in (10.0, 1e4, 0.0):  # the second batch wakes it up
                model(torch.randn(5, 4) * size).sum().backward()
                monitor.record()
            assert layers_of(monitor)["1"].dead_fraction == 0
            for _ in range(3):
                model(torch.zeros(5, 4)).sum().backward()
                monitor.record()
        assert layers_of(monitor)["1"].dead_fraction == 1 / 6  # of the next window, which has forgotten it

    @pytest.mark.parametrize("compiled_kernels", [True, False])
    def test_behind_a_convolution_units_are_channels(self, compiled_kernels, monkeypatch):
        if not compiled_kernels:
            monkeypatch.setattr(statistics.kernels, "is_one_pass", lambda tensor: False)
            monkeypatch.setattr(statistics.kernels, "flat", lambda tensor: None)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 4), nn.ReLU())
        with torch.no_grad():
            model[0].bias[:3] = -1e3
            model[3].bias[0] = -1e6
        with GradientMonitor(model, every=1, thresholds=Thresholds(dead_window=1)) as monitor:
            for _ in range(2):
                model(torch.randn(2, 1, 8, 8)).sum().backward()
                monitor.record()
        layers = layers_of(monitor)
        assert layers["1"].dead_fraction == 3 / 4
        assert layers["4"].dead_fraction >= 1 / 4

    def test_units_of_any_memory_format_are_counted_outside_of_the_graph(self):
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()).to(memory_format=torch.channels_last)
        with torch.no_grad():
            model[0].bias[:3] = -1e3
        with GradientMonitor(model, every=1, thresholds=Thresholds(dead_window=1)) as monitor:
            for _ in range(2):
                output = model(torch.randn(2, 1, 8, 8).to(memory_format=torch.channels_last))
                assert not output.is_contiguous()
                output.sum().backward()
                monitor.record()
        assert layers_of(monitor)["1"].dead_fraction == 3 / 4
        assert not any(probe.units is not None and probe.units.requires_grad for probe in monitor._probes)

    def test_of_sequences_units_are_features(self):
        model = self.network(0, 1, 2)
        with GradientMonitor(model, every=1, thresholds=Thresholds(dead_window=1)) as monitor:
            for _ in range(2):
                model(torch.randn(2, 7, 4)).sum().backward()
                monitor.record()
        assert layers_of(monitor)["1"].dead_fraction == 1 / 2

    def test_what_cannot_die_has_none(self):
        model = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid(), nn.LeakyReLU(), nn.ELU())
        with GradientMonitor(model, every=1, thresholds=Thresholds(dead_window=1)) as monitor:
            for _ in range(2):
                model(torch.zeros(3, 2)).sum().backward()
                monitor.record()
        assert {layer.dead_fraction for layer in monitor.history[-1].layers} == {None}


class TestParameters:
    def test_weight_and_update_norms_are_those_of_the_step(self):
        model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        with GradientMonitor(model, optimizer, every=1, updates=True) as monitor:
            for _ in range(3):
                before = copy.deepcopy(model)
                step(model, optimizer, torch.randn(5, 4))
        for name, layer in layers_of(monitor).items():
            for parameter, reading in layer.parameters.items():
                old = before.get_submodule(name).get_parameter(parameter).double()
                change = model.get_submodule(name).get_parameter(parameter).double() - old
                assert reading.weight.norm == pytest.approx(old.norm().item(), rel=1e-12)
                assert reading.update_norm == pytest.approx(change.norm().item(), rel=1e-5)
                assert reading.update_ratio == pytest.approx((change.norm() / old.norm()).item(), rel=1e-5)
        assert [reading.step for reading in monitor.history] == [0, 1, 2]

    def test_updates_are_measured_only_if_so_asked(self):
        model = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with GradientMonitor(model, optimizer, every=1) as monitor:
            step(model, optimizer, torch.ones(1, 2))
        assert layers_of(monitor)["Linear"].update_ratio is None

    def test_norms_before_and_after_clipping(self):
        model = nn.Linear(4, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        with GradientMonitor(model, optimizer, every=1) as monitor:
            step(model, optimizer, 10 * torch.ones(2, 4), clip=1.0, monitor=monitor)
            layer = layers_of(monitor)["Linear"]
            true = torch.autograd.grad(model(10 * torch.ones(2, 4)).square().mean(), list(model.parameters()))
            assert layer.unclipped_gradient_norm == pytest.approx(
                math.hypot(*(g.norm().item() for g in true)), rel=1e-6
            )
            assert layer.parameter_gradient_norm == pytest.approx(1.0, rel=1e-5)
            step(model, optimizer, torch.ones(2, 4), clip=1.0)
            assert layers_of(monitor)["Linear"].unclipped_gradient_norm is None

    def test_an_adaptive_optimiser_at_its_epsilon_is_told(self):
        model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        with GradientMonitor(model, optimizer, every=1) as monitor:
            for _ in range(6):
                optimizer.zero_grad()
                (model(torch.randn(3, 4)).square().mean() * 1e-9).backward()
                optimizer.step()
        assert layers_of(monitor)["0"].parameters["weight"].at_epsilon == 1.0
        assert "TA102" in {verdict.rule for verdict in monitor.verdicts() if verdict.severity == "error"}
        assert monitor.history[0].layers[0].parameters["weight"].at_epsilon is None  # no step was made yet

    def test_at_epsilon_is_the_fraction_of_the_corrected_second_moment(self):
        weight = nn.Linear(4, 1, bias=False)
        optimizer = torch.optim.Adam(weight.parameters(), lr=1e-3, eps=1e-3)
        x = torch.tensor([[1.0, 1e-1, 0.99e-2, 1e-4]])  # ten times ε is 1e-2
        with GradientMonitor(weight, optimizer, every=1) as monitor:
            for _ in range(2):
                optimizer.zero_grad()
                weight(x).sum().backward()
                optimizer.step()
        assert layers_of(monitor)["Linear"].parameters["weight"].at_epsilon == 1 / 2

    def test_of_complex_parameters_both_parts_count_towards_epsilon(self):
        weight = nn.Linear(4, 1, bias=False, dtype=torch.complex64)
        optimizer = torch.optim.Adam(weight.parameters(), lr=1e-3, eps=1e-3)
        x = torch.tensor([[1 + 1e-4j, 1e-1 + 1e-4j, 0.99e-2 + 1e-4j, 1e-4 + 1j]])
        with GradientMonitor(weight, optimizer, every=1) as monitor:
            for _ in range(2):
                optimizer.zero_grad()
                weight(x).real.sum().backward()
                optimizer.step()
        assert layers_of(monitor)["Linear"].parameters["weight"].at_epsilon == 5 / 8

    def test_weights_that_never_change_are_told(self):
        model = nn.Linear(4, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        with GradientMonitor(model, optimizer, every=1) as monitor:
            for _ in range(3):
                step(model, optimizer, torch.randn(5, 4))
        assert "TA302" in {verdict.rule for verdict in monitor.verdicts()}


class TestChoice:
    def test_with_parameters_alone_there_is_no_hook_on_a_module(self):
        model = nn.Sequential(nn.Linear(4, 2), nn.ReLU())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with GradientMonitor(model, optimizer, every=1, signals={"parameters"}) as monitor:
            assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
            expected = copy.deepcopy(model)
            step(model, optimizer, torch.ones(3, 4))
        expected(torch.ones(3, 4)).square().mean().backward()
        (layer,) = monitor.history[-1].layers
        assert layer.parameter_gradients["weight"].norm == pytest.approx(
            expected[0].weight.grad.norm().item(), rel=1e-6
        )
        assert layer.gradient.count == layer.output.count == 0

    @pytest.mark.parametrize("signals", ["outputs", "gradients"])
    def test_one_signal_alone(self, signals):
        model = nn.Sequential(nn.Linear(4, 2), nn.ReLU())
        with GradientMonitor(model, every=1, signals={signals}) as monitor:
            model(torch.randn(3, 4)).sum().backward()
            first = monitor.record().layers[0]
        assert bool(first.output.count) == (signals == "outputs")
        assert bool(first.gradient.count) == (signals == "gradients")
        assert first.parameters == {}

    def test_what_does_not_exist_is_refused(self):
        for signals in ({"weights"}, ()):
            with pytest.raises(ValueError, match="signals: expected one of gradients, outputs, parameters"):
                GradientMonitor(nn.Linear(1, 1), signals=signals)
        with pytest.raises(ValueError, match="on_error: expected one of raise, report, got"):
            GradientMonitor(nn.Linear(1, 1), on_error="stop")


class TestSeveralOptimisers:
    def test_each_has_its_own_steps_and_readings(self):
        generator, critic = nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
        model = nn.ModuleDict({"generator": generator, "critic": critic})
        plain = copy.deepcopy(model)

        def optimizers(networks):
            return (
                torch.optim.Adam(networks["critic"].parameters(), lr=0.01),
                torch.optim.SGD(networks["generator"].parameters(), lr=0.1),
            )

        def train(networks, critics, generators):
            torch.manual_seed(1)
            for _ in range(4):
                critics.zero_grad()
                (
                    networks["critic"](torch.randn(3, 2))
                    - networks["critic"](networks["generator"](torch.randn(3, 2)).detach())
                ).mean().backward()
                critics.step()
                generators.zero_grad()
                (-networks["critic"](networks["generator"](torch.randn(3, 2)))).mean().backward()
                generators.step()

        both = optimizers(model)
        with GradientMonitor(model, both, every=2, first=0) as monitor:
            train(model, *both)
        train(plain, *optimizers(plain))
        for parameter, expected in zip(model.parameters(), plain.parameters(), strict=True):
            assert torch.equal(parameter, expected)
        assert [(reading.step, reading.optimizer) for reading in monitor.history] == [
            (0, "0_Adam"),
            (0, "1_SGD"),
            (2, "0_Adam"),
            (2, "1_SGD"),
        ]
        critics, generators = list(monitor.history)[-2:]
        assert {layer.name for layer in critics.layers if layer.has_parameters} == {"critic.0", "critic.2"}
        assert {layer.name for layer in generators.layers if layer.has_parameters} == {"generator"}
        assert [track.family for track in monitor._tracks.values()] == ["adaptive", "sgd"]

    @staticmethod
    def gan():
        torch.manual_seed(0)
        generator = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3), nn.Sigmoid())
        critic = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        return nn.ModuleDict({"generator": generator, "critic": critic})

    @staticmethod
    def train_gan(networks, critics, generators, steps, again, each=lambda: None):
        """Make steps of both: one call of the generator serves both losses, unless it is to be called again."""
        for _ in range(steps):
            fake = networks["generator"](torch.randn(5, 2))
            critics.zero_grad()
            loss = networks["critic"](torch.randn(5, 3)) - networks["critic"](fake.detach())
            loss.mean().backward()
            critics.step()
            generators.zero_grad()
            if again:
                fake = networks["generator"](torch.randn(5, 2))
            (-networks["critic"](fake)).mean().backward()
            each()
            generators.step()

    @pytest.mark.parametrize("again", [False, True])
    @pytest.mark.parametrize("settings", [{"every": 1}, {"every": 2, "first": 0}])
    def test_a_generator_belongs_to_its_own_step_also_if_called_before_the_others(self, again, settings):
        networks = self.gan()
        optimizers = [torch.optim.SGD(network.parameters(), lr=0.1) for network in networks.values()][::-1]
        seen, expected = {}, []

        def remember(module, inputs, output):
            seen["output"] = output.detach().norm().item()
            output.register_hook(lambda gradient: seen.__setitem__("gradient", gradient.norm().item()))

        networks["generator"][2].register_forward_hook(remember)
        with GradientMonitor(networks, optimizers, **settings) as monitor:
            self.train_gan(networks, *optimizers, 4, again, lambda: expected.append(dict(seen)))
        critics, generators = (
            [reading for reading in monitor.history if reading.optimizer == label] for label in ("0_SGD", "1_SGD")
        )
        assert [reading.step for reading in critics] == [0, 1, 2, 3][:: settings["every"]]
        for reading in critics:
            assert {layer.name for layer in reading.layers} == {"critic.0", "critic.1", "critic.2"}
            assert {layer.samples for layer in reading.layers} == {10}
            assert reading.silent == ()
        for reading, numbers in zip(generators, expected[:: settings["every"]], strict=True):
            assert [layer.name for layer in reading.learning_layers] == ["generator.0", "generator.2"]
            assert {layer.samples for layer in reading.layers} == {5}
            last = reading.learning_layers[-1]
            assert last.output.norm == pytest.approx(numbers["output"], rel=1e-6)
            assert last.gradient.norm == pytest.approx(numbers["gradient"], rel=1e-6)
            (unit,) = (layer for layer in reading.layers if layer.name == "generator.1")
            assert unit.saturated_fraction == 0
            assert unit.gradient.norm > 0

    def test_what_one_optimiser_makes_none_of_is_forgotten(self):
        """The generator is called in each of the critic's steps, and makes a step after every second one alone."""
        networks = self.gan()
        critics, generators = (torch.optim.SGD(networks[name].parameters(), lr=0.1) for name in ("critic", "generator"))
        with GradientMonitor(networks, [critics, generators], every=1) as monitor:
            for step in range(4):
                fake = networks["generator"](torch.randn(5, 2))
                networks["critic"](fake.detach()).mean().backward()
                critics.step()
                if step % 2:
                    networks["critic"](fake).mean().backward()
                    generators.step()
        readings = [reading for reading in monitor.history if reading.optimizer == "1_SGD"]
        assert len(readings) == 2
        for reading in readings:
            assert {layer.samples for layer in reading.layers} == {5}

    def test_the_report_has_a_table_of_each_and_says_whose_verdicts_are(self, tmp_path):
        networks = self.gan()
        networks["critic"] = nn.Sequential(
            *[layer for _ in range(9) for layer in (nn.Linear(3, 3), nn.Sigmoid())], nn.Linear(3, 1)
        )
        critics, generators = (torch.optim.SGD(networks[name].parameters(), lr=0.1) for name in ("critic", "generator"))
        with GradientMonitor(networks, [critics, generators], tmp_path) as monitor:
            self.train_gan(networks, critics, generators, 12, False)
            text = str(monitor._report())
        assert text.index("Gradients by layer at step 10 of 0_SGD") < text.index(
            "Gradients by layer at step 10 of 1_SGD"
        )
        assert "error TA101 [vanishing] of 0_SGD: Layers critic.0 … " in text
        assert "error TA302 [unchanged] of 1_SGD: " in text
        assert "Decay per layer of 0_SGD" in text
        events = EventAccumulator(str(tmp_path)).Reload()
        profile = "depth_profile/log10_gradient_norm"
        for label, count in (("0_SGD", 10), ("1_SGD", 2)):
            for when in ("at_start", "at_end"):
                assert len(events.Scalars(f"{label}/{profile}_{when}")) == count
        assert [report.step for report in events.Tensors("report/text_summary")] == [9, 10]

    def test_of_each_it_is_said_that_all_layers_learn(self):
        networks = self.gan()
        critics, generators = (torch.optim.SGD(networks[name].parameters(), lr=0.1) for name in ("critic", "generator"))
        with GradientMonitor(networks, [critics, generators]) as monitor:
            self.train_gan(networks, critics, generators, 2, True)
        first, second = monitor._report().finding.splitlines()
        assert first.startswith("All 2 layers of 0_SGD learn")
        assert second.startswith("All 2 layers of 1_SGD learn")

    def test_one_of_another_model_is_refused(self):
        model, other = nn.Linear(1, 1), nn.Linear(1, 1)
        optimizers = [torch.optim.SGD(net.parameters(), lr=1.0) for net in (model, other)]
        with pytest.raises(ValueError, match="optimizer: SGD holds none of the model's parameters"):
            GradientMonitor(model, optimizers)


class TestErrors:
    def test_an_error_can_raise_before_a_parameter_changes(self):
        model = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        with GradientMonitor(model, optimizer, every=1, on_error="raise") as monitor:
            step(model, optimizer, torch.ones(1, 2))
            before = model.weight.clone()
            with pytest.raises(GradientError, match="TA001") as caught:
                step(model, optimizer, torch.full((1, 2), math.inf))
        assert torch.equal(model.weight, before)
        assert caught.value.verdicts[0].readings == tuple(monitor.history)

    def test_rules_of_your_own(self):
        def always(evidence):
            yield Verdict(
                rule="MINE1",
                title="mine",
                severity="warning",
                layers=(),
                value=float(len(evidence.readings)),
                threshold=0.0,
                window=1,
                explanation="It is so.",
                suggestion="",
                source="me",
            )

        model = nn.Linear(2, 1)
        with GradientMonitor(model, every=1, rules=(always,)) as monitor:
            for _ in range(2):
                model(torch.ones(1, 2)).sum().backward()
                monitor.record()
            (verdict,) = monitor.verdicts()
        assert str(verdict) == "warning MINE1 [mine]: It is so."
        assert verdict.value == 2

    def test_a_sink_of_your_own_gets_each_reading_and_the_report(self):
        class Own:
            def __init__(self):
                self.readings, self.report = [], None

            def write(self, reading):
                self.readings.append(reading)

            def close(self, report):
                self.report = report

        own, model = Own(), nn.Linear(2, 1)
        with GradientMonitor(model, every=1, sinks=[own]) as monitor:
            model(torch.ones(1, 2)).sum().backward()
            monitor.record()
        assert own.readings == list(monitor.history)
        assert own.report.reading == monitor.history[-1]


class TestDepth:
    def reading(self, *norms):
        def layer(index, norm):
            return readings.LayerReading(
                index=index,
                name=str(index),
                kind="Linear",
                activation=None,
                shape=(4,),
                output=statistics.Statistics(),
                gradient=statistics.Statistics(count=4, squares=norm**2, largest=norm),
                saturated_fraction=None,
                parameters={
                    "weight": readings.ParameterReading(
                        gradient=statistics.Statistics(count=1), weight=statistics.Statistics(count=1)
                    )
                },
            )

        return readings.Reading(step=0, layers=tuple(layer(i, norm) for i, norm in enumerate(norms)))

    def test_the_interval_is_that_of_the_least_squares_line(self):
        norms = [2.0**-i * factor for i, factor in zip(range(6, 0, -1), (1.1, 0.8, 1.3, 1.0, 0.9, 1.2), strict=True)]
        heights = torch.tensor(norms, dtype=torch.float64).log()
        places = torch.arange(6, dtype=torch.float64)
        design = torch.stack([places, torch.ones(6)]).T.double()
        solution = torch.linalg.lstsq(design, heights.unsqueeze(1)).solution.squeeze()
        residuals = heights - design @ solution
        error = (residuals.square().sum() / 4 * torch.linalg.inv(design.T @ design)[0, 0]).sqrt()
        reach = 2.7764451051977987 * error  # Student's t, four degrees of freedom, 97.5 %
        measured = depth.decay(self.reading(*norms))
        assert measured.factor == pytest.approx(math.exp(-solution[0]), rel=1e-12)
        assert measured.low == pytest.approx(math.exp(-solution[0] - reach), rel=2e-3)
        assert measured.high == pytest.approx(math.exp(-solution[0] + reach), rel=2e-3)
        assert measured.layers == 6

    @pytest.mark.parametrize(
        ("freedom", "quantile"), [(1, 12.7062047), (2, 4.3026527), (3, 3.1824463), (5, 2.5705818), (30, 2.0422725)]
    )
    def test_students_quantiles(self, freedom, quantile):
        assert depth._students_t(freedom) == pytest.approx(quantile, rel=2e-3)

    def test_layers_until_numbers_run_out(self):
        reading = self.reading(*(2.0 * 0.25**i for i in range(4, -1, -1)))  # δ of root mean square 1 at the last layer
        reach = depth.layers_until_underflow(reading)
        assert reach["float32"] == reach["bfloat16"] == pytest.approx(126 / 2, rel=1e-9)
        assert reach["float16"] == pytest.approx(14 / 2, rel=1e-9)
        assert set(depth.layers_until_underflow(self.reading(4.0, 2.0, 1.0)).values()) == {math.inf}
        assert all(map(math.isnan, depth.layers_until_underflow(self.reading(1.0)).values()))

    def test_first_over_last(self):
        assert depth.first_over_last(self.reading(3.0, 1.0, 2.0)) == 1.5
        assert math.isnan(depth.first_over_last(self.reading(3.0, 0.0)))


def test_outputs_may_be_dataclasses():
    @dataclasses.dataclass
    class Output:
        logits: torch.Tensor
        name: str = "it"

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, x):
            return {"nested": [Output(self.linear(x))]}

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))
            self.inner = Model()

        def forward(self, x):
            output = self.inner(x)["nested"][0]
            return Output(output.logits * self.scale)

    model = Outer()
    with GradientMonitor(model, every=1) as monitor:
        F.relu(model(torch.ones(3, 2)).logits).sum().backward()
        monitor.record()
    assert layers_of(monitor)["Outer"].output.count == 6
    assert layers_of(monitor)["Outer"].gradient.count == 6


class TestBlindSpots:
    def test_functional_calls_and_fused_parameters_are_named(self):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.linear = nn.Linear(4, 4)
                self.attention = nn.MultiheadAttention(4, 1, batch_first=True)

            def forward(self, x):
                x = F.relu(self.linear(x))
                return self.attention(x, x, x)[0]

        model = Model()
        with GradientMonitor(model, every=1) as monitor:
            model(torch.randn(2, 3, 4)).sum().backward()
            reading = monitor.record()
            (verdict,) = (verdict for verdict in monitor.verdicts() if verdict.rule == "TA901")
        assert reading.unprobed == ("attention.out_proj.weight", "attention.out_proj.bias")
        assert "attention.out_proj.weight" in verdict.explanation
        assert "F.relu(self.linear(x)) in the model" in verdict.explanation
        assert verdict.severity == "info"

    def test_a_model_of_modules_alone_has_none(self):
        model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        with GradientMonitor(model, every=1) as monitor:
            model(torch.randn(3, 2)).sum().backward()
            monitor.record()
            assert "TA901" not in {verdict.rule for verdict in monitor.verdicts()}


class TestNoiseScale:
    def readings(self, steps, micro_batches, size, **arguments):
        """Train nothing on a quadratic loss whose gradient has mean m and noise of variance v in each of d entries."""
        model = nn.Linear(50, 1, bias=False)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        generator = torch.Generator().manual_seed(3)
        with GradientMonitor(model, optimizer, every=1, noise_scale=True, **arguments) as monitor:
            for _ in range(steps):
                optimizer.zero_grad()
                for _ in range(micro_batches):
                    x = 0.5 + 2 * torch.randn(size, 50, generator=generator)  # ∂(mean of w·x)/∂w is the mean of x
                    (model(x).mean() / micro_batches).backward()
                optimizer.step()
        return list(monitor.history)

    def test_it_is_the_variance_over_the_square_of_the_mean(self):
        true = 50 * 4 / (50 * 0.25)  # tr Σ / ‖G‖² = 16 samples
        for micro_batches, size in ((2, 4), (8, 2)):
            readings = self.readings(300, micro_batches, size)
            assert noise.noise_scale(readings) == pytest.approx(true, rel=0.1)
        batches = readings[0].micro_batches
        assert (batches.count, batches.samples) == (8, 2)

    def test_of_a_single_batch_nothing_is_known(self):
        readings = self.readings(3, 1, 4)
        assert [reading.micro_batches for reading in readings] == [None] * 3
        assert math.isnan(noise.noise_scale(readings))

    def test_estimates_are_exact_for_known_gradients(self):
        model = nn.Linear(2, 1, bias=False)
        gradients = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.0, 4.0]])
        with GradientMonitor(model, every=1, noise_scale=True) as monitor:
            for gradient in gradients:
                model(gradient.expand(5, 2)).mean().backward()
            batches = monitor.record().micro_batches
        mean = gradients.mean(0)
        variance = gradients.double().var(0).sum().item()  # with the divisor k - 1
        assert batches.squares == pytest.approx(gradients.square().sum(1).mean().item(), rel=1e-6)
        assert batches.square_of_mean == pytest.approx(mean.square().sum().item(), rel=1e-6)
        assert batches.noise_trace == pytest.approx(5 * variance, rel=1e-6)
        assert batches.gradient_squares == pytest.approx(mean.square().sum().item() - variance / 3, rel=1e-6)

    def test_its_hooks_go_with_the_monitor(self):
        model = nn.Linear(2, 1)
        with GradientMonitor(model, noise_scale=True):
            assert model.weight._backward_hooks
        assert not model.weight._backward_hooks
        assert not model.weight._post_accumulate_grad_hooks
