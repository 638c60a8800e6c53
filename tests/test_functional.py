"""The functions are drop-in: signature, values, dtypes, memory formats and errors are those of torch's counterparts."""

import contextlib
import inspect
import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses import FakeTensorMode

from tests.conftest import (
    CASES,
    INPLACE_CASES,
    INPLACE_GRADIENT_CASES,
    TORCH_CASES,
    assert_grad_within_ulp,
    assert_same,
    assert_value_within_ulp,
    assert_within_ulp,
    extremes,
    leaf,
    noise_like,
    preactivations,
    smooth_points,
    value_and_grad,
)
from torchact import catalogue, functional

IMAGE = torch.linspace(-3, 3, 120).reshape(2, 3, 4, 5)

LAYOUTS = {
    "contiguous": IMAGE,
    "channels_last": IMAGE.contiguous(memory_format=torch.channels_last),
    "channels_last_3d": IMAGE[:, :, None].contiguous(memory_format=torch.channels_last_3d),
    "transposed": IMAGE.transpose(1, 3),
    "sliced": IMAGE[:, 1:, ::2, 1:-1],
    "expanded": IMAGE[:, :1, :, :1].expand(2, 3, 4, 5),
    "negated lazily": torch.view_as_complex(IMAGE.reshape(-1, 2)).conj().imag,
    "zero-dimensional": torch.tensor(0.5),
    "empty": torch.empty(2, 0, 3),
}


def counterpart(case):
    """Return what computes the same values in torch: for the step ``heaviside``, or else the formula."""
    if case.key == "binary_step":
        return lambda x: torch.heaviside(x, torch.ones((), dtype=x.dtype))
    if case.key == "gelu_tanh":
        return lambda x: F.gelu(x, approximate="tanh")
    return case.counterpart if case.has_counterpart else case.smooth


EXACT_CASES = [case for case in TORCH_CASES if case.values_are_torch_s]
EXACT_GRADIENT_CASES = [case for case in TORCH_CASES if case.gradients_are_torch_s and case.key != "hardsigmoid"]
exact = pytest.mark.parametrize("case", EXACT_CASES, ids=str)
exact_gradients = pytest.mark.parametrize("case", EXACT_GRADIENT_CASES, ids=str)
elementwise = pytest.mark.parametrize("case", [c for c in TORCH_CASES if c.activation.elementwise], ids=str)


def outcome(function, *arguments):
    """Return the type of the exception that ``function`` raises, or its result."""
    try:
        return function(*arguments)
    except Exception as error:
        return type(error)


def assert_same_outcome(actual, expected):
    if isinstance(expected, torch.Tensor):
        assert isinstance(actual, torch.Tensor), actual
        assert actual.requires_grad == expected.requires_grad
        assert_same(actual.detach(), expected.detach())
    else:
        assert actual == expected


def assert_close_outcome(actual, expected):
    """Assert that torch's result, if there is one, is ours up to rounding, and that we raise only where torch does."""
    if isinstance(expected, torch.Tensor):
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)
    else:
        assert isinstance(actual, torch.Tensor) or issubclass(actual, Exception)


# ---- signatures


def python_functions():
    """Return the keys of those whose counterpart is written in Python, so that its signature can be read."""
    return [key for key in catalogue.CATALOGUE if inspect.isfunction(getattr(F, key, None))]


@pytest.mark.parametrize("key", python_functions())
def test_the_signature_is_torch_s(key):
    def parameters(function):
        return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]

    ours, theirs = parameters(getattr(functional, key)), parameters(getattr(F, key))
    assert ours[: len(theirs)] == theirs
    assert all(kind is inspect.Parameter.KEYWORD_ONLY for _, kind, _ in ours[len(theirs) :])  # the gate of glu


@pytest.mark.parametrize(
    ("key", "signature"),
    [
        # From torch's documentation, since these are built in.
        ("logsigmoid", "(input)"),
        ("gelu", "(input, *, approximate='none')"),
        ("softplus", "(input, beta=1.0, threshold=20.0)"),
        ("softshrink", "(input, lambd=0.5)"),
        ("hardshrink", "(input, lambd=0.5)"),
        ("prelu", "(input, weight)"),
    ],
)
def test_the_signature_of_a_function_that_is_built_in_is_that_of_its_documentation(key, signature):
    ours = inspect.signature(getattr(functional, key))
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in ours.parameters.values()]
    assert str(inspect.Signature(bare)) == signature


def test_the_module_has_one_function_an_activation_and_nothing_else():
    assert set(functional.__all__) == set(catalogue.CATALOGUE)


def test_the_docstring_has_formula_derivative_range_and_source(activation):
    documentation = inspect.getdoc(getattr(functional, activation.key))
    assert f".. math:: {activation.formula}" in documentation.splitlines()
    assert activation.derivative_formula in documentation
    assert "({:g}, {:g})".format(*activation.range) in documentation
    assert activation.source in documentation
    first_line = documentation.splitlines()[0]
    assert first_line.endswith(".")


def test_every_surrogate_is_named_in_the_step_s_docstring():
    for name in catalogue.SURROGATES:
        assert f'"{name}"' in functional.binary_step.__doc__


# ---- values and gradients


@pytest.mark.parametrize("case", [*EXACT_CASES, *(c for c in CASES if c.key == "binary_step")], ids=str)
def test_values_are_bit_for_bit_torch_s_with_and_without_a_graph(case, dtype):
    x = preactivations(dtype)
    expected = counterpart(case)(x)
    assert_same(case.ours(x), expected)
    assert_same(case.ours(leaf(x)).detach(), expected)


def test_values_are_the_reference_s(case, dtype):
    x = preactivations(dtype)
    assert_value_within_ulp(case, x, case.ours(x))


@exact_gradients
def test_gradients_are_bit_for_bit_torch_s(case, dtype):
    x = preactivations(dtype)
    for actual, expected in zip(value_and_grad(case.ours, x), value_and_grad(case.counterpart, x), strict=True):
        assert_same(actual, expected)


@pytest.mark.parametrize("case", TORCH_CASES, ids=str)
def test_values_and_gradients_are_torch_s_to_its_own_accuracy(case):
    x = preactivations(torch.float64)
    for actual, expected in zip(value_and_grad(case.ours, x), value_and_grad(case.counterpart, x), strict=True):
        # Where ours is more accurate, torch's is off by the last digits of 1, of its input, or of a float32 (1/6).
        tolerance = 1e-7 if case.key == "hardsigmoid" else 64 * torch.finfo(torch.float64).eps
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance * 20)


def test_gradients_are_the_reference_s(case, dtype):
    x = preactivations(dtype)
    y, grad_input = value_and_grad(case.ours, x)
    assert grad_input.dtype == dtype
    assert_grad_within_ulp(case, x, noise_like(y), grad_input)


@exact_gradients
def test_extreme_values_and_their_gradients_are_torch_s(case, dtype):
    x = extremes(dtype)
    for number in (1.0, math.inf, math.nan):
        grad_output = torch.full_like(case.counterpart(x), number)
        expected = value_and_grad(case.counterpart, x, grad_output)
        for actual, reference in zip(value_and_grad(case.ours, x, grad_output), expected, strict=True):
            assert_same(actual, reference)
    y, reference = case.ours(x), case.counterpart(x)
    assert_same(y, reference)
    assert_same(y.signbit()[y == 0], reference.signbit()[y == 0])  # relu(-0) is -0


def test_infinite_and_missing_values_are_torch_s_or_better(case, dtype):
    x = extremes(dtype)
    y, grad_input = value_and_grad(case.ours, x)
    if case.activation.kind == "gated":
        return  # where 0 · ∞ is NaN, as it should be
    if case.activation.elementwise and case.key != "binary_step":
        assert y[0, 0].isnan()
        finite = x.isfinite()
        assert not y[finite].isnan().any()
        assert not grad_input[finite].isnan().any()
    if case.has_counterpart:
        expected = case.counterpart(x)
        known = expected.isinf()
        known[:, 0] &= x[:, 0].isinf()  # a finite input that overflows in torch need not do so here
        assert_same(y[known], expected[known])


def test_the_step_of_extreme_values_is_heaviside_s_on_every_path(dtype):
    x = extremes(dtype)
    expected = torch.heaviside(x, torch.ones((), dtype=dtype))
    for surrogate in (None, *catalogue.SURROGATES):

        def step(x, surrogate=surrogate):
            return functional.binary_step(x, surrogate)

        assert_same(step(x), expected)
        assert_same(step(leaf(x)).detach(), expected)
        assert_same(torch.func.vmap(step)(x), expected)
        assert_same(torch.func.jvp(step, (x,), (x,))[0], expected)


def test_the_surrogate_gradient_of_extreme_values_is_finite_zero_at_nan_and_the_same_on_every_path(
    surrogate_case, dtype
):
    x = extremes(dtype)
    _, grad_input = value_and_grad(surrogate_case.ours, x, torch.ones_like(x))
    assert bool(grad_input.isfinite().all())
    assert grad_input[:3, 0].tolist() == [0, 0, 0]  # NaN, ∞, -∞
    assert_grad_within_ulp(surrogate_case, x, torch.ones_like(x), grad_input)
    by_functorch = torch.func.grad(lambda x: surrogate_case.ours(x).sum())(x)
    assert_grad_within_ulp(surrogate_case, x, torch.ones_like(x), by_functorch)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_surrogate_gradient_of_half_types_is_rounded_only_once_on_every_path(surrogate_case, dtype):
    x = preactivations(dtype)[1:3]  # where rounding in float32 does not count
    expected = surrogate_case.derivative(x)
    x = leaf(x)
    for create_graph in (False, True):
        (grad_input,) = torch.autograd.grad(surrogate_case.ours(x).sum(), x, create_graph=create_graph)
        assert_within_ulp(grad_input, expected, ulp=0.51)
    assert_within_ulp(torch.func.grad(lambda x: surrogate_case.ours(x).sum())(x.detach()), expected, ulp=0.51)


@pytest.mark.parametrize("value", [1.0, math.inf, math.nan])
def test_the_step_s_gradient_is_exactly_zero_on_every_path(value, dtype):
    x = extremes(dtype)
    grad_output = torch.full_like(x, value)
    zero = torch.zeros_like(x)
    _, grad_input = value_and_grad(functional.binary_step, x, grad_output)
    assert_same(grad_input, zero)
    x = leaf(x)
    (grad_input,) = torch.autograd.grad(functional.binary_step(x), x, grad_output, create_graph=True)
    assert_same(grad_input.detach(), zero)
    (grad_input,) = torch.autograd.grad(functional.binary_step(x), x, grad_output[None], is_grads_batched=True)
    assert_same(grad_input[0], zero)
    (grad_input,) = torch.func.vjp(functional.binary_step, x.detach())[1](grad_output)
    assert_same(grad_input, zero)
    _, tangent = torch.func.jvp(functional.binary_step, (x.detach(),), (torch.ones_like(x),))
    assert_same(tangent, zero)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_format_of_values_and_gradients_is_torch_s(case, layout):
    x = LAYOUTS[layout]
    if case.activation.kind == "gated":
        if x.dim() == 0:
            return
        case = case.along(0)
    expected = counterpart(case)(x) if case.key != "rrelu" else F.leaky_relu(x)  # torch's forgets the memory format

    def check(y):
        assert (y.shape, y.dtype) == (expected.shape, expected.dtype)
        if case.key == "logsigmoid":  # torch's forgets the memory format
            assert y.stride() in (F.silu(x).stride(), expected.stride())
        else:
            assert y.stride() == expected.stride()
        if x.numel():
            assert_value_within_ulp(case, x, y)

    check(case.ours(x))
    x = x.detach().requires_grad_()
    y = case.ours(x)
    check(y.detach())
    reference = case.counterpart if case.has_counterpart else F.leaky_relu  # any has the strides to expect
    for grad_output in (noise_like(y), noise_like(y).contiguous(), torch.ones(()).expand_as(y)):
        (grad_input,) = torch.autograd.grad(y, x, grad_output, retain_graph=True)
        assert_grad_within_ulp(case, x, grad_output, grad_input)
        assert grad_input.shape == x.shape
        if case.activation.kind != "gated" and case.key != "identity":
            (grad_reference,) = torch.autograd.grad(reference(x), x, grad_output)
            natural = [torch.empty_like(like).stride() for like in (x, grad_output, y)]
            assert grad_input.stride() in (*natural, grad_reference.stride())


# ---- other inputs, and errors


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.int64, torch.complex64], ids=str)
def test_integers_and_complex_numbers_give_torch_s_result_or_its_error(case, dtype):
    x = torch.tensor([[0, 1, 3], [2, 0, 1]]).to(dtype)
    expected = outcome(case.counterpart if case.key == "glu" else counterpart(case), x)
    actual = outcome(case.ours, x)
    if case.key == "binary_step" and dtype.is_complex:  # heaviside gives RuntimeError, ours a kind of it
        assert issubclass(actual, expected)
    else:
        assert_same_outcome(actual, expected)


def test_complex_gradients_are_torch_s(torch_case):
    x = torch.tensor([0.5 + 1j, -1 + 0.2j])
    expected = outcome(value_and_grad, torch_case.counterpart, x)
    actual = outcome(value_and_grad, torch_case.ours, x)
    if isinstance(expected, tuple):
        for ours, theirs in zip(actual, expected, strict=True):
            assert_same(ours, theirs)
    else:
        assert actual == expected


@pytest.mark.parametrize(("name", "argument"), [("elu", "alpha"), ("celu", "alpha"), ("softplus", "beta")])
def test_none_is_no_number(name, argument):
    """Where torch's refuses it; a limit of SwiGLU may be None."""
    x = torch.ones(3)
    for function in (getattr(functional, name), getattr(F, name)):
        with pytest.raises(TypeError):
            function(x, **{argument: None})


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_types_without_a_kernel_raise_as_torch_does(torch_case, dtype):
    x = torch.zeros(2, 2).to(dtype)
    assert_same_outcome(outcome(torch_case.ours, x), outcome(torch_case.smooth, x))
    assert_same_outcome(outcome(torch_case.ours, leaf(x)), outcome(torch_case.smooth, leaf(x)))


@pytest.mark.parametrize("input", [3, 2.5, [1.0, 2.0], None, "x"], ids=repr)
def test_what_is_no_tensor_is_refused_with_torch_s_error(torch_case, input):
    assert outcome(torch_case.ours, input) in (outcome(torch_case.counterpart, input), TypeError)


@pytest.mark.parametrize("input", [3, [1.0, 2.0], None, "x"], ids=repr)
def test_the_step_refuses_what_is_no_tensor(input):
    for surrogate in (None, "atan"):
        with pytest.raises(TypeError):
            functional.binary_step(input, surrogate)


@pytest.mark.parametrize("other", [0.25, [0.25], None], ids=repr)
def test_prelu_refuses_what_is_no_tensor_as_torch_does(other):
    for operands in ((other, torch.ones(1)), (torch.ones(2, requires_grad=True), other)):
        for prelu in (F.prelu, functional.prelu):
            with pytest.raises(TypeError, match="must be Tensor"):
                prelu(*operands)


def test_the_step_refuses_an_unknown_surrogate():
    with pytest.raises(ValueError, match="surrogate: unknown name 'arctan'; did you mean 'atan'"):
        functional.binary_step(torch.zeros(1), "arctan")
    with pytest.raises(TypeError, match="surrogate: expected a name"):
        functional.binary_step(torch.zeros(1), 3)


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("parameters", [{"negative_slope": "steep"}, {"negative_slope": None}, {"slope": 1}], ids=str)
def test_leaky_relu_refuses_bad_parameters_as_torch_does(parameters, requires_grad):
    x = torch.ones(2, requires_grad=requires_grad)
    with pytest.raises(TypeError):
        F.leaky_relu(x, **parameters)
    with pytest.raises(TypeError):
        functional.leaky_relu(x, **parameters)


@pytest.mark.parametrize("slope", [0, 2, True, torch.tensor(0.25), math.inf], ids=str)
def test_leaky_relu_takes_every_slope_that_torch_takes(slope):
    x = preactivations(torch.float32)
    for actual, expected in zip(
        value_and_grad(lambda x: functional.leaky_relu(x, slope), x),
        value_and_grad(lambda x: F.leaky_relu(x, slope), x),
        strict=True,
    ):
        assert_same(actual, expected)


@pytest.mark.parametrize(
    ("key", "parameters"),
    [
        ("threshold", (-0.5, 1.0)),
        ("rrelu", (0.1, 0.4)),
        ("elu", (1.5,)),
        ("hardtanh", (-1.0, 2.0)),
        ("softplus", (2.0,)),
    ],
)
def test_numbers_may_be_tensors_as_in_torch(key, parameters):
    x = preactivations(torch.float32)
    tensors = [torch.tensor(parameter) for parameter in parameters]
    function = getattr(functional, key)
    for actual, expected in zip(
        value_and_grad(lambda x: function(x, *tensors), x),
        value_and_grad(lambda x: function(x, *parameters), x),
        strict=True,
    ):
        assert_same(actual, expected)


def test_the_sine_of_infinity_is_no_number():
    x = torch.tensor([math.inf, -math.inf, math.nan])
    for y in (functional.sine(x), torch.func.vmap(functional.sine)(x), functional.snake(x)):
        assert y.isnan().all()


def test_a_celu_without_scale_is_refused_as_torch_does():
    with pytest.raises(RuntimeError, match="alpha cannot be 0 for CELU"):
        functional.celu(torch.ones(2), 0)


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("dim", [2, -3, 1.5, "rows"])
def test_softmax_refuses_a_bad_dimension_as_torch_does(dim, requires_grad):
    x = torch.ones(2, 3, requires_grad=requires_grad)
    expected = outcome(F.softmax, x, dim)
    assert issubclass(expected, Exception)
    assert outcome(functional.softmax, x, dim) == expected


# ---- softmax's own matters


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize(("dtype", "source"), [(torch.float32, torch.bfloat16), (torch.float64, torch.float16)])
def test_softmax_casts_to_dtype_first(dtype, source, requires_grad):
    x = preactivations(source).requires_grad_(requires_grad)
    y, expected = functional.softmax(x, -1, dtype=dtype), F.softmax(x, -1, dtype=dtype)
    assert_same(y.detach(), expected.detach())
    if requires_grad:
        (actual,) = torch.autograd.grad(y, x, noise_like(y))
        (expected,) = torch.autograd.grad(expected, x, noise_like(y))
        assert_same(actual, expected)


def test_softmax_of_integers_needs_a_dtype():
    x = torch.tensor([[1, 2, 3]])
    with pytest.raises((RuntimeError, NotImplementedError)):
        functional.softmax(x, -1)
    assert_same(functional.softmax(x, -1, dtype=torch.float32), F.softmax(x, -1, dtype=torch.float32))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 2), (2, 3, 2, 2)], ids=str)
def test_softmax_without_a_dimension_chooses_torch_s_and_warns_at_the_caller(shape):
    x = torch.linspace(-1, 1, math.prod(shape)).reshape(shape)
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        y = functional.softmax(x)
        expected = F.softmax(x)
    assert_within_ulp(y, expected)
    ours, theirs = record
    assert str(ours.message) == str(theirs.message)
    assert ours.category is theirs.category
    assert (ours.filename, theirs.filename) == (__file__, __file__)
    assert ours.lineno == theirs.lineno - 1


def test_softmax_sums_to_one_along_its_dimension(dtype):
    x = preactivations(dtype)
    for dim in (0, 1):
        totals = functional.softmax(x, dim).double().sum(dim)
        # Each of n results is rounded by at most half a ULP of itself, and the exact results sum to 1.
        assert float((totals - 1).abs().max()) <= 4 * torch.finfo(dtype).eps


# ---- in place

inplace = pytest.mark.parametrize("case", INPLACE_CASES, ids=str)
inplace_with_gradient = pytest.mark.parametrize("case", INPLACE_GRADIENT_CASES, ids=str)


def torch_inplace(case):
    return lambda x: case.activation.torch_function(x, **case.parameters, inplace=True)


def ours_inplace(case):
    return lambda x: case.ours(x, inplace=True)


def test_inplace_is_offered_where_torch_has_it():
    in_torch = {key for key in python_functions() if "inplace" in inspect.signature(getattr(F, key)).parameters}
    assert {case.key for case in INPLACE_CASES} == in_torch


@inplace
def test_inplace_overwrites_its_input_and_returns_it(case, dtype):
    x = preactivations(dtype)
    expected = case.ours(x)
    y = case.ours(x, inplace=True)
    assert y is x
    assert_within_ulp(x, expected)  # torch's own operator, and our kernel


@inplace
def test_gradients_in_place_are_torch_s_and_so_is_the_error_for_a_negative_slope(case):
    x = preactivations(torch.float32)
    expected = outcome(value_and_grad, lambda x: torch_inplace(case)(x * 1), x)
    actual = outcome(value_and_grad, lambda x: ours_inplace(case)(x * 1), x)
    if case.parameters.get("negative_slope", 0) < 0:
        assert actual is expected is RuntimeError
    else:
        torch.testing.assert_close(actual[1], expected[1], rtol=2e-6, atol=1e-6)


@inplace
def test_a_leaf_that_requires_grad_cannot_be_overwritten(case):
    x = torch.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
        case.ours(x, inplace=True)


@inplace_with_gradient
def test_overwriting_a_view_reaches_the_base_and_its_gradient(case):
    def through_a_view(function):
        def run(x):
            base = x * 1
            function(base[1:])
            return base

        return run

    x = smooth_points(torch.float32)
    expected = value_and_grad(through_a_view(torch_inplace(case)), x)
    for actual, reference in zip(value_and_grad(through_a_view(ours_inplace(case)), x), expected, strict=True):
        torch.testing.assert_close(actual, reference, rtol=2e-6, atol=1e-6)


@inplace_with_gradient
def test_overwriting_what_another_operator_saved_is_an_error_in_backward(case):
    y = torch.ones(2, requires_grad=True).exp()
    case.ours(y, inplace=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("overwritten", ["input", "output"])
def test_overwriting_input_or_output_is_an_error_exactly_where_it_is_in_torch(torch_case, overwritten):
    def run(function):
        x = leaf(smooth_points())
        input = x * 1
        output = function(input)
        (input if overwritten == "input" else output).add_(1)
        return torch.autograd.grad(output.sum(), x)[0]

    actual, expected = outcome(run, torch_case.ours), outcome(run, torch_case.counterpart)
    if (torch_case.key, overwritten) == ("tanhshrink", "input"):  # torch saves a tensor of its own, tanh(x)
        assert actual is RuntimeError
    elif isinstance(expected, torch.Tensor):
        torch.testing.assert_close(actual, expected, rtol=1e-7, atol=1e-7)
    else:
        assert actual is expected


# ---- other kinds of tensor


def test_identity_returns_its_very_input():
    for x in (torch.ones(2), torch.ones(2, requires_grad=True), nn.Parameter(torch.ones(2)), "anything"):
        assert functional.identity(x) is x


def test_a_parameter_is_a_tensor_like_any_other(case):
    x = smooth_points()
    parameter = nn.Parameter(x.clone())
    y = case.ours(parameter)
    y.backward(noise_like(y))
    assert_same(parameter.grad, value_and_grad(case.ours, x)[1])


class Recorded(torch.Tensor):
    """A tensor that records the functions it was given to."""

    functions: list = []  # noqa: RUF012

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), keywords=None):
        cls.functions.append(function)
        return super().__torch_function__(function, types, arguments, keywords or {})


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("case", [c for c in TORCH_CASES if c.activation.value is c.activation.torch_function], ids=str)
def test_a_subclass_sees_the_function_that_it_sees_from_torch(case, requires_grad):
    seen = []
    for function in (case.ours, case.counterpart):
        x = smooth_points().as_subclass(Recorded).requires_grad_(requires_grad)
        Recorded.functions.clear()
        y = function(x)
        seen.append(list(Recorded.functions))
        assert type(y) is Recorded
    assert seen[0] == seen[1]


def test_a_subclass_goes_through_with_its_gradient(case):
    x = smooth_points()
    value, grad = value_and_grad(case.ours, x)
    y, grad_input = value_and_grad(case.ours, x.as_subclass(Recorded))
    assert type(y) is Recorded
    assert_value_within_ulp(case, x, y.as_subclass(torch.Tensor), formula=True)
    assert_grad_within_ulp(case, x, noise_like(value), grad_input.as_subclass(torch.Tensor), formula=True)
    assert grad.shape == grad_input.shape


@pytest.mark.parametrize("requires_grad", [False, True])
def test_meta_tensors_have_the_shape_dtype_and_strides_of_real_ones(case, dtype, requires_grad):
    x = preactivations(dtype)[:, 1:].clone().t()
    expected = case.ours(x)
    meta = x.to("meta").requires_grad_(requires_grad)
    y = case.ours(meta)
    assert (y.device.type, y.shape, y.dtype) == ("meta", expected.shape, dtype)
    assert y.stride() == (counterpart(case)(meta) if case.key == "logsigmoid" else expected).stride()  # torch's differ
    if requires_grad:
        (grad_input,) = torch.autograd.grad(y, meta, torch.empty_like(y))
        assert (grad_input.device.type, grad_input.shape, grad_input.dtype) == ("meta", x.shape, dtype)


@pytest.mark.parametrize("case", [case for case in CASES if not case.learnt], ids=str)  # whose parameters are real
def test_fake_tensors_stay_fake(case):
    x = preactivations(torch.float32)[:, 1:].clone().t()
    expected = case.ours(x)
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(x).requires_grad_()
        y = case.ours(fake)
        (grad_input,) = torch.autograd.grad(y, fake, torch.empty_like(y))
    for tensor, like in ((y, expected), (grad_input, x)):
        assert type(tensor) is type(fake)
        assert (tensor.shape, tensor.dtype) == (like.shape, like.dtype)
    assert y.stride() == expected.stride() or case.key == "logsigmoid"  # of which torch's own differ


@pytest.mark.parametrize("requires_grad", [False, True])
def test_sparse_tensors_give_torch_s_result_or_its_error(torch_case, requires_grad):
    def run(function):
        x = torch.tensor([[0.0, 2.0], [-3.0, 0.0]]).to_sparse().requires_grad_(requires_grad)
        y = function(x)
        if not requires_grad:
            return y.to_dense()
        torch.sparse.sum(y).backward()
        return x.grad.to_dense()

    assert_close_outcome(outcome(run, torch_case.ours), outcome(run, torch_case.counterpart))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged], ids=str)
def test_nested_tensors_give_torch_s_result_or_its_error(torch_case, layout, requires_grad):
    def run(function):
        rows = [torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, 1.0], [-1.0, 3.0]])]
        x = torch.nested.nested_tensor(rows, layout=layout, requires_grad=requires_grad)
        y = function(x)
        if requires_grad:
            (y,) = torch.autograd.grad(y, x, torch.ones_like(y))
        return torch.cat([row.detach().flatten() for row in y.unbind()])

    assert_close_outcome(outcome(run, torch_case.ours), outcome(run, torch_case.counterpart))


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_autocast_gives_torch_s_dtypes(torch_case, dtype, requires_grad):
    x = preactivations(dtype).requires_grad_(requires_grad)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, expected = torch_case.ours(x), torch_case.counterpart(x)
    assert y.dtype == expected.dtype
    if torch_case.values_are_torch_s:
        assert_same(y.detach(), expected.detach())
    else:
        assert_value_within_ulp(torch_case, x, y)
    if requires_grad:
        (actual,) = torch.autograd.grad(y, x, noise_like(y))
        (expected,) = torch.autograd.grad(expected, x, noise_like(y))
        assert actual.dtype == expected.dtype
        if torch_case.gradients_are_torch_s and torch_case.key != "hardsigmoid":
            assert_same(actual, expected)
        else:
            assert_grad_within_ulp(torch_case, x, noise_like(y), actual)


@contextlib.contextmanager
def cuda_autocast(dtype):
    """Switch on what ``torch.autocast("cuda")`` does, which leaves it off where there is no GPU."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", dtype)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])


def test_autocast_gives_torch_s_dtypes_on_cuda(torch_case, dtype):
    # Without a GPU a tensor can say that it is on one. Autocast believes it; the autograd engine looks for the device.
    for half in (torch.bfloat16, torch.float16):
        with FakeTensorMode(allow_non_fake_inputs=True), cuda_autocast(half):
            x = torch.empty(2, 6, dtype=dtype, device="cuda")
            expected, without_graph = torch_case.counterpart(x), torch_case.ours(x)
            in_training = torch_case.function.apply(*torch_case.operands(x), *torch_case.positional)
        assert (without_graph.dtype, without_graph.device.type) == (expected.dtype, "cuda")
        if torch_case.key != "prelu":  # whose Function autocast does without
            assert (in_training.dtype, in_training.device.type) == (expected.dtype, "cuda")


def test_the_step_keeps_its_dtype_under_autocast_on_every_path(dtype):
    x = preactivations(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for surrogate in (None, *catalogue.SURROGATES):

            def step(x, surrogate=surrogate):
                return functional.binary_step(x, surrogate)

            for y in (step(x), step(leaf(x)), torch.func.vmap(step)(x)):
                assert y.dtype == dtype


# ---- torch's own sample inputs

#: Which of torch's operator descriptions to take sample inputs from.
OPINFO = {
    key: key if key in ("sigmoid", "tanh", "softmax", "log_softmax") else f"nn.functional.{key}"
    for key, record in catalogue.CATALOGUE.items()
    if record.torch_function is not None
}
#: In bfloat16 torch's own are several ULP off: its values in float32 have to serve there.
INACCURATE_IN_TORCH = {"softsign", "tanhshrink", "log_softmax", "softmax", "softmin", "glu", "hardswish"}


@pytest.fixture(scope="module")
def op_infos():
    """Return torch's operator descriptions by name and variant."""
    pytest.importorskip("expecttest")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db
    return {(op.name, op.variant_test_name): op for op in op_db}


@pytest.mark.filterwarnings("ignore:Implicit dimension choice for:UserWarning")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("key", "variant"),
    [
        *((key, "") for key in OPINFO),
        ("softmax", "with_dtype"),
        ("softmin", "with_dtype"),
        ("log_softmax", "with_dtype"),
    ],
    ids=lambda name: name or "plain",
)
def test_torch_s_own_sample_inputs_give_torch_s_values_and_gradients(op_infos, key, variant, dtype):
    op = op_infos[OPINFO[key], variant]
    ours, theirs = getattr(functional, key), catalogue.CATALOGUE[key].torch_function
    samples = list(op.sample_inputs("cpu", dtype, requires_grad=True))
    assert samples
    for sample in samples:
        if dtype is torch.bfloat16 and key in INACCURATE_IN_TORCH:
            y = ours(sample.input.detach().clone(), *sample.args, **sample.kwargs)
            expected = theirs(sample.input.detach().float(), *sample.args, **sample.kwargs)
            torch.testing.assert_close(y, expected.to(y.dtype))
            continue
        results = []
        for function in (ours, theirs):
            x = leaf(sample.input)
            operands = [x, *(argument for argument in sample.args if isinstance(argument, torch.Tensor))]
            torch.manual_seed(0)  # of the randomised ReLU
            y = function(x * 1 if sample.kwargs.get("inplace") else x, *sample.args, **sample.kwargs)
            results.append((y.detach(), *torch.autograd.grad(y, operands, noise_like(y))))
        for actual, expected in zip(*results, strict=True):
            assert actual.dtype == expected.dtype
            torch.testing.assert_close(actual, expected, rtol=None, atol=None)


@pytest.mark.parametrize("key", OPINFO)
def test_torch_s_own_error_inputs_raise_torch_s_errors(op_infos, key):
    op = op_infos[OPINFO[key], ""]
    for error in op.error_inputs("cpu") if op.error_inputs_func else ():
        sample = error.sample_input
        with pytest.raises(error.error_type, match=error.error_regex):
            getattr(functional, key)(sample.input, *sample.args, **sample.kwargs)


def test_every_case_with_a_counterpart_is_compared():
    with_counterpart = {key for key, record in catalogue.CATALOGUE.items() if record.torch_function is not None}
    assert {case.key for case in TORCH_CASES} == with_counterpart
