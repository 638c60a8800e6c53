"""Distributed tensors, of one process: activations keep their placements and have the gradients of plain tensors."""

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from tests.conftest import CASES, assert_grad_within_ulp, assert_value_within_ulp, noise_like, preactivations


@pytest.fixture(scope="module")
def mesh():
    """Return a mesh of one process, which runs the same dispatch as any other."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


def value_and_gradient(function, x, mesh, placement):
    """Return what a function makes of a distributed tensor, and its gradient."""
    x = distribute_tensor(x, mesh, [placement]).requires_grad_()
    y = function(x)
    grad_output = distribute_tensor(noise_like(y.full_tensor()), mesh, y.placements)
    return y, torch.autograd.grad(y, x, grad_output)[0]


@pytest.mark.parametrize("placement", [Shard(0), Shard(1), Replicate()], ids=str)
@pytest.mark.parametrize("case", [case for case in CASES if not case.learnt], ids=str)
def test_values_and_gradients_are_those_of_the_plain_tensor(case, placement, mesh):
    x = preactivations(torch.float32)
    try:
        y, grad_input = value_and_gradient(case.ours, x, mesh, placement)
    except NotImplementedError:  # torch knows not how to distribute some of its operators: its own raise as well
        assert case.has_counterpart
        with pytest.raises(NotImplementedError):
            value_and_gradient(case.counterpart, x, mesh, placement)
        return
    assert isinstance(y, DTensor)
    assert isinstance(grad_input, DTensor)
    if case.activation.elementwise:
        assert y.placements == (placement,)
    assert_value_within_ulp(case, x, y.full_tensor(), formula=True)
    assert_grad_within_ulp(case, x, noise_like(y.full_tensor()), grad_input.full_tensor(), ulp=32, formula=True)
