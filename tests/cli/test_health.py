"""``neuron health --watch`` on a real terminal and in a pipe, and ``--check`` as a monitor runs it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pexpect
import pyte
import pytest

from neuron.cli.watch import BLOCKS, sparkline
from neuron.engine.status import Activation, DecodeStatus, LoadFigures
from tests.support.cli import PROGRAM, environment, free_port, neuron
from tests.support.node_server import NodeServer, node_server


class Terminal:
    """A program on a pseudo terminal, and what its screen shows."""

    def __init__(self, columns: int, *args: str, lines: int = 24, **env: str) -> None:
        self.columns = columns
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        command, *rest = [*PROGRAM, *args]
        self.child = pexpect.spawn(
            command,
            rest,
            env=environment(TERM="xterm-256color", **env),
            dimensions=(lines, columns),
            timeout=10,
        )

    def until(self, shown: Callable[[str], bool], within_s: float = 15) -> str:
        """The screen, once it is so."""
        for _ in range(int(within_s / 0.05)):
            text = "\n".join(self.screen.display)
            if shown(text):
                return text
            self.feed()
        raise AssertionError("\n".join(self.screen.display))

    def feed(self) -> None:
        """Take what has come."""
        try:
            part = self.child.read_nonblocking(65536, timeout=0.05)
        except pexpect.TIMEOUT:
            return
        self.raw += part
        self._stream.feed(part)

    def resize(self, columns: int) -> None:
        """Make the window another size."""
        self.child.setwinsize(24, columns)
        self.screen.resize(24, columns)
        self.screen.reset()

    def end(self) -> int | None:
        """The exit code."""
        try:
            while True:
                self.raw += self.child.read_nonblocking(65536, timeout=10)
        except pexpect.EOF:
            pass
        self.child.close()
        return self.child.exitstatus


@contextmanager
def watching(node: NodeServer, columns: int = 100, lines: int = 24, **env: str) -> Iterator[Terminal]:
    args = ("health", "--watch", "--interval", "0.2", "--host", node.url)
    terminal = Terminal(columns, *args, lines=lines, **env)
    try:
        yield terminal
    finally:
        terminal.child.close(force=True)


def busy(node: NodeServer, running: int, waiting: int, tok_s: float) -> None:
    load = LoadFigures(
        in_flight=running, max_in_flight=16, queue_depth=waiting, max_queue_depth=64, decode_tok_s=tok_s
    )
    node.engine.models["org/tiny"] = replace(node.engine.models["org/tiny"], load=load)


def test_the_page_lives_and_q_leaves_the_terminal_as_it_was(node: NodeServer) -> None:
    busy(node, 3, 0, 120)
    with watching(node) as terminal:
        text = terminal.until(lambda text: "3/16" in text)
        assert node.url in text
        assert re.search(r"org/tiny +3/16 +0 +120 +█", text)
        assert re.search(r"host +100/1,000", text)
        busy(node, 5, 7, 60)
        text = terminal.until(lambda text: "5/16" in text and "7/64" in text)
        assert re.search(r" 60 +█+▅", text)
        terminal.child.send("q")
        assert terminal.end() == 0
    assert terminal.raw.count(b"\x1b[?1049h") == terminal.raw.count(b"\x1b[?1049l") == 1
    assert terminal.raw.rfind(b"\x1b[?25h") > terminal.raw.rfind(b"\x1b[?25l")


def test_ctrl_c_leaves_quietly(node: NodeServer) -> None:
    with watching(node) as terminal:
        terminal.until(lambda text: "org/tiny" in text)
        terminal.child.sendintr()
        assert terminal.end() == 130
    assert b"Traceback" not in terminal.raw
    assert terminal.raw.rfind(b"\x1b[?1049l") > 0


def test_the_page_follows_the_size_of_the_window(node: NodeServer) -> None:
    busy(node, 1, 0, 100)
    with watching(node, columns=100) as terminal:
        terminal.until(lambda text: longest_spark(text) >= 10)
        terminal.resize(70)
        terminal.until(lambda text: 0 < longest_spark(text) <= 7 and "leaves" in text)
        terminal.resize(140)
        terminal.until(lambda text: longest_spark(text) > 10)
        terminal.child.send("Q")
        assert terminal.end() == 0


def test_on_a_tiny_terminal_it_is_one_line_a_thing(node: NodeServer) -> None:
    busy(node, 3, 0, 120)
    with watching(node, columns=20, lines=5) as terminal:
        terminal.until(lambda text: "3/16 org/tiny" in text)
        shown = [line.rstrip() for line in terminal.screen.display]
        assert shown == ["accepting", "3/16 org/tiny 120 t…", "host 12 % 900 MB fr…", "q leaves", ""]
        terminal.child.send("q")
        assert terminal.end() == 0


def test_on_a_wide_and_low_terminal_too(node: NodeServer) -> None:
    busy(node, 3, 0, 120)
    with watching(node, columns=100, lines=4) as terminal:
        terminal.until(lambda text: "3/16 org/tiny 120 tok/s" in text and "q leaves" in text)
        terminal.child.send("q")
        assert terminal.end() == 0


def longest_spark(text: str) -> int:
    return max(map(len, re.findall(f"[{BLOCKS}]+", text)), default=0)


def test_a_node_that_goes_away_stays_on_the_page_and_one_that_was_never_there_is_an_error() -> None:
    with node_server() as node:
        terminal = Terminal(100, "health", "--watch", "--interval", "0.2", "--host", node.url)
        terminal.until(lambda text: "org/tiny" in text)
    text = terminal.until(lambda text: "no node answers" in text)
    assert "org/tiny" in text
    terminal.child.send("q")
    assert terminal.end() == 0
    terminal = Terminal(100, "health", "--watch", "--host", f"127.0.0.1:{free_port()}")
    assert terminal.end() == 69


def test_no_colour_is_no_colour(node: NodeServer) -> None:
    with watching(node, NO_COLOR="1") as terminal:
        terminal.until(lambda text: "org/tiny" in text)
        terminal.child.send("q")
        terminal.end()
    assert not re.search(rb"\x1b\[[0-9;]*3[0-7]m", terminal.raw)


@pytest.mark.parametrize("args", [[], ["--json"]])
def test_in_a_pipe_it_is_blocks_of_lines_or_objects(node: NodeServer, args: list[str]) -> None:
    command = [*PROGRAM, "health", "--watch", "--interval", "0.2", "--host", node.url, *args]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as child:
        assert child.stdout is not None
        got = b""
        while got.count(b"accepting") < 3:
            got += child.stdout.readline()
        child.send_signal(signal.SIGINT)
        rest, err = child.communicate(timeout=10)
    assert (child.returncode, err) == (130, b"")
    assert b"\x1b" not in got + rest
    if args:
        assert json.loads(got.splitlines()[0])["accepting"] is True
    else:
        assert b"\n\nuptime" in got


@pytest.mark.parametrize("args", [["--check", "--json"], ["--check", "--watch"], ["--interval", "1"]])
def test_what_does_not_go_together_is_refused(node: NodeServer, args: list[str]) -> None:
    assert neuron("health", *args, "--host", node.url).returncode == 64


# ---- --check


def check(node: NodeServer) -> tuple[int, str]:
    done = neuron("health", "--check", "--host", node.url)
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    return done.returncode, done.stdout.strip()


def test_a_node_that_is_well(node: NodeServer) -> None:
    busy(node, 2, 1, 5)
    code, line = check(node)
    assert code == 0
    assert re.fullmatch(
        r"NEURON OK - org/tiny \| models=1 running=2 waiting=1 refused=0 memory_free=900MB uptime=\ds", line
    )


STATES: dict[str, tuple[Callable[[NodeServer], None], int, str]] = {
    "stalled": (
        lambda node: setattr(node.engine, "decode", DecodeStatus(stalled=True)), 2, "the decode loop is stalled",
    ),
    "draining": (
        lambda node: setattr(node.engine, "decode", DecodeStatus(accepting=False)), 2, "no new work is accepted",
    ),
    "failed at start": (
        lambda node: setattr(node.engine, "activation", Activation(failed=(("a/b", "no | weights"),))),
        2, "a/b failed to load at start: no / weights",
    ),
    "loading": (
        lambda node: setattr(
            node.engine, "activation", Activation(state="pre_warming", pending=("c",), in_progress="b")
        ),
        1, "2 of the models at start not loaded yet",
    ),
    "empty": (lambda node: node.engine.models.clear(), 1, "no model is loaded"),
    "full": (lambda node: busy(node, 16, 64, 5), 1, "the queue of org/tiny is full"),
}  # fmt: skip


@pytest.mark.parametrize("state", STATES)
def test_a_node_that_is_not_well(node: NodeServer, state: str) -> None:
    make, code, says = STATES[state]
    make(node)
    found, line = check(node)
    word = ("OK", "WARNING", "CRITICAL")[code]
    assert (found, line.partition(" | ")[0]) == (code, f"NEURON {word} - {says}")


def test_the_worst_is_said_first(node: NodeServer) -> None:
    node.engine.models.clear()
    node.engine.decode = DecodeStatus(accepting=False)
    assert check(node)[1].startswith("NEURON CRITICAL - no new work is accepted; no model is loaded | ")


def test_nobody_there_is_critical() -> None:
    done = neuron("health", "--check", "--host", f"127.0.0.1:{free_port()}")
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.startswith("NEURON CRITICAL - no node answers at http://127.0.0.1:")


# ---- drawing


@pytest.mark.parametrize(
    ("values", "width", "top", "drawn"),
    [
        ([], 3, None, "   "),
        ([0, 0], 3, None, " ▁▁"),
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, 8, "▁▂▃▄▅▆▇█"),
        ([1, 2, 4], 2, None, "▅█"),
        ([100], 1, 100, "█"),
        ([50], 1, 100, "▅"),
        ([1], 0, None, ""),
    ],
)
def test_a_sparkline(values: list[float], width: int, top: float | None, drawn: str) -> None:
    assert sparkline(values, width, top) == drawn
