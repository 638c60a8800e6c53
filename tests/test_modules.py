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
    preactivations,
    smooth_points,
    value_and_grad,
)
from torchact import catalogue, functional, modules


def torch_module(case, dtype=torch.float64):
    if case.key == "prelu":
        return nn.PReLU(init=float(case.parameters["weight"]), dtype=dtype)
    return case.activation.torch_module(**case.torch_parameters)


# ---- Construction


def test_the_module_has_one_class_an_activation_and_nothing_else():
    assert set(modules.__all__) == {activation.name for activation in catalogue.CATALOGUE.values()}
    assert list(modules.MODULES) == list(catalogue.CATALOGUE)


def test_the_class_is_torch_s_with_another_forward(activation):
    module_class = modules.MODULES[activation.key]
    assert module_class.__name__ == activation.name
    assert issubclass(module_class, activation.torch_module or nn.Module)
    if activation.torch_module is not None:
        if activation.key == "glu":
            assert str(inspect.signature(module_class)).startswith("(dim: 'int' = -1, *, gate")
            return
        assert inspect.signature(module_class) == inspect.signature(activation.torch_module)
        assert module_class.__init__ is activation.torch_module.__init__


def test_the_docstring_has_formula_and_source(activation):
    documentation = inspect.getdoc(modules.MODULES[activation.key])
    assert f".. math:: {activation.formula}" in documentation.splitlines()
    assert activation.derivative_formula in documentation
    assert activation.source in documentation


def test_the_representation_is_torch_s(torch_case):
    assert repr(torch_case.module()) == repr(torch_module(torch_case))


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
    module = case.module(dtype).eval()
    for actual, expected in zip(value_and_grad(module, x), value_and_grad(case.ours, x), strict=True):
        assert_same(actual, expected)


def test_forward_and_gradient_are_torch_s(torch_case):
    x = preactivations(torch.float32)
    expected = value_and_grad(torch_module(torch_case, torch.float32).eval(), x)
    for actual, reference in zip(value_and_grad(torch_case.module(torch.float32).eval(), x), expected, strict=True):
        torch.testing.assert_close(actual, reference, rtol=2e-6, atol=2e-6)


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
    packed = {"other": None} if case.activation.kind == "gated" else None
    traced = torch.fx.symbolic_trace(case.module().eval(), concrete_args=packed)
    assert "call_module" not in {node.op for node in traced.graph.nodes}
    for actual, expected in zip(value_and_grad(traced, x), value_and_grad(case.module().eval(), x), strict=True):
        assert_close_with_same_nan(actual, expected, ulp=64)  # x times a gate that is half an ULP of 1 off


def test_softmax_without_a_dimension_warns_at_the_caller():
    x = smooth_points()
    with pytest.warns(UserWarning, match="Implicit dimension choice for softmax") as record:
        y = modules.Softmax()(x)
    assert record[0].filename == __file__
    assert_same(y, torch.softmax(x, 1))


# ---- State


def test_the_only_state_is_what_is_learnt(case):
    module = case.module()
    learnt = [] if case.learnt is None else [case.activation.learnable]
    assert list(module.state_dict()) == learnt
    assert [name for name, _ in module.named_parameters()] == learnt
    assert not list(module.buffers())
    if case.activation.torch_module is not None:
        module.load_state_dict(torch_module(case).state_dict())


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
    assert modules.activation_of(subclass(**({} if case.learnt else case.parameters))) is case.activation
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


def in_torch():
    return [key for key, record in catalogue.CATALOGUE.items() if record.torch_module]


#: torch has no sample inputs for these modules.
WITHOUT_SAMPLES = {"hardsigmoid", "rrelu", "identity"}
#: In bfloat16 torch's own are several ULP off: its values in float32 have to serve there.
INACCURATE_IN_TORCH = {"softsign", "tanhshrink", "log_softmax", "softmax2d", "glu"}


@pytest.mark.filterwarnings("ignore:Implicit dimension choice for softmax:UserWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.filterwarnings("ignore:Implicit dimension choice for (softmin|log_softmax):UserWarning")
@pytest.mark.parametrize("key", [key for key in in_torch() if key not in WITHOUT_SAMPLES])
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
            torch.manual_seed(0)  # of the randomised ReLU
            return value_and_grad(lambda x: module.to(x.dtype)(x * 1), x)

        if dtype is torch.bfloat16 and key in INACCURATE_IN_TORCH:
            torch.testing.assert_close(run(ours)[0], theirs(x.detach().float()).bfloat16())
            continue
        for actual, expected in zip(run(ours), run(theirs), strict=True):
            torch.testing.assert_close(actual, expected)


# ---- Learnt parameters

LEARNABLE = {"swish": ("beta", modules.Swish), "snake": ("alpha", modules.Snake)}


@pytest.mark.parametrize("key", LEARNABLE)
def test_a_parameter_is_a_number_until_it_is_learnable(key):
    name, module_class = LEARNABLE[key]
    fixed, learnt = module_class(0.5), module_class(0.5, learnable=True, num_parameters=3)
    assert getattr(fixed, name) == 0.5
    assert not list(fixed.parameters())
    assert getattr(learnt, name).tolist() == [0.5] * 3
    assert isinstance(getattr(learnt, name), nn.Parameter)
    assert repr(fixed) == f"{module_class.__name__}({name}=0.5)"
    assert repr(learnt) == f"{module_class.__name__}(learnable=True, num_parameters=3)"
    x = smooth_points().reshape(2, 3)
    assert_same(learnt.double()(x).detach(), fixed(x))
    with pytest.raises(ValueError, match="num_parameters: expected 1 where the parameter is not learnable, got 3"):
        module_class(0.5, num_parameters=3)


def test_learning_finds_the_slope_that_the_data_have():
    torch.manual_seed(0)
    x = torch.randn(256, dtype=torch.float64)
    module = modules.Swish(0.3, learnable=True).double()
    optimizer = torch.optim.LBFGS(
        module.parameters(), max_iter=100, tolerance_grad=1e-14, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def loss():
        optimizer.zero_grad()
        value = nn.functional.mse_loss(module(x), functional.swish(x, 1.7))
        value.backward()
        return value

    optimizer.step(loss)
    assert float(module.beta.detach()) == pytest.approx(1.7, abs=1e-6)


@pytest.mark.parametrize("module_class", [modules.GLU, modules.ReGLU, modules.GEGLU, modules.SwiGLU, modules.Bilinear])
def test_a_gated_unit_takes_both_halves_packed_or_as_two(module_class):
    x = preactivations()[:, 1:]
    first, second = x.chunk(2, 1)
    for gate in ("first", "second"):
        module = module_class(dim=1, gate=gate)
        assert_same(module(x), module(first, second))
        other = "first" if gate == "second" else "second"
        assert_same(module(first, second), module_class(gate=other)(second, first))
    with pytest.raises(ValueError, match="gate: expected 'first' or 'second', got 'both'"):
        module_class(gate="both")


def test_a_gated_unit_s_representation_has_what_is_not_usual():
    assert repr(modules.SwiGLU()) == "SwiGLU(dim=-1)"
    assert repr(modules.SwiGLU(1, gate="first", limit=7.0)) == "SwiGLU(dim=1, gate='first', limit=7.0)"


def test_softmax2d_is_softmax_over_channels():
    x = preactivations().reshape(2, 5, 2, 13)
    module = modules.Softmax2d()
    for actual, expected in zip(value_and_grad(module, x), value_and_grad(nn.Softmax2d(), x), strict=True):
        assert_same(actual, expected)
    assert_same(module(x[0]), nn.Softmax2d()(x[0]))
    for wrong in (x[0, 0], x[None]):
        with pytest.raises(ValueError, match="Softmax2d: expected input to be 3D or 4D"):
            module(wrong)


def test_the_randomised_relu_draws_torch_s_slopes_and_keeps_them_for_backward():
    x = preactivations(torch.float32)
    results = []
    for module_class in (modules.RReLU, nn.RReLU):
        torch.manual_seed(3)
        results.append(value_and_grad(module_class(0.1, 0.4), x))
    for actual, expected in zip(*results, strict=True):
        assert_same(actual, expected)
    y, grad_input = value_and_grad(modules.RReLU(0.1, 0.4), x, torch.ones_like(x))
    slopes = grad_input[x < 0]
    assert 0.1 <= float(slopes.min()) < 0.12
    assert 0.38 < float(slopes.max()) <= 0.4
    assert_same(y[x < 0], slopes * x[x < 0])
