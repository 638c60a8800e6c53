"""The kernels for CUDA: their source, run on the CPU."""

import ctypes
import math
import mmap
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from tests.compilers import COMPILER
from tests.conftest import DTYPES, assert_within_ulp, extremes, needs_kernels
from torchact import kernels
from torchact.kernels.extension import STATUS, operator_names

ROOT = Path(__file__).parent.parent
EMULATION = Path(__file__).parent / "cuda_emulation"
KERNELS = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))

#: What the operators' arguments that are numbers are given: numbers that every type has.
NUMBERS = {
    "min_val": -0.5,
    "max_val": 0.75,
    "negative_slope": 0.25,
    "threshold": 0.5,
    "value": -2.0,
    "alpha": 1.5,
    "beta": 2.0,
    "lambd": 0.5,
    "omega": 3.0,
    "limit": 1.5,
    "offset": 1.0,
}
#: The formulas that have kernels for CUDA; others of the operators are the CPU's alone.
FORMULAS = set(re.findall(r"^  X\((\w+),", (ROOT / "csrc" / "activations.h").read_text(encoding="utf-8"), re.MULTILINE))


def noise(shape, dtype, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def schema(name):
    return getattr(torch.ops.torchact, name).default._schema


def assert_close(actual, expected, ulp):
    # Near a root a reference cancels, and so does a derivative by the output.
    assert_within_ulp(actual, expected, ulp, scale=expected.abs() + 0.5)


def ulps(dtype):
    """Return how far a result may be off: half types are rounded once, from float32."""
    return {torch.float64: 16, torch.float32: 5}.get(dtype, 0.6)


# ---- the source, emulated: threads run one after the other


def _as_argument(argument):
    return ctypes.c_void_p(argument.data_ptr()) if isinstance(argument, torch.Tensor) else argument


class Emulated:
    """The library of the kernels' source under stand-in headers."""

    TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)  # as csrc/geometry.h counts them

    def __init__(self, library):
        self._library = ctypes.CDLL(str(library))
        self._library.run.restype = self._library.softmax.restype = ctypes.c_char_p
        self._library.divide.restype = ctypes.c_int64

    def reduce(self, name, x, *others):
        """Run a kernel that merges statistics of a tensor, given what it takes after the tensor."""
        lies = len(x.shape), (ctypes.c_int64 * x.dim())(*x.shape), (ctypes.c_int64 * x.dim())(*x.stride())
        function = getattr(self._library, name)
        function.restype = ctypes.c_char_p
        error = function(self.TYPES.index(x.dtype), *lies, ctypes.c_void_p(x.data_ptr()), *map(_as_argument, others))
        assert error is None, error

    def add_largest_of_units(self, x, outer, units, inner, largest):
        numbers = map(ctypes.c_int64, (outer, units, inner))
        self._library.add_largest_of_units.restype = ctypes.c_char_p
        arguments = self.TYPES.index(x.dtype), ctypes.c_void_p(x.data_ptr()), *numbers, _as_argument(largest)
        assert self._library.add_largest_of_units(*arguments) is None

    def softmax(self, name, inputs, output, dim):
        """Run the kernel of a softmax over a dimension, or of its gradient; return how many blocks it has."""
        shape, reached = inputs[0].shape, (ctypes.c_int64 * 2)()
        sizes = math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1 :])
        data = (ctypes.c_void_p * (len(inputs) + 1))(*(operand.data_ptr() for operand in (*inputs, output)))
        arguments = self.TYPES.index(output.dtype), len(inputs), data, *map(ctypes.c_int64, sizes), reached
        error = self._library.softmax(name.encode(), *arguments)
        assert error is None, error
        assert reached[0] == 1
        return reached[1]

    def divide(self, n, d):
        return self._library.divide(ctypes.c_int64(n), ctypes.c_int64(d))

    def run(self, name, inputs, outputs, numbers=(), most_blocks=2**62):
        """Run the kernel of an operator, of each launch the last blocks; return how many launches and blocks it has."""
        operands = [*torch.broadcast_tensors(*inputs), *outputs]
        shape = operands[0].shape
        assert all(operand.shape == shape and operand.dtype == inputs[0].dtype for operand in operands)
        strides = [stride for operand in operands for stride in operand.stride()]
        reached = (ctypes.c_int64 * 2)()
        error = self._library.run(
            name.removesuffix("_backward").encode(),
            ctypes.c_bool(name.endswith("_backward")),
            self.TYPES.index(inputs[0].dtype),
            len(inputs),
            len(outputs),
            len(shape),
            (ctypes.c_int64 * len(shape))(*shape),
            (ctypes.c_int64 * len(strides))(*strides),
            (ctypes.c_void_p * len(operands))(*(operand.data_ptr() for operand in operands)),
            (ctypes.c_double * 3)(*numbers),
            ctypes.c_int64(most_blocks),
            reached,
        )
        assert error is None, error
        return tuple(reached)


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    if COMPILER is None or sys.platform != "linux":
        pytest.skip("there is no C++ compiler, or it makes no libraries as Linux has them")
    library = tmp_path_factory.mktemp("emulated") / "cuda.so"
    flags = ["-std=c++20", "-O0", "-fPIC", "-shared", "-ffp-contract=off", "-fno-strict-aliasing"]
    kernels = [argument for source in KERNELS for argument in ("-x", "c++", str(source))]
    command = [COMPILER, *flags, f"-I{EMULATION}", str(EMULATION / "emulated.cpp"), *kernels, "-o", str(library)]
    compiled = subprocess.run(command, capture_output=True, text=True)
    assert compiled.returncode == 0, compiled.stderr[-10000:]
    return Emulated(library)


GUARD = 8  # elements beside an output, of which nothing may be written


def guarded(shape, dtype):
    """Return uninitialised contiguous memory of this shape, and the memory around it."""
    around = torch.full((math.prod(shape) + 2 * GUARD,), 77.0, dtype=dtype)
    around[GUARD:-GUARD] = math.nan
    return around[GUARD:-GUARD].view(shape), around


def assert_untouched(around):
    assert bool((torch.cat([around[:GUARD], around[-GUARD:]]) == 77).all())


def check(emulated, name, inputs, numbers, reference, ulp):
    """Compare a kernel with its reference on the same numbers in float64; return its launches and blocks."""
    expected = reference(*(x.double() for x in torch.broadcast_tensors(*inputs)))
    outputs = [guarded(result.shape, inputs[0].dtype) for result in expected]
    reached = emulated.run(name, inputs, [output for output, _ in outputs], numbers)
    for (output, around), result in zip(outputs, expected, strict=True):
        assert_close(output, result, ulp)
        assert_untouched(around)
    return reached


#: Functions of each kind: of one tensor and of two, by their input and by their output, with numbers, with waves.
FUNCTIONS = {
    "relu": (functional.relu, ()),
    "silu": (functional.silu, ()),
    "hardtanh": (lambda x: functional.hardtanh(x, -0.5, 0.75), (-0.5, 0.75)),
    "sine": (lambda x: (3 * x).sin(), (3.0,)),
    "prelu": (lambda x, weight: torch.where(x > 0, x, weight * x), ()),
    "swiglu": (lambda v, g: v * functional.silu(g), (1.0, math.inf, 0.0)),
    "learnable_snake": (lambda x, alpha: x + (alpha * x).sin() ** 2 / alpha, ()),
}
PAIRS = {"prelu", "swiglu", "learnable_snake"}


def gradients(function, numbers):
    def reference(grad_output, *operands):
        leaves = [operand.clone().requires_grad_() for operand in operands]
        return torch.autograd.grad(function(*leaves), leaves, grad_output)

    return reference


#: How the operands of a kernel may lie: the first, second or third, by its number.
LAYOUTS = {
    "one": lambda dtype, i: noise((1,), dtype, i),
    "few": lambda dtype, i: noise((5,), dtype, i),
    "contiguous": lambda dtype, i: noise((4096,), dtype, i),
    "odd": lambda dtype, i: noise((2, 4099), dtype, i),
    "unaligned": lambda dtype, i: noise((4100,), dtype, i)[1:],
    "halves": lambda dtype, i: noise((37, 2, 128), dtype, i)[:, i % 2],
    "odd halves": lambda dtype, i: noise((37, 2, 101), dtype, i)[:, i % 2],
    "short rows": lambda dtype, i: noise((67, 2, 4), dtype, i)[:, i % 2],
    "padded rows": lambda dtype, i: noise((37, 104), dtype, i)[:, :101],
    "transposed": lambda dtype, i: noise((33, 65), dtype, i).t() if i % 2 else noise((65, 33), dtype, i),
    "every other": lambda dtype, i: noise((513, 2), dtype, i)[:, 0],
    "channels last": lambda dtype, i: noise((3, 16, 7, 9), dtype, i).to(memory_format=torch.channels_last),
    "images and channels": lambda dtype, i: noise(((1, 5, 1, 1) if i else (3, 5, 8, 8)), dtype, i),
    "rows and one row": lambda dtype, i: noise((1 if i else 37, 128), dtype, i),
    "tensor and number": lambda dtype, i: noise((1, 1) if i else (37, 101), dtype, i),
    "number and tensor": lambda dtype, i: noise((37, 101) if i else (1, 1), dtype, i),
    "ten dimensions": lambda dtype, i: noise((3,) * 10, dtype, i)[(slice(0, 2),) * 10],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_element_is_found_however_tensors_lie(emulated, layout, dtype):
    for name, (function, numbers) in FUNCTIONS.items():
        operands = 2 if name in PAIRS else 1
        forward = [LAYOUTS[layout](dtype, i) for i in range(operands)]
        check(emulated, name, forward, numbers, lambda *x, f=function: [f(*x)], ulp=16)
        backward = [LAYOUTS[layout](dtype, i) for i in range(1 + operands)]
        check(emulated, f"{name}_backward", backward, numbers, gradients(function, numbers), ulp=16)


@pytest.mark.parametrize("length", [128, 101])
def test_gradients_of_halves_go_into_the_halves_of_one_tensor(emulated, length, dtype):
    x, grad_output = noise((37, 2 * length), dtype), noise((37, length), dtype, 1)
    grad_input, around = guarded(x.shape, dtype)
    emulated.run("glu_backward", (grad_output, *x.chunk(2, 1)), grad_input.chunk(2, 1))
    (expected,) = gradients(lambda x: functional.glu(x, 1), ())(grad_output.double(), x.double())
    assert_close(grad_input, expected, ulp=4)
    assert_untouched(around)


@pytest.mark.parametrize(
    ("layout", "rows", "row"),
    [("contiguous", 1, 4096), ("odd", 1, 8198), ("halves", 37, 128), ("padded rows", 37, 101)],
)
def test_what_lies_side_by_side_is_read_in_vectors(emulated, layout, rows, row, dtype):
    at_a_time, per_block = (4 if dtype == torch.float64 else 8), 128
    for operands, name, per_thread in ((1, "relu", 2), (2, "relu_backward", 1), (2, "swiglu", 1)):
        inputs = [LAYOUTS[layout](dtype, i) for i in range(operands)]
        output, _ = guarded(inputs[0].shape, dtype)
        if layout == "padded rows":
            output = LAYOUTS[layout](dtype, 0)
        parts = rows * math.ceil(row / at_a_time)
        numbers = (1.0, math.inf, 0.0)
        assert emulated.run(name, inputs, [output], numbers) == (1, math.ceil(parts / (per_block * per_thread)))


@pytest.mark.parametrize("layout", ["unaligned", "odd halves", "every other"])
def test_what_is_not_aligned_or_not_side_by_side_is_read_one_by_one(emulated, layout, dtype):
    x = LAYOUTS[layout](dtype, 1)
    output, _ = guarded(x.shape, dtype)
    assert emulated.run("relu", [x], [output]) == (1, math.ceil(x.numel() / 256))


def test_tensors_of_many_dimensions_take_several_launches(emulated):
    x = LAYOUTS["ten dimensions"](torch.float32, 0)
    assert emulated.run("relu", [x], [torch.empty_like(x)])[0] == 4


def test_division_by_multiplication_is_exact(emulated):
    numbers = random.Random(0)
    ends = [1, 2, 3, 7, 2**31 - 1, 2**32, 2**32 + 1, 2**62, 2**62 + 1, 2**63 - 1]
    divisors = ends + [numbers.randrange(1, 2 ** numbers.randrange(1, 64)) for _ in range(100)]
    for d in divisors:
        dividends = [0, d - 1, d, 2**63 - 1, (2**63 - 1) // d * d, max((2**63 - 1) // d * d - 1, 0)]
        for n in dividends + [numbers.randrange(2**63) for _ in range(20)]:
            assert emulated.divide(n, d) == n // d


# ---- softmax and its relatives

#: Shapes and the dimension to normalise over: rows that fit into the registers of a team, that begin and end anywhere
#: in a vector, and that do not fit; columns.
LINES = {
    "one entry": ((5, 1), 1),
    "short rows": ((300, 7), 1),
    "rows of vectors": ((37, 64), 1),
    "odd rows": ((9, 1027), 1),
    "rows of a whole block": ((2, 8208), 1),
    "rows longer than registers": ((2, 16_403), 1),
    "two channels": ((3, 2, 50), 1),
    "channels": ((2, 65, 35), 1),
    "few long columns": ((1, 4099, 3), 1),
    "the first of three": ((33, 4, 5), 0),
}
SOFTMAXES = {
    "softmax": (functional.softmax, torch._softmax_backward_data),
    "softmin": (functional.softmin, lambda g, y, dim, dtype: -torch._softmax_backward_data(g, y, dim, dtype)),
    "log_softmax": (functional.log_softmax, torch.ops.aten._log_softmax_backward_data),
}


def assert_near(actual, expected, ulp, error):
    """Compare with what is exact, and with how far the rounding of what it was computed from may have moved it."""
    unit = torch.finfo(actual.dtype).eps
    bound = ulp * unit * expected.abs() + error + torch.finfo(actual.dtype).smallest_normal
    assert bool(((actual.double() - expected).abs() <= bound).all())


def assert_softmax(run, name, shape, dim, shift, dtype):
    """Compare a softmax and its gradient over a dimension, in memory that begins ``shift`` elements after a vector.

    Args:
        run: writes the result of inputs into an output.
    """
    value, gradient = SOFTMAXES[name]
    logarithmic = name == "log_softmax"
    g, x = ((4 * noise((math.prod(shape) + shift,), dtype, i))[shift:].view(shape) for i in range(2))
    # A reference in float64 is rounded as well.
    rounded = 4 * torch.finfo(dtype).eps if dtype == torch.float64 else torch.finfo(torch.float32).eps
    y, around = guarded(shape, dtype)
    run(name, [x], y, dim)
    expected = value(x.double(), dim)
    spread = x.double().abs().max() * 2 * rounded  # what exp makes of the rounding of x - max
    assert_near(y, expected, ulps(dtype), spread if logarithmic else spread * expected)
    assert_untouched(around)

    saved = torch.cat([y.new_zeros(shift), expected.to(dtype).flatten()])[shift:].view(shape)
    grad_input, around = guarded(shape, dtype)
    run(name, [g, saved], grad_input, dim)
    wide, saved = g.double(), saved.double()
    total, weights = (wide, saved.exp()) if logarithmic else (wide * saved, saved)
    cancelled = (wide.abs() + total.abs().sum(dim, keepdim=True)) * weights
    expected = gradient(wide, saved, dim, torch.float64)
    assert_near(grad_input, expected, ulps(dtype), 4 * rounded * cancelled)
    assert_untouched(around)


@pytest.mark.parametrize("shift", [0, 1], ids=["aligned", "unaligned"])
@pytest.mark.parametrize("lines", LINES)
@pytest.mark.parametrize("name", SOFTMAXES)
def test_softmax_of_rows_and_columns(emulated, name, lines, shift, dtype):
    assert_softmax(emulated.softmax, name, *LINES[lines], shift, dtype)


def test_softmax_of_rows_is_read_in_vectors_by_as_many_threads_as_it_takes(emulated, dtype):
    for size, rows in ((7, 128), (64, 16 if dtype == torch.float64 else 32), (4096, 1)):
        x = noise((3 if rows == 1 else 300, size), dtype)
        assert emulated.softmax("softmax", [x], torch.empty_like(x), 1) == math.ceil(len(x) / rows)


@pytest.mark.parametrize("lines", ["rows of vectors", "odd rows", "channels"])
@pytest.mark.parametrize("name", SOFTMAXES)
def test_softmax_of_infinities_and_nan(emulated, name, lines, dtype):
    shape, dim = LINES[lines]
    lies = torch.empty(shape).movedim(dim, -1).shape
    lines = noise((math.prod(lies[:-1]), lies[-1]), dtype)
    for line, number in enumerate((math.nan, math.inf, -math.inf)):
        lines[line, 5] = lines[line + 3] = number
    x = lines.view(lies).movedim(-1, dim).contiguous()
    y = torch.empty_like(x)
    emulated.softmax(name, [x], y, dim)
    expected = SOFTMAXES[name][0](x.double(), dim)
    torch.testing.assert_close(y.double(), expected, rtol=1e-2, atol=1e-6, equal_nan=True)


# ---- statistics


def extremes_and_noise(layout, dtype):
    """Return a tensor that begins with the ends of the range, infinities among them."""
    x = LAYOUTS[layout](dtype, 0)
    numbers = extremes(dtype).flatten()
    numbers = torch.cat([numbers[~numbers.isnan()], noise((x.numel(),), dtype, 2)])
    return x.copy_(numbers[: x.numel()].view(x.shape))


INTERVALS = torch.tensor([[-math.inf, -0.25, 1.0], [-1.0, 0.375, math.inf]], dtype=torch.float64)
REDUCED = [name for name in LAYOUTS if name not in ("images and channels", "tensor and number", "number and tensor")]


@needs_kernels
@pytest.mark.parametrize("layout", REDUCED)
def test_statistics_are_those_of_the_cpu(emulated, layout, dtype):
    x = extremes_and_noise(layout, dtype)
    for size in (7, 7 + kernels.BINS):
        expected = noise((size,), torch.float64, 1).abs()  # what there was before is kept
        actual = expected.clone()
        kernels.add_statistics(expected, x)
        emulated.reduce("add_statistics", x, size > 7, actual)
        torch.testing.assert_close(actual, expected, rtol=1e-13, atol=0, equal_nan=True)


@needs_kernels
def test_blocks_go_on_where_a_tensor_is_larger_than_all_of_them(emulated):
    x = noise((1024 * 256 + 300, 2), torch.bfloat16)[:, 0]
    expected, actual = torch.zeros(2, 7, dtype=torch.float64)
    kernels.add_statistics(expected, x)
    emulated.reduce("add_statistics", x, False, actual)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)


@needs_kernels
def test_the_largest_magnitude_is_nan_where_there_is_one(emulated, dtype):
    x = noise((513,), dtype)
    x[500] = -math.nan
    sums = torch.zeros(7, dtype=torch.float64)
    emulated.reduce("add_statistics", x, False, sums)
    assert sums[4] == 1
    assert sums[-1].isnan()


@needs_kernels
@pytest.mark.parametrize("layout", REDUCED)
def test_what_lies_within_intervals_is_counted_as_on_the_cpu(emulated, layout, dtype):
    x = extremes_and_noise(layout, dtype)
    expected, actual = torch.ones(2, 2, dtype=torch.float64)
    kernels.add_within_of_each(expected, [x], INTERVALS)
    emulated.reduce("add_within", x, INTERVALS.shape[1], *INTERVALS, actual)
    assert actual.tolist() == expected.tolist()
    assert x.numel() == 1 or 1 < actual[1] < actual[0]


@needs_kernels
@pytest.mark.parametrize(("shape", "dim"), [((37, 101), 1), ((3, 5, 8, 8), 1), ((7,), 0), ((513, 1), 0)])
def test_largest_of_units_are_those_of_the_cpu(emulated, shape, dim, dtype):
    x = noise(shape, dtype)
    x.view(-1)[3] = math.nan
    expected = noise((shape[dim],), torch.float32, 1).abs()
    actual = expected.clone()
    kernels.add_largest_of_units(expected, x, dim)
    emulated.add_largest_of_units(x, math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1 :]), actual)
    assert actual.tolist() == expected.tolist()
    assert not actual.isnan().any()


def reserved(elements):
    """Return bfloat16 memory of which only what is written to takes any."""
    no_reserve = 0x4000
    try:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve
        memory = mmap.mmap(-1, 2 * elements, flags=flags)
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    except (OSError, ValueError) as error:
        pytest.skip(f"memory cannot be reserved: {error}")
    return torch.frombuffer(memory, dtype=torch.bfloat16)


@pytest.mark.parametrize("layout", ["contiguous", "halves", "every other"])
def test_more_elements_than_32_bits_count(emulated, layout):
    many = 2**32 + 2**12 + 5
    if layout == "contiguous":
        x, y = reserved(many), reserved(many)
    elif layout == "halves":
        x, y = reserved(2**33 + 2**20).view(-1, 2, 2**10)[:, 1], reserved(2**32 + 2**19).view(-1, 2**10)
    else:
        x, y = reserved(2 * many)[::2], reserved(many)
    assert x.numel() > 2**32
    last = x[-1000:] if x.dim() == 1 else x[-1:]
    last.copy_(noise(last.shape, torch.bfloat16))
    emulated.run("silu", [x], [y], most_blocks=8)
    assert_close(y[-len(last) :], functional.silu(last.double()), ulp=0.6)


def formula(name):
    """Return the name of the formula that an operator computes."""
    return name.removesuffix("_backward").removesuffix("_packed")


NAMES = [name for name in operator_names() if formula(name) in FORMULAS] if STATUS.loaded else []


def arguments(name, dtype, shape=(6, 130)):
    """Return arguments for an operator: its tensors, and what else it takes."""
    tensors = [argument.name for argument in schema(name).arguments if str(argument.type) == "Tensor"]
    rest = [argument.name for argument in schema(name).arguments if str(argument.type) != "Tensor"]
    halves = "dim" in rest
    shapes = [(*shape[:-1], shape[-1] // 2) if halves and argument == "grad_output" else shape for argument in tensors]
    others = [{"dim": -1, "gate_first": True}.get(argument, NUMBERS.get(argument)) for argument in rest]
    return [noise(shape, dtype, i) for i, shape in enumerate(shapes)], others


def results(name, tensors, others):
    """Return a list of what an operator returns."""
    returned = getattr(torch.ops.torchact, name)(*tensors, *others)
    return [returned] if isinstance(returned, torch.Tensor) else list(returned)


@pytest.mark.parametrize("name", [name for name in NAMES if "packed" not in name])
def test_every_formula_gives_what_it_gives_on_the_cpu(emulated, name, dtype):
    tensors, numbers = arguments(name, dtype)
    check(emulated, name, tensors, numbers, lambda *x: results(name, x, numbers), ulps(dtype))


def test_kernels_take_as_many_intervals_as_callers_give_them():
    source = (ROOT / "csrc" / "cuda" / "kernels.h").read_text(encoding="utf-8")
    assert f"kMost = {kernels.MOST_INTERVALS};" in source


def test_types_are_counted_as_in_the_kernels():
    assert set(Emulated.TYPES) == set(DTYPES)
