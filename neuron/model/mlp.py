"""Gated feed-forward: gate and up in one product."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from neuron.model import native
from neuron.model.arch import Activation, Mlp
from neuron.model.linear import Linear
from neuron.model.packed import Packing, Weight

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}


class GatedMlp:
    """``down(act(gate(x)) * up(x))``."""

    def __init__(
        self,
        name: str,
        config: Mlp,
        *,
        hidden_size: int,
        device: torch.device,
        dtype: torch.dtype,
        packing: Packing | None = None,
    ) -> None:
        parts = {f"{name}.gate_proj": config.intermediate, f"{name}.up_proj": config.intermediate}
        down = {f"{name}.down_proj": hidden_size}
        self.gate_up = Linear(
            parts, hidden_size, bias=config.bias, device=device, dtype=dtype, packing=packing
        )
        self.down = Linear(
            down, config.intermediate, bias=config.bias, device=device, dtype=dtype, packing=packing
        )
        self.activation = config.activation

    def __call__(self, x: Tensor) -> Tensor:
        """x [T, C] → [T, C]."""
        gate_up = self.gate_up(x)  # [T, 2F]
        if native.computes(gate_up):
            return self.down(native.gate(gate_up, self.activation))
        gate, up = gate_up.chunk(2, dim=-1)
        return self.down(ACTIVATIONS[self.activation](gate).mul_(up))

    def named_views(self) -> Iterator[tuple[str, Weight]]:
        """Checkpoint names with the memory that each tensor belongs in."""
        yield from self.gate_up.named_views()
        yield from self.down.named_views()
