"""The one text that prompts are cut from: the first five chapters of Alice's Adventures in Wonderland (1865, by
Lewis Carroll, in the public domain everywhere)."""

from __future__ import annotations

from bisect import bisect
from functools import cache
from pathlib import Path

from benchmarks.models import gguf
from neuron.model.load import open_files
from neuron.text.load import TextModel, load_text

TEXT = (Path(__file__).parent / "text" / "alice.txt").read_text(encoding="utf-8")


@cache
def text_model() -> TextModel:
    """The model's tokenizer and chat template."""
    return load_text(open_files(gguf("Q4_1")))


@cache
def all_ids() -> tuple[int, ...]:
    """The whole text in tokens."""
    return tuple(text_model().encode_text(TEXT))


def ids(n: int, begin: int = 0) -> list[int]:
    """A prompt of ``n`` tokens."""
    found = list(all_ids()[begin : begin + n])
    assert len(found) == n
    return found


def words(n: int, begin: int = 0) -> str:
    """The text from a character on, so much that it has ``n`` tokens."""
    rest = TEXT[begin : begin + 8 * n]
    longer = bisect(range(len(rest)), n, key=lambda end: len(text_model().encode_text(rest[:end])))
    return rest[: longer - 1]
