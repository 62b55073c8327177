"""The rules of a ``tokenizer.json``, weighed before the library gets the file, which obeys whatever they say.

Forty rules that each double a letter make a terabyte of it, and an allocation that fails in the library ends the
process. So what the rules can make of a text is bounded here, from the file alone.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec

from neuron.errors import InvalidModelFile

MAX_GROWTH = 4096
"""Bytes that one byte of text may become. The rules of real tokenizers come to 1500 at most (ALBERT's)."""
MAX_EXTRA_BYTES = 1 << 16
"""Bytes that the rules may put around a text."""
MAX_RULES = 64
MAX_TEMPLATE_ITEMS = 64
"""Items, and ids of one special token, in the template of a text."""
MAX_REPEATS = 4
"""How often a template may hold the text."""
MAX_WORD_CHARS = 1000
"""Longest word that a WordPiece vocabulary is tried on: the time grows with the square."""


class Growth(NamedTuple):
    """A text of ``n`` bytes becomes at most ``factor * n + extra_bytes``."""

    factor: int = 1
    extra_bytes: int = 0

    def then(self, after: Growth) -> Growth:
        """Of this and ``after``, one upon the other."""
        return Growth(self.factor * after.factor, self.extra_bytes * after.factor + after.extra_bytes)


class _Model(msgspec.Struct):
    max_input_chars_per_word: int = 0


class _Rules(msgspec.Struct):
    """What is looked at; the vocabulary is passed over without taking memory."""

    normalizer: Any = None
    pre_tokenizer: Any = None
    post_processor: Any = None
    decoder: Any = None
    model: _Model | None = None


def check(data: bytes, name: str) -> Growth:
    """What the rules of a ``tokenizer.json`` make of a text before it is looked up in the vocabulary.

    Raises:
        InvalidModelFile: it is not JSON, a rule is none, or they may make more than a text can need.
    """
    try:
        rules = msgspec.json.decode(data, type=_Rules)
        encoding = _growth(rules.normalizer).then(_growth(rules.pre_tokenizer))
        for what, growth in (("text", encoding), ("token", _growth(rules.decoder))):
            if growth.factor > MAX_GROWTH or growth.extra_bytes > MAX_EXTRA_BYTES:
                raise _Refused(f"its rules can blow up a {what} more than {MAX_GROWTH} times")
        _check_templates(rules.post_processor)
        if rules.model is not None and rules.model.max_input_chars_per_word > MAX_WORD_CHARS:
            raise _Refused(f"max_input_chars_per_word is above {MAX_WORD_CHARS}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, _Refused) as e:
        raise InvalidModelFile(f"{name}: not a tokenizer that this build reads: {e}") from e
    return encoding


class _Refused(Exception):
    """A rule that is none, or makes too much."""


def _growth(rule: Any) -> Growth:
    whole = Growth()
    for n, one in enumerate(_listed(rule), 1):
        if n > MAX_RULES:
            raise _Refused(f"more than {MAX_RULES} rules in a row")
        whole = whole.then(_growth_of_one(one))
    return whole


def _listed(rule: Any) -> Iterable[dict[str, Any]]:
    """The rules in a row that a rule stands for."""
    if rule is None:
        return
    if not isinstance(rule, dict):
        raise _Refused(f"a rule is {str(rule)[:80]!r}")
    if rule.get("type") != "Sequence":
        yield rule
        return
    for key in ("normalizers", "pretokenizers", "decoders", "processors"):
        for inner in _list(rule.get(key) or []):
            yield from _listed(inner)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _Refused(f"{str(value)[:80]!r} is not a list")
    return value


def _growth_of_one(rule: dict[str, Any]) -> Growth:
    kind = rule.get("type")
    if isinstance(kind, str) and kind in _FIXED:
        return Growth(_FIXED[kind])
    if isinstance(kind, str) and kind in _MEASURED:
        return _MEASURED[kind](rule)
    raise _Refused(f"it has a rule of kind {str(kind)[:80]!r}")


_FIXED = {
    # normalizers: of UTF-8, compatibility forms grow 11 times at most, canonical ones 3 times
    "BertNormalizer": 12,
    "Strip": 1,
    "StripAccents": 1,
    "Nmt": 1,
    "Lowercase": 2,
    **dict.fromkeys(("NFC", "NFD"), 3),
    **dict.fromkeys(("NFKC", "NFKD"), 11),
    # of all three kinds: bytes are written as characters of two bytes, or what is no UTF-8 as one of three
    "ByteLevel": 4,
    # a blank, or a mark, before each piece and each blank
    "Metaspace": 8,
    # pre-tokenizers only cut
    **dict.fromkeys(("BertPreTokenizer", "CharDelimiterSplit", "Delimiter", "Digits", "FixedLength"), 1),
    **dict.fromkeys(("Punctuation", "Split", "UnicodeScripts", "Whitespace", "WhitespaceSplit"), 1),
    # decoders
    **dict.fromkeys(("BPEDecoder", "WordPiece", "CTC"), 2),
    "ByteFallback": 3,
    "Fuse": 1,
}
"""Kind of rule -> how many times longer it may make a text."""


def _replace(rule: dict[str, Any]) -> Growth:
    pattern, content = rule.get("pattern"), rule.get("content")
    if not isinstance(pattern, dict) or not isinstance(content, str):
        raise _Refused("a rule that replaces says not what, or not by what")
    new, literal = len(content.encode(errors="replace")), pattern.get("String")
    if isinstance(literal, str) and literal:
        return Growth(max(1, -(-new // len(literal.encode(errors="replace")))))
    return Growth(1 + new)  # a regular expression matches between any two characters


def _prepend(rule: dict[str, Any]) -> Growth:
    return Growth(1, len(str(rule.get("prepend", "")).encode(errors="replace")))


def _precompiled(rule: dict[str, Any]) -> Growth:
    """SentencePiece's table: the length of a trie, the trie, and the replacements, each ended by NUL."""
    try:
        table = base64.b64decode(str(rule.get("precompiled_charsmap")), validate=True)
    except (binascii.Error, ValueError) as e:
        raise _Refused("precompiled_charsmap is not base64") from e
    start = 4 + int.from_bytes(table[:4], "little")
    if len(table) < 4 or start > len(table) or start % 4:
        raise _Refused("precompiled_charsmap is shorter than it says")
    return Growth(max(1, *map(len, re.split(b"\0", table[start:]))))


_MEASURED: dict[str, Callable[[dict[str, Any]], Growth]] = {
    "Replace": _replace,
    "Prepend": _prepend,
    "Precompiled": _precompiled,
}


def _check_templates(rule: Any) -> None:
    """Refuse a post-processor that repeats the text, or puts much around it."""
    repeats = 1
    for n, one in enumerate(_listed(rule), 1):
        items, ids = _list(one.get("single") or []), one.get("special_tokens") or {}
        if n > MAX_RULES or len(items) > MAX_TEMPLATE_ITEMS or not isinstance(ids, dict):
            raise _Refused(f"a template of more than {MAX_TEMPLATE_ITEMS} items")
        for token in ids.values():
            if not isinstance(token, dict) or len(_list(token.get("ids") or [])) > MAX_TEMPLATE_ITEMS:
                raise _Refused(f"a special token of more than {MAX_TEMPLATE_ITEMS} ids")
        repeats *= max(1, sum(isinstance(item, dict) and "Sequence" in item for item in items))
    if repeats > MAX_REPEATS:
        raise _Refused(f"its template repeats a text more than {MAX_REPEATS} times")
