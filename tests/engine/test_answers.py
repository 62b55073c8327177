"""Several answers to one prompt, log probabilities, minimum lengths and constraints."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from neuron.engine.engine import Engine
from neuron.engine.events import Event, Finished, Started, TextDelta, TokenLogprobs
from neuron.engine.request import JsonSchema, Regex, Sampling
from neuron.engine.thinking import Thinking
from tests.engine.test_generation import GREEDY, LONG, ask, events_of, text_of
from tests.support.tiny_models import reference_greedy, reference_logits

HOT = Sampling(temperature=1.0, seed=11)


def texts(events: list[Event], n: int) -> list[str]:
    """The text of each answer."""
    deltas = [e for e in events if isinstance(e, TextDelta)]
    return ["".join(e.text for e in deltas if e.index == i) for i in range(n)]


def token_logprobs(events: list[Event]) -> list[TokenLogprobs]:
    """Of the first answer, in order."""
    carriers = [e for e in events if isinstance(e, TextDelta | Finished) and e.index == 0]
    return [x for e in carriers for x in e.logprobs]


async def test_several_answers_share_one_prefill_and_differ_by_seed(engine: Engine) -> None:
    events = await events_of(engine, ask(LONG, sampling=HOT, n=3))
    assert sum(isinstance(e, Started) for e in events) == 1
    finished = [e for e in events if isinstance(e, Finished)]
    assert sorted(e.index for e in finished) == [0, 1, 2]
    assert {e.usage.prompt_tokens for e in finished} == {100}
    alone = [await text_of(engine, ask(LONG, sampling=replace(HOT, seed=11 + i))) for i in range(3)]
    assert texts(events, 3) == alone
    assert len(set(alone)) == 3


async def test_more_answers_than_places_still_run(engine: Engine) -> None:
    model = engine._models.serving("tiny")
    model.gate.max_in_flight = 2
    events = await events_of(engine, ask(LONG, sampling=HOT, n=5, max_tokens=4))
    assert sum(isinstance(e, Finished) for e in events) == 5
    assert model.gate.in_flight == 0
    assert model.gate.kv_used_bytes == 0


async def test_a_stop_string_ends_one_of_several_answers(engine: Engine) -> None:
    whole = texts(await events_of(engine, ask(LONG, sampling=HOT, n=3)), 3)
    cuts = [whole[1][i : i + 3] for i in range(2, len(whole[1]) - 2)]
    stop = next(cut for cut in cuts if cut not in whole[0] and cut not in whole[2])
    events = await events_of(engine, ask(LONG, sampling=HOT, n=3, stop=(stop,)))
    assert texts(events, 3) == [whole[0], whole[1][: whole[1].index(stop)], whole[2]]
    ends = {e.index: (e.reason, e.stop) for e in events if isinstance(e, Finished)}
    assert ends == {0: ("length", None), 1: ("stop", stop), 2: ("length", None)}


async def test_logprobs_are_the_log_softmax_of_the_raw_logits(engine: Engine, tiny: tuple[Path, Any]) -> None:
    biased = Sampling(temperature=0.7, seed=5, logit_bias={40: 3.0}, repetition_penalty=1.3)
    events = await events_of(engine, ask(LONG, sampling=biased, logprobs=4))
    found = token_logprobs(events)
    assert len(found) == 24
    ids = [x.chosen.token_id for x in found]
    logits = reference_logits(tiny[1], LONG + ids[:-1])[99:]
    want = logits.log_softmax(dim=-1)
    for row, x in zip(want, found, strict=True):
        assert math.isclose(x.chosen.logprob, float(row[x.chosen.token_id]), abs_tol=1e-4)
        best = row.topk(4)
        assert [t.token_id for t in x.top] == best.indices.tolist()
        assert torch.allclose(torch.tensor([t.logprob for t in x.top]), best.values, atol=1e-4)


async def test_the_bytes_of_the_tokens_are_the_text(engine: Engine) -> None:
    events = await events_of(engine, ask(LONG, logprobs=0))
    data = b"".join(x.chosen.data for x in token_logprobs(events))
    assert data.decode(errors="replace") == texts(events, 1)[0]


async def test_a_minimum_length_holds_the_end_back(engine: Engine) -> None:
    eager = Sampling(temperature=0.0, logit_bias={2: 100.0})
    events = await events_of(engine, ask(LONG, sampling=eager, ignore_eos=False, min_tokens=7))
    end = events[-1]
    assert isinstance(end, Finished)
    assert (end.reason, end.usage.completion_tokens) == ("stop", 8)


async def test_a_bias_excludes_and_forces(engine: Engine, tiny: tuple[Path, Any]) -> None:
    async def ids(bias: dict[int, float]) -> list[int]:
        sampling = Sampling(temperature=0.0, logit_bias=bias)
        events = await events_of(engine, ask(LONG, sampling=sampling, max_tokens=3, logprobs=0))
        return [x.chosen.token_id for x in token_logprobs(events)]

    first = reference_greedy(tiny[1], LONG, 1)[0]
    assert (await ids({}))[0] == first
    assert (await ids({first: -100.0}))[0] != first
    assert await ids({44: 100.0}) == [44] * 3


@pytest.mark.parametrize("sampling", [GREEDY, HOT])
async def test_a_schema_is_kept_by_a_random_model(engine: Engine, sampling: Sampling) -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}, "n": {"enum": [1, 22, 333]}},
        "required": ["ok", "n"],
        "additionalProperties": False,
    }
    generation = ask(
        LONG, sampling=sampling, constraint=JsonSchema(schema=schema), ignore_eos=False, max_tokens=60, n=2
    )
    events = await events_of(engine, generation)
    assert [e.reason for e in events if isinstance(e, Finished)] == ["stop", "stop"]
    for text in texts(events, 2):
        value = json.loads(text)
        assert isinstance(value["ok"], bool)
        assert value["n"] in (1, 22, 333)


async def test_a_regular_expression_is_kept_together_with_others(engine: Engine) -> None:
    generation = ask(LONG, constraint=Regex(pattern="[0-9]{4}-[0-9]{2}"), ignore_eos=False, max_tokens=60)
    text = await text_of(engine, generation)
    assert len(text) == 7
    assert text.replace("-", "").isdigit()


def test_thinking_is_followed_by_its_markers_and_ended_by_its_budget() -> None:
    thinking = Thinking(start=(7,), end=(8, 9), budget=3)
    for token in (1, 7, 2, 3):
        assert thinking.forced() is None
        thinking.record(token)
    assert thinking.is_open
    thinking.record(4)
    for token in (8, 9):
        assert thinking.forced() == token
        thinking.record(token)
    assert not thinking.is_open
    thinking.record(7)
    assert not thinking.is_open, "a marker in the middle of an answer is text"
    assert thinking.forced() is None
