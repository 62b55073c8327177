"""The node endpoints, field for field."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from neuron.engine.status import Activation, DecodeStatus, ModelStatus
from neuron.progress import Progress
from neuron.settings import Settings
from neuron.wire import node as wire
from tests.support.fake_engine import FakeEngine
from tests.support.hosts import BROKEN_CUDA_HOST, CPU_HOST
from tests.support.node_server import NodeServer, node_server


def test_discovery_with_a_gpu(node: NodeServer) -> None:
    status, _, body = node.get("/discovery")
    assert status == 200
    assert body == {
        "hostname": "gpu.lan",
        "os": "Linux",
        "kernel": "6.1",
        "cuda_version": "12.8",
        "driver_version": "570.1",
        "devices": [{"index": 0, "name": "Test GPU", "vram_total_mb": 24_000, "compute_capability": "9.0"}],
        "harnesses": ["torch"],
        "max_prompt_tokens": body["max_prompt_tokens"],
        "cpu": {"model": "Test CPU", "cores": 4, "memory_total_mb": 16_000},
    }


def test_discovery_says_why_cuda_is_unusable_only_where_it_is() -> None:
    with node_server(host=CPU_HOST) as node:
        assert "cuda_unavailable_reason" not in node.get("/discovery")[2]
        assert node.get("/discovery")[2]["devices"] == []
    with node_server(host=BROKEN_CUDA_HOST) as node:
        assert "reboot" in node.get("/discovery")[2]["cuda_unavailable_reason"]
        status, _, body = node.post("/models/load", {"model_id": "a/b", "devices": [0]})
        assert (status, body["code"]) == (503, "cuda_unavailable")


def test_health_has_every_field(node: NodeServer) -> None:
    node.engine.activation = Activation(
        state="pre_warming", pending=("c",), in_progress="b", completed=("a",), failed=(("d", "why"),)
    )
    status, _, body = node.get("/health")
    assert status == 200
    msgspec.convert(body, wire.HealthResponse)
    assert body["activation"] == {
        "state": "pre_warming",
        "pending": ["c"],
        "in_progress": "b",
        "completed": ["a"],
        "failed": [{"model_id": "d", "error": "why"}],
    }
    assert body["models"][0]["kv_budget_mb"] == 8
    assert body["models"][0]["kv_available_mb"] == 4
    assert body["cpu"]["load_pct"] == 12.5
    assert body["accepting"] is True


def test_a_stalled_decode_loop_makes_health_503_with_the_same_body(node: NodeServer) -> None:
    node.engine.decode = DecodeStatus(active=1, last_step_age_ms=90_000, stalled=True)
    status, _, body = node.get("/health")
    assert status == 503
    assert body["decode"] == {"active": 1, "last_step_age_ms": 90_000}
    assert node.get("/ready")[0] == 503


def test_ready_is_503_while_draining(node: NodeServer) -> None:
    assert node.get("/ready")[2] == {"ready": True}
    node.engine.decode = DecodeStatus(accepting=False)
    assert node.get("/ready")[0] == 503
    assert node.get("/health")[0] == 200


def test_models_lists_only_what_answers_or_will(node: NodeServer) -> None:
    progress = Progress(stage="fetch", done_bytes=1, total_bytes=2)
    node.engine.models |= {
        "l": ModelStatus(id="l", harness="torch", state="loading", progress=progress),
        "f": ModelStatus(id="f", harness="torch", state="failed", error="why"),
        "u": ModelStatus(id="u", harness="torch", state="unloading"),
    }
    listed = node.get("/models")[2]
    assert [(m["id"], m["status"]) for m in listed] == [("org/tiny", "loaded"), ("l", "loading")]
    assert listed[0] == {
        "id": "org/tiny",
        "harness": "torch",
        "status": "loaded",
        "devices": [],
        "vram_used_mb": 3,
        "capabilities": ["text"],
        "limit": {"context": 2048, "output": 2048},
        "tool_call": True,
        "reasoning": True,
        "source": None,
        "quant": None,
        "dtype": "float32",
        "weights": "F32",
        "device": None,
        "in_flight": 0,
        "queue_depth": 0,
        "tok_s_decode": 0.0,
        "idle_s": None,
        "ttl_s": None,
        "pinned": False,
        "alias_of": None,
        "sampling": {},
    }
    assert len(node.get("/models?all=true")[2]) == 4
    assert len(node.get("/models?all=false")[2]) == 2
    assert node.get("/models?all=yes")[0] == 400
    assert node.get("/models/f")[2]["error"] == "why"
    assert node.get("/models/l")[2]["progress"]["stage"] == "fetch"
    assert [m["id"] for m in node.get("/v1/models")[2]["data"]] == ["org/tiny"]
    assert node.get("/v1/models/l")[0] == 404


@pytest.mark.parametrize("spelling", ["org/tiny", "org%2Ftiny", "org%2ftiny"])
def test_ids_with_slashes_are_found_raw_and_encoded(node: NodeServer, spelling: str) -> None:
    assert node.get(f"/models/{spelling}/endpoint")[2] == {"url": f"http://localhost:{node.port}"}
    assert node.get(f"/models/{spelling}")[2]["id"] == "org/tiny"
    assert node.get(f"/v1/models/{spelling}")[2]["id"] == "org/tiny"


def test_the_endpoint_of_a_model_that_is_not_loaded(node: NodeServer) -> None:
    status, _, body = node.get("/models/a/b/endpoint")
    assert (status, body["error"]) == (404, "model 'a/b' not loaded")


def test_the_endpoint_is_the_public_url_where_there_is_one() -> None:
    with node_server(settings=Settings(port=0, public_url="https://api.example")) as node:
        assert node.get("/models/org/tiny/endpoint")[2] == {"url": "https://api.example"}


def test_version_names_torch_without_importing_it(node: NodeServer) -> None:
    body = node.get("/version")[2]
    msgspec.convert(body, wire.VersionResponse)
    assert body["torch"].startswith("2.")


def test_unload(node: NodeServer) -> None:
    assert node.post("/models/unload", {"model_id": "org/tiny"})[2] == {"status": "unloaded"}
    status, _, body = node.post("/models/unload", {"model_id": "org/tiny"})
    assert (status, body["error"]) == (404, "model 'org/tiny' not loaded")
    status, _, body = node.post("/models/unload", {})
    assert (status, body["error"]) == (400, "missing model_id")


def test_draining_refuses_loads_and_generations_with_a_time(node: NodeServer) -> None:
    node.engine.decode = replace(node.engine.decode, accepting=False)
    status, headers, body = node.post("/models/load", {"model_id": "a/b"})
    assert (status, body["code"], headers["retry-after"]) == (503, "shutting_down", "15")
    chat = {"model": "org/tiny", "messages": [{"role": "user", "content": "x"}]}
    status, headers, body = node.post("/v1/chat/completions", chat)
    assert (status, body["error"]["code"], headers["retry-after"]) == (503, "shutting_down", "7")


def test_an_empty_engine_is_not_an_error() -> None:
    with node_server(FakeEngine(models=())) as node:
        assert node.get("/models")[2] == []
        assert node.get("/v1/models")[2] == {"object": "list", "data": []}
        assert node.get("/health")[2]["models"] == []
