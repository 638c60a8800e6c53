import copy
import gc
import io
import itertools
import math
import pickle
import weakref

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

import torchact
from torchact import GradientMonitor, catalogue, modules
from torchact.diagnostics import Thresholds
from torchact.diagnostics.probes import Probe, Switch


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def mlp(activation=torchact.Sigmoid, depth=3, width=8):
    layers = itertools.chain.from_iterable((nn.Linear(width, width), activation()) for _ in range(depth))
    return nn.Sequential(*layers, nn.Linear(width, 2))


def sgd(model, lr=0.1):
    return torch.optim.SGD(model.parameters(), lr=lr)


def batch(width=8, size=4):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, width, generator=generator), torch.randint(2, (size,), generator=generator)


def train_step(model, optimizer, inputs=None, targets=None):
    if inputs is None:
        inputs, targets = batch()
    optimizer.zero_grad()
    F.cross_entropy(model(inputs), targets).backward()
    optimizer.step()


def monitored_step(model, **arguments):
    """Train one step under a monitor and return the reading."""
    optimizer = sgd(model)
    with GradientMonitor(model, optimizer, every=1, **arguments) as monitor:
        train_step(model, optimizer)
    return monitor.history[-1]


def by_name(reading):
    return {layer.name: layer for layer in reading.layers}


def hook_count(model):
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, name)) for module in model.modules() for name in hooks)


class TestSignals:
    def test_every_signal_is_that_of_the_float64_tensor(self):
        model = mlp(torchact.Tanh)
        reference = copy.deepcopy(model)
        reading = monitored_step(model)

        inputs, targets = batch()
        outputs = {}
        x = inputs
        for name, module in reference.named_children():
            x = module(x)
            x.retain_grad()
            outputs[name] = x
        F.cross_entropy(x, targets).backward()

        assert [layer.name for layer in reading.layers] == [name for name, _ in reference.named_children()]
        for layer in reading.layers:
            output, delta = outputs[layer.name].detach().double(), outputs[layer.name].grad.double()
            assert layer.output.mean == pytest.approx(output.mean().item(), rel=1e-9)
            assert layer.output.deviation == pytest.approx(output.std(correction=0).item(), rel=1e-9)
            assert layer.output.zero_fraction == (output == 0).double().mean()
            assert layer.gradient.norm == pytest.approx(delta.norm().item(), rel=1e-12)
            for name, statistics in layer.parameter_gradients.items():
                gradient = getattr(reference[int(layer.name)], name).grad.double()
                assert statistics.norm == pytest.approx(gradient.norm().item(), rel=1e-12)

    def test_the_saturated_fraction_counts_inputs_whose_derivative_is_below_its_share_of_the_maximum(self):
        model = nn.Sequential(nn.Linear(1, 1, bias=False), torchact.Sigmoid())
        model[0].weight.data.fill_(1.0)
        with GradientMonitor(model, every=1) as monitor:
            model(torch.tensor([[-6.0], [-5.0], [0.0], [4.9], [5.1]])).sum().backward()
            reading = monitor.record()
        # σ'(5)/σ'(0) is 0.0266 and below 0.027; σ'(4.9)/σ'(0) is 0.0293.
        assert reading.layers[1].saturated_fraction == 3 / 5

    def saturated(self, module, *inputs, shape=(1, -1)):
        """The saturated fraction of an activation's inputs."""
        model = nn.Sequential(nn.Identity(), module, nn.LazyLinear(1))
        x = torch.tensor(inputs).reshape(shape)
        model(x)  # which gives the lazy layer its size
        with GradientMonitor(model, every=1) as monitor:
            model(x).sum().backward()
            return by_name(monitor.record())["1"].saturated_fraction

    def test_of_an_infinite_slope_no_fraction_is_small_but_zero(self):
        # φ' = 2 max(0, z): 1e-30 passes a gradient, and z ≤ 0 does not.
        assert self.saturated(torchact.SquaredReLU(), -3.0, 0.0, 1e-30, 1e-3, 5.0) == 2 / 5

    def test_a_fraction_of_zero_counts_exact_zeros_whatever_the_maximum(self):
        for activation in (torchact.SquaredReLU, torchact.ReLU):
            model = nn.Sequential(nn.Identity(), activation(), nn.Linear(4, 1))
            with GradientMonitor(model, every=1, thresholds=Thresholds(saturated_slope=0.0)) as monitor:
                model(torch.tensor([[-1.0, 0.0, 1e-3, 2.0]])).sum().backward()
                assert by_name(monitor.record())["1"].saturated_fraction == 2 / 4

    def test_the_gate_of_a_gated_unit_is_not_counted(self):
        for module in (torchact.GLU(), nn.GLU(), torchact.ReGLU(), torchact.Bilinear()):
            assert self.saturated(module, -9.0, 9.0, -9.0, 9.0) is None

    def test_both_halves_of_a_gated_unit_may_come_apart(self):
        class Gated(nn.Module):
            def __init__(self):
                super().__init__()
                self.up, self.gate, self.act = nn.Linear(8, 4), nn.Linear(8, 4), torchact.SwiGLU()

            def forward(self, x):
                return self.act(self.up(x), self.gate(x))

        layers = by_name(monitored_step(nn.Sequential(Gated(), nn.Linear(4, 2))))
        assert layers["0.act"].saturated_fraction is None
        assert layers["0.act"].gradient.norm > 0

    def test_a_softmax_without_a_dimension_takes_torchs(self):
        with pytest.warns(UserWarning, match="Implicit dimension choice"):
            implicit = self.saturated(nn.Softmax(), 0.0, 1.0, 20.0)
        assert implicit == self.saturated(nn.Softmax(dim=1), 0.0, 1.0, 20.0) == 1
        with pytest.warns(UserWarning, match="Implicit dimension choice"):
            implicit = self.saturated(nn.Softmax(), 0.0, 1.0, 20.0, 0.0, shape=(2, 1, 2))
        assert implicit == self.saturated(nn.Softmax(dim=0), 0.0, 1.0, 20.0, 0.0, shape=(2, 1, 2)) == 1 / 2

    def test_random_slopes_count_with_their_mean(self):
        assert self.saturated(nn.RReLU(), -1.0, -2.0, 3.0) == 0
        assert self.saturated(nn.RReLU(0.0, 0.05), -1.0, -2.0, 3.0) == 2 / 3  # the mean, 0.025, is less than 0.027

    @pytest.mark.parametrize(
        ("module", "before", "after"),
        [
            # Slopes of the left side: 0.25, and then 0.02, less than 0.027.
            (lambda: nn.PReLU(), 0, 2 / 4),
            (lambda: torchact.PReLU(4), 0, 2 / 4),
            # σ(βz)(1 + βzσ(-βz)) at z = -3: at β = 1 it is -0.088, at β = 2 -0.012, and -0.055 and 0.0004 at -4 and -6.
            (lambda: torchact.Swish(learnable=True), 0, 1 / 4),
            (lambda: torchact.Swish(learnable=True, num_parameters=4), 0, 1 / 4),
            # 1 + sin(2αz) at z = -3: at α = 1 it is 1.28, at α = π/12 it is 0.
            (lambda: torchact.Snake(learnable=True), 0, 1 / 4),
        ],
    )
    def test_a_learnt_parameter_is_read_when_it_is_used(self, module, before, after):
        learnt = {"PReLU": 0.02, "Swish": 2.0, "Snake": math.pi / 12}
        activation = module()
        (parameter,) = activation.parameters()
        model = nn.Sequential(nn.Identity(), activation, nn.Linear(4, 1))
        x = torch.tensor([[-3.0, -0.5, 0.5, 3.0]])
        with GradientMonitor(model, every=1) as monitor:
            readings = []
            for _ in range(2):
                model(x).sum().backward()
                readings.append(by_name(monitor.record())["1"].saturated_fraction)
                with torch.no_grad():
                    parameter.fill_(learnt[type(activation).__name__])
        assert readings == [before, after]

    def test_a_learnt_parameter_may_be_replaced_and_is_not_in_any_graph(self):
        model = nn.Sequential(nn.Linear(2, 2), nn.PReLU(), nn.Linear(2, 1))
        with GradientMonitor(model, every=1) as monitor:
            model.double()
            model[1].weight = nn.Parameter(torch.tensor([0.0], dtype=torch.float64))
            model(torch.tensor([[-1.0, 2.0]], dtype=torch.float64)).sum().backward()
            assert not any(probe.totals.requires_grad for probe in monitor._probes)
            layer = by_name(monitor.record())["1"]
        assert layer.saturated_fraction == layer.output.zero_fraction

    @pytest.mark.parametrize("scale", [0.02, 1.0, 50.0])
    def test_the_greatest_slope_of_a_learnt_activation_is_found_at_any_scale(self, scale):
        for module, known in ((torchact.Swish(scale, learnable=True), 1.0998393), (torchact.Snake(scale, True), 2.0)):
            _, greatest = Probe("", module, Switch(), 1.0)._slope(module, torch.zeros(1))
            assert greatest.item() == pytest.approx(known, rel=5e-3)
        prelu = nn.PReLU(init=scale)
        assert Probe("", prelu, Switch(), 1.0)._slope(prelu, torch.zeros(1))[1].item() == pytest.approx(max(scale, 1.0))

    def test_torchs_own_activations_are_recognised(self):
        reading = monitored_step(mlp(nn.ReLU))
        relu = by_name(reading)["1"]
        assert relu.activation == "relu"
        assert relu.saturated_fraction == relu.output.zero_fraction > 0

    @pytest.mark.parametrize("inplace", [True, False])
    @pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6, nn.ELU, nn.LeakyReLU, nn.SiLU])
    def test_the_saturated_fraction_is_that_of_the_slopes(self, activation, inplace):
        seen = []
        model = nn.Sequential(nn.Linear(8, 500), activation(inplace=inplace))
        with torch.no_grad():
            model[0].weight *= 20
        model[0].register_forward_hook(lambda *call: seen.append(call[-1].detach().clone()))
        with GradientMonitor(model, every=1, thresholds=Thresholds(saturated_slope=0.02)) as monitor:
            model(torch.randn(40, 8)).sum().backward()
            monitor.record()
        record = modules.activation_of(model[1])
        slopes = record.derivative(seen[0].double()).abs()
        expected = (slopes <= 0.02 * record.max_derivative()).double().mean().item()
        assert by_name(monitor.history[-1])["1"].saturated_fraction == expected
        assert expected > 0 or activation is nn.LeakyReLU

    def test_an_inplace_activation_is_measured_before_and_after(self):
        plain = monitored_step(mlp(nn.ReLU))
        torch.manual_seed(0)
        inplace = monitored_step(mlp(lambda: nn.ReLU(inplace=True)))
        for one, other in zip(plain.layers, inplace.layers, strict=True):
            assert one.gradient == other.gradient
            assert one.saturated_fraction == other.saturated_fraction
            assert one.output == other.output

    def test_a_subclass_may_work_in_place_without_saying_so(self):
        class InPlace(nn.Tanh):
            def forward(self, x):
                return x.tanh_()

        def step_with(activation):
            torch.manual_seed(0)
            model = mlp(activation)
            with torch.no_grad():
                model[0].weight *= 20
            return by_name(monitored_step(model))["1"]

        assert step_with(InPlace).saturated_fraction == step_with(nn.Tanh).saturated_fraction > 0

    @pytest.mark.parametrize("masked_by", ["a subclass", "an instance", "a hook"])
    def test_zeros_that_something_else_made_are_not_saturated_inputs(self, masked_by):
        class Masked(nn.ReLU):
            def forward(self, x):
                return 0 * super().forward(x)

        model = mlp(Masked if masked_by == "a subclass" else nn.ReLU)
        if masked_by == "an instance":
            model[1].forward = lambda x: 0 * x.relu()
        elif masked_by == "a hook":
            model[1].register_forward_hook(lambda module, args, output: 0 * output)
        layer = by_name(monitored_step(model))["1"]
        assert layer.output.zero_fraction == 1
        assert 0 < layer.saturated_fraction < 1

    def test_an_activation_that_begins_to_work_in_place_is_not_counted_by_what_it_left(self):
        model = mlp(nn.Sigmoid)
        model[1] = nn.ELU()
        with GradientMonitor(model, every=1) as monitor:
            for inplace in (False, True):
                model[1].inplace = inplace
                model(10 * torch.randn(4, 8)).sum().backward()
                monitor.record()
        before, after = (by_name(reading)["1"] for reading in monitor.history)
        assert before.saturated_fraction > 0
        assert after.saturated_fraction is None
        assert after.output.mean != 0

    def test_a_module_used_three_times_counts_each_call(self):
        linear = nn.Linear(8, 8)
        model = nn.Sequential(linear, linear, linear, nn.Linear(8, 2))
        layer = by_name(monitored_step(model))["0"]
        assert layer.output.count == 3 * 4 * 8
        assert layer.gradient.count == 3 * 4 * 8
        assert layer.parameter_gradients["weight"].count == 64

    def test_tied_weights_show_their_gradient_in_each_module_that_has_them(self):
        model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False), nn.Linear(8, 2))
        model[1].weight = model[0].weight
        reading = monitored_step(model)
        first, second, _ = reading.learning_layers
        assert first.parameter_gradients == second.parameter_gradients

    def test_a_parametrised_layer_is_one_layer_and_owns_what_makes_its_weight(self):
        model = nn.Sequential(
            nn.utils.parametrizations.weight_norm(nn.Linear(8, 8, bias=False)),
            nn.Tanh(),
            nn.utils.parametrizations.spectral_norm(nn.Linear(8, 2)),
        )
        reading = monitored_step(model)
        assert [layer.name for layer in reading.layers] == ["0", "1", "2"]
        assert set(reading.layers[0].parameter_gradients) == {"weight.original0", "weight.original1"}
        assert set(reading.layers[2].parameter_gradients) == {"bias", "weight.original"}

    def test_float32_underflow_is_measured_and_not_rounded_to_zero(self):
        """Sigmoid and torch's initialisation at 25 layers: ‖δ^1‖ is about 1e-22, where a float32 norm reports 0."""
        reading = monitored_step(mlp(depth=25))
        first = reading.layers[0].gradient.norm
        assert 0 < first < 1e-18

    def test_parameters_that_get_no_gradient(self):
        model = mlp()
        model[0].requires_grad_(False)
        reading = monitored_step(model)
        assert by_name(reading)["0"].parameter_gradients == {}
        assert "0" not in [layer.name for layer in reading.learning_layers]

    def test_modules_that_were_not_called_are_named(self):
        class Branching(nn.Module):
            def __init__(self):
                super().__init__()
                self.used, self.unused = nn.Linear(8, 2), nn.Linear(8, 2)

            def forward(self, x):
                return self.used(x)

        model = Branching()
        optimizer = sgd(model)
        with GradientMonitor(model, optimizer, every=1) as monitor:
            train_step(model, optimizer)
        assert monitor.history[-1].silent == ("unused",)
        assert "unused" in str(monitor._report())

    def test_layers_are_in_the_order_in_which_they_are_first_called(self):
        class Backward(nn.Module):
            def __init__(self):
                super().__init__()
                self.second, self.first = nn.Linear(8, 2), nn.Linear(8, 8)

            def forward(self, x):
                return self.second(self.first(x))

        assert [layer.name for layer in monitored_step(Backward()).layers] == ["first", "second"]

    @pytest.mark.parametrize("module", [nn.LSTM(8, 8, batch_first=True), nn.GRU(8, 8, batch_first=True)])
    def test_modules_that_return_nested_tuples(self, module):
        with GradientMonitor(module, every=1) as monitor:
            module(torch.randn(2, 3, 8))[0].sum().backward()
            layer = monitor.record().layers[0]
        assert layer.gradient.norm > 0
        assert set(layer.parameter_gradients) == {"weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"}

    def test_a_fused_submodule_is_reported_as_unseen(self):
        attention = nn.MultiheadAttention(8, 2, batch_first=True)
        with GradientMonitor(attention, every=1) as monitor:
            x = torch.randn(2, 3, 8)
            attention(x, x, x)[0].sum().backward()
            reading = monitor.record()
        assert reading.silent == ("out_proj",)

    def test_sparse_gradients(self):
        model = nn.Sequential(nn.Embedding(5, 8, sparse=True), nn.Flatten(), nn.Linear(16, 2))
        optimizer = sgd(model)
        with GradientMonitor(model, optimizer, every=1) as monitor:
            train_step(model, optimizer, torch.tensor([[0, 3]]), torch.tensor([1]))
        expected = model[0].weight.grad.to_dense().double().norm().item()
        assert monitor.history[-1].layers[0].parameter_gradients["weight"].norm == pytest.approx(expected)


class TestSteps:
    def test_every_second_step_is_recorded_from_step_0(self):
        model = mlp()
        optimizer = sgd(model)
        with GradientMonitor(model, optimizer, every=2, first=0) as monitor:
            for _ in range(5):
                train_step(model, optimizer)
        assert [reading.step for reading in monitor.history] == [0, 2, 4]

    def test_history_keeps_the_latest_readings(self):
        model = mlp()
        optimizer = sgd(model)
        with GradientMonitor(model, optimizer, every=1, keep=2) as monitor:
            for _ in range(4):
                train_step(model, optimizer)
        assert [reading.step for reading in monitor.history] == [2, 3]

    @pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.Adam])
    def test_what_a_kept_reading_adds_for_the_garbage_collector_does_not_depend_on_the_layers(self, optimizer_class):
        def added(depth, steps=20):
            model = mlp(depth=depth)
            optimizer = optimizer_class(model.parameters(), lr=0.01)
            with GradientMonitor(model, optimizer, every=1):
                for _ in range(3):
                    train_step(model, optimizer)
                gc.collect()
                before = len(gc.get_objects())
                for _ in range(steps):
                    train_step(model, optimizer)
                gc.collect()
                return (len(gc.get_objects()) - before) / steps

        assert added(3) == pytest.approx(added(30), abs=1)

    def test_accumulated_micro_batches_merge_into_one_reading(self):
        model = mlp()
        optimizer = sgd(model)
        inputs, targets = batch()
        with GradientMonitor(model, optimizer, every=1) as monitor:
            for part in (slice(0, 2), slice(2, 4)):
                F.cross_entropy(model(inputs[part]), targets[part], reduction="sum").backward()
            accumulated = model[0].weight.grad.double().norm().item()
            optimizer.step()
        reading = monitor.history[-1]
        assert reading.layers[0].output.count == 4 * 8
        assert reading.layers[0].parameter_gradients["weight"].norm == pytest.approx(accumulated)

    def test_evaluation_between_steps_is_not_recorded(self):
        model = mlp()
        optimizer = sgd(model)
        inputs, targets = batch()
        with GradientMonitor(model, optimizer, every=1) as monitor:
            loss = F.cross_entropy(model(inputs), targets)
            with torch.no_grad():
                model(torch.randn(100, 8))
            with torch.inference_mode():
                model.eval()(torch.randn(100, 8))
            loss.backward()
            optimizer.step()
        assert monitor.history[-1].layers[0].output.count == 4 * 8

    def test_parameter_gradients_are_read_after_clipping(self):
        model = mlp()
        optimizer = sgd(model)
        inputs, targets = batch()
        with GradientMonitor(model, optimizer, every=1) as monitor:
            F.cross_entropy(model(inputs), targets).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
            optimizer.step()
        norms = [layer.parameter_gradient_norm for layer in monitor.history[-1].layers if layer.has_parameters]
        assert math.hypot(*norms) == pytest.approx(1e-3, rel=1e-3)

    def test_a_step_that_the_gradient_scaler_skips_is_no_step(self):
        model = mlp()
        optimizer = sgd(model)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        inputs, targets = batch()
        with GradientMonitor(model, optimizer, every=1) as monitor:
            for scale in (1.0, math.inf, 1.0, 1.0):
                optimizer.zero_grad()
                scaler.scale(F.cross_entropy(model(inputs), targets) * scale).backward()
                scaler.step(optimizer)
                scaler.update()
        # The step after the skipped one is left out: what was seen of δ since step 0 holds the overflow.
        assert [reading.step for reading in monitor.history] == [0, 2]
        assert not any(layer.gradient.non_finite for reading in monitor.history for layer in reading.layers)
        expected = model[0].weight.grad.double().norm().item()
        assert monitor.history[-1].layers[0].parameter_gradients["weight"].norm == pytest.approx(expected)

    @pytest.mark.parametrize("updates", [False, True])
    def test_a_recording_that_a_skipped_step_spoils_is_made_at_the_next_step(self, updates):
        model = mlp()
        optimizer = sgd(model)
        inputs, targets = batch()
        with GradientMonitor(model, optimizer, every=100, first=0, updates=updates) as monitor:
            (F.cross_entropy(model(inputs), targets) * math.inf).backward()  # a gradient scaler would skip the step
            for _ in range(3):
                train_step(model, optimizer)
        assert [reading.step for reading in monitor.history] == [1]

    def test_without_an_optimiser_no_step_can_have_been_skipped(self):
        model = mlp()
        with GradientMonitor(model, every=1) as monitor:
            (model(batch()[0]).sum() * math.inf).backward()
            reading = monitor.record({parameter: torch.zeros_like(parameter) for parameter in model.parameters()})
        assert monitor.verdicts()[0].title == "non-finite"
        assert reading.layers[-1].gradient.non_finite

    def test_a_fused_optimiser_that_unscales_by_itself(self):
        model = mlp()
        optimizer = torch.optim.Adam(model.parameters(), fused=True)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        twin = copy.deepcopy(model)
        F.cross_entropy(twin(batch()[0]), batch()[1]).backward()
        with GradientMonitor(model, optimizer, every=1) as monitor:
            scaler.scale(F.cross_entropy(model(batch()[0]), batch()[1])).backward()
            scaler.step(optimizer)
        measured = monitor.history[-1].layers[0].parameter_gradients["weight"].norm
        assert measured == pytest.approx(twin[0].weight.grad.double().norm().item(), rel=1e-6)

    def test_lbfgs_with_a_closure(self):
        model = mlp()
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)
        inputs, targets = batch()

        def closure():
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            loss.backward()
            return loss

        twin = copy.deepcopy(model)
        with GradientMonitor(model, optimizer, every=1) as monitor:
            optimizer.step(closure)
            optimizer.step(closure=closure)
        assert [reading.step for reading in monitor.history] == [0, 1]
        F.cross_entropy(twin(inputs), targets).backward()
        layer = by_name(monitor.history[0])["0"]
        assert layer.parameter_gradients["weight"].norm == pytest.approx(twin[0].weight.grad.norm().item(), rel=1e-6)
        assert {layer.samples for reading in monitor.history for layer in reading.layers} == {len(inputs)}  # one call
        assert by_name(monitor.history[-1])["0"].gradient.norm > 0

    def test_a_layer_keeps_its_place_when_others_are_skipped(self):
        class Skipping(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.second, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)
                self.skip = False

            def forward(self, x):
                x = self.first(x)
                return self.last(x if self.skip else self.second(x))

        model = Skipping()
        optimizer = sgd(model)
        with GradientMonitor(model, optimizer, every=1) as monitor:
            train_step(model, optimizer)
            model.skip = True
            train_step(model, optimizer)
        assert [layer.label for layer in monitor.history[0].layers] == ["0000_first", "0001_second", "0002_last"]
        assert [layer.label for layer in monitor.history[1].layers] == ["0000_first", "0002_last"]

    def test_modules_have_hooks_in_recorded_steps_alone(self):
        model = mlp()
        optimizer = sgd(model)
        with GradientMonitor(model, optimizer, every=3, first=0) as monitor:
            hooks = hook_count(model)
            counts = [hook_count(model) for _ in range(6) if train_step(model, optimizer) is None]
            assert counts == [0, 0, hooks, 0, 0, hooks]
            monitor.step = 1
            assert hook_count(model) == 0
        assert hook_count(model) == 0

    @pytest.mark.parametrize(
        ("settings", "steps"),
        [
            ({}, [*range(10), 10, 20]),
            ({"every": 4, "first": 3}, [0, 1, 2, 4, 8, 12, 16, 20]),
            ({"first": 0}, [0, 10, 20]),
        ],
    )
    def test_the_first_steps_are_recorded_and_then_every_so_many(self, settings, steps):
        model = mlp()
        optimizer = sgd(model)
        with GradientMonitor(model, optimizer, **settings) as monitor:
            for _ in range(21):
                train_step(model, optimizer)
        assert [reading.step for reading in monitor.history] == steps

    def test_a_hook_beside_ours_keeps_its_place(self):
        model = nn.Sequential(nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 2))
        optimizer = sgd(model)
        with GradientMonitor(model, optimizer, every=2, first=0) as monitor:
            model[0].register_forward_hook(lambda module, inputs, output: output * 0)
            for _ in range(5):
                train_step(model, optimizer)
        assert [reading.step for reading in monitor.history] == [0, 2, 4]
        assert all(by_name(reading)["0"].output.norm > 0 for reading in monitor.history)
        assert all(by_name(reading)["1"].output.deviation == 0 for reading in monitor.history)


class TestOtherMachinery:
    def test_a_layer_may_hand_on_one_of_several_outputs_of_a_function(self):
        class First(nn.Linear):
            def forward(self, x):
                return super().forward(x).chunk(2, -1)

        model = nn.ModuleList([First(8, 8), nn.Linear(4, 2)])
        with GradientMonitor(model, every=1) as monitor:
            model[1](model[0](torch.randn(4, 8))[1]).sum().backward()
            monitor.record()
        layer = by_name(monitor.history[-1])["0"]
        assert layer.gradient.count == 4 * 4
        assert layer.output.count == 2 * layer.gradient.count

    def test_a_gradient_that_is_zero_by_itself_is_recorded(self):
        model = nn.Sequential(nn.Linear(4, 4), nn.ELU(), nn.Linear(4, 1))
        with GradientMonitor(model, every=1) as monitor:
            torch.sgn(model(torch.randn(1, 4))).sum().backward()
            monitor.record()
        assert by_name(monitor.history[-1])["2"].gradient.zero_fraction == 1

    def test_units_follow_compiled_calls_of_another_width(self):
        class OfAnyWidth(nn.Module):
            def __init__(self):
                super().__init__()
                self.scale, self.relu = nn.Linear(1, 1), nn.ReLU()

            def forward(self, x):
                return self.relu(self.scale(x.unsqueeze(-1)).squeeze(-1))

        model = OfAnyWidth()
        compiled = torch.compile(model, backend="eager")
        with GradientMonitor(model, every=1) as monitor:
            (probe,) = (probe for probe in monitor._probes if probe.has_units)
            for call, width in ((model, 50), (compiled, 40), (model, 50)):
                call(torch.randn(6, width)).sum().backward()
                monitor.record()
                assert probe.units.shape == (width,)
                assert probe.units.max() > 0

    def test_a_step_that_a_scaler_skips_for_the_parameters_alone_is_left_out(self):
        model = nn.Linear(4, 4)
        optimizer = torch.optim.Adam(model.parameters(), fused=True)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**100)
        with GradientMonitor(model, optimizer, every=1) as monitor:
            for size in (1.0, 1e12, 1.0):  # of the second, δ is finite and its product with the inputs is not
                optimizer.zero_grad()
                scaler.scale(model(torch.full((8, 4), size)).mean()).backward()
                scaler.step(optimizer)
                scaler.update()
        assert len(monitor.history) == 2

    @pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
    def test_what_torch_traces_is_not_recorded(self):
        model, x = mlp(nn.ELU), torch.randn(4, 8)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with GradientMonitor(model, optimizer, every=1) as monitor:
            traced = torch.jit.trace(model, x, check_trace=False)
            plain = make_fx(model)(x)  # which computes while it traces
            model(x).sum().backward()
            optimizer.step()
        for graph in (str(traced.inlined_graph), plain.code):
            assert "torchact" not in graph
        layer = monitor.history[-1].layers[0]
        assert layer.output.count == 2 * layer.gradient.count
        torch.testing.assert_close(traced(x), model(x), rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("reentrant", [True, False])
    def test_a_checkpointed_region_is_counted_once(self, reentrant):
        class Checkpointed(nn.Module):
            def __init__(self):
                super().__init__()
                self.body, self.head = mlp(), nn.Linear(2, 2)

            def forward(self, x):
                return self.head(checkpoint(self.body, x.requires_grad_(), use_reentrant=reentrant))

        model = Checkpointed()
        plain = monitored_step(nn.Sequential(copy.deepcopy(model.body), copy.deepcopy(model.head)))
        checkpointed = monitored_step(model)
        expected = [(layer.output, layer.gradient, layer.saturated_fraction) for layer in plain.layers]
        measured = {
            layer.name: (layer.output, layer.gradient, layer.saturated_fraction) for layer in checkpointed.layers
        }
        names = [f"body.{index}" for index in range(7)] + ["head"]
        assert [measured[name] for name in names] == expected

    def test_a_forward_pass_without_gradients_is_not_taken_for_a_checkpoints(self):
        model = mlp()
        optimizer = sgd(model)
        inputs, targets = batch()
        with GradientMonitor(model, optimizer, every=1) as monitor:
            with torch.no_grad():
                model(inputs)
            F.cross_entropy(checkpoint(model, inputs, use_reentrant=False), targets).backward()
            optimizer.step()
        assert {layer.output.count for layer in monitor.history[-1].layers} == {4 * 8, 4 * 2}

    @pytest.mark.parametrize("updates", [False, True])
    def test_a_model_compiled_and_run_before_is_warned_of(self, updates):
        torch.compiler.reset()
        model = mlp()
        optimizer = sgd(model)
        compiled = torch.compile(model, backend="eager")
        train_step(compiled, optimizer)
        with GradientMonitor(model, optimizer, every=1, updates=updates) as monitor:
            with pytest.warns(UserWarning, match="A compiled model ignores hooks that come after its first call"):
                train_step(compiled, optimizer)
            assert not monitor.history
        torch.compiler.reset()

    def test_gradients_of_gradients_do_not_break_it(self):
        model = mlp(torchact.Tanh)
        optimizer = sgd(model)
        inputs = batch()[0].requires_grad_()
        with GradientMonitor(model, optimizer, every=1) as monitor:
            (gradient,) = torch.autograd.grad(model(inputs).sum(), inputs, create_graph=True)
            gradient.square().sum().backward()
            optimizer.step()
        assert monitor.history[-1].layers[0].gradient.norm > 0

    def test_functorch_transforms_pass_through_unrecorded(self):
        model = mlp()
        parameters = dict(model.named_parameters())

        def loss(parameters, x):
            return torch.func.functional_call(model, parameters, (x,)).sum()

        per_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))
        expected = per_sample(parameters, batch()[0])
        with GradientMonitor(model, every=1) as monitor:
            measured = per_sample(parameters, batch()[0])
            assert monitor.record() is None
        for name, gradient in expected.items():
            assert torch.equal(gradient, measured[name])

    @pytest.mark.skipif(torch.__version__ < "2.13", reason="older compilers break the graph at a tensor hook")
    @pytest.mark.parametrize("activation", [torchact.Tanh, nn.PReLU, lambda: torchact.Swish(learnable=True)])
    def test_it_compiles_without_a_graph_break(self, activation):
        model = mlp(activation, depth=2)
        eager = monitored_step(copy.deepcopy(model))
        optimizer = sgd(model)
        with GradientMonitor(model, optimizer, every=1) as monitor:
            compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
            for _ in range(3):
                train_step(compiled, optimizer)
        for layer, expected in zip(monitor.history[0].layers, eager.layers, strict=True):
            assert layer.output.norm == pytest.approx(expected.output.norm, rel=1e-5)
            assert layer.gradient.norm == pytest.approx(expected.gradient.norm, rel=1e-5)
            assert layer.saturated_fraction == expected.saturated_fraction
        assert len(monitor.history) == 3
        assert monitor.history[2].layers[0].output.count == 4 * 8

    @pytest.mark.skipif(torch.__version__ < "2.13", reason="older compilers break the graph at a tensor hook")
    @pytest.mark.parametrize("start", [0, 1])
    def test_compiled_every_second_step_is_recorded(self, start):
        models = [mlp(depth=2), mlp(depth=2)]
        models[1].load_state_dict(models[0].state_dict())
        histories = []
        for model, call in zip(models, (models[0], torch.compile(models[1], backend="aot_eager")), strict=True):
            optimizer = sgd(model)
            with GradientMonitor(model, optimizer, every=2, first=0) as monitor:
                monitor.step = start
                for _ in range(start, 5):
                    train_step(call, optimizer)
                histories.append([(reading.step, by_name(reading)["2"].gradient.norm) for reading in monitor.history])
        assert [step for step, _ in histories[1]] == list(range(2 * start, 5, 2))
        assert [norm for _, norm in histories[1]] == pytest.approx([norm for _, norm in histories[0]], rel=1e-5)

    def test_bfloat16_autocast(self):
        model = mlp()
        optimizer = sgd(model)
        inputs, targets = batch()
        with GradientMonitor(model, optimizer, every=1) as monitor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = F.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
        assert monitor.history[-1].layers[0].gradient.norm > 0

    @pytest.mark.skipif(torch.__version__ < "2.13", reason="older compilers break the graph at a tensor hook")
    def test_a_compiled_model_shows_what_it_has_learnt_since(self):
        model = nn.Sequential(nn.Identity(), nn.PReLU(), nn.Linear(4, 1))
        x = torch.tensor([[-3.0, -0.5, 0.5, 3.0]])
        readings = []
        with GradientMonitor(model, every=1) as monitor:
            compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
            for weight in (0.25, 0.02):
                with torch.no_grad():
                    model[1].weight.fill_(weight)
                compiled(x).sum().backward()
                readings.append(by_name(monitor.record())["1"].saturated_fraction)
        assert readings == [0, 2 / 4]


class TestEveryActivation:
    @pytest.mark.parametrize("key", catalogue.CATALOGUE)
    def test_a_network_of_it_is_read_and_judged(self, key):
        record = catalogue.CATALOGUE[key]
        width = 16 if record.kind == "gated" else 8
        model = nn.Sequential(nn.Linear(8, width), modules.create(key), nn.Linear(8, 2))
        inputs, targets = batch()
        if key == "softmax2d":
            model.insert(1, nn.Unflatten(1, (8, 1, 1))).insert(3, nn.Flatten())
        report = torchact.diagnose(model, F.cross_entropy, inputs, targets)
        layer = next(layer for layer in report.reading.layers if layer.activation == key)
        assert (layer.saturated_fraction is None) == (record.kind == "gated")
        assert layer.gradient.norm > 0
        assert [verdict.title for verdict in report.verdicts] == (["zero-gradient"] if key == "binary_step" else [])
        assert str(report)


class TestLeavesNoTrace:
    @pytest.mark.parametrize(
        "activation", [torchact.ReLU, lambda: nn.ReLU(inplace=True), torchact.Sigmoid, nn.PReLU, nn.RReLU]
    )
    @pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.Adam])
    def test_weights_are_bit_identical_with_and_without(self, activation, optimizer_class):
        model = nn.Sequential(mlp(activation), nn.Dropout(0.5), nn.BatchNorm1d(2))
        twin = copy.deepcopy(model)
        for candidate, watch in ((model, True), (twin, False)):
            torch.manual_seed(3)
            optimizer = optimizer_class(candidate.parameters(), lr=0.1)
            monitor = GradientMonitor(candidate, optimizer, every=2, first=0) if watch else None
            for _ in range(5):
                train_step(candidate, optimizer)
            if monitor:
                monitor.close()
        for (name, ours), theirs in zip(model.state_dict().items(), twin.state_dict().values(), strict=True):
            assert torch.equal(ours, theirs), name

    def test_close_removes_every_hook_and_adds_no_attribute(self):
        model = mlp()
        optimizer = sgd(model)
        attributes = [set(vars(module)) for module in model.modules()]
        keys = list(model.state_dict())
        monitor = GradientMonitor(model, optimizer, every=1)
        assert hook_count(model) > 0
        assert [set(vars(module)) for module in model.modules()] == attributes
        train_step(model, optimizer)
        monitor.close()
        monitor.close()
        assert monitor.closed
        assert hook_count(model) == 0
        assert not optimizer._optimizer_step_pre_hooks
        assert [set(vars(module)) for module in model.modules()] == attributes
        assert list(model.state_dict()) == keys

    def test_a_monitor_that_is_dropped_takes_its_hooks_along(self):
        model = mlp()
        monitor = GradientMonitor(model, sgd(model))
        gone = weakref.ref(monitor)
        del monitor
        gc.collect()
        assert gone() is None
        assert hook_count(model) == 0
        GradientMonitor(model).close()

    def test_an_input_that_a_module_hands_back_keeps_no_hook(self):
        model = nn.Sequential(nn.Identity(), nn.Linear(8, 2))
        inputs = batch()[0].requires_grad_()
        with GradientMonitor(model, every=1) as monitor:
            model(inputs).sum().backward()
            reading = monitor.record()
            assert not inputs._backward_hooks
            model(inputs)
        assert reading.layers[0].gradient.norm == pytest.approx(inputs.grad.double().norm().item())
        assert not inputs._backward_hooks

    def test_an_output_takes_other_hooks_before_and_after_ours_and_gives_them_back(self):
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
        seen = []
        first, last = model
        first.register_forward_hook(lambda module, args, y: y.register_hook(lambda g: seen.append("before")) and None)
        with GradientMonitor(model, every=1) as monitor:
            y = first(torch.ones(2, 4))
            handles = [y.register_hook(lambda g: seen.append("after")) for _ in range(2)]
            z = last(y)
            handles += [z.register_hook(lambda g: seen.append("last")) for _ in range(2)]
            handles[0].remove()
            handles[2].remove()
            z.sum().backward()
            reading = monitor.record()
        assert seen == ["last", "before", "after"]
        assert [layer.gradient.count for layer in reading.layers] == [8, 2]

    def test_a_gradient_that_is_asked_of_the_output_itself_is_seen(self):
        model = nn.Linear(4, 3)
        with GradientMonitor(model, every=1) as monitor:
            y = model(torch.ones(2, 4))
            (gradient,) = torch.autograd.grad(y.square().sum(), y)
            reading = monitor.record()
        assert reading.layers[0].gradient.norm == pytest.approx(float(gradient.norm()))

    def test_an_output_is_saved_without_a_warning(self, tmp_path):
        model = nn.Linear(4, 3)
        with GradientMonitor(model, every=1):
            torch.save(model(torch.ones(2, 4)), tmp_path / "output.pt")  # warnings are errors here

    def test_an_exception_in_the_block_closes_it(self):
        model = mlp()
        with pytest.raises(ZeroDivisionError), GradientMonitor(model, sgd(model)):
            raise ZeroDivisionError
        assert hook_count(model) == 0

    def test_an_exception_in_forward_leaves_nothing_in_the_next_reading(self):
        class Failing(nn.Module):
            fail = True

            def forward(self, x):
                if self.fail:
                    raise ZeroDivisionError
                return x

        failing = Failing()
        model = nn.Sequential(nn.Linear(8, 8), failing, nn.Linear(8, 2))
        optimizer = sgd(model)
        with GradientMonitor(model, optimizer, every=1) as monitor:
            train = lambda: train_step(model, optimizer)  # noqa: E731
            with pytest.raises(ZeroDivisionError):
                train()
            failing.fail = False
            train()
        assert monitor.history[-1].layers[0].gradient.count == 4 * 8

    def test_a_watched_model_can_be_copied_and_pickled(self):
        model = mlp()
        with GradientMonitor(model, sgd(model)):
            twin = copy.deepcopy(model)
            loaded = pickle.loads(pickle.dumps(model))
        inputs = batch()[0]
        assert torch.equal(twin(inputs), model(inputs))
        assert torch.equal(loaded(inputs), model(inputs))

    def test_a_watched_optimiser_can_be_copied(self):
        model = mlp()
        optimizer = sgd(model)
        with GradientMonitor(model, optimizer):
            twin = copy.deepcopy(optimizer)
        twin.step()


class TestBadInput:
    def test_a_model_or_optimiser_of_another_kind(self):
        with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module, got 3"):
            GradientMonitor(3)
        with pytest.raises(
            TypeError, match=r"optimizer: expected a torch\.optim\.Optimizer, several of them or None, got 'sgd'"
        ):
            GradientMonitor(mlp(), "sgd")

    def test_an_optimiser_of_another_model(self):
        with pytest.raises(ValueError, match="optimizer: SGD holds none of the model's parameters"):
            GradientMonitor(mlp(), sgd(mlp()))

    @pytest.mark.parametrize("count", [0, -1, 1.5, True, "2"])
    @pytest.mark.parametrize("name", ["every", "keep"])
    def test_counts_that_are_no_positive_whole_numbers(self, name, count):
        with pytest.raises(ValueError, match=f"{name}: expected a whole number of at least 1, got"):
            GradientMonitor(mlp(), **{name: count})

    @pytest.mark.parametrize(
        ("argument", "message"),
        [
            ({"sinks": 3}, "sinks: expected an iterable of sinks"),
            ({"thresholds": {"decay": 0.5}}, "thresholds: expected Thresholds or None, got"),
            ({"rules": "TA101"}, "rules: expected functions of the evidence, got 'TA101'"),
            ({"rules": ["TA101"]}, "rules: expected functions of the evidence, got"),
        ],
    )
    def test_what_is_of_the_wrong_type(self, argument, message):
        with pytest.raises(TypeError, match=message):
            GradientMonitor(mlp(), **argument)

    def test_signals_in_one_string(self):
        with pytest.raises(ValueError, match=r"signals: expected a collection, such as {'gradients'}, got 'outputs'"):
            GradientMonitor(mlp(), signals="outputs")

    @pytest.mark.parametrize("count", [-1, 1.5, True, "2"])
    def test_a_count_of_first_steps_that_is_negative_or_none(self, count):
        with pytest.raises(ValueError, match="first: expected a whole number of at least 0, got"):
            GradientMonitor(mlp(), first=count)

    def test_a_model_without_trainable_parameters(self):
        for model in (nn.ReLU(), mlp().requires_grad_(False)):
            with pytest.raises(ValueError, match=r"model: .* has no trainable parameters"):
                GradientMonitor(model)
            assert hook_count(model) == 0

    def test_a_second_monitor_on_the_model_or_a_part_of_it(self):
        model = mlp()
        with GradientMonitor(model):
            hooks = hook_count(model)
            for again in (model, nn.Sequential(model, nn.Linear(2, 2)), model[0]):
                with pytest.raises(RuntimeError, match="already attached"):
                    GradientMonitor(again)
            assert hook_count(model) == hooks
        GradientMonitor(model).close()

    def test_a_log_dir_that_cannot_be_written_leaves_the_model_alone(self, tmp_path):
        (tmp_path / "file").write_text("")
        model = mlp()
        with pytest.raises(OSError, match=r"log_dir: cannot write to .*file/run"):
            GradientMonitor(model, log_dir=tmp_path / "file" / "run")
        assert hook_count(model) == 0
        GradientMonitor(model).close()

    def test_asking_before_anything_was_recorded_or_after_closing(self):
        model = mlp()
        monitor = GradientMonitor(model)
        for ask in (monitor.report, monitor.verdicts):
            with pytest.raises(RuntimeError, match="nothing was recorded yet"):
                ask()
        monitor.close()
        with pytest.raises(RuntimeError, match="this monitor is closed"):
            monitor.record()


class TestReport:
    def test_it_prints_the_layers_in_order_with_decay_and_finding(self, capsys):
        model = mlp(depth=12)
        optimizer = sgd(model)
        with GradientMonitor(model, optimizer, every=1) as monitor:
            train_step(model, optimizer)
            report = monitor.report()
        text = capsys.readouterr().out
        rows = [line.split()[0] for line in text.splitlines() if "Linear" in line or "Sigmoid" in line][:25]
        assert rows == [str(index) for index in range(25)]
        assert f"Decay per layer: × {report.decay_per_layer:.3g}" in text
        assert "do not learn" in text
        assert 0.05 < report.decay_per_layer < 0.3

    @pytest.mark.parametrize(("width", "left_out"), [(120, []), (90, ["kind"]), (75, ["kind", "mean", "std"])])
    def test_names_of_layers_are_whole_in_a_narrow_console(self, width, left_out):
        name = "a_layer_with_a_long_name"
        model = nn.Sequential()
        for i in range(3):
            model.add_module(f"{name}{i}", nn.Linear(8, 8))
        optimizer = sgd(model)
        console = Console(width=width, file=io.StringIO())
        with GradientMonitor(model, optimizer, every=1) as monitor:
            model(torch.ones(2, 8)).square().sum().backward()
            optimizer.step()
            monitor.report(console)
        _, _, headings, _, *rows = console.file.getvalue().splitlines()
        assert [row.split()[0] for row in rows[:3]] == [f"{name}{i}" for i in range(3)]
        assert headings.split() == [
            heading
            for heading in ("layer", "kind", "‖δ‖", "×", "next", "‖∂L/∂θ‖", "mean", "std", "zero", "sat.", "dead")
            if heading not in left_out
        ]
        assert (f"short: {', '.join(left_out)}." in console.file.getvalue()) == bool(left_out)

    def test_a_healthy_network_is_said_to_learn(self):
        model = mlp(nn.Tanh, depth=2)
        optimizer = sgd(model)
        with GradientMonitor(model, optimizer, every=1) as monitor:
            train_step(model, optimizer)
        report = monitor._report()
        assert report.verdicts == monitor.verdicts() == ()
        assert report.finding.startswith("All 3 layers learn")
        assert str(report).count("\n") > 7

    def test_a_binary_step_is_told_to_be_a_structural_zero(self):
        report = torchact.diagnose(mlp(torchact.BinaryStep), F.cross_entropy, *batch())
        (verdict,) = report.verdicts
        assert verdict.title == "zero-gradient"
        assert "structural zero: the derivative of BinaryStep (5)" in verdict.explanation

    def test_layers_are_judged_by_delta_and_not_by_the_weight_gradient(self):
        """ReLU with Xavier and no biases: ‖∂L/∂W‖ is about the same in every layer, while δ fades by √2 a layer."""
        torch.manual_seed(0)
        model = nn.Sequential(
            *itertools.chain.from_iterable((nn.Linear(128, 128, bias=False), nn.ReLU()) for _ in range(24))
        )
        for linear in model[::2]:
            nn.init.xavier_normal_(linear.weight)
        report = torchact.diagnose(model, F.mse_loss, torch.randn(16, 128), torch.ones(16, 128))
        layers = report.reading.learning_layers
        weight_ratio = layers[0].parameter_gradient_norm / layers[-1].parameter_gradient_norm
        delta_ratio = layers[0].gradient.norm / layers[-1].gradient.norm
        assert 0.2 < weight_ratio < 5
        assert delta_ratio < 1e-2
        assert "vanishing" in {verdict.title for verdict in report.verdicts if verdict.severity == "warning"}


class TestDiagnose:
    def test_it_leaves_the_model_as_it_was(self):
        model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 2))
        inputs, targets = batch()
        F.cross_entropy(model(inputs), targets).backward()
        before = copy.deepcopy(model.state_dict())
        gradients = [parameter.grad.clone() for parameter in model.parameters()]
        generator = torch.get_rng_state()
        torchact.diagnose(model, F.cross_entropy, inputs, targets)
        assert hook_count(model) == 0
        assert torch.equal(torch.get_rng_state(), generator)
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[name]), name
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            assert torch.equal(parameter.grad, gradient)

    def test_it_measures_what_a_training_step_would(self):
        model = mlp()
        report = torchact.diagnose(model, F.cross_entropy, *batch())
        assert report.reading.layers == monitored_step(model).layers

    def test_inputs_may_be_a_tuple_or_a_mapping(self):
        class Two(nn.Module):
            def __init__(self):
                super().__init__()
                self.linear = nn.Linear(8, 2)

            def forward(self, x, y):
                return self.linear(x - y)

        x, targets = batch()
        model = Two()
        by_position = torchact.diagnose(model, F.cross_entropy, (x, 2 * x), targets)
        by_keyword = torchact.diagnose(model, F.cross_entropy, {"y": 2 * x, "x": x}, targets)
        assert by_position.reading == by_keyword.reading

    def test_it_works_where_gradients_are_switched_off(self):
        with torch.no_grad():
            assert torchact.diagnose(mlp(), F.cross_entropy, *batch()).reading.layers

    @pytest.mark.parametrize("loss_fn", [lambda y, t: y, lambda y, t: 1.0, lambda y, t: y.detach().sum()])
    def test_a_loss_that_is_no_scalar_with_a_gradient(self, loss_fn):
        model = mlp()
        with pytest.raises(ValueError, match="loss_fn: expected a scalar tensor that requires grad"):
            torchact.diagnose(model, loss_fn, *batch())
        assert hook_count(model) == 0

    def test_thresholds_are_passed_on(self):
        report = torchact.diagnose(
            mlp(depth=12), F.cross_entropy, *batch(), thresholds=Thresholds(vanishing_ratio_sgd=0.0)
        )
        assert "vanishing" not in {verdict.title for verdict in report.verdicts}
