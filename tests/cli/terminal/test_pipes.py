"""Pipes that are typed at a terminal: the answer is plain, and whoever reads it may leave."""

import shlex
from pathlib import Path

import pytest

from tests.support.cli import PROGRAM
from tests.support.fake_engine import Script, Think
from tests.support.node_server import NodeServer
from tests.support.terminal import terminal

BASH = ("bash", "--norc", "-c")


@pytest.mark.parametrize(
    ("more", "expected", "code"),
    [
        ("| cat", "**bold** `x`", 0),
        ("2>&1 | head -1", "hm", 0),
        ("-x", "print(1)", 0),
        ("> file; cat file", "**bold**", 0),
    ],
)
def test_what_is_no_terminal_gets_no_escapes(
    node: NodeServer, tmp_path: Path, more: str, expected: str, code: int
) -> None:
    node.engine.script = Script(texts=[Think("hm\n"), "**bo", "ld** `x`\n", "```py\nprint(1)\n```\n"] * 20)
    command = f"{shlex.join([*PROGRAM, 'chat', 'org/tiny', 'hi', '--host', node.url])} {more}"
    with terminal(f"cd {tmp_path}; {command}", state=tmp_path, program=BASH) as screen:
        assert screen.wait_end() == code
        assert expected in screen.text
        assert "Traceback" not in screen.text
        plain = screen.output.replace(b"\x1b[2m", b"").replace(b"\x1b[22m", b"")  # thoughts, on the terminal
        assert b"\x1b" not in plain


def test_what_is_piped_in_is_answered_on_a_terminal_with_markdown(node: NodeServer, tmp_path: Path) -> None:
    node.engine.script = Script(texts=["**bo", "ld**"])
    command = f"echo hi | {shlex.join([*PROGRAM, 'chat', 'org/tiny', '--host', node.url])}"
    with terminal(command, state=tmp_path, program=BASH) as screen:
        assert screen.wait_end() == 0
        assert screen.text == "bold"
        assert b"\x1b[1mbold" in screen.output
