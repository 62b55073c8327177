"""``config.json`` and the small files beside it, with values that no model has."""

from __future__ import annotations

import json
from typing import Any

from tests.reliability.hostile.case import (
    DAMAGED,
    MISMATCH,
    SENTINEL,
    UNSUPPORTED,
    Case,
    Cases,
    all_of,
    having,
    huge,
    lacking,
    raw,
)

CONFIG, TOKENIZER, GENERATION = "config.json", "tokenizer_config.json", "generation_config.json"
DEEP = '{"a":' * 100_000 + "1" + "}" * 100_000
_ROPE = "rope_parameters"


def _text(text: str | bytes, words: str = "not valid JSON") -> Case:
    return Case(raw(CONFIG, text), DAMAGED, words)


def _bad(key: str, value: Any, code: str = DAMAGED) -> Case:
    """A value that is refused by the name of its key."""
    return Case(having(CONFIG, **{key: value}), code, key)


def _misfit(**values: Any) -> Case:
    """Values that are possible, of another model than the weights are."""
    return Case(having(CONFIG, **values), MISMATCH)


def _rope(words: str, code: str = DAMAGED, **values: Any) -> Case:
    return Case(having(CONFIG, **{_ROPE: values}), code, words)


CONFIGS: Cases = {
    "config: empty": _text(""),
    "config: a brace": _text("{"),
    "config: a list": _text("[]", "expected a JSON object"),
    "config: null": _text("null", "expected a JSON object"),
    "config: text": _text('"llama"', "expected a JSON object"),
    "config: no object's end": _text('{"model_type": "llama"'),
    "config: two objects": _text("{}{}"),
    "config: not UTF-8": _text(b'{"model_type": "\xff"}'),
    "config: UTF-16": _text('{"model_type": "llama"}'.encode("utf-16")),
    "config: a byte order mark": _text(b"\xef\xbb\xbf{}"),
    "config: NaN": _text('{"rope_theta": NaN}'),
    "config: Infinity": _text('{"rope_theta": Infinity}'),
    "config: 1e999": _text('{"rope_theta": 1e999}'),
    "config: half a surrogate": _text('{"model_type": "\\ud800"}'),
    "config: nested 100,000 deep": _text(DEEP),
    "config: lists 100,000 deep": _text('{"a":' + "[" * 100_000 + "]" * 100_000 + "}"),
    "config: 65 MB": Case(huge(CONFIG, 65 << 20), DAMAGED, "reads at most"),
    "config: a number of 5,000 digits": Case(
        raw(CONFIG, '{"model_type": "llama", "hidden_size": ' + "9" * 5000 + "}"), DAMAGED
    ),
    "config: an empty object": _text("{}", "model_type is missing"),
    "config: no model_type": Case(lacking(CONFIG, "model_type"), DAMAGED, "model_type is missing"),
    "config: model_type 7": _bad("model_type", 7, UNSUPPORTED),
    "config: model_type a list": _bad("model_type", ["llama"], UNSUPPORTED),
    "config: model_type an object": _bad("model_type", {"llama": 1}, UNSUPPORTED),
    "config: model_type mamba": _bad("model_type", "mamba", UNSUPPORTED),
    "config: model_type that climbs": _bad("model_type", "../../llama", UNSUPPORTED),
    "config: model_type with an escape sequence": _bad("model_type", "\x1b]0;x\x07", UNSUPPORTED),
    "config: quantised weights": _bad("quantization_config", {"quant_method": "gptq"}, UNSUPPORTED),
    "config: code of its own, ignored": Case(
        all_of(
            raw("modeling_evil.py", f"open('{SENTINEL}', 'w').close()"),
            raw("configuration_evil.py", f"open('{SENTINEL}', 'w').close()"),
            having(CONFIG, auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"}, trust_remote_code=True),
        ),
        None,
    ),
    "config: custom_pipelines, ignored": Case(
        all_of(
            raw("pipe.py", f"open('{SENTINEL}', 'w').close()"),
            having(CONFIG, custom_pipelines={"x": {"impl": "pipe.Evil", "pt": ["AutoModel"]}}),
        ),
        None,
    ),
    "config: an architecture of another name, ignored": Case(
        having(CONFIG, architectures=["os.system"], transformers_version="9" * 1000), None
    ),
    **{
        f"config: {key} {value!r}": _bad(key, value)
        for key in (
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "vocab_size",
            "intermediate_size",
        )
        for value in (0, -1, 1.5, "four", True, [4], 10**9, 1 << 63)
    },
    "config: hidden_size null": _bad("hidden_size", None),
    "config: no hidden_size": Case(lacking(CONFIG, "hidden_size"), DAMAGED, "hidden_size is missing"),
    "config: 3 heads": Case(having(CONFIG, num_attention_heads=3), DAMAGED, "heads"),
    "config: 3 key heads": Case(having(CONFIG, num_key_value_heads=3), DAMAGED, "evenly"),
    "config: 0 key heads": _bad("num_key_value_heads", 0),
    "config: 5 key heads for 4": _bad("num_key_value_heads", 5),
    "config: an odd head_dim": Case(having(CONFIG, head_dim=17), DAMAGED, "not even"),
    "config: head_dim 0": _bad("head_dim", 0),
    "config: head_dim 5,000": _bad("head_dim", 5000),
    "config: head_dim of another model": _misfit(head_dim=32),
    "config: a layer too many": _misfit(num_hidden_layers=2),
    "config: 1,000 layers": _misfit(num_hidden_layers=1000),
    "config: a hidden_size of 131,072": _misfit(hidden_size=1 << 17),
    "config: an intermediate_size of 262,144": _misfit(intermediate_size=1 << 18),
    "config: an intermediate_size of a million": _bad("intermediate_size", 1 << 20),
    "config: a vocabulary of 16 million": _misfit(vocab_size=1 << 24),
    "config: tied embeddings, but two": Case(having(CONFIG, tie_word_embeddings=True), None),
    "config: biases that are not there": _misfit(attention_bias=True, mlp_bias=True),
    "config: context 0": _bad("max_position_embeddings", 0),
    "config: context 10^12": _bad("max_position_embeddings", 10**12),
    "config: a context of 16 million": Case(having(CONFIG, max_position_embeddings=1 << 24), None),
    "config: rms_norm_eps 0": _bad("rms_norm_eps", 0),
    "config: rms_norm_eps -1": _bad("rms_norm_eps", -1e-5),
    "config: rms_norm_eps 2": _bad("rms_norm_eps", 2),
    "config: rms_norm_eps text": _bad("rms_norm_eps", "1e-5"),
    "config: an activation of the future": _bad("hidden_act", "snake", UNSUPPORTED),
    "config: an activation that is code": _bad("hidden_act", "__import__('os')", UNSUPPORTED),
    "config: an activation that is an object": _bad("hidden_act", {"a": 1}, UNSUPPORTED),
    "config: tie_word_embeddings text": _bad("tie_word_embeddings", "yes"),
    "config: attention_bias 1": _bad("attention_bias", 1),
    "config: rope a list": _bad(_ROPE, [1]),
    "config: rope text": _bad(_ROPE, "linear"),
    "config: rope_theta 0": _rope("rope_theta", rope_theta=0, rope_type="default"),
    "config: rope_theta -1": _rope("rope_theta", rope_theta=-1, rope_type="default"),
    "config: rope_theta 1e300": _rope("rope_theta", rope_theta=1e300, rope_type="default"),
    "config: rope_theta text": _rope("rope_theta", rope_theta="1e4", rope_type="default"),
    "config: a rope of the future": _rope("rope_type", UNSUPPORTED, rope_type="longrope"),
    "config: a rope that is a number": _rope("rope_type", UNSUPPORTED, rope_type=1),
    "config: a rope that is a list": _rope("rope_type", UNSUPPORTED, rope_type=["linear"]),
    "config: linear rope without a factor": _rope("factor", rope_type="linear"),
    "config: linear rope of factor 0": _rope("factor", rope_type="linear", factor=0),
    "config: yarn of factor -1": _rope("factor", rope_type="yarn", factor=-1),
    "config: yarn from a context of 0": _rope(
        "original_max", rope_type="yarn", factor=2, original_max_position_embeddings=0
    ),
    "config: llama3 without its factors": _rope("low_freq_factor", rope_type="llama3", factor=8),
    "config: divisors that are no list": _rope("factors", rope_type="frequency_factors", factors=1),
    "config: divisors below zero": _rope("factors", rope_type="frequency_factors", factors=[-1.0]),
    "config: too few divisors": _rope("factors", rope_type="frequency_factors", factors=[1.0]),
    "config: a third of the head turns": _rope("not even", rope_type="default", partial_rotary_factor=0.33),
    "config: a window of 0": Case(having(CONFIG, model_type="mistral", sliding_window=0), DAMAGED, "window"),
    "config: layer_types of another length": Case(
        having(CONFIG, model_type="qwen3", layer_types=["full_attention"] * 9), DAMAGED, "layer_types"
    ),
    "config: layer_types of the future": Case(
        having(CONFIG, model_type="qwen3", layer_types=["linear_attention"]), UNSUPPORTED, "linear_attention"
    ),
    "config: an end outside the vocabulary": _bad("eos_token_id", 10**9),
    "config: an end that is text": _bad("eos_token_id", "2"),
    "config: an end below zero": _bad("eos_token_id", -1),
    "config: an end that is a fraction": _bad("eos_token_id", 2.0),
    "config: ends that are lists": _bad("eos_token_id", [[2]]),
    "config: an encoder that decodes": Case(
        having(CONFIG, model_type="bert", is_decoder=True), UNSUPPORTED, "is_decoder"
    ),
}


def _generation(key: str, value: Any) -> Case:
    return Case(having(GENERATION, **{key: value}), DAMAGED, key)


SIDE: Cases = {
    "generation: not JSON": Case(raw(GENERATION, "{"), DAMAGED, "not valid JSON"),
    "generation: a list": Case(raw(GENERATION, "[1]"), DAMAGED, "expected a JSON object"),
    "generation: nested 100,000 deep": Case(raw(GENERATION, DEEP), DAMAGED, "not valid JSON"),
    "generation: temperature text": _generation("temperature", "hot"),
    "generation: temperature -1": _generation("temperature", -1),
    "generation: temperature 1e300": _generation("temperature", 1e300),
    "generation: temperature true": _generation("temperature", True),
    "generation: top_p 2": _generation("top_p", 2),
    "generation: top_k -5": _generation("top_k", -5),
    "generation: top_k 2^40": _generation("top_k", 1 << 40),
    "generation: top_k a list": _generation("top_k", [1]),
    "generation: min_p 7": _generation("min_p", 7),
    "generation: repetition_penalty 0": _generation("repetition_penalty", 0),
    "generation: an end outside the vocabulary": _generation("eos_token_id", 1 << 31),
    "generation: an end that is an object": _generation("eos_token_id", {"id": 2}),
    "modules: an object": Case(raw("modules.json", "{}"), DAMAGED, "expected a JSON array"),
    "modules: nested 100,000 deep": Case(raw("modules.json", "[" * 100_000 + "]" * 100_000), DAMAGED),
    "modules: numbers": Case(raw("modules.json", "[1]"), DAMAGED, "an entry is no object"),
    "modules: a folder that climbs": Case(
        raw("modules.json", json.dumps([{"type": "Transformer", "path": "../x"}])), DAMAGED, "../x"
    ),
    "modules: code to import": Case(
        raw("modules.json", json.dumps([{"type": "os.system", "path": ""}])), UNSUPPORTED, "system"
    ),
    "modules: a pooling that is not there": Case(
        raw(
            "modules.json",
            json.dumps([{"type": "a.Transformer", "path": ""}, {"type": "a.Pooling", "path": "1_Pooling"}]),
        ),
        DAMAGED,
        "1_Pooling/config.json",
    ),
}

CASES: Cases = {**CONFIGS, **SIDE}
