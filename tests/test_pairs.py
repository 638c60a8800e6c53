"""Activations of two tensors: a learnable parameter, or both halves of a gated unit as two tensors."""

import functools
import math

import pytest
import torch
from torch import func, nn
from torch.autograd import gradcheck, gradgradcheck

import torchact
from tests.conftest import assert_same, assert_within_ulp, leaf, noise_like, preactivations, smooth_points
from torchact import autograd, catalogue, functional

X = smooth_points()  # 2 × 3: two samples of three channels


def two(function, **parameters):
    return lambda first, second: function(first, other=second, **parameters)


#: Each as a function of two tensors, with a second tensor for X.
PAIRS = {
    "prelu": (functional.prelu, torch.tensor([0.25], dtype=torch.float64)),
    "prelu by channel": (functional.prelu, torch.tensor([0.25, -0.5, 1.5], dtype=torch.float64)),
    "swish": (functional.swish, torch.tensor(0.7, dtype=torch.float64)),
    "swish by channel": (functional.swish, torch.tensor([0.7, -1.0, 2.0], dtype=torch.float64)),
    "swish by sample": (functional.swish, torch.tensor([[0.7], [2.0]], dtype=torch.float64)),
    "snake": (functional.snake, torch.tensor(0.7, dtype=torch.float64)),
    "snake by channel": (functional.snake, torch.tensor([0.7, 0.02, 2.0], dtype=torch.float64)),
    "glu": (two(functional.glu), 0.5 - X),
    "glu first": (two(functional.glu, gate="first"), 0.5 - X),
    "reglu": (two(functional.reglu), 0.5 - X),
    "geglu": (two(functional.geglu), 0.5 - X),
    "geglu tanh": (two(functional.geglu, approximate="tanh"), 0.5 - X),
    "swiglu": (two(functional.swiglu), 0.5 - X),
    "swiglu of GPT-OSS": (two(functional.swiglu, alpha=1.702, limit=1.55, offset=1.0), 0.5 - X),
    "bilinear": (two(functional.bilinear), 0.5 - X),
}
#: The same in plain torch, written out anew.
PLAIN = {
    "prelu": lambda x, w: torch.where(x > 0, x, w * x),
    "swish": lambda x, b: x / (1 + torch.exp(-b * x)),
    "snake": lambda x, a: x + torch.sin(a * x) ** 2 / a,
    "glu": lambda v, g: v / (1 + torch.exp(-g)),
    "glu first": lambda g, v: v / (1 + torch.exp(-g)),
    "reglu": lambda v, g: v * torch.relu(g),
    "geglu": lambda v, g: v * g * torch.erfc(-g / 2**0.5) / 2,
    "geglu tanh": lambda v, g: v * nn.functional.gelu(g, approximate="tanh"),
    "swiglu": lambda v, g: v * g / (1 + torch.exp(-g)),
    "swiglu of GPT-OSS": lambda v, g: (
        (v.clamp(-1.55, 1.55) + 1) * g.clamp(max=1.55) * torch.sigmoid(1.702 * g.clamp(max=1.55))
    ),
    "bilinear": lambda v, g: v * g,
}


@pytest.fixture(params=PAIRS)
def pair(request):
    """Return (function, plain torch, second operand)."""
    function, second = PAIRS[request.param]
    plain = PLAIN[request.param.removesuffix(" by channel").removesuffix(" by sample")]
    return function, plain, second


def gradients(function, first, second, *, of_ones=False):
    first, second = leaf(first), leaf(second)
    y = function(first, second)
    grad_output = torch.ones_like(y) if of_ones else noise_like(y)
    return y.detach(), *torch.autograd.grad(y, (first, second), grad_output)


def test_values_and_both_gradients_are_those_of_plain_torch(pair):
    function, plain, second = pair
    for actual, expected in zip(gradients(function, X, second), gradients(plain, X, second), strict=True):
        assert actual.shape == expected.shape
        assert_within_ulp(actual, expected, ulp=16, scale=max(1.0, float(expected.abs().max())))


def test_both_derivatives_of_every_kind(pair):
    function, _, second = pair
    assert gradcheck(
        function,
        (leaf(X), leaf(second)),
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
    )
    assert gradgradcheck(function, (leaf(X), leaf(second)), check_fwd_over_rev=True, check_batched_grad=True)


@pytest.mark.parametrize("needed", ["first", "second"])
def test_one_gradient_is_the_same_without_the_other(pair, needed):
    function, _, second = pair
    expected = gradients(function, X, second)[1 if needed == "first" else 2]
    operands = [leaf(X) if needed == "first" else X, leaf(second) if needed == "second" else second]
    y = function(*operands)
    (actual,) = torch.autograd.grad(y, operands[needed == "second"], noise_like(y))
    assert_same(actual, expected)


@pytest.mark.parametrize("transform", [func.jacrev, func.jacfwd, func.hessian], ids=lambda t: t.__name__)
@pytest.mark.parametrize("argument", [0, 1])
def test_transforms_differentiate_by_either_operand(pair, transform, argument):
    function, plain, second = pair

    weights = noise_like(X)

    def total(function):
        return lambda *operands: (function(*operands) * weights).sum()

    actual = transform(total(function), argnums=argument)(X, second)
    expected = transform(total(plain), argnums=argument)(X, second)
    assert_within_ulp(actual, expected, ulp=64, scale=max(1.0, float(expected.abs().max())))


def test_vmap_maps_over_parameters(pair):
    function, _, second = pair
    batch = torch.stack([second, 2 * second])
    expected = torch.stack([function(X, each) for each in batch])
    assert_within_ulp(func.vmap(function, in_dims=(None, 0))(X, batch), expected, ulp=16, scale=8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_gradients_are_rounded_once_however_many_entries_share_a_parameter(dtype):
    x = preactivations(dtype).reshape(26, 10)
    for key in ("swish", "snake"):
        parameter = torch.tensor(0.75, dtype=dtype)
        _, by_x, by_parameter = gradients(getattr(functional, key), x, parameter)
        y = catalogue.CATALOGUE[key].value(x.double(), parameter.double())
        slopes = catalogue.CATALOGUE[key].pair.partials(x.double(), parameter.double())
        grad_output = noise_like(y).to(dtype).double()
        parts = grad_output * slopes[1]
        if dtype is torch.float32:  # in which the parts are computed and summed
            assert_within_ulp(by_x, grad_output * slopes[0])
            assert_within_ulp(by_parameter, parts.sum(), scale=parts.abs().sum())
        else:
            assert_within_ulp(by_x, grad_output * slopes[0], ulp=0.51)
            assert_within_ulp(by_parameter, parts.sum(), ulp=0.51)


def test_the_snake_without_a_frequency_is_the_identity_and_can_learn_one():
    y, by_x, by_alpha = gradients(functional.snake, X, torch.zeros((), dtype=torch.float64))
    assert_same(y, X)
    assert_same(by_x, noise_like(X))
    assert_within_ulp(by_alpha, (noise_like(X) * X**2).sum())


@pytest.mark.parametrize("parameter", [torch.tensor(0.5), torch.tensor([0.5]), torch.tensor([0.5, 1, 2])], ids=str)
@pytest.mark.parametrize("key", ["swish", "snake"])
def test_a_parameter_of_another_dtype_leaves_the_input_s_to_the_result(key, parameter):
    x = X.bfloat16()
    function = getattr(functional, key)
    y, by_x, by_parameter = gradients(function, x, parameter)
    assert (y.dtype, by_x.dtype, by_parameter.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    for other in (func.vmap(function, in_dims=(0, None))(x[None], parameter)[0], function(x.double(), parameter)):
        assert other.dtype in (x.dtype, torch.float64)
    assert func.jvp(lambda x: function(x, parameter), (x,), (x,))[0].dtype == torch.bfloat16


def test_a_learnt_swish_obeys_autocast_as_torch_s_prelu_does():
    model = nn.Sequential(nn.Linear(3, 3), torchact.Swish(learnable=True))
    with torch.autocast("cpu", torch.bfloat16):
        assert model(X.float()).dtype == torch.bfloat16


def test_one_entry_a_channel_means_dimension_one():
    images = noise_like(torch.empty(2, 3, 4, 5, dtype=torch.float64))
    alpha = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    y = functional.snake(images, alpha)
    for channel, value in enumerate(alpha):
        assert_within_ulp(y[:, channel], functional.snake(images[:, channel], value))
    for wrong in (images, images[0, 0, 0], images[:, :1]):
        with pytest.raises(RuntimeError, match=r"alpha: expected one entry, or one for each channel .* got 5 for an"):
            functional.snake(wrong, torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("key", ["prelu", "swish", "snake"])
def test_ordinary_training_takes_the_function_and_evaluation_none(key):
    parameter = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    function = getattr(functional, key)
    name = {"prelu": "PReLU", "swish": "LearnableSwish", "snake": "LearnableSnake"}[key]
    assert function(X, parameter).grad_fn.name() == f"{name}Backward"
    assert issubclass(getattr(autograd, name), autograd.PairFunction)
    with torch.no_grad():
        assert function(X, parameter).grad_fn is None


@pytest.mark.parametrize(
    "weight", [torch.ones(2), torch.ones(3, 1), torch.ones(3).double()], ids=["2", "3x1", "double"]
)
def test_prelu_refuses_a_weight_as_torch_does(weight):
    x = torch.ones(2, 3)
    with pytest.raises(RuntimeError) as expected:
        nn.functional.prelu(x, weight)
    with pytest.raises(RuntimeError) as actual:
        functional.prelu(x, weight)
    assert str(actual.value) == str(expected.value)


@pytest.mark.usefixtures("fresh_dynamo")
def test_compiled_all_pairs_have_both_gradients():
    functions = [function for function, _ in PAIRS.values()]
    seconds = [leaf(second) for _, second in PAIRS.values()]
    firsts = [leaf(X) for _ in PAIRS]

    def run(firsts, seconds):
        return [function(a, b) for function, a, b in zip(functions, firsts, seconds, strict=True)]

    results = []
    for each in (run, torch.compile(run, fullgraph=True, backend="aot_eager")):
        ys = each(firsts, seconds)
        results.append(torch.autograd.grad(ys, [*firsts, *seconds], [noise_like(y) for y in ys]))
    for actual, expected in zip(*results, strict=True):
        assert_within_ulp(actual, expected, ulp=64, scale=max(1.0, float(expected.abs().max())))


def test_a_gated_unit_broadcasts_its_halves():
    gate = torch.tensor([[0.5], [-1.0]], dtype=torch.float64)
    y, by_value, by_gate = gradients(functools.partial(two(functional.swiglu)), X, gate)
    expected = gradients(lambda v, g: v * nn.functional.silu(g), X, gate)
    for actual, reference in zip((y, by_value, by_gate), expected, strict=True):
        assert actual.shape == reference.shape
        assert_within_ulp(actual, reference, ulp=16, scale=4)


@pytest.mark.parametrize(
    ("function", "value"),
    [
        (functional.sine, 3.0),
        (lambda x, alpha: functional.swiglu(x, other=0.5 - x, alpha=alpha), 1.3),
        (lambda x, offset: functional.swiglu(x, other=0.5 - x, offset=offset), 0.7),
    ],
    ids=["sine", "swiglu alpha", "swiglu offset"],
)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_a_number_that_is_a_tensor_to_learn_gets_its_gradient(function, value, requires_grad):
    parameter = torch.tensor(value, dtype=torch.float64, requires_grad=True)
    x = X.clone().requires_grad_(requires_grad)
    assert gradcheck(lambda parameter: function(x.detach(), parameter), parameter)
    (actual,) = torch.autograd.grad(function(x, parameter).sum(), parameter)
    expected = func.grad(lambda parameter: function(X, parameter).sum())(parameter.detach())
    assert_within_ulp(actual, expected, ulp=16, scale=10)


GATED = [name for name in PAIRS if "glu" in name or name == "bilinear"]


@pytest.mark.parametrize("name", [*GATED, "swiglu, alpha=-0.5"])
@pytest.mark.parametrize("value", [1.0, -1e30, 3.3e38, 1e-30, 0.0, math.inf, math.nan])
def test_gated_units_of_bfloat16_round_once_at_every_gate(name, value):
    # Half a unit in the last place, and what the formula for 8 bits adds. Sizes are odd: the last number has no pair.
    gate = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16)[: 2**16 - 1]
    function = two(functional.swiglu, alpha=-0.5) if name == "swiglu, alpha=-0.5" else PAIRS[name][0]
    operands = torch.full_like(gate, value), gate
    if name == "glu first":
        operands = operands[::-1]
    of_double = [operand.double() for operand in operands]
    pairs = zip(
        gradients(function, *operands, of_ones=True), gradients(function, *of_double, of_ones=True), strict=True
    )
    for actual, expected in pairs:
        assert actual.dtype is torch.bfloat16
        finite = expected.bfloat16().isfinite()
        assert_within_ulp(actual[finite], expected[finite], ulp=0.53)
        torch.testing.assert_close(actual[~finite], expected.bfloat16()[~finite], rtol=0, atol=0, equal_nan=True)


def test_a_negative_limit_is_refused():
    with pytest.raises(ValueError, match=r"limit: expected None or a number that is not negative, got -1.0"):
        functional.swiglu(X, 0, limit=-1.0)


def test_what_is_no_tensor_is_named():
    with pytest.raises(TypeError, match=r"other: expected a tensor, got 3\.0"):
        functional.swiglu(X, other=3.0)
