"""Markdown as it arrives: the same screen however it is cut, nothing lost, and the cursor never goes up."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from neuron.cli.inline_markdown import InlineStream, Run
from neuron.cli.markdown_stream import MarkdownStream


def rendered(pieces: list[str], width: int = 60) -> str:
    shown: list[str] = []
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system="standard")
    stream = MarkdownStream(shown.append, console)
    for piece in pieces:
        stream.feed(piece)
    stream.close()
    return "".join(shown)


def seen(output: str) -> str:
    """What a terminal shows of it: no styles, and only what is written last in a line that was begun again."""
    lines = re.sub(r"\x1b\[[\d;]*m", "", output).split("\n")
    return "\n".join(line.rpartition("\r")[2].replace("\x1b[K", "").rstrip() for line in lines)


def inline(text: str) -> list[Run]:
    return list(InlineStream().feed_all(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a **b** c", [("a ", ""), ("b", "bold"), (" c", "")]),
        ("*a* _b_", [("a", "italic"), (" ", ""), ("b", "italic")]),
        ("***a***", [("a", "bold italic")]),
        ("`a*b*`", [("a*b*", "cyan")]),
        ("``a`b``", [("a`b", "cyan")]),
        ("snake_case_name", [("snake", ""), ("_", ""), ("case", ""), ("_", ""), ("name", "")]),
        ("2 * 3 * 4", [("2 ", ""), ("*", ""), (" 3 ", ""), ("*", ""), (" 4", "")]),
        ("**open", [("**", ""), ("open", "")]),
        (r"\*a\*", [("*", ""), ("a", ""), ("*", "")]),
        ("[t](http://u)", [("t", "underline"), (" (http://u)", "dim")]),
        ("[1] x", [("[", ""), ("1] x", "")]),
        ("~~a~~", [("a", "strike")]),
    ],
)
def test_markup_within_a_line(text: str, expected: list[tuple[str, str]]) -> None:
    assert inline(text) == [Run(*run) for run in expected]


def test_what_never_closes_is_held_back_only_so_long() -> None:
    stream = InlineStream()
    shown = [run for _ in range(100) for run in stream.feed("*word ")]
    assert "".join(run.text for run in shown).startswith("*word *word")


MARKDOWN = st.lists(
    st.sampled_from(
        [
            "a ",
            "word ",
            "**",
            "*",
            "`",
            "```",
            "```py\n",
            "\n",
            "\n\n",
            "# ",
            "- ",
            "1. ",
            "> ",
            "_",
            "[x](y)",
            "[",
            "\\",
            "---",
            "   ",
            "中文",
            "~~",
            "é",
            "| a | b |\n",
            "|---|---|\n",
        ]
    ),
    max_size=25,
)


@given(MARKDOWN, st.integers(1, 9))
def test_the_screen_is_the_same_however_the_text_is_cut(parts: list[str], size: int) -> None:
    text = "".join(parts)
    whole = seen(rendered([text]))
    assert seen(rendered([text[at : at + size] for at in range(0, len(text), size)])) == whole


@given(MARKDOWN)
def test_no_word_is_lost_and_the_cursor_never_goes_up(parts: list[str]) -> None:
    text = "".join(part for part in parts if "|" not in part)
    output = rendered([text])
    assert seen(output).count("word") == text.count("word")
    assert set(re.findall(r"\x1b\[[\d;?]*([A-Za-z])", output)) <= {"m", "K"}


def test_lines_are_broken_between_words() -> None:
    lines = seen(rendered(["- " + "word " * 30], width=40)).splitlines()
    assert lines[0].startswith("• word")
    assert all(line.startswith("  word") for line in lines[1:])
    assert max(map(len, lines)) < 40


def test_a_row_that_begins_no_table_is_shown_as_it_is() -> None:
    assert "| just | this |" in seen(rendered(["| just | this |\n\nend"]))
    table = seen(rendered(["| a | b |\n|---|---|\n| 1 | 2 | 3 |\n| 4 |\n"]))
    assert re.findall(r"\w", table) == ["a", "b", "1", "2", "3", "4"]
