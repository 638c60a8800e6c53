"""The derivatives of every activation, by everything in PyTorch that differentiates, and which path each takes."""

import contextlib
import functools
import itertools
import operator

import pytest
import torch
import torch.nn.functional as F
from torch import func, nn
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from tests.conftest import (
    CASES,
    INPLACE_GRADIENT_CASES,
    TORCH_CASES,
    assert_close_with_same_nan,
    assert_grad_within_ulp,
    assert_same,
    assert_tangent_within_ulp,
    assert_value_within_ulp,
    assert_within_ulp,
    extremes,
    leaf,
    noise_like,
    preactivations,
    smooth_points,
    value_and_grad,
)
from torchact import autograd, catalogue, functional

X = smooth_points()
ROW = X.flatten()  # softmax takes it with either of its dimensions, as every transform of it does
FUNCTION_CASES = [case for case in CASES if case.key != "identity"]  # identity hands back its input: there is no node
function_cases = pytest.mark.parametrize("case", FUNCTION_CASES, ids=str)


def row_case(case):
    """Return (ours, smooth) as functions of a vector."""
    return case.along(0).ours, case.along(0).smooth


class Operators(TorchDispatchMode):
    """Records the operators that reach a backend."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, operator, types, arguments=(), keywords=None):
        self.names.append(operator._schema.name.removeprefix("aten::"))
        return operator(*arguments, **(keywords or {}))


# ---- which path is taken, and when


def test_every_activation_has_its_own_function():
    # softmax2d is softmax along the channels
    records = [record for record in catalogue.CATALOGUE.values() if record.key != "softmax2d"]
    functions = [getattr(autograd, activation.name) for activation in records]
    assert len(set(functions)) == len(functions)
    for function in functions:
        assert issubclass(function, torch.autograd.Function)
        assert function.__doc__


@function_cases
def test_ordinary_training_takes_the_function(case):
    y = case.ours(leaf(X))
    assert y.grad_fn.name() == f"{case.function.__name__}Backward"


def test_identity_adds_nothing_to_the_graph_but_has_its_function():
    x = leaf(X)
    y = autograd.Identity.apply(x)
    assert y.grad_fn.name() == "IdentityBackward"
    assert_same(y.detach(), X)
    assert y.data_ptr() != x.data_ptr()
    assert_same(torch.autograd.grad(y, x, noise_like(X))[0], noise_like(X))
    assert gradcheck(autograd.Identity.apply, x)
    assert gradgradcheck(autograd.Identity.apply, x)


@pytest.mark.parametrize(
    "mode", [torch.no_grad, torch.inference_mode, contextlib.nullcontext], ids=lambda m: m.__name__
)
def test_without_a_gradient_the_forward_kernel_runs_alone(case, mode, monkeypatch):
    monkeypatch.setattr(case.function, "forward", None)  # which the Function would call
    x = X.clone().requires_grad_(mode is not contextlib.nullcontext)
    with mode(), Operators() as operators:
        y = case.ours(x)
    assert y.grad_fn is None
    assert y.requires_grad == (case.key == "identity" and x.requires_grad)
    assert y.is_inference() == (mode is torch.inference_mode and case.key != "identity")
    if case.values_are_torch_s and not case.learnt:  # whose tensor is cast to the dtype of the input here
        assert len(operators.names) == (2 if case.key == "softmin" else 1)  # torch's softmin negates its input, too
    assert_value_within_ulp(case, X, y)


#: torch's negates its input outside autograd's formula, divides by a constant of float32 digits, makes noise in
#: evaluation too, and has its weight cast here.
OTHER_OPERATORS = {"softmin", "hardsigmoid", "rrelu", "prelu"}


@pytest.mark.parametrize(
    "case", [c for c in TORCH_CASES if c.gradients_are_torch_s and c.key not in OTHER_OPERATORS], ids=str
)
def test_ordinary_training_runs_the_very_operators_that_torch_runs(case):
    runs = []
    for function in (case.ours, case.counterpart):
        with Operators() as operators:
            value_and_grad(function, X)
        runs.append([name for name in operators.names if name != "detach"])  # saved outputs are detached, at no cost
    assert runs[0] == runs[1]


#: How to differentiate y once, and what serves it.
BACKWARD = {
    "plain": (lambda y, x: torch.autograd.grad(y, x, noise_like(y)), "backward_kernel"),
    "create_graph": (lambda y, x: torch.autograd.grad(y, x, noise_like(y), create_graph=True), "pullback"),
    "batch": (lambda y, x: torch.autograd.grad(y, x, noise_like(y)[None], is_grads_batched=True), "pullback"),
    "vmap": (lambda y, x: func.vmap(lambda g: torch.autograd.grad(y, x, g))(noise_like(y)[None]), "pullback"),
}


@function_cases
@pytest.mark.parametrize("situation", BACKWARD)
def test_the_backward_kernel_serves_first_derivatives_and_the_pullback_all_others(case, situation, monkeypatch):
    differentiate, expected = BACKWARD[situation]
    calls = []
    for name in ("backward_kernel", "pullback"):
        original = getattr(case.function, name)

        def record(*arguments, name=name, original=original):
            calls.append(name)
            return original(*arguments)

        monkeypatch.setattr(case.function, name, staticmethod(record))
    x = leaf(X)
    differentiate(case.ours(x), x)
    assert calls == [expected]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@function_cases
def test_wherever_somebody_else_differentiates_the_formula_is_returned(case, monkeypatch):
    formula = case.function.formula
    calls = []

    def record(*arguments):
        calls.append(arguments)
        return formula(*arguments)

    monkeypatch.setattr(case.function, "formula", staticmethod(record))
    case.ours(leaf(X))
    with torch.no_grad():
        case.ours(leaf(X))
    case.ours(X)
    assert not calls  # ordinary training, and evaluation

    class Subclass(torch.Tensor):
        pass

    situations = {
        "vmap": lambda: func.vmap(case.ours)(X[:, 1:]),
        "grad": lambda: func.grad(lambda x: case.ours(x).sum())(X),
        "functionalize": lambda: func.functionalize(case.ours)(X),
        "dual level": lambda: _in_dual_level(case.ours),
        "subclass": lambda: case.ours(X.as_subclass(Subclass)),
        "subclass with gradient": lambda: case.ours(leaf(X).as_subclass(Subclass)),
        "trace": lambda: torch.jit.trace(lambda x: case.ours(x), X, check_trace=False),
        "trace with gradient": lambda: torch.jit.trace(lambda x: case.ours(x), leaf(X), check_trace=False),
        "compiler": lambda: _while_compiling(case.ours, monkeypatch),
        "complex with gradient": lambda: case.ours(leaf(X.to(torch.complex64))),
        "sparse with gradient": lambda: case.ours(leaf(X.to_sparse())),
        "nested with gradient": lambda: case.ours(torch.nested.nested_tensor([ROW, ROW[1:]], requires_grad=True)),
    }
    if case.pair or case.key == "glu":  # of which the weight is no such tensor, or torch's own function takes them
        for situation in ("complex", "sparse", "nested"):
            del situations[f"{situation} with gradient"]
    if case.key == "prelu":  # traced or compiled, it is torch's own
        situations = {name: run for name, run in situations.items() if "trace" not in name and name != "compiler"}
    for situation, run in situations.items():
        calls.clear()
        with contextlib.suppress(RuntimeError, NotImplementedError):  # torch's own for complex, sparse and nested ones
            run()
        assert len(calls) == 1, situation


def _in_dual_level(function):
    with forward_ad.dual_level():
        function(leaf(X))


def _while_compiling(function, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(torch.compiler, "_is_compiling_flag", True)
        function(leaf(X))


@function_cases
def test_the_function_saves_what_the_record_says_and_nothing_else(case):
    saved = []
    x = leaf(X)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        y = case.ours(x)
    if case.pair:
        expected = [(tensor.data_ptr(), tensor.shape) for tensor in case.operands(x)]
        assert [shape for _, shape in expected] == [tensor.shape for tensor in saved]
        assert x.data_ptr() == saved[0].data_ptr()
    else:
        kept = {"input": x, "output": y}[case.activation.saves]
        assert [tensor.data_ptr() for tensor in saved] == [kept.data_ptr()]


SINGLE_CASES = [case for case in CASES if not case.pair]


@pytest.mark.parametrize("case", SINGLE_CASES, ids=str)
def test_the_function_states_the_derivative_in_terms_of_what_it_saves(case):
    x = preactivations()
    saved = case.value(x) if case.activation.saves == "output" else x
    derivative = case.function.derivative(saved, *case.positional)
    assert_within_ulp(derivative, case.derivative(x), scale=case.max_derivative(x))


@pytest.mark.parametrize(
    "case", [case for case in SINGLE_CASES if case.activation.elementwise and case.gradients_are_torch_s], ids=str
)
def test_the_function_s_derivative_of_extreme_values_is_torch_s(case):
    x = extremes(torch.float64)
    y, expected = value_and_grad(case.smooth, x, torch.ones_like(x))
    saved = y if case.activation.saves == "output" else x
    assert_close_with_same_nan(case.function.derivative(saved, *case.positional), expected)


def test_gradients_are_exact_when_saved_tensors_are_packed_away(case):
    with torch.autograd.graph.save_on_cpu():
        actual = value_and_grad(case.ours, X)
    for tensor, expected in zip(actual, value_and_grad(case.ours, X), strict=True):
        assert_same(tensor, expected)


@function_cases
def test_a_graph_can_be_used_twice_only_if_it_is_retained(case):
    x = leaf(X)
    y = case.ours(x)
    first = torch.autograd.grad(y.sum(), x, retain_graph=True)
    second = torch.autograd.grad(y.sum(), x)
    assert_same(*first, *second)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(y.sum(), x)


def test_gradients_of_several_uses_add_up(case):
    ones = torch.ones_like(case.ours(X))
    _, once = value_and_grad(case.ours, X, ones)
    _, twice = value_and_grad(lambda x: case.ours(x) + case.ours(x), X, ones)
    assert_same(twice, 2 * once)


def test_only_a_part_of_the_network_may_need_a_gradient(case):
    y = case.ours(X)
    weight = leaf(torch.ones_like(y))
    (gradient,) = torch.autograd.grad(y * weight, weight, torch.ones_like(y))
    assert_same(gradient, case.ours(X))


# ---- against finite differences


@pytest.mark.parametrize("case", [case for case in CASES if not case.surrogate], ids=str)
def test_gradcheck(case):
    assert gradcheck(
        case.ours, leaf(X), check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True
    )


def test_gradgradcheck(case):
    # For a surrogate too: this differentiates backward, which is a smooth function of the input.
    assert gradgradcheck(case.ours, leaf(X), check_fwd_over_rev=True, check_batched_grad=True)


def test_gradcheck_of_a_surrogate_sees_that_the_gradient_is_not_the_step_s(surrogate_case):
    assert not gradcheck(surrogate_case.ours, leaf(X), raise_exception=False)


# ---- higher derivatives


def test_derivatives_to_third_order_by_create_graph(case):
    # Of the binary step, only the derivatives are the stand-in's; so the loss takes neither's values.
    def derivatives(function):
        x = leaf(X)
        results = []
        y = function(x)
        total = (y * noise_like(y)).sum() + x.square().sum()
        for _ in range(3):
            (gradient,) = torch.autograd.grad(total, x, create_graph=True)
            results.append(gradient)
            total = (gradient * noise_like(X)).sum() + (gradient * x).sum()
        return results

    for actual, expected in zip(derivatives(case.ours), derivatives(case.smooth), strict=True):
        assert_within_ulp(actual, expected, ulp=16, scale=float(expected.detach().abs().max()))


def test_a_first_derivative_has_derivatives_where_torch_s_has(torch_case):
    def again(function):
        x = leaf(X)
        (gradient,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
        return gradient.requires_grad and torch.autograd.grad(gradient.sum(), x)[0]

    actual, expected = again(torch_case.ours), again(torch_case.smooth)
    assert (actual is False) == (expected is False)
    if expected is not False:
        assert_within_ulp(actual, expected, ulp=16, scale=float(torch_case.max_derivative()))


def test_the_step_s_zero_derivative_has_zero_derivatives_of_every_order():
    x = leaf(X)
    gradient = autograd.BinaryStep.call(x, None)
    for _ in range(4):
        (gradient,) = torch.autograd.grad(gradient.sum(), x, create_graph=True)
        assert_same(gradient.detach(), torch.zeros_like(X))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_gradients_with_create_graph_are_as_accurate_as_without(case, dtype):
    x = leaf(preactivations(dtype))
    y = case.ours(x)
    grad_output = noise_like(y)
    (gradient,) = torch.autograd.grad(y, x, grad_output, create_graph=True)
    assert gradient.dtype == dtype
    assert_grad_within_ulp(case, x, grad_output, gradient, formula=True)


PIECEWISE_LINEAR = [
    case
    for case in FUNCTION_CASES
    if not case.pair
    and case.gradients_are_torch_s
    and not case.activation.second_derivative(X, **case.parameters).any()
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", PIECEWISE_LINEAR, ids=str)
def test_piecewise_linear_gradients_with_create_graph_are_as_extreme_as_without(case, dtype):
    x = leaf(extremes(dtype))
    y = case.ours(x)
    for number in (1.0, torch.inf):
        grad_output = torch.full_like(y, number)
        (expected,) = torch.autograd.grad(y, x, grad_output, retain_graph=True)
        (gradient,) = torch.autograd.grad(y, x, grad_output, retain_graph=True, create_graph=True)
        assert_close_with_same_nan(gradient, expected)


@pytest.mark.parametrize(
    "nesting",
    list(itertools.product((func.jacfwd, func.jacrev), repeat=3)),
    ids=lambda nesting: "-".join(transform.__name__ for transform in nesting),
)
def test_third_derivatives_by_every_nesting_of_jacobians(case, nesting):
    ours, smooth = row_case(case)
    x = ROW[1:5]
    for transform in nesting:
        ours, smooth = transform(ours), transform(smooth)
    expected = smooth(x)
    assert_within_ulp(ours(x), expected, ulp=16, scale=float(expected.detach().abs().max()))


@pytest.mark.parametrize("vectorize", [False, True])
def test_autograd_functional(case, vectorize):
    ours, smooth = row_case(case)
    strategies = ("reverse-mode", "forward-mode") if vectorize else ("reverse-mode",)
    for strategy in strategies:
        jacobian = functools.partial(torch.autograd.functional.jacobian, vectorize=vectorize, strategy=strategy)
        assert_within_ulp(jacobian(ours, ROW), jacobian(smooth, ROW), scale=case.max_derivative())
        hessian = functools.partial(
            torch.autograd.functional.hessian, vectorize=vectorize, outer_jacobian_strategy=strategy
        )
        expected = hessian(lambda x: weighted(smooth(x)), ROW)
        actual = hessian(lambda x: weighted(ours(x)), ROW)
        assert_within_ulp(actual, expected, ulp=16, scale=float(expected.detach().abs().max()))


# ---- torch.func

TANGENT = torch.linspace(-1, 2, ROW.numel(), dtype=torch.float64)


def weighted(y):
    """Return a number that depends on every entry of a vector, which is half as long for a gated unit."""
    return (y * TANGENT[: y.numel()]).sum()


def cotangent(y):
    return TANGENT[: y.shape[-1]]


#: From a function of a vector to its derivative in one form or another.
TRANSFORMS = {
    "grad": lambda f: func.grad(lambda x: weighted(f(x)))(ROW),
    "grad_and_value": lambda f: func.grad_and_value(lambda x: weighted(f(x)))(ROW)[0],
    "vjp": lambda f: func.vjp(f, ROW)[1](cotangent(f(ROW)))[0],
    "jvp": lambda f: func.jvp(f, (ROW,), (TANGENT,))[1],
    "linearize": lambda f: func.linearize(f, ROW)[1](TANGENT),
    "jacrev": lambda f: func.jacrev(f)(ROW),
    "jacrev in chunks": lambda f: func.jacrev(f, chunk_size=2)(ROW),
    "jacfwd": lambda f: func.jacfwd(f)(ROW),
    "hessian": lambda f: func.hessian(lambda x: weighted(f(x)))(ROW),
    "hessian vector product": lambda f: func.jvp(func.grad(lambda x: weighted(f(x))), (ROW,), (TANGENT,))[1],
    "gradients of samples": lambda f: func.vmap(func.grad(lambda x: weighted(f(x))))(X[:, 1:]),
    "gradient of a batch": lambda f: func.grad(lambda x: weighted(func.vmap(f)(x).flatten()))(X[:, 1:]),
    "batch of tangents": lambda f: func.vmap(lambda t: func.jvp(f, (ROW,), (t,))[1])(torch.eye(6, dtype=ROW.dtype)),
    "batch of cotangents": lambda f: func.vmap(func.vjp(f, ROW)[1])(torch.eye(len(f(ROW)), dtype=ROW.dtype))[0],
    "vjp of jvp": lambda f: func.vjp(lambda x: func.jvp(f, (x,), (TANGENT,))[1], ROW)[1](cotangent(f(ROW)))[0],
    "jvp of vjp": lambda f: func.jvp(lambda x: func.vjp(f, x)[1](cotangent(f(x)))[0], (ROW,), (TANGENT,))[1],
    "autograd of vmap": lambda f: value_and_grad(func.vmap(f), X[:, 1:])[1],
    "autograd of jvp": lambda f: value_and_grad(lambda x: func.jvp(f, (x,), (TANGENT,))[1].sum() + x * x, ROW)[1],
}


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms_give_the_derivatives(case, transform):
    ours, smooth = row_case(case)
    expected = TRANSFORMS[transform](smooth)
    assert_within_ulp(TRANSFORMS[transform](ours), expected, ulp=16, scale=max(1, float(expected.detach().abs().max())))


def assert_formula_agrees(case, x, actual, expected):
    """Assert that what the formula gives, where somebody else differentiates, is what the kernel gives elsewhere."""
    if case.activation.elementwise:
        assert_value_within_ulp(case, x, actual, formula=True)
    else:
        assert_within_ulp(actual, expected)


def test_transforms_give_the_value_beside_the_derivative(case):
    ours, _ = row_case(case)
    expected = ours(ROW)
    value, _ = func.vjp(ours, ROW)
    assert_formula_agrees(case, ROW, value, expected)
    assert_same(func.jvp(ours, (ROW,), (TANGENT,))[0], value)
    assert_same(func.grad_and_value(lambda x: ours(x).sum())(ROW)[1], value.sum())


def test_vmap_maps_over_any_dimension_and_nests(case):
    ours, _ = row_case(case)
    batch = torch.stack([X, 2 * X, -X])[:, :, 1:]  # 3 × 2 × 2
    expected = torch.stack([torch.stack([ours(row) for row in matrix]) for matrix in batch])
    nested = func.vmap(func.vmap(ours))
    assert_formula_agrees(case, batch, nested(batch), expected)
    columns = func.vmap(func.vmap(ours, in_dims=1, out_dims=1), in_dims=2, out_dims=2)(batch.permute(2, 1, 0))
    assert_formula_agrees(case, batch, columns.permute(2, 1, 0), expected)


def test_a_graph_made_outside_is_differentiated_inside_vmap(case):
    x = leaf(ROW)
    ours, _ = row_case(case)
    y = ours(x)
    rows = func.vmap(lambda v: torch.autograd.grad(y, x, v, retain_graph=True)[0])(torch.eye(len(y), dtype=x.dtype))
    expected = func.jacrev(ours)(ROW)
    assert_within_ulp(rows, expected, scale=case.max_derivative())


def test_batched_gradients_are_the_gradients_one_by_one(case, dtype):
    x = leaf(preactivations(dtype))
    y = case.ours(x)
    grad_outputs = torch.stack([noise_like(y), torch.ones_like(y)])
    for create_graph in (False, True):
        (batch,) = torch.autograd.grad(
            y, x, grad_outputs, is_grads_batched=True, create_graph=create_graph, retain_graph=True
        )
        for grad_output, gradient in zip(grad_outputs, batch, strict=True):
            assert gradient.dtype == dtype
            assert_grad_within_ulp(case, x, grad_output, gradient)


# ---- forward-mode AD


@pytest.mark.parametrize("requires_grad", [False, True])
def test_dual_numbers_carry_the_derivative(case, dtype, requires_grad):
    x = preactivations(dtype).requires_grad_(requires_grad)
    tangent = noise_like(x)
    with forward_ad.dual_level():
        output = forward_ad.unpack_dual(case.ours(forward_ad.make_dual(x, tangent)))
    assert_value_within_ulp(case, x, output.primal, formula=True)
    # Autograd has σ' as y(1 - y), half an ULP of 1 off, and a gate multiplies that by up to 44 ≥ x z'(x).
    assert_tangent_within_ulp(case, x, tangent, output.tangent, ulp=32)


def test_forward_over_reverse_of_dual_numbers(case):
    def hessian_vector_product(function):
        x = leaf(X)
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x, noise_like(X))
            (gradient,) = torch.autograd.grad(weighted(function(dual).flatten()), x, create_graph=True)
            return forward_ad.unpack_dual(gradient).tangent

    expected = hessian_vector_product(case.smooth)
    actual = hessian_vector_product(case.ours)
    if expected is None:
        assert actual is None or not actual.any()
    else:
        assert_within_ulp(actual, expected, ulp=16, scale=float(expected.detach().abs().max()))


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_graph_made_outside_takes_dual_gradients(case, create_graph):
    # Which some of torch's own, SiLU's and Mish's for example, refuse.
    x = leaf(X)
    y = case.ours(x)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(torch.ones_like(y), noise_like(y))
        (gradient,) = torch.autograd.grad(y, x, dual, create_graph=create_graph)
        tangent = forward_ad.unpack_dual(gradient).tangent
    if tangent is None:  # as good as zero
        tangent = torch.zeros_like(X)
    assert_grad_within_ulp(case, X, noise_like(y), tangent)


# ---- checkpoint, autocast


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_checkpointing_changes_no_gradient(case, use_reentrant, autocast):
    torch.manual_seed(0)
    half = 3 if case.activation.kind == "gated" else 6
    layers = [case.along(-1).module(torch.float32) for _ in range(2)]
    model = nn.Sequential(nn.Linear(6, 6), layers[0], nn.Linear(half, 6), layers[1])
    x = noise_like(torch.empty(4, 6))

    def gradients(run):
        model.zero_grad()
        input = leaf(x)
        torch.manual_seed(1)  # of the randomised ReLU
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = run(input)
        output.backward(noise_like(output))
        return output.detach(), input.grad, *(parameter.grad for parameter in model.parameters())

    expected = gradients(model)
    actual = gradients(lambda input: checkpoint(model, input, use_reentrant=use_reentrant))
    for tensor, reference in zip(actual, expected, strict=True):
        assert_same(tensor, reference)


# ---- torch.compile, export, jit.trace


def by_activation(cases):
    return [list(group) for _, group in itertools.groupby(cases, operator.attrgetter("key"))]


def once_each(cases):
    """Return of each activation one case, and one with a learnable parameter: the others take the same path."""
    return list({(case.key, case.learnt): case for case in reversed(cases)}.values())[::-1]


def in_groups(cases, size):
    """Return the cases of a few activations at a time, since each compilation takes seconds."""
    activations = by_activation(cases)
    return [list(itertools.chain(*activations[start : start + size])) for start in range(0, len(activations), size)]


def keys(cases):
    return "+".join(dict.fromkeys(case.key for case in cases))


def compiled(cases, **options):
    """Return one compiled function that applies every case to its own tensor."""

    def run(xs):
        return [case.ours(x) for case, x in zip(cases, xs, strict=True)]

    return torch.compile(run, fullgraph=True, **options)


def assert_values_and_gradients(cases, function, x):
    """Assert that a compiled function has the reference's values and gradients at ``x``, and no NaN at extremes."""
    xs = [leaf(x) for _ in cases]
    ys = function(xs)
    grad_outputs = [noise_like(y) for y in ys]
    # All at once: what is compiled frees its buffers when it goes backward.
    grad_inputs = torch.autograd.grad(ys, xs, grad_outputs)
    for case, y, grad_output, grad_input in zip(cases, ys, grad_outputs, grad_inputs, strict=True):
        assert grad_input.dtype == x.dtype
        assert_value_within_ulp(case, x, y, formula=True)
        assert_grad_within_ulp(case, x, grad_output, grad_input, ulp=32, formula=True)


def assert_values_gradients_and_extremes(cases, function, dtype):
    """Assert both, for inputs of the same shape: another one would be compiled anew."""
    assert_values_and_gradients(cases, function, preactivations(dtype).reshape(26, 10))
    assert_extremes(cases, function, extremes(dtype).repeat(2, 5)[:26])


def assert_extremes(cases, function, x):
    """Assert that no finite input gives NaN, and that values and gradients are torch's where the formula is torch's."""
    xs = [leaf(x) for _ in cases]
    ys = function(xs)
    grad_inputs = torch.autograd.grad(ys, xs, [torch.ones_like(y) for y in ys])
    numbers = ~x.isnan()  # of NaN, torch's own kernels make 0 or NaN, after the dtype and the instruction set
    for case, y, grad_input in zip(cases, ys, grad_inputs, strict=True):
        if case.activation.elementwise:
            assert not grad_input[x.isfinite()].isnan().any()
            assert not y[x.isfinite()].isnan().any()
            if case.activation.value is not case.activation.torch_function:  # of NaN, Inductor's softshrink gives 0
                assert y[x.isnan()].isnan().all() or case.key == "binary_step"
        if case.gradients_are_torch_s:
            expected = value_and_grad(case.ours, x, torch.ones_like(y))
            if case.activation.elementwise:
                assert_close_with_same_nan(y.detach()[numbers], expected[0][numbers])
                assert_close_with_same_nan(grad_input[numbers], expected[1][numbers])
            else:
                assert_close_with_same_nan(y.detach(), expected[0])


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("cases", in_groups(CASES, 6), ids=keys)
def test_compiled_by_inductor_values_and_gradients_are_the_reference_s(cases):
    assert_values_gradients_and_extremes(cases, compiled(cases), torch.float32)


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.bfloat16], ids=str
)  # float16 takes its path; float32: see above
@pytest.mark.parametrize("cases", in_groups(CASES, 6), ids=keys)
def test_compiled_values_and_gradients_are_the_reference_s_in_each_dtype(cases, dtype):
    assert_values_gradients_and_extremes(cases, compiled(cases, backend="aot_eager"), dtype)


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("cases", in_groups(once_each(CASES), 6), ids=keys)
def test_compiled_for_any_shape_values_and_gradients_are_the_reference_s(cases):
    torch._dynamo.utils.counters.clear()
    function = compiled(cases, backend="aot_eager", dynamic=True)
    whole = preactivations(torch.float32)
    for x in (whole, whole[:, 7:40].contiguous(), torch.cat([whole, whole])):
        assert_values_and_gradients(cases, function, x)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("cases", [cases for cases in by_activation(CASES) if len(cases) > 1], ids=keys)
def test_one_compiled_function_serves_several_parameters(cases):
    function = getattr(functional, cases[0].key)
    one = torch.compile(lambda x, parameters: function(x, **parameters) * 1, fullgraph=True, backend="aot_eager")
    for case in (*cases, *cases):  # the second time round, each has to find its own constants again
        assert_values_and_gradients([case], lambda xs, case=case: [one(xs[0], case.parameters_for(xs[0]))], X)


class InModels(nn.Module):
    """Give what each activation makes of an input, and what is around it."""

    def __init__(self, models):
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, x):
        return tuple(model(x) for model in self.models)


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("cases", in_groups(once_each(CASES), 6), ids=keys)
def test_compiled_in_a_model_the_gradients_are_those_of_eager_mode(cases):
    torch.manual_seed(0)
    widths = [3 if case.activation.kind == "gated" else 6 for case in cases]
    activations = [case.along(-1).module() for case in cases]
    models = [
        nn.Sequential(nn.Linear(6, 6), activation, nn.Linear(width, 6))
        for activation, width in zip(activations, widths, strict=True)
    ]
    model = InModels(models).double().eval()
    x = noise_like(torch.empty(4, 6, dtype=torch.float64))
    results = []
    for run in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        model.zero_grad()
        sum(y.square().sum() for y in run(x)).backward()
        results.append([parameter.grad for parameter in model.parameters()])
    for actual, expected in zip(*results, strict=True):
        assert_within_ulp(actual, expected, ulp=16, scale=float(expected.detach().abs().max()))


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("case", INPLACE_GRADIENT_CASES, ids=str)
def test_compiled_in_place_values_and_gradients_are_those_of_eager_mode(case):
    function = torch.compile(lambda x: case.ours(x * 1, inplace=True), fullgraph=True, backend="aot_eager")
    assert_values_and_gradients([case], lambda xs: [function(xs[0])], X)


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.filterwarnings("ignore:Implicit dimension choice for softmax:UserWarning")
@pytest.mark.parametrize("parameters", [{"dim": None}, {"dim": 0, "dtype": torch.float32}], ids=str)
def test_compiled_softmax_takes_every_argument(parameters):
    function = torch.compile(lambda x: functional.softmax(x, **parameters), fullgraph=True, backend="aot_eager")
    expected = value_and_grad(lambda x: F.softmax(x, **parameters), X)
    for actual, reference in zip(value_and_grad(function, X), expected, strict=True):
        assert_same(actual, reference)


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("cases", in_groups(once_each(FUNCTION_CASES), 6), ids=keys)
def test_compiled_autograd_traces_the_backward_of_a_graph_made_in_eager_mode(cases):
    xs = [leaf(X) for _ in cases]
    ys = [case.ours(x) for case, x in zip(cases, xs, strict=True)]
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="aot_eager", fullgraph=True)):
        torch.autograd.backward(ys, [noise_like(y) for y in ys])
    for case, x, y in zip(cases, xs, ys, strict=True):
        assert_grad_within_ulp(case, X, noise_like(y), x.grad)


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("cases", in_groups(once_each(CASES), 6), ids=keys)
def test_transforms_inside_a_compiled_function_give_the_derivatives(cases):
    rows = [row_case(case) for case in cases]

    def gradients(x):
        return [func.grad(lambda x, ours=ours: weighted(ours(x)))(x) for ours, _ in rows]

    function = torch.compile(gradients, fullgraph=True, backend="aot_eager")
    for actual, (_, smooth) in zip(function(ROW), rows, strict=True):
        expected = func.grad(lambda x, smooth=smooth: weighted(smooth(x)))(ROW)
        assert_within_ulp(actual, expected, ulp=16, scale=max(2, float(expected.abs().max())))


def in_models(cases):
    return InModels([nn.Sequential(case.module(torch.float32)) for case in cases]).eval()


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("strict", [False, True], ids=["non-strict", "strict"])
@pytest.mark.parametrize("cases", in_groups(CASES, 6), ids=keys)
def test_exported_programs_have_values_and_gradients_of_the_reference(cases, strict):
    x = leaf(preactivations(torch.float32))
    exported = torch.export.export(in_models(cases), (x,), strict=strict).module()
    for case, y in zip(cases, exported(x), strict=True):
        assert_value_within_ulp(case, x.detach(), y, formula=True)
        (gradient,) = torch.autograd.grad(y, x, noise_like(y))
        assert_grad_within_ulp(case, x.detach(), noise_like(y), gradient, ulp=32, formula=True)


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("cases", in_groups(once_each(CASES), 6), ids=keys)
def test_exported_programs_take_any_batch_size(cases):
    x = preactivations(torch.float32)
    batch = 2 * torch.export.Dim("half", max=1000)  # a dimension that is halved has to be known to be even
    exported = torch.export.export(in_models(cases), (x,), dynamic_shapes=({0: batch},)).module()
    more = torch.cat([x, x])
    for case, y in zip(cases, exported(more), strict=True):
        assert_value_within_ulp(case, more, y, formula=True)


@pytest.mark.parametrize("cases", in_groups(CASES, 6), ids=keys)
def test_a_traced_model_is_a_plain_graph_of_aten_operators(cases):
    model = nn.Sequential(nn.Linear(6, 6), in_models(cases)).eval()
    x = noise_like(torch.empty(4, 6))
    traced = torch.jit.trace(model, x)  # which traces twice, and checks that both graphs are equal
    kinds = {node.kind() for node in traced.inlined_graph.nodes()}
    assert all(kind.startswith(("aten::", "prim::")) for kind in kinds)
    assert "prim::PythonOp" not in kinds
    h = model[0](x).detach()
    for case, y in zip(cases, traced(x), strict=True):
        assert_value_within_ulp(case, h, y.detach(), formula=True)


# ---- random slopes

#: How to differentiate the randomised ReLU in training.
RANDOM = {
    "autograd": lambda f: value_and_grad(f, X)[1],
    "create_graph": lambda f: torch.autograd.functional.vhp(lambda x: f(x).square().sum(), X, X)[1],
    "grad": lambda f: func.grad(lambda x: f(x).square().sum())(X),
    "jvp": lambda f: func.jvp(f, (X,), (X,))[1],
    "vmap": lambda f: func.vmap(f, randomness="different")(X),
}


@pytest.mark.parametrize("situation", RANDOM)
def test_random_slopes_are_torch_s_in_every_situation_in_which_torch_has_them(situation):
    results = []
    for rrelu in (functional.rrelu, F.rrelu):
        torch.manual_seed(0)
        try:
            results.append(RANDOM[situation](lambda x, rrelu=rrelu: rrelu(x, training=True)))
        except RuntimeError as error:  # torch's has no vmap
            results.append(str(error))
    actual, expected = results
    if isinstance(expected, str):
        assert actual == expected
    else:
        assert_within_ulp(actual, expected)
