"""Memory of a real node by what the weights are kept in: weights, reserved keys and values, and a stated constant.

The same after 200 requests. The constant, `REST_MB`, is what torch, the server and an allocator take beside.
"""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import torch

from neuron.model import native
from tests.e2e.test_resources import NOISE_MB, REST_MB
from tests.reliability.hostile.ggufs import vocabulary
from tests.support.gguf_files import write_gguf
from tests.support.node_process import NodeProcess, node
from tests.support.tiny_chat import save_tiny_chat
from tests.support.tiny_models import Case

N_REQUESTS = 200
MEDIUM = Case(
    "medium",
    "LlamaConfig",
    {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "max_position_embeddings": 1024},
)
N_WEIGHTS = 12 * (768 * 768 * 2 + 2 * 768 * 384 + 3 * 768 * 2048) + 2 * 320 * 768
BITS = {
    "F32": 32,
    "F16": 16,
    "BF16": 16,
    "Q8_0": 8.5,
    "Q4_0": 4.5,
    "Q4_1": 5,
    "Q4_K": 5,
    "int8": 8.5,
    "int4": 5,
}
"""What a weight takes, with its share of a group's scale and minimum."""
GGUF = ("F32", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K")
KV_BYTES = 2 * 12 * 2 * 192 * 4
"""Of a token in float32."""

pytestmark = pytest.mark.skipif(
    native.library() is None, reason="no kernels were compiled: there is no C compiler"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 87 million weights in float32 and float16, and as GGUF."""
    root = tmp_path_factory.mktemp("medium")
    reference = save_tiny_chat(root / "F32", MEDIUM)
    save_tiny_chat(root / "F16", MEDIUM)
    reference.to(torch.float16).save_pretrained(root / "F16")
    return root


def ask(running: NodeProcess, n: int) -> None:
    """So many short answers, to prompts that differ."""
    with httpx.Client(base_url=running.url, timeout=60, trust_env=False) as client:
        for i in range(n):
            body = {"model": "m", "prompt": f"{i} says", "max_tokens": 3, "ignore_eos": True}
            answer = client.post("/v1/completions", json=body).json()
            assert answer["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("form", BITS)
def test_memory_is_the_weights_the_reserved_cache_and_a_constant(
    folder: Path, form: str, tmp_path: Path
) -> None:
    quant = ("--quant", form) if form.startswith("int") else ()
    if form in GGUF:
        model = write_gguf(tmp_path / "m.gguf", folder / "F32", form, extra=vocabulary())
    else:
        (model := tmp_path / "m").symlink_to(folder / ("F32" if quant else form))
    with node(model, "--threads", "1", "--prefix-cache-mb", "0", *quant) as running:
        running.wait_loaded("m")
        ask(running, 10)
        about = running.get("/models/m").json()
        weights_mb = N_WEIGHTS * BITS[form] / 8 / 2**20
        assert about["vram_used_mb"] == pytest.approx(weights_mb, abs=1.5)
        bound_mb = weights_mb + KV_BYTES * 1024 / 2**20 + REST_MB
        steady_mb = running.rss_mb()
        assert steady_mb <= running.peak_rss_mb() <= bound_mb
        ask(running, N_REQUESTS)
        assert running.rss_mb() <= steady_mb + NOISE_MB
        assert running.peak_rss_mb() <= bound_mb
