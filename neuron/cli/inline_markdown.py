"""A line of Markdown that arrives in pieces: code, strong, emphasis, strike and links, known as soon as they end.

What is not closed yet is held back, but never more than `MAX_SPAN_CHARS`; what never closes is shown as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

MAX_SPAN_CHARS = 240


class Run(NamedTuple):
    """Text in one style: names of styles, separated by spaces, as rich reads them."""

    text: str
    style: str = ""


class Span(NamedTuple):
    """One kind of markup: the whole, and what may still become it."""

    whole: re.Pattern[str]
    begun: re.Pattern[str]
    style: str


def _span(mark: str, style: str, inner: str = r"(?=\S)(?P<inner>.+?)(?<=\S)") -> Span:
    m = re.escape(mark)
    other = re.escape(mark[0])
    whole = rf"{m}(?!{other}){inner}(?<!{other}){m}(?!{other})"
    return Span(re.compile(whole), re.compile(rf"{m}(?:(?!{other})\S.*)?"), style)


SPANS: dict[str, tuple[Span, ...]] = {
    "`": tuple(_span("`" * n, "cyan", r"(?P<inner>.+?)") for n in (1, 2, 3)),
    "*": (
        Span(
            re.compile(r"\*\*\*(?=\S)(?P<inner>.+?)(?<=\S)\*\*\*"),
            re.compile(r"\*\*\*(?:[^\s*].*)?"),
            "bold italic",
        ),
        Span(re.compile(r"\*\*(?![\s*])(?P<inner>.+?)(?<=\S)\*\*"), re.compile(r"\*\*(?:[^\s*].*)?"), "bold"),
        Span(
            re.compile(r"\*(?![\s*])(?P<inner>.+?)(?<=[^\s*])\*(?!\*)"),
            re.compile(r"\*(?:[^\s*].*)?"),
            "italic",
        ),
    ),
    "_": (
        Span(re.compile(r"__(?![\s_])(?P<inner>.+?)(?<=\S)__(?!\w)"), re.compile(r"__(?:[^\s_].*)?"), "bold"),
        Span(
            re.compile(r"_(?![\s_])(?P<inner>.+?)(?<=[^\s_])_(?!\w)"), re.compile(r"_(?:[^\s_].*)?"), "italic"
        ),
    ),
    "~": (Span(re.compile(r"~~(?=\S)(?P<inner>.+?)(?<=\S)~~"), re.compile(r"~(?:~.*)?"), "strike"),),
    "[": (
        Span(
            re.compile(r"\[(?P<inner>[^\[\]]+)\]\((?P<url>[^()\s]+)(?:\s+\"[^\"]*\")?\)"),
            re.compile(r"\[[^\[\]]*(?:\](?:\([^()]*)?)?"),
            "underline",
        ),
    ),
}
_PLAIN = re.compile(r"[^`*_~\[\\]+")
_ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")


class InlineStream:
    """`feed` a line in pieces, then `end` it."""

    def __init__(self, style: str = "") -> None:
        self._style = style
        self._rest = ""
        self._before = ""

    def feed(self, text: str) -> Iterator[Run]:
        """What can be shown by now."""
        self._rest += text
        return self._runs(final=False)

    def end(self) -> Iterator[Run]:
        """All that is left."""
        return self._runs(final=True)

    def _runs(self, final: bool) -> Iterator[Run]:
        while self._rest:
            taken = self._next(final)
            if taken is None:
                return
            length, runs = taken
            self._before, self._rest = self._rest[length - 1], self._rest[length:]
            yield from runs

    def _next(self, final: bool) -> tuple[int, list[Run]] | None:
        """Length of the next thing, and its runs; None where more text is needed to know it."""
        if plain := _PLAIN.match(self._rest):
            return plain.end(), [Run(plain[0], self._style)]
        if escaped := _ESCAPED.match(self._rest):
            return 2, [Run(escaped[1], self._style)]
        if self._rest == "\\" and not final:
            return None
        return self._markup(final)

    def _markup(self, final: bool) -> tuple[int, list[Run]] | None:
        char = self._rest[0]
        spans = () if char == "_" and self._before.isalnum() else SPANS.get(char, ())
        if not final and any(self._may_begin(span) for span in spans):
            return None
        for span in spans:
            if found := span.whole.match(self._rest):
                return found.end(), list(self._styled(found, span.style))
        run = re.match(rf"{re.escape(char)}+", self._rest)
        assert run
        return run.end(), [Run(run[0], self._style)]

    def _may_begin(self, span: Span) -> bool:
        """Whether more text could close this span, or lengthen the mark that closed it."""
        if len(self._rest) > MAX_SPAN_CHARS or not span.begun.fullmatch(self._rest):
            return False
        found = span.whole.match(self._rest)
        return found is None or found.end() == len(self._rest)

    def _styled(self, found: re.Match[str], style: str) -> Iterator[Run]:
        both = f"{self._style} {style}".strip()
        if style == "cyan":
            inner = found["inner"]
            yield Run(inner.strip(" ") or inner, both)
            return
        yield from InlineStream(both).feed_all(found["inner"])
        url = found.groupdict().get("url")
        if url and url.removeprefix("mailto:") != found["inner"]:
            yield Run(f" ({url})", f"{self._style} dim".strip())

    def feed_all(self, text: str) -> Iterator[Run]:
        """The runs of a text that is whole."""
        self._rest = text
        return self.end()
