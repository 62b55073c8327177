"""Keys and values of one sequence, reserved whole when the sequence is admitted."""

from __future__ import annotations

import torch
from torch import Tensor

from neuron.model.arch import ArchConfig


class SequenceCache:
    """Keys and values of every layer for up to ``capacity`` tokens of one sequence.

    ``length`` is the number of tokens that are in it. It moves only after a whole step succeeded, so a step that
    failed half-way leaves the cache as it was.
    """

    def __init__(self, arch: ArchConfig, capacity: int, *, device: torch.device, dtype: torch.dtype) -> None:
        shape = (len(arch.layers), 2, arch.attention.n_kv_heads, capacity, arch.attention.head_dim)
        self.data = torch.empty(shape, dtype=dtype, device=device)  # [layers, 2, K, capacity, D]
        self.capacity = capacity
        self.length = 0

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write key, value [T, K, D] behind what is there; views [K, S, D] of all keys and values of the layer."""
        keys, values = self.data[layer, 0], self.data[layer, 1]  # [K, capacity, D]
        end = self.length + key.shape[0]
        keys[:, self.length : end] = key.transpose(0, 1)
        values[:, self.length : end] = value.transpose(0, 1)
        return keys[:, :end], values[:, :end]

    def extend_from(self, other: SequenceCache, n: int) -> None:
        """Take over ``n`` tokens more of another cache of the same model that begins the same; they must fit."""
        self.extend(other.data[:, :, :, self.length : self.length + n])

    def part(self, start: int, end: int) -> Tensor:
        """A copy of the tokens from ``start`` to ``end``: [layers, 2, K, end - start, D]."""
        return self.data[:, :, :, start:end].clone()

    def extend(self, data: Tensor) -> None:
        """Take over tokens [layers, 2, K, n, D] behind what is there, which must fit."""
        end = self.length + data.shape[3]
        self.data[:, :, :, self.length : end] = data
        self.length = end

    def truncate(self, length: int) -> None:
        """Forget every token from ``length`` on."""
        self.length = min(self.length, length)
