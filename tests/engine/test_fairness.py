"""Callers on one model, with the real engine: whose text comes first, and how much one of them may have."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from neuron.engine.engine import Engine
from neuron.engine.request import Generation, LoadSpec, Sampling, TokenPrompt
from neuron.errors import OverShare, QueueFull
from tests.engine.conftest import SETTINGS

EMBEDDED = [TokenPrompt(ids=[5, 6, 7])]


@pytest.fixture
async def narrow(tiny: tuple[Path, Any]) -> AsyncIterator[Engine]:
    """An engine that computes one answer at a time."""
    engine = Engine(replace(SETTINGS, max_in_flight=1))
    await engine.start()
    await engine.load(LoadSpec(model_id="tiny"), lambda report: tiny[0])
    yield engine
    await engine.close()


@contextmanager
def held(engine: Engine) -> Iterator[None]:
    """The device computes nothing meanwhile, so that all who come find it busy."""
    released = threading.Event()
    engine._models.serving("tiny").worker.call(lambda: released.wait(60) and None)
    try:
        yield
    finally:
        released.set()


def asked(principal: str, limit: int | None = None, n_tokens: int = 8, n: int = 1) -> Generation:
    return Generation(
        model_id="tiny",
        prompt=TokenPrompt(ids=[5, 6, 7]),
        request_id="test",
        principal=principal,
        principal_limit=limit,
        sampling=Sampling(temperature=0.0),
        max_tokens=n_tokens,
        ignore_eos=True,
        n=n,
    )


async def test_a_light_caller_is_done_after_two_answers_of_a_heavy_one(narrow: Engine) -> None:
    order: list[str] = []

    async def to_the_end(generation: Generation) -> None:
        async with await narrow.submit(generation) as stream:
            async for _ in stream:
                pass
        order.append(generation.principal)

    with held(narrow):
        heavy = [asyncio.create_task(to_the_end(asked("heavy", n_tokens=30))) for _ in range(20)]
        while narrow.model("tiny").load.queue_depth < 19:  # type: ignore[union-attr]
            await asyncio.sleep(0.001)
        light = asyncio.create_task(to_the_end(asked("light")))
        while narrow.model("tiny").load.queue_depth < 20:  # type: ignore[union-attr]
            await asyncio.sleep(0.001)
    await light
    assert order.count("heavy") <= 2
    await asyncio.gather(*heavy)
    assert len(order) == 21


async def test_vectors_wait_in_the_same_turns(narrow: Engine) -> None:
    order: list[str] = []

    async def embedded(principal: str) -> None:
        await narrow.embed("tiny", EMBEDDED, principal=principal)
        order.append(principal)

    with held(narrow):
        heavy = [asyncio.create_task(embedded("heavy")) for _ in range(10)]
        while narrow.model("tiny").load.queue_depth < 9:  # type: ignore[union-attr]
            await asyncio.sleep(0.001)
        light = asyncio.create_task(embedded("light"))
        while narrow.model("tiny").load.queue_depth < 10:  # type: ignore[union-attr]
            await asyncio.sleep(0.001)
    await asyncio.gather(light, *heavy)
    assert order.index("light") <= 2


async def test_a_share_holds_for_text_and_vectors_together_and_for_each_caller_alone(engine: Engine) -> None:
    with held(engine):
        first, second = [await engine.submit(asked("a", 2, n_tokens=200)) for _ in range(2)]
        with pytest.raises(OverShare, match="2 answers for 'a'"):
            await engine.submit(asked("a", 2))
        with pytest.raises(OverShare):
            await engine.embed("tiny", EMBEDDED, principal="a", principal_limit=2)
    assert (await engine.embed("tiny", EMBEDDED, principal="b", principal_limit=2)).vectors
    async with second:
        pass
    while engine.model("tiny").load.in_flight > 1:  # type: ignore[union-attr]
        await asyncio.sleep(0.001)
    assert (await engine.embed("tiny", EMBEDDED, principal="a", principal_limit=2)).vectors
    async with first:
        pass
    with held(engine):
        last = await engine.submit(asked("a", 2))
        with pytest.raises(OverShare):
            await engine.submit(asked("a", 2, n=2))
    async with last:
        pass


async def test_who_finds_no_room_is_refused_before_its_prompt_is_looked_at(tiny: tuple[Path, Any]) -> None:
    engine = Engine(replace(SETTINGS, max_in_flight=1, max_queue_depth=0))
    await engine.start()
    await engine.load(LoadSpec(model_id="tiny"), lambda report: tiny[0])
    wrong = replace(asked("b"), prompt=TokenPrompt(ids=[10**6]))
    with held(engine):
        only = await engine.submit(asked("a"))
        with pytest.raises(QueueFull):
            await engine.submit(wrong)
        with pytest.raises(QueueFull):
            await engine.embed("tiny", [wrong.prompt])
    async with only:
        pass
    await engine.close()
