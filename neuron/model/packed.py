"""Weights in the width that they are stored in: the formats, and a CPU's layout for its kernels (`csrc/matrix.h`).

That of a GPU is in `neuron.model.grouped`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from neuron.errors import InvalidModelFile
from neuron.model import native
from neuron.model.checkpoint import Checkpoint, TensorInfo
from neuron.model.taken_over import q4_1_of_q4_k, q8_0_of_q3_k, q8_0_of_q5_0

LANES = 16
"""Outputs that lie side by side in a tile, as in ``csrc/vectors.h``."""
GROUP = 32
"""Inputs that share a scale."""
PIECE_ITEMS = 1 << 19
"""Weights that are read at a time: what is read and laid out stays in the processor's cache."""


class Format(NamedTuple):
    """How the numbers of a matrix are stored; the bytes of a block are the file's own."""

    code: int
    """Its number in ``csrc/matrix.h``."""
    name: str
    """The file formats' name."""
    items: int
    """Inputs of one block."""
    n_bytes: int
    """Of one block."""
    encode: Callable[[Tensor], Tensor]
    """[out, in] float32 -> blocks, uint8 [out, row bytes]."""
    takes: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType({})
    """Other types whose blocks are taken over, not encoded anew -> how: uint8 [out, row bytes] of each."""

    def blocks(
        self, checkpoint: Checkpoint, name: str, n_rows: int, device: torch.device
    ) -> Iterator[Tensor]:
        """A matrix of the checkpoint in this format, so many rows at a time: uint8 [rows, row bytes].

        Raises:
            InvalidModelFile: its scales are larger than the format can hold.
        """
        stored = checkpoint.tensors[name].dtype
        if stored != self.name and stored not in self.takes:
            return (self.encode(rows.to(device)) for rows in checkpoint.read_rows(name, n_rows))
        found = (blocks.to(device) for blocks in checkpoint.read_blocks(name, n_rows))
        return found if stored == self.name else (self._taken(name, stored, blocks) for blocks in found)

    def _taken(self, name: str, stored: str, blocks: Tensor) -> Tensor:
        try:
            return self.takes[stored](blocks)
        except OverflowError as e:
            raise InvalidModelFile(f"tensor {name}, {stored}: {e}") from e


def _as(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    return lambda weight: weight.to(dtype).contiguous().view(torch.uint8)


def _to_8_bits(weight: Tensor) -> Tensor:
    """Groups with a scale, from -127 to 127 (Q8_0)."""
    groups = weight.float().view(len(weight), -1, GROUP)
    scale = _half(groups.abs().amax(dim=-1, keepdim=True) / 127)
    values = _divided(groups, scale).round_().clamp_(-127, 127).to(torch.int8)
    return torch.cat((_bytes(scale), values.view(torch.uint8)), dim=-1).flatten(1)


def _to_4_bits(weight: Tensor) -> Tensor:
    """Groups with a scale and a minimum, from 0 to 15 (Q4_1)."""
    groups = weight.float().view(len(weight), -1, GROUP)
    low, high = groups.amin(dim=-1, keepdim=True), groups.amax(dim=-1, keepdim=True)
    scale, minimum = _half((high - low) / 15), _half(low)
    values = _divided(groups - minimum, scale).round_().clamp_(0, 15).to(torch.uint8)
    packed = values[..., : GROUP // 2] | values[..., GROUP // 2 :] << 4
    return torch.cat((_bytes(scale), _bytes(minimum), packed), dim=-1).flatten(1)


def _half(x: Tensor) -> Tensor:
    """Rounded to what a float16 holds."""
    return x.to(torch.float16).float()


def _divided(x: Tensor, by: Tensor) -> Tensor:
    return torch.where(by > 0, x / by, 0.0)


def _bytes(x: Tensor) -> Tensor:
    return x.to(torch.float16).view(torch.uint8)


def _never(weight: Tensor) -> Tensor:
    raise AssertionError("nothing is turned into this format")


FORMATS = {
    f.name: f
    for f in (
        Format(0, "F32", 1, 4, _as(torch.float32)),
        Format(1, "F16", 1, 2, _as(torch.float16)),
        Format(2, "BF16", 1, 2, _as(torch.bfloat16)),
        Format(3, "Q8_0", GROUP, 34, _to_8_bits, {"Q5_0": q8_0_of_q5_0, "Q3_K": q8_0_of_q3_k}),
        Format(4, "Q4_0", GROUP, 18, _never),
        Format(5, "Q4_1", GROUP, 20, _to_4_bits, {"Q4_K": q4_1_of_q4_k}),
    )
}
_HELD = {stored: fmt for fmt in FORMATS.values() for stored in (fmt.name, *fmt.takes)}
"""Where the blocks of a type go."""
QUANTS = {"int8": "Q8_0", "int4": "Q4_1"}
"""What a load may be asked to turn weights into."""


def format_of(name: str, stored: TensorInfo, quant: str | None) -> Format:
    """How a matrix of a checkpoint is kept: in the format that holds its blocks, or else encoded anew in 8 bits.

    ``quant`` makes it narrower and never wider.
    """
    fits = stored.shape[-1] % GROUP == 0
    kept = _HELD.get(stored.dtype) or FORMATS["F32" if stored.dtype == "F64" or not fits else "Q8_0"]
    if not (quant and fits):
        return kept
    # a head of four bits costs more than it saves: it is read once a token and decides it
    is_head = "embed_tokens" in name or "lm_head" in name
    return min(kept, FORMATS["Q8_0" if is_head else QUANTS[quant]], key=lambda fmt: fmt.n_bytes / fmt.items)


class PackedWeight:
    """A matrix [out, in] of one `Format`, in tiles of `LANES` outputs. Uninitialised until `fill`."""

    def __init__(self, fmt: Format, n_out: int, n_in: int, device: torch.device) -> None:
        self.format, self.shape = fmt, torch.Size((n_out, n_in))
        n_tiles = -(-n_out // LANES)
        row_bytes = n_in // fmt.items * fmt.n_bytes
        self.data = torch.empty(n_tiles, row_bytes * LANES, dtype=torch.uint8, device=device)
        self.bias: Tensor | None = None
        """[out] float32, added to each product."""

    @property
    def nbytes(self) -> int:
        """Bytes of the tiles."""
        return self.data.nbytes

    def numel(self) -> int:
        """Weights."""
        return math.prod(self.shape)

    def matrix(self) -> native.Matrix:
        """What the kernels take; belongs to this object, which must outlive it."""
        bias = None if self.bias is None else self.bias.data_ptr()
        return native.Matrix(self.format.code, *self.shape, 0, self.data.data_ptr(), bias)

    def rows(self, ids: Tensor) -> Tensor:
        """Rows ids [T] int64 as [T, in] float32. Raises `IndexError` for one that is not there."""
        if len(ids) and not (int(ids.min()) >= 0 and int(ids.max()) < self.shape[0]):
            raise IndexError(f"a row beyond the {self.shape[0]} of the matrix")
        return native.rows(self.matrix(), ids)

    def product(self, x: Tensor, y: Tensor) -> None:
        """``y = x Wᵀ + b``: x [T, in]; y [T, out], whose rows may lie apart."""
        native.product(self.matrix(), x, y)

    def fill(self, checkpoint: Checkpoint, name: str) -> None:
        """Read a tensor of the checkpoint into the tiles."""
        n_tiles = max(1, PIECE_ITEMS // (LANES * self.shape[1]))
        pieces = self.format.blocks(checkpoint, name, n_tiles * LANES, self.data.device)
        for blocks, tiles in zip(pieces, torch.split(self.data, n_tiles), strict=True):
            self._put(blocks, tiles)

    def _put(self, blocks: Tensor, tiles: Tensor) -> None:
        # a number of a plain format stays whole; a byte of a block lies beside those of the other outputs
        unit_bytes = self.format.n_bytes if self.format.items == 1 else 1
        native.pack(blocks, unit_bytes, tiles)


class Packed(Protocol):
    """What the layouts have in common."""

    format: Format
    shape: torch.Size
    bias: Tensor | None

    @property
    def nbytes(self) -> int: ...
    def numel(self) -> int: ...
    def rows(self, ids: Tensor) -> Tensor: ...
    def product(self, x: Tensor, y: Tensor) -> None: ...
    def fill(self, checkpoint: Checkpoint, name: str) -> None: ...


Weight = Tensor | Packed
"""Memory that a tensor of a checkpoint belongs in."""


class Stack(NamedTuple):
    """Weights one above the other that are multiplied at once."""

    whole: Packed
    parts: Sequence[Packed]
    """One for each tensor of the checkpoint, on the same memory."""


class Packing(Protocol):
    """Which matrices of a decoder are packed, and in what layout; one for each decoder."""

    formats: Mapping[str, Format]
    """By the weight's name."""

    @property
    def scratch_bytes(self) -> int:
        """Bytes that products take beside the matrices."""
        ...

    def stacks(self, parts: Mapping[str, int], n_in: int, device: torch.device) -> list[Stack]:
        """Memory of weights of one product, by their output sizes."""
        ...


class Tiles:
    """The packing of a CPU: every matrix by itself, as its whole step takes them."""

    scratch_bytes = 0

    def __init__(self, formats: Mapping[str, Format]) -> None:
        self.formats = formats

    def stacks(self, parts: Mapping[str, int], n_in: int, device: torch.device) -> list[Stack]:
        """Memory of weights of one product, by their output sizes."""
        weights = (PackedWeight(self.formats[name], size, n_in, device) for name, size in parts.items())
        return [Stack(weight, (weight,)) for weight in weights]


def stacks_of(
    packing: Packing | None, parts: Mapping[str, int], n_in: int, device: torch.device
) -> list[Stack]:
    """Memory of weights of one product; nothing where not all are packed, and torch multiplies plain tensors."""
    if packing is None or not packing.formats.keys() >= parts.keys():
        return []
    return packing.stacks(parts, n_in, device)
