"""The kernels for CUDA, on a GPU."""

import math

import pytest
import torch
from torch.nn import functional

import torchact
from tests.conftest import assert_same
from tests.test_cuda import (
    FUNCTIONS,
    INTERVALS,
    LAYOUTS,
    LINES,
    NAMES,
    PAIRS,
    REDUCED,
    SOFTMAXES,
    arguments,
    assert_close,
    assert_softmax,
    extremes_and_noise,
    gradients,
    noise,
    results,
    ulps,
)
from torchact import kernels
from torchact.kernels.extension import STATUS

if not (STATUS.cuda and torch.cuda.is_available()):
    pytest.skip("there is no GPU, or no kernels for it", allow_module_level=True)


def to(device, tensors):
    return [tensor.to(device) for tensor in tensors]


def moved(x):
    """Return a tensor on the GPU that lies in its memory as ``x`` does; a copy by ``cuda`` would be dense."""
    there = torch.empty(0, dtype=x.dtype, device="cuda")
    return there.set_(x.untyped_storage().cuda(), x.storage_offset(), x.size(), x.stride())


@pytest.mark.parametrize("name", NAMES)
def test_every_operator_gives_what_the_cpu_gives_in_float64(name, dtype):
    for shape in ((6, 130), (3, 256), (1, 2), (0, 4), (1000, 1026)):
        tensors, others = arguments(name, dtype, shape)
        expected = results(name, to(torch.float64, tensors), others)
        actual = results(name, to("cuda", tensors), others)
        for result, reference in zip(actual, expected, strict=True):
            assert (result.device.type, result.dtype) == ("cuda", dtype)
            assert_close(result.cpu(), reference, ulps(dtype))


@pytest.mark.parametrize("name", NAMES)
def test_no_number_gives_what_it_does_not_give_on_the_cpu(name):
    ends = [0.0, -0.0, math.inf, -math.inf, math.nan, 3e38, -3e38, 1e-38, -1e-38, 1e-45]
    for dtype in (torch.float32, torch.bfloat16):
        tensors, others = arguments(name, dtype, (len(ends), 2))
        tensors[-1][:, 0] = torch.tensor(ends, dtype=torch.float64).to(dtype)
        actual = results(name, to("cuda", tensors), others)
        for result, reference in zip(actual, results(name, tensors, others), strict=True):
            assert_same(result.cpu().isnan(), reference.isnan())
            assert_same(result.cpu().isinf(), reference.isinf())


@pytest.mark.parametrize("layout", REDUCED)
def test_statistics_are_those_of_the_cpu(layout, dtype):
    x = extremes_and_noise(layout, dtype)
    for size in (7, 7 + kernels.BINS):
        expected = torch.ones(size, dtype=torch.float64)
        actual = expected.cuda()
        kernels.add_statistics(expected, x)
        kernels.add_statistics(actual, moved(x))
        torch.testing.assert_close(actual.cpu(), expected, rtol=1e-12, atol=0, equal_nan=True)
    within, within_there = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64, device="cuda")
    kernels.add_within_of_each(within, [x], INTERVALS)
    kernels.add_within_of_each(within_there, [moved(x)], INTERVALS)
    assert_same(within_there.cpu(), within)


def test_statistics_of_much_are_those_of_the_cpu(dtype):
    x = noise((2**24 + 5,), dtype)
    expected = torch.zeros(1, 7, dtype=torch.float64)
    actual = torch.zeros(2, 7, dtype=torch.float64, device="cuda")
    kernels.add_statistics_of_each(expected, [x])
    kernels.add_statistics_of_each(actual, [x.cuda(), x.cuda()])
    torch.testing.assert_close(actual.cpu(), expected.expand(2, 7), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("shape", "dim"), [((37, 101), 1), ((3, 5, 8, 8), 1), ((100_003, 2), 0), ((64, 512, 56), 1)])
def test_largest_of_units_are_those_of_the_cpu(shape, dim, dtype):
    x = noise(shape, dtype)
    x.view(-1)[3] = math.nan
    expected, actual = torch.zeros(shape[dim]), torch.zeros(shape[dim], device="cuda")
    kernels.add_largest_of_units(expected, x, dim)
    kernels.add_largest_of_units(actual, x.cuda(), dim)
    assert_same(actual.cpu(), expected)


def test_a_monitor_reads_on_a_gpu_what_it_reads_on_the_cpu():
    readings = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(32, 64), torchact.Tanh(), torch.nn.Linear(64, 3)).to(device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with torchact.GradientMonitor(model, optimizer, every=1) as monitor:
            model(noise((16, 32), torch.float32).to(device)).square().mean().backward()
            optimizer.step()
            readings.append(monitor.history[-1])
    for ours, theirs in zip(readings[0].layers, readings[1].layers, strict=True):
        assert ours.gradient.norm == pytest.approx(theirs.gradient.norm, rel=1e-4)
        assert ours.output.count == theirs.output.count
        assert ours.saturated_fraction == theirs.saturated_fraction


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensors_may_lie_in_any_way(layout, dtype):
    for name, (function, numbers) in FUNCTIONS.items():
        operands = 2 if name in PAIRS else 1
        inputs = [LAYOUTS[layout](dtype, i) for i in range(1 + operands)]
        there = [moved(x) for x in inputs]
        wide = to(torch.float64, inputs)
        (value,) = results(name, there[1:], numbers)
        assert_close(value.cpu(), function(*torch.broadcast_tensors(*wide[1:])), ulp=16)
        expected = gradients(function, numbers)(*torch.broadcast_tensors(*wide))
        for gradient, reference in zip(results(f"{name}_backward", there, numbers), expected, strict=True):
            assert_close(gradient.cpu(), reference, ulp=16)


@pytest.mark.parametrize("shift", [0, 1], ids=["aligned", "unaligned"])
@pytest.mark.parametrize("lines", [*LINES.values(), ((1000, 50_257), 1), ((64, 1000, 77), 1), ((1, 2**24), 1)])
@pytest.mark.parametrize("name", SOFTMAXES)
def test_softmax_of_rows_and_columns(name, lines, shift, dtype):
    def run(name, inputs, output, dim):
        operator = getattr(torch.ops.torchact, name if len(inputs) == 1 else f"{name}_backward")
        output.copy_(operator(*map(moved, inputs), dim))

    assert_softmax(run, name, *lines, shift, dtype)


@pytest.mark.parametrize("name", SOFTMAXES)
def test_softmax_under_autocast_is_float32_as_torch_s(name):
    x = noise((16, 256), torch.bfloat16).cuda()
    with torch.autocast("cuda", torch.bfloat16):
        assert getattr(torchact.functional, name)(x, 1).dtype == getattr(functional, name)(x, 1).dtype == torch.float32
    assert getattr(torchact.functional, name)(x, 1).dtype == torch.bfloat16


def test_results_lie_as_torch_s_own_do():
    x = noise((2, 16, 7, 9), torch.float32).cuda().to(memory_format=torch.channels_last)
    for view in (x, x.transpose(1, 3), x[:, ::2], x[:, :, 1:]):
        assert_same(torch.ops.torchact.relu(view), view.relu())


def test_kernels_run_on_the_stream_that_is_current():
    x = torch.zeros(2**26, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)  # on the default stream, a kernel would not wait for this
        x.fill_(1.0)
        y = torch.ops.torchact.silu(x)
    torch.cuda.current_stream().wait_stream(stream)
    assert_close(y[-5:].cpu(), functional.silu(torch.ones(5, dtype=torch.float64)), ulp=4)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one GPU")
def test_on_a_second_gpu_kernels_run_where_their_tensors_are():
    x = noise((1001,), torch.float32).to("cuda:1")
    assert torch.cuda.current_device() == 0
    y = torch.ops.torchact.silu(x)
    assert (y.device.index, torch.cuda.current_device()) == (1, 0)
    assert_close(y.cpu(), functional.silu(x.cpu().double()), ulp=4)
    with pytest.raises(RuntimeError, match="expected a tensor on the device of the other operands"):
        torch.ops.torchact.silu_backward(x.to("cuda:0"), x)


def test_calls_can_be_captured_in_a_graph():
    x, grad_output = noise((2, 4096), torch.bfloat16).cuda()
    view = x[1:]

    def calls():
        y = torch.ops.torchact.silu(x)
        return y, torch.ops.torchact.silu_backward(grad_output, x), torch.ops.torchact.sine(view, 3.0)

    warm_up = torch.cuda.Stream()
    warm_up.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm_up):
        calls()
    torch.cuda.current_stream().wait_stream(warm_up)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = calls()
    x.copy_(noise((4096,), torch.bfloat16, 1))
    graph.replay()
    for result, expected in zip(captured, calls(), strict=True):
        assert_same(result, expected)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
def test_training_under_autocast(half):
    import torchact

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torchact.SwiGLU(), torch.nn.Linear(64, 64), torchact.SiLU())
    model.cuda()
    x = torch.randn(32, 64, device="cuda")
    with torch.autocast("cuda", half):
        y = model(x)
    assert y.dtype == half
    y.float().square().mean().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters())


@pytest.mark.parametrize("layout", ["contiguous", "unaligned", "halves"])
def test_more_elements_than_32_bits_count(layout):
    many = 2**32 + 2**12 + 8
    if torch.cuda.mem_get_info()[0] < 5 * many * 2:
        pytest.skip("the GPU has too little memory")
    x = torch.empty(2 * many if layout == "halves" else many + 1, dtype=torch.bfloat16, device="cuda").fill_(0.5)
    x = {"contiguous": x[:many], "unaligned": x[1:], "halves": x.view(-1, 2, 8)[:, 1]}[layout]
    last = noise(x[-1000:].shape, torch.bfloat16)
    x[-1000:] = last.cuda()
    y = torch.ops.torchact.silu(x)
    assert_close(y[-1000:].cpu(), functional.silu(last.double()), ulp=0.6)
    assert_close(y[:1000].cpu(), functional.silu(x[:1000].cpu().double()), ulp=0.6)
