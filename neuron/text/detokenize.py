"""Ids to text, one at a time: whole characters only, together equal to decoding everything at once."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Protocol

from neuron.text.tokenizer import Tokenizer

MAX_HELD_TOKENS = 16
"""How long a text that ends in U+FFFD is held back where the decoder's bytes are not known."""
_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>\Z")


class _Decoder(Protocol):
    def feed(self, token_id: int) -> str: ...
    def flush(self) -> str: ...


class Detokenizer:
    """The text of a stream of ids.

    Text comes out as soon as it can't change any more: not while it ends within a character, and for vocabularies
    with byte-fallback tokens (``<0x0A>``) not while a run of them lasts, since one bad byte spoils the whole run.
    An id that the tokenizer does not know has no text.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        skip_special_tokens: bool = True,
        keep: frozenset[int] = frozenset(),
    ) -> None:
        """``keep`` are special tokens that are not skipped."""
        self._skip = tokenizer.special_ids - keep if skip_special_tokens else frozenset[int]()
        self._decoder: _Decoder = (_Bytes if is_byte_level(tokenizer.decoder_json) else _Window)(tokenizer)

    def feed(self, token_id: int) -> str:
        """The characters that became final with this id, often none."""
        return "" if token_id in self._skip else self._decoder.feed(token_id)

    def flush(self) -> str:
        """What was held back, once no more ids come; an unfinished character is U+FFFD."""
        return self._decoder.flush()


def is_byte_level(decoder: Mapping[str, Any]) -> bool:
    """Whether a decoder only joins the bytes of its tokens."""
    inner = decoder.get("decoders", [decoder])
    return [d.get("type") for d in inner if d.get("type") != "Fuse"] == ["ByteLevel"]


@lru_cache(maxsize=1)
def byte_alphabet() -> Mapping[str, int]:
    """How byte-level vocabularies spell bytes: printable Latin-1 as itself, the rest from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(rest)}


def token_bytes(token: str) -> bytes:
    """The bytes of one token of a byte-level vocabulary; an added token outside its alphabet is plain text."""
    alphabet = byte_alphabet()
    if all(char in alphabet for char in token):
        return bytes(alphabet[char] for char in token)
    return token.encode()


class TokenBytes:
    """The bytes of single tokens, which together give the text's; added tokens as they are spelled."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._is_byte_level = is_byte_level(tokenizer.decoder_json)
        # Decoders treat the first token of a text differently, so one goes before.
        self._anchor = [] if self._is_byte_level else tokenizer.encode("a", add_special_tokens=False)[-1:]
        self._anchor_text = tokenizer.decode(self._anchor)

    def __call__(self, token_id: int) -> bytes:
        """Empty for an id that the tokenizer does not know."""
        if (added := self._tokenizer.added.get(token_id)) is not None:
            return added.content.encode()
        token: str = self._tokenizer.inner.id_to_token(token_id) or ""
        if self._is_byte_level:
            return token_bytes(token)
        if _BYTE_TOKEN.match(token):
            return bytes([int(token[3:5], 16)])
        return self._tokenizer.decode([*self._anchor, token_id])[len(self._anchor_text) :].encode()


class _Bytes:
    """Byte-level vocabularies: a UTF-8 decoder that remembers at most three bytes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._token: Callable[[int], str | None] = tokenizer.inner.id_to_token
        self._spelled = tokenizer.spelled
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token_id: int) -> str:
        spelled = self._spelled.get(token_id)
        if spelled is None:
            spelled = self._spelled[token_id] = token_bytes(self._token(token_id) or "")
        return self._utf8.decode(spelled)

    def flush(self) -> str:
        return self._utf8.decode(b"", final=True)


class _Window:
    """Any other decoder: what the newest ids add to the text of the few before them.

    The ids before give the context that decoders ask for: only the first word of a text loses its space.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._before: list[int] = []
        self._held: list[int] = []

    def feed(self, token_id: int) -> str:
        token = self._tokenizer.inner.id_to_token(token_id)
        if token is None:
            return ""
        self._held.append(token_id)
        return "" if _BYTE_TOKEN.match(token) else self._emit(final=False)

    def flush(self) -> str:
        return self._emit(final=True)

    def _emit(self, final: bool) -> str:
        text = self._tokenizer.decode(self._before + self._held)
        if not final and text.endswith("�") and len(self._held) < MAX_HELD_TOKENS:
            return ""
        text = text[len(self._text_before()) :]
        self._before, self._held = (self._held or self._before), []
        return text

    def _text_before(self) -> str:
        if len(self._before) == 1:
            return self._tokenizer.decode_one(self._before[0])
        return self._tokenizer.decode(self._before)
