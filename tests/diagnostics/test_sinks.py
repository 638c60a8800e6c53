import json
import math
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import pandas as pd
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow
from torch import nn

import torchact
from torchact import GradientMonitor
from torchact.diagnostics import Reading
from torchact.diagnostics.report import Report
from torchact.diagnostics.sinks import JSONLinesSink, MemorySink, Sink, Sinks, TensorBoardSink, jsonlines
from torchact.diagnostics.sinks.base import append
from torchact.diagnostics.sinks.event_file import crc32c

TAG = "gradient_norm/0000_0"

# Training runs, one for each way to end, that share a process until they begin, because torch is slow to import. Each
# says after every step that it is done. Nothing is closed, and only one that raises comes to an end by itself.
TRAINING = """
import os
import sys
import torch
from torch import nn
import torchact
from torchact.diagnostics.sinks import JSONLinesSink, TensorBoardSink


def train(folder, ending):
    model = nn.Sequential(nn.Linear(8, 8), torchact.Sigmoid(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = torchact.GradientMonitor(model, optimizer, log_dir=folder, every=1)
    lines = JSONLinesSink(folder + "/readings.jsonl")
    while True:
        optimizer.zero_grad()
        model(torch.ones(4, 8)).square().mean().backward()
        optimizer.step()
        step = monitor.history[-1].step
        monitor.writer.add_scalar("loss", step, step)
        lines.write(monitor.history[-1])
        os.write(1, f"{ending} {os.getpid()} {step}\\n".encode())  # at once, and so apart from the others' lines
        if ending == "exception" and step == 24:
            raise ZeroDivisionError


torch.set_num_threads(1)
processes = {}
for ending in sys.argv[2:]:
    process = os.fork()
    if not process:
        train(f"{sys.argv[1]}/{ending}", ending)
    processes[ending] = process
for ending, process in processes.items():
    _, status = os.waitpid(process, 0)
    print(ending, "ended", os.waitstatus_to_exitcode(status))
"""
ENDINGS = {"exception": 1, "SIGTERM": -signal.SIGTERM, "SIGKILL": -signal.SIGKILL}  # and the exit codes that they have


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return the folders of training runs that ended in several ways, and the last step that each announced."""
    folder = tmp_path_factory.mktemp("runs")
    arguments = [sys.executable, "-c", TRAINING, str(folder), *ENDINGS]
    announced, codes = {}, {}
    with (folder / "errors").open("w") as errors:
        run = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=errors, text=True)
    with run:
        for line in run.stdout:
            ending, process, number = line.split()
            if process == "ended":
                codes[ending] = int(number)
                continue
            announced[ending] = int(number)
            if number == "19" and ending != "exception":
                os.kill(int(process), getattr(signal, ending))
    errors = (folder / "errors").read_text()
    assert codes == ENDINGS, errors
    assert errors.count("Traceback") == errors.count("ZeroDivisionError\n") == 1
    return {ending: (folder / ending, announced[ending]) for ending in ENDINGS}


def records(path):
    """Return the events of a file, and how many bytes of a torn one stand behind them, after checking all checksums."""
    data = path.read_bytes()
    events = []
    while len(data) >= 12:
        (length,) = struct.unpack_from("<Q", data)
        if len(data) < 16 + length:
            break
        head, event = data[:8], data[12 : 12 + length]
        assert struct.unpack_from("<I", data, 8)[0] == pywrap_tensorflow.masked_crc32c(head)
        assert struct.unpack_from("<I", data, 12 + length)[0] == pywrap_tensorflow.masked_crc32c(event)
        events.append(Event.FromString(event))
        data = data[16 + length :]
    return events, len(data)


def event_file(folder):
    (path,) = Path(folder).glob("events.out.tfevents.*")
    return path


def steps_of(folder, tag=TAG):
    run = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return [event.step for event in run.Scalars(tag)] if tag in run.Tags()["scalars"] else []


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), torchact.Sigmoid(), nn.Linear(8, 2))


def train(sinks, steps=4, scale=1.0, before=lambda step: None):
    """Train a network, feed each reading to the sinks, and return the readings."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with GradientMonitor(model, optimizer, every=1) as monitor:
        for step in range(steps):
            optimizer.zero_grad()
            (model(torch.ones(4, 8)).square().mean() * scale).backward()
            optimizer.step()
            before(step)
            sinks.write(monitor.history[-1])
        sinks.close(Report(reading=monitor.history[-1], verdicts=monitor.verdicts()))
    return list(monitor.history)


@pytest.fixture
def full_disk():
    """Return a function after whose call no file can grow to more than a given size."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


class Own:
    """A user's sink: two methods and no base class."""

    def __init__(self):
        self.steps = []
        self.closed_with = []

    def write(self, reading):
        self.steps.append(reading.step)

    def close(self, report):
        self.closed_with.append(report)


class Failing(Own):
    def write(self, reading):
        super().write(reading)
        if reading.step == 1:
            raise KeyError("no such table")


class FailingToClose(Own):
    def close(self, report):
        raise ConnectionError("the server is gone")


class Noting(Own):
    def __init__(self):
        super().__init__()
        self.noted = []

    def note(self, report):
        self.noted.append((self.steps[-1], report))


class FailingToNote(Own):
    def note(self, report):
        raise ConnectionError("the server is gone")


class TestNothingIsLost:
    @pytest.mark.parametrize("ending", ENDINGS)
    def test_event_files_hold_every_announced_step(self, runs, ending):
        folder, announced = runs[ending]
        for tag in (TAG, "loss"):
            steps = steps_of(folder, tag)
            assert steps == list(range(len(steps)))
            assert announced <= steps[-1] <= announced + 1

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_event_files_are_whole_but_for_what_a_kill_tore_off(self, runs, ending):
        events, torn = records(event_file(runs[ending][0]))
        assert events[0].file_version == "brain.Event:2"
        if ending == "exception":
            assert torn == 0

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_json_lines_hold_every_announced_step(self, runs, ending):
        folder, announced = runs[ending]
        steps = [reading["step"] for reading in jsonlines.read(folder / "readings.jsonl")]
        assert steps == list(range(len(steps)))
        assert announced <= steps[-1] <= announced + 1

    def test_a_reading_is_in_the_files_when_write_returns(self, tmp_path):
        board, lines = TensorBoardSink(tmp_path / "run"), JSONLinesSink(tmp_path / "readings.jsonl")
        (reading,) = train(MemorySink(), steps=1)
        board.write(reading)
        lines.write(reading)
        assert steps_of(tmp_path / "run") == [0]
        assert len(jsonlines.read(lines.path)) == 1

    def test_each_step_is_one_record(self, tmp_path):
        train(TensorBoardSink(tmp_path), steps=5)
        events, torn = records(event_file(tmp_path))
        assert torn == 0
        of_step = [event for event in events if any(value.tag == TAG for value in event.summary.value)]
        assert [event.step for event in of_step] == [0, 1, 2, 3, 4]

    def test_files_are_found_after_a_change_of_the_working_directory(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        sinks = Sinks([TensorBoardSink("run"), JSONLinesSink("readings.jsonl")])
        (tmp_path / "elsewhere").mkdir()
        train(sinks, before=lambda step: os.chdir(tmp_path / "elsewhere"))
        assert steps_of(tmp_path / "run") == [0, 1, 2, 3]
        assert len(jsonlines.read(tmp_path / "readings.jsonl")) == 4


class TestBrokenDestination:
    @pytest.mark.parametrize("sink_class", [TensorBoardSink, JSONLinesSink])
    def test_a_vanished_folder_warns_once_and_training_goes_on(self, tmp_path, sink_class):
        folder = tmp_path / "run"
        sink = sink_class(folder) if sink_class is TensorBoardSink else sink_class(folder / "readings.jsonl")
        own = Own()
        with pytest.warns(UserWarning, match=f"{sink_class.__name__} failed .*training goes on.*{folder}") as caught:
            readings = train(Sinks([sink, own]), before=lambda step: step == 2 and shutil.rmtree(folder))
        assert len(caught) == 1
        assert len(readings) == len(own.steps) == 4
        assert not folder.exists()

    def test_a_full_disk_warns_once_and_leaves_whole_records(self, tmp_path, full_disk):
        sinks = Sinks([TensorBoardSink(tmp_path), JSONLinesSink(tmp_path / "readings.jsonl"), memory := MemorySink()])

        def fill(step):
            if step == 2:
                full_disk(100 + min(path.stat().st_size for path in tmp_path.iterdir()))

        with pytest.warns(UserWarning, match="training goes on without it") as caught:
            train(sinks, before=fill)
        assert sorted(str(warning.message).split()[0] for warning in caught) == ["JSONLinesSink", "TensorBoardSink"]
        assert records(event_file(tmp_path))[1] == 0
        assert steps_of(tmp_path) == [0, 1]
        assert [reading["step"] for reading in jsonlines.read(tmp_path / "readings.jsonl")] == [0, 1]
        assert [reading.step for reading in memory.readings] == [0, 1, 2, 3]

    def test_curves_of_ones_own_do_not_raise_and_the_next_reading_warns(self, tmp_path):
        sink = TensorBoardSink(tmp_path / "run")
        sinks = Sinks([sink])
        shutil.rmtree(tmp_path / "run")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            sink.writer.add_scalar("loss", 0.5, 0)
            sink.writer.flush()
        with pytest.warns(UserWarning, match="FileNotFoundError") as caught:
            train(sinks)
        sink.writer.add_scalar("loss", 0.5, 1)
        assert len(caught) == 1

    def test_a_folder_that_vanishes_before_the_end_is_told_at_close(self, tmp_path):
        sinks = Sinks([TensorBoardSink(tmp_path / "run")])
        (reading,) = train(MemorySink(), steps=1)
        sinks.write(reading)
        shutil.rmtree(tmp_path / "run")
        with pytest.warns(UserWarning, match="TensorBoardSink failed"):
            sinks.close(Report(reading=reading, verdicts=()))

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
    def test_a_device_that_is_full(self):
        with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
            append(Path("/dev/full"), b"data")

    def test_a_file_that_is_gone_is_not_made_anew(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            append(tmp_path / "gone", b"data")
        assert not (tmp_path / "gone").exists()

    @pytest.mark.parametrize("sink_class", [TensorBoardSink, JSONLinesSink])
    def test_a_place_that_cannot_be_written_is_told_at_once(self, tmp_path, sink_class):
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match=r"(log_dir|path): cannot write to .*file/run"):
            sink_class(tmp_path / "file" / "run")

    def test_a_url_is_no_folder(self):
        with pytest.raises(ValueError, match=r"log_dir: expected a folder .* got the URL 's3://bucket/run'"):
            TensorBoardSink("s3://bucket/run")


class TestSeveralSinks:
    def test_all_get_every_reading_and_the_report(self, tmp_path):
        memory, own = MemorySink(), Own()
        readings = train(Sinks([TensorBoardSink(tmp_path), JSONLinesSink(tmp_path / "lines.jsonl"), memory, own]))
        assert memory.readings == readings
        assert own.steps == steps_of(tmp_path) == [0, 1, 2, 3]
        assert len(jsonlines.read(tmp_path / "lines.jsonl")) == 4
        assert own.closed_with == [memory.report]
        assert memory.report.reading == readings[-1]

    @pytest.mark.parametrize("position", [0, 1])
    def test_one_that_fails_is_dropped_after_one_warning(self, position):
        failing, own = Failing(), Own()
        sinks = [own]
        sinks.insert(position, failing)
        with pytest.warns(UserWarning, match=r"Failing failed .* without it: KeyError: 'no such table'") as caught:
            train(Sinks(sinks))
        assert len(caught) == 1
        assert failing.steps == [0, 1]
        assert failing.closed_with == []
        assert own.steps == [0, 1, 2, 3]
        assert len(own.closed_with) == 1

    def test_one_that_fails_to_close_does_not_keep_the_others_open(self):
        own = Own()
        with pytest.warns(UserWarning, match="FailingToClose failed .* ConnectionError: the server is gone"):
            Sinks([FailingToClose(), own]).close(None)
        assert own.closed_with == [None]

    @pytest.mark.parametrize(("settings", "steps"), [({}, [9]), ({"first": 0}, []), ({"every": 1, "first": 0}, [9])])
    def test_one_that_notes_is_given_a_report_of_the_first_steps(self, settings, steps):
        noting, own = Noting(), Own()
        model = nn.Sequential(nn.Linear(4, 4), torchact.Tanh(), nn.Linear(4, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with GradientMonitor(model, optimizer, sinks=[own, noting], **settings):
            for _ in range(12):
                model(torch.ones(2, 4)).sum().backward()
                optimizer.step()
        assert [step for step, _ in noting.noted] == [report.reading.step for _, report in noting.noted] == steps
        assert own.steps == noting.steps

    def test_one_that_fails_to_note_is_dropped_and_the_others_note(self):
        noting, failing = Noting(), FailingToNote()
        sinks = Sinks([failing, noting])
        sinks.write(Reading(step=9, layers=()))
        with pytest.warns(UserWarning, match="FailingToNote failed .* ConnectionError: the server is gone"):
            sinks.note(lambda: "the report")
        sinks.close(None)
        assert noting.noted == [(9, "the report")]
        assert failing.closed_with == []

    def test_no_report_is_made_for_nobody(self):
        named = Own()
        named.note = "an attribute of the user's"
        Sinks([Own(), named]).note(lambda: pytest.fail("nobody wants it"))

    def test_warnings_as_errors_do_not_stop_the_others(self):
        failing, own = Failing(), Own()
        sinks = Sinks([failing, own])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(UserWarning, match="Failing failed"):
                sinks.write(Reading(step=1, layers=()))
            sinks.write(Reading(step=2, layers=()))
        assert own.steps == [1, 2]
        assert failing.steps == [1]

    def test_an_interrupt_is_no_failure(self):
        class Interrupted(Own):
            def write(self, reading):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            Sinks([Interrupted()]).write(Reading(step=0, layers=()))

    def test_closing_twice_closes_once(self):
        own = Own()
        sinks = Sinks([own])
        sinks.close(None)
        sinks.close(None)
        assert own.closed_with == [None]

    @pytest.mark.parametrize("sink", [3, "readings.jsonl", Own, object(), type("Half", (), {"write": print})()])
    def test_something_that_is_no_sink(self, sink):
        with pytest.raises(TypeError, match=r"sinks: expected objects with the methods write\(reading\) and close"):
            Sinks([Own(), sink])

    def test_one_sink_where_several_are_expected(self):
        with pytest.raises(TypeError, match=r"sinks: expected an iterable of sinks, such as \[sink\], got"):
            Sinks(Own())

    def test_ours_and_a_users_are_sinks_by_their_methods(self, tmp_path):
        for sink in (TensorBoardSink(tmp_path), JSONLinesSink(tmp_path / "lines"), MemorySink(), Own()):
            assert isinstance(sink, Sink)


class TestJSONLines:
    def test_a_reading_comes_back_with_all_its_digits(self, tmp_path):
        sink = JSONLinesSink(tmp_path / "readings.jsonl")
        reading = train(sink)[-1]
        last = jsonlines.read(sink.path)[-1]
        for layer, expected in zip(last["layers"], reading.layers, strict=True):
            assert layer["name"] == expected.name
            assert layer["shape"] == list(expected.shape)
            for key in ("output", "gradient"):
                for name, value in layer[key].items():
                    field = getattr(getattr(expected, key), name)
                    assert value == (list(field) if isinstance(field, tuple) else field)

    def test_nan_and_infinity_survive(self, tmp_path):
        sink = JSONLinesSink(tmp_path / "readings.jsonl")
        for scale in (math.nan, math.inf):
            train(sink, steps=1, scale=scale)
        first, second = (reading["layers"][-1]["gradient"] for reading in jsonlines.read(sink.path))
        assert math.isnan(first["squares"])
        assert second["largest"] == math.inf
        frame = pd.read_json(sink.path, lines=True)
        assert frame["layers"][1][-1]["gradient"]["largest"] == math.inf
        assert json.loads(sink.path.read_text().splitlines()[1])["layers"][-1]["gradient"]["largest"] == math.inf

    def test_a_torn_last_line_is_skipped_and_then_cut_off(self, tmp_path):
        sink = JSONLinesSink(tmp_path / "readings.jsonl")
        train(sink, steps=2)
        whole = sink.path.read_bytes()
        sink.path.write_bytes(whole[:-5])
        assert [reading["step"] for reading in jsonlines.read(sink.path)] == [0]
        train(JSONLinesSink(sink.path), steps=1)
        assert [reading["step"] for reading in jsonlines.read(sink.path)] == [0, 0]
        assert pd.read_json(sink.path, lines=True)["step"].tolist() == [0, 0]

    def test_a_last_line_that_lacks_only_its_end_is_kept(self, tmp_path):
        sink = JSONLinesSink(tmp_path / "readings.jsonl")
        train(sink, steps=2)
        sink.path.write_bytes(sink.path.read_bytes()[:-1])
        assert len(jsonlines.read(sink.path)) == 2
        JSONLinesSink(sink.path).write(Reading(step=7, layers=()))
        assert [reading["step"] for reading in jsonlines.read(sink.path)] == [0, 1, 7]

    def test_a_torn_line_may_be_long(self, tmp_path):
        path = tmp_path / "readings.jsonl"
        path.write_bytes(b'{"step":0}\n{"name":"' + b"x" * 200_000)
        JSONLinesSink(path)
        assert path.read_bytes() == b'{"step":0}\n'

    def test_a_file_of_another_kind_is_left_alone(self, tmp_path):
        path = tmp_path / "notes.txt"
        path.write_text("my notes")
        with pytest.raises(ValueError, match=r"path: expected a file of JSON lines, but .*notes\.txt"):
            JSONLinesSink(path)
        assert path.read_text() == "my notes"

    def test_a_damaged_line_in_the_middle_is_named(self, tmp_path):
        path = tmp_path / "readings.jsonl"
        path.write_text('{"step":0}\n{"st\n{"step":2}\n')
        with pytest.raises(ValueError, match=r"path: line 2 of .*readings\.jsonl' is no JSON"):
            jsonlines.read(path)


class TestTensorBoard:
    @pytest.mark.parametrize("size", [4, 5, 7, 8, 9, 63, 64, 65, 1000, 4097, 65536])
    def test_checksums_are_tensorboards(self, size):
        generator = torch.Generator().manual_seed(size)
        data = bytes(torch.randint(256, (size,), generator=generator).tolist())
        assert crc32c(data) == pywrap_tensorflow.crc32c(data)
        assert crc32c(bytes(size)) == pywrap_tensorflow.crc32c(bytes(size))

    def test_a_checksum_of_the_standard(self):
        assert crc32c(b"123456789") == 0xE3069283

    def test_runs_of_one_process_have_files_of_their_own(self, tmp_path):
        for _ in range(3):
            TensorBoardSink(tmp_path)
        assert len(list(tmp_path.iterdir())) == 3

    def test_the_users_closing_of_the_writer_loses_no_reading(self, tmp_path):
        sink = TensorBoardSink(tmp_path)
        train(sink, before=lambda step: sink.writer.close())
        assert steps_of(tmp_path) == [0, 1, 2, 3]

    def test_what_a_summary_writer_writes_is_read_back(self, tmp_path):
        sink = TensorBoardSink(tmp_path)
        sink.writer.add_histogram("weights", torch.arange(10.0), 3)
        sink.writer.add_scalars("losses", {"train": 1.0, "test": 2.0}, 3)
        sink.writer.add_text("note", "hello", 3)
        sink.close(None)
        tags = EventAccumulator(str(tmp_path)).Reload().Tags()
        assert tags["histograms"] == ["weights"]
        assert tags["tensors"] == ["note/text_summary"]
        assert steps_of(tmp_path / "losses_train", "losses") == [3]
