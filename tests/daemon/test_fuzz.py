"""A short run of ``schemathesis`` over the node's document, or a longer one for the scorecard.

`make schemathesis` is the same by hand.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.fuzz import fuzz
from tests.support.scorecard import VARIABLE, Scorecard

EXAMPLES = 90 if VARIABLE in os.environ else 3
"""Of each operation and phase."""
TARGET = 5000


@pytest.mark.timeout(900)
def test_generated_requests_get_no_5xx_and_nothing_undeclared(tmp_path: Path, scorecard: Scorecard) -> None:
    outcome = fuzz(tmp_path, ["--max-examples", str(EXAMPLES), "--seed", "1"])
    figure = f"{outcome.n_cases} cases, {outcome.n_passed} passed"
    enough = outcome.n_cases >= TARGET or "not run"
    scorecard(34, figure, f">= {TARGET} cases, 0 5xx, 0 undeclared", not outcome.exit_code and enough)
    assert outcome.exit_code == 0, outcome.text
    assert outcome.n_cases > 300
