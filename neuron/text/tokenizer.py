"""The tokenizer boundary: the Rust library behind a wall that holds panics, bombs and silent changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from neuron.errors import InvalidModelFile, InvalidValue, NeuronError
from neuron.files import read_bounded
from neuron.text import tokenizer_rules
from neuron.text.deadline import Places, within
from neuron.text.tokenizer_rules import Growth

MAX_TOKENS_PER_BYTE = 16
"""A tokenizer that makes more than this out of plain text is a bomb."""
MAX_NORMALIZED_BYTES = 256 << 20
"""Of a text after the rules that come before the vocabulary."""
SMOKE_S = 20.0
"""For the trial of a tokenizer; a good one takes milliseconds."""
_SMOKE_PLACES = Places(2)
_SMOKE_TEXTS = ("a", " \n", "é1", "a" * 1000, "The quick brown fox, 3.14 — naïve 日本語 🙂\t{}\n" * 20)
_PASS = (NeuronError, KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, MemoryError)


@contextmanager
def contained(error: Callable[[str], NeuronError]) -> Iterator[None]:
    """Turn whatever the library raises into ``error``.

    A panic in its Rust code arrives as a `BaseException` that ``except Exception`` would let through.
    """
    try:
        yield
    except _PASS:
        raise
    except BaseException as e:
        raise error(f"{type(e).__name__}: {e}"[:500]) from e


def parse(data: bytes, name: str) -> tokenizers.Tokenizer:
    """The library's tokenizer from the JSON of ``tokenizer.json``. Raises `InvalidModelFile`."""
    with contained(lambda why: InvalidModelFile(f"{name}: not a tokenizer that this build reads: {why}")):
        return tokenizers.Tokenizer.from_buffer(data)


class Tokenizer:
    """A vocabulary with its rules: text to ids and back.

    Args:
        inner: the library's tokenizer; padding, truncation and dropout in it are switched off, since they would
            change prompts silently (or, with a length of 5e8, end the process).
        name: what errors call it: the file.
        vocab_limit: rows of the model's embedding; an id at or above it is refused. None: not known.
        growth: what its rules may make of a text.

    Raises:
        InvalidModelFile: it can't encode plain text.
    """

    def __init__(
        self,
        inner: tokenizers.Tokenizer,
        *,
        name: str = "tokenizer",
        vocab_limit: int | None = None,
        growth: Growth = Growth(),  # noqa: B008 - a tuple
    ) -> None:
        inner.no_padding()
        inner.no_truncation()
        if getattr(inner.model, "dropout", None) is not None:
            inner.model.dropout = None
        self.inner = inner
        self.name = name
        self.vocab_limit = vocab_limit
        self._growth = growth
        late = InvalidModelFile(f"{name}: takes longer than {SMOKE_S:g} s for a few lines of plain text")
        within(SMOKE_S, self._smoke, f"{name}: the trial", late=late, places=_SMOKE_PLACES)

    @classmethod
    def from_file(cls, path: Path, *, vocab_limit: int | None = None) -> Tokenizer:
        """Read a ``tokenizer.json``. Raises `InvalidModelFile`."""
        data, name = read_bounded(path), str(path)
        growth = tokenizer_rules.check(data, name)
        return cls(parse(data, name), name=name, vocab_limit=vocab_limit, growth=growth)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Ids of ``text``; control tokens that it spells become the tokens. Releases the GIL.

        Raises:
            InvalidValue: the library can't take this text, or its rules might blow it up.
            InvalidModelFile: an id outside the model's vocabulary.
        """
        self._check_growth(text)
        with contained(self._refusal):
            # `encode` would hold the GIL throughout, 0.8 s for a megabyte.
            encoding = self.inner.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0]
        return self._checked(encoding.ids)

    def encode_spans(self, text: str) -> list[tuple[int, int, int]]:
        """(id, start, end) for every token of ``text``, in characters; without the tokens a template adds."""
        self._check_growth(text)
        with contained(self._refusal):
            encoding = self.inner.encode_batch([text], add_special_tokens=False)[0]
        return [(i, *span) for i, span in zip(encoding.ids, encoding.offsets, strict=True)]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Text of ``ids``, all at once; bytes that are no UTF-8 become U+FFFD."""
        with contained(lambda why: InvalidModelFile(f"{self.name}: can't decode: {why}")):
            return self.inner.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def decode_one(self, token_id: int) -> str:
        """Text of an id that stands alone."""
        text = self._alone.get(token_id)
        if text is None:
            text = self._alone[token_id] = self.decode([token_id])
        return text

    def normalize(self, text: str) -> str:
        """``text`` as the tokenizer's normalizer rewrites it."""
        if self.inner.normalizer is None:
            return text
        self._check_growth(text)
        with contained(self._refusal):
            return str(self.inner.normalizer.normalize_str(text))

    def token_id(self, token: str) -> int | None:
        """The id of exactly this token."""
        return self.inner.token_to_id(token)

    def add(self, token: tokenizers.AddedToken) -> None:
        """Match one more token in the text, at the id that the vocabulary has for it, else at the next free one."""
        self.inner.add_special_tokens([token]) if token.special else self.inner.add_tokens([token])
        for cached in ("vocab", "vocab_size", "added", "special_ids", "max_token_bytes", "spelled", "_alone"):
            self.__dict__.pop(cached, None)

    @cached_property
    def _alone(self) -> dict[int, str]:
        """What `decode_one` said."""
        return {}

    @cached_property
    def spelled(self) -> dict[int, bytes]:
        """The bytes of ids of a byte-level vocabulary, as far as some answer had them."""
        return {}

    @cached_property
    def vocab(self) -> Mapping[str, int]:
        """Every token and its id, the added ones too."""
        return self.inner.get_vocab()

    @cached_property
    def vocab_size(self) -> int:
        """The highest id plus one."""
        return max(self.vocab.values(), default=-1) + 1

    @cached_property
    def added(self) -> Mapping[int, tokenizers.AddedToken]:
        """Tokens that are matched in the text before anything else, by id."""
        return self.inner.get_added_tokens_decoder()

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of the added tokens marked ``special``."""
        return frozenset(i for i, token in self.added.items() if token.special)

    @cached_property
    def decoder_json(self) -> dict[str, Any]:
        """The decoder's own description, ``{}`` where there is none."""
        decoder = self.inner.decoder
        return {} if decoder is None else json.loads(decoder.__getstate__())

    @cached_property
    def max_token_bytes(self) -> int:
        """An upper bound on the bytes of text that one token can stand for."""
        # Byte-level vocabularies write each byte as one character, which may take two bytes itself.
        size = len if self.decoder_json.get("type") == "ByteLevel" else _utf8_bytes
        added = max((_utf8_bytes(t.content) for t in self.added.values()), default=1)
        return max(added, max(map(size, self.vocab), default=1))

    def _refusal(self, why: str) -> NeuronError:
        return InvalidValue(f"the tokenizer refused the text: {why}", param="messages")

    def _check_growth(self, text: str) -> None:
        """Refuse a text before the library takes the memory that it may need for it."""
        if len(text) * 4 * self._growth.factor <= MAX_NORMALIZED_BYTES:  # without counting its bytes
            return
        if _utf8_bytes(text) * self._growth.factor > MAX_NORMALIZED_BYTES:
            raise self._refusal(f"its rules may make {self._growth.factor} bytes of each of so many")

    def _checked(self, ids: list[int]) -> list[int]:
        if self.vocab_limit is not None and ids and (top := max(ids)) >= self.vocab_limit:
            raise InvalidModelFile(
                f"{self.name}: the text needs token {top}, the model knows {self.vocab_limit}",
                hint="the tokenizer belongs to another model, or was extended without resizing the embedding",
            )
        return ids

    def _smoke(self) -> None:
        """Encode texts of growing length, so that a bad tokenizer fails the load and not the first user."""
        for text in _SMOKE_TEXTS:
            with contained(lambda why: InvalidModelFile(f"{self.name}: can't encode plain text: {why}")):
                n_tokens = len(self.inner.encode_batch_fast([text])[0].ids)
            if n_tokens == 0 and text.strip():
                raise InvalidModelFile(f"{self.name}: makes nothing of plain text")
            if n_tokens > MAX_TOKENS_PER_BYTE * (_utf8_bytes(text) + 1):
                raise InvalidModelFile(
                    f"{self.name}: makes {n_tokens} tokens of {_utf8_bytes(text)} bytes of plain text"
                )


def _utf8_bytes(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))
