"""Kernels of a decode step on a GPU, in Triton. Imported only where there is one (`neuron.model.graphs`).

One new token for each of B sequences. Sums are taken in float32 whatever the dtype. A sequence's cache is found
through a table of addresses, so that sequences come and go without a new graph; every shape is fixed.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_KEYS = 64
MAX_SPLITS = 16
"""Programs that share the keys of one head: a lone sequence has too few heads to fill a GPU."""


def add_norm(x: Tensor, more: Tensor | None, weight: Tensor, eps: float) -> Tensor:
    """``x += more`` in place, then its RMS norm: x, more [B, C], weight [C] → [B, C]."""
    out = torch.empty_like(x)
    size = x.shape[1]
    _add_norm[(len(x),)](
        x, x if more is None else more, weight, out, size, eps,
        ADD=more is not None, BLOCK=triton.next_power_of_2(size), num_warps=8,
    )  # fmt: skip
    return out


@triton.jit
def _add_norm(x, more, weight, out, size, eps, ADD: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * size
    at = tl.arange(0, BLOCK)
    inside = at < size
    value = tl.load(x + row + at, inside, 0.0).to(tl.float32)
    if ADD:
        value += tl.load(more + row + at, inside, 0.0).to(tl.float32)
        tl.store(x + row + at, value.to(x.dtype.element_ty), inside)
        value = value.to(x.dtype.element_ty).to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value) / size + eps)
    normed = value * scale * tl.load(weight + at, inside, 0.0).to(tl.float32)
    tl.store(out + row + at, normed.to(out.dtype.element_ty), inside)


def gated(gate_up: Tensor) -> Tensor:
    """``silu(gate) * up``: [B, 2F] → [B, F]."""
    n, size = len(gate_up), gate_up.shape[1] // 2
    out = gate_up.new_empty(n, size)
    _gated[(n, triton.cdiv(size, 1024))](gate_up, out, size, BLOCK=1024)
    return out


@triton.jit
def _gated(gate_up, out, size, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    gate = tl.load(gate_up + row * 2 * size + at, at < size, 0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * size + size + at, at < size, 0.0).to(tl.float32)
    value = gate / (1.0 + tl.exp(-gate)) * up
    tl.store(out + row * size + at, value.to(out.dtype.element_ty), at < size)


def rotate_and_append(
    qkv: Tensor,
    cos: Tensor | None,
    sin: Tensor | None,
    q_norm: Tensor | None,
    k_norm: Tensor | None,
    eps: float,
    n_heads: int,
    caches: Tensor,
    layer: int,
) -> Tensor:
    """Norm and rotate the heads of queries and keys, and write keys and values into the caches.

    Args:
        qkv: [B, H + 2K, D].
        cos, sin: [B, 1, R/2], or None for a layer without positions.
        q_norm, k_norm: [D], or None.
        caches: int64 [3, B]: address, capacity, and tokens that are there (the position of the new one).

    Returns:
        Queries [B, H, D].
    """
    n, n_all, size = qkv.shape
    q = qkv.new_empty(n, n_heads, size)
    half = cos.shape[-1] if cos is not None else 0
    _rotate_and_append[(n, n_all)](
        qkv, cos if cos is not None else qkv, sin if sin is not None else qkv,
        q_norm if q_norm is not None else qkv, k_norm if k_norm is not None else qkv,
        q, caches, n, size, half, eps, n_heads, (n_all - n_heads) // 2, layer,
        ROPE=cos is not None, NORM=q_norm is not None, BLOCK=triton.next_power_of_2(size), num_warps=1,
    )  # fmt: skip
    return q


@triton.jit
def _rotate_and_append(
    qkv, cos, sin, q_norm, k_norm, q, caches, n, size, half, eps, n_heads, n_kv_heads, layer,
    ROPE: tl.constexpr, NORM: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, head = tl.program_id(0), tl.program_id(1)
    at = tl.arange(0, BLOCK)
    inside = at < size
    own = qkv + (row * (n_heads + 2 * n_kv_heads) + head) * size
    value = tl.load(own + at, inside, 0.0).to(tl.float32)
    rotated = head < n_heads + n_kv_heads
    if NORM:
        scale = tl.rsqrt(tl.sum(value * value) / size + eps)
        weight = tl.where(
            head < n_heads, tl.load(q_norm + at, inside, 0.0), tl.load(k_norm + at, inside, 0.0)
        )
        value = tl.where(rotated, value * scale * weight.to(tl.float32), value)
    if ROPE:  # noqa: SIM102 (known when it is compiled, and what is below is left out then)
        if rotated:
            low = at < half
            turned = at < 2 * half
            other = tl.where(low, at + half, at - half)
            partner = tl.load(own + other, turned, 0.0).to(tl.float32)
            if NORM:
                q_weight = tl.load(q_norm + other, turned, 0.0)
                k_weight = tl.load(k_norm + other, turned, 0.0)
                weight = tl.where(head < n_heads, q_weight, k_weight)
                partner = partner * scale * weight.to(tl.float32)
            angle = row * half + tl.where(low, at, at - half)
            c = tl.load(cos + angle, turned, 1.0).to(tl.float32)
            s = tl.load(sin + angle, turned, 0.0).to(tl.float32)
            value = value * c + tl.where(low, -partner, partner) * s
    value = value.to(q.dtype.element_ty)
    if head < n_heads:
        tl.store(q + (row * n_heads + head) * size + at, value, inside)
    else:
        cache = tl.load(caches + row).to(tl.pointer_type(q.dtype.element_ty))
        capacity, position = tl.load(caches + n + row), tl.load(caches + 2 * n + row)
        # keys of all heads, then values: the heads of a layer follow each other as they do in qkv
        place = (layer * 2 * n_kv_heads + head - n_heads) * capacity + position
        tl.store(cache + place * size + at, value, inside)


def attend(
    q: Tensor, caches: Tensor, layer: int, n_kv_heads: int, window: int | None, n_splits: int
) -> Tensor:
    """Attention of one query a sequence over its cache, the new token included: q [B, H, D] → [B, H·D].

    The keys of a head are cut among ``n_splits`` programs, whose parts a second kernel puts together.
    """
    n, n_heads, size = q.shape
    group = n_heads // n_kv_heads
    out = q.new_empty(n, n_heads * size)
    parts = torch.empty(n, n_heads, n_splits, size, dtype=torch.float32, device=q.device)
    stats = torch.empty(n, n_heads, n_splits, 2, dtype=torch.float32, device=q.device)
    block = triton.next_power_of_2(size)
    _attend[(n, n_kv_heads, n_splits)](
        q, caches, parts, stats, n, n_kv_heads, size, size**-0.5, layer, window or 0,
        GROUP=group, ROWS=max(16, triton.next_power_of_2(group)), KEYS=BLOCK_KEYS, BLOCK=block,
        SPLITS=n_splits, num_warps=4,
    )  # fmt: skip
    _merge[(n * n_heads,)](parts, stats, out, size, SPLITS=n_splits, BLOCK=block, num_warps=1)
    return out


@triton.jit
def _attend(
    q, caches, parts, stats, n, n_kv_heads, size, scale, layer, window,
    GROUP: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, BLOCK: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    row, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    cache = tl.load(caches + row).to(tl.pointer_type(q.dtype.element_ty))
    capacity, end = tl.load(caches + n + row), tl.load(caches + 2 * n + row) + 1
    begin = end * 0
    if window > 0:
        begin = tl.maximum(end - window, begin)
    share = tl.cdiv(tl.cdiv(end - begin, SPLITS), KEYS) * KEYS
    first = begin + split * share
    last = tl.minimum(first + share, end)

    rows, at = tl.arange(0, ROWS), tl.arange(0, BLOCK)
    heads = head * GROUP + rows
    query = (row * n_kv_heads * GROUP + heads)[:, None] * size + at[None, :]
    there = (rows < GROUP)[:, None] & (at < size)[None, :]
    queries = tl.load(q + query, there, 0.0)
    keys = cache + (layer * 2 * n_kv_heads + head) * capacity * size
    values = keys + n_kv_heads * capacity * size

    best = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    sums = tl.zeros((ROWS, BLOCK), tl.float32)
    for start in range(first, last, KEYS):
        positions = start + tl.arange(0, KEYS)
        valid = positions < last
        where = positions[:, None] * size + at[None, :]
        mask = valid[:, None] & (at < size)[None, :]
        k = tl.load(keys + where, mask, 0.0)
        scores = tl.dot(queries, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where(valid[None, :], scores, float("-inf"))
        newest = tl.maximum(best, tl.max(scores, 1))
        weights = tl.exp(scores - newest[:, None])
        shrink = tl.exp(best - newest)
        v = tl.load(values + where, mask, 0.0)
        sums = sums * shrink[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        total = total * shrink + tl.sum(weights, 1)
        best = newest

    slot = (row * n_kv_heads * GROUP + heads) * SPLITS + split
    tl.store(parts + slot[:, None] * size + at[None, :], sums, there)
    tl.store(stats + slot * 2, best, rows < GROUP)
    tl.store(stats + slot * 2 + 1, total, rows < GROUP)


@triton.jit
def _merge(parts, stats, out, size, SPLITS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    splits, at = tl.arange(0, SPLITS), tl.arange(0, BLOCK)
    best = tl.load(stats + (row * SPLITS + splits) * 2)
    total = tl.load(stats + (row * SPLITS + splits) * 2 + 1)
    weights = tl.exp(best - tl.max(best, 0))  # an empty part has a total of 0 and a best of -inf
    places = (row * SPLITS + splits)[:, None] * size + at[None, :]
    sums = tl.load(parts + places, (at < size)[None, :], 0.0)
    value = tl.sum(sums * weights[:, None], 0) / tl.sum(total * weights, 0)
    tl.store(out + row * size + at, value.to(out.dtype.element_ty), at < size)


def n_splits(n_sequences: int, n_kv_heads: int, n_processors: int) -> int:
    """A power of two, so that all processors of the device have work."""
    wanted = -(-2 * n_processors // (n_sequences * n_kv_heads))
    return min(MAX_SPLITS, int(triton.next_power_of_2(wanted)))


def matvec(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x Wᵀ + b`` for one row: x [1, in], weight [out, in] → [1, out], at the memory's speed."""
    n_out, n_in = weight.shape
    out = x.new_empty(1, n_out)
    _matvec[(triton.cdiv(n_out, MATVEC["ROWS"]),)](
        x, weight, bias if bias is not None else x, out, n_out, n_in, BIAS=bias is not None, **MATVEC
    )  # fmt: skip
    return out


MATVEC = {"ROWS": 2, "BLOCK": 2048, "num_warps": 2}
"""The best of 30 on an H200 for 7 of 9 shapes, 2048×2048 to 128256×4096: 2.0 to 4.6 TB/s, cuBLAS 1.4 to 4.3."""


@triton.jit
def _matvec(
    x, weight, bias, out, n_out, n_in, BIAS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    at = tl.arange(0, BLOCK)
    there = rows < n_out
    own = weight + rows.to(tl.int64)[:, None] * n_in
    sums = tl.zeros((ROWS, BLOCK), tl.float32)
    for start in range(0, n_in, BLOCK):
        inside = start + at < n_in
        part = tl.load(x + start + at, inside, 0.0).to(tl.float32)
        mask = there[:, None] & inside[None, :]
        w = tl.load(own + start + at[None, :], mask, 0.0, eviction_policy="evict_first")
        sums += w.to(tl.float32) * part[None, :]
    value = tl.sum(sums, 1)
    if BIAS:
        value += tl.load(bias + rows, there, 0.0).to(tl.float32)
    tl.store(out + rows, value.to(out.dtype.element_ty), there)
