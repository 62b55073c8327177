"""The screens in `docs/screens` are what the program shows."""

import pytest

from tests.support.screens import FOLDER, SCREENS


def test_every_screen_is_made() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(SCREENS)


@pytest.mark.parametrize("name", SCREENS)
def test_a_screen_is_current(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == SCREENS[name](), (
        "run: python -m tests.support.screens"
    )
