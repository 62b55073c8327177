"""The decoder: one forward pass over a ragged batch of sequences, each at its own position."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile

import torch
import torch.nn.functional as F
from torch import Tensor

from neuron.model.arch import ArchConfig
from neuron.model.attention import CosSin, Masks, SelfAttention, Span
from neuron.model.cache import SequenceCache
from neuron.model.device import runs_triton
from neuron.model.graphs import DecodeGraphs
from neuron.model.grouped import ROWS_COMPILED_FOR
from neuron.model.linear import Linear, empty_weight
from neuron.model.mlp import GatedMlp
from neuron.model.native_step import MOST_ROWS, NativeStep
from neuron.model.norm import RmsNorm
from neuron.model.packed import PackedWeight, Packing, Weight, stacks_of
from neuron.model.rope import RopeTable


@dataclass(frozen=True, slots=True)
class Batch:
    """The new tokens of every sequence that takes part in a step, one after the other."""

    tokens: Tensor
    """[T] int64."""
    positions: Tensor
    """[T] int64."""
    spans: tuple[Span, ...]
    logit_rows: Tensor
    """[R] int64: the rows whose logits are wanted."""


Parts = Sequence[tuple[SequenceCache, Sequence[int], int]]
"""(cache, new ids, of how many of the last ones the logits are wanted) of each sequence in a step."""


def make_batch(parts: Parts, device: torch.device) -> Batch:
    """A `Batch` on the device."""
    spans: list[Span] = []
    tokens: list[int] = []
    positions: list[int] = []
    rows: list[int] = []
    for cache, ids, n_logits in parts:
        start = len(tokens)
        spans.append(Span(cache, start, len(ids)))
        tokens.extend(ids)
        positions.extend(range(cache.length, cache.length + len(ids)))
        rows.extend(range(len(tokens) - n_logits, len(tokens)))
    as_tensor = [torch.tensor(x, dtype=torch.int64, device=device) for x in (tokens, positions, rows)]
    return Batch(as_tensor[0], as_tensor[1], tuple(spans), as_tensor[2])


class Block:
    """One layer: attention and feed-forward, each behind a norm and added to the stream."""

    def __init__(
        self,
        arch: ArchConfig,
        index: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
        packing: Packing | None = None,
    ) -> None:
        name, layer, eps = f"model.layers.{index}", arch.layers[index], arch.norm_eps
        size = arch.hidden_size
        self.input_norm = RmsNorm(f"{name}.input_layernorm", size, eps, device=device, dtype=dtype)
        self.attention = SelfAttention(
            f"{name}.self_attn",
            index,
            arch.attention,
            hidden_size=size,
            norm_eps=eps,
            rope=layer.rope,
            window=layer.window,
            device=device,
            dtype=dtype,
            packing=packing,
        )
        self.mlp_norm = RmsNorm(f"{name}.post_attention_layernorm", size, eps, device=device, dtype=dtype)
        self.mlp = GatedMlp(
            f"{name}.mlp", arch.mlp, hidden_size=size, device=device, dtype=dtype, packing=packing
        )

    def __call__(
        self,
        x: Tensor,
        spans: Sequence[Span],
        cos_sin: CosSin | None,
        masks: Masks,
        rows: Tensor | None = None,
    ) -> Tensor:
        """x [T, C] → [T, C], in place; only ``rows`` [R] of it → [R, C] behind the attention, where given."""
        x += self.attention(self.input_norm(x), spans, cos_sin, masks)
        if rows is not None:
            x = x[rows]
        x += self.mlp(self.mlp_norm(x))
        return x

    def named_views(self) -> Iterator[tuple[str, Weight]]:
        """Checkpoint names with the memory that each tensor belongs in."""
        for part in (self.input_norm, self.attention, self.mlp_norm, self.mlp):
            yield from part.named_views()


class Decoder:
    """A decoder-only transformer with uninitialised weights; `neuron.model.load` fills them.

    Memory is taken on ``device`` at once; on ``meta`` it costs nothing and shows every expected shape. With
    ``packing`` matrices are kept in the width that they are stored in.
    """

    def __init__(
        self, arch: ArchConfig, *, device: torch.device, dtype: torch.dtype, packing: Packing | None = None
    ) -> None:
        self.arch, self.device, self.dtype, self._packing = arch, device, dtype, packing
        size, vocab = arch.hidden_size, arch.vocab_size
        self.blocks = [
            Block(arch, i, device=device, dtype=dtype, packing=packing) for i in range(len(arch.layers))
        ]
        self.norm = RmsNorm("model.norm", size, arch.norm_eps, device=device, dtype=dtype)
        head = "model.embed_tokens" if arch.tied_embeddings else "lm_head"
        self.lm_head = Linear({head: vocab}, size, bias=False, device=device, dtype=dtype, packing=packing)
        self.embedding: Weight  # [V, C]
        stacks = self.lm_head.stacks
        if not arch.tied_embeddings:
            stacks = stacks_of(packing, {"model.embed_tokens.weight": vocab}, size, device)
        if stacks:
            self.embedding = stacks[0].whole
        elif arch.tied_embeddings:
            self.embedding = self.lm_head.weight
        else:
            self.embedding = empty_weight(vocab, size, device=device, dtype=dtype)
        ropes = {layer.rope for layer in arch.layers if layer.rope is not None}
        self.ropes = {rope: RopeTable(rope, device) for rope in ropes}
        self.graphs: DecodeGraphs | None = None
        """How to decode on a GPU; see `capture`."""
        self.native: NativeStep | None = None
        """How to compute few rows on a CPU; see `capture`."""

    def capture(self, most: int) -> None:
        """Make ready to decode up to ``most`` sequences in the device's fastest way; the weights must be there."""
        if runs_triton(self.device):
            with torch.cuda.device(self.device):  # Triton and graphs take the thread's current one
                self._compile()
                self.graphs = DecodeGraphs(self, most)
        elif isinstance(self.embedding, PackedWeight):
            self.native = NativeStep(self)

    def _compile(self) -> None:
        """Compile the kernels of packed weights for every number of rows, so that no request waits for it."""
        for n in ROWS_COMPILED_FOR if self._packing else ():
            self.forward(make_batch([(self.new_cache(n), [0] * n, n)], self.device))

    @property
    def drafts_pay(self) -> bool:
        """Whether a step of several ids of a sequence takes less than a step for each.

        Not on a GPU: its recorded steps take one id of each sequence. Nor in a narrow dtype, where several rows are
        rounded otherwise than one, so that a guess could change the answer.
        """
        return self.device.type == "cpu" and self.dtype == torch.float32

    def step(self, parts: Parts) -> Tensor:
        """Logits [R, V] float32 of the parts that want them, in the way that `capture` made ready where it fits."""
        if self.native:
            return self._natively(self.native, parts)
        recorded = self._recorded(parts)
        rest = parts[len(recorded) :]
        logits = [self.forward(make_batch(rest, self.device))] if rest else []
        if self.graphs and recorded:
            of_graph = self.graphs.step([ids[0] for _, ids, _ in recorded], [c for c, _, _ in recorded])
            logits.insert(0, of_graph)
        return torch.cat(logits) if len(logits) > 1 else logits[0]

    def _natively(self, native: NativeStep, parts: Parts) -> Tensor:
        """Few rows in one call. Of more, those that decode come by themselves, in float32 as ever, and prompts
        behind them, by the torch code where they have many rows."""
        logits: list[Tensor] = []
        while parts:
            n = _n_in_one_call(parts)
            logits.append(native.step(parts[:n]) if n else self.forward(make_batch(parts, self.device)))
            parts = parts[n:] if n else []
        return torch.cat(logits) if len(logits) > 1 else logits[0]

    def _recorded(self, parts: Parts) -> Parts:
        """The first parts, as many as a recorded step computes."""
        if self.graphs is None:
            return []
        return list(takewhile(lambda part: len(part[1]) == part[2] == 1, parts))[: self.graphs.most]

    @torch.inference_mode()
    def forward(self, batch: Batch) -> Tensor:
        """Logits [R, V] float32 of the wanted rows; for the rest see `states`."""
        return self.lm_head(self.states(batch)).float()

    @torch.inference_mode()
    def states(self, batch: Batch) -> Tensor:
        """Hidden states [R, C] of the wanted rows after the last norm; every span's cache grows by its tokens.

        A cache must have room for its tokens. If this raises, the caches are as they were.
        """
        x = self.embed(batch.tokens)
        cos_sin = {rope: table.at(batch.positions, self.dtype) for rope, table in self.ropes.items()}
        masks = Masks(self.device)
        for block in self.blocks:
            rope = block.attention.rope
            # behind the last attention nothing is needed of the other rows
            rows = batch.logit_rows if block is self.blocks[-1] else None
            x = block(x, batch.spans, cos_sin[rope] if rope else None, masks, rows)
        for span in batch.spans:
            span.cache.length += span.n_tokens
        return self.norm(x)

    def embed(self, tokens: Tensor) -> Tensor:
        """Rows [T, C] of the embedding for tokens [T] int64."""
        if isinstance(self.embedding, Tensor):
            return F.embedding(tokens, self.embedding)
        return self.embedding.rows(tokens)

    def new_cache(self, capacity: int) -> SequenceCache:
        """An empty cache for ``capacity`` tokens, in the decoder's dtype on its device."""
        return SequenceCache(self.arch, capacity, device=self.device, dtype=self.dtype)

    def named_views(self) -> Iterator[tuple[str, Weight]]:
        """Checkpoint names with the memory that each tensor belongs in."""
        for block in self.blocks:
            yield from block.named_views()
        yield from self.norm.named_views()
        yield from self.lm_head.named_views()
        if not self.arch.tied_embeddings:
            yield "model.embed_tokens.weight", self.embedding

    def weight_bytes(self) -> int:
        """Bytes that the weights take, and products with them beside."""
        scratch_bytes = self._packing.scratch_bytes if self._packing else 0
        return sum(view.nbytes for _, view in self.named_views()) + scratch_bytes


def _n_in_one_call(parts: Parts) -> int:
    """How many parts the next call of the processor's kernels computes: all, or the first that decode; 0: none."""
    ends = list(accumulate(len(ids) for _, ids, _ in parts))
    if ends[-1] <= MOST_ROWS:
        return len(parts)
    decoding = takewhile(
        lambda at: len(at[0][1]) == at[0][2] and at[1] <= MOST_ROWS, zip(parts, ends, strict=True)
    )
    return sum(1 for _ in decoding)
