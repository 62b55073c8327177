"""What a real node tells of itself is what its clients saw: counters, times, events, a drain that loses nothing."""

from __future__ import annotations

import contextlib
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.node_process import NodeProcess, cli, node
from tests.support.node_server import eventually
from tests.support.scrape import Scrape

CHAT = "/v1/chat/completions"
ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "the secret word"}]}
PHASES = ("read_ms", "load_ms", "prepare_ms", "queue_ms", "prefill_ms", "decode_ms", "deliver_ms")
NARROW = {"NEURON_MAX_IN_FLIGHT": "2", "NEURON_MAX_QUEUE_DEPTH": "64"}


SLOW = {"NEURON_TORCH_ONLY": "1"}
"""The kernels end an answer of a tiny model before its client can leave."""


@pytest.fixture
def narrow(tiny_root: Path) -> Iterator[NodeProcess]:
    """A node with a tiny model and room for two."""
    with node("--threads", "1", tiny_root / "tiny", env={**NARROW, **SLOW}) as running:
        running.wait_loaded("tiny")
        yield running


def scrape(running: NodeProcess) -> Scrape:
    return Scrape(running.get("/metrics").text)


class Clients:
    """Requests of every kind against a node, and what became of each as its client saw it."""

    def __init__(self, running: NodeProcess) -> None:
        self.url = running.url
        self.http = httpx.Client(base_url=running.url, timeout=120, trust_env=False)
        self.seen: list[tuple[str, str, int, int]] = []
        """Outcome, reason or code, tokens of prompt and answer."""

    def whole(self) -> None:
        body = self.http.post(CHAT, json=self.asked(max_tokens=12, n=2)).json()
        reasons = {choice["finish_reason"] for choice in body["choices"]}
        self._see("finished", reasons.pop(), body["usage"])

    def streamed(self) -> None:
        *_, last, done = self._stream(self.asked(stream_options={"include_usage": True}))
        assert done == "[DONE]"
        self._see("finished", "length", json.loads(last)["usage"])

    def embedding(self) -> None:
        body = self.http.post("/v1/embeddings", json={"model": "tiny", "input": ["a few", "words"]}).json()
        self._see("finished", "done", body["usage"])

    def cut(self) -> None:
        with contextlib.closing(self._stream(self.asked(max_tokens=200))) as lines:
            for _ in range(3):
                next(lines)
        self.seen.append(("cut", "client_gone", 0, 0))

    def refused(self) -> None:
        body = self.http.post(CHAT, json=self.asked(temperature=9)).json()
        self.seen.append(("refused", body["error"]["code"], 0, 0))

    def too_long(self) -> None:
        body = self.http.post(
            CHAT, json={"model": "tiny", "messages": [{"role": "user", "content": "x" * 5000}]}
        )
        self.seen.append(("refused", body.json()["error"]["code"], 0, 0))

    def asked(self, **more: Any) -> dict[str, Any]:
        return {"model": "tiny", "ignore_eos": True, "max_tokens": 12, **ASKED, **more}

    def _stream(self, body: dict[str, Any]) -> Iterator[str]:
        with (
            self.http.stream("POST", CHAT, json={**body, "stream": True}) as answer,
            contextlib.closing(answer.iter_lines()) as lines,
        ):
            for line in lines:
                if line.startswith("data: "):
                    yield line.removeprefix("data: ")

    def _see(self, outcome: str, reason: str, usage: dict[str, int]) -> None:
        self.seen.append((outcome, reason, usage["prompt_tokens"], usage.get("completion_tokens", 0)))


@pytest.fixture
def clients(narrow: NodeProcess) -> Iterator[Clients]:
    found = Clients(narrow)
    yield found
    found.http.close()


def test_counters_are_what_the_clients_saw(narrow: NodeProcess, clients: Clients) -> None:
    kinds: list[Callable[[], None]] = [
        clients.whole, clients.streamed, clients.embedding, clients.cut, clients.refused, clients.too_long,
    ]  # fmt: skip
    work = kinds * 5
    random.Random(2).shuffle(work)
    threads = [threading.Thread(target=lambda n=n: [do() for do in work[n::6]]) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(clients.seen) == len(work)
    eventually(lambda: scrape(narrow).total("neuron_requests_ended_total") == 20, within_s=20)
    found = scrape(narrow)
    outcomes = Counter((outcome, reason) for outcome, reason, _, _ in clients.seen)
    assert found.by("neuron_requests_ended_total", "outcome", "reason") == {
        key: n for key, n in outcomes.items() if key[0] != "refused"
    }
    assert found.by("neuron_requests_refused_total", "code") == {
        (code,): n for (outcome, code), n in outcomes.items() if outcome == "refused"
    }
    assert found.total("neuron_requests_admitted_total") == 20
    assert found.total("neuron_requests_running") == found.total("neuron_requests_waiting") == 0
    assert found.total("neuron_kv_used_bytes") == 0
    of_cut = [info for info in narrow.get("/requests?limit=100").json() if info["state"] == "cut"]
    for name, at in (("prompt_tokens", 2), ("completion_tokens", 3)):
        metric = f"neuron_{name.replace('completion', 'generated')}_total"
        assert found.total(metric) == sum(seen[at] for seen in clients.seen) + sum(i[name] for i in of_cut)


def test_one_line_an_id_from_the_header_to_the_log_to_explain(narrow: NodeProcess) -> None:
    ids = []
    for path, body in (
        (CHAT, {"max_tokens": 5, "stream": True}),
        (CHAT, {"temperature": 9}),
        ("/v1/embeddings", {"input": "the secret word"}),
    ):
        said = narrow.post(path, {"model": "tiny", **(ASKED if path == CHAT else {}), **body})
        ids.append(said.headers["x-request-id"])
    eventually(lambda: any(ids[2] in line for line in narrow.log))
    for request_id in ids:
        lines = [json.loads(line) for line in narrow.log if request_id in line]
        assert len(lines) == 1
        shown = json.loads(cli("explain", request_id, "--json", "--host", narrow.url).stdout)
        if shown["state"] == "finished":
            assert lines[0]["total_ms"] == pytest.approx(shown["total_ms"], abs=0.01)
        assert sum(shown[name] for name in PHASES) == pytest.approx(shown["total_ms"], rel=0.02)
        assert f"request  {request_id}" in cli("explain", request_id, "--host", narrow.url).stdout
    assert "secret" not in "".join(narrow.log)
    assert "secret" not in narrow.get("/requests").text


def test_a_request_that_waited_says_so(narrow: NodeProcess, clients: Clients) -> None:
    asked = clients.asked(max_tokens=150)
    threads = [
        threading.Thread(target=clients.http.post, args=(CHAT,), kwargs={"json": asked}) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    infos = sorted(narrow.get("/requests").json(), key=lambda info: info["queue_ms"])
    assert all(sum(i[n] for n in PHASES) == pytest.approx(i["total_ms"], rel=0.02) for i in infos)
    assert infos[-1]["queue_ms"] > 1.2 * min(info["decode_ms"] for info in infos)
    assert infos[0]["queue_ms"] < infos[-1]["queue_ms"] / 4


def test_a_drain_loses_none_of_what_runs_and_waits(narrow: NodeProcess, clients: Clients) -> None:
    ends: list[str] = []

    def read() -> None:
        ends.append(list(clients._stream(clients.asked(max_tokens=200)))[-1])

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    eventually(lambda: scrape(narrow).total("neuron_requests_admitted_total") == 8, within_s=20)
    done = cli("drain", "--wait", "--timeout", "100", "--host", narrow.url)
    for thread in threads:
        thread.join()
    assert (done.returncode, done.stdout) == (0, "stopped\n")
    assert narrow.process.wait(20) == 0
    assert ends == ["[DONE]"] * 8
    finished = [json.loads(line)["finish"] for line in narrow.log if '"generation"' in line]
    assert finished == ["length"] * 8


def test_events_tell_of_a_load_that_worked_and_one_that_did_not(narrow: NodeProcess, tiny_root: Path) -> None:
    narrow.post("/models/load", {"model_id": "path:/nowhere/at/all"})
    narrow.post("/models/unload", {"model_id": "tiny"})
    shown = cli("events", "--json", "--host", narrow.url).stdout.splitlines()
    told = [(line["event"], line.get("id")) for line in map(json.loads, shown)]
    assert told.index(("load started", "tiny")) < told.index(("load progress", "tiny"))
    assert told.index(("load progress", "tiny")) < told.index(("model loaded", "tiny"))
    assert told.index(("unload started", "tiny")) < told.index(("model unloaded", "tiny"))
    found = scrape(narrow)
    assert found.by("neuron_loads_total", "outcome")[("loaded",)] == 1
    names = [name for name, _ in told]
    assert found.total("neuron_loads_total", outcome="failed") == names.count("load failed")


SLACK_MS = 150
"""What lies between a node and its client, on a machine that is busy."""


@pytest.mark.real_model
def test_the_times_of_a_real_answer_lie_within_those_that_its_client_measured(real_node: NodeProcess) -> None:
    body = {"model": real_node.get("/models").json()[0]["id"], **ASKED, "max_tokens": 40, "ignore_eos": True}
    with httpx.Client(base_url=real_node.url, timeout=60, trust_env=False) as client:
        client.get("/ready")  # connects
        began_s = time.monotonic()
        with client.stream("POST", CHAT, json={**body, "stream": True}) as answer:
            lines = (line for line in answer.iter_lines() if re.search(r'"content":"[^"]', line))
            next(lines)
            first_ms = (time.monotonic() - began_s) * 1e3
            for _ in lines:
                pass
        total_ms = (time.monotonic() - began_s) * 1e3
    info = real_node.get(f"/requests/{answer.headers['x-request-id']}").json()
    assert sum(info[name] for name in PHASES) == pytest.approx(info["total_ms"], rel=0.02)
    assert info["total_ms"] == pytest.approx(total_ms, abs=SLACK_MS)
    assert first_ms - SLACK_MS < info["first_token_ms"] <= first_ms
    assert info["completion_tokens"] == 40
