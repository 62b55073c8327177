"""Mutated files of every kind: refused by one of neuron's own errors or loaded, whatever was changed.

``NEURON_MUTATED_FILES=10000`` tries so many; ``python -m tests.reliability.mutate 10000`` is the same by hand.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.reliability.loader import Loader
from tests.reliability.mutate import KINDS, LIMIT_S, run
from tests.support.scorecard import Scorecard

N_FILES = int(os.environ.get("NEURON_MUTATED_FILES", "1000"))


@pytest.mark.timeout(300 + N_FILES)
def test_no_mutated_file_crashes_hangs_or_gets_an_error_of_others(
    tmp_path: Path, scorecard: Scorecard
) -> None:
    tally = run(N_FILES, tmp_path, list(KINDS))
    share = tally.n_past_first / tally.n_files
    met = not tally.faults and share >= 0.3
    target = (
        "0 crashes, 0 errors of others, memory < 2 x file, >= 30 % past the first check; long form 10,000"
    )
    scorecard(31, tally.summary(), target, met)
    assert tally.faults == []
    assert share >= 0.3
    assert tally.refused.total() > N_FILES / 3
    assert set(tally.loaded) == set(KINDS) or N_FILES < 1000  # each kind's good file is one that loads


def test_a_number_makes_the_same_file_again_and_another_number_another() -> None:
    mutate = KINDS["config"].mutate
    good = b'{"a": {"b": [1, 2, {"c": "d"}]}}'
    made = [mutate(random.Random(f"config {n}"), good) for n in range(500)]
    assert [mutate(random.Random(f"config {n}"), good) for n in range(500)] == made
    assert len(set(made)) > 250
    assert max(map(len, made)) < 20_000


def test_a_process_that_dies_or_hangs_is_noticed_and_replaced(tmp_path: Path) -> None:
    with Loader(tmp_path, LIMIT_S) as loader:
        assert loader.load("die", tmp_path) == "the process died with -6"
        outcome = loader.load("manifest", tmp_path)
        assert not isinstance(outcome, str)
        assert outcome.error is None
        loader.limit_s = 0.3
        assert loader.load("hang", tmp_path) == "took longer than 0.3 s"


def test_memory_and_errors_of_others_are_noticed(tmp_path: Path) -> None:
    with Loader(tmp_path, LIMIT_S) as loader:
        outcome = loader.load("waste", tmp_path)
        assert not isinstance(outcome, str)
        assert (outcome.error, outcome.ours, outcome.peak_mb > 250) == ("KeyError", False, True)
