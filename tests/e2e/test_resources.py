"""Memory of a real node: bounded while it loads and answers, given back by an unload, flat over many requests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from neuron.model.native import library
from tests.support.node_process import NodeProcess, node

pytestmark = pytest.mark.real_model

N_CYCLES = 5
N_REQUESTS = 200
REST_MB = 420
"""Beside the weights: 260 for torch and the server, the tokenizer, its grammars, what an allocator keeps."""
NOISE_MB = 16
"""What an allocator keeps or not from one moment to the next; the cache of one request here is 2 MB."""


@pytest.fixture
def idle(smollm2_gguf: Path) -> Iterator[NodeProcess]:
    """A node of its own without a model, on one thread: speed does not matter here."""
    with node("--model-root", smollm2_gguf.parent, "--threads", "1") as running:
        yield running


def load(running: NodeProcess, gguf: Path) -> int:
    """Load the model; MB of its weights."""
    assert running.post("/models/load", {"model_id": str(gguf)}).json() == {"status": "loaded"}
    weights_mb: int = running.get(f"/models/{gguf.stem}").json()["vram_used_mb"]
    return weights_mb


def ask(running: NodeProcess, gguf: Path, n: int = 2) -> None:
    """One short answer."""
    messages = [{"role": "user", "content": "Hi"}]
    body = {"model": gguf.stem, "messages": messages, "max_tokens": n, "temperature": 0}
    answer = running.post("/v1/chat/completions", body).json()
    assert answer["usage"]["completion_tokens"] == n


def unload(running: NodeProcess, gguf: Path) -> None:
    """Drop the model."""
    assert running.post("/models/unload", {"model_id": gguf.stem}).json() == {"status": "unloaded"}


def test_loading_and_answering_takes_the_weights_and_little_more(
    idle: NodeProcess, smollm2_gguf: Path
) -> None:
    weights_mb = load(idle, smollm2_gguf)
    ask(idle, smollm2_gguf)
    assert weights_mb == (93 if library() else 514), "as they are in the file, or in float32"
    assert weights_mb < idle.peak_rss_mb() <= 1.15 * weights_mb + REST_MB


def test_an_unload_gives_the_memory_back_every_time(idle: NodeProcess, smollm2_gguf: Path) -> None:
    for _ in range(N_CYCLES):
        load(idle, smollm2_gguf)
        ask(idle, smollm2_gguf)
        unload(idle, smollm2_gguf)
    before_mb = idle.rss_mb()  # with what the libraries keep once they were used a few times
    for _ in range(N_CYCLES):
        weights_mb = load(idle, smollm2_gguf)
        ask(idle, smollm2_gguf)
        assert idle.rss_mb() > before_mb + 0.9 * weights_mb
        unload(idle, smollm2_gguf)
        assert idle.rss_mb() <= before_mb + 0.05 * weights_mb + NOISE_MB
    assert idle.peak_rss_mb() <= 1.15 * weights_mb + REST_MB


def test_many_requests_leave_the_memory_as_it_was(idle: NodeProcess, smollm2_gguf: Path) -> None:
    load(idle, smollm2_gguf)
    for _ in range(5):
        ask(idle, smollm2_gguf)
    before_mb = idle.rss_mb()
    for _ in range(N_REQUESTS):
        ask(idle, smollm2_gguf)
    assert idle.rss_mb() <= before_mb + NOISE_MB
