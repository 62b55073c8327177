"""Weights of a GPU in 8 and 4 bits: groups of 32 inputs with a scale and, in one format, a minimum.

The numbers are those of a file's blocks (`neuron.model.packed.FORMATS`); values, scales and minima lie in tensors
of their own, so that neighbouring threads read neighbouring bytes. Few rows are multiplied by kernels where Triton
is; more rows, and all rows on other devices, by torch with the matrix unpacked a part at a time. See
`docs/adr/0019-grouped-weights-on-a-gpu.md`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from neuron.model.checkpoint import Checkpoint
from neuron.model.device import runs_triton
from neuron.model.packed import GROUP, Format, Stack

MOST_ROWS = 64
"""Rows that the kernels multiply; more are worth unpacking the matrix for."""
ROWS_COMPILED_FOR = (1, 16, 32, 64, MOST_ROWS + 1)
"""One number of rows for each way to multiply."""
SCRATCH_ITEMS = 1 << 25
"""Weights that are unpacked for a product at a time: 64 MiB of 16 bits."""
PIECE_ITEMS = 1 << 22
"""Weights that are turned into another layout or into numbers at a time, which takes up to 20 bytes for each."""


class Layout(NamedTuple):
    """How a format's blocks come to the device."""

    bits: int
    n_halves: int
    """float16 numbers in front of the values: the scale, the minimum."""
    offset: int
    """Taken from each value, 0 or more, before it is scaled."""
    flipped: int
    """Bits of the file's bytes that are turned: signed values become values from 0 on."""


LAYOUTS = {"Q8_0": Layout(8, 1, 128, 0x80), "Q4_0": Layout(4, 1, 8, 0), "Q4_1": Layout(4, 2, 0, 0)}
"""By the format's name; other matrices are kept as tensors of the decoder's dtype."""


class Stored(NamedTuple):
    """A matrix [out, in], or some of its rows."""

    values: Tensor
    """[out, bytes] uint8: a value in each, or items j (low bits) and j + 16 of a group of 32."""
    scales: Tensor
    """[out, groups] float16."""
    minima: Tensor | None
    """[out, groups] float16, added to what was scaled."""
    offset: int

    def rows(self, which: slice | Tensor) -> Stored:
        """Some rows; of a slice on the same memory."""
        minima = None if self.minima is None else self.minima[which]
        return Stored(self.values[which], self.scales[which], minima, self.offset)

    def numbers(self) -> Tensor:
        """[out, in] float32."""
        values = self.values.view(*self.scales.shape, -1)
        if values.shape[-1] < GROUP:
            values = torch.cat((values & 0x0F, values >> 4), dim=-1)
        found = values.float().sub_(self.offset).mul_(self.scales.float().unsqueeze(-1))
        if self.minima is not None:
            found.add_(self.minima.float().unsqueeze(-1))
        return found.flatten(1)


class Scratch:
    """Memory for a part of a matrix as numbers; shared by the matrices of a decoder, used one at a time."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._n_items = 0
        self._memory: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that it takes at most, from the first use on."""
        return self._n_items * self.dtype.itemsize

    def reserve(self, n_out: int, n_in: int) -> None:
        """Have room for such a matrix, or for as much of it as is unpacked at a time."""
        self._n_items = max(self._n_items, min(n_out * n_in, max(SCRATCH_ITEMS, n_in)))

    def rows(self, n_in: int) -> int:
        """How many rows of a matrix fit; a multiple of 64 where that can be, for the library's products."""
        fit = self._n_items // n_in
        return fit // 64 * 64 or fit

    def take(self, n_out: int, n_in: int, device: torch.device) -> Tensor:
        """[out, in] that nothing else uses until the next call; ``n_out`` at most `rows`."""
        if self._memory is None:
            self._memory = torch.empty(self._n_items, dtype=self.dtype, device=device)
        return self._memory[: n_out * n_in].view(n_out, n_in)


class GroupedWeight:
    """A matrix [out, in] of one of `LAYOUTS`' formats. Uninitialised until `fill`."""

    def __init__(self, fmt: Format, stored: Stored, scratch: Scratch) -> None:
        self.format, self.stored = fmt, stored
        self.shape = torch.Size((len(stored.scales), stored.scales.shape[1] * GROUP))
        self._scratch = scratch
        self.bias: Tensor | None = None
        """[out], added to each product."""

    @classmethod
    def empty(
        cls, fmt: Format, n_out: int, n_in: int, device: torch.device, scratch: Scratch
    ) -> GroupedWeight:
        """Memory for such a matrix; ``n_in`` in whole groups."""
        layout, n_groups = LAYOUTS[fmt.name], n_in // GROUP
        scratch.reserve(n_out, n_in)
        values = torch.empty(n_out, n_in * layout.bits // 8, dtype=torch.uint8, device=device)
        halves = [
            torch.empty(n_out, n_groups, dtype=torch.float16, device=device) for _ in range(layout.n_halves)
        ]
        return cls(fmt, Stored(values, halves[0], halves[1] if halves[1:] else None, layout.offset), scratch)

    @property
    def nbytes(self) -> int:
        """Bytes of values, scales and minima."""
        s = self.stored
        return s.values.nbytes + s.scales.nbytes + (0 if s.minima is None else s.minima.nbytes)

    def numel(self) -> int:
        """Weights."""
        return math.prod(self.shape)

    def split(self, sizes: Sequence[int]) -> tuple[GroupedWeight, ...]:
        """Its rows in parts on the same memory."""
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        spans = (slice(end - size, end) for end, size in zip(ends, sizes, strict=True))
        return tuple(GroupedWeight(self.format, self.stored.rows(span), self._scratch) for span in spans)

    def fill(self, checkpoint: Checkpoint, name: str) -> None:
        """Read a tensor of the checkpoint; what is stored otherwise is turned into the format on the device."""
        found = self.format.blocks(checkpoint, name, _piece_rows(self.shape[1]), self.stored.values.device)
        for span, blocks in zip(_spans(self.shape), found, strict=True):
            self._put(self.stored.rows(span), blocks)

    def _put(self, into: Stored, blocks: Tensor) -> None:
        """blocks: uint8 [out, row bytes] as in a file."""
        layout = LAYOUTS[self.format.name]
        groups = blocks.view(len(blocks), -1, self.format.n_bytes)
        head = 2 * layout.n_halves
        halves = groups[..., :head].contiguous().view(torch.float16)  # [out, groups, 1 or 2]
        into.scales.copy_(halves[..., 0])
        if into.minima is not None:
            into.minima.copy_(halves[..., 1])
        into.values.copy_((groups[..., head:] ^ layout.flipped).flatten(1))

    def rows(self, ids: Tensor) -> Tensor:
        """Rows ids [T] int64 as [T, in] in the decoder's dtype."""
        return self.stored.rows(ids).numbers().to(self._scratch.dtype)

    def product(self, x: Tensor, y: Tensor) -> None:
        """``y = x Wᵀ + b``: x [T, in]; y [T, out], whose rows may lie apart."""
        if not len(x):
            return
        if len(x) <= MOST_ROWS and runs_triton(x.device):
            from neuron.model import grouped_kernels

            grouped_kernels.product(x.contiguous(), self.stored, self.bias, y)
        else:
            self._product_of_numbers(x, y)

    def _product_of_numbers(self, x: Tensor, y: Tensor) -> None:
        n_out, n_in = self.shape
        step = self._scratch.rows(n_in)
        for start in range(0, n_out, step):
            span = slice(start, min(start + step, n_out))
            weight = self._scratch.take(span.stop - start, n_in, x.device)
            unpack(self.stored.rows(span), weight)
            torch.mm(x, weight.t(), out=y[:, span])
        if self.bias is not None:
            y += self.bias


def unpack(stored: Stored, out: Tensor) -> None:
    """The matrix as numbers of out [out, in]."""
    if runs_triton(out.device):
        from neuron.model import grouped_kernels

        grouped_kernels.unpack(stored, out)
        return
    for span in _spans(out.shape):
        out[span] = stored.rows(span).numbers()


def _piece_rows(n_in: int) -> int:
    return max(1, PIECE_ITEMS // n_in)


def _spans(shape: Sequence[int]) -> Iterator[slice]:
    """The rows of a matrix in pieces."""
    step = _piece_rows(shape[1])
    return (slice(start, start + step) for start in range(0, shape[0], step))


class Groups:
    """A `neuron.model.packed.Packing`: neighbours of one format that are multiplied together share their memory."""

    def __init__(self, formats: Mapping[str, Format], dtype: torch.dtype) -> None:
        self.formats: Mapping[str, Format] = {
            name: fmt for name, fmt in formats.items() if fmt.name in LAYOUTS
        }
        self._scratch = Scratch(dtype)

    @property
    def scratch_bytes(self) -> int:
        """Bytes that products take beside the matrices."""
        return self._scratch.nbytes

    def stacks(self, parts: Mapping[str, int], n_in: int, device: torch.device) -> list[Stack]:
        """Memory for the parts of a product, by their output sizes."""
        stacks = []
        for fmt, same in groupby(parts.items(), key=lambda part: self.formats[part[0]]):
            sizes = [size for _, size in same]
            whole = GroupedWeight.empty(fmt, sum(sizes), n_in, device, self._scratch)
            stacks.append(Stack(whole, whole.split(sizes)))
        return stacks
