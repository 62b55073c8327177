"""Faults in a load, a prefill, a step, a device: who is not concerned notices nothing, and the node goes on."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from neuron.faults import POINTS
from tests.reliability.faulty import ask, code_of, faulty, log_of, text_of
from tests.support import fake_hub
from tests.support.node_process import NodeProcess
from tests.support.node_server import eventually
from tests.support.scorecard import Scorecard

N = 12


@pytest.fixture(scope="module")
def golden(tiny_root: Path) -> dict[int, str]:
    """What the model answers on a node without faults, by the length of the answer."""
    with faulty(tiny_root, "") as running:
        return {n: text_of(ask(running, n)) for n in (N, 200)}


def test_a_fault_can_be_put_at_each_step_of_a_fetch_a_load_and_an_answer(
    tiny_root: Path, tmp_path: Path
) -> None:
    told = set(POINTS) - {"log"}  # whose faults would each lead to another
    plan = [f"{point}:hang" for point in told - {"step"}]
    with fake_hub.running() as hub:
        hub.repo("org/tiny", {path.name: path.read_bytes() for path in (tiny_root / "tiny").iterdir()})
        env = {**hub.env(tmp_path / "hub"), "NEURON_CACHE": str(tmp_path / "cache")}
        with faulty(tiny_root, ",".join([*plan, "step:bug@3"]), loads=False, env=env) as running:
            load = running.post("/models/load", {"model_id": "org/tiny", "alias": "tiny"})
            assert load.json() == {"status": "loaded"}
            assert ask(running).status_code == 500  # so that the model is tried
            assert running.post("/v1/embeddings", {"model": "tiny", "input": "a"}).status_code == 200
            eventually(lambda: {line["point"] for line in log_of(running, "fault injected")} == told, 20)


# ---- row 21


def test_logits_that_are_not_finite_end_their_request_alone(
    tiny_root: Path, golden: dict[int, str], scorecard: Scorecard
) -> None:
    at = ["prefill:nan@1", "step:nan@1", "step:nan@7", "logits:nan@16"]  # each in an answer of its own
    with faulty(tiny_root, ",".join(at)) as running:
        ended = [code_of(ask(running, N)) for _ in at]
        after = text_of(ask(running, N))
    assert ended == [(500, "numerical_error")] * len(at)
    assert after == golden[N]
    survived = neighbours_survive(tiny_root, golden)
    scorecard(21, f"{len(at)} of {len(at)} moments, {survived} neighbours with all their tokens",
              "500 to that request only", True)  # fmt: skip


def neighbours_survive(tiny_root: Path, golden: dict[int, str]) -> int:
    """Four answers in one batch, one of which is spoilt; how many of the others are as they are alone."""
    with faulty(tiny_root, "step:hang=1.5@2,step:nan@60") as running:
        answers = together(running, 4, 200)
    spoilt = [answer for answer in answers if answer.status_code != 200]
    assert [code_of(answer) for answer in spoilt] == [(500, "numerical_error")]
    whole = [text_of(answer) for answer in answers if answer.status_code == 200]
    assert whole == [golden[200]] * 3
    return len(whole)


def together(running: NodeProcess, n_clients: int, n: int) -> list[Any]:
    """Answers that are computed side by side."""
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(ask(running, n))) for _ in range(n_clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


# ---- row 19


def test_an_allocation_that_fails_costs_one_request_or_one_load(
    tiny_root: Path, golden: dict[int, str], scorecard: Scorecard
) -> None:
    in_load = ["load:oom@1", "load:oom@10", "load:oom@49"]
    in_work = ["cache:oom", "prefill:oom", "step:oom", "step:oom@7", "logits:oom", "logits:oom@10"]
    with faulty(tiny_root, ",".join([*in_load, *in_work, "embed:oom"]), loads=False) as running:
        body = {"model_id": str(tiny_root / "tiny")}
        loads = [running.post("/models/load", body) for _ in range(4)]
        assert [answer.status_code for answer in loads] == [422, 422, 422, 200]
        kinds = [answer.json()["error"]["kind"] for answer in loads[:3]]
        assert kinds == ["insufficient_memory"] * 3
        refused = [answer for answer in (ask(running, N) for _ in range(12)) if answer.status_code != 200]
        assert [code_of(answer) for answer in refused] == [(503, "insufficient_vram")] * len(in_work)
        assert all("retry-after" in answer.headers for answer in refused)
        vectors = [running.post("/v1/embeddings", {"model": "tiny", "input": "a"}).status_code for _ in "ab"]
        assert vectors == [503, 200]
        assert text_of(ask(running, N)) == golden[N]
        assert not log_of(running, "device failed")
    n = len(in_load) + len(in_work) + 1
    scorecard(19, f"{n} of {n} points", "model answers next request", True)


def test_a_step_that_fails_behind_its_last_layer_is_computed_again_for_each_alone(
    tiny_root: Path, golden: dict[int, str]
) -> None:
    """Its caches had grown by then: were they not taken back, the answers would have a token twice."""
    with faulty(tiny_root, "step:hang=1.5@2,logits:oom@40") as running:
        answers = together(running, 3, 200)
    assert [text_of(answer) for answer in answers] == [golden[200]] * 3


# ---- row 22


def test_a_step_that_hangs_is_told_and_passes(tiny_root: Path, scorecard: Scorecard) -> None:
    threshold_s = 1.0
    with faulty(tiny_root, "step:hang=10@3", "--stall-s", str(threshold_s)) as running:
        asking = threading.Thread(target=ask, args=(running, N))
        asking.start()
        eventually(lambda: bool(log_of(running, "fault injected")), 30)
        began_s = time.monotonic()
        eventually(lambda: running.get("/health").status_code == 503)
        told_s = time.monotonic() - began_s
        asking.join()
        assert running.get("/health").status_code == 200
        assert ask(running).status_code == 200
    scorecard(22, f"stalled after {told_s:.1f} s", f"<= {2 * threshold_s:.0f} s", told_s <= 2 * threshold_s)
    assert told_s <= 2 * threshold_s + 1


# ---- row 23


def test_native_code_that_never_gives_the_interpreter_back_ends_the_process(
    tiny_root: Path, scorecard: Scorecard
) -> None:
    limit_s = 3.0
    with faulty(tiny_root, "step:gil=60@3", "--hang-s", str(limit_s)) as running:
        began_s = time.monotonic()
        with pytest.raises(httpx.HTTPError):
            ask(running)
        code = running.process.wait(30)
        took_s = time.monotonic() - began_s
        eventually(lambda: any("faults.py" in line for line in running.log))
    assert code == 1
    scorecard(23, f"stacks on stderr, exit after {took_s:.1f} s with a limit of {limit_s:.0f}",
              "stack dump + exit <= limit + 2 s", took_s <= limit_s + 2)  # fmt: skip
    assert took_s <= limit_s + 4


# ---- a device that fails


def test_a_device_that_fails_costs_its_model_one_load_and_nobody_else_anything(
    tiny_root: Path, golden: dict[int, str]
) -> None:
    with faulty(tiny_root, "step:lost@5") as running:
        assert ask(running, N).status_code == 500
        eventually(lambda: len(log_of(running, "model loaded")) == 2, 30)
        assert text_of(ask(running, N)) == golden[N]
        assert [line["id"] for line in log_of(running, "device failed")] == ["tiny"]
        assert running.stop() == 0


def test_who_asks_meanwhile_is_told_to_come_back(tiny_root: Path) -> None:
    with faulty(tiny_root, "step:lost@5,load:hang=3@50") as running:
        assert ask(running, N).status_code == 500
        answer = ask(running, N)
        assert code_of(answer) == (503, "model_unloading")
        assert 1 <= int(answer.headers["retry-after"]) <= 60


def test_a_device_that_fails_again_ends_the_process_with_a_code_of_its_own(tiny_root: Path) -> None:
    with faulty(tiny_root, "step:lost@5,step:lost@20") as running:
        assert ask(running, N).status_code == 500
        eventually(lambda: len(log_of(running, "model loaded")) == 2, 30)
        ask(running, 40)
        assert running.process.wait(60) == 71


def test_a_model_that_can_t_be_loaded_anew_ends_it_too(tiny_root: Path) -> None:
    with faulty(tiny_root, "prefill:lost@1,load:bug@50") as running:
        assert ask(running, N).status_code == 500
        assert running.process.wait(60) == 71


def test_a_request_that_fails_by_itself_costs_the_model_nothing(
    tiny_root: Path, golden: dict[int, str]
) -> None:
    with faulty(tiny_root, "step:bug@2,step:bug@30,logits:bug@40") as running:
        assert ask(running, N).status_code == 500
        answers = [ask(running, N) for _ in range(6)]
        assert [answer.status_code for answer in answers].count(500) == 2
        assert text_of(answers[-1]) == golden[N]
        assert not log_of(running, "device failed")
        assert len(log_of(running, "model loaded")) == 1


def test_a_model_whose_numbers_are_gone_for_good_is_loaded_anew(tiny_root: Path) -> None:
    with faulty(tiny_root, "step:nan@3,probe:lost@1") as running:
        assert code_of(ask(running, N)) == (500, "numerical_error")
        eventually(lambda: len(log_of(running, "model loaded")) == 2, 30)
        assert ask(running, N).status_code == 200
