"""A mapping swaps the kinds that it names for others."""

import pytest
import torch
import torch.nn.functional as F
from conversion_models import ClippedReLU, NamedReLU, assert_same_results, calls_in
from torch import nn

import torchact
from torchact.conversion import Conversion, Replaced, convert


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
    assert report == Conversion(
        (
            Replaced(("1", "5"), "torch.nn.Sigmoid", "torchact.ReLU"),
            Replaced(("3",), "torchact.Sigmoid", "torchact.ReLU"),
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


def test_mapped_module_keeps_hooks_mode_and_attachments():
    module = nn.LeakyReLU(0.3, inplace=True).eval()
    module.note = "mine"
    fired = []
    handle = module.register_forward_hook(lambda *_: fired.append(1))
    convert(module, {nn.LeakyReLU: nn.ELU})
    assert type(module) is nn.ELU
    assert (module.training, module.note, module.inplace, module.alpha) == (False, "mine", True, 1.0)
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


def slopes():
    model = nn.Sequential(nn.PReLU(3))
    model[0].weight.data = torch.tensor([0.1, 0.2, 0.3])
    return model


@pytest.mark.parametrize("convert_first", [False, True])
@pytest.mark.parametrize("mapping", [{nn.PReLU: torchact.PReLU}, {"prelu": nn.PReLU}, {nn.PReLU: "prelu"}])
def test_what_is_learnt_is_kept_between_relatives(mapping, convert_first):
    model, input = slopes(), torch.randn(4, 3)
    weight = model[0].weight
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    if convert_first:
        convert(model)
    convert(model, mapping)
    assert type(model[0]) is (nn.PReLU if nn.PReLU in mapping.values() else torchact.PReLU)
    assert model[0].weight is weight
    assert model[0].num_parameters == 3
    assert_same_results(model, slopes(), input)
    optimizer.step()
    assert not torch.equal(model[0].weight, slopes()[0].weight)


class NamedSwish(torchact.Swish):
    pass


class LearnableSwish(torchact.Swish):
    def __init__(self):
        super().__init__(learnable=True)


@pytest.mark.parametrize("value", [torchact.Swish, LearnableSwish])
@pytest.mark.parametrize("learnable", [False, True])
def test_whether_something_is_learnt_is_kept_between_relatives(value, learnable):
    module = NamedSwish(1.5, learnable, 3 if learnable else 1)
    beta = module.beta
    convert(module, {torchact.Swish: value})
    assert type(module) is value
    assert module.beta is beta
    assert (module.learnable, list(module.state_dict())) == (learnable, ["beta"] * learnable)


def test_buffers_are_kept_between_relatives():
    class Scaled(nn.ReLU):
        def __init__(self, persistent=True):
            super().__init__()
            self.register_buffer("scale", torch.ones(2), persistent=persistent)

    class Other(Scaled):
        pass

    module = Scaled(persistent=False)
    scale = module.scale
    convert(module, {Scaled: Other})
    assert type(module) is Other
    assert module.scale is scale
    assert not module.state_dict()


def test_a_new_parameter_is_not_hidden_by_a_number_of_its_name():
    module = torchact.Swish(1.5)
    convert(module, {torchact.Swish: lambda: torchact.Swish(learnable=True)})
    assert module.beta is dict(module.named_parameters())["beta"]


def test_parameters_do_not_make_another_activation_of_what_the_mapping_names():
    x = torch.linspace(-3.0, 8.0, 12)
    model = nn.Sequential(nn.Hardtanh(-2, 2, inplace=True))
    convert(model, {"hardtanh": nn.ReLU6})
    assert model[0].inplace
    assert torch.equal(model(x.clone()), F.relu6(x))


def test_a_name_matches_its_own_activation_only():
    class Net(nn.Sequential):
        def forward(self, x):
            return F.hardtanh(F.relu6(super().forward(x)))

    model = Net(nn.Hardtanh(), nn.ReLU6(), torchact.Hardtanh(), torchact.ReLU6())
    report = convert(model, {"hardtanh": "tanh"})
    assert [type(module) for module in model] == [torchact.Tanh, nn.ReLU6, torchact.Tanh, torchact.ReLU6]
    assert calls_in(report) == ["F.hardtanh(F.relu6(super().forward(x)))"]
    report = convert(model, {nn.Hardtanh: "tanh", "relu6": "sigmoid"})
    assert [type(module) for module in model] == [torchact.Tanh, torchact.Sigmoid, torchact.Tanh, torchact.Sigmoid]
    assert len(calls_in(report)) == 2


@pytest.mark.parametrize("key", ["glu", nn.GLU, torchact.GLU])
def test_gated_units_keep_their_dimension_and_their_gate(key):
    model = nn.Sequential(torchact.GLU(1, gate="first"), nn.GLU(1))
    convert(model)
    report = convert(model, {key: "swiglu"})
    assert report.left == ()
    assert [type(module) for module in model] == [torchact.SwiGLU, torchact.SwiGLU]
    assert [(module.dim, module.gate) for module in model] == [(1, "first"), (1, "second")]
    x = torch.randn(2, 4)
    assert torch.equal(model[0](x), torchact.functional.swiglu(x, 1, gate="first"))


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
    assert convert(model, {nn.ReLU: torchact.ReLU}) == Conversion((), ())
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
        (("clipped",), "its class overrides forward"),
        (("",), "a function held by an attribute"),
    ]
    assert ("lstm",) in [it.paths for it in convert(Net(), {"tanh": "relu"}).left]


def test_modules_that_contain_others_are_not_swapped():
    model = nn.Sequential(nn.ReLU())
    report = convert(model, {nn.Sequential: nn.Identity, nn.ReLU: nn.Tanh})
    assert type(model) is nn.Sequential
    assert type(model[0]) is nn.Tanh
    assert [it.reason for it in report.left] == ["it contains other modules"]


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
        ({nn.ReLU: nn.Threshold}, TypeError, "^mapping: expected values .* missing 2 required positional"),
        ({nn.ReLU: lambda: 3}, TypeError, "^mapping: expected values .* for torch.nn.ReLU, which returned 3$"),
        ({nn.ReLU: lambda: 1 / 0}, ZeroDivisionError, "division"),
    ],
)
def test_bad_mapping_changes_nothing(mapping, error, message):
    model = nn.Sequential(nn.Sigmoid(), nn.ReLU())
    if isinstance(mapping, dict):
        mapping = {nn.Sigmoid: nn.Tanh, **mapping}
    with pytest.raises(error, match=message):
        convert(model, mapping)
    assert [type(module) for module in model] == [nn.Sigmoid, nn.ReLU]


def test_an_encoder_layer_computes_the_new_activation_in_eval_mode_too():
    """Its fused kernel, chosen when it was built, would go on computing the old one."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation=nn.ReLU(), batch_first=True)
    convert(layer, {nn.ReLU: nn.Tanh})
    x = torch.randn(2, 3, 8)
    trained = layer(x).detach()
    with torch.inference_mode():
        torch.testing.assert_close(layer.eval()(x), trained)


@pytest.mark.parametrize("value", [3, nn.Threshold, lambda: 3, lambda x: nn.ReLU()])
def test_a_wrong_value_is_found_whatever_the_model_holds(value):
    with pytest.raises(TypeError, match="mapping: expected values that are module classes"):
        convert(nn.Linear(2, 2), {nn.ReLU: value})
