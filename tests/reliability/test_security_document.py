"""SECURITY.md names tests that are there, and the README leads to it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def rows() -> list[str]:
    """The lines of its tables that make a promise."""
    return [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith("| promise")]


def test_every_promise_names_a_test_that_is_there() -> None:
    assert len(rows()) > 15
    for row in rows():
        said = row.rsplit("|", 2)[1]
        assert "`tests/" in said or "the two above" in said, row


def test_every_file_that_it_names_is_there() -> None:
    named = re.findall(r"`((?:tests|docs|packaging)/[\w/.-]+)`", TEXT)
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_target_that_it_names_is_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {m for m in re.findall(r"`make (\w+)`", TEXT) if f"\n{m}:" not in makefile} == set()


def test_the_readme_leads_to_it() -> None:
    assert "](SECURITY.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
