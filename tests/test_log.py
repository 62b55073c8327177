"""Log lines: one an event, in either form, whatever is in the fields."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import pytest

from neuron import faults, log
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


def queued(writer: TextIO, lost: list[int]) -> tuple[QueuedHandler, Callable[[int], None]]:
    """A handler and what gives it a line of a number."""
    handler = QueuedHandler(writer, lost.append)

    def say(number: int) -> None:
        handler.emit(logging.LogRecord("x", logging.INFO, "", 0, f"{number:05}" * 2000, None, None))
        handler.flush()

    return handler, say


def test_a_line_that_found_room_for_a_part_of_it_is_ended_before_the_next() -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    lost: list[int] = []
    with open(read_end, "rb", buffering=0) as reader, open(write_end, "w", encoding="utf-8") as writer:
        handler, say = queued(writer, lost)
        for number in range(20):  # a pipe takes six of them and a half
            say(number)
        written = reader.read(1 << 20)
        for number in range(20, 22):
            say(number)
        written += reader.read(1 << 20)
    lines = [line.decode() for line in written.splitlines()]
    assert [line == line[:5] * 2000 for line in lines] == [True] * len(lines)
    assert [int(line[:5]) for line in lines] == [0, 1, 2, 3, 4, 5, 6, 20, 21]
    assert (lost, handler.dropped) == ([13], 13)


def test_faults_are_put_at_an_exact_line(tmp_path: Path) -> None:
    faults.arm({faults.VARIABLE: "log:enospc@2,log:enospc@3,log:enospc@4", faults.SWITCH: "1"})
    lost: list[int] = []
    try:
        with (tmp_path / "log").open("w", encoding="utf-8") as writer:
            _, say = queued(writer, lost)
            for number in range(6):
                say(number)
    finally:
        faults.arm({})
    lines = (tmp_path / "log").read_text().splitlines()
    assert [int(line[:5]) for line in lines] == [0, 1, 4, 5], "the second waited for room, two found none"
    assert lost == [2]
