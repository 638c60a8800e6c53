"""What lies on several ranks: which entries of a tensor are this rank's to count, and merging what all have counted."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch import distributed as dist


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
    coordinate = tensor.device_mesh.get_coordinate()
    if coordinate is None:
        return ()
    mine = all(
        not placement.is_replicate() or at == 0 for placement, at in zip(tensor.placements, coordinate, strict=True)
    )
    return (tensor.to_local(),) if mine else ()


def has_distributed_parameters(model: nn.Module) -> bool:
    """Whether parameters are DTensors, as those of FSDP2 are."""
    return any(is_distributed_tensor(parameter) for parameter in model.parameters())


def gathered(packed: Tensor, group: dist.ProcessGroup) -> list[Tensor]:
    """Return what every rank of a group has packed, in the order of ranks. All ranks have to call this."""
    parts = [torch.empty_like(packed) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, packed, group=group)
    return parts


def merged(parts: Sequence[Tensor], largest_at: Sequence[int]) -> Tensor:
    """Add vectors up, but for those places where the largest number is kept; NaN is larger than any."""
    table = torch.stack(list(parts))
    total = table.sum(0)
    places = list(largest_at)
    if places:
        total[places] = table[:, places].amax(0)
    return total
