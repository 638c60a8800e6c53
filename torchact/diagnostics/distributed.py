"""What lies on several ranks: which entries of a tensor are this rank's to count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn


def is_distributed_tensor(tensor: Tensor) -> bool:
    """Whether this is a DTensor, without importing what makes them."""
    return type(tensor).__name__ == "DTensor" and hasattr(tensor, "placements")


def own_entries(tensor: Tensor) -> Sequence[Tensor]:
    """Return the tensor itself; of a DTensor, the entries that this rank has to count, so that none counts twice.

    What is replicated is counted by the first rank of each dimension of the device mesh; what is sharded, by the rank
    that has it; of partial sums, the sum is made first, for which all ranks have to call this.
    """
    if type(tensor) is Tensor or not is_distributed_tensor(tensor):
        return (tensor,)
    from torch.distributed.tensor import DTensor, Replicate

    assert isinstance(tensor, DTensor)
    if any(placement.is_partial() for placement in tensor.placements):
        whole = [Replicate() if placement.is_partial() else placement for placement in tensor.placements]
        tensor = tensor.redistribute(placements=whole)
    mine = _is_first(tensor, lambda placement: not placement.is_replicate())
    return (tensor.to_local(),) if mine else ()


def own_samples(tensor: Tensor) -> int:
    """Return how long the first (batch) dimension is; of a DTensor, as much of it as this rank has to count."""
    if not tensor.dim():
        return 1
    if type(tensor) is Tensor or not is_distributed_tensor(tensor):
        return tensor.shape[0]
    from torch.distributed.tensor import DTensor

    assert isinstance(tensor, DTensor)
    return tensor.to_local().shape[0] if _is_first(tensor, lambda placement: placement.is_shard(0)) else 0


def _is_first(tensor: Any, spreads: Callable[[Any], bool]) -> bool:
    """Whether this rank is the first in all dimensions of the mesh but those whose placement spreads what counts."""
    coordinate = tensor.device_mesh.get_coordinate()
    return coordinate is not None and all(
        at == 0 or spreads(placement) for placement, at in zip(tensor.placements, coordinate, strict=True)
    )


def has_distributed_parameters(model: nn.Module) -> bool:
    """Whether parameters are DTensors, as those of FSDP2 are."""
    return any(is_distributed_tensor(parameter) for parameter in model.parameters())
