"""What leaves the device, counted by dispatched operations: one copy for each step that is recorded."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

import torchact
from torchact import GradientMonitor

aten = torch.ops.aten


class OnDevice(torch.Tensor):
    """A tensor of a device whose memory is the host's; what crosses over is seen by :class:`Device`."""

    @staticmethod
    def __new__(cls, host):
        return torch.Tensor._make_wrapper_subclass(
            cls, host.size(), strides=host.stride(), dtype=host.dtype, device="meta", requires_grad=host.requires_grad
        )

    def __init__(self, host):
        self.host = host

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        raise AssertionError(f"{operator} outside of the device")


class Device(TorchDispatchMode):
    """Computes on the host what is asked of the device "meta", and counts what comes to the host."""

    def __init__(self):
        super().__init__()
        self.to_host = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        leaves, _ = tree_flatten((args, kwargs))
        from_device = any(isinstance(leaf, OnDevice) for leaf in leaves)
        target = kwargs.get("device")
        on_device = from_device if target is None else torch.device(target).type == "meta"
        host_kwargs = {**kwargs, "device": torch.device("cpu")} if target is not None else kwargs
        host_args, host_kwargs = tree_map_only(OnDevice, lambda tensor: tensor.host, (args, host_kwargs))
        into_host = operator is aten.copy_.default and not isinstance(args[0], OnDevice)
        if from_device and (operator is aten._local_scalar_dense.default or into_host or not on_device):
            self.to_host.append(operator)
            on_device = False
        results = operator(*host_args, **host_kwargs)
        if not on_device:
            return results
        flat, spec = tree_flatten(results)
        wrapped = [OnDevice(leaf) if isinstance(leaf, torch.Tensor) else leaf for leaf in flat]
        return return_and_correct_aliasing(operator, args, kwargs, tree_unflatten(wrapped, spec))


def train(model, optimizer, device, steps):
    """Return how often something came to the host in each step."""
    counts = []
    x = torch.randn(8, 4, device="meta")
    for _ in range(steps):
        before = len(device.to_host)
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        counts.append(len(device.to_host) - before)
    return counts


def network():
    return nn.Sequential(
        nn.Linear(4, 8, device="meta"),
        torchact.ReLU(),
        nn.Linear(8, 8, device="meta"),
        torchact.Tanh(),
        nn.PReLU(device="meta"),
        nn.Linear(8, 1, device="meta"),
    )


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.Adam], ids=lambda cls: cls.__name__)
def test_a_recorded_step_brings_one_copy_to_the_host_and_others_none(optimizer_class, every):
    with Device() as device:
        model = network()
        optimizer = optimizer_class(model.parameters(), lr=0.01)
        alone = train(model, optimizer, device, 6)
        with GradientMonitor(model, optimizer, every=every, first=0) as monitor:
            watched = train(model, optimizer, device, 6)
        layers = monitor.history[-1].layers
    assert [more - less for more, less in zip(watched, alone, strict=True)] == [int(i % every == 0) for i in range(6)]
    assert len(monitor.history) == 6 // every
    assert all(layer.output.count and layer.gradient.squares > 0 for layer in layers)
    assert layers[0].parameters["weight"].gradient.norm > 0
    assert layers[1].saturated_fraction > 0


def test_the_count_of_steps_stays_on_the_device_where_a_fused_optimiser_has_it():
    with Device() as device:
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01, eps=1.0)
        train(model, optimizer, device, 1)
        for state in optimizer.state.values():
            state["step"] = torch.ones((), device="meta")
        (alone,) = train(model, optimizer, device, 1)
        with GradientMonitor(model, optimizer, every=1) as monitor:
            assert train(model, optimizer, device, 2) == [alone + 1, alone + 1]
        assert monitor.history[-1].layers[0].parameters["weight"].at_epsilon == 1


def test_the_device_counts_what_comes_to_the_host():
    with Device() as device:
        x = torch.ones(2, device="meta")
        assert x.sum().item() == 2
        assert (x + x).cpu().tolist() == [2, 2]
        torch.zeros(2).copy_(x)
        assert len(device.to_host) == 3
