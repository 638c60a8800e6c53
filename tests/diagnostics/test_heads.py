"""Models with several last layers: which layers lead to which of them, and what their gradients are compared with."""

import gc
import weakref

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from torchact import GradientMonitor
from torchact.diagnostics import depth
from torchact.diagnostics.heads import HeadFinder


class TwoHeads(nn.Module):
    """A body with a skip, two heads, and a third one that no loss reads."""

    def __init__(self, body=None):
        super().__init__()
        self.body = body or nn.Sequential(nn.Linear(8, 16), nn.ReLU(inplace=True), nn.Linear(16, 16), nn.ReLU())
        self.first = nn.Sequential(nn.Linear(16, 4), nn.Sigmoid())
        self.unread = nn.Linear(16, 3)
        self.second = nn.Linear(16, 1)

    def forward(self, x):
        h = self.body(x)
        h = h + 0.5 * h
        self.unread(h)
        return self.first(h), self.second(h)


def loss(outputs, weight=1.0):
    return outputs[0].square().sum() + weight * outputs[1].square().sum()


def reading_of(model, forward=None, inputs=None):
    inputs = torch.randn(5, 8) if inputs is None else inputs
    with GradientMonitor(model, every=1) as monitor:
        outputs = (forward or model)(inputs)
        (loss(outputs) if isinstance(outputs, tuple) else outputs.square().sum()).backward()
        monitor.record()
    return monitor.history[-1]


def heads_in(reading):
    return {layer.name: layer.heads for layer in reading.layers if layer.has_parameters}


def test_with_one_head_there_is_nothing_to_tell():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.Sigmoid())
    assert heads_in(reading_of(model)) == {"0": (), "2": ()}


def test_layers_know_the_heads_that_they_lead_to():
    every = ("first.0", "second", "unread")
    expected = {"body.0": every, "body.2": every, "first.0": ("first.0",), "second": ("second",)}
    assert heads_in(reading_of(TwoHeads())) == expected


def test_two_networks_have_a_head_each():
    model = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.PReLU(), nn.Linear(8, 2)) for _ in range(2))
    reading = reading_of(model, lambda x: (model[0](x), model[1](x)))
    assert heads_in(reading) == {f"{i}.{j}": (f"{i}.2",) for i in range(2) for j in range(3)}


def test_a_layer_that_is_called_again_is_a_head_by_its_last_call_alone():
    shared, other = nn.Linear(8, 8), nn.Linear(8, 2)
    model = nn.ModuleList([shared, other])
    reading = reading_of(model, lambda x: (other(shared(shared(x))), shared(x)))
    assert heads_in(reading) == {"0": ("0", "1"), "1": ("1",)}


def test_a_module_that_returns_what_one_within_returned_is_the_same_head():
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(8, 2)
            self.scale = nn.Parameter(torch.ones(8))

        def forward(self, x):
            return self.inner(self.scale * x)

    model = nn.ModuleList([nn.Linear(8, 8), Wrapper(), nn.Linear(8, 1)])
    heads = heads_in(reading_of(model, lambda x: (model[1](model[0](x)), model[2](model[0](x)))))
    assert heads == {"0": ("1", "1.inner", "2"), "1": ("1", "1.inner"), "1.inner": ("1", "1.inner"), "2": ("2",)}


@pytest.mark.parametrize("recurrent", [nn.RNN, nn.LSTM, nn.GRU])
def test_outputs_that_nothing_reads_make_no_head_of_a_layer_that_others_read(recurrent):
    model = nn.ModuleList([recurrent(8, 6, 2), nn.Linear(6, 2), nn.Linear(6, 1)])
    states = torch.randn(3, 5, 8)
    assert heads_in(reading_of(model[:2], lambda x: model[1](model[0](x)[0]), states)) == {"0": (), "1": ()}
    reading = reading_of(model, lambda x: tuple(head(h) for h in [model[0](x)[0]] for head in model[1:]), states)
    assert heads_in(reading) == {"0": ("1", "2"), "1": ("1",), "2": ("2",)}


@pytest.mark.parametrize("reentrant", [True, False])
def test_what_a_checkpoint_recomputes_within_the_backward_pass_tells_nothing(reentrant):
    model = TwoHeads()

    def forward(x):
        h = checkpoint(model.body, x, use_reentrant=reentrant)
        return model.first(h), model.second(h)

    heads = heads_in(reading_of(model, forward, torch.randn(5, 8, requires_grad=True)))
    assert heads["body.0"] == (() if reentrant else ("first.0", "second"))


def test_gradients_are_compared_with_those_of_the_heads_together():
    reading = reading_of(TwoHeads())
    norms = {layer.name: layer.gradient.norm for layer in reading.layers}
    both = (norms["first.0"] ** 2 + norms["second"] ** 2) ** 0.5
    ratios = depth.ratios_to_last(reading)
    assert ratios["first.0"] == ratios["second"] == 1
    assert ratios["body.2"] == pytest.approx(norms["body.2"] / both, rel=1e-14)
    assert depth.first_over_last(reading) == pytest.approx(norms["body.0"] / both, rel=1e-14)


@pytest.mark.parametrize("names", [("first", "second"), ("second", "first")])
def test_vanishing_is_seen_although_the_head_that_is_called_last_weighs_little(names):
    torch.manual_seed(0)
    body = nn.Sequential(*(layer for _ in range(8) for layer in (nn.Linear(16, 16), nn.Sigmoid())))
    model = TwoHeads(body)
    model.forward = lambda x: {name: getattr(model, name)(h) for h in [body(x)] for name in names}
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with GradientMonitor(model, optimizer, every=1) as monitor:
        for _ in range(10):
            optimizer.zero_grad()
            outputs = model(torch.randn(32, 16))
            loss((outputs["first"], outputs["second"]), weight=1e-6).backward()
            optimizer.step()
    (verdict,) = (verdict for verdict in monitor.verdicts() if verdict.rule == "TA101")
    assert verdict.severity == "error"
    assert verdict.layers[0] == "body.0"


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # Dynamo looks at it
def test_where_a_part_is_compiled_nothing_is_told():
    model = nn.ModuleList([nn.Linear(8, 4), nn.Linear(8, 4), nn.Linear(8, 2)])
    decoder = torch.compile(model[2], backend="eager")
    reading = reading_of(model, lambda x: decoder(torch.cat((model[0](x), model[1](x)), dim=1)))
    assert heads_in(reading) == {"0": (), "1": (), "2": ()}


class Node:
    """A node of a graph that counts how often it is looked at."""

    def __init__(self, *behind):
        self.behind, self.metadata, self.looks = behind, {}, 0

    @property
    def next_functions(self):
        self.looks += 1
        return [(node, 0) for node in self.behind]


def test_each_node_is_looked_at_once_however_long_the_chain():
    finder, nodes, last = HeadFinder(), [], Node()
    for number in range(100):
        layer = Node(last)
        finder.note((f"layer {number}", 1), layer)
        last = Node(last, layer)  # a residual connection
        nodes += [layer, last]
    heads = [Node(last), Node(last)]
    for name, head in zip("ab", heads, strict=True):
        finder.note((name, 1), head)
    found = finder.close()
    assert found["layer 0"] == found["layer 99"] == ("a", "b")
    assert (found["a"], found["b"]) == (("a",), ("b",))
    assert all(node.looks == 1 for node in nodes + heads)


def test_too_large_a_graph_is_given_up(monkeypatch):
    monkeypatch.setattr("torchact.diagnostics.heads._MOST", 10)
    finder, last = HeadFinder(), Node()
    while finder.is_open:
        last = Node(last)
        finder.note(("layer", len(finder._calls)), last)
    assert finder.close() == {}


def test_nothing_of_the_graph_is_kept_alive():
    kept = []

    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.own = torch.ones(3)
            kept.append(weakref.ref(ctx.own))
            return 2 * x

        @staticmethod
        def backward(ctx, gradient):
            return 2 * gradient

    layers = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
    with GradientMonitor(layers, every=1):
        for _ in range(2):
            layers[1](Doubled.apply(layers[0](torch.randn(4, 8))))
        gc.collect()
        assert [of_a_call() for of_a_call in kept] == [None, None]
