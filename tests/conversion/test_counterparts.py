"""Without a mapping each of torch's activations becomes torchact's, subclasses included, or stays for a reason."""

import abc
import copy
import pickle

import pytest
import torch
from conversion_models import ClippedReLU, CountingSigmoid, NamedReLU, SlottedReLU, assert_close_results, reasons
from torch import nn

import torchact
from torchact import catalogue, modules
from torchact.conversion import Conversion, Replaced, convert, counterparts

COUNTERPARTS = {
    record.torch_module: modules.MODULES[record.key]
    for record in catalogue.CATALOGUE.values()
    if record.torch_module is not None
}

#: What torch's constructors need, and what tells them from the defaults.
ARGUMENTS = {
    "CELU": [{}, {"alpha": 0.7}, {"inplace": True}],
    "ELU": [{}, {"alpha": 0.7}, {"inplace": True}],
    "GELU": [{}, {"approximate": "tanh"}],
    "GLU": [{}, {"dim": 1}],
    "Hardshrink": [{}, {"lambd": 0.2}],
    "Hardtanh": [{}, {"min_val": -0.3, "max_val": 0.2, "inplace": True}],
    "LeakyReLU": [{}, {"negative_slope": 0.3}, {"negative_slope": 0.3, "inplace": True}],
    "LogSoftmax": [{"dim": 1}],
    "PReLU": [{}, {"num_parameters": 2, "init": 0.1}],
    "RReLU": [{}, {"lower": 0.2, "upper": 0.5, "inplace": True}],
    "Softmax": [{"dim": 0}, {"dim": -1}],
    "Softmin": [{"dim": -1}],
    "Softplus": [{}, {"beta": 2.0, "threshold": 1.5}],
    "Softshrink": [{}, {"lambd": 0.2}],
    "Threshold": [{"threshold": 0.1, "value": 20.0}],
    **{name: [{}, {"inplace": True}] for name in ("Hardsigmoid", "Hardswish", "Mish", "ReLU", "ReLU6", "SELU", "SiLU")},
}
MODULES = [kind(**arguments) for kind in COUNTERPARTS for arguments in ARGUMENTS.get(kind.__name__, [{}])]


@pytest.mark.parametrize("activation", MODULES, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_outputs_and_gradients_stay_equal(activation, dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Unflatten(0, (2, 2, 2)), copy.deepcopy(activation)).to(dtype)
    original = copy.deepcopy(model)
    report = convert(model)
    assert (len(report.replaced), report.left) == (1, ())
    assert type(model[2]) is COUNTERPARTS[type(activation)]
    # In float64 torch's derivatives of these two have constants of float32.
    unit = torch.float32 if dtype == torch.float64 and isinstance(activation, (nn.CELU, nn.Hardsigmoid)) else dtype
    assert_close_results(model, original, torch.randn(8, 6, dtype=dtype), ulp=4, unit=unit)


@pytest.mark.parametrize(("before", "after"), COUNTERPARTS.items(), ids=lambda it: it.__name__)
def test_every_counterpart_of_the_catalogue_is_an_instance_of_both_classes(before, after):
    model = before(**ARGUMENTS.get(before.__name__, [{}])[0])
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
    patched.forward = lambda x: x.clone()
    model = nn.Sequential(ClippedReLU(), patched)
    classes = [type(module) for module in model]
    report = convert(model)
    assert [type(module) for module in model] == classes
    assert report.replaced == ()
    assert reasons(report) == {
        (("0",), "conversion_models.ClippedReLU"): "its class overrides forward",
        (("1",), "torch.nn.ReLU"): "the instance carries a forward of its own",
    }


def test_quantised_activation_is_left_alone():
    quantised = torch.ao.nn.quantized.Sigmoid(1.0, 0)
    report = convert(quantised)
    assert [it.reason for it in report.left] == ["its class overrides forward"]


@pytest.mark.parametrize("name", torch.nn.modules.activation.__all__)
def test_every_activation_of_torch_is_replaced(name):
    if name == "MultiheadAttention":  # a layer, which has its own line in the report
        return
    report = convert(getattr(nn, name)(**ARGUMENTS.get(name, [{}])[0]))
    assert (len(report.replaced), len(report.left)) == (1, 0)


def test_an_activation_of_a_newer_torch_is_left_alone(monkeypatch):
    monkeypatch.setattr(counterparts, "WITHOUT_COUNTERPART", (nn.Dropout,))
    report = convert(nn.Sequential(nn.Dropout()))
    assert reasons(report) == {(("0",), "torch.nn.Dropout"): "torchact has no counterpart"}


def test_learnt_slopes_stay_the_same_parameter():
    model = nn.Sequential(nn.Linear(3, 3), nn.PReLU(3, init=0.1))
    weight = model[1].weight
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    convert(model)
    assert model[1].weight is weight
    assert list(model.state_dict()) == ["0.weight", "0.bias", "1.weight"]
    model(-torch.ones(2, 3)).sum().backward()
    optimizer.step()
    assert not torch.equal(model[1].weight, torch.full((3,), 0.1))


def test_converted_glu_has_what_torchs_lacks():
    module = nn.GLU(dim=0)
    convert(module)
    assert (module.dim, module.gate) == (0, "second")
    assert repr(module) == repr(torchact.GLU(dim=0))
    halves = torch.randn(2, 3)
    torch.testing.assert_close(module(*halves), halves[0] * torch.sigmoid(halves[1]))


class AbstractReLU(nn.ReLU, abc.ABC):
    """A subclass whose class is no plain ``type``."""


def test_subclass_with_a_metaclass():
    module = AbstractReLU()
    convert(module)
    assert isinstance(module, torchact.ReLU)
    assert isinstance(type(module), abc.ABCMeta)
    assert type(pickle.loads(pickle.dumps(module))) is type(copy.deepcopy(module)) is type(module)
