"""Random requests that overlap, some cut off, some under an unload: who finishes has the tokens that it has alone.

A trace comes from its seed; ``NEURON_TRACE_SEED`` and ``NEURON_TRACE_REQUESTS`` choose another one and its length.
There is no tolerance: in float32 the two likeliest tokens of this model lie further apart than the last bits of a
sum.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter, defaultdict
from pathlib import Path

from neuron.engine.engine import Engine
from neuron.engine.events import Failed, Finished, TextDelta
from neuron.engine.request import Generation, LoadSpec, Regex, Sampling, TokenPrompt
from neuron.errors import NeuronError
from neuron.settings import Settings
from tests.support.scorecard import Scorecard

SEED = int(os.environ.get("NEURON_TRACE_SEED", "20"))
N_REQUESTS = int(os.environ.get("NEURON_TRACE_REQUESTS", "200"))
SETTINGS = Settings(
    device="cpu", threads=1, kv_budget_mb=16, prefill_chunk_tokens=16, max_queue_depth=10_000, queue_timeout_s=600
)  # fmt: skip
AT_ONCE = 48
TARGET = 2000
PREFIXES = [[5 + i, *range(10, 10 + 12 * i)] for i in range(4)]
Texts = dict[int, str]


def request(rng: random.Random, number: int) -> Generation:
    """One of the trace: short or long, of a shared beginning or not, greedy or drawn, free or constrained."""
    ids = rng.choice(PREFIXES) + [rng.randrange(4, 300) for _ in range(rng.randrange(1, 40))]
    drawn = Sampling(temperature=0.9, top_p=0.9, seed=rng.randrange(1000))
    return Generation(
        model_id="tiny",
        prompt=TokenPrompt(ids=ids),
        request_id=str(number),
        sampling=rng.choice([Sampling(temperature=0.0), drawn]),
        max_tokens=rng.choice([1, 4, 12, 40]),
        n=rng.choice([1, 1, 1, 3]),
        ignore_eos=True,
        constraint=rng.choice([None, None, None, Regex(pattern="[0-9]{3,60}")]),
    )


async def answer(engine: Engine, wanted: Generation, leave_after: int | None = None) -> tuple[str, Texts]:
    """How it ended, and the text of each answer."""
    texts: Texts = defaultdict(str)
    try:
        async with await engine.submit(wanted) as stream:
            n_events = 0
            async for event in stream:
                n_events += 1
                if isinstance(event, TextDelta):
                    texts[event.index] += event.text
                if leave_after is not None and n_events > leave_after:
                    return "cut", texts
    except NeuronError:
        return "refused", texts
    ends = {type(event) for event in [event] if isinstance(event, Finished | Failed)}
    return ("finished" if ends == {Finished} else "failed"), texts


async def loaded(folder: Path) -> Engine:
    engine = Engine(SETTINGS)
    await engine.start()
    await engine.load(LoadSpec(model_id="tiny"), lambda report: folder)
    return engine


async def come_and_go(engine: Engine, folder: Path, done: asyncio.Event, rng: random.Random) -> int:
    """Unload and load the model again and again; how often."""
    n = 0
    while not done.is_set():
        await asyncio.sleep(rng.uniform(0.5, 1.5))
        await engine.unload("tiny", now=rng.random() < 0.5)
        await engine.load(LoadSpec(model_id="tiny"), lambda report: folder)
        n += 1
    return n


async def test_who_finishes_has_the_tokens_that_it_has_alone(tiny_root: Path, scorecard: Scorecard) -> None:
    rng = random.Random(SEED)
    wanted = [request(rng, number) for number in range(N_REQUESTS)]
    leaves = [rng.choice([None, None, None, 0, 2, 9]) for _ in wanted]
    engine, places, done = await loaded(tiny_root / "tiny"), asyncio.Semaphore(AT_ONCE), asyncio.Event()

    async def one(number: int) -> tuple[str, Texts]:
        async with places:
            while (ended := await answer(engine, wanted[number], leaves[number]))[0] == "refused":
                await asyncio.sleep(0.02)  # the model is on its way out or in
            return ended

    going = asyncio.create_task(come_and_go(engine, tiny_root / "tiny", done, random.Random(SEED)))
    ended = await asyncio.gather(*(one(number) for number in range(N_REQUESTS)))
    done.set()
    n_reloads = await going
    finished = [n for n, (how, _) in enumerate(ended) if how == "finished"]
    differ = [n for n in finished if (await answer(engine, wanted[n]))[1] != ended[n][1]]
    figures = engine.model("tiny")
    assert figures is not None
    assert figures.load is not None
    assert (figures.load.in_flight, figures.load.kv_free_bytes) == (0, figures.load.kv_budget_bytes)
    await engine.close()
    counts = dict(Counter(how for how, _ in ended))
    assert sum(counts.values()) == N_REQUESTS
    figure = f"{len(finished)} replayed, {len(differ)} different; {counts}, {n_reloads} unloads, seed {SEED}"
    scorecard(39, figure, "2000, 0 differences", False if differ else len(finished) >= TARGET or "not run")
    assert not differ, f"seed {SEED}: requests {differ[:10]}"
    assert finished
    assert counts.get("cut")
