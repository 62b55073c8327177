"""Keys and values of earlier sequences, kept for prompts that begin the same: a radix tree over token ids.

Belongs to the device thread. A path from a root spells a beginning of a sequence, each node holds the cache of its
own stretch. Every caller has a root of its own, since the time of an answer would tell one what another has asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import torch
from torch import Tensor

from neuron.model.cache import SequenceCache


@dataclass(slots=True, eq=False)
class _Node:
    ids: tuple[int, ...]
    data: Tensor
    """[layers, 2, K, len(ids), D]."""
    parent: _Node | None
    """None for a root, which spells nothing."""
    children: dict[int, _Node] = field(default_factory=dict)
    """By their first id."""
    used: int = 0

    @property
    def n_bytes(self) -> int:
        return self.data.numel() * self.data.element_size()


class PrefixCache:
    """At most ``max_bytes`` of keys and values; the least recently used go first, the ends of paths before their
    beginnings."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.n_bytes = 0
        self._roots: dict[str, _Node] = {}
        self._nodes: set[_Node] = set()
        self._clock = count(1)

    def fill(self, owner: str, ids: Sequence[int], cache: SequenceCache) -> int:
        """Copy what is known of the beginning of ``ids`` into an empty cache; returns for how many tokens."""
        now = next(self._clock)
        for node, n in self._walk(owner, ids):
            node.used = now
            cache.extend(node.data[:, :, :, :n])
        return cache.length

    def keep(self, owner: str, ids: Sequence[int], cache: SequenceCache) -> None:
        """Remember the tokens of a cache, which are ``ids``: copies what is not known yet, as far as it fits."""
        ids, now = tuple(ids[: cache.length]), next(self._clock)
        known, last = 0, self._roots.setdefault(owner, _Node((), torch.empty(0), None))
        for node, n in self._walk(owner, ids):
            if n < len(node.ids):
                node = self._split(node, n)
            node.used = now
            known, last = known + n, node
        size = cache.data[:, :, :, :1].numel() * cache.data.element_size()
        if room := self._make_room((len(ids) - known) * size, now) // size:
            self._add(_Node(ids[known : known + room], cache.part(known, known + room), last, used=now))

    def _walk(self, owner: str, ids: Sequence[int]) -> Iterator[tuple[_Node, int]]:
        """The nodes along ``ids`` with how many ids of each agree; only the last may agree in part."""
        node, at, whole = self._roots.get(owner), 0, True
        while node is not None and whole and at < len(ids):
            node = node.children.get(ids[at])
            if node is not None:
                n = _n_common(node.ids, ids, at)
                at, whole = at + n, n == len(node.ids)
                yield node, n

    def _add(self, node: _Node) -> None:
        assert node.parent is not None
        node.parent.children[node.ids[0]] = node
        self._nodes.add(node)
        self.n_bytes += node.n_bytes

    def _split(self, node: _Node, n: int) -> _Node:
        """Cut a node behind ``n`` ids into two with memory of their own; the first, which takes its place."""
        first = _Node(node.ids[:n], node.data[:, :, :, :n].clone(), node.parent, used=node.used)
        rest = node.data[:, :, :, n:].clone()
        self.n_bytes -= node.n_bytes
        node.ids, node.data, node.parent = node.ids[n:], rest, first
        self._add(first)
        self._add(node)
        return first

    def _make_room(self, n_bytes: int, now: int) -> int:
        """Drop what was not used ``now`` until so much fits; the bytes that do."""
        while self.n_bytes + n_bytes > self.max_bytes:
            ends = [node for node in self._nodes if not node.children and node.used < now]
            if not ends:
                break
            self._drop(min(ends, key=lambda node: node.used))
        return max(0, min(n_bytes, self.max_bytes - self.n_bytes))

    def _drop(self, node: _Node) -> None:
        assert node.parent is not None
        del node.parent.children[node.ids[0]]
        self._nodes.remove(node)
        self.n_bytes -= node.n_bytes


def _n_common(own: Sequence[int], ids: Sequence[int], at: int) -> int:
    """How many ids from the first on are those of ``ids`` from ``at`` on."""
    most = min(len(own), len(ids) - at)
    return next((i for i in range(most) if own[i] != ids[at + i]), most)
