"""The kernels of each activation against the float64 reference."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.conftest import (
    CASES,
    assert_grad_within_ulp,
    assert_same,
    assert_value_within_ulp,
    assert_within_ulp,
    needs_kernels,
    noise_like,
    preactivations,
    value_and_grad,
)
from torchact import catalogue, kernels
from torchact.kernels import choice, extension, reference, tables

ROOT = Path(__file__).parent.parent


SILU = next(case for case in CASES if case.key == "silu")


def run_forward(case, x):
    return case.kernels.forward(*case.operands(x), *case.positional)


def run_backward(case, grad_output, x, y):
    """Run the backward kernel of ``case`` and return the gradient of ``x``."""
    backward = case.kernels.backward
    if case.activation.saves == "nothing":
        return backward(grad_output)
    if case.activation.saves == "output":
        return backward(grad_output, y, *case.positional)
    grad_input = backward(grad_output, *case.operands(x), *case.positional)
    return grad_input[0].to(x.dtype) if case.learnt else grad_input


def test_every_activation_has_kernels_and_nothing_else_has():
    assert set(kernels.KERNELS) | set(kernels.PAIR_KERNELS) | {"softmax2d"} == set(catalogue.CATALOGUE)
    assert set(kernels.PAIR_KERNELS) == {record.key for record in catalogue.CATALOGUE.values() if record.pair}


def test_the_forward_kernel_computes_the_value(case, dtype):
    x = preactivations(dtype)
    y = run_forward(case, x)
    assert y.dtype == dtype
    assert_value_within_ulp(case, x, y)


def test_the_backward_kernel_computes_the_derivative_times_grad_output(case, dtype):
    x = preactivations(dtype)
    y = run_forward(case, x)
    grad_output = noise_like(y)
    grad_input = run_backward(case, grad_output, x, y)
    assert grad_input.dtype == dtype
    assert_grad_within_ulp(case, x, grad_output, grad_input)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_kernels_return_a_new_tensor_and_leave_their_arguments_alone(case, dtype):
    x = preactivations(dtype)
    y = run_forward(case, x)
    grad_output = noise_like(y)
    before = [argument.clone() for argument in (x, grad_output, y)]
    grad_input = run_backward(case, grad_output, x, y)
    for argument, copy in zip((x, grad_output, y), before, strict=True):
        assert_same(argument, copy)
        assert grad_input.data_ptr() != argument.data_ptr()
    assert y.data_ptr() != x.data_ptr()


def test_kernels_compute_half_types_in_wider_arithmetic(surrogate_case):
    # One rounding, of the result, leaves half a unit in the last place; rounding at every step leaves several.
    for dtype in (torch.bfloat16, torch.float16):
        x = preactivations(dtype)
        grad_input = run_backward(surrogate_case, torch.ones_like(x), x, None)
        assert_within_ulp(grad_input, surrogate_case.derivative(x), ulp=0.51)


class Dtypes(TorchDispatchMode):
    """Records the floating dtypes that operators return."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, operator, types, arguments=(), keywords=None):
        result = operator(*arguments, **(keywords or {}))
        self.seen |= {leaf.dtype for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)}
        return result


def test_kernels_on_other_devices_compute_in_float32(case):
    # On the CPU float64 costs twice as much, on a GPU up to 64 times.
    for dtype in (torch.float32, torch.bfloat16):
        x = preactivations(dtype).to("meta")
        with Dtypes() as dtypes:
            y = run_forward(case, x)
            grad_input = run_backward(case, torch.empty_like(y), x, y)
        assert (y.dtype, grad_input.dtype, grad_input.shape) == (dtype, dtype, x.shape)
        assert dtypes.seen <= {dtype, torch.float32, torch.bool}


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_the_step_s_derivative_is_exactly_zero_whatever_it_multiplies(value):
    grad_output = torch.full((3,), value)
    grad_input = kernels.KERNELS["binary_step"].backward(grad_output, torch.tensor([-1.0, 0.0, 1.0]), None)
    assert_same(grad_input, torch.zeros(3))


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("threshold", [-1.0, 0.5, 20.0, float("inf")])
def test_the_shorter_formula_of_softplus_has_any_threshold(threshold, dtype):
    x = torch.linspace(-100, 100, 4001, dtype=dtype)
    wide = x.double()
    value = torch.where(wide > threshold, wide, torch.logaddexp(wide, torch.zeros_like(wide)))
    derivative = torch.where(wide > threshold, 1.0, wide.sigmoid())
    assert_within_ulp(torch.ops.torchact.softplus(x, 1.0, threshold), value, ulp=2)
    gradient = torch.ops.torchact.softplus_backward(torch.ones_like(x), x, 1.0, threshold)
    assert_within_ulp(gradient, derivative, ulp=4)


# ---- tables of half types

HALF_TYPES = (torch.bfloat16, torch.float16)


def all_numbers(dtype):
    return torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(dtype)


def forget_tables():
    tables.of_values.cache_clear()
    tables.of_derivatives.cache_clear()
    tables._spent.clear()


def tables_made():
    return tables.of_values.cache_info().misses + tables.of_derivatives.cache_info().misses


def directions_with_a_table(case, dtype):
    forget_tables()
    x = all_numbers(dtype)
    y = run_forward(case, x)
    run_backward(case, y, x, y)
    return {
        "forward": tables.of_values.cache_info().currsize == 1,
        "backward": tables.of_derivatives.cache_info().currsize == 1,
    }


TABULATED = {
    (case, dtype): directions
    for case in CASES
    for dtype in HALF_TYPES
    if any((directions := directions_with_a_table(case, dtype)).values())
}


def test_the_functions_that_take_longer_than_a_table_s_entry_have_tables():
    both = {(case.key, dtype) for (case, dtype), directions in TABULATED.items() if all(directions.values())}
    assert both >= set(itertools.product(("silu", "gelu", "mish", "softplus", "quick_gelu", "sine"), HALF_TYPES))
    assert [case.key for case, _ in TABULATED if case.pair] == []


def test_derivatives_that_are_computed_faster_than_looked_up_have_none():
    """Of bfloat16, and where there are vectors."""
    computed = {(case.key, dtype) for (case, dtype), directions in TABULATED.items() if not directions["backward"]}
    has_vectors = kernels.status().instruction_set in ("AVX2", "AVX-512")
    assert {key for key, dtype in computed if dtype is torch.bfloat16} & choice.QUICK == (
        choice.QUICK if has_vectors else set()
    )
    assert {key for key, dtype in computed if dtype is torch.float16} & choice.QUICK == set()


@pytest.mark.parametrize(("case", "dtype"), TABULATED, ids=str)
def test_what_is_looked_up_is_what_would_be_computed_bit_for_bit(case, dtype):
    x = all_numbers(dtype)
    grad_output = noise_like(x)
    parts = [slice(part, part + 2**14) for part in range(0, 2**16, 2**14)]
    expected, expected_grad = [], []
    for part in parts:  # too few to be looked up
        forget_tables()
        expected.append(run_forward(case, x[part]))
        expected_grad.append(run_backward(case, grad_output[part], x[part], expected[-1]))
        assert tables_made() == 0
    y = run_forward(case, x)
    grad_input = run_backward(case, grad_output, x, y)
    assert tables_made() == sum(TABULATED[case, dtype].values())
    assert_same(y, torch.cat(expected))
    assert_same(y.signbit()[y == 0], torch.cat(expected).signbit()[y == 0])
    assert_same(grad_input, torch.cat(expected_grad))


def test_many_calls_of_few_numbers_make_a_table_too():
    forget_tables()
    mish = next(case for case, _ in TABULATED if case.key == "mish")
    for _ in range(63):
        run_forward(mish, torch.ones(16, dtype=torch.bfloat16))
    assert tables_made() == 0
    run_forward(mish, torch.ones(16, dtype=torch.bfloat16))
    assert tables_made() == 1


def test_a_table_is_made_once_and_from_plain_numbers_whoever_asks_first():
    forget_tables()
    x = all_numbers(torch.bfloat16).reshape(4, -1)
    few = run_forward(SILU, x[:1]), run_forward(SILU, x[1:2])
    with torch.inference_mode():
        assert_same(run_forward(SILU, x)[:2], torch.stack([part[0] for part in few]))
    assert tables_made() == 1
    expected = run_forward(SILU, x)
    assert not expected.is_inference()
    with Dtypes():  # a mode might be one of fake tensors
        assert_same(run_forward(SILU, x), expected)
    assert tables_made() == 1


def test_what_does_not_lie_side_by_side_keeps_its_strides():
    x = all_numbers(torch.bfloat16).reshape(256, 256)
    y = run_forward(SILU, x.t())
    assert y.stride() == x.t().stride()
    assert_same(y.t(), run_forward(SILU, x))


def test_large_tensors_are_computed_piece_by_piece_with_the_same_result(monkeypatch):
    plain = reference.of_record("silu")
    x = preactivations(torch.float32)
    expected = plain.forward(x)
    grad_output = noise_like(x)
    expected_grad = plain.backward(grad_output, x)
    monkeypatch.setattr(reference, "_PIECE", 100)
    assert_same(plain.forward(x), expected)
    assert_same(plain.backward(grad_output, x), expected_grad)
    assert_same(plain.forward(x.t()), expected.t())


# ---- the compiled operators

OPERATORS = extension.operator_names() if kernels.status().loaded else []
SUMS = {"add_statistics": 71, "add_within_of_each": 4}  # how many
WITH_RESULTS = [name for name in OPERATORS if not name.startswith("add_")]  # the others write into what is given


def schema(name):
    return getattr(torch.ops.torchact, name).default._schema


def arguments(name, dtype=torch.float32, x=None):
    """Return something to call an operator with."""
    x = preactivations(dtype) if x is None else x
    given = {
        "dim": -2,
        "gate_first": True,
        "table": torch.arange(2**16, dtype=torch.float32),
        "intervals": torch.tensor([[-9.0, 5.0], [-5.0, 9.0]], dtype=torch.float64),
        "exponents": True,
        "sums": torch.zeros(SUMS.get(name, 14), dtype=torch.float64),
        "inputs": [x, x.double()],
        "largest": torch.zeros(x.shape[-2]),
    }
    if name == "add_largest_of_units":
        given["dim"] = x.dim() - 2
    if name.startswith("look_up"):
        x = x.bfloat16()
    if name == "look_up":
        given["table"] = given["table"].bfloat16()
    halved = x[: len(x) // 2] if name.endswith("_packed_backward") else x
    tensors = {"input": x, "saved": x, "first": x, "second": x.flip(-1), "grad_output": noise_like(halved)}
    return [
        tensors[argument.name] if argument.name in tensors else given.get(argument.name, 1.5)
        for argument in schema(name).arguments
    ]


@needs_kernels
def test_the_status_names_the_instruction_set():
    status = kernels.status()
    assert status.instruction_set in ("baseline", "AVX2", "AVX-512")
    assert status.reason is None
    assert status.instruction_set in str(status)


@needs_kernels
def test_kernels_of_another_version_say_so():
    with pytest.raises(ImportError, match="have no unheard_of: they are of another version"):
        extension.operator("unheard_of")
    with pytest.raises(ImportError, match="have no unheard_of: they are of another version"):
        extension.function("unheard_of")


@needs_kernels
@pytest.mark.parametrize("name", OPERATORS)
def test_operators_are_registered_as_torch_wants_it(name):
    torch.library.opcheck(getattr(torch.ops.torchact, name).default, tuple(arguments(name)))


@needs_kernels
@pytest.mark.parametrize("name", WITH_RESULTS)
def test_results_do_not_depend_on_how_the_operands_lie(name):
    operator = getattr(torch.ops.torchact, name)
    expected = operator(*arguments(name))

    def laid_out_otherwise(value):
        if not isinstance(value, torch.Tensor) or value.numel() != 260 or "softm" in name:
            return value
        return value.repeat_interleave(3, dim=1)[:, ::3].t().contiguous().t()

    actual = operator(*map(laid_out_otherwise, arguments(name)))
    for ours, theirs in zip(tree_leaves(actual), tree_leaves(expected), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-15 if name == "statistics" else 0, atol=0)


@needs_kernels
@pytest.mark.parametrize("name", [name for name in WITH_RESULTS if "_packed" not in name])
def test_results_do_not_depend_on_the_number_of_threads(name):
    operator = getattr(torch.ops.torchact, name)
    x = torch.linspace(-9, 9, 2**18 + 3)[None, :]
    expected = operator(*arguments(name, x=x))
    torch.set_num_threads(2)
    try:
        actual = operator(*arguments(name, x=x))
    finally:
        torch.set_num_threads(1)
    for ours, theirs in zip(tree_leaves(actual), tree_leaves(expected), strict=True):
        assert_same(ours, theirs)


@needs_kernels
@pytest.mark.parametrize(
    ("name", "operands", "message"),
    [
        ("silu", (torch.arange(3),), "floating-point"),
        ("silu_backward", (torch.ones(3), torch.ones(3).double()), "expected Double like the other operands|expected"),
        ("glu", (torch.ones(2), torch.ones(3)), "can be broadcast, got sizes 2 and 3"),
        ("glu_packed", (torch.ones(3), 0, False), "even size in dimension 0, got 3"),
        ("glu_packed", (torch.ones(4), 1, False), "dim: expected a dimension of the input, which has 1, got 1"),
        ("look_up", (torch.ones(3), torch.ones(2**16)), "expected bfloat16 or float16"),
        ("look_up", (torch.ones(3).half(), torch.ones(3).half()), "table: expected 65536 entries of Half"),
        ("look_up", (torch.ones(3).half(), torch.ones(2**16)), "table: expected 65536 entries of Half"),
        ("look_up_backward", (torch.ones(3).half(), torch.ones(3).half(), torch.ones(3)), "entries of Float"),
        ("softmax", (torch.ones(3), 2), "dim: expected"),
        ("statistics", (torch.ones(3), torch.ones(3), False), "intervals: expected"),
    ],
)
def test_operators_refuse_what_they_do_not_take(name, operands, message):
    with pytest.raises(RuntimeError, match=message):
        getattr(torch.ops.torchact, name)(*operands)


def results():
    """Return the values and gradients of every case, by case and dtype."""
    return {
        (str(case), dtype): value_and_grad(case.ours, preactivations(dtype).repeat(1, 16))
        for case in CASES
        for dtype in (torch.float32, torch.float64, torch.bfloat16)
    }


IN_A_PROCESS = """
import sys, torch, torchact
from tests.test_kernels import results
torch.save((str(torchact.kernels.status()), results()), sys.argv[1])
"""


@needs_kernels
@pytest.mark.parametrize(
    ("environment", "status"),
    [({"TORCHACT_KERNELS": "0"}, "TORCHACT_KERNELS=0"), ({"TORCHACT_INSTRUCTIONS": "baseline"}, "baseline")],
    ids=["without kernels", "baseline instructions"],
)
def test_results_are_the_same_with_other_kernels_or_none(environment, status, tmp_path):
    command = [sys.executable, "-W", "error", "-c", IN_A_PROCESS, str(tmp_path / "results.pt")]
    subprocess.run(command, env=os.environ | environment, check=True, cwd=ROOT)
    said, there = torch.load(tmp_path / "results.pt")
    assert status in said
    for key, expected in results().items():
        case = next(case for case in CASES if str(case) == key[0])
        slope = case.max_derivative()
        # Both are within the bound of the mathematics, or, in float64, as exact as a formula is; of outputs that are
        # off by some ULP, the derivatives are by as many of the greatest.
        inexact = key[1] is torch.float64 or case.pair or case.activation.kind != "elementwise"
        from_output = slope if case.activation.saves == "output" else 0
        for ours, theirs, more in zip(expected, there[key], (0, from_output), strict=True):
            scale = theirs.abs().double() + more + (20 * (1 + slope) if inexact else 0)
            assert_within_ulp(ours, theirs.double(), ulp=8, scale=scale)


@pytest.mark.parametrize(
    ("name", "value", "known"),
    [("TORCHACT_KERNELS", "yes", "0 or 1"), ("TORCHACT_INSTRUCTIONS", "avx2", "one of baseline, AVX2, AVX-512")],
)
def test_an_unknown_setting_is_refused(name, value, known):
    command = [sys.executable, "-c", "import torchact"]
    result = subprocess.run(command, env=os.environ | {name: value}, capture_output=True, text=True)
    assert f"{name}: expected {known}, got '{value}'" in result.stderr


# ---- statistics


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_statistics_are_those_of_the_float64_tensor(dtype):
    x = torch.randn(1003, 7, generator=torch.Generator().manual_seed(0)).relu().to(dtype)
    x[0, :3] = torch.tensor([2e-39, -torch.finfo(dtype).max, torch.finfo(dtype).smallest_normal], dtype=torch.float64)
    exact = x.double()
    low, high = torch.tensor([[0.5, 2.0], [1.0, 9.0]], dtype=torch.float64)
    count, total, squares, zeros, non_finite, subnormal, within, *exponents, largest = kernels.statistics(
        x, torch.stack([low, high]), True
    )
    assert count == x.numel()
    assert float(total) == pytest.approx(float(exact.sum()), rel=1e-12)
    assert float(squares) == pytest.approx(float(exact.square().sum()), rel=1e-12)
    assert zeros == (x == 0).sum()
    assert non_finite == 0
    assert subnormal == ((x != 0) & (x.abs().float() < 2**-126) & (dtype is not torch.float64)).sum()
    assert within == sum(((exact >= a) & (exact <= b)).sum() for a, b in zip(low, high, strict=True))
    assert largest == exact.abs().max()
    bits = exact.view(torch.int64) >> 52 & 2047 if dtype is torch.float64 else x.float().view(torch.int32) >> 23 & 255
    assert_same(torch.stack(exponents), torch.bincount(bits.flatten(), minlength=len(exponents)).double())


@needs_kernels
def test_statistics_count_what_is_not_finite():
    x = torch.tensor([1.0, float("inf"), -float("inf"), float("nan")] * 20)
    count, total, squares, _, non_finite, _, _, largest = kernels.statistics(x)
    assert (count, non_finite) == (80, 60)
    assert total.isnan()
    assert squares.isnan()
    assert largest.isnan()
    assert kernels.statistics(x[:3])[-1] == float("inf")


@needs_kernels
def test_statistics_take_more_entries_than_32_bits_count():
    x = torch.ones(1).expand(2**31 + 5)
    assert kernels.statistics(x)[0] == kernels.statistics(x)[1] == 2**31 + 5


@needs_kernels
def test_statistics_of_several_tensors_are_those_of_each():
    tensors = [
        torch.randn(size, generator=torch.Generator().manual_seed(size)) for size in (0, 1, 70_000, 300, 600_000)
    ]
    tensors += [tensors[3].bfloat16(), tensors[3].double(), torch.ones(6, 5)[:, ::2]]
    together = torch.ones(len(tensors), 7, dtype=torch.float64)
    kernels.add_statistics_of_each(together, tensors)
    for row, tensor in zip(together, tensors, strict=True):
        alone = torch.ones(7, dtype=torch.float64)
        kernels.add_statistics(alone, tensor)
        assert_same(row, alone)
        exact = tensor.double()
        assert float(row[1]) == pytest.approx(1 + float(exact.sum()), rel=1e-12)
        assert row[-1] == max(1, exact.abs().max() if tensor.numel() else 0)
    with pytest.raises(RuntimeError, match="sums: expected 7 float64 numbers on the input's device, got 8"):
        kernels.add_statistics_of_each(torch.zeros(8, dtype=torch.float64), tensors[:1])


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_what_lies_within_intervals_is_counted_in_several_tensors(dtype):
    tensors = [torch.randn(size, generator=torch.Generator().manual_seed(size)).to(dtype) for size in (5, 100_000)]
    tensors[0][0] = float("nan")
    sums = torch.zeros(2, 2, dtype=torch.float64)
    intervals = torch.tensor([[-float("inf"), 0.5], [-1.0, 1.0]], dtype=torch.float64)
    kernels.add_within_of_each(sums, tensors, intervals)
    expected = [[t.numel(), int(((t <= -1) | ((t >= 0.5) & (t <= 1))).sum())] for t in tensors]
    assert sums.tolist() == expected


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("octaves", [1, 20, 40, 300])
def test_bins_of_exponents_are_exact_however_far_the_numbers_spread(dtype, octaves):
    generator = torch.Generator().manual_seed(octaves)
    exponents = torch.rand(9001, generator=generator, dtype=torch.float64).mul(-octaves)
    x = torch.exp2(exponents).mul(torch.randn(9001, generator=generator).sign()).to(dtype)
    x[::5] = 0
    x[4096] = 1e-3  # a chunk of this one and zeros
    x[4097:8192] = 0
    for special in ([], [float("inf")], [float("nan"), 0.0]):
        x[: len(special)] = torch.tensor(special)
        sums = torch.zeros(71, dtype=torch.float64)
        kernels.add_statistics(sums, x)
        bins = (x.float().view(torch.int32) >> 23 & 255) // 4
        assert_same(sums[6:-1], torch.bincount(bins, minlength=64).double())


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 40, 2000), (9, 20_000), (9001, 33), (70, 40_000), (0, 4, 2)], ids=str)
def test_the_largest_of_each_unit_does_not_count_nan(dtype, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    x[:, ::3] *= 0
    x[:1, 1:2] = float("nan")
    x[-1:, -1:] = -float("inf")
    largest = torch.full(shape[1:2], 0.5)
    kernels.add_largest_of_units(largest, x, 1)
    expected = x.float().abs().nan_to_num(0, posinf=float("inf")).movedim(1, 0).flatten(1)
    assert_same(largest, torch.cat([expected, torch.full((shape[1], 1), 0.5)], 1).amax(1))


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_by_addresses_results_are_those_of_the_operators(dtype):
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, generator=generator).to(dtype) for shape in ((0, 3), (), (2, 3, 50), (3, 7, 9001))]
    intervals = torch.tensor([[-float("inf"), 0.5], [-1.0, 1.0]], dtype=torch.float64)
    moments, within = (
        torch.zeros(len(tensors), 7, dtype=torch.float64),
        torch.zeros(len(tensors), 2, dtype=torch.float64),
    )
    kernels.add_statistics_of_each(moments, tensors)
    kernels.add_within_of_each(within, tensors, intervals)
    taken = kernels.statistics_of_each_at([kernels.flat(tensor) for tensor in tensors])
    assert_same(torch.frombuffer(taken, dtype=torch.float64).view_as(moments), moments)
    for tensor, expected, expected_within in zip(tensors, moments, within, strict=True):
        flat = kernels.flat(tensor)
        sums, binned, expected_binned, inside = (torch.zeros(n, dtype=torch.float64) for n in (7, 71, 71, 2))
        kernels.add_statistics_at(sums.data_ptr(), False, *flat)
        assert_same(sums, expected)
        kernels.add_statistics_at(binned.data_ptr(), True, *flat)
        kernels.add_statistics(expected_binned, tensor)
        assert_same(binned, expected_binned)
        kernels.add_within_at(inside.data_ptr(), intervals.data_ptr(), 2, *flat)
        assert_same(inside, expected_within)
    largest, expected_largest = torch.zeros(2, 7)
    kernels.add_largest_of_units_at(largest.data_ptr(), 3, 7, 9001, *kernels.flat(tensors[-1]))
    kernels.add_largest_of_units(expected_largest, tensors[-1], 1)
    assert_same(largest, expected_largest)


LIE_ELSEWHERE = {
    "another device": lambda: torch.ones(2, device="meta"),
    "integers": lambda: torch.ones(2, dtype=torch.int64),
    "complex": lambda: torch.ones(2, dtype=torch.complex64),
    "strided": lambda: torch.ones(4)[::2],
    "expanded": lambda: torch.ones(1).expand(2),
    "channels last": lambda: torch.ones(2, 2, 2, 2).contiguous(memory_format=torch.channels_last),
    "negated": lambda: torch.ones(2, dtype=torch.complex64).conj().imag,
    "one that is negated": lambda: torch.ones(1, dtype=torch.complex64).conj().imag,
    "zeros by themselves": lambda: torch._efficientzerotensor(2),
    "a zero by itself": lambda: torch._efficientzerotensor(()),
    "sparse": lambda: torch.ones(2, 2).to_sparse(),
    "sparse rows": lambda: torch.ones(2, 2).to_sparse_csr(),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
    "a subclass": lambda: torch.ones(2).as_subclass(type("Other", (torch.Tensor,), {})),
    "no tensor": lambda: [1.0, 2.0],
}


@pytest.mark.parametrize("make", LIE_ELSEWHERE.values(), ids=LIE_ELSEWHERE)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta", "ignore:The PyTorch API of nested tensors")
def test_what_lies_elsewhere_is_not_taken_by_its_address(make):
    assert kernels.flat(make()) is None


@needs_kernels
def test_what_lies_side_by_side_is_taken_by_its_address():
    x = torch.ones(2, 3, requires_grad=True)
    assert kernels.flat(x) == kernels.flat(torch.nn.Parameter(x)) == (x.data_ptr(), 6, 0)
    assert kernels.flat(torch.ones(0, 3, dtype=torch.float16))[1:] == (0, 3)
    taken = []
    torch.func.vmap(lambda row: (taken.append(kernels.flat(row)), row)[1])(x)
    assert taken == [None]


@needs_kernels
@pytest.mark.parametrize(("last", "finite"), [(-1e308, True), (float("inf"), False), (float("nan"), False)])
def test_what_is_taken_leaves_zeros(last, finite):
    sums = torch.tensor([1.0, -0.0, 3.0, last], dtype=torch.float64)
    expected = sums.clone()
    taken, all_finite = kernels.take(sums.data_ptr(), 4)
    assert_same(torch.frombuffer(taken, dtype=torch.float64), expected)
    assert all_finite is finite
    assert_same(sums, torch.zeros(4, dtype=torch.float64))


@needs_kernels
def test_calls_by_address_refuse_what_is_no_address():
    with pytest.raises(TypeError, match="expected 5 whole numbers, got 1"):
        kernels.add_statistics_at(0)
    with pytest.raises(TypeError, match="integer"):
        kernels.take("0", 1)
    with pytest.raises(TypeError, match=r"expected \(address, count, type\), got None"):
        kernels.statistics_of_each_at([None])
    with pytest.raises(TypeError, match="expected a list, got 7"):
        kernels.statistics_of_each_at(7)


def test_statistics_of_what_no_kernel_takes_raise():
    assert not kernels.is_one_pass(torch.arange(3))
    with pytest.raises(RuntimeError, match=r"no compiled kernel reduces torch\.int64 on cpu"):
        kernels.statistics(torch.arange(3))
