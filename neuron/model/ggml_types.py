"""Quantised GGUF tensors as floats.

A quantised tensor is a row of blocks, each a few bytes of scales and packed integers. One row of `UNPACKERS`
per type says how a batch of blocks becomes floats. Products and sums are rounded one at a time, in the order
of the reference implementation, so that results are equal bit for bit.

Where a function is called on ``blocks`` and ``out``: ``blocks`` is uint8 [N, block_bytes], read only; ``out`` is
float32 [N, block_items] and is filled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from neuron.errors import InvalidModelFile, UnsupportedArchitecture
from neuron.gguf_header import GGML_TYPES

Unpack = Callable[[Tensor, Tensor], None]

_CHUNK_ITEMS = 1 << 20
"""Items unpacked at a time: large enough to hide the calls, a few MB of temporaries."""

_BY_NAME = {t.name: t for t in GGML_TYPES.values()}

FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Types that are plain arrays."""


def dequantize(data: bytearray | memoryview, type_name: str, shape: Sequence[int]) -> Tensor:
    """The tensor in ``data``, of ``shape``: float32, or for `FLOATS` its own dtype on the same memory.

    Raises:
        UnsupportedArchitecture: a type that this build does not compute.
        InvalidModelFile: ``data`` has another length than the shape says.
    """
    if type_name not in FLOATS and type_name not in UNPACKERS:
        raise UnsupportedArchitecture(
            f"quantisation {type_name} is not computed by this build",
            hint=f"use a file of one of {', '.join([*FLOATS, *UNPACKERS])}",
        )
    _, block_items, block_bytes = _BY_NAME[type_name]
    if math.prod(shape) * block_bytes != len(data) * block_items or len(data) == 0:
        raise InvalidModelFile(f"{len(data)} bytes are not a {type_name} tensor of shape {tuple(shape)}")
    if type_name in FLOATS:
        return torch.frombuffer(data, dtype=FLOATS[type_name]).view(*shape)
    blocks = torch.frombuffer(data, dtype=torch.uint8).view(-1, block_bytes)
    return _unpack(blocks, UNPACKERS[type_name], block_items).view(*shape)


def _unpack(blocks: Tensor, unpack: Unpack, block_items: int) -> Tensor:
    """All blocks as float32 [N, block_items], a chunk at a time, so that temporaries stay small."""
    out = torch.empty(len(blocks), block_items)
    n = _CHUNK_ITEMS // block_items
    for some, filled in zip(torch.split(blocks, n), torch.split(out, n), strict=True):
        unpack(some, filled)
    return out


def half(blocks: Tensor, at: int) -> Tensor:
    """The float16 number at byte ``at`` of every block, as float32 [N, 1]."""
    return blocks[:, at : at + 2].view(torch.float16).float()


def _nibbles(packed: Tensor, low: Tensor, high: Tensor) -> None:
    """Write the low and the high four bits of every byte to ``low`` and ``high``, of the same shape."""
    low.copy_(packed & 0x0F)
    high.copy_(packed >> 4)


def _two_bits(packed: Tensor, out: Tensor) -> None:
    """uint8 [N, 64] -> ``out``: the four pairs of bits of each run of 32 bytes, lowest first."""
    by_shift = out.view(-1, 2, 4, 32)
    for j in range(4):
        by_shift[:, :, j] = (packed.view(-1, 2, 32) >> 2 * j) & 3


def fifth_bits(packed: Tensor) -> Tensor:
    """uint8 [N, 4] -> [N, 32]: every bit, lowest first, as 0 or 16."""
    bits = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return (((packed.unsqueeze(-1) >> bits) & 1) << 4).view(-1, 32)


def _q8_0(blocks: Tensor, out: Tensor) -> None:
    out.copy_(blocks[:, 2:].view(torch.int8)).mul_(half(blocks, 0))


def _q4_0(blocks: Tensor, out: Tensor) -> None:
    _nibbles(blocks[:, 2:], out[:, :16], out[:, 16:])
    out.sub_(8).mul_(half(blocks, 0))


def _q4_1(blocks: Tensor, out: Tensor) -> None:
    _nibbles(blocks[:, 4:], out[:, :16], out[:, 16:])
    out.mul_(half(blocks, 0)).add_(half(blocks, 2))


def _q5_0(blocks: Tensor, out: Tensor) -> None:
    _nibbles(blocks[:, 6:], out[:, :16], out[:, 16:])
    out.add_(fifth_bits(blocks[:, 2:6])).sub_(16).mul_(half(blocks, 0))


def _q5_1(blocks: Tensor, out: Tensor) -> None:
    _nibbles(blocks[:, 8:], out[:, :16], out[:, 16:])
    out.add_(fifth_bits(blocks[:, 4:8])).mul_(half(blocks, 0)).add_(half(blocks, 2))


def _q2_k(blocks: Tensor, out: Tensor) -> None:
    """Bytes: 16 of scale and minimum (4 + 4 bits), 64 of 2-bit values, two halves. Groups of 16."""
    _two_bits(blocks[:, 16:80], out)
    scales = half(blocks, 80) * (blocks[:, :16] & 0x0F)
    minima = half(blocks, 82) * (blocks[:, :16] >> 4)
    out.view(-1, 16, 16).mul_(scales.unsqueeze(-1)).sub_(minima.unsqueeze(-1))


def _q3_k(blocks: Tensor, out: Tensor) -> None:
    """Bytes: 32 of third bits, 64 of 2-bit values, 12 of 6-bit scales, a half. Groups of 16."""
    values_of_q3(blocks, out)
    scales = half(blocks, 108) * scales_of_q3(blocks[:, 96:108])
    out.view(-1, 16, 16).mul_(scales.unsqueeze(-1))


def values_of_q3(blocks: Tensor, out: Tensor) -> None:
    """Write the values of every block to ``out`` [N, 256], from -4 to 3."""
    _two_bits(blocks[:, 32:96], out)
    # A third bit that is set means no offset; one that is clear means minus four.
    for j in range(8):
        out.view(-1, 8, 32)[:, j] += (((blocks[:, :32] >> j) & 1) << 2).to(torch.int8) - 4


def scales_of_q3(packed: Tensor) -> Tensor:
    """uint8 [N, 12] -> int8 [N, 16]: four low bits in bytes 0-7, two high bits in bytes 8-11, less 32."""
    low = torch.cat([packed[:, :8] & 0x0F, packed[:, :8] >> 4], dim=1)
    high = torch.cat([(packed[:, 8:] >> 2 * j) & 3 for j in range(4)], dim=1)
    return (low | (high << 4)).to(torch.int8) - 32


def scales_and_minima(packed: Tensor) -> tuple[Tensor, Tensor]:
    """uint8 [N, 12] -> scales and minima uint8 [N, 8], six bits each.

    The first four of each lie in bytes 0-3 and 4-7; the top two bits there are the top two bits of the last
    four, whose low bits are the nibbles of bytes 8-11.
    """
    first, second, last = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = torch.cat([first & 0x3F, (last & 0x0F) | ((first >> 2) & 0x30)], dim=1)
    minima = torch.cat([second & 0x3F, (last >> 4) | ((second >> 2) & 0x30)], dim=1)
    return scales, minima


def _scale_groups_of_32(blocks: Tensor, out: Tensor) -> None:
    """Shared by Q4_K and Q5_K: two halves, then 12 bytes of scales and minima, for 8 groups."""
    scales, minima = scales_and_minima(blocks[:, 4:16])
    groups = out.view(-1, 8, 32)
    groups.mul_((half(blocks, 0) * scales).unsqueeze(-1))
    groups.sub_((half(blocks, 2) * minima).unsqueeze(-1))


def _q4_k(blocks: Tensor, out: Tensor) -> None:
    """Bytes: see `_scale_groups_of_32`, then 128 of 4-bit values."""
    pairs = out.view(-1, 4, 2, 32)
    _nibbles(blocks[:, 16:].view(-1, 4, 32), pairs[:, :, 0], pairs[:, :, 1])
    _scale_groups_of_32(blocks, out)


def _q5_k(blocks: Tensor, out: Tensor) -> None:
    """Bytes: see `_scale_groups_of_32`, then 32 of fifth bits, 128 of 4-bit values."""
    pairs = out.view(-1, 4, 2, 32)
    _nibbles(blocks[:, 48:].view(-1, 4, 32), pairs[:, :, 0], pairs[:, :, 1])
    for j in range(8):
        out.view(-1, 8, 32)[:, j] += ((blocks[:, 16:48] >> j) & 1) << 4
    _scale_groups_of_32(blocks, out)


def _q6_k(blocks: Tensor, out: Tensor) -> None:
    """Bytes: 128 of four low bits, 64 of two high bits, 16 of int8 scales, a half. Groups of 16."""
    high = blocks[:, 128:192].view(-1, 2, 32)
    values = torch.empty(len(blocks), 2, 4, 32, dtype=torch.uint8)
    _nibbles(blocks[:, :128].view(-1, 2, 2, 32), values[:, :, :2], values[:, :, 2:])
    for j in range(4):
        values[:, :, j] |= ((high >> 2 * j) & 3) << 4
    scales = half(blocks, 208) * blocks[:, 192:208].view(torch.int8)
    out.copy_(values.view(-1, 256)).sub_(32)
    out.view(-1, 16, 16).mul_(scales.unsqueeze(-1))


def _q8_k(blocks: Tensor, out: Tensor) -> None:
    """Bytes: a float32 scale, 256 int8 values, sums that nobody needs here."""
    out.copy_(blocks[:, 4:260].view(torch.int8)).mul_(blocks[:, :4].view(torch.float32))


UNPACKERS: dict[str, Unpack] = {
    "Q8_0": _q8_0,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "Q8_K": _q8_k,
}
"""Quantised types that this build computes; block sizes are in `neuron.gguf_header.GGML_TYPES`."""
