"""What is typed: several lines, paste, history, completion, an editor, Ctrl-C and Ctrl-D."""

import os
import re
import shlex
import signal
import stat
import termios
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from neuron.cli.chat_completion import KnownModels
from tests.cli.terminal.conftest import Open
from tests.support.cli import PROGRAM
from tests.support.fake_engine import Script
from tests.support.node_server import NodeServer, eventually
from tests.support.terminal import terminal

Asked = Callable[[], list[object]]


def test_a_paste_of_many_lines_is_one_message(chat: Open, node: NodeServer, asked: Asked) -> None:
    pasted = "\n".join(f"line {n}" for n in range(40))
    with chat() as screen:
        screen.wait_prompt()
        screen.paste(pasted.replace("\n", "\r"))
        screen.wait_for("line 39")
        assert not node.engine.streams
        screen.press("enter")
        screen.wait_for("Hello wörld")
        screen.wait_prompt()
        assert asked() == [pasted]
        screen.press("ctrl-d")
        assert screen.wait_end() == 0


def test_a_new_line_is_typed_in_three_ways(chat: Open, asked: Asked) -> None:
    with chat() as screen:
        screen.wait_prompt()
        screen.press("one", "alt-enter", "two", "ctrl-j", "three\\", "enter", "four", "enter")
        screen.wait_for("Hello wörld")
        assert asked() == ["one\ntwo\nthree\nfour"]
        screen.wait_for("... four")


def test_ctrl_c_stops_the_answer_keeps_its_part_and_one_goes_on(
    chat: Open, node: NodeServer, asked: Asked
) -> None:
    node.engine.script = Script(texts=["part "] * 500, step_s=0.02)
    with chat() as screen:
        screen.wait_prompt()
        screen.ask("tell me")
        screen.wait_for("part part")
        screen.press("ctrl-c", "ctrl-c")
        screen.wait_for("[stopped]")
        screen.wait_prompt()
        assert re.search(r"context \d+ / 2,048", screen.shown[-1])
        eventually(node.engine.streams[-1].left.is_set, within_s=2)
        node.engine.script = Script()
        screen.ask("go on")
        screen.wait_for("Hello wörld")
        question, part, more = asked()
        assert (question, more) == ("tell me", "go on")
        assert str(part).startswith("part part")


def test_keys_pressed_during_an_answer_wait_for_the_prompt(
    chat: Open, node: NodeServer, asked: Asked
) -> None:
    node.engine.script = Script(texts=["word "] * 30, step_s=0.02)
    with chat() as screen:
        screen.wait_prompt()
        screen.ask("first")
        screen.wait_for("word word")
        screen.press("second", "enter")
        screen.until(lambda: len(node.engine.streams) == 2)
        assert asked()[-1] == "second"
        assert screen.count("second") == 1
        screen.wait_for(">>> second")


def test_ctrl_c_at_the_prompt_gives_up_the_line_and_says_how_to_leave(chat: Open, node: NodeServer) -> None:
    with chat() as screen:
        screen.wait_prompt()
        screen.press("half a line", "ctrl-c")
        screen.wait_for("Ctrl-D or /exit leaves")
        screen.wait_prompt()
        screen.press("ctrl-d")
        assert screen.wait_end() == 0
    assert not node.engine.streams


def test_what_was_typed_is_found_again_in_another_process(chat: Open, tmp_path: Path, asked: Asked) -> None:
    with chat() as screen:
        screen.wait_prompt()
        screen.press("the needle", "alt-enter", "in two lines", "enter")
        screen.wait_for("Hello wörld")
        screen.wait_prompt()
        screen.ask("something else")
        screen.until(lambda: screen.count("Hello wörld") == 2)
        screen.wait_prompt()
        screen.press("ctrl-d")
        assert screen.wait_end() == 0
    assert stat.S_IMODE(os.stat(tmp_path / "chat_history").st_mode) == 0o600
    with chat() as screen:
        screen.wait_prompt()
        screen.press("up")
        screen.wait_for(">>> something else")
        screen.press("ctrl-c")
        screen.wait_prompt()
        screen.press("ctrl-r", "need")
        screen.wait_for("the needle")
        screen.press("enter", "enter")
        screen.wait_for("Hello wörld")
        assert asked() == ["the needle\nin two lines"]


def test_history_and_sessions_have_an_off_switch(chat: Open, tmp_path: Path) -> None:
    with chat(NEURON_NO_HISTORY="1") as screen:
        screen.wait_prompt()
        screen.ask("secret")
        screen.wait_for("Hello wörld")
        screen.wait_for("not kept")
        screen.press("ctrl-d")
        screen.wait_end()
    assert not list(tmp_path.rglob("*"))


def test_tab_completes_commands_models_settings_sessions_and_paths(
    chat: Open, node: NodeServer, tmp_path: Path
) -> None:
    node.engine.models["org/another"] = node.engine.loaded("org/another")
    (tmp_path / "sessions").mkdir()
    (tmp_path / "sessions" / "holiday.jsonl").write_text('{"neuron_chat":1}\n{"role":"user","content":"x"}\n')
    (tmp_path / "notes.md").write_text("")
    with chat(columns=200) as screen:
        screen.wait_prompt()
        for begun, expected in (
            ("/rege", "/regen"),
            ("/model org/an", "/model org/another"),
            ("/set temp", "/set temperature"),
            ("/set reasoning fo", "/set reasoning fold"),
            ("/load hol", "/load holiday"),
            (f"/save {tmp_path}/no", f"/save {tmp_path}/notes.md"),
        ):
            screen.press(begun)
            screen.wait_for(
                expected.replace("/", " ").split()[-1]
            )  # in the menu; until then Tab has no effect
            screen.press("tab")
            screen.until(lambda text=expected: text in screen.text)  # type: ignore[misc]
            screen.press("ctrl-c")
            screen.wait_prompt()


def test_a_node_that_hangs_does_not_hold_completion_up() -> None:
    released, answered = threading.Event(), threading.Event()

    def hang() -> list[str]:
        released.wait()
        answered.set()
        return ["late"]

    assert "smollm2" in KnownModels(hang)()  # comes back although the node has said nothing
    assert not answered.is_set()
    released.set()


def test_ctrl_g_opens_the_editor_with_what_is_typed(chat: Open, tmp_path: Path, asked: Asked) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nprintf "%s\\nand more" "$(cat "$1")" > "$1"\n')
    editor.chmod(0o700)
    with chat(VISUAL=str(editor)) as screen:
        screen.wait_prompt()
        screen.press("begun", "ctrl-g")
        screen.wait_for("and more")
        screen.press("enter")
        screen.wait_for("Hello wörld")
        assert asked() == ["begun\nand more"]


def test_an_editor_that_fails_is_told_and_the_text_stays(chat: Open, asked: Asked) -> None:
    with chat(VISUAL="false") as screen:
        screen.wait_prompt()
        screen.press("begun", "ctrl-g")
        screen.wait_for("false ended with code 1")
        screen.wait_for(">>> begun")
        screen.press("enter")
        screen.wait_for("Hello wörld")
        assert asked() == ["begun"]


@pytest.mark.parametrize("stop", [signal.SIGSTOP, signal.SIGTSTP, "ctrl-z"])
def test_a_shell_stops_the_program_at_its_prompt_and_brings_it_back(
    node: NodeServer, tmp_path: Path, asked: Asked, stop: signal.Signals | str
) -> None:
    shell = ("bash", "--norc", "--noprofile", "-i")
    with terminal(program=shell, state=tmp_path, PS1="shell$ ") as screen:
        screen.wait_for("shell$")
        screen.ask(shlex.join([*PROGRAM, "chat", "org/tiny", "--host", node.url]))
        screen.wait_prompt()
        screen.press("be")
        screen.wait_for(">>> be")
        if isinstance(stop, str):
            screen.press(stop)
        else:
            os.kill(screen.job, stop)
        screen.until(lambda: screen.line.strip() == "shell$")
        screen.ask("fg")
        screen.until(lambda: screen.line == ">>> be" and "context" in screen.shown[-1])
        screen.ask("gun")
        screen.wait_for("Hello wörld")
        screen.wait_prompt()
        assert asked() == ["begun"]
        assert "^[[" not in screen.text
        screen.press("ctrl-d")
        screen.until(lambda: screen.line.strip() == "shell$")
        screen.ask("echo the shell has its ter''minal")
        screen.wait_for("the shell has its terminal")


def test_keys_go_on_waiting_after_a_shell_stopped_the_program_and_changed_its_terminal(
    chat: Open, node: NodeServer
) -> None:
    node.engine.script = Script(texts=["part "] * 500, step_s=0.02)
    with chat() as screen:
        screen.wait_prompt()
        screen.ask("one")
        screen.wait_for("part part")
        modes = termios.tcgetattr(screen.child.fileno())
        modes[3] |= termios.ECHO | termios.ICANON
        termios.tcsetattr(screen.child.fileno(), termios.TCSANOW, modes)
        screen.child.kill(signal.SIGCONT)
        screen.until(lambda: not termios.tcgetattr(screen.child.fileno())[3] & termios.ECHO)
