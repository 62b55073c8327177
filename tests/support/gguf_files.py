"""Writes GGUF files for tests, with the `gguf` package: an implementation that is not ours (but for K-quants)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.torch import load_file

from tests.support import k_quants

ARCHITECTURES = {"mistral": "llama"}
"""``model_type`` -> the name in GGUF, where that is another one."""

INTERLEAVED = ("llama", "smollm3")
"""GGUF architectures that store q and k for rotary pairs that are neighbours."""

Config = Mapping[str, Any]


def write_gguf(path: Path, folder: Path, quant: str = "F32", extra: Mapping[str, Any] | None = None) -> Path:
    """A model saved by ``save_pretrained`` as a GGUF file.

    ``quant`` names the type of every matrix that fits its blocks (``F32``, ``F16``, ``BF16``, ``Q8_0``, ...);
    vectors stay float32. ``extra`` is further metadata by key, such as a tokenizer.
    """
    config = json.loads((folder / "config.json").read_text())
    arch = ARCHITECTURES.get(config["model_type"], config["model_type"])
    writer = gguf.GGUFWriter(path, arch)
    add_config(writer, config)
    add_values(writer, extra or {})
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[arch.upper()], config["num_hidden_layers"])
    for name, tensor in load_file(folder / "model.safetensors").items():
        own = names.get_name(name, try_suffixes=(".weight", ".bias"))
        add_tensor(writer, own, interleave(name, tensor, config) if arch in INTERLEAVED else tensor, quant)
    if (factors := rope_factors(config)) is not None:
        writer.add_tensor("rope_freqs.weight", factors)
    return finish(writer)


def finish(writer: gguf.GGUFWriter) -> Path:
    """Write everything that was added."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Path(writer.path)


def add_config(writer: gguf.GGUFWriter, config: Config) -> None:
    """The keys of ``config.json`` under their GGUF names."""
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_vocab_size(config["vocab_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    add_rope(writer, rope_of(config))
    if config["model_type"] == "mistral" and config.get("sliding_window"):
        writer.add_sliding_window(config["sliding_window"])
    for name, add in (("bos", writer.add_bos_token_id), ("eos", writer.add_eos_token_id)):
        token = config.get(f"{name}_token_id")
        if isinstance(token, int) and token < config["vocab_size"]:
            add(token)


def rope_of(config: Config) -> dict[str, Any]:
    """The rope settings, from wherever this version of ``config.json`` has them."""
    old = {"rope_theta": config.get("rope_theta", 10000.0), **(config.get("rope_scaling") or {})}
    return {"rope_type": "default", **(config.get("rope_parameters") or old)}


def add_rope(writer: gguf.GGUFWriter, rope: Config) -> None:
    """Theta and the scalings that are metadata (llama3's is a tensor)."""
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] not in ("linear", "yarn"):
        return
    writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
    writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_beta_fast(rope.get("beta_fast") or 32.0)
        writer.add_rope_scaling_yarn_beta_slow(rope.get("beta_slow") or 1.0)


def rope_factors(config: Config) -> np.ndarray | None:
    """Divisors of the frequencies, for Llama 3.1's scaling; None for any other."""
    rope = rope_of(config)
    if rope["rope_type"] != "llama3":
        return None
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    old, low, high = (
        rope["original_max_position_embeddings"],
        rope["low_freq_factor"],
        rope["high_freq_factor"],
    )
    factors = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (i / head_dim)
        if wavelength < old / high:
            factors.append(1.0)
        elif wavelength > old / low:
            factors.append(rope["factor"])
        else:
            smooth = (old / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, dtype=np.float32)


def interleave(name: str, weight: torch.Tensor, config: Config) -> torch.Tensor:
    """Rows of q and k as GGUF stores them for these architectures: rotary pairs become neighbours."""
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    part = name.split(".")[-2]
    if part not in heads:
        return weight
    halves = weight.reshape(heads[part], 2, -1, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def add_tensor(writer: gguf.GGUFWriter, name: str, weight: torch.Tensor, quant: str) -> None:
    """One tensor, quantised if it is a matrix whose rows are whole blocks."""
    data = weight.float().contiguous().numpy()
    kind = gguf.GGMLQuantizationType[quant]
    block = gguf.GGML_QUANT_SIZES[kind][0]
    if quant == "F32" or data.ndim < 2 or data.shape[-1] % block:
        writer.add_tensor(name, data)
    else:
        encode = k_quants.quantize if quant in k_quants.ENCODERS else _quantize
        writer.add_tensor(name, encode(data, quant), raw_dtype=kind)


def _quantize(data: np.ndarray, quant: str) -> np.ndarray:
    return gguf.quants.quantize(data, gguf.GGMLQuantizationType[quant])


def add_values(writer: gguf.GGUFWriter, values: Mapping[str, Any]) -> None:
    """Metadata by key: bool, int (uint32), float, str, and lists of one kind."""
    kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    for key, value in values.items():
        kinds.get(type(value), writer.add_array)(key, value)
