"""The measurements of speed: that they compare what they say, and count right. Nothing here asserts a time."""

import contextlib
import dataclasses
import math
import re

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks import cases, floors, interleaved, pictures, providers, results, speed, tables
from benchmarks.__main__ import main
from benchmarks.cases import COMMANDS
from benchmarks.interleaved import Runner, Spread, Timings, compare, in_turns, spread, within
from torchact.catalogue import CATALOGUE

EVERY_CASE = [case for build in COMMANDS.values() for case in build()]
ACTIVATIONS = [case for case in EVERY_CASE if case not in cases.statistics_of_a_tensor()]
ELEMENTS = 64


class Clock:
    """A clock that only what is timed moves."""

    def __init__(self):
        self.nanoseconds = 0

    def __call__(self):
        return self.nanoseconds

    def runner(self, *microseconds, around=contextlib.nullcontext):
        """Return what takes these times, one after the other, over and over."""
        calls = iter(range(10**9))

        def call():
            self.nanoseconds += round(1000 * microseconds[next(calls) % len(microseconds)])

        return Runner(call, around)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(interleaved, "perf_counter_ns", clock)
    return clock


def row(**chosen):
    """Return a row as it is measured."""
    usual = {"benchmark": "activations", "activation": "tanh", "form": "", "mode": "forward", "dtype": "float32"}
    usual |= {"elements": 2**16, "threads": 1, "provider": "torchact", "rounds": 5, "bytes": 8, "gb_per_s": 1.0}
    numbers = {
        f"{name}{suffix}": 1.0
        for name in ("over_eager", "over_compile", "over_copy")
        for suffix in ("", "_low", "_high")
    }
    times = {"median_us": 1.0, "low_us": 1.0, "high_us": 1.0}
    return usual | numbers | times | results.circumstances() | chosen


# ---- timing


def test_percentiles_of_a_few_rounds():
    assert spread([5, 1, 4, 2, 3]) == Spread(3, 2, 4)
    assert spread([7]) == Spread(7, 7, 7)
    assert spread(range(10)) == Spread(4.5, 2, 7)


def test_a_ratio_is_formed_within_a_round():
    timings = Timings({"a": [2.0, 20.0, 200.0], "b": [1.0, 5.0, 200.0]})
    assert timings.ratio("a", "b").median == 2  # the ratio of medians would be 4
    assert timings.ratio("b", "a").median == 0.5


def test_rounds_are_taken_together_before_ratios_are_formed():
    timings = Timings({"a": [1.0, 3.0, 5.0, 7.0, 9.0], "b": [1.0, 1.0, 2.0, 2.0, 2.0]}).together(2)
    assert timings.rounds == {"a": [2, 6], "b": [1, 2]}
    assert timings.ratio("a", "b") == Spread(2.5, 2, 3)


def test_a_machine_that_slows_down_does_not_change_a_ratio(clock):
    # In each round, both take a turn of one call, and from round to round everything takes longer.
    timings = in_turns({"a": clock.runner(3, 30, 300), "b": clock.runner(1, 10, 100)}, {"a": 1, "b": 1}, rounds=3)
    assert timings.rounds == {"a": [3, 30, 300], "b": [1, 10, 100]}
    assert timings.ratio("a", "b") == Spread(3, 3, 3)


def test_of_several_turns_in_a_round_the_fastest_counts(clock):
    timings = in_turns({"a": clock.runner(5, 2, 9, 7)}, {"a": 1}, rounds=2, turns=2)
    assert timings.rounds == {"a": [2, 7]}


def test_the_time_of_a_call_is_that_of_a_turn_over_its_calls(clock):
    assert clock.runner(1, 2, 3).microseconds(3) == 2


def test_what_surrounds_a_turn_is_not_timed_and_entered_once(clock):
    entered = []

    @contextlib.contextmanager
    def around():
        clock.nanoseconds += 10**6
        entered.append(True)
        yield
        clock.nanoseconds += 10**6

    assert clock.runner(2, around=around).microseconds(10) == 2
    assert len(entered) == 1


def test_a_device_is_waited_for_within_the_timing(clock):
    queued = []

    def wait():
        clock.nanoseconds += 5000 * len(queued)
        queued.clear()

    queued.append("of another turn")
    assert Runner(lambda: queued.append("call"), wait=wait).microseconds(4) == 5


def test_a_gpu_is_waited_for_in_every_mode(monkeypatch):
    waited = []
    monkeypatch.setattr("torch.cuda.synchronize", waited.append)
    device = torch.device("cuda", 1)
    providers.waiting_for(device)()
    assert waited == [device]
    (case,) = (case for case in cases.activations() if case.label == "tanh")
    monkeypatch.setattr(providers, "waiting_for", lambda device: lambda: waited.append(device))
    for mode in cases.MODES:
        provider = providers.PROVIDERS["eager"]
        providers.runner(provider, case.theirs, case.operands(16, torch.float32), torch.ones(16), mode).microseconds(3)
    providers.copy(16, torch.float32, torch.device("cpu"))[0].microseconds(1)
    assert waited[1:] == [torch.device("cpu")] * 8  # before and after a turn


def test_the_order_changes_from_round_to_round(clock):
    order = []
    runners = {name: Runner(lambda name=name: order.append(name)) for name in "abc"}
    in_turns(runners, dict.fromkeys(runners, 1), rounds=20)
    rounds = {tuple(order[start : start + 3]) for start in range(0, 60, 3)}
    assert all(sorted(of_round) == ["a", "b", "c"] for of_round in rounds)
    assert len(rounds) > 2


@pytest.mark.parametrize(("microseconds", "calls"), [(1, 2000), (300, 7), (10**5, 1)])
def test_a_turn_lasts_as_long_as_asked_for(clock, microseconds, calls):
    assert clock.runner(microseconds).calls_in(2) == calls


@pytest.mark.parametrize(
    ("microseconds", "seconds", "rounds", "expected"),
    [(1, 1, 25, 25), (10**5, 1, 25, 10), (10**6, 1, 25, 5), (10**6, 1, 3, 3)],
)
def test_slow_calls_get_fewer_rounds_but_never_too_few(clock, microseconds, seconds, rounds, expected):
    timings = within({"a": clock.runner(microseconds)}, seconds, rounds)
    assert len(timings.rounds["a"]) == expected


def test_two_callables_are_compared_as_before(clock):
    ours, reference = clock.runner(4), clock.runner(2)
    assert compare(ours.call, reference.call, rounds=3, turns=2, calls=5) == (4, 2, 2, 2, 2)


# ---- cases


def test_every_activation_has_a_case():
    own = [record for record in CATALOGUE.values() if record.origin is None]
    names = {case.activation for case in cases.activations()}
    assert names == {record.key for record in own if record.kind == "elementwise"} - {"identity"}
    forms = {(case.activation, case.form.split(", ")[-1]) for case in cases.gated()}
    gated = {record.key for record in own if record.kind == "gated"}
    assert forms == {(key, form) for key in gated for form in ("packed", "two tensors")}
    assert {case.activation for case in cases.softmax()} == {"softmax", "softmin", "log_softmax"}
    assert {case.label for case in EVERY_CASE} >= {"gelu, approximate=tanh", "geglu, approximate=tanh, packed"}


@pytest.mark.parametrize("build", COMMANDS.values(), ids=COMMANDS)
def test_labels_are_unique(build):
    assert len({case.label for case in build()}) == len(build())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", ACTIVATIONS, ids=lambda case: case.label)
def test_both_compute_the_same_of_as_many_elements_as_asked_for(case, dtype):
    elements = max(case.unit, ELEMENTS)
    operands = case.operands(elements, dtype)
    assert sum(operand.numel() for operand in operands) == elements + (case.activation == "prelu")
    ours, theirs = case.ours(*operands), case.theirs(*operands)
    assert ours.dtype == theirs.dtype == dtype
    # torch.sin(omega * x) rounds its argument, which is up to 90.
    tolerance = (90 if case.activation == "sine" else 8) * torch.finfo(dtype).eps
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("case", EVERY_CASE, ids=lambda case: case.label)
def test_both_run_on_a_gpu(case):
    # Without a GPU a tensor can say that it is on one.
    with FakeTensorMode(allow_non_fake_inputs=True):
        like = case.operands(ELEMENTS, torch.bfloat16)
        operands = [torch.empty(operand.shape, dtype=operand.dtype, device="cuda") for operand in like]
        assert case.ours(*operands).device.type == case.theirs(*operands).device.type == "cuda"


def test_statistics_are_compared_with_what_counts_the_same():
    by_name = {case.activation: case for case in cases.statistics_of_a_tensor()}
    x = torch.tensor([3.0, -4.0, 0.0, math.inf, math.nan, 0.0])
    assert by_name["reductions"].theirs(x[:3]).tolist() == [-1, 5, 4, 1, 0]
    assert by_name["reductions"].theirs(x)[3:].tolist() == [2, 2]
    assert by_name["norm"].theirs(x[:3]) == 5
    counts = by_name["reductions_and_histogram"].theirs(x[:3])[5:]
    assert counts.sum() == 2  # the logarithm of 0 is in no bin


def test_bytes_are_those_that_must_be_moved():
    by_label = {case.label: case for case in EVERY_CASE}

    def moved(label, dtype=torch.float32):
        case = by_label[label]
        operands = case.operands(64, dtype)
        return [case.bytes_moved(operands, case.theirs(*operands), mode) for mode in ("forward", "backward", "both")]

    assert moved("relu") == moved("silu") == [64 * 4 * 2, 64 * 4 * 3, 64 * 4 * 5]
    assert moved("tanh", torch.bfloat16) == [64 * 2 * 2, 64 * 2 * 3, 64 * 2 * 5]
    assert moved("prelu") == [4 * (65 + 64), 4 * (64 + 65 + 65), 4 * (129 + 194)]
    # A gated unit of 2 · 32 elements reads 64 and writes 32; backward reads 32 + 64 and writes 64.
    assert moved("swiglu, packed") == moved("swiglu, two tensors") == [4 * 96, 4 * 160, 4 * 256]
    assert moved("softmax, rows of 64") == [64 * 4 * 2, 64 * 4 * 3, 64 * 4 * 5]
    assert moved("norm")[0] == 4 * (64 + 1)


def test_shapes_hold_as_many_elements_as_asked_for():
    shapes = {case.label: [tuple(t.shape) for t in case.operands(2**20, torch.float32)] for case in EVERY_CASE}
    assert shapes["swiglu, packed"] == [(256, 4096)]
    assert shapes["swiglu, two tensors"] == [(256, 2048), (256, 2048)]
    assert shapes["softmax, rows of 32768"] == [(32, 32768)]
    assert shapes["softmax, 64 channels"] == [(16, 64, 1024)]
    assert shapes["tanh"] == [(2**20,)]


@pytest.mark.parametrize(("name", "labels"), [("GELU", ["gelu", "gelu, approximate=tanh"]), ("swish", ["swish"])])
def test_only_chooses_by_any_spelling(name, labels):
    assert [case.label for case in speed.chosen(cases.activations(), [name])] == labels


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(ValueError, match="only: unknown name 'tahn'; did you mean 'tanh'"):
        speed.chosen(cases.activations(), ["relu", "tahn"])
    with pytest.raises(ValueError, match="only: unknown name 'swiglu'"):
        speed.chosen(cases.softmax(), ["swiglu"])


@pytest.mark.parametrize("command", ["activations", "accuracy"])
def test_the_command_line_says_in_a_line_which_setting_makes_no_sense(command, capsys):
    with pytest.raises(SystemExit) as exit:
        main([command, "--only", "tahn"])
    assert exit.value.code == 2
    assert capsys.readouterr().err.startswith("python -m benchmarks: only: unknown name 'tahn'; did you mean 'tanh'")


# ---- providers


@pytest.mark.parametrize("mode", cases.MODES)
@pytest.mark.parametrize("name", ["eager", "compile", "torchact"])
def test_every_provider_computes_each_mode_as_often_as_it_is_called(name, mode):
    (case,) = speed.chosen(cases.activations(), ["silu"])
    operands = case.operands(ELEMENTS, torch.float32)
    grad_output = torch.full((ELEMENTS,), 2.0)
    x = operands[0].double().requires_grad_()
    expected = x * torch.sigmoid(x)
    if mode != "forward":
        (expected,) = torch.autograd.grad(expected, x, grad_output.double())
    provider = providers.PROVIDERS[name]
    with providers.compiling():
        runner = providers.runner(provider, provider.function(case), operands, grad_output, mode)
        for _ in range(2):
            with runner.around():
                result = runner.call()
            actual = result if mode == "forward" else result[0]
            assert not actual.requires_grad
            torch.testing.assert_close(actual.double(), expected.detach(), rtol=1e-5, atol=1e-6)


def test_an_accelerated_function_is_torchs_own_and_only_of_those_that_are_replaced(monkeypatch):
    entered = []

    @contextlib.contextmanager
    def accelerated():
        entered.append("in")
        yield
        entered.append("out")

    monkeypatch.setattr("torchact.accelerated", accelerated, raising=False)
    assert providers.missing(["eager", "accelerated"]) == {}
    by_label = {case.label: case for case in cases.activations()}
    provider = providers.PROVIDERS["accelerated"]
    names = {label for label, case in by_label.items() if provider.function(case) is not None}
    assert names == {*providers.ACCELERATED, "gelu, approximate=tanh"}
    case = by_label["tanh"]
    operands = case.operands(16, torch.float32)
    for mode in cases.MODES:
        runner = providers.runner(provider, provider.function(case), operands, torch.ones(16), mode)
        runner.microseconds(10)
    assert entered == ["in", "out"] * 4  # a turn each, and once to build the graph


def test_a_turn_of_an_accelerated_function_begins_with_calls_that_are_not_timed(monkeypatch):
    monkeypatch.setattr("torchact.accelerated", contextlib.nullcontext, raising=False)
    calls = []
    for name in ("eager", "accelerated"):
        counted = []
        runner = providers.runner(providers.PROVIDERS[name], counted.append, (torch.ones(1),), torch.ones(1), "forward")
        runner.microseconds(3)
        calls.append(len(counted))
    assert calls[0] == 3
    assert calls[1] > 3


def test_a_provider_that_is_not_there_is_left_out_in_one_line(monkeypatch):
    monkeypatch.delattr("torchact.accelerated", raising=False)
    (line,) = providers.missing(providers.NAMES).values()
    assert line == "accelerated is left out: this torchact has no torchact.accelerated()"
    assert providers.missing(["eager", "torchact"]) == {}


def test_a_copy_moves_what_it_reads_and_writes():
    runner, moved = providers.copy(1000, torch.bfloat16, torch.device("cpu"))
    assert moved == 4000
    assert torch.equal(runner.call(), torch.ones(1000, dtype=torch.bfloat16))


# ---- results


def test_the_columns_of_a_provider_are_ratios_within_rounds():
    timings = Timings({"eager": [4.0, 8.0, 40.0], "torchact": [2.0, 2.0, 20.0], "copy": [1.0, 1.0, 10.0]})
    figures = speed.figures(timings, "torchact", moved=600, copied=400)
    assert (figures["median_us"], figures["low_us"], figures["high_us"]) == (2, 2, 20)
    assert figures["gb_per_s"] == 600 / 2 / 1000
    assert (figures["over_eager"], figures["over_eager_low"], figures["over_eager_high"]) == (2, 2, 4)
    assert math.isnan(figures["over_compile"])
    assert figures["over_copy"] == 600 / 400 / 2


def test_a_table_is_documented_and_reads_back(tmp_path):
    rows = pd.DataFrame([row(form="x, y"), row(provider="copy", over_compile=math.nan)])
    path = tmp_path / "deep" / "speed.csv"
    results.write(rows, path)
    comments = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert [line[2:].partition(": ")[0] for line in comments] == list(results.COLUMNS)
    back = pd.read_csv(path, comment="#")
    assert list(back.columns) == list(results.COLUMNS)
    assert back["over_compile"].isna().tolist() == [False, True]
    assert floors.labels(back).tolist() == ["tanh, x, y", "tanh"]
    with pytest.raises(ValueError, match="rows: expected the columns"):
        results.write(rows.assign(other=1), path)
    assert [entry.name for entry in path.parent.iterdir()] == ["speed.csv"]


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"sizes: expected at least 1, got \(16, 0\)"):
        speed.Settings(sizes=(16, 0)).validate()
    with pytest.raises(ValueError, match="rounds: expected at least 1, got 0"):
        speed.Settings(rounds=0).validate()


def test_without_a_gpu_none_is_measured(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit) as stopped:
        main(["softmax", "--device", "cuda"])
    assert stopped.value.code == 2
    message = "python -m benchmarks: device: expected 'cpu', since torch finds no GPU, got 'cuda'"
    assert capsys.readouterr().err.splitlines() == [message]


def test_on_a_gpu_one_thread_calls_and_nothing_is_accelerated(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    settings = speed.Settings(sizes=(16,), dtypes=("float32",), device="cuda")
    assert [point.threads for point in speed.points(settings)] == [1]
    (line,) = providers.missing(settings.providers, settings.device).values()
    assert line == "accelerated is left out: torchact.accelerated() replaces torch's operators on the CPU"


def test_one_and_all_threads_are_measured_once_each():
    settings = speed.Settings(sizes=(16,), dtypes=("float32",))
    assert {point.threads for point in speed.points(settings)} == {1, torch.get_num_threads()}
    assert [point.threads for point in speed.points(dataclasses.replace(settings, threads=(2, 1, 2)))] == [2, 1]


@pytest.mark.parametrize(
    ("command", "only", "rows"),
    [
        ("activations", ("tanh", "binary_step"), 2 * 3 * 3 + 2 * 3),
        ("gated", ("bilinear",), 2 * 2 * 3 * 3),
        ("softmax", ("log_softmax",), 2 * 2 * 3 * 3),
        ("statistics", ("reductions_and_histogram",), 2 * 3),
    ],
)
def test_a_run_writes_a_table_and_a_picture(command, only, rows, tmp_path, capsys):
    out = tmp_path / "small.csv"
    settings = speed.Settings(
        only=only, sizes=(16,), threads=(1,), providers=("eager", "torchact"), seconds=0.0, rounds=1, out=out
    )
    getattr(speed, command)(settings)
    table = pd.read_csv(out, comment="#")
    assert len(table) == rows  # a row for each case, dtype, mode and provider, and the copy
    assert set(table["activation"]) == set(only)
    assert set(table["provider"]) == {"eager", "torchact", "copy"}
    assert (table["benchmark"] == command).all()
    assert (table.loc[table["provider"] == "eager", "over_eager"] == 1).all()
    assert (table[["median_us", "bytes", "gb_per_s", "over_copy"]] > 0).all(axis=None)
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "eager/torchact" in printed
    assert "Must reach" in printed
    assert torch.get_num_threads() == 1


def test_sizes_that_no_case_can_have_are_refused(tmp_path):
    settings = speed.Settings(sizes=(15,), providers=("eager",), out=tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r"sizes: .*\(15,\)"):
        speed.run("gated", settings, Console())


# ---- floors, tables, pictures


def reached(what, rows):
    """Return what is reached of the floor with these words, with one dtype and number of threads."""
    (result,) = [result for result in floors.check(pd.DataFrame(rows)) if result.floor.what == what]
    return result


def test_a_floor_is_that_of_the_slowest():
    rows = [
        row(over_eager=5.0, over_compile=3.5),
        row(activation="mish", over_eager=4.5, over_compile=3.0, elements=2**20),
        row(activation="gelu", form="approximate=tanh", over_eager=4.0, over_compile=4.0),
        row(activation="gelu", over_eager=0.1),  # not one of them
        row(over_eager=0.1, elements=16),  # too small
        row(over_eager=0.1, mode="backward"),
        row(over_eager=0.1, provider="accelerated"),
        row(over_eager=0.1, dtype="bfloat16"),
    ]
    result = reached("tanh, mish, tanhshrink, tanh-GELU forward", rows)
    assert (result.over_eager, result.over_compile, result.met) == (4.0, 3.0, True)
    assert result.lowest == "gelu, approximate=tanh, forward, 65536"
    rows[1]["over_compile"] = 2.9
    assert reached("tanh, mish, tanhshrink, tanh-GELU forward", rows).met is False


def test_a_floor_without_its_measurement_is_neither_met_nor_missed():
    assert reached("tanh, mish, tanhshrink, tanh-GELU forward", [row(over_eager=5, over_compile=math.nan)]).met is None
    assert reached("tanh, mish, tanhshrink, tanh-GELU forward", [row(over_eager=3, over_compile=math.nan)]).met is False
    assert reached("any, any mode, 64 K", [row(over_eager=0.8, over_compile=math.nan)]).met is True


def test_a_floor_holds_for_each_dtype_and_number_of_threads():
    rows = [row(threads=2), row(over_eager=0.5, over_compile=math.nan), row(dtype="bfloat16", over_eager=0.9)]
    of = {
        (result.threads, result.dtype): result.met
        for result in floors.check(pd.DataFrame(rows))
        if result.floor.what == "any, any mode, 64 K"
    }
    assert of == {(2, "float32"): True, (1, "float32"): False, (1, "bfloat16"): True}


def test_the_geometric_mean_is_over_transcendental_ones_and_their_backwards():
    what = "geometric mean, transcendental, forward, backward"
    rows = [
        row(over_eager=1.0, over_compile=3.0),
        row(mode="backward", over_eager=4.0, over_compile=3.0),
        row(activation="silu", over_eager=2.0, over_compile=3.0),
        row(activation="relu", over_eager=100.0),
        row(mode="both", over_eager=100.0),
        row(elements=2**24, over_eager=100.0),
    ]
    result = reached(what, rows)
    assert result.over_eager == pytest.approx(2)
    assert result.over_compile == pytest.approx(3)
    assert reached(what, rows[:1]).met is False


def test_never_below_holds_from_a_million_up_and_for_every_kernel():
    rows = [row(benchmark="gated", activation="glu", form="packed", elements=2**24, mode="both", over_eager=0.94)]
    assert reached("any, any mode, from 1 M up", rows).met is False
    assert floors.check(pd.DataFrame([row(benchmark="statistics", elements=2**24)])) == []


def test_accelerated_functions_must_reach_what_torchact_must():
    of = {floor.what: floor for floor in floors.FLOORS["cpu"] if floor.provider == "accelerated"}
    assert {what: (floor.over_eager, floor.over_compile, floor.dtypes) for what, floor in of.items()} == {
        "accelerated gelu-tanh, mish, tanh forward": (4, None, ("float32",)),
        "accelerated gelu-tanh, mish backward": (4, None, ("float32",)),
        "accelerated mish, tanh forward": (3, None, ("bfloat16",)),
        "accelerated mish, silu backward": (2, None, ("bfloat16",)),
        "accelerated silu forward": (1.2, None, ("float32", "bfloat16")),
        "accelerated tanh, mish, silu, gelu-tanh, 16": (0.7, None, ("float32", "bfloat16")),
    }


@pytest.mark.parametrize(
    "floor", [floor for of_device in floors.FLOORS.values() for floor in of_device], ids=lambda floor: floor.what
)
def test_every_floor_is_of_cases_that_there_are(floor):
    there = {case.label for command in floor.benchmarks for case in COMMANDS[command]()}
    assert floor.labels is None or floor.labels <= there


def test_on_a_gpu_what_must_be_reached_is_a_part_of_the_speed_of_a_copy():
    slow = row(elements=2**24, over_eager=3.0, over_compile=0.97, over_copy=0.84, mode="backward")
    rows = pd.DataFrame([row(elements=2**24, over_eager=1.0, over_copy=0.9), slow, row(over_copy=0.1)])
    (result,) = floors.check(rows, floors.FLOORS["cuda"])
    assert (result.over_compile, result.over_copy, result.met) == (0.97, 0.84, False)
    assert result.lowest == "tanh, backward, 16777216"
    text = printed(tables.floors([result]))
    assert re.search(r"over compile +┃ over copy +┃ met", text)
    assert re.search(r"0.97 / 0.95 +│ 0.84 / 0.85 +│ NO", text)
    rows.loc[1, "over_copy"] = 0.85
    assert floors.check(rows, floors.FLOORS["cuda"])[0].met is True


def printed(table):
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_ratios_are_printed_with_their_spread_and_without_those_that_were_not_measured():
    rows = [
        row(over_eager=4.0, over_eager_low=3.5, over_eager_high=4.25, over_compile=math.nan, median_us=12.5),
        row(provider="copy", gb_per_s=20.0),
        row(provider="eager", over_compile=math.nan),
    ]
    text = printed(tables.ratios(pd.DataFrame(rows)))
    assert "64 K × float32, 1 thread" in text
    assert re.search(r"tanh +│ forward +│ 4\.00 \(3\.50-4\.25\) +│ 12\.5 ", text)
    assert "a copy: 20 GB/s" in text
    assert "compile/torchact" not in text
    assert "accelerated" not in text


def test_means_and_floors_are_printed():
    rows = pd.DataFrame([row(over_eager=2.0), row(activation="mish", over_eager=8.0, over_compile=4.0)])
    assert re.search(r"float32 +│ 1 +│ forward +│ 64 K +│ 4\.00 +│ 2\.00 ", printed(tables.means(rows)))
    text = printed(tables.floors(floors.check(rows)))
    assert re.search(r"tanh-GELU forward +│ float32 +│ 1 +│ 2 / 4 +│ 1 / 3 +│ NO +│ tanh, forward, 65536", text)


@pytest.mark.parametrize(
    ("number", "text"), [(16, "16"), (4096, "4 K"), (2**20, "1 M"), (2**24, "16 M"), (1000, "1000")]
)
def test_sizes_are_printed_as_people_say_them(number, text):
    assert tables.elements(number) == text


def test_a_picture_shows_one_size_and_every_provider():
    ratio = {"over_eager_low": 1.5, "over_eager_high": 3.0}
    rows = pd.DataFrame(
        [
            row(
                mode=mode, dtype=dtype, provider=provider, activation=activation, over_eager=2.0, elements=size, **ratio
            )
            for mode in ("forward", "backward")
            for dtype in ("float32", "bfloat16")
            for provider in ("eager", "compile", "torchact", "copy")
            for activation in ("tanh", "relu")
            for size in (16, 2**16)
        ]
    )
    figure = pictures.draw(rows, pictured=16)
    assert figure.get_suptitle().startswith("16 elements, 1 thread")
    assert [axes.get_title() for axes in figure.axes] == [
        "forward, float32",
        "backward, float32",
        "forward, bfloat16",
        "backward, bfloat16",
    ]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["torch.compile", "torchact"]
    lines = [line for axes in figure.axes for line in axes.lines if len(line.get_xdata()) == 2]
    assert all(np.array_equal(line.get_xdata(), [2, 2]) for line in lines if line.get_marker() == "o")
    assert pictures.draw(rows, pictured=17).get_suptitle().startswith("64 K")
