"""Prompts that begin like earlier ones reuse what was computed: exactly, in a budget, for their caller alone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from neuron.engine.engine import Engine
from neuron.engine.events import Finished, TextDelta
from neuron.engine.prefix import NODE_TOKENS, PrefixCache
from neuron.engine.request import Generation, LoadSpec, Sampling, TokenPrompt
from neuron.files import ModelFolder
from neuron.model.cache import SequenceCache
from neuron.model.decoder import Decoder
from neuron.model.load import load_decoder
from neuron.model.safetensors_checkpoint import SafetensorsCheckpoint
from tests.engine.conftest import SETTINGS
from tests.support.tiny_chat import save_tiny_chat
from tests.support.tiny_models import CASES, reference_greedy

N_NEW = 12
LONG = [(7 * i) % 250 + 4 for i in range(90)]


async def answer(
    engine: Engine, ids: list[int], *, principal: str = "a", seed: int | None = None, n_new: int = N_NEW
) -> tuple[str, Finished]:
    """Text and end."""
    asked = Generation(
        model_id="tiny",
        prompt=TokenPrompt(ids=tuple(ids)),
        request_id="r",
        principal=principal,
        sampling=Sampling(temperature=0.0 if seed is None else 1.0, seed=seed),
        max_tokens=n_new,
        ignore_eos=True,
    )
    text, end = "", None
    async with await engine.submit(asked) as stream:
        async for event in stream:
            text += event.text if isinstance(event, TextDelta) else ""
            end = event if isinstance(event, Finished) else end
    assert end is not None
    return text, end


@pytest.fixture
async def without(tiny: tuple[Path, Any]) -> AsyncIterator[Engine]:
    """The same engine with nothing kept."""
    engine = Engine(replace(SETTINGS, prefix_cache_mb=0))
    await engine.start()
    await engine.load(LoadSpec(model_id="tiny"), lambda report: tiny[0])
    yield engine
    await engine.close()


async def test_a_prompt_that_goes_on_from_an_earlier_one_computes_only_what_is_new(engine: Engine) -> None:
    _, first = await answer(engine, LONG[:60])
    _, again = await answer(engine, LONG[:60])
    _, longer = await answer(engine, LONG)
    _, other = await answer(engine, [5, *LONG])
    assert [e.usage.cached_tokens for e in (first, again, longer, other)] == [0, 59, 60, 0]


async def test_the_tokens_of_an_answer_are_reused_too(engine: Engine, tiny: tuple[Path, Any]) -> None:
    said = reference_greedy(tiny[1], LONG[:40], N_NEW)
    await answer(engine, LONG[:40])
    next_turn = [*LONG[:40], *said, *LONG[40:60]]
    assert (await answer(engine, next_turn))[1].usage.cached_tokens == 40 + N_NEW - 1


async def test_another_caller_finds_nothing(engine: Engine) -> None:
    await answer(engine, LONG, principal="a")
    assert (await answer(engine, LONG, principal="b"))[1].usage.cached_tokens == 0
    assert (await answer(engine, LONG, principal="a"))[1].usage.cached_tokens == len(LONG) - 1


@pytest.mark.parametrize("seed", [None, 3])
async def test_answers_are_those_of_an_engine_that_keeps_nothing(
    engine: Engine, without: Engine, seed: int | None
) -> None:
    rng = random.Random(1)
    prompts = [
        LONG[: rng.randint(1, 90)] + [rng.randint(4, 250) for _ in range(rng.randint(0, 9))]
        for _ in range(20)
    ]
    want = [(await answer(without, ids, seed=seed))[0] for ids in prompts]
    assert [(await answer(engine, ids, seed=seed))[0] for ids in prompts] == want
    together = await asyncio.gather(*(answer(engine, ids, seed=seed) for ids in prompts))
    assert [text for text, _ in together] == want
    assert sum(end.usage.cached_tokens for _, end in together) > 0


async def test_an_answer_that_was_left_keeps_what_it_had_computed(engine: Engine) -> None:
    asked = Generation(
        model_id="tiny", prompt=TokenPrompt(ids=tuple(LONG)), request_id="r", principal="a", ignore_eos=True
    )
    async with await engine.submit(asked) as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                break
    assert (await answer(engine, LONG))[1].usage.cached_tokens == len(LONG) - 1


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_every_family_answers_the_same_from_a_prefix(case: Any, tmp_path: Path) -> None:
    save_tiny_chat(tmp_path, case)
    engine = Engine(SETTINGS)
    await engine.start()
    await engine.load(LoadSpec(model_id="tiny"), lambda report: tmp_path)
    try:
        fresh, first = await answer(engine, LONG, principal="a")
        await answer(engine, LONG[:50], principal="b")
        reused, second = await answer(engine, LONG, principal="b")
    finally:
        await engine.close()
    assert (first.usage.cached_tokens, second.usage.cached_tokens) == (0, 50)
    assert reused == fresh


# ---- the tree


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_chat(folder)
    checkpoint = SafetensorsCheckpoint(ModelFolder(folder))
    return load_decoder(checkpoint, device=torch.device("cpu"), dtype=torch.float32)


def filled(decoder: Decoder, ids: list[int]) -> SequenceCache:
    """A cache in which the keys and values of a place say the ids up to it."""
    cache = decoder.new_cache(len(ids) + 1)
    for at in range(len(ids)):
        cache.data[:, :, :, at] = hash(tuple(ids[: at + 1])) % 9973
    cache.length = len(ids)
    return cache


def token_bytes(decoder: Decoder) -> int:
    return decoder.arch.kv_bytes_per_token(4)


def test_whatever_is_kept_and_dropped_what_is_found_is_right(decoder: Decoder) -> None:
    rng, tree = random.Random(2), PrefixCache(200 * token_bytes(decoder))
    found = []
    for _ in range(600):
        ids = [rng.randint(0, 2) for _ in range(rng.randint(1, 40))]
        owner = rng.choice("ab")
        if rng.random() < 0.5:
            tree.keep(owner, ids, filled(decoder, ids))
        else:
            cache = decoder.new_cache(64)
            while tree.fill(owner, ids, cache, rng.randint(1, 40)):
                pass
            n = cache.length
            assert torch.equal(cache.data[:, :, :, :n], filled(decoder, ids).data[:, :, :, :n])
            found.append(n)
        assert tree.n_bytes <= tree.max_bytes
        assert tree.n_bytes == sum(node.n_bytes for node in tree._nodes)
        assert all(len(node.ids) <= NODE_TOKENS for node in tree._nodes)
        assert not next(iter(tree._nodes)).children  # so that who is dropped first is an end
    assert sum(found) > 300


def test_the_least_recently_used_goes_first(decoder: Decoder) -> None:
    tree = PrefixCache(25 * token_bytes(decoder))
    old, new, third = [1] * 10, [2] * 10, [3] * 10
    for ids in (old, new):
        tree.keep("a", ids, filled(decoder, ids))
    assert tree.fill("a", old, decoder.new_cache(20)) == 10
    tree.keep("a", third, filled(decoder, third))
    lengths = [tree.fill("a", ids, decoder.new_cache(20)) for ids in (old, new, third)]
    assert lengths == [10, 0, 10]


def test_more_than_the_budget_is_kept_as_far_as_it_fits(decoder: Decoder) -> None:
    tree = PrefixCache(8 * token_bytes(decoder))
    ids = list(range(30))
    tree.keep("a", ids, filled(decoder, ids))
    assert tree.fill("a", ids, decoder.new_cache(40)) == 8


def test_what_is_kept_bit_by_bit_ends_where_a_part_was_dropped(decoder: Decoder) -> None:
    tree = PrefixCache(30 * token_bytes(decoder))
    ids, others = list(range(20)), [50 + at for at in range(25)]
    tree.keep("a", ids[:10], filled(decoder, ids))
    tree.keep("a", ids, filled(decoder, ids), 10)
    tree.keep("b", others, filled(decoder, others))
    assert tree.fill("a", ids, decoder.new_cache(20)) == 0
    tree.keep("a", ids, filled(decoder, ids), 15)
    assert tree.fill("b", others, decoder.new_cache(30)) == 25


def test_what_begins_like_a_failed_sequence_is_dropped(decoder: Decoder) -> None:
    tree = PrefixCache(100 * token_bytes(decoder))
    for ids in ([1] * 10, [1] * 5 + [2] * 5, [3] * 10):
        tree.keep("a", ids, filled(decoder, ids))
    tree.forget("a", [1] * 7)
    assert [tree.fill("a", [n] * 10, decoder.new_cache(20)) for n in (1, 3)] == [0, 10]
    assert tree.n_bytes == 10 * token_bytes(decoder)


def test_what_was_kept_before_the_memory_ran_out_is_found_and_its_end_is_dropped_first(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, ids = PrefixCache(300 * token_bytes(decoder)), list(range(200))
    part = SequenceCache.part

    def short(cache: SequenceCache, start: int, end: int) -> torch.Tensor:
        if start > NODE_TOKENS:
            raise MemoryError
        return part(cache, start, end)

    monkeypatch.setattr(SequenceCache, "part", short)
    with pytest.raises(MemoryError):
        tree.keep("a", [9, *ids], filled(decoder, [9, *ids]))
    monkeypatch.undo()
    assert not next(iter(tree._nodes)).children
    assert tree.fill("a", [9, *ids], decoder.new_cache(201)) == 2 * NODE_TOKENS
