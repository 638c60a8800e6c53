"""Set-ups that people train in: watched, each ends with the very weights that it has without, and shows its layers."""

import contextlib
import dataclasses
import itertools

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import torchact
from torchact import GradientMonitor

STEPS, BATCH, WIDTH = 4, 6, 8
SETUPS = {}


def setup(build):
    """Register a function that returns (model, optimisers, step); step(i) trains it."""
    SETUPS[build.__name__] = build
    return build


def data(i, *shape, dtype=torch.float32):
    return torch.randn(*(shape or (BATCH, WIDTH)), generator=torch.Generator().manual_seed(i)).to(dtype)


def mlp(activation=torchact.Tanh, dtype=torch.float32):
    layers = itertools.chain.from_iterable((nn.Linear(WIDTH, WIDTH), activation()) for _ in range(3))
    return nn.Sequential(*layers, nn.Linear(WIDTH, 2)).to(dtype)


def sgd(model, **arguments):
    return torch.optim.SGD(model.parameters(), **({"lr": 0.1} | arguments))


def plain(model, optimizer=None, forward=None, between=lambda i: None):
    """Return a set-up in which the mean square of what ``forward(i)`` gives is made small."""
    optimizer = optimizer or sgd(model)
    forward = forward or (lambda i: model(data(i)))

    def step(i):
        optimizer.zero_grad()
        forward(i).square().mean().backward()
        between(i)
        optimizer.step()

    return model, optimizer, step


@setup
def activations_in_place():
    return plain(mlp(lambda: nn.ReLU(inplace=True)))


@setup
def a_module_used_three_times():
    shared, last = nn.Sequential(nn.Linear(WIDTH, WIDTH), torchact.Tanh()), nn.Linear(WIDTH, 2)
    return plain(nn.Sequential(shared, shared, shared, last))


@setup
def tied_weights():
    model = mlp()
    model[4].weight = model[0].weight
    return plain(model)


@setup
def accumulation():
    model = mlp()
    optimizer = sgd(model)

    def step(i):
        optimizer.zero_grad()
        for part in data(i).split(2):
            (model(part).square().mean() / 3).backward()
        optimizer.step()

    return model, optimizer, step


@setup
def a_gradient_scaler_that_skips_a_step():
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)

    def step(i):
        optimizer.zero_grad()
        loss = model(data(i)).square().mean()
        scaler.scale(loss * float("inf") if i == 1 else loss).backward()
        scaler.step(optimizer)
        scaler.update()

    return model, optimizer, step


@setup
def clipping():
    model = mlp()
    return plain(model, between=lambda i: nn.utils.clip_grad_norm_(model.parameters(), 0.01))


@setup
def two_optimisers():
    generator, critic = mlp(), nn.Sequential(nn.Linear(2, WIDTH), torchact.ReLU(), nn.Linear(WIDTH, 1))
    model = nn.ModuleDict({"generator": generator, "critic": critic})
    optimizers = [torch.optim.Adam(part.parameters()) for part in (generator, critic)]

    def step(i):
        for sign, optimizer in zip((1, -1), optimizers, strict=True):
            model.zero_grad()
            (sign * critic(generator(data(i))).mean()).backward()
            optimizer.step()

    return model, optimizers, step


@setup
def lbfgs_with_a_closure():
    model = mlp()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)

    def step(i):
        def closure():
            optimizer.zero_grad()
            loss = model(data(0)).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)

    return model, optimizer, step


def checkpointed(reentrant):
    model = mlp()

    def forward(i):
        return model[4:](checkpoint(model[:4], data(i).requires_grad_(), use_reentrant=reentrant))

    return plain(model, forward=forward)


@setup
def a_reentrant_checkpoint():
    return checkpointed(True)


@setup
def a_checkpoint_that_is_not_reentrant():
    return checkpointed(False)


@setup
def a_recurrent_network():
    model = nn.ModuleList([nn.RNN(WIDTH, WIDTH), nn.LSTM(WIDTH, WIDTH, num_layers=2), nn.Linear(WIDTH, 2)])
    return plain(model, forward=lambda i: model[2](model[1](model[0](data(i, 5, 3, WIDTH))[0])[0]))


@setup
def attention():
    model = nn.ModuleList([nn.MultiheadAttention(WIDTH, 2, batch_first=True), torchact.GELU(), nn.Linear(WIDTH, 2)])

    def forward(i):
        tokens = data(i, 3, 5, WIDTH)
        return model[2](model[1](model[0](tokens, tokens, tokens, need_weights=False)[0]))

    return plain(model, forward=forward)


@dataclasses.dataclass
class Output:
    hidden: torch.Tensor
    others: dict


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.scale = nn.Parameter(torch.ones(WIDTH))

    def forward(self, *, inputs, twice=False):
        hidden = self.layer(inputs) * self.scale
        return Output(hidden, {"pair": (hidden * 2, [hidden.sum()]), "count": 3})


@setup
def nested_outputs_and_keyword_inputs():
    model = nn.ModuleList([Nested(), torchact.Tanh(), nn.Linear(WIDTH, 2)])

    def forward(i):
        output = model[0](inputs=data(i), twice=True)
        return model[2](model[1](input=output.hidden + output.others["pair"][0]))

    return plain(model, forward=forward)


@setup
def frozen_parameters_and_an_unused_branch():
    model = nn.ModuleDict({"frozen": nn.Linear(WIDTH, WIDTH), "used": mlp(), "unused": nn.Linear(WIDTH, WIDTH)})
    model["frozen"].requires_grad_(False)
    return plain(model, forward=lambda i: model["used"](model["frozen"](data(i))))


@setup
def sparse_gradients():
    model = nn.ModuleList([nn.Embedding(20, WIDTH, sparse=True), torchact.Tanh(), nn.Linear(WIDTH, 2)])
    return plain(model, forward=lambda i: model[2](model[1](model[0](torch.arange(i, i + 6)))))


@setup
def bfloat16():
    model = mlp(dtype=torch.bfloat16)
    return plain(model, forward=lambda i: model(data(i, dtype=torch.bfloat16)))


@setup
def float16():
    model = mlp(dtype=torch.float16)
    return plain(model, forward=lambda i: model(data(i, dtype=torch.float16)))


@setup
def numbers_below_the_normal_range():
    model = mlp()
    return plain(model, sgd(model, lr=1e30), forward=lambda i: model(data(i)) * 1e-20)


@setup
def an_empty_batch():
    model = mlp()
    optimizer = sgd(model)

    def step(i):
        optimizer.zero_grad()
        model(data(i, 0 if i == 1 else 2, WIDTH)).square().sum().backward()
        optimizer.step()

    return model, optimizer, step


@setup
def evaluation_in_between():
    model = nn.Sequential(mlp(), nn.BatchNorm1d(2), nn.Dropout(0.5))

    def evaluate(i):
        model.eval()
        for context in (torch.no_grad, torch.inference_mode, contextlib.nullcontext):
            with context():
                model(data(i + 10))
        model.train()
        with torch.no_grad():
            model(data(i + 20))

    return plain(model, between=evaluate)


@setup
def a_penalty_on_gradients():
    model = mlp()
    optimizer = sgd(model)

    def step(i):
        optimizer.zero_grad()
        x = data(i).requires_grad_()
        loss = model(x).square().mean()
        (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
        (loss + gradient.square().sum()).backward()
        optimizer.step()

    return model, optimizer, step


@setup
def an_exception_in_a_forward_pass():
    model = mlp()

    def fail(i):
        with contextlib.suppress(RuntimeError):
            model[2:](model[0](data(i, 2, WIDTH + 1)))

    return plain(model, between=fail)


def run(build, watched):
    torch.manual_seed(0)
    model, optimizers, step = build()
    with GradientMonitor(model, optimizers, every=1, updates=True) if watched else contextlib.nullcontext() as monitor:
        for i in range(STEPS):
            torch.manual_seed(i)
            step(i)
    return model, monitor


@pytest.mark.parametrize("name", SETUPS)
def test_weights_are_those_without_a_monitor_and_readings_show_the_layers(name):
    model, monitor = run(SETUPS[name], watched=True)
    twin, _ = run(SETUPS[name], watched=False)
    for (key, ours), theirs in zip(model.state_dict().items(), twin.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), key
    skipped = name == "a_gradient_scaler_that_skips_a_step"
    assert len(monitor.history) == (STEPS - skipped) * (2 if name == "two_optimisers" else 1)
    for reading in monitor.history:
        assert reading.layers
        assert reading.learning_layers or name == "an_empty_batch"
        for layer in reading.learning_layers:
            assert layer.output.non_finite == layer.gradient.non_finite == 0
            assert layer.gradient.norm > 0
            assert all(parameter.update_norm is not None for parameter in layer.parameters.values())


OPTIMISERS = [
    name
    for name, value in vars(torch.optim).items()
    if isinstance(value, type) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer
]


REAL_ALONE = {"Adafactor", "Muon", "SparseAdam"}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        (name, dtype)
        for name in OPTIMISERS
        for dtype in (torch.float32, torch.complex64)
        if not (dtype.is_complex and name in REAL_ALONE)
    ],
    ids=str,
)
def test_every_optimiser_of_torch_makes_the_steps_that_it_makes_without_a_monitor(name, dtype):
    def train(watched):
        torch.manual_seed(0)
        sparse, bias = name == "SparseAdam", name != "Muon"  # which takes matrices alone
        model = nn.Embedding(5, 4, sparse=True, dtype=dtype) if sparse else nn.Linear(4, 4, bias=bias, dtype=dtype)
        optimizer = getattr(torch.optim, name)(model.parameters(), lr=1e-3)
        x = torch.tensor([0, 3]) if sparse else data(0, 3, 4, dtype=dtype)

        def closure():
            optimizer.zero_grad()
            loss = model(x).abs().square().sum()
            loss.backward()
            return loss

        with (
            GradientMonitor(model, optimizer, every=1, updates=True) if watched else contextlib.nullcontext() as monitor
        ):
            for _ in range(3):
                optimizer.step(closure)
        return list(model.parameters()), monitor

    expected, _ = train(watched=False)
    parameters, monitor = train(watched=True)
    for parameter, other in zip(parameters, expected, strict=True):
        assert torch.equal(parameter, other)
    assert [reading.step for reading in monitor.history] == [0, 1, 2]
    assert all(reading.layers[0].update_ratio > 0 for reading in monitor.history)
