"""Log lines: one an event, in either form, whatever is in the fields."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
from collections.abc import Iterator

import pytest

from neuron import log
from neuron.errors import ConfigError
from neuron.log_queue import QueuedHandler
from tests.support.node_server import eventually

HOSTILE = 'a\r\nlevel=error event="forged"\x1b[31m\x00\u2028\u202e'
LOG = logging.getLogger("neuron.test")


@pytest.fixture(autouse=True)
def _root_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def written(form: str, **fields: object) -> str:
    stream = io.StringIO()
    log.setup("info", form, stream)
    log.event(LOG, "model loaded", **fields)  # type: ignore[arg-type]
    return stream.getvalue()


def test_a_json_line_has_event_level_time_and_fields() -> None:
    line = json.loads(written("json", id="a/b", ms=1.23456, n=3, nothing=None))
    assert (line["event"], line["level"], line["id"], line["ms"], line["n"]) == (
        "model loaded",
        "info",
        "a/b",
        1.235,
        3,
    )
    assert "nothing" not in line


@pytest.mark.parametrize("form", ["text", "json"])
def test_control_characters_stay_in_their_line(form: str) -> None:
    text = written(form, id=HOSTILE)
    assert text.count("\n") == 1
    assert text[:-1].isprintable()
    assert "forged" in text


def test_a_text_line_quotes_what_holds_spaces() -> None:
    assert written("text", a="b", c="d e").endswith('model loaded a=b c="d e"\n')


def test_fields_are_bounded() -> None:
    assert len(written("text", a="x" * 100_000)) < 3000


def test_auto_is_json_where_there_is_no_terminal() -> None:
    json.loads(written("auto"))


def test_a_traceback_is_one_json_line_and_indented_text() -> None:
    for form, lines in (("json", 1), ("text", 4)):
        stream = io.StringIO()
        log.setup("info", form, stream)
        try:
            raise ValueError("line one\nlevel=error")
        except ValueError:
            LOG.exception("bug")
        found = stream.getvalue().splitlines()
        assert len(found) >= lines
        assert all(line.startswith("    ") for line in found[1:])


def test_levels_hold() -> None:
    stream = io.StringIO()
    log.setup("warning", "text", stream)
    log.event(LOG, "quiet")
    assert stream.getvalue() == ""


@pytest.mark.parametrize(("level", "form"), [("loud", "text"), ("info", "xml")])
def test_unknown_settings_are_refused(level: str, form: str) -> None:
    with pytest.raises(ConfigError, match="known:"):
        log.setup(level, form)


def test_a_journal_gets_a_priority_on_every_line_and_no_clock() -> None:
    stream = io.StringIO()
    log.setup("debug", "journal", stream)
    log.event(LOG, "model loaded", id="a b")
    log.event(LOG, "slow", level=logging.WARNING)
    try:
        raise ValueError("line one\n<0>forged")
    except ValueError:
        LOG.exception("bug")
    first, second, third, *trace = stream.getvalue().splitlines()
    assert (first, second, third) == ('<6>model loaded id="a b"', "<4>slow", "<3>bug")
    assert len(trace) >= 3
    assert all(line.startswith("<3>    ") for line in trace)


def test_a_level_can_change() -> None:
    stream = io.StringIO()
    log.setup("error", "text", stream)
    log.event(LOG, "unheard")
    log.set_level("info")
    log.event(LOG, "heard")
    assert "unheard" not in stream.getvalue()
    assert "heard" in stream.getvalue()


def test_a_queue_drops_what_it_can_t_hold_and_tells_how_much() -> None:
    read_end, write_end = os.pipe()
    lost: list[int] = []
    with open(read_end, encoding="utf-8") as reader, open(write_end, "w", encoding="utf-8") as writer:
        handler = QueuedHandler(writer, lost.append, max_lines=8)
        line = logging.LogRecord("x", logging.INFO, "", 0, "y" * 10_000, None, None)
        for _ in range(100):
            handler.emit(line)  # a pipe takes six of them, and nobody reads
        for _ in range(8):
            assert reader.readline() == "y" * 10_000 + "\n"
        eventually(lambda: bool(lost))
        assert 80 < lost[0] < 100
        threading.Thread(target=reader.read, daemon=True).start()
        handler.flush()
        writer.close()
