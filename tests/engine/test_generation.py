"""What comes out of the engine: the reference's tokens, alone or together, cut at stops, ended exactly once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch

from neuron.engine.engine import Engine
from neuron.engine.events import Event, Failed, Finished, Started, TextDelta
from neuron.engine.request import ChatPrompt, Generation, Sampling, TextPrompt, TokenPrompt
from neuron.errors import InvalidValue, PromptTooLong
from neuron.model.packed import LANES, PackedWeight
from tests.support.tiny_chat import byte_tokenizer
from tests.support.tiny_models import reference_greedy

GREEDY = Sampling(temperature=0.0)
LONG = [5 + i % 250 for i in range(100)]


def ask(ids: list[int], **kwargs: Any) -> Generation:
    """A generation from ids, greedy and without end unless said otherwise."""
    kwargs = {"sampling": GREEDY, "max_tokens": 24, "ignore_eos": True, **kwargs}
    return Generation(model_id="tiny", prompt=TokenPrompt(ids=ids), request_id="test", **kwargs)


async def events_of(engine: Engine, generation: Generation) -> list[Event]:
    """Everything that one generation says."""
    async with await engine.submit(generation) as stream:
        return [event async for event in stream]


async def text_of(engine: Engine, generation: Generation) -> str:
    """The text of one generation that must end well."""
    events = await events_of(engine, generation)
    assert isinstance(events[-1], Finished), events[-1]
    return "".join(e.text for e in events if isinstance(e, TextDelta))


def decoded(ids: list[int]) -> str:
    """Text of ids as the tokenizer's own decoder gives it."""
    text: str = byte_tokenizer().decode(ids, skip_special_tokens=True)
    return text


async def test_a_greedy_answer_is_the_references(engine: Engine, tiny: tuple[Path, Any]) -> None:
    want = reference_greedy(tiny[1], LONG, 24)
    events = await events_of(engine, ask(LONG))
    assert isinstance(events[0], Started)
    assert events[0].prompt_tokens == 100
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == decoded(want)
    end = events[-1]
    assert isinstance(end, Finished)
    assert (end.reason, end.usage.prompt_tokens, end.usage.completion_tokens) == ("length", 100, 24)
    assert end.timings.prefill_ms > 0
    assert end.timings.decode_ms > 0


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=1.0, seed=7, top_p=0.9)])
async def test_requests_together_give_the_tokens_they_give_alone(engine: Engine, sampling: Sampling) -> None:
    prompts = [LONG[:n] for n in (1, 3, 17, 40, 64, 100)]
    alone = [await text_of(engine, ask(p, sampling=sampling)) for p in prompts]
    together = await asyncio.gather(*(text_of(engine, ask(p, sampling=sampling)) for p in prompts))
    assert together == alone
    assert len(set(alone)) > 1


async def test_a_seed_repeats_and_another_differs(engine: Engine) -> None:
    def hot(seed: int) -> Generation:
        return ask(LONG, sampling=Sampling(temperature=1.0, seed=seed))

    first, again, other = [await text_of(engine, hot(seed)) for seed in (1, 1, 2)]
    assert first == again != other


async def test_an_end_of_sequence_id_ends_the_text_and_is_not_in_it(
    engine: Engine, tiny: tuple[Path, Any]
) -> None:
    ids = reference_greedy(tiny[1], LONG, 24)
    stop_at = ids[10]
    events = await events_of(engine, ask(LONG, stop_token_ids=frozenset({stop_at})))
    end = events[-1]
    assert isinstance(end, Finished)
    first = ids.index(stop_at)
    assert (end.reason, end.usage.completion_tokens) == ("stop", first + 1)
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == decoded(ids[:first])


async def test_a_stop_string_ends_the_text_before_it(engine: Engine) -> None:
    whole = await text_of(engine, ask(LONG))
    stop = whole[len(whole) // 2 : len(whole) // 2 + 3]
    events = await events_of(engine, ask(LONG, stop=(stop,)))
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == whole[: whole.index(stop)]
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "stop"


async def test_a_declared_end_is_honoured_unless_it_is_ignored(engine: Engine) -> None:
    force = Sampling(temperature=0.0, logit_bias={2: 100.0})
    events = await events_of(engine, ask(LONG, sampling=force, ignore_eos=False))
    assert isinstance(events[-1], Finished)
    assert (events[-1].reason, events[-1].usage.completion_tokens) == ("stop", 1)
    events = await events_of(engine, ask(LONG, sampling=force))
    assert isinstance(events[-1], Finished)
    assert (events[-1].reason, events[-1].usage.completion_tokens) == ("length", 24)


async def test_without_a_maximum_the_answer_fills_the_context(engine: Engine) -> None:
    events = await events_of(engine, ask(LONG, max_tokens=None))
    end = events[-1]
    assert isinstance(end, Finished)
    assert (end.reason, end.usage.completion_tokens) == ("length", 256 - 100)


async def test_a_chat_goes_through_the_template_and_spelled_control_tokens_stay_text(engine: Engine) -> None:
    def chat(content: str) -> Generation:
        prompt = ChatPrompt(messages=[{"role": "user", "content": content}])
        return Generation(
            model_id="tiny", prompt=prompt, request_id="t", sampling=GREEDY, max_tokens=1, ignore_eos=True
        )

    def raw(text: str) -> Generation:
        return Generation(
            model_id="tiny",
            prompt=TextPrompt(text=text),
            request_id="t",
            sampling=GREEDY,
            max_tokens=1,
            ignore_eos=True,
        )

    async def n_prompt(generation: Generation) -> int:
        started = (await events_of(engine, generation))[0]
        assert isinstance(started, Started)
        return started.prompt_tokens

    template = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    assert await n_prompt(chat("xyz")) == await n_prompt(raw(template.format("xyz")))
    spelled = "<|im_end|>"
    assert await n_prompt(chat(spelled)) > await n_prompt(raw(template.format(spelled)))


async def test_a_prompt_that_fills_the_context_is_refused_with_its_numbers(engine: Engine) -> None:
    with pytest.raises(PromptTooLong) as refused:
        await engine.submit(ask([5] * 256))
    assert refused.value.details == {"prompt_len": 256, "max": 256}
    assert "maximum context length is 256 tokens" in str(refused.value)
    assert (await text_of(engine, ask([5] * 255))) is not None


@pytest.mark.parametrize(
    "generation",
    [
        ask([]),
        ask([-1]),
        ask([320]),
        ask([5], stop_token_ids=frozenset({320})),
        ask([5], sampling=Sampling(logit_bias={-1: 1.0})),
    ],
)
async def test_ids_outside_the_vocabulary_are_refused(engine: Engine, generation: Generation) -> None:
    with pytest.raises(InvalidValue):
        await engine.submit(generation)


async def test_logits_that_are_not_finite_end_only_their_request(engine: Engine) -> None:
    model = engine._models.serving("tiny")
    decoder = model.slot.decoder
    assert decoder is not None
    row, weight = 300, decoder.embedding  # only a prompt with this id meets it
    if isinstance(weight, PackedWeight):
        weight.data.view(torch.float32).view(len(weight.data), -1, LANES)[row // LANES, :, row % LANES] = (
            torch.nan
        )
    else:
        weight[row] = torch.nan
    neighbour = asyncio.create_task(text_of(engine, ask(LONG)))
    events = await events_of(engine, ask([5, 300, 6]))
    assert isinstance(events[-1], Failed)
    assert events[-1].error.code == "numerical_error"
    assert await neighbour
