"""``python -m benchmarks.speculation [MODEL.gguf]``: the same answers, one token at a time and with guesses.

Writes ``docs/benchmarks/speculation.md``. Ends with an error if an answer differs.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.prompts import REQUESTS
from neuron.engine.engine import Engine
from neuron.engine.events import Finished, ReasoningDelta, TextDelta
from neuron.engine.request import ChatPrompt, Generation, LoadSpec, Sampling
from neuron.hardware import discover
from neuron.settings import Settings
from tests.support.real_model import fetched

N_NEW = 160
ROUNDS = 1
STREAMS = (1, 4, 8)
TEMPERATURES = (0.0, 0.7)
RESULT = Path(__file__).parents[1] / "docs" / "benchmarks" / "speculation.md"

HEADER = """# Guessed tokens

What `speculation` brings: SmolLM2-135M-Instruct (Q4_1) answers four requests of each kind
(`benchmarks/prompts.py`), at most {n_new} tokens each, with and without guesses in turn, in {rounds} round; every
answer was the same both ways. A cell is tokens a second without → with, of the streams together, and how many of
the guesses were right.
"""


class Measured(NamedTuple):
    """What some answers took."""

    texts: list[str]
    n_tokens: int
    seconds: float
    n_drafted: int
    n_right: int


@asynccontextmanager
async def engine_of(gguf: Path, *, speculation: bool) -> AsyncIterator[Engine]:
    """An engine that has loaded the model and keeps nothing of its prompts."""
    engine = Engine(Settings(device="cpu", prefix_cache_mb=0, kv_budget_mb=512, speculation=speculation))
    await engine.start()
    await engine.load(LoadSpec(model_id="model"), lambda report: gguf)
    yield engine
    await engine.close()


async def answered(engine: Engine, asked: Generation) -> tuple[str, Finished, float, float]:
    """Text, end, and when the first and the last token came."""
    text, end, times = "", None, []
    async with await engine.submit(asked) as stream:
        async for event in stream:
            if isinstance(event, TextDelta | ReasoningDelta | Finished):
                times.append(event.at_s)
            if isinstance(event, TextDelta):
                text += event.text
            end = event if isinstance(event, Finished) else end
    assert end is not None
    return text, end, times[0], times[-1]


async def together(engine: Engine, asked: list[Generation]) -> Measured:
    """Answers at the same time; their seconds are those from the first token of any to the last of all."""
    done = await asyncio.gather(*(answered(engine, one) for one in asked))
    usages = [end.usage for _, end, _, _ in done]
    return Measured(
        [text for text, *_ in done],
        sum(usage.completion_tokens - 1 for usage in usages),
        max(last for *_, last in done) - min(first for _, _, first, _ in done),
        sum(usage.drafted_tokens for usage in usages),
        sum(usage.drafted_right_tokens for usage in usages),
    )


def batches(kind: str, streams: int, temperature: float) -> Iterator[list[Generation]]:
    """The requests of a kind, so many at a time."""
    n = max(streams, len(REQUESTS[kind]))
    texts = list(islice(cycle(REQUESTS[kind]), n))
    asked = [
        Generation(
            model_id="model",
            prompt=ChatPrompt(messages=[{"role": "user", "content": text}]),
            request_id="benchmark",
            sampling=Sampling(temperature=temperature, seed=seed),
            max_tokens=N_NEW,
        )
        for seed, text in enumerate(texts)
    ]
    return (asked[at : at + streams] for at in range(0, n, streams))


async def cell(engines: list[Engine], kind: str, streams: int, temperature: float) -> str:
    """One kind of request, both ways in turn."""
    found: list[list[Measured]] = [[], []]
    for _ in range(ROUNDS):
        for asked in batches(kind, streams, temperature):
            pair = [await together(engine, asked) for engine in engines]
            if pair[0].texts != pair[1].texts:
                sys.exit(f"{kind}, {streams} streams, temperature {temperature}: the answers differ")
            for measured, one in zip(found, pair, strict=True):
                measured.append(one)
    without, guessed = (sum(m.n_tokens for m in some) / sum(m.seconds for m in some) for some in found)
    n_drafted, n_right = sum(m.n_drafted for m in found[1]), sum(m.n_right for m in found[1])
    share = f", {n_right / n_drafted:.0%} of {n_drafted // ROUNDS:,} right" if n_drafted else ", no guesses"
    return f"{without:,.0f} → {guessed:,.0f} (**{guessed / without:.2f} ×**{share})"


async def table(gguf: Path) -> list[str]:
    """The lines, a row for each number of streams and temperature."""
    async with AsyncExitStack() as stack:
        engines = [
            await stack.enter_async_context(engine_of(gguf, speculation=with_guesses))
            for with_guesses in (False, True)
        ]
        for engine in engines:
            await together(engine, next(batches("chat", 1, 0.0)))
        lines = [f"| | {' | '.join(REQUESTS)} |", f"|---|{'---|' * len(REQUESTS)}"]
        for streams in STREAMS:
            for temperature in TEMPERATURES:
                cells = [await cell(engines, kind, streams, temperature) for kind in REQUESTS]
                how = f"temperature {temperature:g}" if temperature else "greedy"
                lines.append(f"| {streams} stream{'s' * (streams > 1)}, {how} | {' | '.join(cells)} |")
                print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Measure and write the table."""
    gguf = Path(sys.argv[1]) if len(sys.argv) > 1 else fetched()
    cpu, load = discover().cpu, os.getloadavg()[0]
    lines = asyncio.run(table(gguf))
    facts = (
        f"- machine: {cpu.model}, {cpu.cores} cores, {torch.backends.cpu.get_cpu_capability()}",
        f"- load average before: {load:.1f}",
        f"- date: {time.strftime('%Y-%m-%d')}",
        "- command: `python -m benchmarks.speculation`",
    )
    header = HEADER.format(n_new=N_NEW, rounds=ROUNDS)
    RESULT.write_text("\n".join([header, *facts, "", *lines, ""]))


if __name__ == "__main__":
    main()
