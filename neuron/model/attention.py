"""Grouped-query attention of a ragged batch: every sequence on its own cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from neuron.model import native
from neuron.model.arch import Attention, Rope
from neuron.model.cache import SequenceCache
from neuron.model.linear import Linear
from neuron.model.norm import RmsNorm
from neuron.model.packed import Packing, Weight
from neuron.model.rope import rotate

CosSin = tuple[Tensor, Tensor]

BLOCKED_KEYS = 512
BLOCK_ROWS = 64
"""On a CPU torch's kernel computes all pairs of so few keys, masked or not. In blocks of so many queries a prompt's
attention takes three quarters of the time (3.3 against 2.4 ms at 512 tokens); beyond, it skips them itself.
"""


@dataclass(frozen=True, slots=True)
class Span:
    """The rows of one sequence in a step."""

    cache: SequenceCache
    start: int
    n_tokens: int


class Masks:
    """Which keys each new token of a sequence may see; built once a step and shared by the layers."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._by_shape: dict[tuple[int, int, int | None], Tensor] = {}

    def get(self, n_new: int, n_keys: int, window: int | None) -> Tensor:
        """Boolean [n_new, n_keys], True where the new token may look; the last keys are the new tokens' own."""
        key = (n_new, n_keys, window)
        if (mask := self._by_shape.get(key)) is None:
            query = torch.arange(n_keys - n_new, n_keys, device=self.device)[:, None]
            keys = torch.arange(n_keys, device=self.device)
            mask = keys <= query
            if window is not None:
                mask &= keys > query - window
            self._by_shape[key] = mask
        return mask


class SelfAttention:
    """q, k, v in one product, optional head norms, rope, attention over the cache, output product."""

    def __init__(
        self,
        name: str,
        layer: int,
        config: Attention,
        *,
        hidden_size: int,
        norm_eps: float,
        rope: Rope | None,
        window: int | None,
        device: torch.device,
        dtype: torch.dtype,
        packing: Packing | None = None,
    ) -> None:
        self.layer, self.rope, self.window = layer, rope, window
        self.n_heads, self.n_kv_heads, self.head_dim = config.n_heads, config.n_kv_heads, config.head_dim
        q_size, kv_size = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        parts = {f"{name}.q_proj": q_size, f"{name}.k_proj": kv_size, f"{name}.v_proj": kv_size}
        out = {f"{name}.o_proj": hidden_size}
        self.qkv = Linear(
            parts, hidden_size, bias=config.qkv_bias, device=device, dtype=dtype, packing=packing
        )
        self.o = Linear(out, q_size, bias=config.o_bias, device=device, dtype=dtype, packing=packing)
        self.q_norm = self.k_norm = None
        if config.qk_norm:
            self.q_norm = RmsNorm(f"{name}.q_norm", self.head_dim, norm_eps, device=device, dtype=dtype)
            self.k_norm = RmsNorm(f"{name}.k_norm", self.head_dim, norm_eps, device=device, dtype=dtype)

    def __call__(self, x: Tensor, spans: Sequence[Span], cos_sin: CosSin | None, masks: Masks) -> Tensor:
        """x [T, C] → [T, C]. Writes the new keys and values into each span's cache."""
        qkv = self.qkv(x).view(len(x), -1, self.head_dim)  # [T, H + 2K, D]
        qk, v = qkv[:, : self.n_heads + self.n_kv_heads], qkv[:, self.n_heads + self.n_kv_heads :]
        if self.q_norm is not None and self.k_norm is not None:
            qk = torch.cat((self.q_norm(qk[:, : self.n_heads]), self.k_norm(qk[:, self.n_heads :])), dim=1)
        if cos_sin is not None and native.computes(qk):
            native.rotate_in_place(qk, *cos_sin)
        elif cos_sin is not None:
            qk = rotate(qk, *cos_sin)
        q, k = qk[:, : self.n_heads], qk[:, self.n_heads :]  # [T, H, D], [T, K, D]
        heads = [
            self._attend(q[rows], *span.cache.append(self.layer, k[rows], v[rows]), masks)
            for span in spans
            for rows in (slice(span.start, span.start + span.n_tokens),)
        ]
        return self.o(heads[0] if len(heads) == 1 else torch.cat(heads))

    def _attend(self, q: Tensor, keys: Tensor, values: Tensor, masks: Masks) -> Tensor:
        """One sequence: q [n, H, D] on keys, values [K, S, D] → [n, H·D]."""
        n = len(q)
        if self.window is not None:  # older keys than any new token may see
            first = max(0, keys.shape[1] - (self.window + n - 1))
            keys, values = keys[:, first:], values[:, first:]
        n_keys = keys.shape[1]
        if n == 1:  # the heads of a group are the queries of one key/value head
            grouped = q.view(1, self.n_kv_heads, -1, self.head_dim)
            out = F.scaled_dot_product_attention(grouped, keys[None], values[None])
            return out.reshape(1, -1)
        if native.computes(q):
            return native.attend(q, keys, values, self.window)
        if q.device.type == "cpu" and n_keys <= BLOCKED_KEYS:
            blocks = [self._block(q, keys, values, masks, at) for at in range(0, n, BLOCK_ROWS)]
            out = torch.cat(blocks, dim=1)  # [H, n, D]
        else:
            out = self._rows(q, keys, values, masks)
        return out.transpose(0, 1).reshape(n, -1)

    def _block(self, q: Tensor, keys: Tensor, values: Tensor, masks: Masks, at: int) -> Tensor:
        """`BLOCK_ROWS` queries from ``at`` on, without the keys that none of them may see."""
        rows = q[at : at + BLOCK_ROWS]
        seen = keys.shape[1] - len(q) + at + len(rows)
        return self._rows(rows, keys[:, :seen], values[:, :seen], masks)

    def _rows(self, q: Tensor, keys: Tensor, values: Tensor, masks: Masks) -> Tensor:
        """q [n, H, D], the last of the keys its own, on keys, values [K, S, D] → [H, n, D]."""
        n, n_keys = len(q), keys.shape[1]
        causal = n == n_keys and (self.window is None or n <= self.window)
        return F.scaled_dot_product_attention(
            q.transpose(0, 1)[None],
            keys[None],
            values[None],
            attn_mask=None if causal else masks.get(n, n_keys, self.window),
            is_causal=causal,
            enable_gqa=True,
        )[0]

    def named_views(self) -> Iterator[tuple[str, Weight]]:
        """Checkpoint names with the memory that each tensor belongs in."""
        for part in (self.qkv, self.o, self.q_norm, self.k_norm):
            if part is not None:
                yield from part.named_views()
