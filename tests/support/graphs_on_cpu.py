"""What recorded decode steps promise (`neuron.model.graphs`), computed at once on a CPU, so that the engine around
them can be tested without a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from neuron.engine.ahead import Ahead
from neuron.engine.engine import Engine
from neuron.model.cache import SequenceCache
from neuron.model.decoder import Decoder, make_batch
from neuron.model.graphs import Choose, Launched, advance


class GraphsOnCpu:
    """Goes by a table and hands ids out in two buffers, as a GPU does; sees to it that the host's lengths agree."""

    most = 64

    def __init__(self, decoder: Decoder) -> None:
        self._decoder, self._caches = decoder, list[SequenceCache]()
        self._table = torch.empty(0)
        self._buffers = cycle(torch.empty(self.most, dtype=torch.int64) for _ in range(2))
        self.n_ahead = self.n_read_at_once = 0

    def step(self, tokens: Sequence[int], caches: Sequence[SequenceCache]) -> Tensor:
        self.n_read_at_once += 1
        return self._logits(tokens, caches)

    def _logits(self, tokens: Sequence[int], caches: Sequence[SequenceCache]) -> Tensor:
        parts = [(cache, [token], 1) for cache, token in zip(caches, tokens, strict=True)]
        return self._decoder.forward(make_batch(parts, self._decoder.device))

    def launch(
        self, tokens: Sequence[int], caches: Sequence[SequenceCache], choose: Choose | None = None
    ) -> Launched:
        rows = [(0, c.capacity, c.length, token) for c, token in zip(caches, tokens, strict=True)]
        self._table, self._caches = torch.tensor(rows).t().contiguous(), list(caches)
        return self._launch(choose)

    def launch_next(self, caches: Sequence[SequenceCache], choose: Choose | None = None) -> Launched:
        assert list(caches) == self._caches
        self.n_ahead += 1
        return self._launch(choose)

    def _launch(self, choose: Choose | None) -> Launched:
        assert self._table[2].tolist() == [cache.length for cache in self._caches]
        logits = self._logits(self._table[3].tolist(), self._caches)
        ids = advance(logits, self._table)
        if choose is not None:
            ids = choose(logits, ids)
            self._table[3].copy_(ids.clamp(min=0))
        at_once: Any = SimpleNamespace(synchronize=lambda: None)
        return Launched(next(self._buffers)[: len(ids)].copy_(ids), at_once)


def go_ahead(engine: Engine, model_id: str) -> GraphsOnCpu:
    """Have a loaded model decode as on a GPU."""
    slot = engine._models.serving(model_id).slot
    assert slot.decoder is not None
    graphs: Any = GraphsOnCpu(slot.decoder)
    slot.decoder.native, slot.decoder.graphs = None, graphs
    slot.ahead = Ahead(graphs, slot.meter)
    return graphs
