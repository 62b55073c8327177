"""A model's tensors by name, whatever file format holds them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import torch


class TensorInfo(NamedTuple):
    """What a file says about one tensor, read from headers alone."""

    shape: tuple[int, ...]
    dtype: str
    """The format's own name: ``F32``, ``BF16``, ``Q4_1``."""
    n_bytes: int
    """Bytes in the file."""


class Checkpoint(Protocol):
    """Weights under Hugging Face names (``model.layers.0.self_attn.q_proj.weight``); several threads may read."""

    @property
    def config(self) -> dict[str, Any]:
        """The architecture in the terms of ``config.json``."""
        ...

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """What the headers say of every tensor."""
        ...

    def read(self, name: str) -> torch.Tensor:
        """One tensor in memory of its own on the CPU, in a floating dtype."""
        ...

    def read_rows(self, name: str, n_rows: int) -> Iterator[torch.Tensor]:
        """A matrix as `read` gives it, so many rows at a time."""
        ...

    def read_blocks(self, name: str, n_rows: int) -> Iterator[torch.Tensor]:
        """A matrix as it is stored, so many rows at a time: uint8 [rows, bytes of a row]."""
        ...

    def close(self) -> None:
        """Close the files. Raises `WeightsChanged` if one was replaced or changed meanwhile."""
        ...


def prevailing_dtype(checkpoint: Checkpoint) -> str:
    """The dtype or quantisation of most of the elements: ``BF16``, ``Q4_1``."""
    elements: Counter[str] = Counter()
    for tensor in checkpoint.tensors.values():
        elements[tensor.dtype] += math.prod(tensor.shape)
    return elements.most_common(1)[0][0]
