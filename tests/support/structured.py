"""Random constraints through the engine: how many answers are complete, and whether those obey.

``python -m tests.support.structured 200`` prints the figures for the real model.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jsonschema

from neuron.engine.engine import Engine
from neuron.engine.events import Failed, Finished, TextDelta, ToolCallDelta
from neuron.engine.request import ChatPrompt, Generation, JsonSchema, LoadSpec, Sampling, ToolCalls
from neuron.settings import Settings
from tests.support.schemas import random_schema, random_tool

BATCH = 16
MAX_TOKENS = 512
SAMPLING = Sampling(temperature=1.0, top_p=0.95, frequency_penalty=0.3)
"""A model this small now and then draws a token that nothing sensible can follow, which ``top_p`` prevents;
and it fills a list without a bound with the same items for ever, which the penalty prevents: 85 % of the answers to
schemas are complete without the penalty.
"""
FORMATS = jsonschema.Draft202012Validator.FORMAT_CHECKER
SETTINGS = Settings(device="cpu", threads=1, kv_budget_mb=2048, max_in_flight=BATCH)

Check = Callable[["Answer"], None]
"""Raises where a complete answer does not obey."""


@dataclass(slots=True, kw_only=True)
class Answer:
    """What came of one generation."""

    text: str = ""
    calls: dict[int, dict[str, str]] = field(default_factory=dict)
    """Number of the call → ``name`` and ``arguments``."""
    reason: str = ""
    n_tokens: int = 0

    @property
    def is_complete(self) -> bool:
        return self.reason in ("stop", "tool_calls")


@dataclass(slots=True, kw_only=True)
class Figures:
    """Of a run."""

    answers: int = 0
    complete: int = 0
    n_tokens: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)
    """Complete answers that do not obey, and failures."""
    cut: list[str] = field(default_factory=list)
    """Answers that ran out of tokens."""

    def __str__(self) -> str:
        share = self.complete / max(1, self.answers)
        return (
            f"{self.answers} answers, {self.complete} complete ({share:.1%}), {len(self.wrong)} wrong, "
            f"{self.n_tokens} tokens, {self.n_tokens / self.seconds:.0f} tokens/s"
        )


def schema_requests(n: int, model_id: str) -> Iterator[tuple[Generation, Check]]:
    """``n`` random schemas with random seeds."""
    for seed in range(n):
        schema = random_schema(random.Random(seed))

        def check(answer: Answer, schema: Any = schema) -> None:
            jsonschema.validate(json.loads(answer.text), schema, format_checker=FORMATS)

        asked = f"Write a short example. Answer with JSON that obeys this schema: {json.dumps(schema)}"
        yield _generation(model_id, asked, seed, constraint=JsonSchema(schema=schema)), check


def tool_requests(n: int, model_id: str) -> Iterator[tuple[Generation, Check]]:
    """``n`` times one to three random tools of which one must be called."""
    for seed in range(n):
        rng = random.Random(seed)
        tools = [
            random_tool(rng, name) for name in rng.sample(["find", "send", "get_weather"], rng.randint(1, 3))
        ]

        def check(answer: Answer, tools: Any = tools) -> None:
            parameters = {t["function"]["name"]: t["function"]["parameters"] for t in tools}
            assert len(answer.calls) == 1, answer
            assert not answer.text.strip(), answer
            for call in answer.calls.values():
                jsonschema.validate(
                    json.loads(call["arguments"]), parameters[call["name"]], format_checker=FORMATS
                )

        yield (
            _generation(
                model_id,
                f"Call one of these functions with short example values: {json.dumps(tools)}",
                seed,
                tools=tools,
                constraint=ToolCalls(tools=tools, parallel=False),
                parse_tools=True,
            ),
            check,
        )


async def measure(engine: Engine, requests: Iterable[tuple[Generation, Check]]) -> Figures:
    """Run all requests, `BATCH` at a time."""
    figures, begun_s = Figures(), time.monotonic()
    places = asyncio.Semaphore(BATCH)

    async def one(generation: Generation, check: Check) -> None:
        async with places:
            answer = await _answer(engine, generation)
        figures.answers += 1
        figures.n_tokens += answer.n_tokens
        if answer.reason == "length":
            figures.cut.append(f"{generation.request_id}: {answer.text or answer.calls}")
            return
        try:
            assert answer.is_complete, answer.reason
            check(answer)
        except (AssertionError, ValueError, KeyError, jsonschema.ValidationError) as e:
            figures.wrong.append(f"{generation.request_id}: {e}: {answer}"[:2000])
        else:
            figures.complete += 1

    await asyncio.gather(*(one(*request) for request in requests))
    figures.seconds = time.monotonic() - begun_s
    return figures


def _generation(model_id: str, asked: str, seed: int, *, tools: Any = (), **more: Any) -> Generation:
    return Generation(
        model_id=model_id,
        prompt=ChatPrompt(messages=[{"role": "user", "content": asked}], tools=tools),
        request_id=f"random-{seed}",
        sampling=replace(SAMPLING, seed=seed),
        max_tokens=MAX_TOKENS,
        **more,
    )


async def _answer(engine: Engine, generation: Generation) -> Answer:
    answer = Answer()
    async with await engine.submit(generation) as stream:
        async for event in stream:
            match event:
                case TextDelta():
                    answer.text += event.text
                case ToolCallDelta():
                    call = answer.calls.setdefault(event.call, {"name": "", "arguments": ""})
                    call["name"] += event.name or ""
                    call["arguments"] += event.arguments
                case Finished():
                    answer.reason, answer.n_tokens = event.reason, event.usage.completion_tokens
                case Failed():
                    answer.reason = str(event.error)
    return answer


async def report(path: Path, n: int) -> bool:
    """Print both figures of the model in this file; whether they are good."""
    engine, good = Engine(SETTINGS), True
    await engine.start()
    try:
        await engine.load(LoadSpec(model_id="model"), lambda report: path)
        for name, requests in (("JSON schema", schema_requests), ("tool_choice required", tool_requests)):
            figures = await measure(engine, requests(n, "model"))
            print(f"{name}: {figures}", *figures.wrong, *figures.cut, sep="\n  ", flush=True)
            good = good and not figures.wrong and figures.complete >= 0.9 * figures.answers
    finally:
        await engine.close()
    return good


if __name__ == "__main__":
    from tests.support.real_model import fetched

    sys.exit(not asyncio.run(report(fetched(), int(sys.argv[1]))))
