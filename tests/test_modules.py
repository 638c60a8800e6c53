"""The modules are drop-in: constructor, attributes, representation, pickling and state are those of torch's modules."""

import copy
import inspect
import io
import pickle
import warnings

import pytest
import torch
from torch import nn

from tests.conftest import (
    assert_close_with_same_nan,
    assert_same,
    leaf,
    noise_like,
    preactivations,
    smooth_points,
    value_and_grad,
)
from torchact import catalogue, functional, modules


def torch_module(case):
    return case.activation.torch_module(**case.parameters)


# ---- Construction


def test_the_module_has_one_class_an_activation_and_nothing_else():
    assert set(modules.__all__) == {activation.name for activation in catalogue.CATALOGUE.values()}
    assert list(modules.MODULES) == list(catalogue.CATALOGUE)


def test_the_class_is_torch_s_with_another_forward(activation):
    module_class = modules.MODULES[activation.key]
    assert module_class.__name__ == activation.name
    assert issubclass(module_class, activation.torch_module or nn.Module)
    if activation.torch_module is not None:
        assert inspect.signature(module_class) == inspect.signature(activation.torch_module)
        assert module_class.__init__ is activation.torch_module.__init__


def test_the_docstring_has_formula_and_source(activation):
    documentation = inspect.getdoc(modules.MODULES[activation.key])
    assert f".. math:: {activation.formula}" in documentation.splitlines()
    assert activation.derivative_formula in documentation
    assert activation.source in documentation


def test_the_representation_is_torch_s(torch_case):
    assert repr(torch_case.module()) == repr(torch_module(torch_case))
    assert torch_case.module().extra_repr() == torch_module(torch_case).extra_repr()


@pytest.mark.parametrize("module", [modules.ReLU(inplace=True), modules.LeakyReLU(0.2, inplace=True)], ids=repr)
def test_the_representation_tells_inplace(module):
    assert "inplace=True" in repr(module)


@pytest.mark.parametrize("surrogate", [None, *catalogue.SURROGATES])
def test_the_step_s_representation_names_its_surrogate_and_makes_it_again(surrogate):
    module = modules.BinaryStep(surrogate)
    assert repr(module) == (f"BinaryStep(surrogate={surrogate!r})" if surrogate else "BinaryStep()")
    assert repr(eval(repr(module), vars(modules))) == repr(module)


def test_the_step_s_surrogate_has_one_spelling_and_an_unknown_one_is_refused_at_once():
    assert modules.BinaryStep("Fast Sigmoid").surrogate == "fast_sigmoid"
    with pytest.raises(ValueError, match="surrogate: unknown name 'arctan'; did you mean 'atan'"):
        modules.BinaryStep("arctan")
    with pytest.raises(TypeError, match="surrogate: expected a name"):
        modules.BinaryStep(1)


def test_identity_takes_any_arguments_as_torch_s_does():
    module = modules.Identity(54, unused=True)
    x = torch.ones(2)
    assert module(x) is x


# ---- Computation


def test_forward_is_the_function_with_the_module_s_parameters(case, dtype):
    x = preactivations(dtype)
    for actual, expected in zip(value_and_grad(case.module(), x), value_and_grad(case.ours, x), strict=True):
        assert_same(actual, expected)


def test_forward_and_gradient_are_torch_s(torch_case):
    x = preactivations(torch.float32)
    expected = value_and_grad(torch_module(torch_case), x)
    for actual, reference in zip(value_and_grad(torch_case.module(), x), expected, strict=True):
        assert_same(actual, reference)


def test_a_parameter_changed_after_construction_counts():
    x = preactivations()
    leaky_relu, softmax, step = modules.LeakyReLU(), modules.Softmax(0), modules.BinaryStep()
    leaky_relu.negative_slope, softmax.dim, step.surrogate = 0.5, 1, "atan"
    assert_same(leaky_relu(x), functional.leaky_relu(x, 0.5))
    assert_same(softmax(x), functional.softmax(x, 1))
    _, grad_input = value_and_grad(step, x)
    assert_same(grad_input, value_and_grad(lambda x: functional.binary_step(x, "atan"), x)[1])


@pytest.mark.parametrize("module", [modules.ReLU(inplace=True), modules.LeakyReLU(0.2, inplace=True)], ids=repr)
def test_inplace_overwrites_the_input_and_has_torch_s_gradient(module):
    x = preactivations()
    out_of_place = copy.deepcopy(module)
    out_of_place.inplace = False
    expected = value_and_grad(out_of_place, x)
    for actual, reference in zip(value_and_grad(lambda x: module(x * 1), x), expected, strict=True):
        assert_same(actual, reference)
    y = module(x)
    assert y is x
    assert_same(x, expected[0])
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
        module(leaf(x))


def test_traced_symbolically_a_module_computes_the_same(case):
    x = preactivations()
    traced = torch.fx.symbolic_trace(case.module())
    for actual, expected in zip(value_and_grad(traced, x), value_and_grad(case.module(), x), strict=True):
        assert_close_with_same_nan(actual, expected)


def test_softmax_without_a_dimension_warns_at_the_caller():
    x = smooth_points()
    with pytest.warns(UserWarning, match="Implicit dimension choice for softmax") as record:
        y = modules.Softmax()(x)
    assert record[0].filename == __file__
    assert_same(y, torch.softmax(x, 1))


# ---- State


def test_there_is_no_state_to_save(case):
    module = case.module()
    assert not module.state_dict()
    assert not list(module.parameters())
    assert not list(module.buffers())
    module.load_state_dict(torch_module(case).state_dict() if case.activation.torch_module else {})


def by_pickle(module):
    return pickle.loads(pickle.dumps(module))


def by_torch_save(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, by_pickle, by_torch_save], ids=lambda f: f.__name__)
def test_a_copy_computes_the_same(case, duplicate):
    module = nn.Sequential(case.module()).eval()
    twin = duplicate(module)
    assert twin[0] is not module[0] or duplicate is copy.copy
    assert type(twin[0]) is type(module[0])
    assert repr(twin) == repr(module)
    assert not twin.training
    x = smooth_points()
    for actual, expected in zip(value_and_grad(twin, x), value_and_grad(module, x), strict=True):
        assert_same(actual, expected)


# ---- Finding and making modules


def test_the_activation_of_a_module_is_found_for_ours_torch_s_and_subclasses(case):
    module_class = modules.MODULES[case.key]
    subclass = type("Custom", (module_class,), {})
    assert modules.activation_of(case.module()) is case.activation
    assert modules.activation_of(subclass(**case.parameters)) is case.activation
    if case.activation.torch_module is not None:
        assert modules.activation_of(torch_module(case)) is case.activation


@pytest.mark.parametrize("module", [nn.Linear(1, 1), nn.Sequential(nn.ReLU()), nn.Dropout()], ids=repr)
def test_other_modules_are_no_activations(module):
    assert modules.activation_of(module) is None


def test_a_module_is_made_by_any_of_its_names(activation):
    for name in (activation.key, activation.name, *activation.aliases):
        assert type(modules.create(name)) is modules.MODULES[activation.key]
    assert modules.create("softmax").dim == -1


def test_making_an_unknown_module_lists_the_nearest():
    with pytest.raises(ValueError, match="activation: unknown name 'rellu'; did you mean 'relu'"):
        modules.create("rellu")


# ---- torch's own sample inputs


@pytest.fixture(scope="module")
def module_infos():
    """Return torch's module descriptions by class."""
    pytest.importorskip("expecttest")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_modules import module_db
    return {info.module_cls: info for info in module_db}


@pytest.mark.filterwarnings("ignore:Implicit dimension choice for softmax:UserWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("key", ["sigmoid", "tanh", "relu", "leaky_relu", "softmax"])
def test_torch_s_own_sample_inputs_give_torch_s_values_and_gradients(key, module_infos, dtype):
    activation = catalogue.get(key)
    info = module_infos[activation.torch_module]
    samples = info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=False, training=True)
    assert samples
    for sample in samples:
        construction, call = sample.constructor_input, sample.forward_input
        assert not call.kwargs
        (x,) = call.args
        ours = modules.MODULES[activation.key](*construction.args, **construction.kwargs)
        theirs = activation.torch_module(*construction.args, **construction.kwargs)

        def run(module, x=x):
            return value_and_grad(lambda x: module(x * 1), x, noise_like(x))

        for actual, expected in zip(run(ours), run(theirs), strict=True):
            assert_same(actual, expected)
