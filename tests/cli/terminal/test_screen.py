"""What is shown: everything once, whatever scrolls or changes its size; nothing that a model writes acts on it."""

import re

import pytest

from tests.cli.terminal.conftest import Open
from tests.support.fake_engine import Script, Think
from tests.support.node_server import NodeServer

WORDS = [f"w{n:03d}" for n in range(300)]


def pieces(text: str, size: int = 4) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def test_a_long_answer_that_scrolls_is_there_exactly_once(chat: Open, node: NodeServer) -> None:
    lines = [f"- item **{word}** with `code` and *more*" for word in WORDS]
    node.engine.script = Script(texts=pieces("\n".join(lines), 7))
    with chat(lines=10) as screen:
        screen.wait_prompt()
        screen.ask("list")
        screen.wait_for(WORDS[-1])
        screen.wait_prompt()
        assert re.findall(r"w\d{3}", screen.text) == WORDS
        assert screen.count("• item w000 with code and more") == 1


def test_a_paragraph_is_seen_while_it_is_written(chat: Open, node: NodeServer) -> None:
    node.engine.script = Script(texts=["word ", "**strong** ", "more "] * 200, step_s=0.05)
    with chat() as screen:
        screen.wait_prompt()
        screen.ask("go")
        screen.wait_for("word strong more word")
        assert not node.engine.streams[-1].ended
        assert b"\x1b[1mstrong" in screen.output
        screen.press("ctrl-c")
        screen.wait_for("[stopped]")


@pytest.mark.parametrize("columns", [120, 40])
def test_a_resize_during_an_answer_loses_and_doubles_nothing(
    chat: Open, node: NodeServer, columns: int
) -> None:
    node.engine.script = Script(texts=[f"{word} " for word in WORDS[:120]], step_s=0.01)
    with chat(columns=80) as screen:
        screen.wait_prompt()
        screen.ask("go")
        screen.wait_for("w030")
        screen.resize(columns, 24)
        screen.wait_for("w119")
        screen.wait_prompt()
        shown = re.findall(r"w\d{3}", screen.output.decode().split(">>> go")[-1])
        assert shown == WORDS[:120]
        if columns > 80:  # an emulator that gets narrower drops what does not fit
            assert re.findall(r"w\d{3}", screen.text) == WORDS[:120]


def test_code_tables_and_headings_are_rendered(chat: Open, node: NodeServer) -> None:
    answer = '# Title\n\n```python\nx = "a"  # why\n```\n\n| k | v |\n|---|--:|\n| a | 1 |\n| b | 22 |\n\nend'
    node.engine.script = Script(texts=pieces(answer, 3))
    with chat() as screen:
        screen.wait_prompt()
        screen.ask("go")
        screen.wait_for("end")
        screen.wait_prompt()
        shown = screen.text
        assert "# Title" not in shown
        assert 'x = "a"  # why' in shown
        assert re.search(r"^k +v$", shown, re.MULTILINE)
        assert re.search(r"^b +22$", shown, re.MULTILINE)
        assert "|---" not in shown
        assert screen.count("table, ") == 0
        assert re.search(rb"\x1b\[[\d;]*3[0-7][\d;]*m\"a\"|\x1b\[[\d;]*m\"", screen.output)


@pytest.mark.parametrize(
    ("args", "env"), [(("--no-markdown",), {}), ((), {"NO_COLOR": "1"}), (("--raw",), {})], ids=str
)
def test_markdown_stays_as_written_where_it_is_off(
    chat: Open, node: NodeServer, args: tuple[str, ...], env: dict[str, str]
) -> None:
    node.engine.script = Script(texts=["**bo", "ld** and `code`"])
    with chat(*args, **env) as screen:
        screen.wait_prompt()
        screen.ask("go")
        screen.wait_for("**bold** and `code`")


def test_no_color_means_no_colour_and_no_style(chat: Open, node: NodeServer) -> None:
    node.engine.script = Script(texts=[Think("hm"), "**bold**"])
    with chat(NO_COLOR="1") as screen:
        screen.wait_prompt()
        screen.ask("go")
        screen.wait_for("**bold**")
        screen.wait_prompt()
    assert not re.search(rb"\x1b\[[\d;]*[34][0-8][\d;]*m", screen.output)


HOSTILE = "a\x1b]0;owned\x07\x1b]52;c;QUJD\x07b\x1b[2J\x1b[H\x1b[77Ac\u202ed\rover\x9b31me\x1b[?1049h"


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_a_hostile_answer_leaves_screen_and_title_untouched(chat: Open, node: NodeServer, size: int) -> None:
    table = f"\n| {HOSTILE} | y |\n|---|---|\n| 1 | 2 |\n\n```{HOSTILE}\n{HOSTILE}\n```\nend"
    node.engine.script = Script(texts=[Think(HOSTILE), *pieces(HOSTILE + table, size)])
    with chat() as screen:
        screen.wait_prompt()
        screen.ask("go")
        screen.wait_for("end")
        screen.wait_prompt()
        assert screen.screen.title == ""
        assert screen.text.startswith("org/tiny: /help lists")
        assert screen.count("abcdovere") >= 3
        for sequence in (b"\x1b]", b"\x1b[2J", b"\x1b[77A", b"\x1b[?1049h", "\u202e".encode()):
            assert sequence not in screen.output


def test_reasoning_is_dim_and_folds(chat: Open, node: NodeServer) -> None:
    node.engine.script = Script(texts=[Think("deep "), Think("thought"), "\n\nanswer"])
    with chat() as screen:
        screen.wait_prompt()
        screen.ask("one")
        screen.wait_for("answer")
        assert b"\x1b[2mdeep " in screen.output
        screen.wait_prompt()
        screen.ask("/set reasoning fold")
        screen.wait_prompt()
        screen.ask("two")
        screen.wait_for("about 2 tokens")
        screen.wait_prompt()
        assert screen.count("deep thought") == 1
        assert screen.count(r"thought for \d\.\d s, about 2 tokens") == 1
        screen.ask("/reasoning")
        screen.until(lambda: screen.count("deep thought") == 2)
        screen.wait_prompt()
        screen.ask("/set reasoning hide")
        screen.wait_prompt()
        screen.ask("three")
        screen.until(lambda: screen.count("answer") == 3)
        screen.wait_prompt()
        assert screen.count("deep thought") == 2


def test_the_status_line_has_model_context_speed_and_session(chat: Open) -> None:
    with chat("--session", "work") as screen:
        screen.wait_prompt()
        assert screen.shown[-1].startswith("org/tiny  ·  context 0 / 2,048")
        screen.ask("go")
        screen.wait_for("Hello wörld")
        screen.wait_prompt()
        assert re.fullmatch(
            r"org/tiny  ·  context 10 / 2,048  ·  [\d,.]+ tok/s  ·  work", screen.shown[-1].strip()
        )
