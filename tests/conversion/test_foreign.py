"""The activations of transformers and of timm become torchact's and remain what they were."""

import copy
import pickle
import sys

import pytest
import torch
import torch.nn.functional as F
from conversion_models import assert_close_results, pass_through, reasons
from torch import nn

import torchact
from torchact.conversion import Conversion, Replaced, convert

transformers = pytest.importorskip("transformers.activations", reason="the extra `development` has transformers")

#: By the name in transformers' ``ACT2FN``: what it becomes.
OF_TRANSFORMERS = {
    "gelu": torchact.GELU,
    "gelu_accurate": torchact.GELUTanh,
    "gelu_fast": torchact.GELUTanh,
    "gelu_new": torchact.GELUTanh,
    "gelu_python": torchact.GELU,
    "gelu_python_tanh": torchact.GELUTanh,
    "gelu_pytorch_tanh": torchact.GELUTanh,
    "hardswish": torchact.Hardswish,
    "leaky_relu": torchact.LeakyReLU,
    "linear": torchact.Identity,
    "mish": torchact.Mish,
    "prelu": torchact.PReLU,
    "quick_gelu": torchact.QuickGELU,
    "relu": torchact.ReLU,
    "relu2": torchact.SquaredReLU,
    "relu6": torchact.ReLU6,
    "sigmoid": torchact.Sigmoid,
    "silu": torchact.SiLU,
    "swish": torchact.SiLU,
    "tanh": torchact.Tanh,
    "gelu_10": None,
    "laplace": None,
    "sqrtsoftplus": None,
    "xielu": None,
}


def hard(x, inplace):
    return x.add_(3).clamp_(0, 6).div_(6) if inplace else F.relu6(x + 3) / 6


def by_a_gate(gate):
    return lambda x, inplace: x.mul_(gate(x)) if inplace else x * gate(x)


#: By the name of timm's class: what it computes, whether it keeps the argument ``inplace``, and what it becomes.
OF_TIMM = {
    "GELU": (lambda x, inplace: F.gelu(x), False, torchact.GELU),
    "GELUTanh": (lambda x, inplace: F.gelu(x, approximate="tanh"), False, torchact.GELUTanh),
    "HardMish": (by_a_gate(lambda x: 0.5 * (x + 2).clamp(0, 2)), True, None),
    "HardSigmoid": (hard, True, torchact.Hardsigmoid),
    "HardSwish": (by_a_gate(lambda x: hard(x, False)), True, torchact.Hardswish),
    "Mish": (lambda x, inplace: x * F.softplus(x).tanh(), False, torchact.Mish),
    "QuickGELU": (lambda x, inplace: x * torch.sigmoid(1.702 * x), False, torchact.QuickGELU),
    "Sigmoid": (lambda x, inplace: x.sigmoid_() if inplace else x.sigmoid(), True, torchact.Sigmoid),
    "Swish": (by_a_gate(torch.sigmoid), True, torchact.SiLU),
    "Tanh": (lambda x, inplace: x.tanh_() if inplace else x.tanh(), True, torchact.Tanh),
}
VARIANTS = [
    ("timm.layers.activations", ""),
    ("timm.models.layers.activations", ""),
    ("timm.layers.activations_me", "Me"),
    ("timm.layers.activations_jit", "Jit"),
]
HAS_VARIANTS = ("HardMish", "HardSigmoid", "HardSwish", "Mish", "Swish")


def of_timm(name, inplace=False, place="timm.layers.activations", variant=""):
    """Return an instance of a class that stands where timm's does and computes what it does, since timm needs more."""
    formula, keeps, _ = OF_TIMM[name]
    namespace = {"__module__": place, "forward": lambda self, x: formula(x, getattr(self, "inplace", False))}
    namespace["forward"].__module__ = place
    module = type(name + variant, (nn.Module,), namespace)()
    if keeps and not variant:
        module.inplace = inplace
    return module


def made_by_transformers(name):
    transformers.logger.setLevel("ERROR")  # xIELU warns that it has no CUDA kernel
    return transformers.ACT2FN[name]


def between_linears(activation, dtype):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 64), activation, nn.Linear(64, 2)).to(dtype)


def test_every_activation_of_transformers_is_here():
    assert set(OF_TRANSFORMERS) >= set(transformers.ACT2FN)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("name", "counterpart"), OF_TRANSFORMERS.items())
def test_activations_of_transformers(name, counterpart, dtype):
    if name not in transformers.ACT2FN:
        pytest.skip("this transformers does not have it")
    model = between_linears(made_by_transformers(name), dtype)
    original, before = copy.deepcopy(model), type(model[1])
    report = convert(model)
    if counterpart is None:
        assert type(model[1]) is before
        assert reasons(report) == {
            (("1",), f"transformers.activations.{before.__name__}"): "torchact has no counterpart"
        }
        return
    assert [(it.paths, it.after) for it in report.replaced] == [(("1",), f"torchact.{counterpart.__name__}")]
    assert report.left == ()
    assert isinstance(model[1], counterpart)
    assert isinstance(model[1], before)
    # The fast GELU has ten digits of √(2/π), which is 3.6e-12 off.
    rounded = name == "gelu_fast" and dtype == torch.float64
    assert_close_results(model, original, 3 * torch.randn(32, 4, dtype=dtype), ulp=2**14 if rounded else 16)
    assert convert(model) == Conversion((), ())


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(("place", "variant"), VARIANTS)
@pytest.mark.parametrize("name", OF_TIMM)
def test_activations_of_timm(name, place, variant, inplace):
    if variant and name not in HAS_VARIANTS:
        return
    model = between_linears(of_timm(name, inplace, place, variant), torch.float64)
    original, before, counterpart = copy.deepcopy(model), type(model[1]), OF_TIMM[name][2]
    report = convert(model)
    if counterpart is None or (inplace and name in ("Sigmoid", "Tanh")):
        assert type(model[1]) is before
        reason = "torchact has no counterpart" if counterpart is None else "torchact has none that works in place"
        assert reasons(report) == {(("1",), f"{place}.{name}{variant}"): reason}
        return
    assert report == Conversion((Replaced(("1",), f"{place}.{name}{variant}", f"torchact.{counterpart.__name__}"),), ())
    assert isinstance(model[1], before)
    # In float64 the derivative of torch's hardsigmoid, which torchact has in place, has constants of float32.
    unit = torch.float32 if inplace and name == "HardSigmoid" else torch.float64
    assert_close_results(model, original, 3 * torch.randn(32, 4, dtype=torch.float64), ulp=16, unit=unit)
    assert getattr(model[1], "inplace", False) == (inplace and not variant and OF_TIMM[name][1])


def test_timms_prelu_keeps_its_parameter():
    def forward(self, input):
        return F.prelu(input, self.weight)

    timms = type("PReLU", (nn.PReLU,), {"__module__": "timm.layers.activations", "forward": forward})
    module = timms(3, init=0.1)
    weight = module.weight
    report = convert(module)
    assert [it.after for it in report.replaced] == ["torchact.PReLU"]
    assert module.weight is weight
    assert type(module).forward is torchact.PReLU.forward


def test_in_place_activations_stay_in_place():
    module = of_timm("Swish", inplace=True)
    convert(module)
    x = torch.randn(3)
    assert module(x) is x


def test_the_slope_at_a_kink_is_torchs():
    module = of_timm("HardSigmoid", inplace=True)
    convert(module)
    assert pass_through(module, torch.tensor([-3.0, 3.0]))[1].tolist() == [0, 0]


def test_names_elsewhere_mean_nothing():
    for place in ("timm.layers.evo_norm", "elsewhere.activations", "timmy.activations", "transformers.models.mine"):
        module = type("Swish", (nn.Module,), {"__module__": place, "forward": lambda self, x: x})()
        assert convert(module).replaced == ()


def count(module, args, output):
    module.fired = 1


def test_the_class_remains():
    module = made_by_transformers("gelu")
    module.note, before = "mine", type(module)
    module.register_forward_hook(count)
    model = nn.ModuleList([module, module])
    report = convert(model)
    assert [it.paths for it in report.replaced] == [("0", "1")]
    assert type(model[0]).__qualname__ == "GELUActivation"
    assert (model[0].note, model[0].approximate) == ("mine", "none")
    for twin in (copy.deepcopy(model[0]), pickle.loads(pickle.dumps(model[0])), model[0]):
        assert isinstance(twin, before)
        assert isinstance(twin, torchact.GELU)
        assert type(twin) is type(model[0])
        twin(torch.zeros(1))
        assert twin.fired == 1


class CountingGELU(transformers.GELUActivation):
    calls = 0

    def forward(self, input):
        self.calls += 1
        return super().forward(input)


class NamedGELU(transformers.GELUActivation):
    def extra_repr(self):
        return "mine"


class HalfGELU(transformers.GELUActivation):
    def forward(self, input):
        return self.act(input) / 2


@pytest.mark.parametrize("kind", [CountingGELU, NamedGELU])
def test_subclasses_of_transformers_classes(kind):
    module = kind()
    report = convert(module)
    assert report.replaced[0].after == f"test_foreign.{kind.__name__}, torchact.GELU"
    assert isinstance(module, kind)
    assert isinstance(module, torchact.GELU)
    x = torch.linspace(-6, 2, 9)
    assert torch.equal(module(x), torchact.functional.gelu(x))
    assert getattr(module, "calls", 1) == 1
    assert type(pickle.loads(pickle.dumps(module))) is type(module)
    assert convert(module) == Conversion((), ())


def test_a_subclass_with_another_forward_is_left_alone_and_the_function_that_it_holds_is_replaced():
    module = HalfGELU()
    report = convert(module)
    assert type(module) is HalfGELU
    assert [it.before for it in report.replaced] == ["act = gelu"]
    assert [it.reason for it in report.left] == ["its class overrides forward"]


def test_a_mapping_swaps_them_by_the_kind_that_they_compute():
    for name, key in (("silu", nn.SiLU), ("silu", "silu"), ("gelu_new", "gelu_tanh"), ("gelu", torchact.GELU)):
        for converted in (False, True):
            module = made_by_transformers(name)
            if converted:
                convert(module)
            assert len(convert(module, {key: nn.Tanh}).replaced) == 1
            assert type(module) is nn.Tanh
    named = NamedGELU()
    convert(named, {"gelu": "relu"})
    assert type(named) is torchact.ReLU
    assert [it.reason.partition(";")[0] for it in convert(HalfGELU(), {"gelu": "relu"}).left] == [
        "its class overrides forward",
        "a function held by an attribute",
    ]
    assert convert(made_by_transformers("laplace"), {"gelu": "relu"}) == Conversion((), ())


@pytest.mark.usefixtures("fresh_dynamo")
def test_a_converted_module_compiles():
    model = nn.Sequential(nn.Linear(2, 2), made_by_transformers("gelu"), made_by_transformers("silu"))
    convert(model)
    x = torch.randn(3, 2)
    torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(x), model(x))


def test_neither_package_is_imported(monkeypatch):
    for package in ("timm", "transformers"):
        monkeypatch.setitem(sys.modules, package, None)  # which makes an import of it fail
    assert len(convert(nn.Sequential(of_timm("Swish"), transformers.SiLUActivation())).replaced) == 2
