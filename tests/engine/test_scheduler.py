"""Who takes part in the next step."""

from __future__ import annotations

from typing import Any

import pytest

from neuron.engine.request import Generation, Sampling, TokenPrompt
from neuron.engine.scheduler import Scheduler
from neuron.engine.sequence import Sequence


class Cache:
    """What a plan asks of a cache."""

    length = 0


def sequence(n_prompt: int) -> Sequence:
    """A prompt of so many tokens that was admitted."""
    prompt = TokenPrompt(ids=(1,) * n_prompt)
    cache: Any = Cache()
    return Sequence(
        generation=Generation(model_id="m", prompt=prompt, request_id="r"),
        prompt_ids=[1] * n_prompt,
        sampling=Sampling(),
        max_new_tokens=10,
        kv_bytes=0,
        end_ids=frozenset(),
        cache=cache,
    )


def steps_until(scheduler: Scheduler, one: Sequence) -> int:
    """Steps until the prompt of a sequence is computed."""
    for n in range(1, 1000):
        for part in scheduler.plan():
            part.sequence.cache.length += len(part.ids)  # type: ignore[union-attr]
        if one.is_decoding:
            return n
    raise AssertionError("it is never computed")


@pytest.mark.parametrize("n_long", [1, 6])
def test_a_short_prompt_waits_for_a_chunk_of_the_long_ones_before_it(n_long: int) -> None:
    scheduler, short = Scheduler(chunk_tokens=100), sequence(20)
    scheduler.running = [*(sequence(3000) for _ in range(n_long)), short]
    assert steps_until(scheduler, short) <= 2


def test_a_long_prompt_is_computed_however_many_short_ones_come() -> None:
    scheduler, long = Scheduler(chunk_tokens=100), sequence(3000)
    scheduler.running = [long, *(sequence(99) for _ in range(500))]
    quarter = 25  # of a chunk, as others decode
    assert steps_until(scheduler, long) <= 2 * 3000 / quarter
