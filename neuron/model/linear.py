"""Linear layers whose parts have names of their own in the checkpoint (q, k and v in one product)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from neuron.model.packed import Packed, Packing, Weight, stacks_of


class Linear:
    """``y = x Wᵀ + b`` over one or several checkpoint tensors that are stacked along the output.

    Args:
        parts: output sizes by the checkpoint's module name (``model.layers.0.self_attn.q_proj``).
        n_in: input size.
        packing: of the decoder's weights. If not all of the parts are packed, they are plain together.
    """

    def __init__(
        self,
        parts: dict[str, int],
        n_in: int,
        *,
        bias: bool,
        device: torch.device,
        dtype: torch.dtype,
        packing: Packing | None = None,
    ) -> None:
        n_out = sum(parts.values())
        self.parts = parts
        self.bias = torch.empty(n_out, device=device, dtype=dtype) if bias else None
        names = {f"{name}.weight": size for name, size in parts.items()}
        self.stacks = stacks_of(packing, names, n_in, device)
        """Of the parts; empty where `weight` holds them."""
        self.weight = torch.empty(0)  # [out, in]
        if self.stacks:
            self._share_bias()
        else:
            self.weight = empty_weight(n_out, n_in, device=device, dtype=dtype)

    @property
    def packed(self) -> list[Packed]:
        """One for each part; empty where `weight` holds them."""
        return [part for stack in self.stacks for part in stack.parts]

    def __call__(self, x: Tensor) -> Tensor:
        """x [T, in] → [T, out], in x's dtype."""
        if not self.stacks:
            return F.linear(x, self.weight, self.bias)
        y = x.new_empty(len(x), sum(self.parts.values()))
        start = 0
        for weight, _ in self.stacks:
            weight.product(x, y[:, start : start + weight.shape[0]])
            start += weight.shape[0]
        return y

    def named_views(self) -> Iterator[tuple[str, Weight]]:
        """Checkpoint names with the memory that each tensor belongs in."""
        start, packed = 0, self.packed
        for i, (name, size) in enumerate(self.parts.items()):
            weight = packed[i] if packed else self.weight[start : start + size]
            yield f"{name}.weight", weight
            if self.bias is not None:
                yield f"{name}.bias", self.bias[start : start + size]
            start += size

    def _share_bias(self) -> None:
        if self.bias is not None:
            sizes = [stack.whole.shape[0] for stack in self.stacks]
            for stack, part in zip(self.stacks, torch.split(self.bias, sizes), strict=True):
                stack.whole.bias = part


def empty_weight(n_out: int, n_in: int, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Uninitialised [out, in]; on a CPU in float32 laid out column by column where there are more outputs.

    The matrix-vector product then runs along contiguous outputs, which is up to twice as fast for wide layers
    (`docs/adr/0005-weight-layout.md`).
    """
    if device.type == "cpu" and dtype == torch.float32 and n_out > n_in:
        return torch.empty(n_in, n_out, device=device, dtype=dtype).t()
    return torch.empty(n_out, n_in, device=device, dtype=dtype)
