"""Two processes on the CPU that train together, and the comparison of what their monitors read with another's."""

import copy
import os
import socket

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing

RANKS = 2


def on_ranks(work):
    """Call a function of a module in each of two processes, which find each other by their environment.

    Returns:
        What it returned, by rank.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with multiprocessing.Manager() as manager:
        results = manager.dict()
        multiprocessing.spawn(_run, args=(port, work, results), nprocs=RANKS)
        return [copy.deepcopy(results[rank]) for rank in range(RANKS)]


def _run(rank, port, work, results):
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": RANKS, "LOCAL_WORLD_SIZE": RANKS}
    os.environ |= {name: str(number) for name, number in place.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    try:
        results[rank] = work()
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


class Recorder:
    """A sink that keeps which steps it was given."""

    def __init__(self):
        self.steps = []

    def write(self, reading):
        self.steps.append(reading.step)

    def close(self, report):
        pass


def assert_same_numbers(readings, expected, rounded_zeros=()):
    """Check that ranks have read what one process read that had all the data.

    Args:
        readings: of a rank.
        expected: of the process.
        rounded_zeros: how many entries of a gradient are 0 but for rounding, by what the layer's name ends with.
    """
    assert [reading.step for reading in readings] == [reading.step for reading in expected]
    for reading, other in zip(readings, expected, strict=True):
        assert [layer.name for layer in reading.layers] == [layer.name for layer in other.layers]
        for layer, one in zip(reading.layers, other.layers, strict=True):
            rounded = (count for name, count in dict(rounded_zeros).items() if layer.name.endswith(name))
            assert_same_layer(layer, one, next(rounded, 0))


def assert_same_layer(layer, expected, rounded_zeros=0):
    assert layer.samples == expected.samples
    assert layer.saturated_fraction == expected.saturated_fraction
    for signal in ("output", "gradient"):
        mine, theirs = getattr(layer, signal), getattr(expected, signal)
        assert mine.count == theirs.count
        assert abs(mine.zeros - theirs.zeros) <= (rounded_zeros if signal == "gradient" else 0)
        for number in ("mean", "deviation", "norm", "largest"):
            assert getattr(mine, number) == pytest.approx(getattr(theirs, number), rel=1e-6, abs=1e-7), number
    for name, parameter in expected.parameters.items():
        mine = layer.parameters[name]
        assert mine.gradient.count == parameter.gradient.count
        assert mine.gradient.norm == pytest.approx(parameter.gradient.norm, rel=1e-6)
        assert mine.weight.norm == pytest.approx(parameter.weight.norm, rel=1e-6)
        if parameter.update_norm is not None:
            assert mine.update_norm == pytest.approx(parameter.update_norm, rel=1e-5)
