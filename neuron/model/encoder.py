"""The encoder: one forward pass over whole sequences, which keep nothing behind (BERT, arXiv 1810.04805)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from neuron.model.arch import EncoderConfig
from neuron.model.linear import Linear
from neuron.model.mlp import ACTIVATIONS
from neuron.model.norm import LayerNorm
from neuron.model.packed import Weight

Run = tuple[int, int]
"""Neighbours of equal length: how many sequences, tokens of each. They share one attention."""


class EncoderAttention:
    """Attention of every token to every token of its sequence."""

    def __init__(self, name: str, arch: EncoderConfig, *, device: torch.device, dtype: torch.dtype) -> None:
        size = arch.hidden_size
        self.n_heads = arch.n_heads
        parts = {f"{name}.self.{part}": size for part in ("query", "key", "value")}
        self.qkv = Linear(parts, size, bias=True, device=device, dtype=dtype)
        self.o = Linear({f"{name}.output.dense": size}, size, bias=True, device=device, dtype=dtype)

    def __call__(self, x: Tensor, runs: Sequence[Run]) -> Tensor:
        """x [T, C] → [T, C]."""
        parts = torch.split(self.qkv(x), [n * length for n, length in runs])
        return self.o(torch.cat([self._attend(part, *run) for part, run in zip(parts, runs, strict=True)]))

    def _attend(self, qkv: Tensor, n: int, length: int) -> Tensor:
        """qkv [n·length, 3C] → [n·length, C]."""
        q, k, v = qkv.view(n, length, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)  # [n, H, length, D] each
        out = F.scaled_dot_product_attention(q, k, v)
        return out.transpose(1, 2).reshape(n * length, -1)

    def named_views(self) -> Iterator[tuple[str, Weight]]:
        """Checkpoint names with the memory that each tensor belongs in."""
        yield from self.qkv.named_views()
        yield from self.o.named_views()


class EncoderBlock:
    """One layer: attention, then feed-forward, each added to the stream and the sum normed."""

    def __init__(self, arch: EncoderConfig, index: int, *, device: torch.device, dtype: torch.dtype) -> None:
        name, size, eps = f"encoder.layer.{index}", arch.hidden_size, arch.norm_eps
        up, down = {f"{name}.intermediate.dense": arch.intermediate}, {f"{name}.output.dense": size}
        attention, norm = f"{name}.attention", "output.LayerNorm"
        self.attention = EncoderAttention(attention, arch, device=device, dtype=dtype)
        self.attention_norm = LayerNorm(f"{attention}.{norm}", size, eps, device=device, dtype=dtype)
        self.up = Linear(up, size, bias=True, device=device, dtype=dtype)
        self.down = Linear(down, arch.intermediate, bias=True, device=device, dtype=dtype)
        self.norm = LayerNorm(f"{name}.{norm}", size, eps, device=device, dtype=dtype)
        self.activation = ACTIVATIONS[arch.activation]

    def __call__(self, x: Tensor, runs: Sequence[Run]) -> Tensor:
        """x [T, C] → [T, C]."""
        x = self.attention_norm(x + self.attention(x, runs))
        return self.norm(x + self.down(self.activation(self.up(x))))

    def named_views(self) -> Iterator[tuple[str, Weight]]:
        """Checkpoint names with the memory that each tensor belongs in."""
        for part in (self.attention, self.attention_norm, self.up, self.down, self.norm):
            yield from part.named_views()


class Encoder:
    """A BERT-shaped encoder with uninitialised weights; `neuron.model.load` fills them."""

    def __init__(self, arch: EncoderConfig, *, device: torch.device, dtype: torch.dtype) -> None:
        self.arch, self.device, self.dtype = arch, device, dtype
        rows = {"word": arch.vocab_size, "position": arch.context, "token_type": arch.token_types}
        self.embeddings = {
            kind: torch.empty(n, arch.hidden_size, device=device, dtype=dtype) for kind, n in rows.items()
        }  # [V, C], [context, C], [types, C]
        self.norm = LayerNorm(
            "embeddings.LayerNorm", arch.hidden_size, arch.norm_eps, device=device, dtype=dtype
        )
        self.blocks = [EncoderBlock(arch, i, device=device, dtype=dtype) for i in range(arch.n_layers)]

    @torch.inference_mode()
    def states(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """Hidden states [T, C] of every token of whole sequences, one sequence after the other.

        Each has 1 to ``arch.context`` ids. Neighbours of equal length are computed faster than others.
        """
        runs = [(len(list(group)), length) for length, group in groupby(map(len, sequences))]
        x = self._embed(sequences)
        for block in self.blocks:
            x = block(x, runs)
        return x

    def _embed(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """Sum of word, position and token type, normed: [T, C]. Every token is of the first type."""
        ids = torch.tensor(list(chain(*sequences)), device=self.device)  # [T]
        positions = torch.cat([torch.arange(len(s), device=self.device) for s in sequences])  # [T]
        x = F.embedding(ids, self.embeddings["word"])
        x = x + F.embedding(positions, self.embeddings["position"]) + self.embeddings["token_type"][0]
        return self.norm(x)

    def named_views(self) -> Iterator[tuple[str, Weight]]:
        """Checkpoint names with the memory that each tensor belongs in."""
        for kind, weight in self.embeddings.items():
            yield f"embeddings.{kind}_embeddings.weight", weight
        yield from self.norm.named_views()
        for block in self.blocks:
            yield from block.named_views()

    def weight_bytes(self) -> int:
        """Bytes that the weights take."""
        return sum(view.nbytes for _, view in self.named_views())
