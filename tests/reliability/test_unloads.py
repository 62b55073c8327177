"""A model that is loaded and unloaded again and again, in answers too: each answer ends, memory is given back."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tests.reliability.faulty import CHAT, ask, asked, faulty
from tests.support.node_process import NodeProcess
from tests.support.scorecard import Scorecard
from tests.support.tiny_chat import save_tiny_chat
from tests.support.tiny_models import CASES

N_TIMES = 50
SEED = 25
N_TOKENS = 200
GROWTH = 0.05
WARM = 8
"""Cycles after which libraries and the allocator keep what they keep."""


@pytest.fixture(scope="module")
def deep_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model root with ``tiny``, of 50 MB in many layers, so that its memory is seen in the process's."""
    root = tmp_path_factory.mktemp("deep")
    values = {"num_hidden_layers": 24, "intermediate_size": 2560}
    save_tiny_chat(root / "tiny", replace(CASES[0], values=values))
    return root


@pytest.fixture
def running(deep_root: Path) -> Iterator[NodeProcess]:
    env = {"NEURON_SPECULATION": "false"}
    with faulty(deep_root, "", "--drain-s", "0.1", "--model-root", deep_root, loads=False, env=env) as one:
        yield one


def load(running: NodeProcess, root: Path) -> None:
    assert running.post("/models/load", {"model_id": str(root / "tiny")}).json() == {"status": "loaded"}


def unload(running: NodeProcess, **more: bool) -> None:
    assert running.post("/models/unload", {"model_id": "tiny", **more}).json() == {"status": "unloaded"}


def weights_mb(root: Path) -> float:
    return sum(path.stat().st_size for path in root.rglob("*.safetensors")) / (1 << 20)


# ---- row 25


class Reader:
    """A stream that is read in a thread, to its end."""

    def __init__(self, running: NodeProcess) -> None:
        self._url = running.url + CHAT
        self._events: list[str] = []
        self.begun = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        body = asked(N_TOKENS, stream=True)
        with httpx.stream("POST", self._url, json=body, timeout=60, trust_env=False) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    self._events.append(line.removeprefix("data: "))
                    self.begun.set()

    def end(self) -> str:
        """How the stream ended: whole, or the code of its error."""
        self._thread.join(60)
        assert not self._thread.is_alive(), "the stream did not end"
        last = self._events[-1]
        return "whole" if last == "[DONE]" else str(json.loads(last)["error"]["code"])


def stream_s(running: NodeProcess, root: Path) -> float:
    """Seconds from the begin of a stream to its end, when nothing cuts it."""
    load(running, root)
    reader = Reader(running)
    assert reader.begun.wait(60)
    began_s = time.monotonic()
    assert reader.end() == "whole"
    took_s = time.monotonic() - began_s
    unload(running)
    return min(took_s, 0.3)


def test_an_unload_at_any_point_of_a_stream_ends_it_and_gives_the_memory_back(
    running: NodeProcess, deep_root: Path, scorecard: Scorecard
) -> None:
    rng, ends, rss_mb = random.Random(SEED), Counter[str](), []
    whole_s = stream_s(running, deep_root)
    for n in range(N_TIMES):
        load(running, deep_root)
        reader = Reader(running)
        assert reader.begun.wait(60)
        time.sleep(rng.uniform(0, whole_s))
        unload(running, **({"now": True} if n % 2 else {}))
        ends[reader.end()] += 1
        rss_mb.append(running.rss_mb())
    assert sum(ends.values()) == N_TIMES
    assert set(ends) <= {"whole", "model_unloading"}
    assert ends["model_unloading"] > N_TIMES / 8
    growth = (max(rss_mb[-3:]) - min(rss_mb[WARM - 3 : WARM])) / weights_mb(deep_root)
    figure = f"{N_TIMES} of {N_TIMES} streams ended ({dict(ends)}), memory {growth:+.1%} of the model"
    scorecard(25, figure, "terminal event 100 %, memory back", growth < GROWTH)
    assert growth < 0.5


# ---- row 27


def test_50_cycles_of_load_generate_unload_leave_no_memory(
    running: NodeProcess, deep_root: Path, scorecard: Scorecard
) -> None:
    rss_mb = []
    for _ in range(N_TIMES):
        load(running, deep_root)
        assert ask(running, 4).status_code == 200
        unload(running)
        rss_mb.append(running.rss_mb())
    growth = (max(rss_mb[-3:]) - min(rss_mb[WARM - 3 : WARM])) / weights_mb(deep_root)
    figure = f"{growth:+.1%} of a model of {weights_mb(deep_root):.0f} MB"
    scorecard(27, figure, "< 5 % of model", growth < GROWTH)
    assert growth < 0.5
