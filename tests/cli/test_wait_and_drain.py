"""``neuron wait`` and ``neuron drain``: what scripts wait for, against real nodes."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from dataclasses import replace

import pytest

from neuron.engine.status import DecodeStatus, LoadFigures, ModelStatus
from neuron.hardware import GpuReading
from tests.daemon.test_server_process import CHAT, process
from tests.support.cli import PROGRAM, environment, free_port, neuron
from tests.support.node_server import NodeServer, node_server, read_all


def wait(node: NodeServer, *conditions: str, timeout: str = "0") -> subprocess.CompletedProcess[str]:
    flags = [part for condition in conditions for part in ("--for", condition)]
    return neuron("wait", *flags, "--timeout", timeout, "--host", node.url)


def busy(node: NodeServer, running: int, waiting: int) -> None:
    model = node.engine.models["org/tiny"]
    node.engine.models["org/tiny"] = replace(model, load=LoadFigures(in_flight=running, queue_depth=waiting))


@pytest.mark.parametrize(
    "conditions",
    [["ready"], ["loaded=org/tiny"], ["idle"], ["memory-free=900M"], ["memory-free=0.5g", "ready"]],
)
def test_what_is_so_already_is_not_waited_for(node: NodeServer, conditions: list[str]) -> None:
    done = wait(node, *conditions)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        ("ready", "it takes no new work"),
        ("idle", "1 running, 2 waiting"),
        ("loaded=org/new", "nobody has asked for it"),
        ("loaded=org/coming", "it is loading"),
        ("loaded=org/bad", "its load failed: no weights"),
        ("memory-free=901M", "900 MB are free"),
        ("memory-free=1G", "900 MB are free"),
    ],
)
def test_what_is_not_so_ends_with_75_and_says_why(node: NodeServer, condition: str, why: str) -> None:
    busy(node, 1, 2)
    node.engine.decode = DecodeStatus(accepting=False)
    node.engine.models["org/coming"] = ModelStatus(id="org/coming", harness="torch", state="loading")
    node.engine.models["org/bad"] = ModelStatus(
        id="org/bad", harness="torch", state="failed", error="no weights"
    )
    done = wait(node, condition)
    assert (done.returncode, done.stdout) == (75, "")
    assert f"waiting for {condition}: {why}\n" in done.stderr
    assert f"neuron: not so within 0 s: {condition}: {why}\n" in done.stderr


def test_memory_is_that_of_the_gpu_that_has_the_most() -> None:
    gpus = [
        GpuReading(index=i, vram_used_mb=1, vram_free_mb=free, utilization_pct=0, temp_c=0)
        for i, free in enumerate((100, 9000, 200))
    ]
    with node_server(gpus=gpus) as node:
        assert wait(node, "memory-free=8G").returncode == 0
        assert wait(node, "memory-free=9001M").returncode == 75


def test_it_returns_when_it_becomes_so_and_says_each_reason_once(node: NodeServer) -> None:
    busy(node, 3, 0)
    threading.Timer(1.5, lambda: busy(node, 0, 0)).start()
    began_s = time.monotonic()
    done = wait(node, "idle", timeout="30")
    assert done.returncode == 0
    assert 1.2 < time.monotonic() - began_s < 10
    assert done.stderr.splitlines() == ["waiting for idle: 3 running, 0 waiting"]


def test_a_node_that_is_not_up_yet_is_waited_for() -> None:
    port = free_port()
    command = [*PROGRAM, "wait", "--for", "ready", "--timeout", "60", "--host", f"127.0.0.1:{port}"]
    waiting = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())
    assert waiting.stderr is not None
    assert "waiting for ready: no node answers at" in waiting.stderr.readline()
    serve = [*PROGRAM, "serve", "--port", str(port)]
    with subprocess.Popen(serve, stderr=subprocess.DEVNULL, env=environment()) as node:
        try:
            assert waiting.wait(60) == 0
        finally:
            node.terminate()
    waiting.stderr.close()


@pytest.mark.parametrize(
    "condition", ["", "readyy", "ready=1", "loaded", "loaded=", "idle=yes", "memory-free=8", "memory-free=-1G",
                  "memory-free=G", "memory-free=8T", "memory-free=1e3M"]
)  # fmt: skip
def test_what_is_no_condition_is_an_error_of_usage(condition: str) -> None:
    done = neuron("wait", "--for", condition)
    assert (done.returncode, done.stdout) == (64, "")
    assert "hint: " in done.stderr


def test_a_condition_is_needed() -> None:
    assert neuron("wait").returncode == 64


def test_a_drain_is_answered_at_once_or_waited_for() -> None:
    with (
        process({"texts": ["x"] * 15, "step_s": 0.1}) as node,
        node.connect("POST", "/v1/chat/completions", {**CHAT, "stream": True}) as stream,
    ):
        assert b" 200 " in stream.recv(65536)
        first = neuron("drain", "--timeout", "20", "--host", node.url)
        assert (first.returncode, first.stdout) == (0, "draining, for up to 20 s\n")
        second = neuron("drain", "--wait", "--json", "--host", node.url)
        assert b"data: [DONE]" in read_all(stream)
        assert node.end()[0] == 0
    assert second.returncode == 0
    assert json.loads(second.stdout) == {"status": "stopped", "timeout_s": 20}
    assert "up to 20 s" in second.stderr


def test_a_drain_of_nobody_is_unavailable() -> None:
    done = neuron("drain", "--host", f"127.0.0.1:{free_port()}")
    assert (done.returncode, done.stdout) == (69, "")
