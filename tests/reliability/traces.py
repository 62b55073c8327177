"""Random requests for an engine, asked all at once or one alone, and how each of them ended."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

from neuron.engine.engine import Engine
from neuron.engine.events import Failed, Finished, TextDelta
from neuron.engine.request import Generation, LoadSpec, Regex, Sampling, TokenPrompt
from neuron.errors import NeuronError
from neuron.settings import Settings

SETTINGS = Settings(
    device="cpu", threads=1, kv_budget_mb=16, prefill_chunk_tokens=16, max_queue_depth=10_000, queue_timeout_s=600
)  # fmt: skip
AT_ONCE = 48
PREFIXES = [[5 + i, *range(10, 10 + 12 * i)] for i in range(4)]
Texts = dict[int, str]
Ended = tuple[str, Texts]
"""How a request ended, and the text of each answer."""


class Wanted(NamedTuple):
    """A request of the trace, and after how many events its client leaves."""

    generation: Generation
    leave_after: int | None


def trace(seed: int, n_requests: int) -> list[Wanted]:
    """What a seed stands for."""
    rng = random.Random(seed)
    generations = [_request(rng, number) for number in range(n_requests)]
    return [Wanted(one, rng.choice([None, None, None, 0, 2, 9])) for one in generations]


def _request(rng: random.Random, number: int) -> Generation:
    """Short or long, of a shared beginning or not, greedy or drawn, free or constrained."""
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


async def loaded(folder: Path) -> Engine:
    """An engine with the model ``tiny``."""
    engine = Engine(SETTINGS)
    await engine.start()
    await engine.load(LoadSpec(model_id="tiny"), lambda report: folder)
    return engine


class Progress:
    """How far a trace is: what happens beside it depends on that, not on how fast the machine is."""

    def __init__(self, rng: random.Random, n_requests: int, every: range) -> None:
        self.n_ended = 0
        self._rng, self._n_requests, self._every = rng, n_requests, every

    async def moments(self) -> AsyncIterator[bool]:
        """Whenever so many more requests have ended; whether running answers are to be cut then."""
        at = 0
        while (at := at + self._rng.choice(self._every)) < self._n_requests:
            while self.n_ended < at:
                await asyncio.sleep(0.005)
            yield self._rng.random() < 0.5


async def come_and_go(engine: Engine, folder: Path, progress: Progress) -> int:
    """Unload and load the model again and again; how often."""
    n = 0
    async for now in progress.moments():
        await engine.unload("tiny", now=now)
        await engine.load(LoadSpec(model_id="tiny"), lambda report: folder)
        n += 1
    return n


async def answer(engine: Engine, wanted: Wanted) -> Ended:
    """``finished``, ``failed``, ``cut`` or ``refused``."""
    texts: Texts = defaultdict(str)
    try:
        async with await engine.submit(wanted.generation) as stream:
            n_events = 0
            async for event in stream:
                n_events += 1
                if isinstance(event, TextDelta):
                    texts[event.index] += event.text
                if wanted.leave_after is not None and n_events > wanted.leave_after:
                    return "cut", texts
    except NeuronError:
        return "refused", texts
    ends = {type(event) for event in [event] if isinstance(event, Finished | Failed)}
    return ("finished" if ends == {Finished} else "failed"), texts


async def together(engine: Engine, wanted: list[Wanted], progress: Progress | None = None) -> list[Ended]:
    """All of them, so many at a time; who is refused because the model leaves or comes asks again."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(request: Wanted) -> Ended:
        async with places:
            while (ended := await answer(engine, request))[0] == "refused":
                await asyncio.sleep(0.02)
            if progress is not None:
                progress.n_ended += 1
            return ended

    return await asyncio.gather(*map(one, wanted))


async def differing(engine: Engine, wanted: list[Wanted], ended: list[Ended]) -> list[int]:
    """Which of those that finished get other texts alone."""
    finished = [i for i, (how, _) in enumerate(ended) if how == "finished"]
    return [i for i in finished if (await answer(engine, wanted[i]))[1] != ended[i][1]]
