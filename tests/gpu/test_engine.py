"""The engine and a whole node on a GPU."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from neuron.engine.engine import Engine
from neuron.engine.events import Finished, TextDelta
from neuron.engine.request import Generation, LoadSpec, Sampling, TokenPrompt
from neuron.settings import Settings
from tests.support.node_process import node
from tests.support.tiny_chat import save_tiny_chat

SETTINGS = Settings(device="cuda", dtype="float32", kv_budget_mb=64, prefill_chunk_tokens=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    save_tiny_chat(path)
    return path


@pytest.fixture
async def engine(folder: Path) -> AsyncIterator[Engine]:
    engine = Engine(SETTINGS)
    await engine.start()
    await engine.load(LoadSpec(model_id="tiny"), lambda report: folder)
    yield engine
    await engine.close()


def asked(seed: int, n_prompt: int) -> Generation:
    """Drawn, greedy or from a shortlist, in turn."""
    sampling = (
        Sampling(temperature=1.0, seed=seed),
        Sampling(temperature=0.0),
        Sampling(temperature=0.8, top_p=0.9, seed=seed),
        Sampling(temperature=1.2, top_k=5, min_p=0.05, seed=seed),
        Sampling(temperature=1.0, seed=seed, repetition_penalty=1.2),
    )[seed % 5]
    ids = tuple((7 * i + seed) % 250 + 4 for i in range(n_prompt))
    return Generation(
        model_id="tiny",
        prompt=TokenPrompt(ids=ids),
        request_id=f"r{seed}",
        sampling=sampling,
        max_tokens=40,
        ignore_eos=True,
    )


async def answer(engine: Engine, generation: Generation) -> str:
    text = ""
    async with await engine.submit(generation) as stream:
        async for event in stream:
            assert isinstance(event, TextDelta | Finished) or type(event).__name__ == "Started", event
            text += event.text if isinstance(event, TextDelta) else ""
    return text


async def test_alone_and_together_give_the_same_text(engine: Engine) -> None:
    requests = [asked(seed, 3 + 5 * seed) for seed in range(14)]
    alone = [await answer(engine, replace(r, request_id=f"alone-{r.request_id}")) for r in requests]
    assert all(alone)
    assert await asyncio.gather(*(answer(engine, r) for r in requests)) == alone


async def test_greedy_answers_are_those_of_the_cpu_whoever_comes_and_ends(
    engine: Engine, folder: Path
) -> None:
    requests = [
        replace(asked(1, 5 + 4 * i), sampling=Sampling(temperature=0.0), max_tokens=20 + 9 * i)
        for i in range(9)
    ]
    on_cpu = Engine(replace(SETTINGS, device="cpu"))
    await on_cpu.start()
    await on_cpu.load(LoadSpec(model_id="tiny"), lambda report: folder)
    want = [await answer(on_cpu, request) for request in requests]
    await on_cpu.close()
    assert await asyncio.gather(*(answer(engine, request) for request in requests)) == want
    assert [await answer(engine, request) for request in requests] == want


async def test_an_unloaded_model_leaves_no_memory_on_the_device(folder: Path) -> None:
    engine = Engine(SETTINGS)
    await engine.start()
    taken = []
    for _ in range(6):
        await engine.load(LoadSpec(model_id="tiny"), lambda report: folder)
        await answer(engine, asked(1, 20))
        await engine.unload("tiny")
        torch.cuda.synchronize()
        taken.append(torch.cuda.memory_reserved())
    await engine.close()
    # cuBLAS keeps 32 MiB for each thread and stream, which later loads use again
    assert taken[5] <= taken[2] + (2 << 20)


def test_a_node_shows_its_gpus_and_answers_on_one(folder: Path) -> None:
    with node(folder, "--device", "cuda") as running:
        running.wait_loaded(folder.name, timeout_s=180)
        assert running.get("/discovery").json()["devices"][0]["vram_total_mb"] > 1000
        assert running.get("/health").json()["devices"][0]["vram_used_mb"] > 0
        assert running.get("/models").json()[0]["devices"] == [0]
        body = {"model": folder.name, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}
        answered = running.post("/v1/chat/completions", body)
        assert answered.status_code == 200
        assert answered.json()["usage"]["completion_tokens"] > 0
        assert "cuda" in answered.json()["system_fingerprint"]
        assert running.stop() == 0
