"""No key and no token is in what all nodes of this session wrote to their logs or answered as an error.

It runs after every other test; `tests/support/kept_output.py` keeps what it looks through.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import kept_output
from tests.support.node_process import node
from tests.support.node_server import eventually
from tests.support.scorecard import Scorecard

PLANTED = "nk_" + "P" * 43


@pytest.fixture
def forgotten() -> Iterator[None]:
    """What the test below makes a node say is not looked for afterwards."""
    n_lines, n_errors = len(kept_output.lines), len(kept_output.errors)
    yield
    del kept_output.lines[n_lines:], kept_output.errors[n_errors:]


@pytest.mark.usefixtures("forgotten")
def test_one_that_a_node_tells_is_found() -> None:
    with node("--threads", "1") as running:
        n_lines, n_errors = len(kept_output.lines), len(kept_output.errors)
        assert running.post("/models/load", {"model_id": f"./{PLANTED}"}).status_code >= 400
        running.stop()
        eventually(lambda: any("stopped" in line for line in kept_output.lines[n_lines:]), 30)
    assert kept_output.leaks(kept_output.lines[n_lines:])
    assert kept_output.leaks(kept_output.errors[n_errors:])


@pytest.mark.parametrize("text", ["x nk_" + "a" * 43, "cut nk_" + "b" * 21, "token=hf_told_to_a_node"])
def test_every_kind_of_secret_is_known(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_output, "tokens", {"hf_told_to_a_node"})
    assert kept_output.leaks(["nothing", text]) == [text]


def test_no_secret_is_in_any_log_or_error_of_the_session(scorecard: Scorecard) -> None:
    lines, errors = kept_output.lines, kept_output.errors
    told = kept_output.leaks([*lines, *errors])
    n_keyed, n_tokens = len(kept_output.keyed), len(kept_output.tokens)
    figure = (
        f"{len(told)} in {len(lines)} lines of logs and {len(errors)} errors; {n_keyed} nodes with keys, "
    )
    figure += f"{n_tokens} tokens of the hub"
    scorecard(38, figure, "0", False if told else bool(n_keyed and n_tokens) or "not run")
    assert told == []
