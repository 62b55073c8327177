"""Reading ``text/event-stream`` as the HTML standard defines it: any line ending, comments, data over lines."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One dispatched event; ``event`` is ``message`` unless the server named it."""

    data: str
    event: str = "message"


def read_events(chunks: Iterable[bytes]) -> Iterator[ServerEvent]:
    """Events of a stream of bytes, cut anywhere. An event without its blank line at the end is dropped."""
    data: list[str] = []
    name = ""
    for line in read_lines(chunks):
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield ServerEvent("\n".join(data), name or "message")
            data, name = [], ""
        elif field == "data":
            data.append(value)
        elif field == "event":
            name = value


def read_lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Lines without their end (``\\n``, ``\\r\\n`` or ``\\r``); a last part without an end is dropped."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
    rest: list[str] = []
    after_cr = False
    for chunk in chunks:
        text = decoder.decode(chunk)
        if text:
            begins_after_cr, after_cr = after_cr, text.endswith("\r")
            text = text.removeprefix("\n") if begins_after_cr else text
        first, *more = _LINE_END.split(text)
        rest.append(first)
        for line in more:
            yield "".join(rest)
            rest = [line]
