"""Blocks of a GGUF type as blocks of one that is computed, where no number has to be found anew.

Each function takes whole rows of one type, uint8 [out, row bytes], and returns those of the other.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuron.gguf_header import GGML_TYPES
from neuron.model.ggml_types import fifth_bits, half, scales_and_minima, scales_of_q3, values_of_q3

_BYTES = {t.name: t.block_bytes for t in GGML_TYPES.values()}


def q4_1_of_q4_k(rows: Tensor) -> Tensor:
    """The same four bits; the products of two scales are rounded to 11 bits (none where they are subnormal).

    Raises:
        OverflowError: a product that no float16 holds.
    """
    blocks = rows.reshape(-1, _BYTES["Q4_K"])
    scales, minima = scales_and_minima(blocks[:, 4:16])
    halves = torch.stack((half(blocks, 0) * scales, -half(blocks, 2) * minima), dim=-1).to(torch.float16)
    if not halves.isfinite().all():
        raise OverflowError("a scale or a minimum of a group is not finite or beyond 65504")
    low, high = blocks[:, 16:].view(-1, 4, 2, 16).unbind(dim=2)  # of the first and the last 16 of two groups
    pairs = torch.stack((low & 0x0F | high << 4, low >> 4 | high & 0xF0), dim=2)  # [N, 4, 2 groups, 16]
    return torch.cat((halves.view(torch.uint8), pairs.view(-1, 8, 16)), dim=-1).view(len(rows), -1)


def q8_0_of_q3_k(rows: Tensor) -> Tensor:
    """The very numbers: a value of three bits times a scale of six fits into eight, negated (-128 to 124)."""
    blocks = rows.reshape(-1, _BYTES["Q3_K"])
    values = torch.empty(len(blocks), 256, dtype=torch.int8, device=rows.device)
    values_of_q3(blocks, values)
    values.view(-1, 16, 16).mul_(-scales_of_q3(blocks[:, 96:108]).unsqueeze(-1))
    scales = (-half(blocks, 108)).to(torch.float16).view(torch.uint8).unsqueeze(1).expand(-1, 8, 2)
    return torch.cat((scales, values.view(torch.uint8).view(-1, 8, 32)), dim=-1).view(len(rows), -1)


def q8_0_of_q5_0(rows: Tensor) -> Tensor:
    """The very numbers: values from -16 to 15 with the scale that they have."""
    blocks = rows.reshape(-1, _BYTES["Q5_0"])
    packed = blocks[:, 6:]
    values = torch.cat((packed & 0x0F, packed >> 4), dim=1) | fifth_bits(blocks[:, 2:6])
    signed = values.to(torch.int8) - 16
    return torch.cat((blocks[:, :2], signed.view(torch.uint8)), dim=1).view(len(rows), -1)
