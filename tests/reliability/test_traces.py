"""Random requests that overlap, some cut off, some under an unload: who finishes has the tokens that it has alone.

A trace comes from its seed; ``NEURON_TRACE_SEED`` and ``NEURON_TRACE_REQUESTS`` choose another one and its length.
There is no tolerance: in float32 the two likeliest tokens of this model lie further apart than the last bits of a
sum.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, SupportsIndex

import pytest
import torch

from neuron.engine import step
from neuron.engine.prefix import PrefixCache
from neuron.model.cache import SequenceCache
from neuron.model.decoder import Decoder
from tests.reliability.traces import PREFIXES, Progress, come_and_go, differing, loaded, together, trace
from tests.support.scorecard import Scorecard

SEED = int(os.environ.get("NEURON_TRACE_SEED", "20"))
N_REQUESTS = int(os.environ.get("NEURON_TRACE_REQUESTS", "4000"))
N_TO_NOTICE = 400
"""Requests within which each of the mistakes below is noticed."""
EVERY = range(200, 800)
"""Requests between two unloads."""
TARGET = 2000


async def test_who_finishes_has_the_tokens_that_it_has_alone(tiny_root: Path, scorecard: Scorecard) -> None:
    wanted = trace(SEED, N_REQUESTS)
    engine, progress = await loaded(tiny_root / "tiny"), Progress(random.Random(SEED), N_REQUESTS, EVERY)
    going = asyncio.create_task(come_and_go(engine, tiny_root / "tiny", progress))
    ended = await together(engine, wanted, progress)
    n_reloads = await going
    differ = await differing(engine, wanted, ended)
    figures = engine.model("tiny")
    assert figures is not None
    assert figures.load is not None
    assert (figures.load.in_flight, figures.load.kv_free_bytes) == (0, figures.load.kv_budget_bytes)
    await engine.close()
    counts = Counter(how for how, _ in ended)
    n = counts["finished"]
    figure = f"{n} of {N_REQUESTS} finished and replayed, {len(differ)} different; {n_reloads} unloads, seed {SEED}"
    scorecard(39, figure, "2000, 0 differences", False if differ else n >= TARGET or "not run")
    assert not differ, f"seed {SEED}: requests {differ[:10]}"
    assert counts.keys() <= {"finished", "cut", "failed"}
    assert n
    assert counts["cut"]


# ---- the check must be able to fail ---------------------------------------------------------------------------


def wrong_beginning(patch: pytest.MonkeyPatch) -> None:
    """What is known of a prompt is kept for one that begins with another token."""
    right = PrefixCache.keep

    def misfiled(
        self: PrefixCache, owner: str, ids: Sequence[int], cache: SequenceCache, begin: int = 0
    ) -> None:
        first = [5 + (token - 4) % len(PREFIXES) for token in ids[:1]]
        right(self, owner, [*first, *ids[1:]], cache, begin)

    patch.setattr(PrefixCache, "keep", misfiled)


def shared_memory(patch: pytest.MonkeyPatch) -> None:
    """Sequences that run at the same time write their keys and values to the same place."""
    right, place = Decoder.new_cache, torch.empty(0)

    def in_one_place(self: Decoder, capacity: int) -> SequenceCache:
        nonlocal place
        with torch.inference_mode(False):
            cache = right(self, capacity)
        if not place.numel() or place.shape[3] < capacity:
            place = cache.data
        cache.data = place
        return cache

    patch.setattr(Decoder, "new_cache", in_one_place)


class Credulous(list[int]):
    """Guessed ids, each of which is what anybody compares it with."""

    def __getitem__(self, at: SupportsIndex | slice) -> Any:
        found = super().__getitem__(at)
        return Credulous(found) if isinstance(at, slice) else found

    def __eq__(self, other: object) -> bool:
        return bool(self)

    __hash__ = None  # type: ignore[assignment]


def unchecked_guesses(patch: pytest.MonkeyPatch) -> None:
    """What was guessed is taken for what the model chose."""
    right = step._sample

    def trusting(firsts: Any, drafts: dict[Any, list[int]], *rest: Any) -> Any:
        return right(firsts, {s: Credulous(ids) for s, ids in drafts.items()}, *rest)

    patch.setattr(step, "_sample", trusting)


def neighbours_logits(patch: pytest.MonkeyPatch) -> None:
    """Of two sequences in a step, the first gets the token of the second."""
    right = step._chosen

    def turned(rows: Any, greedy: Any, logits: Any) -> Any:
        places = [row for _, row in rows]
        return right(
            [(s, at) for (s, _), at in zip(rows, places[1:] + places[:1], strict=True)], greedy, logits
        )

    patch.setattr(step, "_chosen", turned)


@pytest.mark.parametrize("mistake", [wrong_beginning, shared_memory, unchecked_guesses, neighbours_logits])
async def test_a_mistake_of_the_engine_is_noticed(
    mistake: Callable[[pytest.MonkeyPatch], None], tiny_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mistake(monkeypatch)
    wanted = trace(SEED, N_TO_NOTICE)
    engine = await loaded(tiny_root / "tiny")
    differ = await differing(engine, wanted, await together(engine, wanted))
    await engine.close()
    assert differ
