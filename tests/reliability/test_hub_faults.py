"""A hub that is down, slow, refuses or lies: a load says so by its code and in words; no token goes elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support import fake_hub
from tests.support.fake_hub import FakeHub
from tests.support.node_process import NodeProcess, node
from tests.support.scorecard import Scorecard
from tests.support.tiny_chat import save_tiny_chat

TOKEN = "hf_of_the_operator"
WAITS = {"HF_HUB_DOWNLOAD_TIMEOUT": "1", "HF_HUB_ETAG_TIMEOUT": "1"}
"""Seconds of silence after which the hub's client tries again."""


class Fault(NamedTuple):
    """What is wrong with the hub, and words of the answer; None: the load goes through all the same."""

    name: str
    arrange: Callable[[FakeHub, FakeHub], object]
    words: str | None


def fails(status: int, **headers: str) -> Callable[[FakeHub, FakeHub], object]:
    said = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda hub, other: setattr(hub, "fail", (status, said))


def refuses(answer: tuple[int, dict[str, str]]) -> Callable[[FakeHub, FakeHub], object]:
    return lambda hub, other: setattr(hub, "fail", answer)


def flag(name: str, value: object = True) -> Callable[[FakeHub, FakeHub], object]:
    return lambda hub, other: setattr(hub, name, value)


def everything_elsewhere(hub: FakeHub, other: FakeHub) -> None:
    hub.fail = (302, {"Location": f"{other.endpoint}/api/models/org/m0"})


FAULTS = [
    Fault("500", fails(500), "HTTP 500"),
    Fault("429 and Retry-After", fails(429, Retry_After="1"), "limits the rate"),
    Fault("401", refuses(fake_hub.BAD_TOKEN), "wants a token"),
    Fault("403", refuses(fake_hub.GATED), "gated"),
    Fault("404", refuses(fake_hub.NOT_FOUND), "no such repository"),
    Fault("no such revision", refuses(fake_hub.NO_REVISION), "no such revision"),
    Fault("redirects without end", fails(302, Location="/api/models/org/m"), "redirects without end"),
    Fault("no answer", flag("sleep_s", 5), "in time"),
    Fault("a download that stalls", flag("stall_after_bytes", 0), "in time"),
    Fault("wrong bytes", flag("wrong_bytes"), "another hash"),
    Fault("wrong length", flag("wrong_length"), "another hash"),
    Fault("a connection that is cut", flag("cut_after_bytes", 100_000), None),
    Fault(
        "weights on another host", lambda hub, other: setattr(hub, "files_elsewhere", other.endpoint), None
    ),
    Fault("all on another host", everything_elsewhere, "does not answer as a hub"),
]


@pytest.fixture(scope="module")
def hubs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FakeHub, FakeHub]]:
    """The hub that the node is configured for, and one on another host."""
    folder = tmp_path_factory.mktemp("model")
    save_tiny_chat(folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    with fake_hub.running() as hub, fake_hub.running("127.0.0.2") as other:
        for one in (hub, other):
            for number in range(len(FAULTS)):
                one.repo(f"org/m{number}", files)
        yield hub, other


def restore(hub: FakeHub) -> None:
    """Nothing is wrong with it."""
    hub.fail, hub.sleep_s, hub.files_elsewhere = None, 0, ""
    hub.wrong_bytes = hub.wrong_length = False
    hub.cut_after_bytes = hub.stall_after_bytes = None


def said_by(node: NodeProcess, fault: Fault, model: str) -> str | None:
    """What is wrong with the answer to a load; None: nothing."""
    answer = node.post("/models/load", {"model_id": f"hf:{model}"})
    if fault.words is None:
        return None if answer.status_code == 200 else answer.text
    error = answer.json()["error"]
    right = (answer.status_code, error["kind"]) == (422, "repo_fetch_failed") and fault.words in error[
        "message"
    ]
    gone = node.get(f"/models/{model}").json().get("status") != "loaded"
    return None if right and gone else answer.text


def test_each_fault_of_the_hub_is_told_and_the_token_stays_with_it(
    hubs: tuple[FakeHub, FakeHub], tmp_path: Path, scorecard: Scorecard
) -> None:
    hub, other = hubs
    env = {**hub.env(tmp_path / "hf"), **WAITS, "HF_TOKEN": TOKEN, "NEURON_CACHE": str(tmp_path / "neuron")}
    wrong = {}
    with node("--threads", "1", env=env) as running:
        for number, fault in enumerate(FAULTS):
            fault.arrange(hub, other)
            wrong[fault.name] = said_by(running, fault, f"org/m{number}")
            restore(hub)
        log = "".join(running.log)
    wrong = {name: said for name, said in wrong.items() if said}
    n_elsewhere = sum(token is not None for token in other.tokens)
    n_right = len(FAULTS) - len(wrong)
    elsewhere = f"{len(other.tokens)} requests to another host, {n_elsewhere} with the token"
    figure = f"{n_right} of {len(FAULTS)} faults; {elsewhere}"
    scorecard(24, figure, "correct code each, no token to other host", not (wrong or n_elsewhere))
    assert wrong == {}
    assert TOKEN in hub.tokens, "the hub itself never got it"
    assert other.tokens, "nothing went to the other host"
    assert not n_elsewhere
    assert TOKEN not in log
