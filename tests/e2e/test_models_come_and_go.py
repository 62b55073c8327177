"""Models come and go by themselves on a real node, driven by real commands from another process."""

from __future__ import annotations

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.node_process import NodeProcess, cli, node
from tests.support.tiny_chat import save_tiny_chat
from tests.support.tiny_models import CASES

CHAT = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models of 5 to 6 MB in float32, ``one`` and ``two``."""
    root = tmp_path_factory.mktemp("two")
    (root / "one").mkdir()
    save_tiny_chat(root / "one", replace(CASES[0], values={"intermediate_size": 1792}))
    shutil.copytree(root / "one", root / "two")
    return root / "one", root / "two"


def ask(running: NodeProcess, model: str) -> str:
    """One whole answer; its finish reason."""
    body = {"model": model, "messages": CHAT, "max_tokens": 4, "ignore_eos": True, "temperature": 0}
    answer = running.post("/v1/chat/completions", body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["finish_reason"])


def lines(running: NodeProcess, event: str) -> list[dict[str, object]]:
    """The log's lines of one event."""
    return [entry for entry in map(json.loads, running.log) if entry["event"] == event]


def test_two_models_in_the_room_of_one_answer_everybody_and_leave_when_idle(
    folders: tuple[Path, Path],
) -> None:
    env = {
        "NEURON_MODELS_ON_REQUEST": ",".join(map(str, folders)),
        "NEURON_LOAD_ON_REQUEST": "true",
        "NEURON_UNLOAD_WHEN_SHORT": "true",
        "NEURON_MEMORY_BUDGET_MB": "9",
        "NEURON_KV_BUDGET_MB": "1",
        "NEURON_TTL_S": "2",
        "NEURON_THREADS": "1",
    }
    with node(env=env) as running:
        listed = running.get("/v1/models").json()["data"]
        assert sorted(model["id"] for model in listed) == ["one", "two"]
        with ThreadPoolExecutor(20) as pool:
            assert list(pool.map(lambda i: ask(running, ("one", "two")[i % 2]), range(20))) == ["length"] * 20
        assert len(lines(running, "load started")) == 2
        assert [e["reason"] for e in lines(running, "unload started")] == ["memory"]
        deadline_s = time.monotonic() + 30
        while running.get("/models").json():
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        assert lines(running, "unload started")[-1]["reason"] == "idle"
        assert ask(running, "one") == "length"


def test_plan_load_pin_and_unload_over_the_network(folders: tuple[Path, Path]) -> None:
    with node("--model-root", folders[0].parent, env={"NEURON_TTL_S": "1", "NEURON_THREADS": "1"}) as running:
        done = cli("load", folders[0], "--plan", "--json", "--host", running.url)
        plan = json.loads(done.stdout)
        assert (done.returncode, plan["fits"]) == (0, True)
        assert running.get("/models?all=true").json() == []
        done = cli("load", folders[0], "--pin", "--host", running.url)
        assert (done.returncode, done.stdout) == (0, "loaded: one\n")
        assert cli("load", folders[1], "--ttl", "never", "--host", running.url).returncode == 0
        time.sleep(2.5)
        shown = json.loads(cli("ps", "--json", "--host", running.url).stdout)
        assert {m["id"]: (m["pinned"], m["ttl_s"]) for m in shown} == {
            "one": (True, None),
            "two": (False, None),
        }
        assert all(m["idle_s"] > 1 and m["quant"] == "F32" and m["device"] == "cpu" for m in shown)
        assert json.loads(cli("show", "one", "--json", "--host", running.url).stdout)["path"] == str(
            folders[0]
        )
        assert cli("unload", "--all", "--host", running.url).returncode == 0
        assert running.get("/models").json() == []
