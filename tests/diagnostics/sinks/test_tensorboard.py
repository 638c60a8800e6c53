import math
import re

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from torch import nn

import torchact
from torchact import GradientMonitor
from torchact.diagnostics.sinks.tensorboard import SIGNALS


def network(activation=torchact.Sigmoid, depth=11):
    torch.manual_seed(0)
    return nn.Sequential(*[layer for _ in range(depth) for layer in (nn.Linear(4, 4), activation())], nn.Linear(4, 1))


def train(model, log_dir, steps=3, scale=1.0):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with GradientMonitor(model, optimizer, log_dir, every=2, first=0) as monitor:
        for _ in range(steps):
            optimizer.zero_grad()
            (model(torch.ones(2, 4)).sum() * scale).backward()
            optimizer.step()
    return monitor


def events(log_dir):
    return EventAccumulator(str(log_dir), size_guidance={"scalars": 0}).Reload()


def scalars(log_dir, tag):
    return [(event.step, event.value) for event in events(log_dir).Scalars(tag)]


def test_every_signal_of_every_layer_is_there_and_is_the_historys(tmp_path):
    monitor = train(network(), tmp_path)
    run = events(tmp_path)
    curves = {tag: {event.step: event.value for event in run.Scalars(tag)} for tag in run.Tags()["scalars"]}
    for reading in monitor.history:
        for layer in reading.layers:
            for signal, of in SIGNALS.items():
                tag = f"{signal}/{layer.label}"
                assert (tag in curves) == (of(layer) is not None)
                if tag in curves:
                    assert curves[tag][reading.step] == pytest.approx(of(layer), rel=1e-6, abs=1e-45)


def test_tags_sort_in_forward_order(tmp_path):
    train(network(), tmp_path)
    tags = sorted(tag for tag in events(tmp_path).Tags()["scalars"] if tag.startswith("gradient_norm/"))
    assert [tag.split("_")[-1] for tag in tags] == [str(index) for index in range(23)]


def test_the_depth_profile_has_the_layer_in_place_of_the_step(tmp_path):
    monitor = train(network(), tmp_path)
    for when, reading in (("at_start", monitor.history[0]), ("at_end", monitor.history[-1])):
        profile = scalars(tmp_path, f"depth_profile/log10_gradient_norm_{when}")
        expected = [math.log10(layer.gradient.norm) for layer in reading.learning_layers]
        assert profile == [(position, pytest.approx(height, rel=1e-6)) for position, height in enumerate(expected)]


def test_norms_below_float32_survive_as_logarithms(tmp_path):
    model = network(depth=2).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with GradientMonitor(model, optimizer, tmp_path, every=1) as monitor:
        (model(torch.ones(2, 4, dtype=torch.float64)).sum() * 1e-60).backward()
        optimizer.step()
    ((_, height),) = scalars(tmp_path, "gradient_norm_log10/0000_0")
    assert height == pytest.approx(math.log10(monitor.history[0].layers[0].gradient.norm), rel=1e-6)
    assert height < -60
    assert scalars(tmp_path, "gradient_norm/0000_0") == [(0, 0.0)]


def test_zeros_have_no_logarithm_and_are_explained_in_words(tmp_path):
    train(network(torchact.BinaryStep, depth=2), tmp_path)
    run = events(tmp_path)
    assert "gradient_norm_log10/0000_0" not in run.Tags()["scalars"]
    assert [event.value for event in run.Scalars("gradient_norm/0000_0")] == [0.0, 0.0]
    report = run.Tensors("report/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert "structural zero" in " ".join(report.split())


def test_the_report_is_there_after_the_first_steps_and_in_the_end_verdicts_first(tmp_path):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with GradientMonitor(model, optimizer, tmp_path) as monitor:
        for _ in range(21):
            optimizer.zero_grad()
            model(torch.ones(2, 4)).sum().backward()
            optimizer.step()
    reports = events(tmp_path).Tensors("report/text_summary")
    assert [report.step for report in reports] == [9, 20]
    text = reports[-1].tensor_proto.string_val[0].decode()
    first, *_ = text.splitlines()
    assert first.startswith(r"- error TA101 \[vanishing\]: Layers 0 … ")
    assert text.index("Gradients by layer at step 20") > text.index("TA101") == text.rindex("TA101")
    assert [line for line in text.splitlines() if line.startswith("- ")] == [
        "- " + re.sub(r"([\[\]_])", r"\\\1", str(verdict)) for verdict in by_severity(monitor.verdicts())
    ]


def by_severity(verdicts):
    return sorted(verdicts, key=lambda verdict: ("error", "warning", "info").index(verdict.severity))


def test_a_nan_is_written_and_not_dropped(tmp_path):
    train(network(depth=1), tmp_path, steps=1, scale=math.nan)
    ((_, value),) = scalars(tmp_path, "gradient_norm/0000_0")
    assert math.isnan(value)


def test_the_charts_match_their_own_signal_and_no_other(tmp_path):
    train(network(), tmp_path)
    run = events(tmp_path)
    layout = Layout.FromString(run.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    (category,) = layout.category
    tags = run.Tags()["scalars"]
    for chart in category.chart:
        (pattern,) = chart.multiline.tag
        matched = [tag for tag in tags if re.search(pattern, tag)]
        assert matched
        assert all(tag.split("/")[0] == chart.title for tag in matched)
    unmeasured = {"unclipped_gradient_norm", "update_ratio", "dead_fraction"}
    assert {chart.title for chart in category.chart} == set(SIGNALS) - unmeasured


def test_the_run_is_whole_after_an_exception(tmp_path):
    model = network(depth=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ZeroDivisionError), GradientMonitor(model, optimizer, tmp_path, every=1):  # noqa: PT012
        model(torch.ones(2, 4)).sum().backward()
        optimizer.step()
        raise ZeroDivisionError
    assert len(scalars(tmp_path, "gradient_norm/0000_0")) == 1
    assert "report/text_summary" in events(tmp_path).Tags()["tensors"]


def test_curves_of_ones_own_go_into_the_same_run(tmp_path):
    model = network(depth=1)
    with GradientMonitor(model, log_dir=tmp_path) as monitor:
        monitor.writer.add_scalar("loss", 0.5, 0)
    assert scalars(tmp_path, "loss") == [(0, 0.5)]
    with GradientMonitor(model) as monitor:
        assert monitor.writer is None


def test_a_monitor_that_recorded_nothing_closes_quietly(tmp_path):
    with GradientMonitor(network(), log_dir=tmp_path):
        pass
    assert events(tmp_path).Tags()["scalars"] == []


def test_exponents_are_a_histogram_of_log2(tmp_path):
    monitor = train(network(torchact.ReLU, depth=2), tmp_path)
    run = events(tmp_path)
    gradient = monitor.history[-1].layers[0].gradient
    histogram = run.Histograms("gradient_exponents/0000_0")[-1].histogram_value
    assert gradient.zeros > 0  # which are no powers of 2
    assert histogram.num == sum(histogram.bucket) == gradient.count - gradient.zeros
    assert histogram.min > -64
    filled = [limit for limit, count in zip(histogram.bucket_limit, histogram.bucket, strict=True) if count]
    assert filled[-1] - 4 <= math.log2(gradient.largest) < filled[-1]
    assert histogram.bucket[0] == 0
