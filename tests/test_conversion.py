"""Conversion changes the class of the activations in a model, reports the rest, and changes nothing else."""

import copy
import functools
import gc
import io
import pickle
import warnings
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.functional import relu as rectify
from torch.nn.utils import parametrizations, parametrize

import torchact
from torchact import catalogue, conversion, modules
from torchact.conversion import convert

COUNTERPARTS = {
    record.torch_module: modules.MODULES[record.key]
    for record in catalogue.CATALOGUE.values()
    if record.torch_module is not None
}

# models -------------------------------------------------------------------------------------------


class NamedReLU(nn.ReLU):
    """A subclass that leaves forward alone."""

    def __init__(self, label, inplace=False):
        super().__init__(inplace)
        self.label = label

    def extra_repr(self):
        return self.label


class CountingSigmoid(nn.Sigmoid):
    """A subclass that adds to torch's forward."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, input):
        self.calls += 1
        return super().forward(input)


class ClippedReLU(nn.ReLU):
    """A subclass that computes something else."""

    def forward(self, input):
        return input.clamp(0, 1)


class SlottedReLU(nn.ReLU):
    __slots__ = ("label",)


class RegisteredReLU(nn.ReLU):
    registry: list[str] = []  # noqa: RUF012

    def __init_subclass__(cls):
        cls.registry.append(cls.__name__)


class ReducedReLU(nn.ReLU):
    """A subclass that pickles in its own way."""

    def __init__(self, label):
        super().__init__()
        self.label = label

    def __reduce__(self):
        return type(self), (self.label,)


class Residual(nn.Module):
    """One ReLU module, called twice."""

    def __init__(self, channels=3):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Identity()

    def forward(self, x):
        y = self.relu(self.norm(self.conv1(x)))
        return self.relu(self.conv2(y) + self.shortcut(x))


def cnn():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 3, 3),
        nn.LeakyReLU(0.1, inplace=True),
        Residual(),
        nn.Flatten(),
        nn.LazyLinear(5),
        nn.Tanh(),
        nn.Softmax(dim=1),
    )


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


def pass_through(model, input):
    """Return the output and all gradients of one training step's worth of computation."""
    input = input.clone().requires_grad_()
    output = model(input * 1)  # not a leaf, so that the first module may be in place
    model.zero_grad()
    output.square().sum().backward()
    return [output.detach(), input.grad, *(p.grad for p in model.parameters() if p.grad is not None)]


def assert_same_results(model, expected_from, input):
    for actual, expected in zip(pass_through(model, input), pass_through(expected_from, input), strict=True):
        assert torch.equal(actual, expected)


def reasons(report):
    return {(it.paths, it.what): it.reason for it in report.left}


# the counterparts of torch ------------------------------------------------------------------------


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
    assert report.replaced == (conversion.Replaced(("",), f"torch.nn.{before.__name__}", f"torchact.{after.__name__}"),)
    assert report.left == ()


def test_cnn_with_in_place_and_shared_activations():
    torch.manual_seed(0)
    model, input = cnn(), torch.randn(2, 3, 8, 8)
    model(input)  # LazyLinear takes its shape
    original = copy.deepcopy(model)
    report = convert(model)
    assert [(it.paths, it.after) for it in report.replaced] == [
        (("1",), "torchact.ReLU"),
        (("3",), "torchact.LeakyReLU"),
        (("4.relu",), "torchact.ReLU"),
        (("4.shortcut",), "torchact.Identity"),
        (("7",), "torchact.Tanh"),
        (("8",), "torchact.Softmax"),
    ]
    assert report.left == ()
    assert model[1].inplace
    assert model[3].negative_slope == 0.1
    assert_same_results(model, original, input)
    assert_same_results(model.eval(), original.eval(), input)
    assert repr(model) == repr(original)


def test_second_conversion_replaces_nothing():
    model = nn.Sequential(cnn(), NamedReLU("a"), CountingSigmoid(), nn.GELU(), ClippedReLU())
    first = convert(model)
    second = convert(model)
    assert second == conversion.Conversion((), first.left)


def test_objects_attributes_and_mode_survive():
    relu, sigmoid = nn.ReLU(), nn.Sigmoid().eval()
    relu.note = "mine"
    model = nn.ModuleDict({"list": nn.ModuleList([relu, sigmoid]), "again": relu})
    report = convert(model)
    assert model["list"][0] is relu is model["again"]
    assert (relu.note, relu.training, sigmoid.training) == ("mine", True, False)
    assert [it.paths for it in report.replaced] == [("list.0", "again"), ("list.1",)]


def test_state_dict_keys_and_loading():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), NamedReLU("a"))
    model[2].weight = model[0].weight  # tied
    state = copy.deepcopy(model.state_dict())
    convert(model)
    assert list(model.state_dict()) == list(state)
    assert model[2].weight is model[0].weight
    assert model.load_state_dict(state) == nn.Sequential().load_state_dict({})


def test_hooks_fire_as_often_as_before_and_can_be_removed():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    fired = []
    handles = [
        model[1].register_forward_pre_hook(lambda *_: fired.append("forward pre")),
        model[1].register_forward_hook(lambda *_: fired.append("forward")),
        model[1].register_full_backward_hook(lambda *_: fired.append("backward")),
        model[1].register_state_dict_post_hook(lambda *_: fired.append("state dict")),
        model[1].register_load_state_dict_post_hook(lambda *_: fired.append("load state dict")),
    ]

    def use():
        fired.clear()
        model(torch.ones(1, 2)).sum().backward()
        model.load_state_dict(model.state_dict())
        return list(fired)

    before = use()
    assert len(before) == len(handles)
    convert(model)
    assert use() == before
    for handle in handles:
        handle.remove()
    assert use() == []


@pytest.mark.parametrize("copied_by", ["deepcopy", "pickle", "torch.save"])
@pytest.mark.parametrize(
    "make", [nn.ReLU, lambda: NamedReLU("mine", True), CountingSigmoid, lambda: ReducedReLU("mine")]
)
def test_copies_and_pickles(make, copied_by):
    model = nn.Sequential(nn.Linear(2, 2), make())
    model[1].note = 3
    assert len(convert(model).replaced) == 1
    if copied_by == "deepcopy":
        twin = copy.deepcopy(model)
    elif copied_by == "pickle":
        twin = pickle.loads(pickle.dumps(model, protocol=0))
    else:
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    assert type(twin[1]) is type(model[1])
    if not isinstance(model[1], ReducedReLU):  # whose own __reduce__ keeps the label only
        assert vars(twin[1]) == vars(model[1])
    assert getattr(twin[1], "label", None) == getattr(model[1], "label", None)
    assert_same_results(twin, model, torch.randn(3, 2))


def test_unpickling_needs_no_earlier_conversion():
    model = NamedReLU("mine")
    convert(model)
    pickled = pickle.dumps(model)
    del model
    gc.collect()
    twin = pickle.loads(pickled)
    assert isinstance(twin, NamedReLU)
    assert isinstance(twin, torchact.ReLU)
    assert twin.label == "mine"


# subclasses ---------------------------------------------------------------------------------------


def test_subclass_remains_itself():
    module = NamedReLU("mine", inplace=True)
    report = convert(module)
    assert isinstance(module, NamedReLU)
    assert isinstance(module, torchact.ReLU)
    assert type(module).forward is torchact.ReLU.forward
    assert type(module).__qualname__ == "NamedReLU"
    assert (repr(module), module.inplace) == ("NamedReLU(mine)", True)
    assert report.replaced[0].before == f"{__name__}.NamedReLU"
    assert report.replaced[0].after == f"{__name__}.NamedReLU, torchact.ReLU"


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


def test_users_registry_of_subclasses_is_not_written():
    module = RegisteredReLU()
    convert(module)
    assert isinstance(module, torchact.ReLU)
    assert RegisteredReLU.registry == []


def test_subclass_of_torchacts_class_needs_nothing():
    class Mine(torchact.ReLU):
        def forward(self, input):
            return input

    assert convert(Mine()) == conversion.Conversion((), ())


# what cannot be swapped ---------------------------------------------------------------------------


def test_modules_with_a_forward_of_their_own_are_left_alone():
    patched = nn.ReLU()
    patched.forward = torch.relu
    parametrized = nn.ReLU()
    parametrized.scale = nn.Parameter(torch.ones(()))
    parametrize.register_parametrization(parametrized, "scale", nn.Softplus())
    model = nn.Sequential(ClippedReLU(), patched, parametrized)
    classes = [type(module) for module in model]
    report = convert(model)
    assert [type(module) for module in model] == classes
    assert report.replaced == ()
    assert reasons(report) == {
        (("0",), f"{__name__}.ClippedReLU"): "its class overrides forward",
        (("1",), "torch.nn.ReLU"): "the instance carries a forward of its own",
        (("1",), "forward = relu"): "a function held by an attribute; only modules are swapped",
        (("2",), "torch.nn.utils.parametrize.ParametrizedReLU"): "parametrized",
        (("2.parametrizations.scale.0",), "torch.nn.Softplus"): "torchact has no counterpart",
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


def test_torchscript_is_reported_once():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.script(nn.Sequential(nn.ReLU(), nn.Sigmoid()))
    report = convert(nn.Sequential(scripted, nn.ReLU()))
    assert [(it.paths, it.reason) for it in report.left] == [(("0",), "TorchScript cannot be changed")]
    assert [it.paths for it in report.replaced] == [("1",)]


@pytest.mark.parametrize(
    ("module", "computed"),
    [
        (nn.LSTM(2, 2), "Sigmoid and Tanh"),
        (nn.GRUCell(2, 2), "Sigmoid and Tanh"),
        (nn.RNN(2, 2), "Tanh"),
        (nn.RNNCell(2, 2, nonlinearity="relu"), "ReLU"),
        (nn.MultiheadAttention(4, 2), "Softmax"),
    ],
    ids=lambda it: type(it).__name__,
)
def test_fused_activations_are_reported(module, computed):
    report = convert(module)
    name = f"torch.nn.{type(module).__name__}"
    assert report == conversion.Conversion(
        (), (conversion.Left(("",), name, f"computes {computed} in a fused kernel"),)
    )


def test_transformer_layer_with_a_function_is_reported():
    report = convert(nn.TransformerEncoderLayer(4, 2, 8))
    assert reasons(report) == {
        (("",), "activation = relu"): "a function held by an attribute; only modules are swapped",
        (("self_attn",), "torch.nn.MultiheadAttention"): "computes Softmax in a fused kernel",
    }


def test_transformer_layer_with_a_module_keeps_its_results_and_is_not_given_another_kind():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, activation=nn.ReLU(), batch_first=True)
    original, input = copy.deepcopy(layer), torch.randn(2, 3, 4)
    report = convert(layer)
    assert isinstance(layer.activation, torchact.ReLU)
    assert "computes ReLU in a fused kernel in eval mode" in reasons(report).values()
    assert_same_results(layer, original, input)
    with torch.no_grad():
        assert torch.equal(layer.eval()(input), original.eval()(input))
    swapped = convert(layer, {nn.ReLU: nn.Tanh})
    assert swapped.replaced == ()
    assert isinstance(layer.activation, torchact.ReLU)
    assert any(it.paths == ("activation",) for it in swapped.left)


# functional calls ---------------------------------------------------------------------------------


def hidden(x):
    return torch.tanh(x)


class Functional(nn.Module):
    offset = torch.sigmoid
    odd = mock.MagicMock()  # has every attribute that one asks for

    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU()
        self.gate = nn.Parameter(torch.zeros(2))
        self.choices = {"tanh": torch.tanh, "leaky": functools.partial(F.leaky_relu, negative_slope=0.2)}
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


def calls_in(report):
    return [it.what.partition(" ")[2] for it in report.left if it.reason.startswith("functional call")]


def test_functional_calls_are_reported_as_written():
    report = convert(Functional())
    assert sorted(calls_in(report)) == sorted(
        [
            "F.relu(self.first(x))",
            "x.relu()",
            "self.gate.sigmoid()",
            "torch.nn.functional.softmax( x, dim=1, )",
            "rectify(x)",
            "hidden(rectify(x)).sigmoid_()",
            "F.gelu(x)",
            "torch.special.expit(1)",
            "torch.relu",
            "F.scaled_dot_product_attention(activation(x), x, x)",
            "torch.tanh(x)",
        ]
    )
    assert [it.what for it in report.left if it.reason.startswith("a function held")] == [
        "choices = tanh",
        "choices = leaky_relu",
        "offset = sigmoid",
    ]
    assert [it.paths for it in report.replaced] == [("relu",)]


def test_functional_call_is_located():
    with open(__file__) as file:  # noqa: PTH123
        line = next(number for number, text in enumerate(file, 1) if "x = F.relu(self.first(x))" in text)
    assert f"test_conversion.py:{line} F.relu(self.first(x))" in [it.what for it in convert(Functional()).left]


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


def test_held_function_is_reported_once():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.activation = torch.relu

        def forward(self, x):
            return self.activation(x)

    assert [it.what for it in convert(Net()).left] == ["activation = relu"]


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

    assert calls_in(convert(torch.fx.symbolic_trace(Net()))) == ["torch.relu(x)"]


def test_source_that_is_not_available_is_reported():
    scope = {"nn": nn, "__name__": "nowhere"}
    exec("class Net(nn.Module):\n    def forward(self, x):\n        return x.relu()", scope)
    report = convert(nn.Sequential(scope["Net"](), nn.ReLU()))
    assert reasons(report) == {(("0",), "nowhere.Net"): "its source is not available: functional calls were not seen"}
    assert len(report.replaced) == 1


# mapping ------------------------------------------------------------------------------------------


def test_mapping_swaps_the_kinds_it_names_and_nothing_else():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid(), nn.Tanh(), torchact.Sigmoid(), nn.GELU(), nn.Sigmoid())
    model[5] = model[1]
    report = convert(model, {nn.Sigmoid: torchact.ReLU})
    assert [type(module) for module in model] == [
        nn.Linear,
        torchact.ReLU,
        nn.Tanh,
        torchact.ReLU,
        nn.GELU,
        torchact.ReLU,
    ]
    assert report == conversion.Conversion(
        (
            conversion.Replaced(("1", "5"), "torch.nn.Sigmoid", "torchact.ReLU"),
            conversion.Replaced(("3",), "torchact.Sigmoid", "torchact.ReLU"),
        ),
        (),
    )
    input = torch.randn(3, 2)
    expected = nn.Sequential(model[0], nn.ReLU(), nn.Tanh(), nn.ReLU(), nn.GELU(), nn.ReLU())
    assert_same_results(model, expected, input)


def test_mapping_by_name_simultaneously_and_to_softmax():
    model = nn.Sequential(nn.ReLU(), nn.Tanh(), nn.Sigmoid())
    convert(model, {"Rectifier": "tanh", nn.Tanh: "relu", "logistic": "softmax"})
    assert [type(module) for module in model] == [torchact.Tanh, torchact.ReLU, torchact.Softmax]
    assert model[2].dim == -1


def test_mapped_module_keeps_hooks_mode_and_attachments_and_loses_what_was_its_kinds():
    module = nn.LeakyReLU(0.3, inplace=True).eval()
    module.note = "mine"
    fired = []
    handle = module.register_forward_hook(lambda *_: fired.append(1))
    convert(module, {nn.LeakyReLU: nn.ELU})
    assert type(module) is nn.ELU
    assert (module.training, module.note, module.inplace, module.alpha) == (False, "mine", True, 1.0)
    assert "negative_slope" not in vars(module)
    module(torch.zeros(1))
    handle.remove()
    module(torch.zeros(1))
    assert fired == [1]


def test_parameters_are_taken_over_where_they_mean_the_same():
    model = nn.Sequential(nn.Softmax(dim=1), nn.Threshold(0.1, 20.0), nn.LeakyReLU(0.3), nn.ReLU(inplace=True))
    convert(model, {nn.Softmax: nn.LogSoftmax, nn.Threshold: nn.Softplus, nn.LeakyReLU: torchact.LeakyReLU})
    assert model[0].dim == 1
    assert model[1].threshold == nn.Softplus().threshold
    assert model[2].negative_slope == 0.3
    convert(model, {nn.ReLU: lambda: nn.LeakyReLU(0.5)})
    assert (model[3].negative_slope, model[3].inplace) == (0.5, False)


def test_mapped_kind_brings_its_parameters_and_submodules():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU().eval(), nn.Tanh().eval())
    convert(model, {nn.ReLU: nn.PReLU, nn.Tanh: lambda: nn.Sequential(nn.Linear(2, 2), nn.Tanh())})
    assert not model[2][0].training
    assert list(model.state_dict()) == ["0.weight", "0.bias", "1.weight", "2.0.weight", "2.0.bias"]
    assert not model[1].training
    model(torch.ones(1, 2)).sum().backward()
    assert model[1].weight.grad is not None
    convert(model, {nn.PReLU: nn.ReLU})
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.0.weight", "2.0.bias"]


def test_hooks_of_the_new_module_come_along():
    fired = []

    def hooked():
        module = nn.Tanh()
        module.register_forward_hook(lambda *_: fired.append("new"))
        return module

    module = nn.ReLU()
    module.register_forward_hook(lambda *_: fired.append("old"))
    convert(module, {nn.ReLU: hooked})
    module(torch.zeros(1))
    assert fired == ["old", "new"]


def test_most_specific_key_wins():
    model = nn.Sequential(nn.ReLU(), NamedReLU("a"), torchact.ReLU(), nn.ReLU6())
    convert(model, {nn.ReLU: nn.Tanh, NamedReLU: nn.Sigmoid, nn.Hardtanh: nn.SiLU})
    assert [type(module) for module in model] == [nn.Tanh, nn.Sigmoid, nn.Tanh, nn.SiLU]


def test_mapping_reaches_converted_subclasses_and_leads_back_to_torch():
    model = nn.Sequential(NamedReLU("a"), nn.LeakyReLU(0.3), nn.Sigmoid())
    convert(model)
    convert(model, {NamedReLU: nn.Tanh, torchact.LeakyReLU: nn.LeakyReLU, torchact.Sigmoid: nn.Sigmoid})
    assert [type(module) for module in model] == [nn.Tanh, nn.LeakyReLU, nn.Sigmoid]
    assert model[1].negative_slope == 0.3


def test_mapping_to_what_it_is_already_changes_nothing():
    model = nn.Sequential(nn.ReLU(inplace=True))
    assert len(convert(model, {nn.ReLU: torchact.ReLU}).replaced) == 1
    assert convert(model, {nn.ReLU: torchact.ReLU}) == conversion.Conversion((), ())
    assert model[0].inplace


def test_mapping_reports_only_the_kinds_it_names():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(2, 2)
            self.clipped = ClippedReLU()
            self.act = F.relu
            self.gelu = nn.GELU()

        def forward(self, x):
            return torch.sigmoid(torch.tanh(x))

    assert calls_in(convert(Net(), {"sigmoid": "relu"})) == ["torch.sigmoid(torch.tanh(x))"]
    assert {it.what for it in convert(Net(), {nn.GELU: "relu"}).left} == set()
    assert [(it.paths, it.reason.partition(";")[0]) for it in convert(Net(), {"relu": "tanh"}).left] == [
        (("",), "a function held by an attribute"),
        (("clipped",), "its class overrides forward"),
    ]
    assert ("lstm",) in [it.paths for it in convert(Net(), {"tanh": "relu"}).left]


def test_modules_that_contain_others_or_are_of_another_layout_are_not_swapped():
    model = nn.Sequential(SlottedReLU())
    report = convert(model, {nn.Sequential: nn.Identity, nn.ReLU: nn.Tanh})
    assert type(model) is nn.Sequential
    assert type(model[0]) is SlottedReLU
    assert [it.reason.partition(":")[0] for it in report.left] == [
        "it contains other modules",
        "Python does not allow it",
    ]


# bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [None, nn.ReLU, F.relu, [nn.ReLU()]], ids=repr)
def test_model_that_is_no_module(model):
    with pytest.raises(TypeError, match=r"^model: expected a torch.nn.Module, got "):
        convert(model)


@pytest.mark.parametrize(
    ("mapping", "error", "message"),
    [
        ([nn.ReLU], TypeError, "^mapping: expected a mapping from module classes .* of type list$"),
        ({F.relu: nn.Tanh}, TypeError, "^mapping: expected keys .* got <function relu"),
        ({nn.ReLU(): nn.Tanh}, TypeError, r"^mapping: expected keys .* got ReLU\(\)"),
        ({int: nn.Tanh}, TypeError, "^mapping: expected keys .* got <class 'int'>"),
        ({"rleu": nn.Tanh}, ValueError, "^mapping: unknown name 'rleu'; did you mean 'relu'"),
        ({nn.ReLU: "than"}, ValueError, "^mapping: unknown name 'than'; did you mean 'tanh'"),
        ({nn.ReLU: nn.Tanh()}, TypeError, r"^mapping: expected values .* got Tanh\(\) for torch.nn.ReLU"),
        ({nn.ReLU: int}, TypeError, "^mapping: expected values .* got <class 'int'>"),
        ({nn.ReLU: None}, TypeError, "^mapping: expected values .* got None"),
        ({nn.ReLU: torch.tanh}, TypeError, "^mapping: expected values .* got <built-in method tanh"),
        ({nn.ReLU: torchact.functional.tanh}, TypeError, "^mapping: expected values .* got <function tanh"),
        ({nn.ReLU: "tanh", "rectifier": nn.Tanh}, ValueError, "^mapping: two keys name torch.nn.ReLU"),
        ({nn.ReLU: nn.Threshold}, TypeError, "^mapping: torch.nn.Threshold, given for torch.nn.ReLU, cannot be made"),
        ({nn.ReLU: lambda: 3}, TypeError, "^mapping: the function given for torch.nn.ReLU returned 3 of type int"),
        ({nn.ReLU: lambda: 1 / 0}, ZeroDivisionError, "division"),
    ],
    ids=repr,
)
def test_bad_mapping_changes_nothing(mapping, error, message):
    model = nn.Sequential(nn.Sigmoid(), nn.ReLU())
    if isinstance(mapping, dict):
        mapping = {nn.Sigmoid: nn.Tanh, **mapping}
    with pytest.raises(error, match=message):
        convert(model, mapping)
    assert [type(module) for module in model] == [nn.Sigmoid, nn.ReLU]


# the rest of torch --------------------------------------------------------------------------------


@pytest.mark.usefixtures("fresh_dynamo")
def test_compiles_without_a_break_and_notices_a_later_conversion():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), NamedReLU("a"), nn.Tanh())
    original, input = copy.deepcopy(model), torch.randn(2, 3)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.equal(compiled(input), original(input))
    convert(model)
    assert torch.equal(compiled(input), original(input))
    for each in (compiled, original):
        each(input).sum().backward()
    assert torch.equal(model[0].weight.grad, original[0].weight.grad)
    convert(model, {"tanh": "sigmoid"})
    assert torch.equal(compiled(input), torch.sigmoid(original[:3](input)))


def test_normalised_and_lazy_layers_are_untouched():
    torch.manual_seed(0)
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 3)), nn.ReLU(), nn.LazyLinear(2))
    report = convert(model)
    assert [it.paths for it in report.replaced] == [("1",)]
    assert report.left == ()
    assert isinstance(model[2], nn.LazyLinear)
    input = torch.randn(2, 3)
    model(input)
    original = nn.Sequential(model[0], nn.ReLU(), model[2])
    assert_same_results(model, original, input)


def test_report_reads_well():
    class Net(nn.Module):
        def forward(self, x):
            return torch.relu(x) + torch.relu(x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x)

    relu = nn.ReLU()
    report = convert(
        nn.Sequential(relu, nn.Sequential(relu, relu, nn.ReLU()), nn.GELU(), nn.Sigmoid(), Net(), nn.GELU())
    )
    lines = str(report).splitlines()
    calls = [it.what.partition(" ")[0] for it in report.left if it.paths == ("4",)]
    assert lines[:5] == [
        "Replaced",
        "  0, 1.0, ... (4 places)  torch.nn.ReLU     -> torchact.ReLU",
        "  3                       torch.nn.Sigmoid  -> torchact.Sigmoid",
        "Left alone",
        f"  2, 5  torch.nn.GELU{' ' * 59}  torchact has no counterpart",
    ]
    assert lines[5].startswith(f"  4     {calls[0]} torch.relu(x)  ")
    assert lines[6].startswith(f"  4     {calls[1]} torch.relu(x + x")
    assert lines[6].endswith("...  functional call; only modules are swapped")
    assert lines[7:] == ["Replaced 3 activations; left 4 alone."]


def test_report_on_nothing_and_on_one():
    assert str(convert(nn.Linear(1, 1))) == "Replaced 0 activations; left 0 alone."
    assert str(convert(nn.ReLU())).splitlines() == [
        "Replaced",
        "  (model)  torch.nn.ReLU  -> torchact.ReLU",
        "Replaced 1 activation; left 0 alone.",
    ]
