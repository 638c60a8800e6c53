"""torch's own operators with our kernels: the same results through torch's autograd, and afterwards torch's kernels."""

import copy
import subprocess
import sys
import threading
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import torchact
from tests.conftest import (
    DTYPES,
    assert_close_with_same_nan,
    assert_same,
    assert_within_ulp,
    extremes,
    noise_like,
    preactivations,
    value_and_grad,
)
from torchact import functional, kernels
from torchact.acceleration import OPERATORS, accelerate, accelerated, is_accelerated

if not kernels.status().loaded:
    pytest.skip(str(kernels.status()), allow_module_level=True)

#: torch's functions that are accelerated, and ours.
FUNCTIONS = {
    "tanh": (torch.tanh, functional.tanh),
    "sigmoid": (torch.sigmoid, functional.sigmoid),
    "silu": (F.silu, functional.silu),
    "mish": (F.mish, functional.mish),
    "gelu": (F.gelu, functional.gelu),
    "gelu_tanh": (lambda x: F.gelu(x, approximate="tanh"), functional.gelu_tanh),
    "logsigmoid": (F.logsigmoid, functional.logsigmoid),
}
INPLACE = {
    "tanh": torch.Tensor.tanh_,
    "sigmoid": torch.Tensor.sigmoid_,
    "silu": lambda x: F.silu(x, inplace=True),
    "mish": lambda x: F.mish(x, inplace=True),
}

function = pytest.mark.parametrize("name", FUNCTIONS)
inplace = pytest.mark.parametrize("name", INPLACE)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))


@pytest.fixture
def acceleration():
    with accelerated():
        yield


def cpu_kernel(operator):
    """Return where the kernel of one of torch's operators is registered."""
    table = torch._C._dispatch_dump_table(f"aten::{operator}").splitlines()
    return next(line for line in table if line.startswith("CPU:"))


# ---- on and off


def test_every_operator_gets_our_kernel_and_torch_s_back():
    before = {operator: cpu_kernel(operator) for operator in OPERATORS}
    with accelerated():
        assert is_accelerated()
        for operator in OPERATORS:
            assert "accelerate.cpp" in cpu_kernel(operator), operator
    assert not is_accelerated()
    assert {operator: cpu_kernel(operator) for operator in OPERATORS} == before


@function
def test_torch_s_results_come_back_bit_for_bit(name):
    torch_s, _ = FUNCTIONS[name]
    x = preactivations(torch.float32)
    before = value_and_grad(torch_s, x)
    with accelerated():
        value_and_grad(torch_s, x)
    for actual, expected in zip(value_and_grad(torch_s, x), before, strict=True):
        assert_same(actual, expected)


def test_blocks_nest_and_the_process_may_ask_for_it_too():
    with accelerated():
        with accelerated():
            pass
        assert is_accelerated()
        accelerate()
        accelerate()
    assert is_accelerated()
    accelerate(False)
    assert not is_accelerated()
    accelerate(False)
    assert not is_accelerated()


def test_an_exception_ends_a_block():
    with pytest.raises(ZeroDivisionError), accelerated():
        raise ZeroDivisionError
    assert not is_accelerated()


@pytest.mark.usefixtures("acceleration")
def test_other_threads_have_it_too():
    x, results = preactivations(torch.float32), []
    thread = threading.Thread(target=lambda: results.append(torch.sigmoid(x)))
    thread.start()
    thread.join()
    assert_same(results[0], functional.sigmoid(x))


def test_torch_s_warning_does_not_reach_the_user():
    code = "import torch, torchact\nwith torchact.accelerated(): torch.tanh(torch.ones(2))"
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("", "")


def test_without_kernels_it_raises_and_says_why(monkeypatch):
    monkeypatch.setattr(kernels.extension, "STATUS", kernels.Status(False, None, False, "of a test"))
    with pytest.raises(RuntimeError, match="of a test"):
        accelerate()
    with pytest.raises(RuntimeError, match="of a test"), accelerated():
        pass
    assert not is_accelerated()


# ---- values and gradients


def test_many_float32_numbers_have_the_faster_tanh():
    few, many = (torch.linspace(-9, 9, count) for count in (16383, 16384))
    expected = functional.tanh(many)
    with accelerated():
        assert_same(torch.tanh(many), expected)
        assert_same(torch.tanh_(many.clone()), expected)
        assert_same(torch.tanh(few), torch.ops.torchact.tanh(few))


@function
@every_dtype
@pytest.mark.usefixtures("acceleration")
def test_values_are_those_of_our_functions_bit_for_bit_and_gradients_too(name, dtype):
    torch_s, ours = FUNCTIONS[name]
    x = preactivations(dtype).repeat(300, 1)  # enough for a table
    y, grad_input = value_and_grad(torch_s, x)
    expected, expected_grad = value_and_grad(ours, x)
    if name == "logsigmoid" and dtype in (torch.bfloat16, torch.float16):  # whose values are not looked up
        assert_within_ulp(y, expected.double(), ulp=1)
        assert_close_with_same_nan(grad_input, expected_grad)
    elif name in ("tanh", "sigmoid", "logsigmoid"):  # whose backward pass stays torch's
        assert_same(y, expected)
        assert_close_with_same_nan(grad_input, expected_grad)
    else:
        assert_same(y, expected)
        assert_same(grad_input, expected_grad)


@function
@every_dtype
def test_results_are_torch_s_to_some_ulp_also_at_the_ends_of_the_range(name, dtype):
    torch_s, ours = FUNCTIONS[name]
    x = extremes(dtype)
    expected = value_and_grad(torch_s, x)
    with accelerated():
        actual = value_and_grad(torch_s, x)
    finite = x.isfinite()
    for of_ours, of_torch, reference in zip(actual, expected, value_and_grad(ours, x), strict=True):
        # At the greatest numbers torch's tanh-GELU has NaN, and its GELU with AVX-512 ∞.
        agreed = finite & of_torch.isfinite()
        assert_close_with_same_nan(of_ours[agreed], of_torch[agreed])
        assert_close_with_same_nan(of_ours, reference)


@inplace
@every_dtype
@pytest.mark.usefixtures("acceleration")
def test_in_place_the_input_is_overwritten(name, dtype):
    x = preactivations(dtype)
    expected = FUNCTIONS[name][0](x)
    result = INPLACE[name](x)
    assert result is x or result.data_ptr() == x.data_ptr()
    assert_same(x, expected)
    leaf = preactivations(dtype).requires_grad_()
    INPLACE[name](leaf * 1).sum().backward()
    assert leaf.grad is not None


@inplace
def test_errors_in_place_are_torch_s(name):
    def outcomes():
        leaf = torch.ones(3, requires_grad=True)
        expanded = torch.ones(1).expand(3)
        y = leaf.exp()
        INPLACE[name](y)  # which exp needs in backward
        for run in (lambda: INPLACE[name](leaf), lambda: INPLACE[name](expanded), lambda: y.sum().backward()):
            with pytest.raises(RuntimeError) as error:
                run()
            yield str(error.value).split("[")[0]

    expected = list(outcomes())
    with accelerated():
        assert list(outcomes()) == expected


@inplace
@pytest.mark.usefixtures("acceleration")
def test_in_place_a_view_is_overwritten_and_nothing_beside_it(name):
    base = preactivations(torch.float32)
    expected = base.clone()
    expected[:, ::2] = FUNCTIONS[name][0](base[:, ::2])
    INPLACE[name](base[:, ::2])
    assert_within_ulp(base, expected.double())  # by torch's own operator


@function
@pytest.mark.usefixtures("acceleration")
def test_autograd_is_torch_s_at_every_order(name):
    torch_s, _ = FUNCTIONS[name]
    x = torch.tensor([-2.0, -0.7, 0.3, 1.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(torch_s, x, check_batched_grad=True, check_forward_ad=name != "logsigmoid")
    assert torch.autograd.gradgradcheck(torch_s, x)
    hessian = torch.func.hessian(lambda x: torch_s(x).sum())(x.detach())
    assert_close_with_same_nan(
        hessian.diagonal(), torch.func.vmap(torch.func.grad(torch.func.grad(torch_s)))(x.detach())
    )


def test_a_graph_outlives_the_acceleration_it_was_made_under():
    for torch_s, ours in FUNCTIONS.values():
        x = preactivations(torch.float32).requires_grad_()
        with accelerated():
            y = torch_s(x)
        (grad_input,) = torch.autograd.grad(y, x, noise_like(y))
        torch.testing.assert_close(grad_input, value_and_grad(ours, x.detach())[1])
        y = torch_s(x)
        with accelerated():
            (grad_input,) = torch.autograd.grad(y, x, noise_like(y))
        torch.testing.assert_close(grad_input, value_and_grad(ours, x.detach())[1])


# ---- what our kernels do not serve


@function
def test_other_dtypes_layouts_and_errors_are_torch_s(name):
    torch_s, _ = FUNCTIONS[name]
    inputs = [
        torch.arange(-2, 3),
        torch.tensor([True, False]),
        torch.complex(torch.tensor([0.5]), torch.tensor([-1.0])),
        torch.tensor([0.5, -1.0]).to_sparse(),
        torch.empty(0, 3),
        torch.tensor(0.7),
        torch.ones(1).expand(4),
        preactivations(torch.float32).t(),
        torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last),
        torch.ones(2, device="meta"),
    ]

    def outcome(x):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return torch_s(x)
        except Exception as error:
            return type(error)

    expected = [outcome(x) for x in inputs]
    with accelerated():
        actual = [outcome(x) for x in inputs]
    for ours, torch_s_own, x in zip(actual, expected, inputs, strict=True):
        if isinstance(torch_s_own, type):  # the stable ABI passes on messages, but not classes
            assert ours in (torch_s_own, RuntimeError), x
        elif torch_s_own.is_sparse:
            assert_close_with_same_nan(ours.to_dense(), torch_s_own.to_dense())
        elif not torch_s_own.is_meta:
            assert ours.dtype == torch_s_own.dtype
            assert name == "logsigmoid" or ours.stride() == torch_s_own.stride()
            torch.testing.assert_close(ours, torch_s_own)


@function
def test_out_forms_stay_torch_s(name):
    out_form = {"tanh": torch.tanh, "sigmoid": torch.sigmoid}.get(name)
    if out_form is None:
        out_form = getattr(torch.ops.aten, {"gelu_tanh": "gelu", "logsigmoid": "log_sigmoid"}.get(name, name)).out
    x = preactivations(torch.float32)
    expected = out_form(x, out=torch.empty(0))
    with accelerated():
        assert_close_with_same_nan(out_form(x, out=torch.empty(0)), expected)


@pytest.mark.usefixtures("acceleration")
def test_autocast_and_inference_mode_see_torch_s_operators():
    x = preactivations(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert F.gelu(nn.Linear(65, 3)(x)).dtype is torch.bfloat16
    with torch.inference_mode():
        assert torch.tanh(x).is_inference()
        assert_same(torch.tanh(x.clone()), functional.tanh(x))


@pytest.mark.usefixtures("acceleration", "fresh_dynamo")
def test_compiled_code_is_inductor_s_own():
    x = preactivations(torch.float32)
    assert_close_with_same_nan(torch.compile(torch.tanh, fullgraph=True)(x), functional.tanh(x))


# ---- models


def test_a_plain_an_accelerated_and_a_converted_model_agree():
    transformers = pytest.importorskip("transformers", reason="the extra `development` has transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=13, bos_token_id=0, eos_token_id=1, n_positions=16, n_embd=16, n_layer=2, n_head=2,
        activation_function="gelu",
    )  # fmt: skip
    plain = transformers.GPT2LMHeadModel(config).eval()
    converted = copy.deepcopy(plain)
    torchact.convert(converted)
    tokens = torch.randint(13, (3, 9))

    def loss_and_gradients(model):
        model.zero_grad()
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        return loss.detach(), [parameter.grad.clone() for parameter in model.parameters()]

    expected, gradients = loss_and_gradients(plain)
    with accelerated():
        accelerated_results = loss_and_gradients(plain)
    for loss, others in (accelerated_results, loss_and_gradients(converted)):
        assert_within_ulp(loss, expected)
        for actual, gradient in zip(others, gradients, strict=True):
            torch.testing.assert_close(actual, gradient, rtol=1e-4, atol=64 * torch.finfo(torch.float32).eps)


# ---- torch's own samples

OP_INFOS = (
    "tanh",
    "sigmoid",
    "nn.functional.silu",
    "nn.functional.mish",
    "nn.functional.gelu",
    "nn.functional.logsigmoid",
)


@pytest.fixture(scope="module")
def op_infos():
    pytest.importorskip("expecttest")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db
    return {op.name: op for op in op_db if op.variant_test_name == ""}


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64, torch.int64]
)
@pytest.mark.parametrize("name", OP_INFOS)
def test_torch_s_own_samples_give_torch_s_results(op_infos, name, dtype):
    op = op_infos[name]
    if dtype not in op.supported_dtypes("cpu"):
        return
    gradients = dtype in op.supported_backward_dtypes("cpu")

    def run(sample):
        y = op(sample.input, *sample.args, **sample.kwargs)
        if not gradients:
            return (y,)
        return y, *torch.autograd.grad(y, sample.input, noise_like(y.detach().real).to(y.dtype))

    samples = list(op.sample_inputs("cpu", dtype, requires_grad=gradients))
    assert samples
    expected = [run(sample) for sample in samples]
    with accelerated():
        actual = [run(sample) for sample in samples]
    for ours, torch_s in zip(actual, expected, strict=True):
        for result, reference in zip(ours, torch_s, strict=True):
            torch.testing.assert_close(result, reference)


@pytest.mark.parametrize("name", OP_INFOS)
def test_torch_s_own_error_inputs_raise_torch_s_errors(op_infos, name):
    op = op_infos[name]
    with accelerated():
        for error in op.error_inputs("cpu") if op.error_inputs_func else ():
            sample = error.sample_input
            with pytest.raises(error.error_type, match=error.error_regex):
                op(sample.input, *sample.args, **sample.kwargs)
