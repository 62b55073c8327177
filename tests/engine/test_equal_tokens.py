"""However a request is computed, its tokens are the same: every family, each way, by kernels and by torch alone.

A cell of the matrix is a family, who computes and a way. Its tokens, greedy and drawn with a seed, are those of the
request alone in one piece; the greedy ones are those of transformers, too. Weights in 8 and 4 bits give tokens of
their own, the same every way where prompts are computed in float32; `tests/model/test_packed.py` has the bound of
their logits, and of those behind prompts that are rounded to 16 bits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from neuron.engine import drafts, worker
from neuron.engine.engine import Engine
from neuron.engine.events import Failed, Finished, TextDelta
from neuron.engine.request import Generation, LoadSpec, Sampling, TokenPrompt
from neuron.model import native
from neuron.model.native_step import NativeStep
from neuron.model.packed import QUANTS
from tests.engine.conftest import SETTINGS, hold_device
from tests.support.graphs_on_cpu import go_ahead
from tests.support.tiny_chat import save_tiny_chat
from tests.support.tiny_models import CASES, reference_greedy

N_NEW = 16
WHOLE = replace(
    SETTINGS, prefill_chunk_tokens=256, prefix_cache_mb=0, speculation=False, queue_timeout_s=600.0
)
GATHER_S = 0.3
"""How long the device waits for requests that are to be computed together."""
LONG = [(7 * i) % 250 + 4 for i in range(70)]
PROMPTS = (LONG, [*LONG[:45], 9, 8, 7], [*LONG[5:20] * 3, 5], [6, 66])
"""Long, with the beginning of another, repeating itself, short."""
SAMPLINGS = (
    Sampling(temperature=0.0),
    Sampling(temperature=1.0, seed=3),
    Sampling(temperature=0.8, top_k=40, top_p=0.9, min_p=0.01, seed=4),
    Sampling(temperature=0.9, repetition_penalty=1.1, frequency_penalty=0.2, seed=5),
)
WORK = tuple(product(PROMPTS, SAMPLINGS))

Tokens = tuple[int, ...]


@dataclass
class Seen:
    """What happened on the way: a way that is not taken shows nothing."""

    parts: list[list[int]] = field(default_factory=list)
    """New ids of each sequence, of each step."""
    n_native: int = 0
    """Steps in one call of the kernels."""
    n_cached: int = 0
    n_drafted: int = 0


@dataclass(frozen=True)
class Way:
    """How to have all of `WORK` computed, and how to see that it was so."""

    settings: dict[str, Any]
    shown: Callable[[Seen], bool]
    together: bool = False
    n: int = 1
    """Answers to each prompt; the first is compared."""
    uncaptured: bool = False


WAYS = {
    "alone": Way({}, lambda seen: all(len(step) == 1 for step in seen.parts)),
    "batched": Way({}, lambda seen: max(map(len, seen.parts)) > 3, together=True),
    "chunked": Way({"prefill_chunk_tokens": 7}, lambda seen: max(map(max, seen.parts)) == 7),
    "reused": Way({"prefix_cache_mb": 16}, lambda seen: seen.n_cached > sum(map(len, PROMPTS)) * 2),
    "forked": Way({}, lambda seen: max(map(len, seen.parts)) == 3, n=3),
    "uncaptured": Way({}, lambda seen: seen.n_native == 0, uncaptured=True),
    "speculated": Way({"speculation": True}, lambda seen: seen.n_drafted > 0),
    "everything": Way(
        {"prefill_chunk_tokens": 20, "prefix_cache_mb": 16, "max_in_flight": 12, "speculation": True},
        lambda seen: max(map(len, seen.parts)) > 3 and seen.n_cached > 0 and seen.n_drafted > 0,
        together=True,
        n=2,
    ),
}


@pytest.fixture(scope="module", params=["kernels", "torch"])
def by(request: pytest.FixtureRequest) -> Iterator[str]:
    """Who computes; torch alone as `NEURON_TORCH_ONLY` has it."""
    if request.param == "kernels" and native.library() is None:
        pytest.skip("no kernels were compiled: there is no C compiler")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "torch":
            patch.setenv(native.TORCH_ONLY, "1")
        native.library.cache_clear()
        yield request.param
    native.library.cache_clear()


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A model of each family, and its transformers reference."""
    folder = tmp_path_factory.mktemp(request.param.name)
    return folder, save_tiny_chat(folder, request.param)


@pytest.fixture(scope="module")
def alone(by: str, model: tuple[Path, Any]) -> list[Tokens]:
    """The tokens of each request when it is all that the engine has to do, its prompt computed in one step."""
    with pytest.MonkeyPatch.context() as patch:
        return asyncio.run(tokens(model[0], WAYS["alone"], watch(patch)))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """What happens from now on."""
    return watch(monkeypatch)


def watch(patch: pytest.MonkeyPatch) -> Seen:
    """Note steps as the device thread makes them."""
    seen, run_step, native_step = Seen(), worker.run_step, NativeStep.step

    def noted(decoder: Any, plan: Any) -> Any:
        seen.parts.append([len(part.ids) for part in plan])
        return run_step(decoder, plan)

    def noted_native(self: NativeStep, parts: Any) -> Any:
        seen.n_native += 1
        return native_step(self, parts)

    patch.setattr(drafts, "ROW_COST", 0.0)  # whatever is guessed is drafted, so that much of it is wrong
    patch.setattr(worker, "run_step", noted)
    patch.setattr(NativeStep, "step", noted_native)
    return seen


async def tokens(folder: Path, way: Way, seen: Seen, quant: str | None = None) -> list[Tokens]:
    """The tokens of all `WORK`, computed in a way."""
    engine = Engine(replace(WHOLE, **way.settings))
    await engine.start()
    try:
        await engine.load(LoadSpec(model_id="tiny", quant=quant), lambda report: folder)
        decoder = engine._models.serving("tiny").slot.decoder
        assert decoder is not None
        if way.uncaptured:
            decoder.native = None
        if way.together:
            hold_device(engine, "tiny", GATHER_S)
        work = [answer(engine, ids, sampling, way.n, seen) for ids, sampling in WORK]
        return list(await asyncio.gather(*work)) if way.together else [await one for one in work]
    finally:
        await engine.close()


async def answer(engine: Engine, ids: list[int], sampling: Sampling, n: int, seen: Seen) -> Tokens:
    """The ids of the first answer."""
    asked = replace(without_logprobs(ids, sampling), n=n, logprobs=0)
    said: list[int] = []
    async with await engine.submit(asked) as stream:
        async for event in stream:
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, TextDelta | Finished) and event.index == 0:
                said += [one.chosen.token_id for one in event.logprobs]
            if isinstance(event, Finished):
                seen.n_cached += event.usage.cached_tokens
                seen.n_drafted += event.usage.drafted_tokens
    assert len(said) == N_NEW
    return tuple(said)


@pytest.mark.parametrize("way", WAYS)
def test_the_tokens_are_the_same(
    model: tuple[Path, Any], by: str, alone: list[Tokens], seen: Seen, way: str
) -> None:
    assert asyncio.run(tokens(model[0], WAYS[way], seen)) == alone
    assert WAYS[way].shown(seen)
    assert (seen.n_native > 0) == (by == "kernels" and not WAYS[way].uncaptured)


def test_the_tokens_of_steps_ahead_are_the_same(
    model: tuple[Path, Any], by: str, alone: list[Tokens]
) -> None:
    """Drawn ones by torch alone: kernels draw otherwise where two ids all but tie."""
    plain = SAMPLINGS[:3] if by == "torch" else SAMPLINGS[:1]
    said, n_ahead = asyncio.run(tokens_ahead(model[0], plain))
    want = [one for one, (_, sampling) in zip(alone, WORK, strict=True) if sampling in plain]
    assert said == 2 * want
    assert n_ahead > N_NEW


async def tokens_ahead(folder: Path, samplings: tuple[Sampling, ...]) -> tuple[list[Tokens], int]:
    """Of requests together and one at a time, decoded as on a GPU; how many steps were ahead."""

    async def one(asked: Generation) -> Tokens:
        async with await engine.submit(asked) as stream:
            assert [event async for event in stream if isinstance(event, Finished)]
        return tuple(stream.sequences[0].ids)

    engine = Engine(WHOLE)
    await engine.start()
    try:
        await engine.load(LoadSpec(model_id="tiny"), lambda report: folder)
        graphs = go_ahead(engine, "tiny")
        hold_device(engine, "tiny", GATHER_S)
        work = [without_logprobs(ids, sampling) for ids, sampling in product(PROMPTS, samplings)]
        together = await asyncio.gather(*map(one, work))
        return [*together, *[await one(asked) for asked in work]], graphs.n_ahead
    finally:
        await engine.close()


def without_logprobs(ids: list[int], sampling: Sampling) -> Generation:
    """A request that wants nothing but ids."""
    return Generation(
        model_id="tiny",
        prompt=TokenPrompt(ids=tuple(ids)),
        request_id="r",
        sampling=sampling,
        max_tokens=N_NEW,
        ignore_eos=True,
    )


@pytest.mark.skipif(native.library() is None, reason="no kernels were compiled: there is no C compiler")
@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("quant", QUANTS)
def test_the_tokens_of_narrower_weights_are_the_same(
    model: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch, quant: str
) -> None:
    ways = {
        name: replace(way, settings={**way.settings, "exact_prompts": True}) for name, way in WAYS.items()
    }
    alone = asyncio.run(tokens(model[0], ways["alone"], watch(monkeypatch), quant))
    for name in ("chunked", "uncaptured", "everything"):
        with monkeypatch.context() as patch:
            seen = watch(patch)
            assert asyncio.run(tokens(model[0], ways[name], seen, quant)) == alone, name
            assert ways[name].shown(seen)


def test_greedy_tokens_are_those_of_the_reference(model: tuple[Path, Any], alone: list[Tokens]) -> None:
    greedy = alone[:: len(SAMPLINGS)]
    assert greedy == [tuple(reference_greedy(model[1], ids, N_NEW)) for ids in PROMPTS]


def test_requests_differ_so_that_equality_means_something(alone: list[Tokens]) -> None:
    assert len(set(alone)) == len(WORK)
