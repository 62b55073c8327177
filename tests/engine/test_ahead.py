"""Steps launched before the ids of the step before are known: the same answers, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from neuron import faults
from neuron.engine.engine import Engine
from neuron.engine.events import Failed, Finished, TextDelta
from neuron.engine.request import Generation, LoadSpec, Sampling, TokenPrompt
from neuron.engine.stream import Stream
from neuron.errors import NeuronError, NumericalError
from neuron.model.graphs import advance
from tests.engine.conftest import SETTINGS, hold_device
from tests.support.graphs_on_cpu import GraphsOnCpu, go_ahead
from tests.support.tiny_models import reference_greedy

N_NEW = 24
PROMPTS = [[(7 * i + 11 * n) % 250 + 4 for i in range(5 + 3 * n)] for n in range(6)]
GATHER_S = 0.3
"""How long the device waits for requests that are to be computed together."""


@pytest.fixture
async def ahead(tiny: tuple[Path, Any]) -> AsyncIterator[tuple[Engine, GraphsOnCpu]]:
    """An engine whose model decodes as on a GPU, and the steps that it launched."""
    engine = Engine(replace(SETTINGS, speculation=False))
    await engine.start()
    await engine.load(LoadSpec(model_id="tiny"), lambda report: tiny[0])
    yield engine, go_ahead(engine, "tiny")
    await engine.close()


@pytest.fixture
def planned() -> Iterator[Any]:
    """Plans faults."""
    yield lambda text: faults.arm({faults.VARIABLE: text, faults.SWITCH: "1"})
    faults.arm({})


def asked(ids: list[int], **other: Any) -> Generation:
    said = {"sampling": Sampling(temperature=0.0), "max_tokens": N_NEW, "ignore_eos": True, **other}
    return Generation(model_id="tiny", prompt=TokenPrompt(ids=tuple(ids)), request_id="r", **said)


async def read(stream: Stream) -> list[int]:
    """The ids of an answer, once it has ended."""
    async with stream:
        async for event in stream:
            if isinstance(event, Failed):
                raise event.error
    return stream.sequences[0].ids


async def together(engine: Engine, requests: list[Generation]) -> list[list[int] | NeuronError]:
    """The ids of answers that are computed side by side, or what went wrong."""

    async def one(request: Generation) -> list[int] | NeuronError:
        try:
            return await read(await engine.submit(request))
        except NeuronError as e:
            return e

    hold_device(engine, "tiny", GATHER_S)
    return list(await asyncio.gather(*map(one, requests)))


def test_a_table_becomes_that_of_the_next_step_and_no_length_leaves_its_cache() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [torch.nan, 1.0, 2.0], [5.0, -torch.inf, 0.0], [1.0, 1.0, 0.0]])
    table = torch.tensor([[70, 71, 72, 73], [9, 9, 9, 1], [4, 7, 8, 0], [0, 0, 0, 0]])
    assert advance(logits, table).tolist() == [1, -1, -1, 0]
    assert table.tolist() == [[70, 71, 72, 73], [9, 9, 9, 1], [5, 8, 8, 0], [1, 0, 0, 0]]


async def test_answers_of_different_lengths_end_where_they_should(
    tiny: tuple[Path, Any], ahead: tuple[Engine, GraphsOnCpu]
) -> None:
    lengths = (1, 2, 3, 9, 10, N_NEW)
    requests = [asked(ids, max_tokens=n) for ids, n in zip(PROMPTS, lengths, strict=True)]
    want = [reference_greedy(tiny[1], ids, n) for ids, n in zip(PROMPTS, lengths, strict=True)]
    assert await together(ahead[0], requests) == want
    assert ahead[1].n_ahead > N_NEW / 2
    assert [await read(await ahead[0].submit(request)) for request in requests] == want


async def test_ids_that_end_the_text_end_it_and_nothing_of_the_step_too_far_is_kept(
    tiny: tuple[Path, Any], ahead: tuple[Engine, GraphsOnCpu], engine: Engine
) -> None:
    whole = [reference_greedy(tiny[1], ids, N_NEW) for ids in PROMPTS]
    requests = [
        asked(ids, stop_token_ids=frozenset({said[3 + 2 * n]}))
        for n, (ids, said) in enumerate(zip(PROMPTS, whole, strict=True))
    ]
    want = [
        said[: said.index(next(iter(r.stop_token_ids))) + 1] for r, said in zip(requests, whole, strict=True)
    ]
    assert await together(ahead[0], requests) == want
    assert ahead[1].n_ahead > 3
    plain = await together(engine, requests)
    assert plain == want
    for ids, said in zip(PROMPTS, want, strict=True):
        again = asked([*ids, *said, 9], max_tokens=4)
        n_cached = []
        for one in (ahead[0], engine):
            async with await one.submit(again) as stream:
                ends = [event async for event in stream if isinstance(event, Finished)]
            n_cached.append(ends[0].usage.cached_tokens)
        assert n_cached == [len(ids) + len(said) - 1] * 2


async def test_who_leaves_and_who_comes_changes_nothing_for_the_others(
    tiny: tuple[Path, Any], ahead: tuple[Engine, GraphsOnCpu]
) -> None:
    engine, graphs = ahead
    staying = asyncio.create_task(read(await engine.submit(asked(PROMPTS[5], max_tokens=200))))
    for ids in PROMPTS[:4]:
        n_before = graphs.n_ahead
        async with await engine.submit(asked(ids, max_tokens=150)) as leaving:
            async for event in leaving:
                if isinstance(event, TextDelta) and graphs.n_ahead > n_before + 2:
                    break
    assert not staying.done()
    assert graphs.n_read_at_once >= 4  # a recorded step beside each prompt that came
    assert await staying == reference_greedy(tiny[1], PROMPTS[5], 200)
    assert await read(await engine.submit(asked(PROMPTS[0]))) == reference_greedy(tiny[1], PROMPTS[0], N_NEW)


@pytest.mark.parametrize(
    "other",
    [
        {"logprobs": 1},
        {"sampling": Sampling(temperature=0.0, repetition_penalty=1.3)},
        {"min_tokens": 5},
        {"n": 2},
    ],
    ids=str,
)
async def test_beside_requests_that_need_more_than_ids(
    tiny: tuple[Path, Any], ahead: tuple[Engine, GraphsOnCpu], engine: Engine, other: dict[str, Any]
) -> None:
    different = asked(PROMPTS[1], max_tokens=8, **other)
    alone = await read(await engine.submit(different))
    said = await together(ahead[0], [asked(PROMPTS[0]), different])
    assert said == [reference_greedy(tiny[1], PROMPTS[0], N_NEW), alone]
    assert ahead[1].n_ahead > 0  # behind the end of the other


DRAWN = (
    Sampling(temperature=1.0, seed=3),
    Sampling(temperature=0.0),
    Sampling(temperature=0.8, top_k=40, top_p=0.9, min_p=0.01, seed=4),
    Sampling(temperature=1.3, top_k=5, seed=5),
    Sampling(temperature=0.7, top_p=0.8, seed=-6),
    Sampling(temperature=1.0, min_p=0.1, seed=2**63 - 1),
)


@pytest.mark.parametrize("fault", ["", "step:bug@9", "logits:oom@12"])
async def test_what_is_drawn_is_what_the_plain_way_draws(
    ahead: tuple[Engine, GraphsOnCpu], planned: Any, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    engine, graphs = ahead
    monkeypatch.setattr("neuron.engine.sampling.library", lambda: None)  # both by torch
    requests = [asked(ids, sampling=how) for ids, how in zip(PROMPTS, DRAWN, strict=True)]
    with_logprobs = [replace(request, logprobs=0) for request in requests]
    alone = [await read(await engine.submit(request)) for request in with_logprobs]
    assert not graphs.n_ahead
    planned(fault)
    assert await together(engine, requests) == alone
    assert graphs.n_ahead > 3
    assert [await read(await engine.submit(request)) for request in requests] == alone
    assert len({tuple(said) for said in alone}) == len(alone)


@pytest.mark.parametrize("fault", ["step:bug@4", "step:oom@3", "logits:bug@5", "logits:oom@4"])
async def test_a_step_that_fails_once_is_computed_again(
    tiny: tuple[Path, Any], ahead: tuple[Engine, GraphsOnCpu], planned: Any, fault: str
) -> None:
    planned(fault)
    said = await together(ahead[0], [asked(ids) for ids in PROMPTS[:3]])
    assert said == [reference_greedy(tiny[1], ids, N_NEW) for ids in PROMPTS[:3]]
    assert ahead[1].n_ahead > 0


@pytest.mark.parametrize("fault", ["step:nan@4", "logits:nan@6"])
async def test_logits_that_are_not_finite_end_the_answer_that_they_belong_to(
    tiny: tuple[Path, Any], ahead: tuple[Engine, GraphsOnCpu], planned: Any, fault: str
) -> None:
    planned(fault)
    said = await together(ahead[0], [asked(ids) for ids in PROMPTS[:3]])
    assert [isinstance(one, NumericalError) for one in said].count(True) == 1
    for ids, one in zip(PROMPTS[:3], said, strict=True):
        assert isinstance(one, NumericalError) or one == reference_greedy(tiny[1], ids, N_NEW)


async def test_a_device_that_is_gone_ends_every_answer(
    ahead: tuple[Engine, GraphsOnCpu], planned: Any
) -> None:
    planned("step:lost@6")
    said = await together(ahead[0], [asked(ids) for ids in PROMPTS[:3]])
    assert all(isinstance(one, NeuronError) for one in said)
