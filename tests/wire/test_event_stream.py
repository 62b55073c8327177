"""Events are read as the HTML standard says, wherever the bytes are cut."""

import pytest

from neuron.wire.event_stream import ServerEvent, read_events

CASES = {
    "one event": ("data: a\n\n", [ServerEvent("a")]),
    "no space after the colon": ("data:a\n\n", [ServerEvent("a")]),
    "one space is taken, the second stays": ("data:  a\n\n", [ServerEvent(" a")]),
    "data over lines": ("data: a\ndata: b\n\n", [ServerEvent("a\nb")]),
    "a named event": ("event: x\ndata: a\n\ndata: b\n\n", [ServerEvent("a", "x"), ServerEvent("b")]),
    "CRLF": ("data: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n", [ServerEvent("a\nb"), ServerEvent("c")]),
    "CRLF, then LF alone": ("data: a\r\n\ndata: b\n\n", [ServerEvent("a"), ServerEvent("b")]),
    "CR": ("data: a\r\rdata: b\r\r", [ServerEvent("a"), ServerEvent("b")]),
    "a comment": (": ping\n\ndata: a\n\n", [ServerEvent("a")]),
    "an event without data": ("event: x\n\ndata: a\n\n", [ServerEvent("a")]),
    "unknown fields": ("id: 1\nretry: 2\nfoo: 3\ndata: a\n\n", [ServerEvent("a")]),
    "a byte order mark": ("\ufeffdata: a\n\n", [ServerEvent("a")]),
    "characters beyond ASCII": ("data: é\U0001f600\n\n", [ServerEvent("é\U0001f600")]),
    "a field without a colon": ("data\ndata\n\n", [ServerEvent("\n")]),
    "other separators are text": ("data: a\u2028b\x0bc\x85d\n\n", [ServerEvent("a\u2028b\x0bc\x85d")]),
    "no blank line at the end": ("data: a\n\ndata: b\n", [ServerEvent("a")]),
    "nothing": ("", []),
}


@pytest.mark.parametrize("name", CASES)
def test_events_come_out_however_the_bytes_are_cut(name: str) -> None:
    text, expected = CASES[name]
    raw = text.encode()
    assert list(read_events([raw])) == expected
    assert list(read_events(raw[i : i + 1] for i in range(len(raw)))) == expected
    for cut in range(len(raw)):
        assert list(read_events([raw[:cut], b"", raw[cut:]])) == expected
