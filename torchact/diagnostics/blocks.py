"""Rows of numbers, each with a key, that come to the host in one copy, merged over ranks."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as dist

Key = tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """What the rows of a block are, and how they merge."""

    keys: tuple[Key, ...]  #: of each row
    width: int  #: of each row
    largest: tuple[int, ...] = ()  #: columns of which the largest number is kept; the others add up
    shared: tuple[bool, ...] | bool = False  #: whether a row is the same on all ranks, so that one stands for all


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of float64 numbers."""

    layout: Layout
    numbers: Tensor | bytearray  #: of all rows; on the host bytes, if no function of torch was needed to have them

    @property
    def rows(self) -> Tensor:
        """A row for each key."""
        numbers = self.numbers
        if isinstance(numbers, bytearray):
            numbers = torch.frombuffer(numbers, dtype=torch.float64) if numbers else torch.empty(0, dtype=torch.float64)
        return numbers.view(len(self.layout.keys), self.layout.width)

    def column(self, index: int) -> Sequence[float]:
        """Return one number of each row."""
        if isinstance(self.numbers, bytearray):
            return memoryview(self.numbers).cast("d")[index :: self.layout.width].tolist()
        column: list[float] = self.rows[:, index].tolist()
        return column

    @property
    def device(self) -> torch.device:
        """Where the numbers are."""
        return torch.device("cpu") if isinstance(self.numbers, bytearray) else self.numbers.device

    def by_key(self) -> dict[Key, list[float]]:
        """Return the rows as lists."""
        return dict(zip(self.layout.keys, self.rows.tolist(), strict=True))


Blocks = dict[str, Block]


def on_host(blocks: Mapping[str, Block], group: dist.ProcessGroup | None) -> Blocks:
    """Copy all blocks to the host at once, merged over the ranks of a group; all of them have to call this.

    Without a group, blocks that are all on the host are returned as they are.
    """
    if not blocks:
        return {}
    devices = [block.device for block in blocks.values()]
    device = next((device for device in devices if device.type != "cpu"), devices[0])
    if group is None and device.type == "cpu":
        return dict(blocks)
    packed = torch.cat([block.rows.reshape(-1).to(device) for block in blocks.values()])
    layouts = {name: block.layout for name, block in blocks.items()}
    if group is None:
        return _unpacked(layouts, packed.cpu())
    ranks = _gathered(layouts, packed, group)
    names = dict.fromkeys(name for rank in ranks for name in rank)
    return {name: merged([rank[name] for rank in ranks if name in rank]) for name in names}


def _unpacked(layouts: Mapping[str, Layout], packed: Tensor) -> Blocks:
    sizes = [len(layout.keys) * layout.width for layout in layouts.values()]
    pieces = packed[: sum(sizes)].split(sizes)
    return {
        name: Block(layout, piece.view(len(layout.keys), layout.width))
        for (name, layout), piece in zip(layouts.items(), pieces, strict=True)
    }


def _gathered(layouts: Mapping[str, Layout], packed: Tensor, group: dist.ProcessGroup) -> list[Blocks]:
    """Return the blocks of every rank, in the order of ranks. On some, other modules may have been called."""
    ranks = dist.get_world_size(group)
    mine = torch.tensor([packed.numel(), zlib.crc32(repr(layouts).encode())], device=packed.device)
    heads = [torch.empty_like(mine) for _ in range(ranks)]
    dist.all_gather(heads, mine, group=group)
    all_heads = torch.stack(heads).tolist()
    layouts_of_ranks = [layouts] * ranks
    if any(head != all_heads[0] for head in all_heads):
        dist.all_gather_object(layouts_of_ranks, layouts, group=group)
    longest = max(length for length, _ in all_heads)
    padded = torch.nn.functional.pad(packed, (0, longest - packed.numel()))
    parts = [torch.empty_like(padded) for _ in range(ranks)]
    dist.all_gather(parts, padded, group=group)
    return [_unpacked(*rank) for rank in zip(layouts_of_ranks, torch.stack(parts).cpu(), strict=True)]


def merged(blocks: Sequence[Block]) -> Block:
    """Merge the blocks of several ranks by the keys of their rows. NaN is larger than any number."""
    keys = tuple(dict.fromkeys(key for block in blocks for key in block.layout.keys))
    place = {key: i for i, key in enumerate(keys)}
    layout = blocks[0].layout
    table = torch.zeros(len(blocks), len(keys), layout.width, dtype=torch.float64)
    seen: set[Key] = set()
    for rows, block in zip(table, blocks, strict=True):
        shared = block.layout.shared
        each = [shared] * len(block.layout.keys) if isinstance(shared, bool) else shared
        taken = [i for i, key in enumerate(block.layout.keys) if not (each[i] and key in seen)]
        rows[[place[block.layout.keys[i]] for i in taken]] = block.rows[taken]
        seen.update(block.layout.keys)
    total = table.sum(0)
    columns = list(layout.largest)
    total[:, columns] = table[:, :, columns].amax(0)
    return Block(Layout(keys, layout.width, layout.largest), total)
