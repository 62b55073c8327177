"""What a load would take and whether it fits, from the headers of the files alone. Plain values, no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

KV_SHARE = 0.8
"""Share of the memory that is free after loading which the cache may take."""
MIN_CACHE_TOKENS = 16
"""A model with room for fewer tokens than this is not loaded."""
FORCED_CACHE_TOKENS = 2048
"""Tokens that the cache of a model may hold at least whose load was forced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """One model on one device."""

    model_id: str
    family: str
    n_parameters: int
    quant: str
    """What most of the file is stored in."""
    file_bytes: int
    """Weights in the file."""
    dtype: str
    """What they are computed in."""
    weights: str
    """What most of them are kept in, in memory."""
    device: str
    weight_bytes: int
    """Weights in memory."""
    kv_bytes_per_token: int
    """0 for an encoder, which keeps nothing."""
    model_context: int
    """Tokens that the model, and the settings, allow."""
    free_bytes: int
    """What models may take on the device now: what is free, less what loaded ones may yet take for their caches."""
    room_bytes: int
    """What must be free for the weights alone: they and a reserve."""
    cache_bytes: int | None = None
    """The cache that the settings give every model; None: a share of what is left."""
    evicts: tuple[str, ...] = ()
    """Models that would be unloaded for it."""
    evicted_bytes: int = 0
    """What they hold now."""

    @property
    def min_free_bytes(self) -> int:
        """What must be free for the weights and the smallest cache."""
        beside = 0 if self.cache_bytes else math.ceil(MIN_CACHE_TOKENS * self.kv_bytes_per_token / KV_SHARE)
        return max(self.room_bytes, self.weight_bytes + beside)

    @property
    def missing_bytes(self) -> int:
        """How much more memory would have to be free; 0: it fits."""
        return max(0, self.min_free_bytes - self.free_bytes - self.evicted_bytes)

    @property
    def headroom_bytes(self) -> int:
        """What is left beside the weights; negative where they don't fit."""
        return self.free_bytes + self.evicted_bytes - self.weight_bytes

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together that one generation could have; 0 where it doesn't fit."""
        if self.missing_bytes:
            return 0
        if not self.kv_bytes_per_token:
            return self.model_context
        budget = self.cache_bytes or int(self.headroom_bytes * KV_SHARE)
        return min(self.model_context, budget // self.kv_bytes_per_token)
