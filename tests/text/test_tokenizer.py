"""The tokenizer boundary: ids as the reference has them, and hostile files that fail clearly."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from neuron.errors import InvalidModelFile, InvalidValue
from neuron.text import tokenizer_rules
from neuron.text.tokenizer import Tokenizer, contained
from tests.support import tokenizers as kinds

TEXTS = ["", " ", "Hello world", "  two <|im_start|>user\n<think> 日本 🙂 \x00\t", "a" * 3000]


def save(path: Path, change: Callable[[dict[str, Any]], None] = lambda spec: None) -> Path:
    spec = json.loads(kinds.KINDS["byte-level"]().to_str())
    change(spec)
    (path / "tokenizer.json").write_text(json.dumps(spec))
    return path / "tokenizer.json"


@pytest.mark.parametrize("kind", kinds.KINDS)
@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_the_reference_s(kind: str, text: str) -> None:
    reference = PreTrainedTokenizerFast(tokenizer_object=kinds.KINDS[kind]())
    assert Tokenizer(kinds.KINDS[kind]()).encode(text) == reference.encode(text)


def test_the_post_processor_puts_its_tokens_in_when_asked() -> None:
    tokenizer = Tokenizer(kinds.byte_level(bos=True))
    bos = tokenizer.token_id("<s>")
    assert tokenizer.encode("Hi")[0] == bos
    assert bos not in tokenizer.encode("Hi", add_special_tokens=False)


def test_padding_and_truncation_in_the_file_change_no_prompt(tmp_path: Path) -> None:
    def change(spec: dict[str, Any]) -> None:
        spec["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
        spec["padding"] = {
            "strategy": {"Fixed": 500_000_000},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "x",
        }

    text = "Hello world, the quick brown fox"
    assert Tokenizer.from_file(save(tmp_path, change)).encode(text) == Tokenizer(kinds.byte_level()).encode(
        text
    )


def test_an_id_that_the_model_does_not_have_is_refused() -> None:
    tokenizer = Tokenizer(kinds.byte_level(), vocab_limit=300)
    tokenizer.encode("~")
    with pytest.raises(InvalidModelFile, match="300"):
        tokenizer.encode("<|im_start|>")


def replace_rule(find: dict[str, str], by: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": find, "content": by}


def row(name: str, *rules: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", name: list(rules)}


TABLE = base64.b64encode(struct.pack("<I", 8) + bytes(8) + "ﷺ".encode() * 6 + b"\0" + b"x\0").decode()
REAL_RULES: list[dict[str, Any]] = [
    {},
    {
        "normalizer": row(
            "normalizers", {"type": "Prepend", "prepend": "▁"}, replace_rule({"String": " "}, "▁")
        )
    },
    {"normalizer": {"type": "BertNormalizer"}, "pre_tokenizer": {"type": "BertPreTokenizer"}},
    {
        "normalizer": row(
            "normalizers",
            replace_rule({"String": "``"}, '"'),
            {"type": "NFKD"},
            {"type": "StripAccents"},
            {"type": "Lowercase"},
            {"type": "Precompiled", "precompiled_charsmap": TABLE},
            replace_rule({"Regex": " {2,}"}, " "),
        ),
        "pre_tokenizer": {"type": "Whitespace"},
    },
    {"pre_tokenizer": row("pretokenizers", {"type": "Split"}, {"type": "ByteLevel"})},
    {
        "decoder": row(
            "decoders",
            replace_rule({"String": "▁"}, " "),
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip"},
        )
    },
]
"""As Llama 2, BERT, ALBERT, Llama 3 and Gemma have them."""


def bad_template(spec: dict[str, Any]) -> None:
    spec["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "nope", "type_id": 0}}],
        "pair": [],
        "special_tokens": {},
    }


def bad_regex(spec: dict[str, Any]) -> None:
    pattern = {"Regex": "(x+x+)+y|((a|aa|b|c| |.)+)+$~"}
    spec["pre_tokenizer"] = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}


def swelling(spec: dict[str, Any]) -> None:
    spec["normalizer"] = {"type": "Replace", "pattern": {"String": "a"}, "content": "b c" * 100_000}


@pytest.mark.parametrize("change", [bad_template, bad_regex, swelling])
def test_a_tokenizer_that_panics_or_swells_fails_when_it_is_made(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    with pytest.raises(InvalidModelFile):
        Tokenizer.from_file(save(tmp_path, change))


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[1]", b"\xff\xfe", b'{"model": {"type": "BPE"}}', b"[" * 5000]
)
def test_a_file_that_is_no_tokenizer_fails_by_name(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(data)
    with pytest.raises(InvalidModelFile, match=r"tokenizer\.json"):
        Tokenizer.from_file(path)


def test_half_a_surrogate_pair_is_refused_as_a_value() -> None:
    with pytest.raises(InvalidValue):
        Tokenizer(kinds.byte_level()).encode("\ud800")


@pytest.mark.parametrize("signal", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_the_boundary_lets_the_signals_of_the_program_through(signal: type[BaseException]) -> None:
    with pytest.raises(signal), contained(InvalidValue):
        raise signal


def test_no_token_stands_for_more_bytes_than_is_said() -> None:
    for build in kinds.KINDS.values():
        tokenizer = Tokenizer(build())
        longest = max(len(tokenizer.decode([i]).encode()) for i in range(tokenizer.vocab_size))
        assert longest <= tokenizer.max_token_bytes


def test_a_text_that_the_rules_might_blow_up_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    rule = {"type": "Replace", "pattern": {"String": "Q"}, "content": "x" * 1000}
    tokenizer = Tokenizer.from_file(save(tmp_path, lambda spec: spec.update(normalizer=rule)))
    assert len(tokenizer.encode("Q")) > 10
    for use in (tokenizer.encode, tokenizer.encode_spans, tokenizer.normalize):
        with pytest.raises(InvalidValue, match="may make 4000 bytes"):
            use("Q" * 100_000)


@pytest.mark.parametrize("rules", REAL_RULES)
def test_rules_that_real_tokenizers_have_are_let_through(tmp_path: Path, rules: dict[str, Any]) -> None:
    data = json.dumps(rules).encode()
    assert 1 <= tokenizer_rules.check(data, "x").factor <= 1500


def test_chance_is_taken_out_of_a_vocabulary(tmp_path: Path) -> None:
    path = save(tmp_path, lambda spec: spec["model"].update(dropout=0.9))
    text = "Hello world, the quick brown fox jumps"
    tokenizer = Tokenizer.from_file(path)
    assert {tuple(tokenizer.encode(text)) for _ in range(20)} == {
        tuple(Tokenizer(kinds.byte_level()).encode(text))
    }
