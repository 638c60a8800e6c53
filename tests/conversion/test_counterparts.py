"""Without a mapping each of torch's activations becomes torchact's, subclasses included, or stays for a reason."""

import abc
import copy
import pickle

import pytest
import torch
from conversion_models import ClippedReLU, CountingSigmoid, NamedReLU, SlottedReLU, assert_same_results, reasons
from torch import nn

import torchact
from torchact import catalogue, modules
from torchact.conversion import Conversion, Replaced, convert, counterparts

COUNTERPARTS = {
    record.torch_module: modules.MODULES[record.key]
    for record in catalogue.CATALOGUE.values()
    if record.torch_module is not None
}

ACTIVATIONS = [
    nn.Sigmoid(),
    nn.Tanh(),
    nn.ReLU(),
    nn.ReLU(inplace=True),
    nn.LeakyReLU(),
    nn.LeakyReLU(0.3),
    nn.LeakyReLU(0.3, inplace=True),
    nn.Softmax(dim=0),
    nn.Softmax(dim=-1),
    nn.Identity(),
]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_outputs_and_gradients_stay_equal(activation, dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 7), copy.deepcopy(activation), nn.Linear(7, 5)).to(dtype)
    original = copy.deepcopy(model)
    convert(model)
    assert type(model[1]) is COUNTERPARTS[type(activation)]
    assert_same_results(model, original, torch.randn(4, 6, dtype=dtype))


@pytest.mark.parametrize(("before", "after"), COUNTERPARTS.items(), ids=lambda it: it.__name__)
def test_every_counterpart_of_the_catalogue_is_an_instance_of_both_classes(before, after):
    model = before()
    report = convert(model)
    assert type(model) is after
    assert isinstance(model, before)
    assert report.replaced == (Replaced(("",), f"torch.nn.{before.__name__}", f"torchact.{after.__name__}"),)
    assert report.left == ()


def test_subclass_remains_itself():
    module = NamedReLU("mine", inplace=True)
    report = convert(module)
    assert isinstance(module, NamedReLU)
    assert isinstance(module, torchact.ReLU)
    assert type(module).forward is torchact.ReLU.forward
    assert type(module).__qualname__ == "NamedReLU"
    assert (repr(module), module.inplace) == ("NamedReLU(mine)", True)
    assert report.replaced[0].before == "conversion_models.NamedReLU"
    assert report.replaced[0].after == "conversion_models.NamedReLU, torchact.ReLU"


def test_two_instances_of_a_subclass_remain_of_one_class():
    model = nn.Sequential(NamedReLU("a"), NamedReLU("b"))
    assert len(convert(model).replaced) == 2
    assert type(model[0]) is type(model[1])


def test_subclass_that_calls_super_reaches_the_counterpart(monkeypatch):
    module = CountingSigmoid()
    convert(module)
    reached = []
    monkeypatch.setattr(torchact.Sigmoid, "forward", lambda self, input: reached.append(input))
    module(torch.ones(1))
    assert (module.calls, len(reached)) == (1, 1)


def test_subclass_with_slots():
    module = SlottedReLU()
    module.label = "mine"
    convert(module)
    assert isinstance(module, torchact.ReLU)
    assert module.label == "mine"


def test_subclass_of_torchacts_class_needs_nothing():
    class Mine(torchact.ReLU):
        def forward(self, input):
            return input

    assert convert(Mine()) == Conversion((), ())


def test_unpickling_needs_no_earlier_conversion():
    model = NamedReLU("mine")
    convert(model)
    pickled = pickle.dumps(model)
    counterparts.combined.cache_clear()  # as in another process
    twin = pickle.loads(pickled)
    assert isinstance(twin, NamedReLU)
    assert isinstance(twin, torchact.ReLU)
    assert twin.label == "mine"


def test_modules_with_a_forward_of_their_own_are_left_alone():
    patched = nn.ReLU()
    patched.forward = torch.relu
    model = nn.Sequential(ClippedReLU(), patched)
    classes = [type(module) for module in model]
    report = convert(model)
    assert [type(module) for module in model] == classes
    assert report.replaced == ()
    assert reasons(report) == {
        (("0",), "conversion_models.ClippedReLU"): "its class overrides forward",
        (("1",), "torch.nn.ReLU"): "the instance carries a forward of its own",
        (("1",), "forward = relu"): "a function held by an attribute; only modules are swapped",
    }


def test_quantised_activation_is_left_alone():
    quantised = torch.ao.nn.quantized.Sigmoid(1.0, 0)
    report = convert(quantised)
    assert [it.reason for it in report.left] == ["its class overrides forward"]


@pytest.mark.parametrize("name", torch.nn.modules.activation.__all__)
def test_every_activation_of_torch_is_either_replaced_or_reported(name):
    arguments = {
        "Threshold": (0.1, 20),
        "MultiheadAttention": (4, 2),
        "Softmax": (1,),
        "Softmin": (1,),
        "LogSoftmax": (1,),
    }
    report = convert(getattr(nn, name)(*arguments.get(name, ())))
    assert len(report.replaced) + len(report.left) == 1


class AbstractReLU(nn.ReLU, abc.ABC):
    """A subclass whose class is no plain ``type``."""


def test_subclass_with_a_metaclass():
    module = AbstractReLU()
    convert(module)
    assert isinstance(module, torchact.ReLU)
    assert isinstance(type(module), abc.ABCMeta)
    assert type(pickle.loads(pickle.dumps(module))) is type(copy.deepcopy(module)) is type(module)
