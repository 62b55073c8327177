"""The table of families: a function from `HfConfig` to data, each an edit of its nearest relative."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from neuron.errors import InvalidModelFile, UnsupportedArchitecture
from neuron.model.arch import (
    ArchConfig,
    Attention,
    Dynamic,
    EncoderConfig,
    Factors,
    Layer,
    Linear,
    Llama3,
    Mlp,
    Rename,
    Rope,
    Scaling,
    Yarn,
)
from neuron.model.hf_config import HfConfig

MAX_LAYERS = 1024
ACTIVATIONS = ("silu", "gelu", "gelu_pytorch_tanh", "relu")


def llama(c: HfConfig) -> ArchConfig:
    """Llama 1, 2 and 3.x, SmolLM 1 and 2."""
    n_heads = c.integer("num_attention_heads", high=4096)
    n_kv_heads = c.integer("num_key_value_heads", n_heads, high=n_heads)
    hidden_size = c.integer("hidden_size", high=1 << 17)
    if n_heads % n_kv_heads:
        raise InvalidModelFile(f"{c.where}: {n_heads} heads can't share {n_kv_heads} key/value heads evenly")
    if not c.has("head_dim") and hidden_size % n_heads:
        raise InvalidModelFile(f"{c.where}: hidden_size {hidden_size} is not a multiple of {n_heads} heads")
    head_dim = c.integer("head_dim", hidden_size // n_heads, high=4096)
    bias = c.flag("attention_bias")
    layer = Layer(rope=rope(c, head_dim))
    return ArchConfig(
        family="llama",
        vocab_size=c.integer("vocab_size"),
        hidden_size=hidden_size,
        attention=Attention(
            n_heads=n_heads, n_kv_heads=n_kv_heads, head_dim=head_dim, qkv_bias=bias, o_bias=bias
        ),
        mlp=Mlp(
            intermediate=c.integer("intermediate_size", high=1 << 18),
            activation=c.choice("hidden_act", ACTIVATIONS, "silu"),  # type: ignore[arg-type]
            bias=c.flag("mlp_bias"),
        ),
        layers=(layer,) * c.integer("num_hidden_layers", high=MAX_LAYERS),
        norm_eps=c.number("rms_norm_eps", 1e-6, high=1.0),
        tied_embeddings=c.flag("tie_word_embeddings"),
        context=c.integer("max_position_embeddings", 2048),
    )


def mistral(c: HfConfig) -> ArchConfig:
    """Mistral 7B and its relatives: a sliding window over every layer, where there is one."""
    window = c.integer("sliding_window", None)
    arch = llama(c)
    return replace(arch, family="mistral", layers=tuple(replace(x, window=window) for x in arch.layers))


def qwen2(c: HfConfig) -> ArchConfig:
    """Qwen2 and Qwen2.5: biases on q, k and v, a window over the layers from ``max_window_layers`` on."""
    arch = llama(c)
    attention = replace(arch.attention, qkv_bias=True, o_bias=False)
    return replace(arch, family="qwen2", attention=attention, layers=_windowed(c, arch.layers))


def qwen3(c: HfConfig) -> ArchConfig:
    """Qwen3: every query and key head is normed; biases only if the configuration says so."""
    arch = llama(c)
    attention = replace(arch.attention, qk_norm=True)
    return replace(arch, family="qwen3", attention=attention, layers=_windowed(c, arch.layers))


def smollm3(c: HfConfig) -> ArchConfig:
    """SmolLM3: every n-th layer has no rope."""
    arch = llama(c)
    n = len(arch.layers)
    interval = c.integer("no_rope_layer_interval", 4)
    has_rope = c.array("no_rope_layers", n) or [(i + 1) % interval != 0 for i in range(n)]
    layers = tuple(x if use else replace(x, rope=None) for x, use in zip(arch.layers, has_rope, strict=True))
    types = c.array("layer_types", n)
    if c.flag("use_sliding_window") and types is None:
        types = ["full_attention" if use else "sliding_attention" for use in has_rope]
    return replace(arch, family="smollm3", layers=_typed(c, layers, types))


def bert(c: HfConfig) -> EncoderConfig:
    """BERT and the many sentence encoders that have its shape (MiniLM, BGE, E5, GTE)."""
    for key in ("is_decoder", "add_cross_attention"):
        c.refuse(key, "this build runs BERT as an encoder")
    c.choice("position_embedding_type", ("absolute",), "absolute")
    n_heads = c.integer("num_attention_heads", high=4096)
    hidden_size = c.integer("hidden_size", high=1 << 17)
    if hidden_size % n_heads:
        raise InvalidModelFile(f"{c.where}: hidden_size {hidden_size} is not a multiple of {n_heads} heads")
    return EncoderConfig(
        family="bert",
        vocab_size=c.integer("vocab_size"),
        hidden_size=hidden_size,
        n_heads=n_heads,
        intermediate=c.integer("intermediate_size", high=1 << 18),
        activation=c.choice("hidden_act", ACTIVATIONS, "gelu"),  # type: ignore[arg-type]
        n_layers=c.integer("num_hidden_layers", high=MAX_LAYERS),
        norm_eps=c.number("layer_norm_eps", 1e-12, high=1.0),
        token_types=c.integer("type_vocab_size", 2, high=1 << 16),
        context=c.integer("max_position_embeddings", 512),
        renames=(
            Rename(r"^bert\.", ""),
            Rename(r"LayerNorm\.gamma$", "LayerNorm.weight"),
            Rename(r"LayerNorm\.beta$", "LayerNorm.bias"),
        ),
        drops=r"embeddings\.(position|token_type)_ids|pooler\.dense\.(weight|bias)|cls\..*",
    )


def _windowed(c: HfConfig, layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Layers with Qwen's window rule: explicit ``layer_types``, or the layers from ``max_window_layers`` on."""
    types = c.array("layer_types", len(layers))
    if types is None and c.flag("use_sliding_window"):
        first = c.integer("max_window_layers", 28, low=0)
        types = ["full_attention" if i < first else "sliding_attention" for i in range(len(layers))]
    return _typed(c, layers, types)


def _typed(c: HfConfig, layers: tuple[Layer, ...], types: Sequence[Any] | None) -> tuple[Layer, ...]:
    """Layers with the configured window where their type is ``sliding_attention``."""
    if types is None:
        return layers
    if unknown := set(map(str, types)) - {"full_attention", "sliding_attention"}:
        raise UnsupportedArchitecture(f"{c.where}: layer_types has {sorted(unknown)[0]!r}")
    if "sliding_attention" not in types:
        return layers
    window = c.integer("sliding_window")
    return tuple(
        replace(x, window=window) if kind == "sliding_attention" else x
        for x, kind in zip(layers, types, strict=True)
    )


# ---- rope ----------------------------------------------------------------------------------------------------


def rope(c: HfConfig, head_dim: int) -> Rope:
    """Rope from ``rope_parameters`` (one object) or from ``rope_theta`` and ``rope_scaling`` (older files)."""
    p = c.child("rope_parameters") or c.child("rope_scaling") or HfConfig({}, c.where)
    theta = (p if p.has("rope_theta") else c).number("rope_theta", 10000.0)
    partial = (p if p.has("partial_rotary_factor") else c).number("partial_rotary_factor", 1.0, high=1.0)
    dim = int(head_dim * partial)
    if dim % 2 or dim == 0:
        raise InvalidModelFile(f"{c.where}: rope rotates pairs, and {dim} dimensions of a head are not even")
    kind = p.choice("rope_type" if p.has("rope_type") else "type", SCALINGS, "default")
    return Rope(theta=theta, dim=dim, scaling=SCALINGS[kind](p, c))


def _yarn(p: HfConfig, c: HfConfig) -> Scaling:
    context = c.integer("max_position_embeddings")
    original = p.integer("original_max_position_embeddings", context)
    factor = p.number("factor", context / original)
    return Yarn(
        factor=factor,
        original_context=original,
        beta_fast=p.number("beta_fast", 32.0),
        beta_slow=p.number("beta_slow", 1.0),
        attention_factor=p.number("attention_factor", None) or _yarn_attention_factor(p, factor),
        truncate=p.flag("truncate", True),
    )


def _yarn_attention_factor(p: HfConfig, factor: float) -> float:
    """Temperature of YaRN's eq. 22, or the quotient of two where ``mscale`` is given (DeepSeek's form)."""

    def at(mscale: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0

    mscale, mscale_all = p.number("mscale", None), p.number("mscale_all_dim", None)
    return at(mscale) / at(mscale_all) if mscale and mscale_all else at(1.0)


def _factors(p: HfConfig, c: HfConfig) -> Scaling:
    values = p.values.get("factors")
    if not isinstance(values, list) or not all(isinstance(v, float) and 0 < v < 1e9 for v in values):
        raise InvalidModelFile(f"{p.where}: factors must be a list of positive numbers")
    return Factors(factors=tuple(values))


SCALINGS: dict[str, Callable[[HfConfig, HfConfig], Scaling | None]] = {
    "default": lambda p, c: None,
    "linear": lambda p, c: Linear(factor=p.number("factor")),
    "dynamic": lambda p, c: Dynamic(
        factor=p.number("factor"), original_context=c.integer("max_position_embeddings")
    ),
    "yarn": _yarn,
    "llama3": lambda p, c: Llama3(
        factor=p.number("factor"),
        low_freq_factor=p.number("low_freq_factor"),
        high_freq_factor=p.number("high_freq_factor"),
        original_context=p.integer("original_max_position_embeddings", c.integer("max_position_embeddings")),
    ),
    "frequency_factors": _factors,
}

FAMILIES: dict[str, Callable[[HfConfig], ArchConfig | EncoderConfig]] = {
    "bert": bert,
    "llama": llama,
    "mistral": mistral,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "smollm3": smollm3,
}
"""By ``model_type``. A new family is one function above, one row here and one row in ``tests/model/parity``."""


def arch_config(values: dict[str, Any], where: str = "config.json") -> ArchConfig | EncoderConfig:
    """The architecture that ``config.json`` describes.

    Raises:
        UnsupportedArchitecture: a family, activation, rope, layer type or quantisation that is not computed here.
        InvalidModelFile: a value is missing, of the wrong type or out of range.
    """
    c = HfConfig(values, where)
    c.refuse(
        "quantization_config", "this build loads unquantised safetensors, and GGUF for quantised weights"
    )
    family = c.choice("model_type", FAMILIES)
    return FAMILIES[family](c)
