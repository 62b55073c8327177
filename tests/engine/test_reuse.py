"""What is copied between two steps of a running stream is little, whatever begins and ends beside it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from neuron import faults
from neuron.engine import worker
from neuron.engine.engine import Engine
from neuron.engine.events import Failed, Finished
from neuron.engine.prefix import NODE_TOKENS
from neuron.engine.request import Generation, LoadSpec, Sampling, TokenPrompt
from neuron.model.cache import SequenceCache
from tests.engine.conftest import SETTINGS
from tests.support.tiny_chat import save_tiny_chat
from tests.support.tiny_models import CASES

LONG = [(7 * i + i // 250) % 250 + 4 for i in range(1500)]
CHUNK = SETTINGS.prefill_chunk_tokens


@pytest.fixture(scope="module")
def long_tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with room for long prompts."""
    folder = tmp_path_factory.mktemp("long")
    save_tiny_chat(folder, replace(CASES[0], values={"max_position_embeddings": 4096}))
    return folder


@pytest.fixture
async def engine(long_tiny: Path) -> AsyncIterator[Engine]:
    """An engine that has loaded it."""
    engine = Engine(SETTINGS)
    await engine.start()
    await engine.load(LoadSpec(model_id="tiny"), lambda report: long_tiny)
    yield engine
    await engine.close()


def asked(ids: list[int], n_new: int, n: int = 1) -> Generation:
    return Generation(
        model_id="tiny",
        prompt=TokenPrompt(ids=tuple(ids)),
        request_id="r",
        principal="a",
        sampling=Sampling(temperature=0.0),
        max_tokens=n_new,
        ignore_eos=True,
        n=n,
    )


async def answered(engine: Engine, ids: list[int], n_new: int, n: int = 1) -> Finished:
    """The end of the first answer, once all have ended."""
    ends: list[Finished] = []
    async with await engine.submit(asked(ids, n_new, n)) as stream:
        async for event in stream:
            assert not isinstance(event, Failed)
            ends += [event] if isinstance(event, Finished) else []
    return next(end for end in ends if end.index == 0)


class Copied:
    """Tokens that were copied before each step, if it is one of a stream that ran already."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.between: list[int] = []
        self._n = 0
        self._streams: set[Any] = set()
        self._run_step = worker.run_step
        for name in ("part", "extend"):
            patch.setattr(SequenceCache, name, self._counted(getattr(SequenceCache, name)))
        patch.setattr(worker, "run_step", self._step)

    def _counted(self, inner: Any) -> Any:
        def counted(cache: SequenceCache, *given: Any) -> Any:
            before = cache.length
            result = inner(cache, *given)
            self._n += result.shape[3] if result is not None else cache.length - before
            return result

        return counted

    def _step(self, decoder: Any, plan: Any) -> Any:
        streams = {part.sequence for part in plan if part.sequence.ids}
        if streams & self._streams:
            self.between.append(self._n)
        if len(plan) == 1 and self._streams:
            time.sleep(0.005)  # the stream is not to end before the others have come
        self._streams, self._n = streams, 0
        return self._run_step(decoder, plan)


async def test_little_is_copied_between_two_steps_of_a_running_stream(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = Copied(monkeypatch)
    async with await engine.submit(asked([9] * 20, 4000)) as running:
        events = aiter(running)
        while not isinstance(await anext(events), Finished):
            if copied.between:
                break
        await answered(engine, LONG, 1)
        shares = await answered(engine, [*LONG[:1100], *[5] * 30], 1)
        again = await answered(engine, [*LONG[:1400], *[6] * 30], 200)
        await answered(engine, [*LONG[:1000], 7], 2, n=3)
    assert (shares.usage.cached_tokens, again.usage.cached_tokens) == (1100, 1400)
    most = max(engine._models.serving("tiny").slot.piece_tokens, NODE_TOKENS)
    assert sum(copied.between) > len(LONG) + 1100 + 1400 + 3 * 1000
    assert max(copied.between) <= 2 * (most + NODE_TOKENS)


async def test_a_prompt_is_known_while_the_first_that_had_it_still_runs(engine: Engine) -> None:
    async with await engine.submit(asked(LONG, 2000)) as running:
        async for event in running:
            if not isinstance(event, Finished):
                break
        again = await answered(engine, LONG, 2)
    assert again.usage.cached_tokens > len(LONG) - NODE_TOKENS - CHUNK


async def test_of_requests_that_come_together_one_computes_what_all_begin_with(engine: Engine) -> None:
    ends = await asyncio.gather(*(answered(engine, [*LONG, at], 4) for at in range(4, 8)))
    computed = sum(end.usage.prompt_tokens - end.usage.cached_tokens for end in ends)
    assert computed < 1.5 * len(LONG)


async def test_nothing_is_kept_of_what_a_failed_answer_begins_with(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await answered(engine, LONG[:200], 2)
    faults.arm({faults.VARIABLE: "logits:nan@1", faults.SWITCH: "1"})
    try:
        async with await engine.submit(asked([*LONG[:200], 7], 2)) as stream:
            assert [type(event) async for event in stream][-1] is Failed
    finally:
        faults.arm({})
    assert (await answered(engine, LONG[:200], 2)).usage.cached_tokens == 0
