"""``tokenizer.json`` with rules that cost the world, and the tokens that ``tokenizer_config.json`` declares."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from typing import Any

from tests.reliability.hostile.case import DAMAGED, Case, Cases, edited, having, huge, raw
from tests.reliability.hostile.configs import DEEP

FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"
Spec = dict[str, Any]


def replaced(new: str, *, regex: str | None = None, text: str | None = None) -> Spec:
    """A rule that puts ``new`` in the place of what it finds."""
    pattern = {"String": text} if text is not None else {"Regex": regex}
    return {"type": "Replace", "pattern": pattern, "content": new}


def in_a_row(kind: str, rules: list[Spec]) -> Spec:
    """Several rules as one: ``kind`` is normalizers, pretokenizers, decoders or processors."""
    return {"type": "Sequence", kind: rules}


def split(regex: str) -> Spec:
    """A rule that cuts a text."""
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def template(single: list[Spec], **tokens: list[int]) -> Spec:
    """A post-processor; ``tokens`` are the ids of its special tokens."""
    ids = {name: {"id": name, "ids": i, "tokens": ["a"] * len(i)} for name, i in tokens.items()}
    pair = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": ids}


def charsmap(trie_bytes: int, table: bytes) -> Spec:
    """SentencePiece's table."""
    data = base64.b64encode(struct.pack("<I", trie_bytes) + table).decode()
    return {"type": "Precompiled", "precompiled_charsmap": data}


TEXT = {"Sequence": {"id": "A", "type_id": 0}}
MARK = {"SpecialToken": {"id": "a", "type_id": 0}}
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}


def _text(text: str | bytes, words: str = "tokenizer") -> Case:
    return Case(raw(FILE, text), DAMAGED, words)


def _with(words: str = FILE, **parts: Any) -> Case:
    return Case(having(FILE, **parts), DAMAGED, words)


def _model(change: Callable[[Spec], object], words: str = FILE, code: str | None = DAMAGED) -> Case:
    return Case(edited(FILE, lambda spec: change(spec["model"])), code, words)


def _added(**token: Any) -> Case:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return Case(
        edited(
            FILE, lambda spec: spec["added_tokens"].append({**flags, "content": "<|x|>", "id": 999, **token})
        ),
        DAMAGED,
    )


_DOUBLE = replaced("aa", text="a")
_BLOWN = "blow up"
TOKENIZERS: Cases = {
    "tokenizer: empty": _text(""),
    "tokenizer: an empty object": _text("{}"),
    "tokenizer: a list": _text("[]"),
    "tokenizer: null": _text("null"),
    "tokenizer: not UTF-8": _text(b'{"model": "\xff"}'),
    "tokenizer: nested 100,000 deep": _text(DEEP),
    "tokenizer: a model nested 100,000 deep": _text('{"model": ' + DEEP + "}"),
    "tokenizer: 65 MB": Case(huge(FILE, 65 << 20), DAMAGED, "reads at most"),
    "tokenizer: a pickle": _text(b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94."),
    "tokenizer: a model of SentencePiece": _text(b"\x0a\x0e\x0a\x05<unk>\x15\x00\x00\x00\x00\x18\x02"),
    "tokenizer: forty doublings": _with(_BLOWN, normalizer=in_a_row("normalizers", [_DOUBLE] * 40)),
    "tokenizer: 200 doublings in pairs": _with(
        _BLOWN,
        normalizer=in_a_row("normalizers", [in_a_row("normalizers", [_DOUBLE] * 20), *[_DOUBLE] * 20]),
    ),
    "tokenizer: a letter becomes a megabyte": _with(_BLOWN, normalizer=replaced("x" * (1 << 20), text="a")),
    "tokenizer: every gap becomes 10 KB": _with(_BLOWN, normalizer=replaced("x" * 10_000, regex="")),
    "tokenizer: forty times bytes as characters": _with(
        _BLOWN, normalizer=in_a_row("normalizers", [{"type": "ByteLevel"}] * 40)
    ),
    "tokenizer: a megabyte in front": _with(
        _BLOWN, normalizer={"type": "Prepend", "prepend": "x" * (1 << 20)}
    ),
    "tokenizer: 100 times 1 KB in front": _with(
        "more than 64 rules", normalizer=in_a_row("normalizers", [{"type": "Prepend", "prepend": "x"}] * 100)
    ),
    "tokenizer: cut 5,000 times": _with(_BLOWN, pre_tokenizer=in_a_row("pretokenizers", [METASPACE] * 60)),
    "tokenizer: 5,000 rules": _with(
        "more than 64 rules", pre_tokenizer=in_a_row("pretokenizers", [split("a")] * 5000)
    ),
    "tokenizer: a decoder that doubles": _with(
        "blow up a token", decoder=in_a_row("decoders", [replaced("aa", text="a")] * 40)
    ),
    "tokenizer: a template that holds the text 200,000 times": _with(
        "more than 64 items", post_processor=template([TEXT] * 200_000)
    ),
    "tokenizer: a template that holds the text 60 times": _with(
        "repeats a text", post_processor=template([TEXT] * 60)
    ),
    "tokenizer: twenty templates that hold the text twice": _with(
        "repeats a text", post_processor=in_a_row("processors", [template([TEXT] * 2)] * 20)
    ),
    "tokenizer: a mark of 100,000 tokens": _with(
        "more than 64 ids", post_processor=template([MARK, TEXT], a=[0] * 100_000)
    ),
    "tokenizer: a mark without a token": _with(post_processor=template([MARK, TEXT])),
    "tokenizer: a mark outside the vocabulary": Case(
        having(FILE, post_processor=template([MARK, TEXT], a=[4_000_000])), None
    ),
    "tokenizer: a table shorter than it says": _with("charsmap", normalizer=charsmap(0xFFFFFFFC, b"")),
    "tokenizer: a table of all ones": _with("charsmap", normalizer=charsmap(0xFFFFFFFF, b"\xff" * 64)),
    "tokenizer: a table that is not base64": _with(
        "charsmap", normalizer={"type": "Precompiled", "precompiled_charsmap": "?!"}
    ),
    "tokenizer: an empty table": _with(
        "charsmap", normalizer={"type": "Precompiled", "precompiled_charsmap": ""}
    ),
    "tokenizer: a table of 1 MB for each letter": _with(
        _BLOWN, normalizer=charsmap(1024, bytes(1024) + b"x" * (1 << 20))
    ),
    "tokenizer: a table with a wild trie": _with(normalizer=charsmap(64, b"\xff\x7f\x3f\x1f" * 16 + b"x\0")),
    "tokenizer: a regular expression 200,000 deep": _with(
        pre_tokenizer=split("(" * 200_000 + "a" + ")" * 200_000)
    ),
    "tokenizer: a regular expression that does not parse": _with(pre_tokenizer=split("(")),
    "tokenizer: a regular expression that calls itself": _with(pre_tokenizer=split(r"(?<n>\g<n>?a)")),
    "tokenizer: a search that never ends": _with(
        normalizer=replaced("x", regex=r"(.*)(.*)(.*)(.*)(.*)[^\s\S]")
    ),
    "tokenizer: a cut that never ends": _with(
        pre_tokenizer=split(r"(x+x+)+y|((a|aa|b|c| |.)+)+$~|(.*)(.*)(.*)(.*)[^\s\S]")
    ),
    "tokenizer: a rule of the future": _with("kind 'Teleport'", normalizer={"type": "Teleport"}),
    "tokenizer: a rule that is a number": _with(normalizer=7),
    "tokenizer: a rule without a kind": _with(normalizer={}),
    "tokenizer: rules that are no list": _with(normalizer={"type": "Sequence", "normalizers": 1}),
    "tokenizer: rules 100 deep": Case(
        edited(FILE, lambda spec: spec.update(normalizer=_deep(100))), DAMAGED, FILE
    ),
    "tokenizer: padding to 500 million": Case(
        having(
            FILE,
            padding={
                "strategy": {"Fixed": 500_000_000},
                "direction": "Right",
                "pad_to_multiple_of": None,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "x",
            },
        ),
        None,
    ),
    "tokenizer: prompts cut to 4 tokens": Case(
        having(
            FILE,
            truncation={"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        ),
        None,
    ),
    "tokenizer: chance in every cut": _model(lambda m: m.update(dropout=1.0), code=None),
    "tokenizer: words of any length": _model(
        lambda m: m.update(type="WordPiece", max_input_chars_per_word=1 << 40, unk_token="a"),
        "max_input_chars",
    ),
    "tokenizer: no vocabulary": _model(lambda m: m.pop("vocab")),
    "tokenizer: an empty vocabulary": _model(lambda m: m.update(vocab={}, merges=[])),
    "tokenizer: a vocabulary that is a list": _model(lambda m: m.update(vocab=[["a", 1]])),
    "tokenizer: an id of 2^32 - 1": _model(
        lambda m: m["vocab"].update(zzz=(1 << 32) - 1), "ids and the model"
    ),
    "tokenizer: an id of 2^32": _model(lambda m: m["vocab"].update(zzz=1 << 32)),
    "tokenizer: an id of -1": _model(lambda m: m["vocab"].update(zzz=-1)),
    "tokenizer: an id of 1.5": _model(lambda m: m["vocab"].update(zzz=1.5)),
    "tokenizer: an id beyond the model": _model(lambda m: m["vocab"].update(zzz=400), "ids and the model"),
    "tokenizer: merges of what is not there": _model(lambda m: m.update(merges=[["zz", "yy"]])),
    "tokenizer: merges that are numbers": _model(lambda m: m.update(merges=[1, 2])),
    "tokenizer: merges of three": _model(lambda m: m.update(merges=[["a", "b", "c"]])),
    "tokenizer: a model of the future": _model(lambda m: m.update(type="Mamba")),
    "tokenizer: a model that is text": _with(model="BPE"),
    "tokenizer: Unigram without pieces": _with(model={"type": "Unigram", "unk_id": 0, "vocab": []}),
    "tokenizer: Unigram with an unknown out of range": _with(
        model={"type": "Unigram", "unk_id": 99, "vocab": [["a", -1.0]]}
    ),
    "tokenizer: an added token that is a number": _added(content=7),
    "tokenizer: an added token without an id": _added(id=None),
    "tokenizer: an added token of 2^40": _added(id=1 << 40),
}


def _deep(n: int) -> Spec:
    rule: Spec = {"type": "Lowercase"}
    for _ in range(n):
        rule = in_a_row("normalizers", [rule])
    return rule


def _declared(tokens: Any) -> Case:
    return Case(having(CONFIG, added_tokens_decoder=tokens), DAMAGED)


DECLARED: Cases = {
    "tokens: not JSON": Case(raw(CONFIG, "{"), DAMAGED, "not valid JSON"),
    "tokens: a list": Case(raw(CONFIG, "[]"), DAMAGED, "expected a JSON object"),
    "tokens: nested 100,000 deep": Case(raw(CONFIG, DEEP), DAMAGED, "not valid JSON"),
    "tokens: an end that is a number": Case(having(CONFIG, eos_token=7), DAMAGED, "eos_token"),
    "tokens: an end that is a list": Case(having(CONFIG, eos_token=["</s>"]), DAMAGED, "eos_token"),
    "tokens: an end that is not there": Case(having(CONFIG, eos_token="<nowhere>"), DAMAGED, "<nowhere>"),
    "tokens: an end that holds a number": Case(
        having(CONFIG, eos_token={"content": 7}), DAMAGED, "eos_token"
    ),
    "tokens: added ones that are a list": _declared([1]),
    "tokens: an added one at no number": _declared({"x": {"content": "<|y|>"}}),
    "tokens: an added one at -1": _declared({"-1": {"content": "<|y|>"}}),
    "tokens: an added one at 10^30": _declared({str(10**30): {"content": "<|y|>"}}),
    "tokens: an added one far away": _declared({"100000": {"content": "<|y|>"}}),
    "tokens: an added one without text": _declared({"320": {}}),
    "tokens: an added one that is null": _declared({"320": None}),
    "tokens: an added one in other digits": _declared({"٣٢٠": {"content": "<|y|>"}}),
    "tokens: a map that is a list": Case(raw("special_tokens_map.json", "[]"), DAMAGED, "JSON object"),
    "tokens: a map that is cut off": Case(raw("special_tokens_map.json", '{"eos_token"'), DAMAGED, "JSON"),
}

CASES: Cases = {**TOKENIZERS, **DECLARED}
