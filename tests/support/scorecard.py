"""What a test says for the scorecard (`tests.reliability.scorecard`)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Literal

import pytest

Verdict = Literal["met", "missed", "not run"]
VARIABLE = "NEURON_SCORECARD"
Scorecard = Callable[[int, str, str, bool | Verdict], None]


@pytest.fixture
def scorecard() -> Scorecard:
    """``scorecard(row, figure, target, verdict)``: what was measured for a row of the scorecard.

    A line of JSON goes to the end of the file that ``NEURON_SCORECARD`` names, if it names one. A verdict of True
    or False is ``met`` or ``missed``.
    """

    def record(row: int, figure: str, target: str, verdict: bool | Verdict) -> None:
        said = verdict if isinstance(verdict, str) else "met" if verdict else "missed"
        line = {"row": row, "figure": figure, "target": target, "verdict": said}
        if path := os.environ.get(VARIABLE):
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    return record
