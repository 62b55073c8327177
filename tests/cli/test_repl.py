"""Chat on a terminal: a pseudo terminal, keys pressed, the screen read."""

from collections.abc import Iterator
from contextlib import contextmanager

import pexpect

from neuron.engine.request import ChatPrompt
from neuron.errors import QueueFull
from tests.support.cli import PROGRAM, environment
from tests.support.fake_engine import Script
from tests.support.node_server import NodeServer, eventually

PROMPT = ">>> "


@contextmanager
def terminal(node: NodeServer, *args: str) -> Iterator["pexpect.spawn[str]"]:
    command, *rest = [*PROGRAM, "chat", "org/tiny", "--host", node.url, *args]
    child = pexpect.spawn(
        command,
        rest,
        env=environment(TERM="dumb", NEURON_NO_HISTORY="1"),
        encoding="utf-8",
        timeout=60,
        echo=False,  # type: ignore[arg-type]
    )
    try:
        child.expect_exact(PROMPT)
        yield child
    finally:
        child.close(force=True)


def contents(node: NodeServer) -> list[object]:
    prompt = node.engine.streams[-1].generation.prompt
    assert isinstance(prompt, ChatPrompt)
    return [message["content"] for message in prompt.messages]


def interrupt(child: "pexpect.spawn[str]", expected: str) -> None:
    """Ctrl-C. One that comes before the line editor waits for keys is seen with the next key alone, so Enter is
    pressed then, which sends no line.
    """
    child.sendintr()
    if child.expect_exact([expected, pexpect.TIMEOUT], timeout=5):
        child.sendline()
        child.expect_exact(expected)


def test_the_conversation_is_kept_until_it_is_cleared(node: NodeServer) -> None:
    with terminal(node) as child:
        for line, expected in (("one", ["one"]), ("two", ["one", "Hello wörld", "two"])):
            child.sendline(line)
            child.expect_exact("Hello wörld")
            child.expect_exact(PROMPT)
            assert contents(node) == expected
        child.sendline("/clear")
        child.expect_exact(PROMPT)
        child.sendline("three")
        child.expect_exact(PROMPT)
        assert contents(node) == ["three"]
        child.sendeof()
        child.expect(pexpect.EOF)
    assert child.exitstatus == 0


def test_ctrl_c_stops_the_answer_and_not_the_program(node: NodeServer) -> None:
    node.engine.script = Script(texts=["part "] * 500, step_s=0.02)
    with terminal(node) as child:
        child.sendline("tell me")
        child.expect_exact("part part")
        child.sendintr()
        child.expect_exact("[stopped]")
        child.expect_exact(PROMPT)
        eventually(node.engine.streams[-1].left.is_set, within_s=2)
        node.engine.script = Script()
        child.sendline("go on")
        child.expect_exact("Hello wörld")
        asked, part, more = contents(node)
        assert (asked, more) == ("tell me", "go on")
        assert str(part).startswith("part part")
        child.expect_exact(PROMPT)
        child.sendline("/exit")
        child.expect(pexpect.EOF)
    assert child.exitstatus == 0


def test_ctrl_c_at_the_prompt_says_how_to_leave(node: NodeServer) -> None:
    with terminal(node) as child:
        child.send("half a line")
        interrupt(child, "Ctrl-D")
        child.expect_exact(PROMPT)
        child.sendline("/help")
        child.expect_exact("/clear")
        child.expect_exact(PROMPT)
        child.sendline("/bogus")
        child.expect_exact("no command /bogus")
        child.expect_exact(PROMPT)
        assert not node.engine.streams
        child.sendline("/etc/hosts holds what?")
        child.expect_exact("Hello wörld")


def test_a_refusal_ends_the_answer_and_not_the_program(node: NodeServer) -> None:
    node.engine.script = Script(refuse=QueueFull("the queue is full"))
    with terminal(node) as child:
        child.sendline("one")
        child.expect_exact("the queue is full")
        child.expect_exact(PROMPT)
        node.engine.script = Script()
        child.sendline("two")
        child.expect_exact("Hello wörld")
        assert contents(node) == ["two"]


def test_nothing_a_model_writes_acts_on_the_terminal(node: NodeServer) -> None:
    node.engine.script = Script(texts=["a\x1b]52;c;QUJD\x07", "b\x1b[2", "Jc\rd\x9b31me"])
    with terminal(node) as child:
        child.sendline("hi")
        child.expect_exact("abcde")
        child.expect_exact(PROMPT)
        assert "\x1b" not in (child.before or "")
        assert "\x07" not in (child.before or "")


def test_ctrl_c_ends_a_single_question(node: NodeServer) -> None:
    node.engine.script = Script(texts=["part "] * 500, step_s=0.02)
    command, *rest = [*PROGRAM, "chat", "org/tiny", "a question", "--host", node.url]
    child = pexpect.spawn(
        command, rest, env=environment(TERM="dumb", NEURON_NO_HISTORY="1"), encoding="utf-8", timeout=10
    )  # type: ignore[arg-type]
    child.expect_exact("part part")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert "Traceback" not in (child.before or "")
