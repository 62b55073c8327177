"""What the engine itself costs for a token: ``python -m benchmarks.engine``.

The decoder is a stand-in that waits as long as a step on a GPU takes and then has logits from a table, so what
is left is Python: of the device thread (plan, choice, bookkeeping) and of the event loop (text, events, delivery to
who reads). Both hold the interpreter, so both lengthen a step. Only steps that all streams take part in count.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from neuron.engine.ahead import Ahead
from neuron.engine.engine import Engine
from neuron.engine.events import Finished
from neuron.engine.loaded import LoadedModel
from neuron.engine.request import Generation, LoadSpec, Sampling, TokenPrompt
from neuron.model.cache import SequenceCache
from neuron.model.decoder import Decoder, Parts
from neuron.model.graphs import Choose
from neuron.settings import Settings
from tests.support.tiny_chat import save_tiny_chat

STREAMS = (1, 8, 64)


class Way(NamedTuple):
    """How ids are chosen, and whether a step is launched before those of the last are read."""

    sampling: Sampling
    ahead: bool = False


WAYS = {
    "greedy, steps ahead": Way(Sampling(temperature=0.0), ahead=True),
    "greedy": Way(Sampling(temperature=0.0)),
    "drawn": Way(Sampling(temperature=0.8, top_p=0.9)),
}
N_PROMPT, N_NEW, ROUNDS = 16, 232, 5
SETTINGS = Settings(
    device="cpu",
    threads=1,
    max_in_flight=max(STREAMS),
    prefix_cache_mb=0,
    speculation=False,
    kv_budget_mb=512,
)


class Moment(NamedTuple):
    """Seconds: passed, of the device thread on a processor, of the event loop's thread on one."""

    wall_s: float
    device_s: float
    loop_s: float


class StandIn:
    """A step that computes nothing, and notes when it was called with one token of every stream."""

    most = max(STREAMS)

    def __init__(self, decoder: Decoder, n_streams: int, step_s: float) -> None:
        self._table = torch.rand(n_streams, decoder.arch.vocab_size)
        self._best = self._table.argmax(dim=-1).tolist()
        self._n_streams, self._step_s, self._done_s = n_streams, step_s, 0.0
        self._loop_clock = time.pthread_getcpuclockid(threading.main_thread().ident or 0)
        self.moments: list[Moment] = []

    def step(self, parts: Parts) -> Tensor:
        """As `Decoder.step`, on the device thread."""
        if [len(ids) for _, ids, _ in parts] == [1] * self._n_streams:
            self._note()
        for cache, ids, _ in parts:
            cache.length += len(ids)
        time.sleep(self._step_s)
        return self._table[: sum(n for _, _, n in parts)]

    def launch(
        self, tokens: Sequence[int], caches: Sequence[SequenceCache], choose: Choose | None = None
    ) -> Launched:
        """As of `DecodeGraphs`; one step begins when the one before is done."""
        return self.launch_next(caches)

    def launch_next(self, caches: Sequence[SequenceCache], choose: Choose | None = None) -> Launched:
        """As of `DecodeGraphs`."""
        if len(caches) == self._n_streams:
            self._note()
        for cache in caches:
            cache.length += 1
        self._done_s = max(self._done_s, time.perf_counter()) + self._step_s
        return Launched(self._best[: len(caches)], self._done_s)

    def a_step(self) -> Moment:
        """The mean of a step that was noted; forgets them."""
        first, last, n = self.moments[0], self.moments[-1], len(self.moments) - 1
        self.moments = []
        return Moment(*((b - a) / n for a, b in zip(first, last, strict=True)))

    def _note(self) -> None:
        loop_s = time.clock_gettime(self._loop_clock)
        self.moments.append(Moment(time.perf_counter(), time.thread_time(), loop_s))


class Launched(NamedTuple):
    """Ids that are there at a time."""

    ids: list[int]
    done_s: float

    def read(self) -> list[int]:
        """Wait for them."""
        time.sleep(max(0.0, self.done_s - time.perf_counter()))
        return self.ids


async def steps(folder: Path, n: int, way: Way, step_s: float, profiled: bool) -> list[Moment]:
    """The mean step of every round of so many streams."""
    engine = Engine(SETTINGS)
    await engine.start()
    await engine.load(LoadSpec(model_id="model"), lambda report: folder)
    model = engine._models.serving("model")
    assert model.slot.decoder is not None
    stand_in: Any = StandIn(model.slot.decoder, n, step_s)
    model.slot.decoder.step = stand_in.step  # type: ignore[method-assign]
    model.slot.ahead = Ahead(stand_in, model.slot.meter) if way.ahead else None
    found = []
    for at in range(ROUNDS + 1):
        with profiles(model) if profiled and at else nothing():
            await asyncio.gather(*(one(engine, number, way.sampling) for number in range(n)))
        found.append(stand_in.a_step())
    await engine.close()
    return found[1:]


async def one(engine: Engine, number: int, sampling: Sampling) -> None:
    """A request and a reader of its answer."""
    asked = Generation(
        model_id="model",
        prompt=TokenPrompt(ids=tuple(4 + (i + number) % 200 for i in range(N_PROMPT))),
        request_id=str(number),
        sampling=replace(sampling, seed=number),
        max_tokens=N_NEW,
        ignore_eos=True,
    )
    async with await engine.submit(asked) as stream:
        ends = [event async for event in stream if isinstance(event, Finished)]
    assert ends[0].usage.completion_tokens == N_NEW


@contextmanager
def nothing() -> Iterator[None]:
    yield


@contextmanager
def profiles(model: LoadedModel) -> Iterator[None]:
    """Print which functions took the time of the event loop and of the device thread."""
    loop, device = cProfile.Profile(), cProfile.Profile()
    model.worker.call(device.enable)
    loop.enable()
    yield
    loop.disable()
    model.worker.call(device.disable)
    for profile in (loop, device):
        pstats.Stats(profile).sort_stats("tottime").print_stats(24)


def main() -> None:
    """Print a row for each number of streams and way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", nargs="+", type=int, default=STREAMS, metavar="N")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--step-ms", type=float, default=3.6, help="how long the stand-in takes")
    parser.add_argument("--profile", action="store_true", help="show the functions of both threads")
    said = parser.parse_args()
    print("| streams | | device thread, µs a token | event loop, µs a token | ms a step |\n|" + " --- |" * 5)
    with tempfile.TemporaryDirectory() as folder:
        save_tiny_chat(Path(folder))
        for n in said.streams:
            for way in said.ways:
                found = asyncio.run(
                    steps(Path(folder), n, WAYS[way], said.step_ms / 1e3, profiled=said.profile)
                )
                wall_s, device_s, loop_s = (median(column) for column in zip(*found, strict=True))
                cells = f"{1e6 * device_s / n:.1f} | {1e6 * loop_s / n:.1f} | {1e3 * wall_s:.2f}"
                print(f"| {n} | {way} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
