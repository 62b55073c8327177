"""What the documents say of the chat is so: the tables are the program's, the screen is one it makes."""

import re
from pathlib import Path

from neuron.cli.chat_commands import KEYS, help_lines
from neuron.cli.chat_settings import SETTINGS

PAGE = (Path(__file__).parents[3] / "docs" / "chat.md").read_text(encoding="utf-8")


def rows(header: str) -> list[tuple[str, str]]:
    """The cells of the table with that header."""
    body = PAGE[PAGE.index(header) :].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))] for line in body]
    return [(first.replace("`", "").replace("\\|", "|"), second) for first, second in cells]


def test_the_tables_are_those_of_the_program() -> None:
    assert rows("| key | what it does |") == list(KEYS.items())
    assert rows("| command | what it does |") == list(help_lines())
    assert rows("| key | takes |") == [(key, setting.takes) for key, setting in SETTINGS.items()]
