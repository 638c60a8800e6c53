"""Where an attribute holds a function of torch, torchact's function of the same signature takes its place."""

import copy
import functools
import inspect
import pickle

import pytest
import torch
import torch.nn.functional as F
from conversion_models import assert_close_results, assert_same_results, reasons
from torch import nn

import torchact
from torchact import catalogue, functional
from torchact.conversion import Conversion, Left, Replaced, convert, functions

OF_TORCH = [record for record in catalogue.CATALOGUE.values() if record.torch_function is not None]


class Holds(nn.Module):
    def __init__(self, activation):
        super().__init__()
        self.activation = activation

    def forward(self, x):
        return self.activation(x)


@pytest.mark.parametrize("record", OF_TORCH, ids=lambda record: record.key)
def test_every_function_of_torch_has_torchacts_in_its_place(record):
    model = Holds(getattr(F, record.key))
    report = convert(model)
    assert model.activation is getattr(functional, record.key)
    assert [(it.paths, it.after) for it in report.replaced] == [(("",), f"torchact.functional.{record.key}")]
    assert report.left == ()


@pytest.mark.parametrize("record", OF_TORCH, ids=lambda record: record.key)
def test_signatures_are_equal_where_torchs_can_be_read(record):
    theirs = getattr(F, record.key)
    if not inspect.isfunction(theirs):
        return
    ours = inspect.signature(getattr(functional, record.key)).parameters
    for place, (name, parameter) in enumerate(inspect.signature(theirs).parameters.items()):
        assert list(ours)[place] == name
        assert (ours[name].default, ours[name].kind) == (parameter.default, parameter.kind)


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        (torch.relu, functional.relu),
        (torch.sigmoid, functional.sigmoid),
        (torch.special.expit, functional.sigmoid),
        (torch.selu, functional.selu),
        (F.sigmoid, functional.sigmoid),
        (torchact.functional.relu, functional.relu),
    ],
    ids=lambda it: it.__name__,
)
def test_other_names_of_a_function(held, expected):
    model = Holds(held)
    convert(model)
    assert model.activation is expected
    assert convert(model) == Conversion((), ())


@pytest.mark.parametrize(
    "held", [torch.softmax, torch.rrelu, torch.relu_, torch.Tensor.relu, torch.heaviside], ids=lambda it: it.__name__
)
def test_functions_of_another_signature_are_left_alone(held):
    model = Holds(held)
    report = convert(model)
    assert model.activation is held
    reason = "a function held by an attribute; torchact has none of its signature"
    assert report == Conversion((), (Left(("",), f"activation = {held.__name__}", reason),))


def test_partial_functions():
    model = Holds(functools.partial(F.leaky_relu, negative_slope=0.2))
    original = copy.deepcopy(model)
    report = convert(model)
    assert report.replaced == (Replaced(("",), "activation = leaky_relu", "torchact.functional.leaky_relu"),)
    assert model.activation.func is functional.leaky_relu
    assert_same_results(model, original, torch.randn(4))


def test_functions_in_tables_are_left_alone():
    model = Holds(None)
    model.choices = {"relu": F.relu, "other": [F.tanh]}
    model.pair = (torchact.functional.relu, torch.sigmoid)
    report = convert(model)
    assert report.replaced == ()
    assert {what: reason for (_, what), reason in reasons(report).items()} == {
        "choices[...] = relu": "a function in a table that an attribute holds",
        "pair[...] = sigmoid": "a function in a table that an attribute holds",
    }
    assert [it.what for it in convert(model, {"relu": "tanh"}).left] == ["choices[...] = relu", "pair[...] = relu"]


def test_modules_in_tables_are_left_alone():
    model = Holds(nn.Tanh())
    model.choices = {"relu": nn.ReLU(), "linear": nn.Linear(2, 2), "inside": model.activation}
    model.blocks = [nn.Sequential(nn.Linear(2, 2), nn.GELU(), nn.GELU())]
    model.pair = (torchact.Sigmoid(), 3)
    report = convert(model)
    assert [it.paths for it in report.replaced] == [("activation",)]
    reason = "a module that is no part of the model"
    assert report.left == (
        Left(("",), "choices[...] = torch.nn.ReLU", reason),
        Left(("",), "blocks[...] = torch.nn.GELU", reason),
    )
    assert type(model.choices["relu"]) is nn.ReLU
    assert [it.what for it in convert(model, {"sigmoid": "tanh"}).left] == ["pair[...] = torchact.Sigmoid"]


def test_a_mapping_swaps_no_functions():
    model = Holds(F.relu)
    report = convert(model, {"relu": "tanh"})
    assert model.activation is F.relu
    assert [it.reason for it in report.left] == ["a function held by an attribute; only modules are swapped"]
    convert(model)
    assert len(convert(model, {"relu": "tanh"}).left) == 1
    assert convert(model, {"tanh": "relu"}) == Conversion((), ())


@pytest.mark.parametrize("kind", [nn.ReLU, torchact.ReLU, nn.Linear])
def test_an_instances_own_forward_is_replaced_too(kind):
    module = kind(1, 1) if kind is nn.Linear else kind()
    module.forward = torch.relu
    report = convert(module)
    assert [it.after for it in report.replaced] == ["torchact.functional.relu"]
    reasons = ["the instance carries a forward of its own"] if kind is nn.ReLU else []
    assert [it.reason for it in report.left] == reasons


@pytest.mark.parametrize(
    "activation", ["relu", F.gelu, torch.relu, torch.tanh], ids=lambda it: getattr(it, "__name__", it)
)
@pytest.mark.parametrize("kind", [nn.TransformerEncoderLayer, nn.TransformerDecoderLayer])
def test_transformer_layers(kind, activation):
    torch.manual_seed(0)
    model = kind(8, 2, 16, dropout=0.1, activation=activation, batch_first=True)
    original, input = copy.deepcopy(model), torch.randn(2, 3, 8)
    name = getattr(activation, "__name__", activation)
    report = convert(model)
    assert report.replaced == (Replaced(("",), f"activation = {name}", f"torchact.functional.{name}"),)
    assert model.activation is getattr(functional, name)
    for each in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert each.activation is model.activation
        assert_close_results(Reads(each), Reads(original.train()), input, ulp=16)
        with torch.inference_mode():
            torch.testing.assert_close(Reads(each).eval()(input), Reads(original).eval()(input))
    assert convert(model).replaced == ()


class Reads(nn.Module):
    """A layer or model that takes one input or twice the same, read off by a linear layer: the norm of what layer norm
    gives would have no gradient."""

    def __init__(self, layer):
        super().__init__()
        torch.manual_seed(1)
        self.layer, self.linear = layer, nn.Linear(8, 3)

    def forward(self, x):
        inputs = (x,) if isinstance(self.layer, nn.TransformerEncoderLayer) else (x, x)
        return self.linear(self.layer(*inputs))


@pytest.mark.parametrize(("activation", "kind"), [("relu", "ReLU"), ("gelu", "GELU")])
def test_an_encoder_layer_keeps_its_fused_kernel_and_says_so(activation, kind):
    layer = nn.TransformerEncoderLayer(4, 2, 8, activation=activation, batch_first=True).eval()
    report = convert(layer)
    assert reasons(report) == {
        (("",), "torch.nn.TransformerEncoderLayer"): f"computes {kind} in a fused kernel in eval mode",
        (("self_attn",), "torch.nn.MultiheadAttention"): "computes Softmax in a fused kernel",
    }
    called = []
    layer.activation = called.append
    with torch.inference_mode():
        layer(torch.randn(1, 2, 4))
    assert called == []


def test_an_encoder_layer_without_a_fused_kernel():
    layer = nn.TransformerEncoderLayer(4, 2, 8, activation=lambda x: x.clamp(0, 6))
    held = layer.activation
    assert [it.what for it in convert(layer).left] == ["torch.nn.MultiheadAttention"]
    assert layer.activation is held


def test_a_whole_transformer_learns_the_same():
    torch.manual_seed(0)
    model = nn.Transformer(8, 2, 1, 1, 16, dropout=0.1, activation="gelu", batch_first=True)
    original = copy.deepcopy(model)
    report = convert(model)
    assert [it.paths for it in report.replaced] == [("encoder.layers.0",), ("decoder.layers.0",)]
    assert_close_results(Reads(model), Reads(original), torch.randn(2, 3, 8), ulp=16)


def test_every_function_has_one_kind():
    for record in OF_TORCH:
        assert functions.kind_of(getattr(F, record.key)) is functions.kind_of(getattr(functional, record.key))
