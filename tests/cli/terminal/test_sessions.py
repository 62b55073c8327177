"""Conversations that are kept: resumed, taken back, asked again, saved, loaded, locked, and damaged files."""

import json
import os
import signal
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from neuron.engine.request import Sampling
from tests.cli.terminal.conftest import Open
from tests.support.cli import neuron
from tests.support.fake_engine import Script, Think
from tests.support.node_server import NodeServer, eventually
from tests.support.terminal import Terminal

Asked = Callable[[], list[object]]


def say(screen: Terminal, text: str, expected: str = "Hello wörld") -> None:
    """Ask, and wait for the answer and the next prompt."""
    before = screen.flat.count(expected)
    screen.ask(text)
    screen.until(lambda: screen.flat.count(expected) > before)
    screen.wait_prompt()


def leave(screen: Terminal) -> None:
    screen.press("ctrl-d")
    assert screen.wait_end() == 0


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_continue_goes_on_with_the_last_session(chat: Open, tmp_path: Path, asked: Asked) -> None:
    with chat("--system", "Be brief", "--temperature", "0.5") as screen:
        screen.wait_prompt()
        say(screen, "one")
        leave(screen)
    (file,) = (tmp_path / "sessions").iterdir()
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    with chat("-c", model="") as screen:
        screen.wait_prompt()
        say(screen, "two")
        assert asked() == ["Be brief", "one", "Hello wörld", "two"]
        leave(screen)
    assert [line["content"] for line in lines(file) if "role" in line] == [
        "one",
        "Hello wörld",
        "two",
        "Hello wörld",
    ]
    done = neuron("chat", "--list", "--json", env={"NEURON_STATE": str(tmp_path)})
    (session,) = json.loads(done.stdout)
    assert (session["name"], session["model"], session["messages"]) == (file.stem, "org/tiny", 4)


def test_every_message_is_in_the_file_before_the_next_thing_happens(
    chat: Open, node: NodeServer, tmp_path: Path, asked: Asked
) -> None:
    with chat("--session", "s") as screen:
        screen.wait_prompt()
        say(screen, "one")
        node.engine.script = Script(texts=["part "] * 500, step_s=0.02)
        screen.ask("two")
        screen.wait_for("part part")
        screen.child.kill(signal.SIGKILL)
    file = tmp_path / "sessions" / "s.jsonl"
    assert [line.get("content") for line in lines(file)][-3:] == ["one", "Hello wörld", "two"]
    with file.open("a") as cut:
        cut.write('{"role":"assistant","cont')
    node.engine.script = Script()
    with chat("--session", "s") as screen:
        screen.wait_for("the last line was cut off")
        screen.wait_for("the last question has no answer; /regen asks it again")
        screen.wait_prompt()
        say(screen, "/regen")
        assert asked() == ["one", "Hello wörld", "two"]
        say(screen, "three")
        assert asked() == ["one", "Hello wörld", "two", "Hello wörld", "three"]
        leave(screen)
    lines(file)


def test_a_stopped_answer_is_marked_in_the_file(chat: Open, node: NodeServer, tmp_path: Path) -> None:
    node.engine.script = Script(texts=[Think("hm"), *["part "] * 500], step_s=0.02)
    with chat("--session", "s") as screen:
        screen.wait_prompt()
        screen.ask("one")
        screen.wait_for("part part")
        screen.press("ctrl-c")
        screen.wait_for("[stopped]")
        screen.wait_prompt()
        leave(screen)
    last = lines(tmp_path / "sessions" / "s.jsonl")[-1]
    assert (last["role"], last["stopped"], last["reasoning"]) == ("assistant", True, "hm")


def test_undo_and_regen(chat: Open, node: NodeServer, asked: Asked) -> None:
    with chat() as screen:
        screen.wait_prompt()
        screen.ask("/undo")
        screen.wait_for("nothing was asked yet")
        screen.wait_prompt()
        say(screen, "one")
        say(screen, "two")
        node.engine.script = Script(texts=["better"])
        say(screen, "/regen", "better")
        assert asked() == ["one", "Hello wörld", "two"]
        say(screen, "three", "better")
        assert asked() == ["one", "Hello wörld", "two", "better", "three"]
        say(screen, "/undo", "taken back: three")
        say(screen, "/undo", "taken back: two")
        say(screen, "four", "better")
        assert asked() == ["one", "Hello wörld", "four"]


def test_save_and_load(chat: Open, tmp_path: Path, asked: Asked) -> None:
    with chat() as screen:
        screen.wait_prompt()
        say(screen, "one")
        say(screen, "/save first", "goes on in the session first")
        say(screen, f"/save {tmp_path}/talk.md", "written:")
        say(screen, f"/save {tmp_path}/talk.md", "File exists")
        say(screen, "/save first", "this is the session first")
        say(screen, "/load frist", "did you mean first?")
        say(screen, "two")
        leave(screen)
    assert (tmp_path / "talk.md").read_text() == "> one\n\nHello wörld\n"
    with chat() as screen:
        screen.wait_prompt()
        say(screen, "other")
        say(screen, "/save first", "there is a session first already")
        say(screen, "/load first", "session first: 4 messages")
        say(screen, "/sessions", "* first")
        say(screen, "three")
        assert asked() == ["one", "Hello wörld", "two", "Hello wörld", "three"]
        assert screen.shown[-1].endswith("first")


def test_edit_asks_a_changed_question_in_its_place(chat: Open, tmp_path: Path, asked: Asked) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i s/one/eleven/ "$1"\n')
    editor.chmod(0o700)
    with chat(EDITOR=str(editor)) as screen:
        screen.wait_prompt()
        say(screen, "one")
        say(screen, "/edit")
        assert asked() == ["eleven"]
        say(screen, "two")
        assert asked() == ["eleven", "Hello wörld", "two"]


def test_model_system_set_and_tokens(chat: Open, node: NodeServer, asked: Asked) -> None:
    node.engine.models["org/other"] = node.engine.loaded("org/other")
    with chat() as screen:
        screen.wait_prompt()
        say(screen, "/model", "org/other  loaded")
        say(screen, "/model org/other", "goes on with org/other")
        say(screen, "/system Be brief", "the system message is set")
        say(screen, "/set temperatur 1", "did you mean temperature?")
        say(screen, "/set temperature 7", "'7' is not a number, 0 to 2")
        say(screen, "/set temperature 0.25", "0.25")
        say(screen, "/undoo", "did you mean /undo?")
        say(screen, "one")
        asked_for = node.engine.streams[-1].generation
        assert (asked_for.model_id, asked_for.sampling.temperature) == ("org/other", 0.25)
        assert asked() == ["Be brief", "one"]
        count = len("<system>Be brief<user>one<assistant>Hello wörld<assistant>".encode())
        say(screen, "/tokens", f"{count} of 2048 tokens, {2048 - count} left")
        say(screen, "/clear", "the conversation is forgotten")
        say(screen, "two")
        assert asked() == ["Be brief", "two"]


def test_two_terminals_do_not_share_a_session(chat: Open, tmp_path: Path) -> None:
    with chat("--session", "s") as screen:
        screen.wait_prompt()
        say(screen, "one")
        with chat("--session", "s") as other:
            assert other.wait_end() == 75
            assert "the session s is open in another terminal" in other.text
        with chat("-c", model="") as other:
            assert other.wait_end() == 75
        say(screen, "two")
        leave(screen)


def test_nothing_said_leaves_no_session(chat: Open, tmp_path: Path) -> None:
    with chat() as screen:
        screen.wait_prompt()
        say(screen, "/set seed 3", "seed")
        leave(screen)
    assert not list((tmp_path / "sessions").iterdir())


def test_a_folder_that_cannot_be_written_is_said_and_the_chat_goes_on(chat: Open, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with chat(state=tmp_path / "file") as screen:
        screen.wait_for("this conversation is not kept")
        screen.wait_prompt()
        say(screen, "one")


def test_what_is_resumed_is_shown_with_its_name_and_its_last_exchange(chat: Open, node: NodeServer) -> None:
    with chat("--session", "s") as screen:
        screen.wait_prompt()
        say(screen, "one")
        node.engine.script = Script(texts=[f"line {n}\n\n" for n in range(20)])
        say(screen, "two", "line 19")
        leave(screen)
    with chat("-c", model="") as screen:
        screen.wait_for("session s: 4 messages")
        screen.wait_prompt()
        assert "> two" in screen.text
        assert "line 3" in screen.text
        assert "more lines" in screen.text
        assert "line 19" not in screen.text
        assert "> one" not in screen.text
        leave(screen)


def test_a_terminal_that_is_closed_keeps_the_part_that_was_shown(
    chat: Open, node: NodeServer, tmp_path: Path
) -> None:
    node.engine.script = Script(texts=["part "] * 500, step_s=0.02)
    with chat("--session", "s") as screen:
        screen.wait_prompt()
        screen.ask("one")
        screen.wait_for("part part")
        screen.child.ptyproc.fileobj.close()
        file = tmp_path / "sessions" / "s.jsonl"
        eventually(lambda: lines(file)[-1].get("role") == "assistant")
    assert lines(file)[-1]["stopped"] is True


def test_set_shows_the_values_that_hold(chat: Open, node: NodeServer) -> None:
    model = replace(node.engine.models["org/tiny"], sampling=Sampling(temperature=0.6, top_k=20))
    node.engine.models["org/other"] = replace(model, id="org/other")
    with chat() as screen:
        screen.wait_prompt()
        say(screen, "/set temperature", "temperature         0.7 default")
        say(screen, "/set top_p 0.5", "top_p               0.5  ")
        say(screen, "/set top_p default", "top_p               0.95 default")
        say(screen, "/model org/other", "goes on with org/other")
        say(screen, "/set temperature", "temperature         0.6 default")
        say(screen, "/set top_k", "top_k               20 default")
        say(screen, "/set top_p", "top_p               default  ")
