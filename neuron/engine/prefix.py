"""Keys and values of earlier sequences, kept for prompts that begin the same: a radix tree over token ids.

Belongs to the device thread. A path from a root spells a beginning of a sequence, each node holds the cache of its
own stretch. Every caller has a root of its own, since the time of an answer would tell one what another has asked.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from neuron.model.cache import SequenceCache

NODE_TOKENS = 64
"""Most tokens of a node: little is copied when one is cut in two, and little at once is freed."""


@dataclass(slots=True, eq=False)
class _Node:
    ids: tuple[int, ...]
    data: Tensor
    """[layers, 2, K, len(ids), D]."""
    parent: _Node | None
    """None for a root, which spells nothing."""
    children: dict[int, _Node] = field(default_factory=dict)
    """By their first id."""

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
        self._nodes: OrderedDict[_Node, None] = OrderedDict()
        """The least recently used first. A node is used with all that it goes on from, which stands behind it: so
        the first has no children."""

    def fill(self, owner: str, ids: Sequence[int], cache: SequenceCache, most: int = sys.maxsize) -> int:
        """Copy what is known of ``ids`` behind the tokens that a cache holds of them, up to ``most``; how many."""
        nodes, known = self._path(owner, tuple(ids))
        self._use(nodes)
        begin, end, at = cache.length, min(known, cache.length + most), 0
        for node in nodes:
            first, last = max(0, begin - at), min(len(node.ids), end - at)
            if first < last:
                cache.extend(node.data[:, :, :, first:last])
            at += len(node.ids)
        return max(0, end - begin)

    def keep(self, owner: str, ids: Sequence[int], cache: SequenceCache, begin: int = 0) -> None:
        """Remember ``ids``, whose keys and values a cache holds: copies what is not known yet, as far as it fits.

        Nothing is kept if ids before ``begin`` are not known (any more): who keeps a long sequence bit by bit does
        not copy all of it again and again while others need the room.
        """
        ids = tuple(ids)
        nodes, known = self._path(owner, ids)
        if known < begin or known == len(ids):
            return
        if (n_whole := sum(len(node.ids) for node in nodes)) > known:
            nodes[-1] = self._split(nodes[-1], len(nodes[-1].ids) - (n_whole - known))
        self._use(nodes)
        end = known + self._room(cache, len(ids) - known, len(nodes))
        last = nodes[-1] if nodes else self._roots.setdefault(owner, _Node((), torch.empty(0), None))
        try:
            for at in range(known, end, NODE_TOKENS):
                until = min(at + NODE_TOKENS, end)
                last = _Node(ids[at:until], cache.part(at, until), last)
                self._add(last)
                nodes.append(last)
        finally:  # also of those before one for which there was no memory
            self._use(nodes)

    def forget(self, owner: str, ids: Sequence[int]) -> None:
        """Drop all that begins as ``ids`` do: it may be wrong."""
        nodes, _ = self._path(owner, tuple(ids))
        doubtful = nodes[:1]
        while doubtful:
            node = doubtful.pop()
            doubtful += node.children.values()
            self._drop(node)

    def _path(self, owner: str, ids: tuple[int, ...]) -> tuple[list[_Node], int]:
        """The nodes along ``ids``, and how many ids agree; only the last may agree in part."""
        nodes: list[_Node] = []
        node, at, whole = self._roots.get(owner), 0, True
        while node is not None and whole and at < len(ids):
            node = node.children.get(ids[at])
            if node is not None:
                n = _n_common(node.ids, ids[at : at + len(node.ids)])
                at, whole = at + n, n == len(node.ids)
                nodes.append(node)
        return nodes, at

    def _use(self, path: list[_Node]) -> None:
        """Make these the most recently used, the beginning last."""
        for node in reversed(path):
            self._nodes.move_to_end(node)

    def _add(self, node: _Node) -> None:
        assert node.parent is not None
        node.parent.children[node.ids[0]] = node
        self._nodes[node] = None
        self.n_bytes += node.n_bytes

    def _split(self, node: _Node, n: int) -> _Node:
        """Cut a node behind ``n`` ids into two with memory of their own; the first, which takes its place."""
        first = _Node(node.ids[:n], node.data[:, :, :, :n].clone(), node.parent)
        rest = node.data[:, :, :, n:].clone()
        self.n_bytes -= node.n_bytes
        node.ids, node.data, node.parent = node.ids[n:], rest, first
        self._add(first)
        self._add(node)
        return first

    def _room(self, cache: SequenceCache, n_tokens: int, n_newest: int) -> int:
        """For how many of so many tokens there is room, once all but the newest nodes were dropped where needed."""
        token_bytes = cache.data[:, :, :, :1].numel() * cache.data.element_size()
        while self.n_bytes + n_tokens * token_bytes > self.max_bytes and len(self._nodes) > n_newest:
            self._drop(next(iter(self._nodes)))
        return max(0, min(n_tokens, (self.max_bytes - self.n_bytes) // token_bytes))

    def _drop(self, node: _Node) -> None:
        assert node.parent is not None
        del node.parent.children[node.ids[0]]
        del self._nodes[node]
        self.n_bytes -= node.n_bytes


def _n_common(own: tuple[int, ...], ids: tuple[int, ...]) -> int:
    """How many ids from the first on are the same."""
    if own == ids:
        return len(own)
    return next(
        (i for i, (a, b) in enumerate(zip(own, ids, strict=False)) if a != b), min(len(own), len(ids))
    )
