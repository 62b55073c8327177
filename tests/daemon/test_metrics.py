"""``GET /metrics``: read by the official parser, documented name by name, and equal to what clients saw."""

from __future__ import annotations

import random
import re
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from neuron.daemon.app import create_app
from neuron.errors import DeviceFault, QueueFull
from neuron.settings import Settings
from tests.daemon.test_disconnects import begin
from tests.support.callers import READER_SECRET, RING, bearer
from tests.support.fake_engine import FakeEngine, Script
from tests.support.hosts import CPU_HOST
from tests.support.node_server import NodeServer, eventually, node_server
from tests.support.scrape import Scrape
from tests.test_documents import OPERATIONS, quoted, rows

CHAT = ("/v1/chat/completions", {"model": "org/tiny", "messages": [{"role": "user", "content": "hi"}]})
EMBEDDINGS = ("/v1/embeddings", {"model": "org/tiny", "input": ["a", "b"]})
COMPLETIONS = ("/v1/completions", {"model": "org/tiny", "prompt": ["a", "b"], "n": 2})
MESSAGES = ("/v1/messages", {**CHAT[1], "max_tokens": 10})
RESPONSES = ("/v1/responses", {"model": "org/tiny", "input": "hi"})


def scrape(node: NodeServer) -> Scrape:
    status, headers, body = node.get("/metrics")
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    return Scrape(body.decode())


def ended(node: NodeServer, n: int) -> Scrape:
    """A scrape after ``n`` admitted requests have ended."""
    eventually(lambda: scrape(node).total("neuron_requests_ended_total") == n)
    return scrape(node)


def test_every_metric_is_documented_with_type_and_labels_and_the_other_way_round(
    gpu_node: NodeServer,
) -> None:
    gpu_node.post(*CHAT)
    gpu_node.post(*EMBEDDINGS)
    gpu_node.post(CHAT[0], {})
    found = ended(gpu_node, 2).documented_names()
    documented = {
        quoted(name)[0]: (kind, frozenset(quoted(labels)))
        for name, kind, labels, _ in rows(OPERATIONS, "| metric | type | labels |")
    }
    assert found == documented


@pytest.fixture
def gpu_node() -> object:
    from neuron.hardware import GpuReading
    from tests.support import node_server as support

    reading = GpuReading(
        index=0, vram_used_mb=1024, vram_free_mb=2048, utilization_pct=40, temp_c=55, power_w=300.5
    )
    with support.node_server(gpus=[reading]) as node:
        yield node


def test_a_gpu_is_told_in_base_units(gpu_node: NodeServer) -> None:
    found = scrape(gpu_node)
    values = {
        name.removeprefix("neuron_device_"): found.total(name, device="0")
        for name in found.families
        if name.startswith("neuron_device_")
    }
    assert values == {
        "memory_used_bytes": 1 << 30,
        "memory_free_bytes": 2 << 30,
        "utilization_ratio": 0.4,
        "temperature_celsius": 55,
        "power_watts": 300.5,
    }


def test_memory_and_build_of_this_process_are_true(node: NodeServer) -> None:
    found = scrape(node)
    resident = int(re.findall(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) * 1024
    assert found.total("neuron_process_resident_bytes") == pytest.approx(resident, rel=0.2)
    assert found.total("neuron_build_info", torch=node.get("/version")[2]["torch"]) == 1
    assert found.total("neuron_kv_budget_bytes", model="org/tiny") == 8 << 20
    assert found.total("neuron_kv_used_bytes", model="org/tiny") == 4 << 20


def test_each_application_counts_for_itself() -> None:
    with node_server() as one, node_server() as other:
        one.post(*CHAT)
        assert ended(one, 1).total("neuron_generated_tokens_total") == 3
        assert scrape(one).total("neuron_draft_tokens_total") == 5
        assert scrape(one).total("neuron_draft_tokens_accepted_total") == 3
        assert scrape(other).total("neuron_requests_ended_total") == 0
    create_app(FakeEngine(), Settings(port=0), host=CPU_HOST)


class Clients:
    """Requests of every kind, and what their clients saw."""

    def __init__(self, node: NodeServer) -> None:
        self.node = node
        self.outcomes: Counter[tuple[str, str]] = Counter()
        """(outcome, reason or code)."""
        self.tokens: Counter[str] = Counter()
        self._lock = threading.Lock()

    def see(self, outcome: str, reason: str, prompt: int = 0, completion: int = 0) -> None:
        with self._lock:
            self.outcomes[outcome, reason] += 1
            self.tokens += Counter({"prompt": prompt, "completion": completion})

    def whole(self) -> None:
        status, _, body = self.node.post(*CHAT)
        assert status == 200
        usage = body["usage"]
        reason = body["choices"][0]["finish_reason"]
        self.see("finished", reason, usage["prompt_tokens"], usage["completion_tokens"])

    def streamed(self) -> None:
        body = self.node.post(CHAT[0], {**CHAT[1], "stream": True})[2].decode()
        assert body.endswith("data: [DONE]\n\n")
        self.see("finished", re.findall(r'"finish_reason":"(\w+)"', body)[0], 7, 3)

    def several(self) -> None:
        usage = self.node.post(*COMPLETIONS)[2]["usage"]
        self.see("finished", "stop", usage["prompt_tokens"], usage["completion_tokens"])

    def anthropic(self) -> None:
        usage = self.node.post(*MESSAGES)[2]["usage"]
        prompt = usage["input_tokens"] + usage["cache_read_input_tokens"]
        self.see("finished", "stop", prompt, usage["output_tokens"])

    def responses(self) -> None:
        usage = self.node.post(*RESPONSES)[2]["usage"]
        self.see("finished", "stop", usage["input_tokens"], usage["output_tokens"])

    def embedding(self) -> None:
        self.see("finished", "done", self.node.post(*EMBEDDINGS)[2]["usage"]["prompt_tokens"])

    def refused(self) -> None:
        body = self.node.post(CHAT[0], {**CHAT[1], "temperature": 9})[2]
        self.see("refused", body["error"]["code"])

    def unknown_model(self) -> None:
        self.see(
            "refused", self.node.post(EMBEDDINGS[0], {"model": "nope", "input": "a"})[2]["error"]["code"]
        )

    def no_route(self) -> None:
        assert self.node.get("/nowhere")[0] == 404
        self.see("refused", "not_found")

    def no_such_request(self) -> None:
        self.see("refused", self.node.get("/requests/req_0")[2]["code"])


def assert_in_balance(found: Scrape) -> None:
    """Admitted requests are those that ended, run and wait, whenever one looks."""
    admitted, *others = (
        found.total(f"neuron_requests_{what}")
        for what in ("admitted_total", "ended_total", "running", "waiting")
    )
    assert admitted == sum(others)


def test_counters_are_what_many_clients_saw() -> None:
    with node_server() as node:
        node.engine.script = Script(step_s=0.01)
        clients = Clients(node)
        kinds: list[Callable[[], None]] = [
            clients.whole, clients.streamed, clients.several, clients.anthropic, clients.responses,
            clients.embedding, clients.refused, clients.unknown_model, clients.no_route, clients.no_such_request,
        ]  # fmt: skip
        work = kinds * 6
        random.Random(1).shuffle(work)
        threads = [threading.Thread(target=lambda n=n: [do() for do in work[n::8]]) for n in range(8)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            assert_in_balance(scrape(node))
        for thread in threads:
            thread.join()
        assert sum(clients.outcomes.values()) == len(work)
        found = ended(node, 36)
    assert found.total("neuron_requests_admitted_total") == 36
    seen = {key: n for key, n in clients.outcomes.items() if key[0] != "refused"}
    assert found.by("neuron_requests_ended_total", "outcome", "reason") == seen
    refused = {(code,): n for (outcome, code), n in clients.outcomes.items() if outcome == "refused"}
    assert found.by("neuron_requests_refused_total", "code") == refused
    assert found.total("neuron_prompt_tokens_total") == clients.tokens["prompt"]
    assert found.total("neuron_generated_tokens_total") == clients.tokens["completion"]
    assert found.total("neuron_request_seconds_count") == 36
    assert found.total("neuron_time_to_first_token_seconds_count") == 30
    n_answers = 24 + 6 * 4
    assert found.total("neuron_inter_token_seconds_count") == clients.tokens["completion"] - n_answers
    assert found.by("neuron_requests_refused_total", "path")[("other",)] == 12


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_a_refusal_and_a_client_that_left_are_told_apart(stream: bool) -> None:
    with node_server() as node:
        chat = (CHAT[0], {**CHAT[1], "stream": stream})
        node.engine.script = Script(fail=DeviceFault("it fell off"))
        node.post(*chat)
        node.engine.script = Script(refuse=QueueFull("full"))
        node.post(*chat)
        for script in (Script(before_s=60), Script(texts=["x"] * 9, step_s=60), Script(submit_s=60)):
            node.engine.script = script
            seen: list[object] = []
            node.engine.on_submit = seen.append
            with begin(node, *chat):
                eventually(lambda seen=seen: len(seen) == 1)  # type: ignore[misc]
        eventually(lambda: scrape(node).total("neuron_requests_refused_total") == 2)
        found = ended(node, 3)
    assert found.by("neuron_requests_ended_total", "outcome", "reason") == {
        ("failed", "device_fault"): 1,
        ("cut", "client_gone"): 2,
    }
    assert found.by("neuron_requests_refused_total", "code") == {
        ("rate_limit_exceeded",): 1,
        ("client_gone",): 1,
    }


def test_what_runs_and_waits_is_shown_while_it_does(node: NodeServer) -> None:
    before = scrape(node)
    node.engine.script = Script(before_s=0.4, texts=["x"] * 1000, step_s=0.05)
    with begin(node, CHAT[0], {**CHAT[1], "stream": True}), begin(node, *CHAT):
        eventually(lambda: scrape(node).total("neuron_requests_waiting", model="org/tiny") == 2)
        eventually(lambda: scrape(node).total("neuron_requests_running", model="org/tiny") == 2)
        eventually(
            lambda: (
                scrape(node).total("neuron_generated_tokens_total")
                > before.total("neuron_generated_tokens_total") + 3
            )
        )
    eventually(lambda: scrape(node).total("neuron_requests_running") == 0)
    after = scrape(node)
    admitted, over = (
        after.total(name) - before.total(name)
        for name in ("neuron_requests_admitted_total", "neuron_requests_ended_total")
    )
    assert (admitted, over) == (2, 2)


def test_what_the_guards_refuse_is_counted(node: NodeServer) -> None:
    before = scrape(node).total("neuron_requests_refused_total")
    node.get("/health", host="evil.example")
    with node_server(keys=RING) as guarded:
        guarded.post(*CHAT)
        status, _, body = guarded.get("/metrics", **bearer(READER_SECRET))
        assert status == 200
    assert Scrape(body.decode()).by("neuron_requests_refused_total", "path", "code") == {
        (CHAT[0], "invalid_api_key"): 1
    }
    found = scrape(node)
    assert found.total("neuron_requests_refused_total", code="forbidden_host") >= 1
    assert found.total("neuron_requests_refused_total") == before + 1


def test_loads_are_counted_by_their_end(node: NodeServer) -> None:
    node.post("/models/load", {"model_id": "org/new"})
    node.engine.load_error = DeviceFault("no")
    node.post("/models/load", {"model_id": "org/other"})
    assert scrape(node).by("neuron_loads_total", "outcome") == {("loaded",): 1, ("failed",): 1}


def test_a_path_or_model_that_a_client_makes_up_adds_no_series(node: NodeServer) -> None:
    before = {(f.name, len(f.samples)) for f in scrape(node).families.values()}
    for n in range(20):
        node.get(f"/nowhere/{n}")
        node.post(CHAT[0], {**CHAT[1], "model": f"made-up-{n}"})
    after = scrape(node)
    assert "made-up" not in str(after.families)
    grown = {(f.name, len(f.samples)) for f in after.families.values()} - before
    assert grown <= {("neuron_requests_refused", n) for n in range(10)}
