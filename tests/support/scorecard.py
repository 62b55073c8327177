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


GROUPS = {
    "official clients": (
        "tests/daemon/test_openai_client.py",
        "tests/daemon/test_messages.py",
        "tests/daemon/test_responses_answers.py",
    ),
    "recorded requests of six clients": ("tests/daemon/test_recorded_bodies.py",),
    "behaviours of four formats": ("tests/e2e/test_conformance.py",),
}
"""Whole files whose tests are the cases of row 40."""
_outcomes: dict[str, list[bool]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count the cases of the groups."""
    for name, files in GROUPS.items():
        if report.nodeid.startswith(files) and (report.when == "call" or report.failed):
            _outcomes.setdefault(name, []).append(report.passed)


def pytest_sessionfinish() -> None:
    """Report the groups, once something of them was run."""
    counts = {name: (sum(passed), len(passed)) for name, passed in _outcomes.items()}
    told = ", ".join(f"{name} {n_passed} of {n}" for name, (n_passed, n) in counts.items())
    if told:
        passed = all(n_passed == n for n_passed, n in counts.values())
        record(40, told, "all templates, all, all", passed and (len(counts) == len(GROUPS) or "not run"))


@pytest.fixture(scope="session")
def scorecard() -> Scorecard:
    """``scorecard(row, figure, target, verdict)``: what was measured for a row of the scorecard.

    A line of JSON goes to the end of the file that ``NEURON_SCORECARD`` names, if it names one. A verdict of True
    or False is ``met`` or ``missed``.
    """

    return record


def record(row: int, figure: str, target: str, verdict: bool | Verdict) -> None:
    """What the fixture does."""
    said = verdict if isinstance(verdict, str) else "met" if verdict else "missed"
    line = {"row": row, "figure": figure, "target": target, "verdict": said}
    if path := os.environ.get(VARIABLE):
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
