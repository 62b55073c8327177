"""The screens in `docs/screens`, made by the program itself: ``python -m tests.support.screens`` writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tests.support.bench_screens import bench_screen, load_screen
from tests.support.chat_screen import chat_screen
from tests.support.watch_screen import watch_screen

FOLDER = Path(__file__).parents[2] / "docs" / "screens"
SCREENS: Mapping[str, Callable[[], str]] = {
    "bench.txt": bench_screen,
    "chat.txt": chat_screen,
    "health-watch.txt": watch_screen,
    "load.txt": load_screen,
}


def main() -> None:
    """Write them."""
    for name, made in SCREENS.items():
        (FOLDER / name).write_text(made(), encoding="utf-8")


if __name__ == "__main__":
    main()
