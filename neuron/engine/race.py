"""Ids drawn from logits by torch alone, with no answer from the host: a race of exponential clocks (ADR 0009).

The clocks are those of the processor's kernels (``neuron/model/csrc/draw.h``), so a seed draws the same everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neuron.model.native import Draw

SHORTLIST = 512
"""Candidates sorted first for ``top_p`` on a CPU; the whole vocabulary only when they do not hold its mass."""


_ALL = 1 << 40
"""A top-k that leaves every id."""


class Draws:
    """The next ids of some rows, again and again, each row drawn by settings of its own.

    Args:
        how: of each row; its ``count`` goes up with every call. A temperature of 0 takes the likeliest id.
        device: where the logits are. On a GPU nothing waits for it but this construction.
    """

    def __init__(self, how: Sequence[Draw], device: torch.device) -> None:
        def column(values: Sequence[float], dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=device)[:, None]  # [R, 1]

        self._temperatures = column([d.temperature or 1.0 for d in how])
        self._is_greedy = column([not d.temperature for d in how], torch.bool)[:, 0]
        self._masses = column([d.top_p for d in how])
        self._least = column([d.min_p for d in how])
        self._ranks = column([d.top_k or _ALL for d in how], torch.int64)
        self._most = max(d.top_k or _ALL for d in how)
        self._keys = column([_signed(d.seed) for d in how], torch.int64)
        self._counts = column([d.count for d in how], torch.int64)
        self._limits = any(d.min_p for d in how)
        self._shortlists = any(d.top_k or d.top_p < 1.0 for d in how)

    def __call__(self, logits: Tensor, best: Tensor) -> Tensor:
        """ids [R] from logits [R, V] float32; ``best`` [R] are the likeliest, negative where none can be drawn."""
        probs = ((logits - logits.amax(dim=-1, keepdim=True)) / self._temperatures).softmax(dim=-1)
        noise = clocks(self._keys, self._counts, logits.shape[1])
        self._counts.add_(1)
        kept, ids = self._shortlisted(probs) if self._shortlists else (probs, None)
        if self._limits:
            kept = kept.where(kept >= self._least * kept.amax(dim=-1, keepdim=True), 0.0)
        if ids is None:
            winners = (kept / noise).argmax(dim=-1)
        else:
            places = (kept / noise.gather(1, ids)).argmax(dim=-1, keepdim=True)
            winners = ids.gather(1, places)[:, 0]
        return torch.where(self._is_greedy | (best < 0), best, winners)

    def _shortlisted(self, probs: Tensor) -> tuple[Tensor, Tensor]:
        """What top-k and top-p leave of probs [R, V], best first, the rest 0, with their ids: [R, n] each."""
        size = probs.shape[1]
        best, ids = self._sorted(probs, size)
        best = best.where(torch.arange(best.shape[1], device=probs.device) < self._ranks, 0.0)
        before = best.cumsum(dim=-1) - best  # mass of the better ones
        whole = best.sum(dim=-1, keepdim=True).where(self._ranks < size, 1.0)
        return best.where((before < self._masses * whole) | (self._masses >= 1.0), 0.0), ids

    def _sorted(self, probs: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Enough of the likeliest ids of every row."""
        if self._most < size:
            return probs.topk(self._most)
        if probs.device.type == "cpu":  # where looking costs nothing
            best, ids = probs.topk(min(SHORTLIST, size))
            enough = best.sum(dim=-1, keepdim=True) >= self._masses
            if bool((enough | (self._ranks <= best.shape[1])).all()):
                return best, ids
        return probs.sort(descending=True)


def clocks(seeds: Tensor, counts: Tensor, n_ids: int) -> Tensor:
    """[R, n_ids] float32 from Exp(1): of every id, at the ``counts``-th draw with a seed; both int64 [R, 1]."""
    keys = _mixed_64(_mixed_64(seeds) ^ counts)
    low, high = _low_half(keys), _low_half(keys >> 32)
    ids = torch.arange(n_ids, dtype=torch.int32, device=seeds.device)
    bits = _mixed(_mixed(ids ^ low) + high)
    uniform = (_shifted(bits, 8).float() + 0.5).mul_(2.0**-24)
    return uniform.clamp_(max=1 - 2.0**-24).log_().neg_()


def _mixed_64(x: Tensor) -> Tensor:
    """splitmix64, on int64 that wraps."""
    x = x + _signed(0x9E3779B97F4A7C15)
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shifted(x, 31)


def _mixed(x: Tensor) -> Tensor:
    """The finaliser of MurmurHash3, on int32 that wraps."""
    x = (x ^ _shifted(x, 16)) * _signed(0x85EBCA6B, 32)
    x = (x ^ _shifted(x, 13)) * _signed(0xC2B2AE35, 32)
    return x ^ _shifted(x, 16)


def _shifted(x: Tensor, n: int) -> Tensor:
    """``x >> n`` with zeros from the left, as of an unsigned number."""
    return (x >> n) & ((1 << (8 * x.element_size() - n)) - 1)


def _signed(number: int, n_bits: int = 64) -> int:
    """The signed number of the same bits."""
    half = 1 << (n_bits - 1)
    return (number + half) % (2 * half) - half


def _low_half(x: Tensor) -> Tensor:
    """The lower 32 bits of int64, as int32."""
    return (((x + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)).to(torch.int32)
