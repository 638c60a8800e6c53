"""The last layers of a model, of which there may be several, and the layers that lead to each: read off the graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torchact.diagnostics.readings import Heads

_MOST = 100_000  # calls, and nodes between two of them, that are looked at


class HeadFinder:
    """Follows the graph of a step as it is made, from the output of each layer back to those that it was computed from.

    Calls are written on the nodes of the graph, which nothing here keeps alive.
    """

    def __init__(self) -> None:
        self.is_open = True  # whether outputs are to be noted
        self._names: list[list[str]] = []  # of the layers that return the same output, by call
        self._reads: list[set[int]] = []  # the calls whose outputs each was computed from

    def note(self, name: str, node: Any) -> None:
        """Note the node of the graph that a layer's output comes from."""
        if self in node.metadata:  # it returns what a layer within has returned
            self._names[node.metadata[self]].append(name)
            return
        reads = set(self._calls_behind(node))
        node.metadata[self] = len(self._names)
        self._names.append([name])
        self._reads.append(reads)
        if len(self._names) > _MOST:
            self.give_up()

    def give_up(self) -> None:
        """Find nothing: the graph is not seen in one piece, or it is too large."""
        self.is_open = False
        self._names.clear()
        self._reads.clear()

    def close(self) -> Heads:
        """Note no more, and return the last layers that each layer leads to, if there are several; else nothing.

        These are the layers from whose output no other's was computed.
        """
        leads: list[set[str]] = [set() for _ in self._names]
        for call in reversed(range(len(leads))):  # a call reads from earlier ones only
            if not leads[call]:
                leads[call].update(self._names[call])
            for read in self._reads[call]:
                leads[read] |= leads[call]
        found: dict[str, set[str]] = {}
        for names, last in zip(self._names, leads, strict=True):
            for name in names:
                found.setdefault(name, set()).update(last)
        self.give_up()
        several = len(set().union(*found.values())) > 1
        return {name: tuple(sorted(last)) for name, last in found.items()} if several else {}

    def _calls_behind(self, node: Any) -> Iterator[int]:
        """Yield the calls that a node reads from with none between."""
        waiting, seen = [node], {node}
        while waiting:
            for behind, _ in waiting.pop().next_functions:
                if behind is None or behind in seen:
                    continue
                seen.add(behind)
                if self in behind.metadata:
                    yield behind.metadata[self]
                elif len(seen) < _MOST:
                    waiting.append(behind)
