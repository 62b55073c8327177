"""Products with weights in groups on a GPU, in Triton. Imported only where that is installed (see `grouped`).

A byte holds one value of 8 bits, or two of 4: item j of a group of 32 and item j + 16. Sums are taken in float32.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from neuron.model.grouped import Stored

ONE_ROW = {"OUTS": 4, "GROUPS": 64, "num_warps": 4}
FEW_ROWS = {"OUTS": 64, "GROUPS": 4, "num_warps": 4, "num_stages": 3}
UNPACK = {"OUTS": 4, "GROUPS": 32, "num_warps": 4}
"""By the machine code for an H100 (registers, instructions a weight); not yet chosen by time on a device."""
WIDE = {"GROUPS": 2}
"""In float32 instead, which takes twice the processor's own memory for each input."""
LEAST_ROWS = 16
"""Of a matrix product in registers; fewer are filled up."""
MOST_SPLITS = 8
"""Programs that share the inputs of one output, where there are too few outputs to fill a GPU."""


def product(x: Tensor, weight: Stored, bias: Tensor | None, y: Tensor) -> None:
    """``y = x Wᵀ + b``: x [T, in], T from 1 to 64; y [T, out], whose rows may lie apart.

    For one row the weights are what is stored, for more they are rounded to x's dtype.
    """
    with torch.cuda.device_of(x):  # Triton launches on the thread's current one
        if len(x) == 1:
            _launch_one_row(x, weight, bias, y)
        else:
            _launch_few_rows(x, weight, bias, y, n_splits(len(weight.scales), processors(x.device)))


def unpack(weight: Stored, out: Tensor) -> None:
    """The matrix as numbers of another dtype: out [out, in], contiguous."""
    n_out, n_groups = weight.scales.shape
    grid = (triton.cdiv(n_out, UNPACK["OUTS"]), triton.cdiv(n_groups, UNPACK["GROUPS"]))
    with torch.cuda.device_of(out):
        _unpack[grid](*_pointers(weight), out, n_out, n_groups, **_flags(weight), **UNPACK)


def processors(device: torch.device) -> int:
    """Of a GPU; 1 where the kernels are interpreted."""
    if device.type != "cuda":
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def n_splits(n_out: int, n_processors: int) -> int:
    """A power of two, so that each processor has two programs or so."""
    wanted = -(-2 * n_processors // triton.cdiv(n_out, FEW_ROWS["OUTS"]))
    return min(MOST_SPLITS, int(triton.next_power_of_2(wanted)))


def _launch_one_row(x: Tensor, weight: Stored, bias: Tensor | None, y: Tensor) -> None:
    n_out, n_groups = weight.scales.shape
    _one_row[(triton.cdiv(n_out, ONE_ROW["OUTS"]),)](
        x, *_pointers(weight), y if bias is None else bias, y, n_out, n_groups,
        BIAS=bias is not None, **_flags(weight), **ONE_ROW,
    )  # fmt: skip


def _launch_few_rows(x: Tensor, weight: Stored, bias: Tensor | None, y: Tensor, splits: int) -> None:
    n, (n_out, n_groups) = len(x), weight.scales.shape
    tile = FEW_ROWS | (WIDE if x.dtype == torch.float32 else {})
    split = splits > 1
    sums = torch.empty(splits, n, n_out, dtype=torch.float32, device=x.device) if split else y
    adds = bias is not None and not split
    _few_rows[(triton.cdiv(n_out, FEW_ROWS["OUTS"]), splits)](
        x, *_pointers(weight), bias if adds else sums, sums, n, n_out, n_groups, sums.stride(-2),
        BIAS=adds, ROWS=max(LEAST_ROWS, triton.next_power_of_2(n)), SPLITS=splits,
        **_flags(weight), **tile,
    )  # fmt: skip
    if split:
        _add_up[(n, triton.cdiv(n_out, 1024))](
            sums, y if bias is None else bias, y, n, n_out, y.stride(0),
            BIAS=bias is not None, SPLITS=splits, BLOCK=1024,
        )  # fmt: skip


def _pointers(weight: Stored) -> tuple[Tensor, Tensor, Tensor]:
    return weight.values, weight.scales, weight.scales if weight.minima is None else weight.minima


def _flags(weight: Stored) -> dict[str, Any]:
    """What a kernel is compiled for."""
    nibbles = weight.values.shape[1] == weight.scales.shape[1] * 16
    return {"NIBBLES": nibbles, "OFFSET": weight.offset, "MINIMA": weight.minima is not None}


@triton.jit
def _numbers(v, MASK: tl.constexpr, OFFSET: tl.constexpr):
    """Some bits of bytes as float32, less the offset: set into the mantissa of 2**23, quicker than a cast."""
    return ((v & MASK) | 0x4B000000).to(tl.float32, bitcast=True) - (8388608.0 + OFFSET)


@triton.jit
def _one_row(
    x, values, scales, minima, bias, y, n_out, n_groups,
    BIAS: tl.constexpr, NIBBLES: tl.constexpr, OFFSET: tl.constexpr, MINIMA: tl.constexpr,
    OUTS: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    BYTES: tl.constexpr = 16 if NIBBLES else 32
    outs, item = tl.program_id(0) * OUTS + tl.arange(0, OUTS), tl.arange(0, BYTES)
    there = outs < n_out
    own = outs.to(tl.int64)[:, None] * n_groups
    sums = tl.zeros((OUTS, GROUPS), tl.float32)
    for start in range(0, n_groups, GROUPS):
        groups = start + tl.arange(0, GROUPS)
        inside = groups < n_groups
        mask, stored = there[:, None] & inside[None, :], own + groups[None, :]
        place = stored[:, :, None] * BYTES + item[None, None, :]
        v = tl.load(values + place, mask[:, :, None], 0, eviction_policy="evict_first").to(tl.int32)
        scale = tl.load(scales + stored, mask, 0.0, eviction_policy="evict_first").to(tl.float32)
        at = groups[:, None] * 32 + item[None, :]
        part = tl.load(x + at, inside[:, None], 0.0).to(tl.float32)
        if NIBBLES:  # the high four bits stay where they are, 16 times as large
            high = tl.load(x + at + 16, inside[:, None], 0.0).to(tl.float32)
            low_products = _numbers(v, 0x0F, OFFSET) * part[None, :, :]
            products = low_products + _numbers(v, 0xF0, 16 * OFFSET) * (high / 16)[None, :, :]
            part += high
        else:
            products = _numbers(v, 0xFF, OFFSET) * part[None, :, :]
        sums += tl.sum(products, 2) * scale
        if MINIMA:
            minimum = tl.load(minima + stored, mask, 0.0, eviction_policy="evict_first").to(tl.float32)
            sums += minimum * tl.sum(part, 1)[None, :]
    value = tl.sum(sums, 1)
    if BIAS:
        value += tl.load(bias + outs, there, 0.0).to(tl.float32)
    tl.store(y + outs, value.to(y.dtype.element_ty), there)


@triton.jit
def _weights(v, MASK: tl.constexpr, OFFSET: tl.constexpr, scale, minimum, MINIMA: tl.constexpr):
    """What some bits of bytes v [OUTS, GROUPS * BYTES] stand for, float32."""
    shape: tl.constexpr = (scale.shape[0], scale.shape[1], v.shape[1] // scale.shape[1])
    number = tl.reshape(_numbers(v, MASK, OFFSET), shape) * scale[:, :, None]
    if MINIMA:
        number += minimum[:, :, None]
    return tl.reshape(number, v.shape)


@triton.jit
def _block(
    values, scales, minima, outs, start, last, n_out, n_groups,
    BYTES: tl.constexpr, MINIMA: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    """Bytes int32 [OUTS, GROUPS * BYTES], scales and minima [OUTS, GROUPS] of the groups from start to last."""
    there, own = (outs < n_out)[:, None], outs.to(tl.int64)[:, None] * n_groups + start
    at, group = tl.arange(0, GROUPS * BYTES)[None, :], tl.arange(0, GROUPS)[None, :]
    v = tl.load(values + own * BYTES + at, there & (at < (last - start) * BYTES), 0).to(tl.int32)
    mask = there & (group < last - start)
    scale = tl.load(scales + own + group, mask, 0.0).to(tl.float32)
    minimum = scale
    if MINIMA:
        minimum = tl.load(minima + own + group, mask, 0.0).to(tl.float32)
    return v, scale, minimum


@triton.jit(do_not_specialize=["n"])
def _few_rows(
    x, values, scales, minima, bias, y, n, n_out, n_groups, y_stride,
    BIAS: tl.constexpr, NIBBLES: tl.constexpr, OFFSET: tl.constexpr, MINIMA: tl.constexpr,
    ROWS: tl.constexpr, OUTS: tl.constexpr, GROUPS: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    BYTES: tl.constexpr = 16 if NIBBLES else 32
    outs, rows, split = tl.program_id(0) * OUTS + tl.arange(0, OUTS), tl.arange(0, ROWS), tl.program_id(1)
    share = tl.cdiv(tl.cdiv(n_groups, SPLITS), GROUPS) * GROUPS
    first = split * share
    last = tl.minimum(first + share, n_groups)
    at = tl.arange(0, GROUPS * BYTES)
    own = x + rows[:, None] * (n_groups * 32) + (at // BYTES * 32 + at % BYTES)[None, :]
    sums = tl.zeros((OUTS, ROWS), tl.float32)
    for start in range(first, last, GROUPS):
        v, scale, minimum = _block(
            values, scales, minima, outs, start, last, n_out, n_groups, BYTES, MINIMA, GROUPS
        )
        wanted = (rows < n)[:, None] & (at < (last - start) * BYTES)[None, :]
        part = tl.load(own + start * 32, wanted, 0.0)
        if NIBBLES:
            low = _weights(v, 0x0F, OFFSET, scale, minimum, MINIMA).to(part.dtype)
            sums = tl.dot(low, tl.trans(part), sums, input_precision="ieee")
            part = tl.load(own + start * 32 + 16, wanted, 0.0)
            high = _weights(v, 0xF0, 16 * OFFSET, scale / 16, minimum, MINIMA).to(part.dtype)
            sums = tl.dot(high, tl.trans(part), sums, input_precision="ieee")
        else:
            whole = _weights(v, 0xFF, OFFSET, scale, minimum, MINIMA).to(part.dtype)
            sums = tl.dot(whole, tl.trans(part), sums, input_precision="ieee")
    if BIAS:
        sums += tl.load(bias + outs, outs < n_out, 0.0).to(tl.float32)[:, None]
    # the sums of each split lie behind those of the one before, row by row
    place = (split * n + rows).to(tl.int64)[None, :] * y_stride + outs[:, None]
    tl.store(y + place, sums.to(y.dtype.element_ty), (outs < n_out)[:, None] & (rows < n)[None, :])


@triton.jit(do_not_specialize=["n"])
def _add_up(
    sums, bias, y, n, n_out, y_stride, BIAS: tl.constexpr, SPLITS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    row, outs = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = outs < n_out
    value = tl.zeros((BLOCK,), tl.float32)
    for split in tl.static_range(SPLITS):
        value += tl.load(sums + (split * n + row) * n_out + outs, there, 0.0)
    if BIAS:
        value += tl.load(bias + outs, there, 0.0).to(tl.float32)
    tl.store(y + row * y_stride + outs, value.to(y.dtype.element_ty), there)


@triton.jit(do_not_specialize=["n_out"])
def _unpack(
    values, scales, minima, out, n_out, n_groups,
    NIBBLES: tl.constexpr, OFFSET: tl.constexpr, MINIMA: tl.constexpr,
    OUTS: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    BYTES: tl.constexpr = 16 if NIBBLES else 32
    outs, start = tl.program_id(0) * OUTS + tl.arange(0, OUTS), tl.program_id(1) * GROUPS
    v, scale, minimum = _block(
        values, scales, minima, outs, start, n_groups, n_out, n_groups, BYTES, MINIMA, GROUPS
    )
    at = tl.arange(0, GROUPS * BYTES)
    column = start * 32 + at // BYTES * 32 + at % BYTES
    place = out + outs.to(tl.int64)[:, None] * (n_groups * 32) + column[None, :]
    there = (outs < n_out)[:, None] & (column < n_groups * 32)[None, :]
    kind = out.dtype.element_ty
    if NIBBLES:
        tl.store(place, _weights(v, 0x0F, OFFSET, scale, minimum, MINIMA).to(kind), there)
        high = _weights(v, 0xF0, 16 * OFFSET, scale / 16, minimum, MINIMA)
        tl.store(place + 16, high.to(kind), there)
    else:
        tl.store(place, _weights(v, 0xFF, OFFSET, scale, minimum, MINIMA).to(kind), there)
