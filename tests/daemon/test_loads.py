"""Loads over HTTP: waited for, not waited for, streamed; refused, failed, left alone by their client."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from neuron.daemon.projection.load import load_spec
from neuron.errors import (
    CudaUnavailable,
    HarnessNotEnabled,
    InsufficientMemory,
    InvalidModelFile,
    LoadedDifferently,
    RepoFetchFailed,
)
from neuron.progress import Progress
from neuron.wire.node import ModelSpec
from tests.support.hosts import CPU_HOST
from tests.support.node_server import NodeServer, eventually, http

SSE = {"accept": "text/event-stream"}


def test_a_load_is_answered_when_it_is_in_memory(node: NodeServer) -> None:
    assert node.post("/models/load", {"model_id": "a/b", "harness": "candle"})[2] == {"status": "loaded"}
    spec, _ = node.engine.loads[0]
    assert (spec.model_id, spec.harness, spec.dtype, spec.devices) == ("a/b", "torch", None, None)
    status, _, body = node.post("/models/load", {"model_id": "a/b"})
    assert status == 400
    assert "already loaded" in body["error"]


def test_a_repeated_load_says_what_it_changed(node: NodeServer) -> None:
    status, _, body = node.post("/models/load", {"model_id": "org/tiny", "ttl_s": 60})
    assert (status, body) == (200, {"status": "loaded", "changed": ["ttl_s"]})
    status, _, body = node.post("/models/load", {"model_id": "org/tiny", "pin": False, "wait": False})
    assert (status, body) == (200, {"status": "loaded", "changed": ["pin"]})
    node.engine.load_steps = [Progress("read", 1, 1)]  # of the load before
    stream = node.post("/models/load", {"model_id": "org/tiny", "pin": True}, **SSE)[2]
    assert stream == b'data: {"status":"loaded","changed":["pin"]}\n\n'


def test_a_load_that_can_not_be_taken_where_the_model_is_is_refused(node: NodeServer) -> None:
    node.engine.load_error = LoadedDifferently("model 'a/b' is in memory in float32", hint="unload it first")
    status, _, body = node.post("/models/load", {"model_id": "a/b", "dtype": "bfloat16"})
    assert (status, body["code"], body["hint"]) == (400, "loaded_differently", "unload it first")
    assert "already loaded" not in body["error"]  # which gateways take for success


def test_the_same_files_by_another_name_are_the_same(tmp_path: Path) -> None:
    def origins(text: str) -> frozenset[str]:
        return load_spec(ModelSpec(model_id=text), CPU_HOST).origins

    (tmp_path / "m").mkdir()
    (tmp_path / "link").symlink_to("m")
    assert origins(f"{tmp_path}/m") == origins(f"path:{tmp_path}/link")
    assert origins("hf:a/b") == origins("a/b") != origins("a/b@v1")
    assert origins("smollm2") & origins("HuggingFaceTB/SmolLM2-135M-Instruct")


def test_a_load_is_served_under_its_alias_on_its_device(node: NodeServer) -> None:
    body = {"model_id": "a/b", "alias": "mine", "devices": [0], "dtype": "float32", "tensor_parallel": 1}
    assert node.post("/models/load", body)[0] == 200
    spec, _ = node.engine.loads[0]
    assert (spec.model_id, spec.devices, spec.dtype) == ("mine", (0,), "float32")


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({}, 400, "invalid_value"),
    ({"model_id": 5}, 400, "invalid_value"),
    ({"model_id": ""}, 400, "invalid_reference"),
    ({"model_id": "a b"}, 400, "invalid_reference"),
    ({"model_id": "a/b", "harness": "vllm"}, 400, "unknown_harness"),
    ({"model_id": "a/b", "tensor_parallel": 2}, 400, "unsupported_parameter"),
    ({"model_id": "a/b", "devices": [0, 1]}, 400, "unsupported_parameter"),
    ({"model_id": "a/b", "devices": [7]}, 400, "invalid_value"),
    ({"model_id": "a/b", "devices": [-1]}, 400, "invalid_value"),
    ({"model_id": "a/b", "devices": ["0"]}, 400, "invalid_value"),
    ({"model_id": "a/b", "dtype": "int3"}, 400, "invalid_value"),
    ({"model_id": "a/b", "ttl_s": -1}, 400, "invalid_value"),
    ({"model_id": "a/b", "ttl_s": 5, "pin": True}, 400, "invalid_value"),
    ({"model_id": "a/b", "device": "tpu"}, 400, "invalid_value"),
    ({"model_id": "a/b", "device": "cuda:7"}, 400, "invalid_value"),
    ({"model_id": "a/b", "device": "cpu", "devices": [0]}, 400, "invalid_value"),
    ({"model_id": "a/b", "alias": ""}, 400, "invalid_value"),
    ({"model_id": "a/b", "alias": "a\nb"}, 400, "invalid_value"),
]


@pytest.mark.parametrize(("body", "status", "code"), REFUSED)
def test_what_a_load_can_not_honour_is_refused(
    node: NodeServer, body: dict[str, Any], status: int, code: str
) -> None:
    found, _, answer = node.post("/models/load", body)
    assert (found, answer["code"]) == (status, code), answer
    assert isinstance(answer["error"], str)
    assert node.engine.loads == []


def test_the_words_for_an_unknown_harness_are_fixed(node: NodeServer) -> None:
    answer = node.post("/models/load", {"model_id": "a/b", "harness": "vllm"})[2]
    assert answer["error"].startswith("unknown harness: vllm")


def test_a_quantisation_is_a_preflight_refusal(node: NodeServer) -> None:
    status, _, body = node.post("/models/load", {"model_id": "a/b", "quant": "Q4_K_M"})
    assert status == 422
    assert body["error"]["kind"] == "quant_not_found"
    assert body["error"]["quant"] == "Q4_K_M"
    assert "a/b:Q4_K_M" in body["error"]["suggestion"]


def test_a_preflight_refusal_carries_its_numbers(node: NodeServer) -> None:
    node.engine.load_error = InsufficientMemory("no room", hint="unload one", required_mb=9, free_mb=1)
    status, _, body = node.post("/models/load", {"model_id": "a/b"})
    assert status == 422
    assert body == {
        "error": {
            "kind": "insufficient_memory",
            "message": "no room; unload one",
            "required_mb": 9,
            "free_mb": 1,
            "suggestion": "unload one",
        }
    }
    assert node.get("/models/a/b")[2]["status"] == "failed"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidModelFile("x.gguf: truncated"), 400),
        (HarnessNotEnabled("torch is off"), 503),
        (CudaUnavailable("driver and library differ"), 503),
    ],
)
def test_a_failed_load_says_why(node: NodeServer, error: Any, status: int) -> None:
    node.engine.load_error = error
    found, _, body = node.post("/models/load", {"model_id": "a/b"})
    assert (found, body["error"], body["code"]) == (status, error.message, error.code)


def test_a_load_that_nobody_waits_for_is_202_and_goes_on(node: NodeServer) -> None:
    node.engine.load_s = 0.5
    status, _, body = node.post("/models/load", {"model_id": "a/b", "wait": False})
    assert (status, body) == (202, {"status": "loading"})
    assert node.get("/models/a/b")[2]["status"] == "loading"
    eventually(lambda: node.get("/models/a/b")[2]["status"] == "loaded")


def test_a_load_that_is_refused_at_once_is_no_202(node: NodeServer) -> None:
    node.engine.load_error = RepoFetchFailed("no such repository")
    assert node.post("/models/load", {"model_id": "a/b", "wait": False})[0] == 422


def test_a_load_streams_progress_and_its_end(node: NodeServer) -> None:
    node.engine.load_s = 0.5
    node.engine.load_steps = [Progress("fetch", 1, 9), Progress("read", 9, 9, note="from the cache")]
    assert load_events(node) == [
        {"status": "loading", "stage": "fetch", "done_bytes": 1, "total_bytes": 9},
        {"status": "loading", "stage": "read", "done_bytes": 9, "total_bytes": 9, "note": "from the cache"},
        {"status": "loaded"},
    ]


def test_a_load_that_fails_in_its_stream_says_so_as_its_last_event(node: NodeServer) -> None:
    node.engine.load_s = 0.5
    node.engine.load_error = InsufficientMemory("no room", required_mb=9)
    *_, last = load_events(node)
    assert last["status"] == "failed"
    assert last["error"]["kind"] == last["code"] == "insufficient_memory"


def load_events(node: NodeServer) -> list[dict[str, Any]]:
    status, _, payload = node.post("/models/load", {"model_id": "a/b"}, **SSE)
    assert status == 200
    return [json.loads(event[6:]) for event in payload.split(b"\n\n") if event.startswith(b"data: ")]


@pytest.mark.parametrize("headers", [{}, SSE])
def test_a_load_goes_on_when_its_client_leaves(node: NodeServer, headers: dict[str, str]) -> None:
    node.engine.load_s = 0.5
    content = b'{"model_id": "a/b"}'
    with node.connect() as sock:
        sock.sendall(http("POST", "/models/load", content, {"content-type": "application/json", **headers}))
        eventually(lambda: len(node.engine.loads) == 1)
    eventually(lambda: node.get("/models/a/b")[2]["status"] == "loaded")


def test_the_node_answers_while_it_loads(node: NodeServer) -> None:
    node.engine.load_s = 1
    node.post("/models/load", {"model_id": "a/b", "wait": False})
    began_s = time.monotonic()
    assert node.get("/health")[0] == node.get("/models")[0] == node.get("/discovery")[0] == 200
    assert time.monotonic() - began_s < 0.5
