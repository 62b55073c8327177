"""Root-mean-square norm (arXiv 1910.07467) and layer norm (arXiv 1607.06450)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from neuron.model import native
from neuron.model.packed import Weight


class RmsNorm:
    """``x / rms(x) * weight`` over the last dimension."""

    def __init__(self, name: str, size: int, eps: float, *, device: torch.device, dtype: torch.dtype) -> None:
        self.name, self.eps, self.shape = name, eps, (size,)
        self.weight = torch.empty(size, device=device, dtype=dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """x [..., size] → the same shape and dtype."""
        if x.dim() == 2 and native.computes(x):
            return native.rms_norm(x, self.weight, self.eps)
        return F.rms_norm(x, self.shape, self.weight, self.eps)

    def named_views(self) -> Iterator[tuple[str, Weight]]:
        """Checkpoint name with the memory that the tensor belongs in."""
        yield f"{self.name}.weight", self.weight


class LayerNorm:
    """``(x - mean(x)) / std(x) * weight + bias`` over the last dimension."""

    def __init__(self, name: str, size: int, eps: float, *, device: torch.device, dtype: torch.dtype) -> None:
        self.name, self.eps, self.shape = name, eps, (size,)
        self.weight = torch.empty(size, device=device, dtype=dtype)
        self.bias = torch.empty(size, device=device, dtype=dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """x [..., size] → the same shape and dtype."""
        return F.layer_norm(x, self.shape, self.weight, self.bias, self.eps)

    def named_views(self) -> Iterator[tuple[str, Weight]]:
        """Checkpoint names with the memory that each tensor belongs in."""
        yield f"{self.name}.weight", self.weight
        yield f"{self.name}.bias", self.bias
