"""What no module computes is found in the source, in attributes and in fused kernels, and reported where it is."""

import copy
import functools
import warnings
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from conversion_models import Residual, assert_same_results, calls_in, reasons
from torch import nn
from torch.nn.functional import relu as rectify

import torchact
from torchact import catalogue
from torchact.conversion import Conversion, Left, convert
from torchact.definition import undefine


def hidden(x):
    return torch.tanh(x)


class Functional(nn.Module):
    odd = mock.MagicMock()  # has every attribute that one asks for

    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU()
        self.gate = nn.Parameter(torch.zeros(2))
        self.choice = functools.partial(F.leaky_relu, negative_slope=0.2)
        F.relu(torch.zeros(1))  # a constructor is no forward

    def forward(self, x):
        """A docstring that
        is indented less than its function."""
        x = F.relu(self.first(x))
        x = self.relu(x) + x.relu() * self.gate.sigmoid()
        x = torch.nn.functional.softmax(
            x,
            dim=1,
        )
        return hidden(rectify(x)).sigmoid_() + F.gelu(x)

    def first(self, tanh):
        return tanh(torch.special.expit(1)) if callable(tanh) else tanh.clone()

    @staticmethod
    def second(x):
        activation = torch.relu
        return F.scaled_dot_product_attention(activation(x), x, x)


def test_functional_calls_are_reported_as_written():
    report = convert(Functional())
    assert sorted(calls_in(report)) == sorted(
        [
            "F.relu(self.first(x))",
            "x.relu()",
            "self.gate.sigmoid()",
            "torch.nn.functional.softmax(x, dim=1)",
            "rectify(x)",
            "hidden(rectify(x)).sigmoid_()",
            "F.gelu(x)",
            "torch.special.expit(1)",
            "torch.relu",
            "F.scaled_dot_product_attention(activation(x), x, x)",
            "torch.tanh(x)",
        ]
    )
    assert [it.paths for it in report.replaced] == [("",), ("relu",)]


def test_functional_call_is_located():
    lines = Path(__file__).read_text().splitlines()
    line = next(number for number, text in enumerate(lines, 1) if "x = F.relu(self.first(x))" in text)
    assert f"test_functional_calls.py:{line} F.relu(self.first(x))" in [it.what for it in convert(Functional()).left]


def test_call_is_reported_once_for_all_modules_of_its_class():
    class Block(nn.Module):
        def forward(self, x):
            return torch.relu(x)

    shared = Block()
    report = convert(nn.ModuleDict({"a": Block(), "b": shared, "c": shared}))
    assert [it.paths for it in report.left] == [("a", "b", "c")]


def test_overridden_forward_counts_only_where_it_is_called():
    class Base(nn.Module):
        def forward(self, x):
            return torch.relu(x)

    class Forgets(Base):
        def forward(self, x):
            return x

    class Remembers(Base):
        @torch.no_grad()
        def forward(self, x):
            return super().forward(x) + x.tanh()

    assert calls_in(convert(Forgets())) == []
    assert calls_in(convert(Remembers())) == ["x.tanh()", "torch.relu(x)"]


def test_names_that_only_look_like_activations_are_not_reported():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.tanh = nn.Tanh()
            self.inner = nn.ModuleDict({"sigmoid": nn.Sigmoid()})

        def forward(self, x, relu=None):
            import math

            if relu is not None:
                x = relu(x)
            return self.tanh(x) + self.inner.sigmoid(x) + catalogue.math.tanh(0.5) + math.pi

    assert calls_in(convert(Net())) == []


def test_functions_of_other_packages_are_not_followed():
    def foreign(x):
        return torch.tanh(x)

    def own(x):
        return torch.sigmoid(x)

    foreign.__module__ = "elsewhere.functions"

    class Net(nn.Module):
        def forward(self, x):
            return own(foreign(x))

    assert calls_in(convert(Net())) == ["torch.sigmoid(x)"]


ACT2FN = {"relu": F.relu, "silu": (nn.SiLU, {}), "count": 3}
LAYERS = {"linear": nn.Linear, "count": 3}
OUTSIDE = nn.GELU()


class LooksUp(nn.Module):
    def __init__(self):
        super().__init__()
        self.inside = OUTSIDE_TOO

    def forward(self, x, name="relu"):
        assert LAYERS["count"] == ACT2FN["count"]
        return ACT2FN[name](OUTSIDE(x)) + OUTSIDE_TOO(x)


OUTSIDE_TOO = nn.Tanh()


def test_tables_of_activations_and_modules_outside_the_model_are_reported():
    report = convert(LooksUp())
    assert [(it.what.partition(" ")[2], it.reason) for it in report.left] == [
        ("ACT2FN['count']", "which activation the table gives is known only when the code runs"),
        ("ACT2FN[name](OUTSIDE(x))", "which activation the table gives is known only when the code runs"),
        ("OUTSIDE(x)", "a module that is no part of the model"),
    ]
    assert [it.paths for it in report.replaced] == [("inside",)]
    assert len(convert(LooksUp(), {nn.SiLU: nn.Tanh}).left) == 2
    assert len(convert(LooksUp(), {nn.GELU: nn.Tanh}).left) == 3


def test_modules_outside_the_model_that_are_torchacts_are_reported_where_a_mapping_names_them(monkeypatch):
    monkeypatch.setitem(globals(), "OUTSIDE", torchact.GELU())
    assert "OUTSIDE(x)" not in [it.what.partition(" ")[2] for it in convert(LooksUp()).left]
    assert "OUTSIDE(x)" in [it.what.partition(" ")[2] for it in convert(LooksUp(), {"gelu": "relu"}).left]


@pytest.mark.parametrize(
    "table", [[nn.ReLU], [F.relu], (nn.ReLU(),), [(F.relu, {})], [torch.nn.functional.linear, F.tanh]]
)
def test_what_a_table_may_hold(table, monkeypatch):
    monkeypatch.setitem(globals(), "ACT2FN", dict(enumerate(table), count=3))
    assert any("ACT2FN[name]" in it.what for it in convert(LooksUp()).left)


def test_torchacts_own_functions_are_reported_where_a_mapping_names_them():
    class Net(nn.Module):
        def forward(self, x):
            return torchact.functional.relu(x)

    assert convert(Net()) == Conversion((), ())
    assert calls_in(convert(Net(), {"relu": "tanh"})) == ["torchact.functional.relu(x)"]


def rectify_half(x):
    return F.relu(x) / 2


def test_calls_in_functions_that_an_attribute_holds_are_reported():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.TransformerDecoderLayer(2, 1, 4))
    model[0].activation = functools.partial(rectify_half)
    model[1].activation = eval("lambda x: F.relu(x)", {"F": F, "__name__": "nowhere"})
    model[2].activation = lambda x: F.silu(x)
    left = {it.paths: (it.what.partition(" ")[2], it.reason) for it in convert(model).left}
    assert left["0",] == ("F.relu(x)", "functional call; only modules are swapped")
    assert left["1",] == ("= <lambda>", "its source is not available: functional calls were not seen")
    assert left["2",] == ("F.silu(x)", "functional call; only modules are swapped")


def test_closures_are_resolved():
    def build():
        activation = F.relu

        class Net(nn.Module):
            def forward(self, x):
                return activation(x)

        return Net()

    assert calls_in(convert(build())) == ["activation(x)"]


def test_traced_graph():
    report = convert(torch.fx.symbolic_trace(nn.Sequential(Residual(), nn.Tanh())))
    assert {it.after for it in report.replaced} == {"torchact.ReLU", "torchact.Identity", "torchact.Tanh"}

    class Net(nn.Module):
        def forward(self, x):
            return torch.relu(x)

    (call,) = calls_in(convert(torch.fx.symbolic_trace(Net())))
    assert call.endswith("torch.relu(x)")


def test_source_that_is_not_available_is_reported():
    scope = {"nn": nn, "__name__": "nowhere"}
    exec("class Net(nn.Module):\n    def forward(self, x):\n        return x.relu()", scope)
    report = convert(nn.Sequential(scope["Net"](), nn.ReLU()))
    assert reasons(report) == {(("0",), "nowhere.Net"): "its source is not available: functional calls were not seen"}
    assert len(report.replaced) == 1


class HasClassAttributes(nn.Module):
    static = staticmethod(F.relu)
    partial = staticmethod(functools.partial(F.leaky_relu, negative_slope=0.2))
    builtin = torch.tanh
    module = nn.GELU()
    own = torchact.GELU()
    table = {"silu": F.silu}  # noqa: RUF012
    later = None
    hidden = nn.Sigmoid()

    def __init__(self):
        super().__init__()
        self.hidden = nn.ELU()

    @property
    def scale(self):
        return torch.ones(1)

    @staticmethod
    def helper(x):
        return x.clone()

    def forward(self, x, name="silu"):
        x = self.static(self.partial(self.builtin(x)))
        x = self.helper(self.module(self.own(self.hidden(x))))
        return self.table[name](x) + self.scale.sigmoid() + self.later.relu()


def test_functions_and_modules_that_are_attributes_of_a_class_are_reported():
    report = convert(HasClassAttributes())
    assert [it.after for it in report.replaced] == ["torchact.ELU"]
    found = {it.what.partition(" ")[2].partition("(")[0]: it.reason.partition(";")[0] for it in report.left}
    assert found == {
        "self.static": "functional call",
        "self.partial": "functional call",
        "self.builtin": "functional call",
        "self.module": "a module that is no part of the model",
        "self.table[name]": "which activation the table gives is known only when the code runs",
        "self.scale.sigmoid": "functional call",
        "self.later.relu": "functional call",
    }
    assert len(report.left) == len(found)
    assert any("self.static" in it.what for it in convert(HasClassAttributes(), {"relu": "tanh"}).left)
    assert not any("self.static" in it.what for it in convert(HasClassAttributes(), {"tanh": "relu"}).left)


@pytest.fixture
def zeta():
    torchact.define("zeta", value=lambda x: x * torch.sigmoid(x) / 2)
    yield torchact.functional.zeta
    undefine("zeta")


class CallsZeta(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torchact.functional.zeta

    def forward(self, x, name="z"):
        return torchact.functional.zeta(self.a(x))


def test_functions_of_users_own_activations_are_reported_where_a_mapping_names_them(zeta):
    model = CallsZeta()
    assert convert(model) == Conversion((), ())
    assert convert(model, {"relu": "tanh"}) == Conversion((), ())
    report = convert(model, {"zeta": "relu"})
    assert calls_in(report) == ["torchact.functional.zeta(self.a(x))"]
    assert "a = zeta" in [it.what for it in report.left]
    assert model.a is zeta


def test_classes_of_users_own_activations_are_seen_in_tables(zeta, monkeypatch):
    monkeypatch.setitem(globals(), "ACT2FN", {"zeta": torchact.Zeta, "count": 3})
    assert any("ACT2FN[name]" in it.what for it in convert(LooksUp()).left)


def test_torchscript_is_reported_once():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.script(nn.Sequential(nn.ReLU(), nn.Sigmoid()))
    report = convert(nn.Sequential(scripted, nn.ReLU()))
    assert [(it.paths, it.reason) for it in report.left] == [(("0", "0.0", "0.1"), "TorchScript cannot be changed")]
    assert [it.paths for it in report.replaced] == [("1",)]


@pytest.mark.parametrize(
    ("module", "computed"),
    [
        (nn.LSTM(2, 2), ["Sigmoid", "Tanh"]),
        (nn.GRUCell(2, 2), ["Sigmoid", "Tanh"]),
        (nn.RNN(2, 2), ["Tanh"]),
        (nn.RNNCell(2, 2, nonlinearity="relu"), ["ReLU"]),
        (nn.MultiheadAttention(4, 2), ["Softmax"]),
    ],
    ids=lambda it: type(it).__name__,
)
def test_fused_activations_are_reported(module, computed):
    name = f"torch.nn.{type(module).__name__}"
    left = tuple(Left(("",), name, f"computes {kind} in a fused kernel") for kind in computed)
    assert convert(module) == Conversion((), left)


def test_transformer_layer_with_a_module_keeps_its_results_and_its_fused_kernel_is_reported():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, activation=nn.ReLU(), batch_first=True)
    original, input = copy.deepcopy(layer), torch.randn(2, 3, 4)
    report = convert(layer)
    assert isinstance(layer.activation, torchact.ReLU)
    assert "computes ReLU in a fused kernel in eval mode" in reasons(report).values()
    assert_same_results(layer, original, input)
    with torch.no_grad():
        assert torch.equal(layer.eval()(input), original.eval()(input))
    assert "computes ReLU in a fused kernel in eval mode" in reasons(convert(layer, {nn.ReLU: nn.Tanh})).values()


class CallsItsBlocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.ModuleDict({"linear": nn.Linear(2, 2)}) for _ in range(2)])
        for block in self.blocks:
            block.relu = nn.ReLU()

    def forward(self, x):
        for block in self.blocks:
            x = block.relu(block.linear(x))
        return x.sigmoid()


def test_a_childs_submodule_of_a_methods_name_is_no_functional_call():
    report = convert(CallsItsBlocks())
    assert len(report.replaced) == 2
    (left,) = report.left
    assert "x.sigmoid()" in left.what
