"""Progress of long work, as one value that sources, loaders, the wire and the terminal share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage is. ``total_bytes`` is None while it is not known."""

    stage: str
    """``resolve``, ``fetch``, ``verify``, ``read``, ``ready``: a word for people."""
    done_bytes: int = 0
    total_bytes: int | None = None
    note: str | None = None
    """What a person should know: a fallback taken and why, a wait."""


Report = Callable[[Progress], None]
"""Called from any thread, often; must return at once. It raises where the work is to end."""


def ignore(progress: Progress) -> None:
    """A `Report` that drops everything."""
