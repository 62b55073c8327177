"""A decoder's step in one call of the processor's kernels (``csrc/step.c``), for few new tokens."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from itertools import chain, takewhile
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neuron.model import native
from neuron.model.norm import RmsNorm
from neuron.model.packed import Packed, PackedWeight
from neuron.model.rope import RopeTable

if TYPE_CHECKING:
    from neuron.model.decoder import Block, Decoder, Parts

MOST_ROWS = 32
"""New tokens of one step. More are computed by the torch code, whose attention is made for them."""

_POINTER, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int32, ctypes.c_float


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, native.Matrix) for name in ("q", "k", "v", "o", "gate", "up", "down")),
        *((name, _POINTER) for name in ("attention_norm", "mlp_norm", "q_norm", "k_norm")),
        ("rope", _INT),
        ("window", _INT),
    )


class _Model(ctypes.Structure):
    _fields_ = (
        *(
            (name, _INT)
            for name in (
                *(
                    "n_layers",
                    "hidden",
                    "n_heads",
                    "n_kv_heads",
                    "head_dim",
                    "inner",
                    "activation",
                    "n_ropes",
                ),
            )
        ),
        ("norm_eps", _FLOAT),
        *((name, _POINTER) for name in ("rope_halves", "layers", "norm")),
        ("embedding", native.Matrix),
        ("head", native.Matrix),
    )


class _Batch(ctypes.Structure):
    _fields_ = (
        *((name, _INT) for name in ("n_rows", "n_logits", "n_threads", "most_keys", "n_exact")),
        *(
            (name, _POINTER)
            for name in ("tokens", "positions", "caches", "capacities", "cos", "sin", "logit_rows", "logits")
        ),
    )


class NativeStep:
    """Steps of a decoder whose weights are packed; they must stay where they are."""

    def __init__(self, decoder: Decoder) -> None:
        arch = decoder.arch
        attention = arch.attention
        self._vocab_size = arch.vocab_size
        self._ropes = list(decoder.ropes)
        self._tables = [_Turns(decoder.ropes[rope]) for rope in self._ropes]
        self._halves = (_INT * max(1, len(self._ropes)))(*(rope.dim // 2 for rope in self._ropes))
        self._layers = (_Layer * len(decoder.blocks))(*map(self._layer, decoder.blocks))
        self._model = _Model(
            n_layers=len(decoder.blocks),
            hidden=arch.hidden_size,
            n_heads=attention.n_heads,
            n_kv_heads=attention.n_kv_heads,
            head_dim=attention.head_dim,
            inner=arch.mlp.intermediate,
            activation=native.ACTIVATIONS[arch.mlp.activation],
            n_ropes=len(self._ropes),
            norm_eps=arch.norm_eps,
            rope_halves=ctypes.addressof(self._halves),
            layers=ctypes.addressof(self._layers),
            norm=decoder.norm.weight.data_ptr(),
            embedding=_matrix(decoder.embedding),
            head=_matrix(decoder.lm_head.packed[0]),
        )
        lib = native.library()
        assert lib is not None
        self._compute = lib.neuron_step

    def _layer(self, block: Block) -> _Layer:
        attention, mlp = block.attention, block.mlp
        weights = (*attention.qkv.packed, *attention.o.packed, *mlp.gate_up.packed, *mlp.down.packed)
        norms = (block.input_norm, block.mlp_norm, attention.q_norm, attention.k_norm)
        rope = -1 if attention.rope is None else self._ropes.index(attention.rope)
        return _Layer(*map(_matrix, weights), *map(_address, norms), rope, attention.window or 0)

    def step(self, parts: Parts) -> Tensor:
        """Logits [R, V] float32 of as many last rows of each part as it wants; the caches grow.

        Raises:
            IndexError: an id beyond the vocabulary, or a cache without room. The caches are as they were.
            MemoryError: no scratch.
        """
        tokens = list(chain.from_iterable(ids for _, ids, _ in parts))
        if not all(0 <= token < self._vocab_size for token in tokens):
            raise IndexError(f"an id beyond the {self._vocab_size} of the vocabulary")
        positions: list[int] = []
        caches: list[int] = []
        capacities: list[int] = []
        wanted: list[int] = []
        for cache, ids, n_logits in parts:
            n, end = len(ids), cache.length + len(ids)
            if end > cache.capacity:
                raise IndexError(f"{end} tokens in a cache for {cache.capacity}")
            positions += range(cache.length, end)
            caches += [cache.data.data_ptr()] * n
            capacities += [cache.capacity] * n
            wanted += range(len(positions) - n_logits, len(positions))
        logits = torch.empty(len(wanted), self._vocab_size)
        self._run(tokens, positions, caches, capacities, wanted, logits, n_exact(parts))
        for cache, ids, _ in parts:
            cache.length += len(ids)
        return logits

    def _run(
        self,
        tokens: list[int],
        positions: list[int],
        caches: list[int],
        capacities: list[int],
        wanted: list[int],
        logits: Tensor,
        n_exact: int,
    ) -> None:
        end = max(positions) + 1
        turns = [table.until(end) for table in self._tables]
        arrays: dict[str, Any] = {
            "tokens": _array(ctypes.c_int64, tokens),
            "positions": _array(ctypes.c_int64, positions),
            "caches": _array(_POINTER, caches),
            "capacities": _array(ctypes.c_int64, capacities),
            "cos": _array(_POINTER, [cos.data_ptr() for cos, _ in turns]),
            "sin": _array(_POINTER, [sin.data_ptr() for _, sin in turns]),
            "logit_rows": _array(ctypes.c_int64, wanted),
        }
        batch = _Batch(
            n_rows=len(tokens),
            n_logits=len(wanted),
            n_threads=torch.get_num_threads(),
            most_keys=end,
            n_exact=n_exact,
            logits=logits.data_ptr(),
            **{name: ctypes.addressof(array) for name, array in arrays.items()},
        )
        if self._compute(ctypes.byref(self._model), ctypes.byref(batch)):
            raise MemoryError("no memory for a step")


def n_exact(parts: Parts) -> int:
    """Rows before the first of a prompt, some of whose logits nobody wants: those are exact in any case."""
    decoding = takewhile(lambda part: len(part[1]) == part[2], parts)
    return sum(len(ids) for _, ids, _ in decoding)


class _Turns:
    """cos and sin of every position so far, each [positions, dim/2] float32, computed ahead."""

    def __init__(self, table: RopeTable) -> None:
        self._table = table
        self._turns = (torch.empty(0), torch.empty(0))

    def until(self, end: int) -> tuple[Tensor, Tensor]:
        """The turns of at least ``end`` positions."""
        if len(self._turns[0]) < end:
            positions = torch.arange(max(1024, 2 * end))
            cos, sin = self._table.at(positions, torch.float32)
            self._turns = cos[:, 0].contiguous(), sin[:, 0].contiguous()
        return self._turns


def _array(kind: Any, values: Sequence[int]) -> Any:
    return (kind * len(values))(*values)


def _matrix(weight: Tensor | Packed) -> native.Matrix:
    assert isinstance(weight, PackedWeight)
    return weight.matrix()


def _address(norm: RmsNorm | None) -> int | None:
    return norm.weight.data_ptr() if norm else None
