"""Texts of others on a terminal and in a log: nothing acts on the one, nothing ends a line of the other."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from neuron.cli.main import run
from neuron.progress import Progress
from tests.reliability.payloads import FORGED, PAYLOADS
from tests.support.fake_engine import FakeEngine, Script, Think
from tests.support.fake_process import CHAT, FakeProcess, fake_process
from tests.support.hostile_node import HostileNode, hostile_node
from tests.support.node_server import node_server
from tests.support.scorecard import Scorecard
from tests.support.terminal import terminal

TARGET = 50
ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What a terminal acts on: all control characters but newline and tab, and what turns text around."""
FOREIGN = re.compile(
    "\x1b[]PX^_c78#]|\x1b\\[(?:8m|31m|31;|\\?1049h|>0;1)|[\x80-\x9f\u202a-\u202e\u2066-\u2069]"
)
"""What this program never writes to a terminal that can do everything."""
GROUPS = [PAYLOADS[n : n + 8] for n in range(0, len(PAYLOADS), 8)]
"""Said together, a line each: a sequence that does not end must not take the next one with it."""
COMMANDS = (
    ("models",),
    ("models", "--json"),
    ("show", "org/tiny"),
    ("show", "org/tiny", "--template"),
    ("endpoint", "org/tiny"),
    ("health",),
    ("health", "--json"),
    ("health", "--check"),
    ("discovery",),
    ("discovery", "--json"),
    ("version",),
    ("explain",),
    ("explain", "ID"),
    ("events",),
    ("events", "--json"),
    ("nodes",),
    ("load", "org/new"),
    ("load", "org/new", "--plan"),
    ("load", "org/tiny"),
    ("unload", "org/tiny"),
    ("unload", "--all"),
    ("wait", "--model", "org/none", "--timeout", "1"),
    ("drain",),
    ("chat", "org/tiny", "hi"),
    ("chat", "org/tiny", "hi", "--json"),
    ("chat", "org/tiny", "hi", "-x"),
    ("chat", "org/none", "hi"),
    ("chat", "org/tiny", "hi", "--max-tokens", "0"),
)
"""Everything that shows what a node says."""
shown: set[tuple[str, ...]] = set()


@pytest.fixture(scope="module")
def hostile() -> Iterator[HostileNode]:
    with node_server(FakeEngine()) as node, hostile_node(node) as running:
        yield running


def show(*args: str, capsys: pytest.CaptureFixture[str]) -> str:
    """All that a command writes."""
    code = run(args)
    out, err = capsys.readouterr()
    assert "internal error" not in err, (code, err)
    assert out + err, args
    return out + err


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_nothing_that_a_node_says_acts_on_a_terminal(
    hostile: HostileNode,
    command: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "neuron").mkdir()
    (tmp_path / "neuron" / "nodes.toml").write_text(f'[gpu1]\nurl = "{hostile.url}"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("NEURON_STATE", str(tmp_path))
    monkeypatch.setattr("sys.stdin", io.StringIO())
    for payloads in GROUPS:
        like_new(hostile)
        hostile.payload = payload = "\n".join(payloads)
        request_id = hostile.node.get("/requests")[2][0]["id"]
        args = [request_id if word == "ID" else word for word in command]
        host = [] if command == ("nodes",) else ["--host", hostile.url]
        text = show(*args, *host, capsys=capsys)
        assert not ACTS.search(text), (payload, text)
        shown.update((*command, each) for each in payloads)


def like_new(hostile: HostileNode) -> None:
    """The node behind, with a request that ended and an answer that thinks and has code."""
    engine = hostile.node.engine
    engine.__init__(Script(texts=[Think("hm"), "yes ", "```sh\nls\n```"]))  # type: ignore[misc]
    engine.load_steps = [Progress("read", 1, 2, note="a note")]
    hostile.node.post("/v1/chat/completions", CHAT)


PLACES = (
    "chat MODEL hi",
    "show MODEL",
    "load MODEL",
    "models --host MODEL",
    "pull MODEL",
    "unload MODEL",
    "rm MODEL",
    "MODEL",
    "chat --session MODEL",
    "explain MODEL",
)
"""Command lines that quote what was typed; what was pasted there is not always one's own."""


@pytest.mark.parametrize("place", PLACES)
def test_nothing_that_was_pasted_into_a_command_acts_on_a_terminal(
    hostile: HostileNode,
    place: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("NEURON_STATE", str(tmp_path))
    monkeypatch.setenv("NEURON_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("NEURON_HOST", hostile.url)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    hostile.payload = ""
    for payloads in GROUPS:
        payload = "\n".join(payloads).replace("\0", "")  # which no command line can hold
        text = show(*(f"x/y{payload}" if word == "MODEL" else word for word in place.split()), capsys=capsys)
        assert not ACTS.search(text), (payload, text)
        shown.update((place, each) for each in payloads)


FORMS = {
    "json": re.compile(r"\{.*\}"),
    "text": re.compile(r"\d\d:\d\d:\d\d (debug|info|warning|error) +[A-Za-z].*"),
    "journal": re.compile(r"<[2-7]>[A-Za-z ].*"),
}


@pytest.mark.parametrize("form", FORMS)
def test_nothing_that_a_caller_says_ends_a_line_of_the_log(tmp_path: Path, form: str) -> None:
    with fake_process(tmp_path, log_format=form, log_prompts=True) as node:
        for payload in PAYLOADS:
            say_everywhere(node, payload)
    raw = node.log.read_bytes()
    assert raw.count(b"\n") > len(PAYLOADS)
    for line in raw.decode().split("\n")[:-1]:
        assert FORMS[form].fullmatch(line), line
        assert line.isprintable(), line
        assert not line.lstrip('<2> {"').startswith(FORGED)
        if form == "json":
            assert json.loads(line)["event"] != FORGED


def say_everywhere(node: FakeProcess, payload: str) -> None:
    """The payload in every place of a request that a log might tell of."""
    one_line = re.sub("[\r\n\0]", "", payload)[:4000].encode().decode("latin-1")
    node.ask("POST", "/v1/chat/completions", {**CHAT, "model": payload})
    node.ask("POST", "/v1/chat/completions", {**CHAT, "user": payload, payload: payload})
    node.ask("POST", "/v1/chat/completions", {"model": "org/tiny", "messages": [{"role": payload}]})
    node.ask("POST", "/models/load", {"model_id": f"a/b{payload}"})
    node.ask("POST", "/models/unload", {"model_id": payload})
    node.ask("GET", f"/{quote(payload)[:8000]}")
    node.ask("GET", f"/v1/models/{quote(payload)[:8000]}?{quote(payload)[:8000]}")
    node.ask("GET", "/health", **{"user-agent": one_line, "authorization": f"Bearer {one_line}"})
    node.ask("GET", "/health", host=one_line or "x", origin=one_line)


def spoken(engine: FakeEngine) -> None:
    """The engine thinks and says every payload, cut anywhere."""
    text = "\n".join(PAYLOADS)
    pieces = [text[n : n + 3] for n in range(0, len(text), 3)]
    engine.__init__(Script(texts=[*map(Think, pieces), *pieces]))  # type: ignore[misc]


@pytest.mark.parametrize("style", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_an_answer_on_a_plain_terminal_has_no_escape_at_all(
    hostile: HostileNode, tmp_path: Path, style: dict[str, str]
) -> None:
    spoken(hostile.node.engine)
    with terminal("chat", "org/tiny", "hi", "--host", hostile.node.url, state=tmp_path, **style) as screen:
        assert screen.wait_end() == 0
    assert screen.output.count(FORGED.encode()) > len(PAYLOADS) / 2
    assert not ACTS.search(screen.output.decode().replace("\r\n", "\n"))


def test_a_conversation_on_a_terminal_has_the_program_s_own_escapes_alone(
    hostile: HostileNode, tmp_path: Path
) -> None:
    args = ("chat", "org/tiny", "--host", hostile.node.url, "--session", "s")
    spoken(hostile.node.engine)
    output = b""
    for asked in (("hi", "/reasoning", "/sessions"), ("/set", "/model")):
        with terminal(*args, state=tmp_path) as screen:
            screen.wait_prompt()
            for line in asked:
                screen.ask(line)
                screen.wait_prompt()
            screen.press("ctrl-d")
            assert screen.wait_end() == 0
            output += screen.output
    assert output.count(FORGED.encode()) > len(PAYLOADS) / 2
    assert FOREIGN.search(output.decode()) is None


def test_without_the_filter_a_terminal_would_act(
    hostile: HostileNode, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuron.cli.terminal_text.clean", lambda text: text)
    like_new(hostile)
    hostile.payload = "\x1b[2J"
    assert ACTS.search(show("models", "--host", hostile.url, capsys=capsys))


def test_enough_was_tried(scorecard: Scorecard) -> None:
    payloads = {case[-1] for case in shown}
    if len(payloads) >= TARGET:
        where = f"{len(COMMANDS) + len(PLACES)} commands and {len(FORMS)} forms of the log"
        figure = f"{len(payloads)} payloads in {where}, 0 ESC bytes"
        scorecard(37, figure, f">= {TARGET}, 0 ESC bytes to tty, every log line parses", True)
