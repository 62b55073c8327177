"""The decode step of a decoder on a GPU: own kernels, and one CUDA graph for each batch size.

A step of a lone sequence launches some 300 kernels that take a few microseconds each; recorded once as a graph they
are launched together. Every shape is fixed: which caches take part, and how long they are, is read from a small
table on the device (`docs/adr/0014-decode-graphs.md`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, cycle
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neuron.model.cache import SequenceCache
from neuron.model.mlp import ACTIVATIONS

if TYPE_CHECKING:
    from neuron.model.decoder import Block, Decoder
    from neuron.model.linear import Linear
    from neuron.model.mlp import GatedMlp

SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Batch sizes with a graph; a batch in between is filled up with rows that nobody reads."""


Choose = Callable[[Tensor, Tensor], Tensor]
"""ids [B] out of logits [B, V] and the likeliest ids [B], -1 where one is not finite; waits for nothing."""


class DecodeGraphs:
    """Graphs of one decoder, captured on construction, which takes some seconds.

    Args:
        most: largest batch that will be asked for.
    """

    def __init__(self, decoder: Decoder, most: int) -> None:
        self._scratch = decoder.new_cache(1)
        self._pool: Any = torch.cuda.graph_pool_handle()
        sizes = [size for size in SIZES if size < 2 * most]
        # the largest first: smaller ones fit into the memory that it left in the pool
        self._graphs = {size: _Graph(decoder, size, self._scratch, self._pool) for size in reversed(sizes)}
        self.most = max(sizes)

    def step(self, tokens: Sequence[int], caches: Sequence[SequenceCache]) -> Tensor:
        """Logits [B, V] float32 behind one new token of each sequence, whose caches grow by it.

        They lie in memory that the next step of the same size overwrites.
        """
        graph = self._of(caches)
        graph.fill(tokens, caches)
        return graph.replay(caches)[: len(caches)]

    def launch(
        self, tokens: Sequence[int], caches: Sequence[SequenceCache], choose: Choose | None = None
    ) -> Launched:
        """The ids behind one new token of each sequence, whose caches grow by it, to be read later.

        They are the likeliest, or what ``choose`` makes of logits and those.
        """
        graph = self._of(caches)
        graph.fill(tokens, caches)
        return graph.launch(caches, choose)

    def launch_next(self, caches: Sequence[SequenceCache], choose: Choose | None = None) -> Launched:
        """As `launch`, behind the ids of the last step, which must have been launched with these caches.

        Whether these have been read makes no difference, but of three steps the first must have been.
        """
        return self._of(caches).launch(caches, choose)

    def _of(self, caches: Sequence[SequenceCache]) -> _Graph:
        return self._graphs[min(size for size in self._graphs if size >= len(caches))]


class Launched:
    """The ids of a step on their way to the host."""

    def __init__(self, ids: Tensor, arrived: torch.cuda.Event) -> None:
        self._ids, self._arrived = ids, arrived

    def read(self) -> list[int]:
        """An id for each sequence, -1 where a logit was not finite; waits for the step."""
        self._arrived.synchronize()
        return self._ids.tolist()


class _Graph:
    """The step of one batch size. What it leaves in the table is what the next step of the same sequences needs."""

    def __init__(self, decoder: Decoder, size: int, scratch: SequenceCache, pool: Any) -> None:
        self._size, self._scratch, self._device = size, scratch, decoder.device
        self._host = torch.empty(4, size, dtype=torch.int64, pin_memory=True)
        self._table = torch.zeros(4, size, dtype=torch.int64, device=decoder.device)
        self._filled = _event()
        self._arrivals = cycle(
            [(torch.empty(size, dtype=torch.int64, pin_memory=True), _event()) for _ in range(2)]
        )
        self.fill([], [])
        with torch.inference_mode():
            # compiles the kernels; a stream of its own would leave a workspace behind
            advance(decode(decoder, self._table), self._table)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
                self._logits = decode(decoder, self._table)
                self._ids = advance(self._logits, self._table)

    def fill(self, tokens: Sequence[int], caches: Sequence[SequenceCache]) -> None:
        """Have the next step compute these tokens."""
        rows = [*caches, *[self._scratch] * (self._size - len(caches))]
        columns = [(c.data.data_ptr(), c.capacity, c.length) for c in rows]
        ids = [*tokens, *[0] * (self._size - len(tokens))]
        values = [*chain.from_iterable(zip(*columns, strict=True)), *ids]
        self._filled.synchronize()  # the device may be reading what was there
        self._host.copy_(torch.tensor(values, dtype=torch.int64).view(4, -1))
        self._table.copy_(self._host, non_blocking=True)
        self._filled.record(torch.cuda.current_stream(self._device))

    def replay(self, caches: Sequence[SequenceCache]) -> Tensor:
        """Logits [size, V] of the next step, which is only launched."""
        self._graph.replay()
        for cache in caches:
            cache.length += 1
        return self._logits

    def launch(self, caches: Sequence[SequenceCache], choose: Choose | None) -> Launched:
        """Launch the next step, and behind it the copy of its ids."""
        n = len(caches)
        chosen = self._ids[:n]
        logits = self.replay(caches)[:n]
        if choose is not None:
            chosen = choose(logits, chosen)
            self._table[3, :n].copy_(chosen.clamp(min=0))
        ids, arrived = next(self._arrivals)
        ids[:n].copy_(chosen, non_blocking=True)
        arrived.record(torch.cuda.current_stream(self._device))
        return Launched(ids[:n], arrived)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event()  # type: ignore[no-untyped-call]


def advance(logits: Tensor, table: Tensor) -> Tensor:
    """The likeliest id of each row of logits [B, V], -1 where one is not finite; the table becomes the next step's.

    A length stays within its cache: a row that nobody reads, as those that fill up the batch, writes nowhere else.
    """
    finite = logits.sum(dim=-1).isfinite()
    ids = logits.argmax(dim=-1).masked_fill_(finite.logical_not(), -1)  # [B]
    table[2].copy_(torch.minimum(table[2] + 1, table[1] - 1))
    table[3].copy_(ids.clamp(min=0))
    return ids


def decode(decoder: Decoder, table: Tensor) -> Tensor:
    """Logits [B, V] float32 of one new token for each sequence; no shape and no launch depends on the table.

    Args:
        table: int64 [4, B]: address of the cache, its capacity, tokens in it, the new token.
    """
    from neuron.model import kernels

    caches, tokens = table[:3], table[3]
    x = decoder.embed(tokens)  # [B, C]
    cos_sin = {rope: cache.at(table[2], decoder.dtype) for rope, cache in decoder.ropes.items()}
    n_processors = torch.cuda.get_device_properties(decoder.device).multi_processor_count
    n_splits = kernels.n_splits(len(x), decoder.arch.attention.n_kv_heads, n_processors)
    normed = kernels.add_norm(x, None, decoder.blocks[0].input_norm.weight, decoder.arch.norm_eps)
    behind = [*(block.input_norm for block in decoder.blocks[1:]), decoder.norm]
    for block, norm in zip(decoder.blocks, behind, strict=True):
        rope = block.attention.rope
        attended = _attention(block, normed, caches, cos_sin[rope] if rope else (None, None), n_splits)
        normed = kernels.add_norm(x, attended, block.mlp_norm.weight, block.mlp_norm.eps)
        normed = kernels.add_norm(x, _mlp(block.mlp, normed), norm.weight, norm.eps)
    return _linear(decoder.lm_head, normed).float()


def _attention(
    block: Block, x: Tensor, caches: Tensor, cos_sin: tuple[Tensor | None, Tensor | None], n_splits: int
) -> Tensor:
    from neuron.model import kernels

    a = block.attention
    qkv = _linear(a.qkv, x).view(len(x), -1, a.head_dim)  # [B, H + 2K, D]
    cos, sin = cos_sin
    q_norm, k_norm = (n.weight if n else None for n in (a.q_norm, a.k_norm))
    eps = a.q_norm.eps if a.q_norm else 0.0
    q = kernels.rotate_and_append(qkv, cos, sin, q_norm, k_norm, eps, a.n_heads, caches, a.layer)
    return _linear(a.o, kernels.attend(q, caches, a.layer, a.n_kv_heads, a.window, n_splits))


def _mlp(mlp: GatedMlp, x: Tensor) -> Tensor:
    from neuron.model import kernels

    gate_up = _linear(mlp.gate_up, x)
    if mlp.activation == "silu":
        return _linear(mlp.down, kernels.gated(gate_up))
    gate, up = gate_up.chunk(2, dim=-1)
    return _linear(mlp.down, ACTIVATIONS[mlp.activation](gate) * up)


def _linear(linear: Linear, x: Tensor) -> Tensor:
    """One row at the memory's speed by our own kernel, more by the library's matrix product or the weights' own."""
    from neuron.model import kernels

    if len(x) == 1 and not linear.stacks:
        return kernels.matvec(x, linear.weight, linear.bias)
    return linear(x)
