"""Conversion changes the class of the activations in a model, reports the rest, and changes nothing else."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from conversion_models import (
    ClippedReLU,
    CountingSigmoid,
    NamedReLU,
    ReducedReLU,
    assert_close_results,
    assert_same_results,
    cnn,
)
from torch import nn
from torch.nn.utils import parametrizations

from torchact.conversion import Conversion, convert


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
    assert_close_results(model, original, input, ulp=16)  # tanh is our kernel's
    assert_close_results(model.eval(), original.eval(), input, ulp=16)
    assert repr(model) == repr(original)


def test_second_conversion_replaces_nothing():
    model = nn.Sequential(cnn(), NamedReLU("a"), CountingSigmoid(), nn.GELU(), ClippedReLU())
    first = convert(model)
    second = convert(model)
    assert second == Conversion((), first.left)


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


@pytest.mark.parametrize("model", [None, nn.ReLU, F.relu, [nn.ReLU()]])
def test_model_that_is_no_module(model):
    with pytest.raises(TypeError, match=r"^model: expected a torch.nn.Module, got "):
        convert(model)


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
