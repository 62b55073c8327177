"""SIGTERM whatever a node is doing: it exits with 0, and every client gets the end of its answer."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import fake_hub
from tests.support.node_process import NodeProcess, node
from tests.support.node_server import eventually
from tests.support.scorecard import Scorecard
from tests.support.supervisor import service

pytestmark = pytest.mark.real_model

DRAIN_S = 1
STATES = {"idle", "prompt", "answer and queue", "read", "download", "no-answer-yet", "pinged", "start"}
exits_s: dict[str, float] = {}
"""How long an exit took, by state, once every client had the end of its answer."""


class Client:
    """A stream that is read in a thread, to its end."""

    def __init__(self, running: NodeProcess, model: str, prompt: str) -> None:
        self.lines: list[str] = []
        body = {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "stream": True,
            "max_tokens": 3000,
            "ignore_eos": True,
        }
        self._thread = threading.Thread(target=self._read, args=(running.url, body))
        self._thread.start()

    def _read(self, url: str, body: dict[str, Any]) -> None:
        url = f"{url}/v1/chat/completions"
        try:
            with httpx.stream("POST", url, json=body, timeout=60, trust_env=False) as answer:
                for line in answer.iter_lines():
                    self.lines.append(line)
        except httpx.HTTPError as error:
            self.lines.append(f"data: cut {error}")

    @property
    def end(self) -> Any:
        """The last event: an error's body, or text."""
        self._thread.join(60)
        assert not self._thread.is_alive(), "the stream did not end"
        events = [line for line in self.lines if line.startswith(("data: ", "{"))]
        last = events[-1].removeprefix("data: ")
        return json.loads(last) if last.startswith("{") else last


@contextmanager
def loaded(gguf: Path, *args: str) -> Iterator[NodeProcess]:
    """A node with the model, which drains for a second."""
    with node(gguf, "--drain-s", str(DRAIN_S), *args) as running:
        running.wait_loaded(gguf.stem)
        yield running


def stopped_s(running: NodeProcess) -> float:
    """Seconds from SIGTERM to an exit with 0."""
    began_s = time.monotonic()
    assert running.stop() == 0, "".join(running.log)
    return time.monotonic() - began_s


def figures(running: NodeProcess) -> dict[str, Any]:
    """The load of the one model."""
    found: dict[str, Any] = running.get("/health").json()["models"][0]
    return found


def code_of(end: Any) -> str:
    code: str = end["error"]["code"]
    return code


def test_idle(smollm2_gguf: Path) -> None:
    with loaded(smollm2_gguf) as running:
        exits_s["idle"] = stopped_s(running)


def test_while_a_prompt_is_computed(smollm2_gguf: Path) -> None:
    with loaded(smollm2_gguf) as running:
        client = Client(running, smollm2_gguf.stem, "word " * 7000)
        eventually(lambda: figures(running)["in_flight"] == 1, 20)
        took_s = stopped_s(running)
        assert code_of(client.end) == "shutting_down"
        assert not any("content" in line and '"content":""' not in line for line in client.lines)
        exits_s["prompt"] = took_s


def test_while_an_answer_is_written_and_another_waits(smollm2_gguf: Path) -> None:
    with loaded(smollm2_gguf, "--max-in-flight", "1") as running:
        writing = Client(running, smollm2_gguf.stem, "Count.")
        eventually(lambda: len(writing.lines) > 3, 20)
        waiting = Client(running, smollm2_gguf.stem, "Count.")
        eventually(lambda: figures(running)["queue_depth"] == 1, 20)
        took_s = stopped_s(running)
        assert code_of(writing.end) == "shutting_down"
        assert code_of(waiting.end) == "shutting_down"
        exits_s["answer and queue"] = took_s


def test_a_second_signal_ends_it_at_once(smollm2_gguf: Path, scorecard: Scorecard) -> None:
    with node(smollm2_gguf, "--drain-s", "60") as running:
        running.wait_loaded(smollm2_gguf.stem)
        client = Client(running, smollm2_gguf.stem, "Count.")
        eventually(lambda: len(client.lines) > 3, 20)
        running.process.terminate()
        eventually(lambda: running.get("/ready").status_code == 503)
        took_s = stopped_s(running)
        scorecard(14, f"exit after {took_s:.2f} s, in an answer of SmolLM2", "exit <= 1 s", took_s <= 1)
        assert took_s < 5


def test_while_a_model_is_read(smollm2_gguf: Path) -> None:
    slowly = ",".join(f"load:hang=0.1@{n}" for n in range(20, 250))
    env = {"NEURON_FAULT": slowly, "NEURON_TESTING": "1"}
    with node(smollm2_gguf, "--drain-s", str(DRAIN_S), env=env) as running:
        wait_progress(running, smollm2_gguf.stem, lambda progress: bool(progress.get("done_bytes")))
        exits_s["read"] = stopped_s(running)


def test_while_a_model_is_downloaded(tmp_path: Path) -> None:
    with fake_hub.running() as hub:
        hub.bytes_per_s = 10_000
        hub.repo("org/slow", {"config.json": b"{}", "model.safetensors": bytes(2_000_000)})
        env = {**hub.env(tmp_path / "hub"), "NEURON_CACHE": str(tmp_path / "cache")}
        with node("org/slow", "--drain-s", str(DRAIN_S), env=env) as running:
            assert hub.on_file.wait(60), "".join(running.log)
            exits_s["download"] = stopped_s(running)
            assert exits_s["download"] < 20


@pytest.mark.parametrize("after_s", [0.3, 2.0], ids=["no-answer-yet", "pinged"])
def test_while_a_request_waits_for_its_model(
    tmp_path: Path, after_s: float, request: pytest.FixtureRequest
) -> None:
    with fake_hub.running() as hub:
        hub.bytes_per_s = 10_000
        hub.repo("org/slow", {"config.json": b"{}", "model.safetensors": bytes(2_000_000)})
        env = {**hub.env(tmp_path / "hub"), "NEURON_CACHE": str(tmp_path / "cache")}
        env |= {"NEURON_LOAD_ON_REQUEST": "true", "NEURON_MODELS_ON_REQUEST": "org/slow"}
        with node("--drain-s", str(DRAIN_S), env=env) as running:
            client = Client(running, "org/slow", "Hi")
            assert hub.on_file.wait(60), "".join(running.log)
            time.sleep(after_s)
            took_s = stopped_s(running)
            assert took_s < 20
            assert code_of(client.end) == "shutting_down"
            exits_s[request.node.callspec.id] = took_s


def test_before_it_answers() -> None:
    """A signal while the node still imports what it is made of."""
    with service("--port", "0") as starting:
        eventually(lambda: handles_sigterm(starting.popen.pid), 20)
        began_s = time.monotonic()
        starting.popen.terminate()
        assert starting.popen.wait(20) == 0
        exits_s["start"] = time.monotonic() - began_s


def test_the_scorecard_gets_the_times(scorecard: Scorecard) -> None:
    if set(exits_s) == STATES:
        state, took_s = max(exits_s.items(), key=lambda item: item[1])
        figure = (
            f"SmolLM2, {len(STATES)} states, drain {DRAIN_S} s: slowest exit 0 after {took_s:.1f} s ({state})"
        )
        target = "exit 0 <= drain + 2 s, terminal event to all"
        scorecard(13, figure, target, took_s <= DRAIN_S + 2)


def handles_sigterm(pid: int) -> bool:
    """Whether the process catches it by now."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught & 1 << 14)


def wait_progress(
    running: NodeProcess, model_id: str, reached: Callable[[dict[str, Any]], bool], within_s: float = 60
) -> None:
    """Until a load has come so far."""
    deadline_s = time.monotonic() + within_s
    while not reached(running.get(f"/models/{model_id}").json().get("progress", {})):
        assert time.monotonic() < deadline_s, "".join(running.log)
        time.sleep(0.01)
