"""Several ranks: two processes on the CPU, and the numbers of one process that has all the data."""

import copy
import itertools
import socket
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import distributed as dist
from torch import multiprocessing, nn

import torchact
from torchact import GradientMonitor

pytestmark = [
    pytest.mark.skipif(not dist.is_available() or sys.platform != "linux", reason="torch has no gloo here"),
]
RANKS, BATCH, STEPS = 2, 8, 3


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 10), torchact.ReLU(), nn.Linear(10, 10), nn.ReLU(inplace=True), nn.Linear(10, 3))


def batches():
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(BATCH, 6, generator=generator), torch.randint(3, (BATCH,), generator=generator))
        for _ in range(STEPS)
    ]


def train(model, optimizer, monitor, rank=0, ranks=1, micro_batches=1, no_sync=None):
    """Train on this rank's share of each batch, accumulating over micro-batches."""
    for inputs, targets in batches():
        optimizer.zero_grad()
        share = slice(rank * BATCH // ranks, (rank + 1) * BATCH // ranks)
        parts = list(zip(inputs[share].chunk(micro_batches), targets[share].chunk(micro_batches), strict=True))
        for i, (x, y) in enumerate(parts):
            if no_sync is not None and i + 1 < len(parts):
                with no_sync():
                    (F.cross_entropy(model(x), y) / micro_batches).backward()
            else:
                (F.cross_entropy(model(x), y) / micro_batches).backward()
        optimizer.step()
    return list(monitor.history)


def reference():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with GradientMonitor(model, optimizer, every=1, updates=True) as monitor:
        return train(model, optimizer, monitor)


def assert_same_numbers(readings, expected):
    assert [reading.step for reading in readings] == list(range(STEPS))
    for reading, other in zip(readings, expected, strict=True):
        assert [layer.name for layer in reading.layers] == [layer.name for layer in other.layers]
        for layer, one in zip(reading.layers, other.layers, strict=True):
            assert layer.samples == one.samples
            assert layer.saturated_fraction == one.saturated_fraction
            for signal in ("output", "gradient"):
                mine, theirs = getattr(layer, signal), getattr(one, signal)
                assert (mine.count, mine.zeros) == (theirs.count, theirs.zeros)
                for number in ("mean", "deviation", "norm", "largest"):
                    assert getattr(mine, number) == pytest.approx(getattr(theirs, number), rel=1e-6, abs=1e-7), number
            for name, parameter in one.parameters.items():
                mine = layer.parameters[name]
                assert mine.gradient.count == parameter.gradient.count
                assert mine.gradient.norm == pytest.approx(parameter.gradient.norm, rel=1e-6)
                assert mine.weight.norm == pytest.approx(parameter.weight.norm, rel=1e-6)
                assert mine.update_norm == pytest.approx(parameter.update_norm, rel=1e-5)


def run(rank, port, results):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS)
    torch.set_num_threads(1)
    try:
        results[rank] = {kind: train_so(rank) for kind, train_so in KINDS.items()}
    finally:
        dist.destroy_process_group()


class Recorder:
    def __init__(self):
        self.steps = []

    def write(self, reading):
        self.steps.append(reading.step)

    def close(self, report):
        pass


def ddp(rank):
    model = network()
    parallel = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1)
    recorder = Recorder()
    arguments = {"every": 1, "updates": True, "noise_scale": True, "group": dist.group.WORLD, "sinks": [recorder]}
    with GradientMonitor(model, optimizer, **arguments) as monitor:
        readings = train(parallel, optimizer, monitor, rank, RANKS, micro_batches=2, no_sync=parallel.no_sync)
    return readings, recorder.steps, [parameter.detach() for parameter in model.parameters()]


def ddp_without_a_monitor(rank):
    class Nothing:
        history = ()

    parallel = nn.parallel.DistributedDataParallel(network())
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1)
    train(parallel, optimizer, Nothing, rank, RANKS, micro_batches=2, no_sync=parallel.no_sync)
    return [parameter.detach() for parameter in parallel.parameters()]


def ddp_alone(rank):
    """A monitor on the first rank only, which merges nothing."""
    model = network()
    parallel = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1)
    if rank == 0:
        with GradientMonitor(model, optimizer, every=1) as monitor:
            return train(parallel, optimizer, monitor, rank, RANKS)

    class Nothing:
        history = ()

    return train(parallel, optimizer, Nothing, rank, RANKS)


def fsdp(rank):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = network()
    mesh = init_device_mesh("cpu", (RANKS,))
    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with GradientMonitor(model, optimizer, every=1, updates=True) as monitor:
        return train(model, optimizer, monitor, rank, RANKS)


def tensor_parallel(rank):
    """The first layer's outputs are spread over the ranks, those of the second are partial sums, all else is whole."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_module, distribute_tensor

    placements = {"0": {"weight": Shard(0), "bias": Shard(0)}, "2": {"weight": Shard(1)}}

    def spread(name, module, mesh):
        for own, parameter in list(module.named_parameters(recurse=False)):
            placement = placements.get(name, {}).get(own, Replicate())
            module.register_parameter(own, nn.Parameter(distribute_tensor(parameter.detach(), mesh, [placement])))

    mesh = init_device_mesh("cpu", (RANKS,))
    model = distribute_module(network(), mesh, spread)
    model[3] = nn.ReLU()  # torch makes no partial sums whole in place
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    class Everywhere(nn.Module):
        def forward(self, x):
            return model(distribute_tensor(x, mesh, [Replicate()])).full_tensor()

    with GradientMonitor(model, optimizer, every=1, updates=True) as monitor:
        return train(Everywhere(), optimizer, monitor)


def different_modules(rank):
    """Each rank calls a module of its own between two that both call, and only its gradients are averaged."""
    torch.manual_seed(0)
    model = nn.ModuleDict({name: nn.Linear(4, 4) for name in ("in", "0", "1", "out")})
    with GradientMonitor(model, every=1, group=dist.group.WORLD) as monitor:
        for _ in range(2):
            model.zero_grad()
            model["out"](model[str(rank)](model["in"](torch.ones(3 + rank, 4)))).sum().backward()
            monitor.record()
    return list(monitor.history)


KINDS = {
    "tensor parallel": tensor_parallel,
    "different modules": different_modules,
    "ddp": ddp,
    "ddp without a monitor": ddp_without_a_monitor,
    "ddp alone": ddp_alone,
    "fsdp": fsdp,
}


@pytest.fixture(scope="module")
def ranks():
    """What both ranks have measured, by kind."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with multiprocessing.Manager() as manager:
        results = manager.dict()
        multiprocessing.spawn(run, args=(port, results), nprocs=RANKS)
        both = [copy.deepcopy(results[rank]) for rank in range(RANKS)]
    return {kind: [results[kind] for results in both] for kind in KINDS}


def test_ddp_with_no_sync_gives_the_numbers_of_one_process(ranks):
    expected = reference()
    for readings, _, _ in ranks["ddp"]:
        assert_same_numbers(readings, expected)
        assert [reading.micro_batches.count for reading in readings] == [2] * STEPS
        assert {reading.micro_batches.samples for reading in readings} == {BATCH / RANKS / 2}
    assert [steps for _, steps, _ in ranks["ddp"]] == [[0, 1, 2], []]  # only the first rank writes
    for (_, _, parameters), plain in zip(ranks["ddp"], ranks["ddp without a monitor"], strict=True):
        for parameter, other in zip(parameters, plain, strict=True):
            assert torch.equal(parameter, other)


def test_without_a_group_one_rank_may_watch_alone(ranks):
    readings, nothing = ranks["ddp alone"]
    assert nothing == []
    assert [reading.step for reading in readings] == [0, 1, 2]
    for reading, other in zip(readings, reference(), strict=True):
        for layer, one in zip(reading.layers, other.layers, strict=True):
            assert layer.samples == BATCH / RANKS
            for name, parameter in one.parameters.items():  # which DDP has averaged
                assert layer.parameters[name].gradient.norm == pytest.approx(parameter.gradient.norm, rel=1e-6)


def test_fsdp_gives_the_numbers_of_one_process(ranks):
    for readings in ranks["fsdp"]:
        assert_same_numbers(readings, reference())


def test_tensor_parallel_gives_the_numbers_of_one_process(ranks):
    for readings in ranks["tensor parallel"]:
        assert_same_numbers(readings, reference())


def test_ranks_may_call_different_modules(ranks):
    for reading in itertools.chain(*ranks["different modules"]):
        assert {layer.name: layer.samples for layer in reading.layers} == {"in": 7, "0": 3, "1": 4, "out": 7}
        counts = {layer.name: [p.gradient.count for p in layer.parameters.values()] for layer in reading.layers}
        assert counts == {name: [16, 4] for name in ("in", "0", "1", "out")}
