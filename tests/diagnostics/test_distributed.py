"""Several ranks: two processes on the CPU, and the numbers of one process that has all the data."""

import itertools
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import distributed as dist
from torch import nn

import torchact
from tests.ranks import RANKS, Recorder, assert_same_numbers, on_ranks
from torchact import GradientMonitor

pytestmark = [
    pytest.mark.skipif(not dist.is_available() or sys.platform != "linux", reason="torch has no gloo here"),
]
BATCH, STEPS = 8, 3


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


def work():
    """Train in every way, and return what was measured, by kind."""
    dist.init_process_group("gloo")
    return {kind: train_so(dist.get_rank()) for kind, train_so in KINDS.items()}


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
    both = on_ranks(work)
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
