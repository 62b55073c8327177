"""A GGUF file as a checkpoint: Hugging Face names, Hugging Face layout, floats."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from neuron.errors import InvalidModelFile, UnsupportedArchitecture
from neuron.gguf import GgufFile
from neuron.model.checkpoint import TensorInfo
from neuron.model.ggml_types import FLOATS, UNPACKERS, dequantize
from neuron.model.gguf_config import ROPE_FACTORS, config_of, family_of

NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "blk.{i}.attn_norm": "model.layers.{i}.input_layernorm",
    "blk.{i}.attn_q": "model.layers.{i}.self_attn.q_proj",
    "blk.{i}.attn_k": "model.layers.{i}.self_attn.k_proj",
    "blk.{i}.attn_v": "model.layers.{i}.self_attn.v_proj",
    "blk.{i}.attn_output": "model.layers.{i}.self_attn.o_proj",
    "blk.{i}.attn_q_norm": "model.layers.{i}.self_attn.q_norm",
    "blk.{i}.attn_k_norm": "model.layers.{i}.self_attn.k_norm",
    "blk.{i}.ffn_norm": "model.layers.{i}.post_attention_layernorm",
    "blk.{i}.ffn_gate": "model.layers.{i}.mlp.gate_proj",
    "blk.{i}.ffn_up": "model.layers.{i}.mlp.up_proj",
    "blk.{i}.ffn_down": "model.layers.{i}.mlp.down_proj",
}
"""Names without ``.weight`` or ``.bias``."""

_NAME = re.compile(r"(?:(blk)\.([0-9]+)\.)?(\w+)\.(weight|bias)", re.ASCII)


def huggingface_name(name: str) -> str:
    """``blk.0.attn_q.weight`` -> ``model.layers.0.self_attn.q_proj.weight``; a name without a rule stays."""
    if not (m := _NAME.fullmatch(name)):
        return name
    block, i, part, kind = m.groups()
    known = NAMES.get(f"blk.{{i}}.{part}" if block else part)
    return f"{known.format(i=i)}.{kind}" if known else name


class GgufCheckpoint:
    """A `neuron.model.checkpoint.Checkpoint` over one GGUF file. Use `open`, and `close` it."""

    def __init__(self, file: GgufFile) -> None:
        self._file = file
        self._interleaved = family_of(file).interleaved_rope
        self.config: dict[str, Any] = config_of(file)
        self._names = _names(file)
        self.tensors: Mapping[str, TensorInfo] = {
            name: TensorInfo(t.shape, t.type_name, t.n_bytes)
            for name, t in ((name, file.tensors[own]) for name, own in self._names.items())
        }

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read and check the header.

        Raises:
            InvalidModelFile: the file is not there or is damaged.
            UnsupportedArchitecture: a family, a setting or a quantisation that this build does not compute.
        """
        file = GgufFile.open(path)
        try:
            return cls(file)
        except BaseException:
            file.close()
            raise

    def read(self, name: str) -> Tensor:
        """One tensor in memory of its own: float32, or float16 or bfloat16 where the file has that."""
        own = self._names[name]
        tensor = self._file.tensors[own]
        values = dequantize(self._file.read(own), tensor.type_name, tensor.shape)
        heads = self._rotary_heads(name)
        return half_split(values, heads) if heads else values

    def read_rows(self, name: str, n_rows: int) -> Iterator[Tensor]:
        """A matrix as `read` gives it, so many rows at a time."""
        (_, n_in), dtype, _ = self.tensors[name]
        for blocks in self.read_blocks(name, n_rows):
            yield dequantize(blocks.reshape(-1).numpy().data, dtype, (len(blocks), n_in))

    def read_blocks(self, name: str, n_rows: int) -> Iterator[Tensor]:
        """A matrix as it is stored, so many rows at a time: uint8 [rows, bytes of a row]."""
        (n_out, _), _, n_bytes = self.tensors[name]
        row_bytes = n_bytes // n_out
        if heads := self._rotary_heads(name):  # their rows are put in another order, all at once
            yield from torch.split(half_split(self._blocks(name, 0, n_bytes, row_bytes), heads), n_rows)
            return
        for start in range(0, n_out, n_rows):
            n = min(n_rows, n_out - start)
            yield self._blocks(name, start * row_bytes, n * row_bytes, row_bytes)

    def _blocks(self, name: str, start: int, n_bytes: int, row_bytes: int) -> Tensor:
        data = self._file.read(self._names[name], start, n_bytes)
        return torch.frombuffer(data, dtype=torch.uint8).view(-1, row_bytes)

    def _rotary_heads(self, name: str) -> int | None:
        """Heads in the rows of this tensor if they are stored for interleaved rotary pairs."""
        if not self._interleaved:
            return None
        if ".self_attn.q_proj." in name:
            return int(self.config["num_attention_heads"])
        return int(self.config["num_key_value_heads"]) if ".self_attn.k_proj." in name else None

    def close(self) -> None:
        """Close the file; a second call does nothing.

        Raises:
            WeightsChanged: it was written to, replaced or deleted since it was opened.
        """
        if self._file.closed:
            return
        try:
            self._file.check_unchanged()
        finally:
            self._file.close()


def half_split(weight: Tensor, heads: int) -> Tensor:
    """Rows of q or k, ``[H * D, C]`` or ``[H * D]``, from neighbouring rotary pairs to pairs half a head apart.

    Row ``2j + s`` of a head goes to row ``s * D / 2 + j``: what the conversion to GGUF did, undone.

    Raises:
        InvalidModelFile: the rows are not so many heads of an even size.
    """
    if not heads or weight.shape[0] % (2 * heads):
        raise InvalidModelFile(f"{weight.shape[0]} rows of q or k are not {heads} heads of an even size")
    pairs = weight.view(heads, -1, 2, *weight.shape[1:])  # [H, D/2, 2, C]
    return torch.transpose(pairs, 1, 2).reshape(weight.shape)


def _names(file: GgufFile) -> dict[str, str]:
    """Hugging Face name -> the file's own, without what is a setting and not a weight."""
    names: dict[str, str] = {}
    for own, tensor in file.tensors.items():
        if tensor.type_name not in FLOATS and tensor.type_name not in UNPACKERS:
            raise UnsupportedArchitecture(
                f"{file.path}: tensor {own} is {tensor.type_name}, which this build does not compute",
                hint=f"use a file of one of {', '.join([*FLOATS, *UNPACKERS])}",
            )
        name = huggingface_name(own)
        if name in names:
            raise InvalidModelFile(f"{file.path}: tensors {names[name]} and {own} are the same weight")
        if own != ROPE_FACTORS:
            names[name] = own
    return names
