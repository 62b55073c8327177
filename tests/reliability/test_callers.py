"""Callers that compete for one node: a light one does not wait for a heavy one, and who is told to wait gets in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai

from neuron import keys
from neuron.keys import Keyring, Scope
from tests.reliability.faulty import CHAT, asked, faulty
from tests.support.callers import bearer
from tests.support.node_process import NodeProcess
from tests.support.scorecard import Scorecard

N_STREAMS, N_LIGHT, TAKES_S = 8, 6, 0.1
HEAVY, LIGHT, OPERATOR = (
    keys.make(name, scope)
    for name, scope in (("heavy", Scope.INFER), ("light", Scope.INFER), ("operator", Scope.MANAGE))
)
SLOW = ",".join(f"prefill:hang={TAKES_S}@{nth}" for nth in range(1, 400))
PLACES, QUEUE, N_EACH = 4, 4, 4
FEW = 2
"""Requests that may fail on a machine that does other things before a test does."""
Info = dict[str, Any]


@contextmanager
def served(root: Path, folder: Path) -> Iterator[NodeProcess]:
    """A node with keys that computes one request at a time, and is slow at that."""
    file = folder / "keys.toml"
    file.touch(mode=0o600)
    file.write_text(keys.text_of(Keyring((HEAVY[0], LIGHT[0], OPERATOR[0]))))
    with faulty(root, SLOW, "--max-in-flight", "1", "--keys-file", str(file), loads=False) as running:
        with caller(running, OPERATOR) as http:
            http.post("/models/load", json={"model_id": str(root / "tiny")}).raise_for_status()
        yield running


def caller(running: NodeProcess, key: tuple[keys.Key, str]) -> httpx.Client:
    """A client that shows a key."""
    return httpx.Client(base_url=running.url, headers=bearer(key[1]), timeout=120, trust_env=False)


def keeps_asking(http: httpx.Client, over: threading.Event) -> None:
    """One stream after the other."""
    while not over.is_set():
        with http.stream("POST", CHAT, json=asked(4, stream=True)) as answer:
            answer.raise_for_status()
            answer.read()


def waited_from(info: Info) -> float:
    """When a request stood in the queue."""
    return float(info["arrived"]) + sum(info[f"{name}_ms"] for name in ("read", "load", "prepare")) / 1e3


def began(info: Info) -> float:
    """When the device took it up."""
    return waited_from(info) + float(info["queue_ms"]) / 1e3


def test_a_light_key_waits_for_one_request_of_a_key_with_eight_streams(
    tiny_root: Path, tmp_path: Path, scorecard: Scorecard
) -> None:
    over = threading.Event()
    with (
        served(tiny_root, tmp_path) as running,
        caller(running, HEAVY) as heavy,
        caller(running, LIGHT) as light,
        caller(running, OPERATOR) as operator,
        ThreadPoolExecutor(N_STREAMS) as pool,
    ):
        streams = [pool.submit(keeps_asking, heavy, over) for _ in range(N_STREAMS)]
        while operator.get("/models/tiny").json()["queue_depth"] < N_STREAMS - 1:
            pass
        for _ in range(N_LIGHT):
            light.post(CHAT, json=asked(4)).raise_for_status()
        infos = operator.get("/requests?limit=1000").json()
        over.set()
        for stream in streams:
            stream.result()
    mine = [info for info in infos if info["principal"] == "light"]
    others = [began(info) for info in infos if info["principal"] == "heavy" and info["state"] == "finished"]
    between = [sum(waited_from(one) < at < began(one) for at in others) for one in mine]
    wait_s = max(one["queue_ms"] for one in mine) / 1e3
    figure = (
        f"{max(between)} of the other's requests begun before it, in each of {len(mine)} tries; longest wait "
    )
    figure += f"{wait_s:.2f} s beside {N_STREAMS} streams of {TAKES_S} s each"
    scorecard(9, figure, "<= 1 request", max(between) <= 1)
    assert len(mine) == N_LIGHT
    assert max(between) <= 1


def asks_as_the_official_client(url: str) -> list[int | None]:
    """How often each of some requests was sent again until it was answered; None: it failed."""
    retries: list[int | None] = []
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=5, timeout=300) as client:
        for _ in range(N_EACH):
            try:
                answer = client.chat.completions.with_raw_response.create(
                    model="tiny", messages=[{"role": "user", "content": "Hi"}], max_tokens=4
                )
                retries.append(answer.retries_taken)
            except openai.APIStatusError:
                retries.append(None)
    return retries


def test_twice_as_many_official_clients_as_there_is_room_for_are_all_answered(
    tiny_root: Path, scorecard: Scorecard
) -> None:
    n_clients = 2 * (PLACES + QUEUE)
    limits = ("--max-in-flight", str(PLACES), "--max-queue-depth", str(QUEUE))
    with faulty(tiny_root, SLOW, *limits) as running, ThreadPoolExecutor(n_clients) as pool:
        asked_again = [
            n for found in pool.map(asks_as_the_official_client, [running.url] * n_clients) for n in found
        ]
    answered = [n for n in asked_again if n is not None]
    figure = (
        f"{len(answered)} of {len(asked_again)} requests of {n_clients} clients without pauses, with room "
        f"for {PLACES + QUEUE}; {sum(n > 0 for n in answered)} were refused before, at most {max(answered)} times"
    )
    scorecard(5, figure, "100 %", len(answered) == len(asked_again))
    assert len(asked_again) - len(answered) <= FEW
    assert any(answered), "nobody was refused"
