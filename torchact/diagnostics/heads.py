"""The last layers of a model, of which there may be several, and the layers that lead to each: read off the graph."""

from __future__ import annotations

from typing import Any

from torchact.diagnostics.readings import Heads

_MOST = 200_000  # nodes that are looked at, about a microsecond each
_MOST_HEADS = 32

Call = tuple[str, int]  # the layer's name, and a number that no other call of it has


class HeadFinder:
    """Follows the graph of a step as it is made, back from the output of each layer.

    Nodes are numbered, each once, by what is written on them; nothing here keeps them alive.
    """

    def __init__(self) -> None:
        self.is_open = True  # whether outputs are to be noted
        self._behind: list[list[int]] = []  # by node, those that it reads from
        self._calls: dict[int, list[Call]] = {}  # by node, the calls of which an output comes from it
        self._read: set[int] = set()  # nodes that something reads which a layer's output comes from

    def note(self, call: Call, node: Any) -> None:
        """Note the node of the graph that an output of a layer's call comes from; each of several outputs has one."""
        known = self in node.metadata
        self._calls.setdefault(self._number(node), []).append(call)
        if known:  # a layer within returns the same, or has read it
            return
        waiting = [node]
        while waiting and self.is_open:
            reader = waiting.pop()
            for behind, _ in reader.next_functions:
                if behind is None:
                    continue
                if self not in behind.metadata:
                    waiting.append(behind)
                number = self._number(behind)
                self._behind[reader.metadata[self]].append(number)
                if call not in self._calls.get(number, ()):
                    self._read.add(number)
            if len(self._behind) > _MOST:
                self.give_up()

    def give_up(self) -> None:
        """Find nothing: the graph is not seen in one piece, or it is too large."""
        self.is_open = False
        self._behind.clear()
        self._calls.clear()
        self._read.clear()

    def close(self) -> Heads:
        """Note no more, and return the last layers that each layer leads to, if there are several; else nothing.

        These are the layers from none of whose outputs another's was computed.
        """
        read = {call for number in self._read for call in self._calls.get(number, ())}
        last = {
            number: names
            for number, calls in self._calls.items()
            if (names := {call[0] for call in calls if call not in read})
        }
        found: dict[str, set[str]] = {}
        if 1 < len(last) <= _MOST_HEADS:
            for number, names in last.items():
                for name in self._leading_to(number):
                    found.setdefault(name, set()).update(names)
        self.give_up()
        several = len(set().union(*found.values())) > 1
        return {name: tuple(sorted(heads)) for name, heads in found.items()} if several else {}

    def _number(self, node: Any) -> int:
        if self not in node.metadata:
            node.metadata[self] = len(self._behind)
            self._behind.append([])
        number: int = node.metadata[self]
        return number

    def _leading_to(self, number: int) -> set[str]:
        """Name the layers whose output a node was computed from, and those whose output comes from it."""
        waiting, seen = [number], {number}
        while waiting:
            behind = set(self._behind[waiting.pop()]) - seen
            seen |= behind
            waiting.extend(behind)
        return {name for each in seen for name, _ in self._calls.get(each, ())}
