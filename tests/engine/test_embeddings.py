"""Embeddings: the right vectors, in order, whatever else runs; refusals before the work; nothing stays behind."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from neuron.engine.api import Embeddings
from neuron.engine.engine import Engine
from neuron.engine.events import TextDelta
from neuron.engine.loaded import LoadedModel
from neuron.engine.request import LoadSpec, TextPrompt, TokenPrompt
from neuron.errors import (
    DeviceFault,
    InvalidValue,
    ModelNotLoaded,
    ModelUnloading,
    NumericalError,
    PromptNeverFits,
    PromptTooLong,
    QueueFull,
    ShuttingDown,
)
from neuron.model.encoder import Encoder
from tests.engine.conftest import SETTINGS, hold_device
from tests.engine.test_lifecycle import endless, until
from tests.support.tiny_encoders import reference_states, save_tiny_embedder, word_pieces
from tests.support.tiny_models import CASES, save_tiny

TOLERANCE = 1e-5
TEXTS = [
    "hello world",
    "the cat sits on the mat .",
    "dog",
    "a dog runs on a mat , the cat sits .",
    "hello",
    "dog",
]


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder of a model for embedding and its transformers reference."""
    folder = tmp_path_factory.mktemp("bert")
    return folder, save_tiny_embedder(folder)


@pytest.fixture
async def embedder(engine: Engine, bert: tuple[Path, Any]) -> Engine:
    """The engine with ``bert`` beside ``tiny``."""
    await engine.load(LoadSpec(model_id="bert"), lambda report: bert[0])
    return engine


def texts(*given: str) -> list[TextPrompt]:
    return [TextPrompt(text=text) for text in given]


def ids(*lengths: int) -> list[TokenPrompt]:
    """Inputs of these lengths."""
    return [TokenPrompt(ids=[5 + (7 * i + n) % 50 for i in range(n)]) for n in lengths]


def model_of(engine: Engine, name: str) -> LoadedModel:
    return engine._models.serving(name)


def assert_vectors(got: Embeddings, want: list[torch.Tensor]) -> None:
    torch.testing.assert_close(torch.tensor(got.vectors), torch.stack(want), atol=TOLERANCE, rtol=0)


def in_use(engine: Engine, name: str) -> tuple[int, int]:
    """Places and bytes that the model's gate has given out."""
    gate = model_of(engine, name).gate
    return len(gate.running) + len(gate.waiting), gate.kv_used_bytes


# ---- the vectors ---------------------------------------------------------------------------------------------


async def test_texts_get_the_mean_of_their_states_normalised_in_their_order(
    embedder: Engine, bert: tuple[Path, Any]
) -> None:
    tokenizer = word_pieces()
    tokenizer.no_padding()
    tokenizer.no_truncation()
    encoded = [tokenizer.encode(text).ids for text in TEXTS]
    assert all((e[0], e[-1]) == (2, 3) for e in encoded)
    got = await embedder.embed("bert", texts(*TEXTS))
    assert_vectors(got, [F.normalize(reference_states(bert[1], e).mean(0), dim=0) for e in encoded])
    assert got.prompt_tokens == sum(map(len, encoded))


async def test_ids_are_taken_as_they_are(embedder: Engine, bert: tuple[Path, Any]) -> None:
    got = await embedder.embed("bert", [TokenPrompt(ids=[9, 8, 7])])
    assert_vectors(got, [F.normalize(reference_states(bert[1], [9, 8, 7]).mean(0), dim=0)])
    assert got.prompt_tokens == 3


async def test_a_decoder_gives_its_last_state_normalised(engine: Engine, tiny: tuple[Path, Any]) -> None:
    inputs = ids(3, 16, 17, 100, 256)  # a chunk has 16 tokens
    got = await engine.embed("tiny", inputs)
    with torch.no_grad():
        states = [tiny[1].model(torch.tensor([one.ids])).last_hidden_state[0, -1] for one in inputs]
    assert_vectors(got, [F.normalize(state, dim=0) for state in states])
    assert in_use(engine, "tiny") == (0, 0)


async def test_a_decoder_that_was_saved_without_its_head_embeds(
    tiny: tuple[Path, Any], tmp_path: Path
) -> None:
    reference = save_tiny(next(case for case in CASES if case.name == "llama-tied"), tmp_path / "whole").model
    reference.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((tiny[0] / "tokenizer.json").read_bytes())
    engine = Engine(SETTINGS)
    await engine.start()
    await engine.load(LoadSpec(model_id="m"), lambda report: tmp_path)
    with torch.no_grad():
        state = reference(torch.tensor([[5, 6, 7]])).last_hidden_state[0, -1]
    assert_vectors(await engine.embed("m", [TokenPrompt(ids=[5, 6, 7])]), [F.normalize(state, dim=0)])
    await engine.close()


async def test_many_requests_at_once_each_get_their_own(embedder: Engine) -> None:
    alone = [await embedder.embed("bert", ids(n, 40 - n)) for n in range(1, 20)]
    together = await asyncio.gather(*(embedder.embed("bert", ids(n, 40 - n)) for n in range(1, 20)))
    for one, other in zip(alone, together, strict=True):
        assert_vectors(one, [torch.tensor(v) for v in other.vectors])
    assert in_use(embedder, "bert") == (0, 0)


# ---- beside generations --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bert", "tiny"])
async def test_a_stream_goes_on_between_the_pieces_of_an_embedding(embedder: Engine, name: str) -> None:
    async def answer(counts: list[int]) -> str:
        said = []
        async with await embedder.submit(endless()) as stream:
            async for event in stream:
                if isinstance(event, TextDelta):
                    counts.append(event.n_tokens)
                    said.append(event.text)
        return "".join(said)

    want, counts = await answer([]), list[int]()
    running = asyncio.create_task(answer(counts))
    await until(lambda: len(counts) > 0)
    begun = counts[-1]
    n_pieces = 30
    await embedder.embed(name, ids(*[16] * n_pieces))
    assert counts[-1] - begun >= n_pieces // 2, "about a step after every piece"
    assert await running == want


# ---- refusals ------------------------------------------------------------------------------------------------


async def test_what_is_too_long_is_refused_and_nothing_is_cut(embedder: Engine) -> None:
    assert await embedder.embed("bert", ids(40))
    with pytest.raises(PromptTooLong, match="40 tokens") as caught:
        await embedder.embed("bert", ids(2, 41))
    assert caught.value.param == "input[1]"
    assert caught.value.details == {"prompt_len": 41, "max": 40}
    with pytest.raises(PromptTooLong) as caught:
        await embedder.embed("bert", texts("hello " * 39))
    assert (caught.value.param, caught.value.details["prompt_len"]) == ("input", 41)
    with pytest.raises(PromptTooLong):
        await embedder.embed("tiny", ids(257))


async def test_what_can_never_have_its_cache_is_refused(engine: Engine) -> None:
    model = model_of(engine, "tiny")
    model.gate.kv_budget_bytes = 20 * model.kv_bytes_per_token
    assert await engine.embed("tiny", ids(20))
    with pytest.raises(PromptNeverFits):
        await engine.embed("tiny", ids(21))


@pytest.mark.parametrize(
    ("inputs", "param"),
    [
        ([], "input"),
        ([TokenPrompt(ids=[])], "input"),
        ([TokenPrompt(ids=[5]), TokenPrompt(ids=[200])], "input[1]"),
        ([TokenPrompt(ids=[-1])], "input"),
        ([TextPrompt(text="ok"), TextPrompt(text="\ud800")], "input[1]"),
    ],
    ids=["nothing", "empty", "beyond the vocabulary", "negative", "a lone surrogate"],
)
async def test_an_input_that_is_none_is_refused_by_name(embedder: Engine, inputs: Any, param: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        await embedder.embed("bert", inputs)
    assert caught.value.param == param


async def test_an_encoder_writes_no_text_and_says_so(embedder: Engine) -> None:
    with pytest.raises(InvalidValue, match="only embeds") as caught:
        await embedder.submit(endless(model_id="bert"))
    assert caught.value.param == "model"
    bert, tiny = embedder.model("bert"), embedder.model("tiny")
    assert bert is not None
    assert tiny is not None
    assert (bert.generates, bert.context, tiny.generates) == (False, 40, True)


async def test_a_model_that_is_not_there(engine: Engine) -> None:
    with pytest.raises(ModelNotLoaded):
        await engine.embed("other", texts("a"))


# ---- failures ------------------------------------------------------------------------------------------------


async def test_a_vector_that_is_not_finite_ends_its_request_only(embedder: Engine) -> None:
    slot = model_of(embedder, "bert").slot
    assert slot.embedder is not None
    slot.embedder.model.embeddings["word"][99] = torch.nan  # type: ignore[union-attr]
    bad, good = await asyncio.gather(
        embedder.embed("bert", [TokenPrompt(ids=[5]), TokenPrompt(ids=[5, 99])]),
        embedder.embed("bert", ids(7)),
        return_exceptions=True,
    )
    assert isinstance(bad, NumericalError)
    assert "input 1" in bad.message
    assert isinstance(good, Embeddings)


async def test_a_fault_of_one_request_ends_it_alone(
    embedder: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = Encoder.states

    def fail(self: Encoder, sequences: Any) -> Any:
        if len(sequences[0]) == 3:
            raise RuntimeError("a mistake")
        return states(self, sequences)

    monkeypatch.setattr(Encoder, "states", fail)
    with pytest.raises(DeviceFault, match="RuntimeError"):
        await embedder.embed("bert", ids(3))
    assert await embedder.embed("bert", ids(4))
    assert in_use(embedder, "bert") == (0, 0)


async def test_a_fault_of_the_device_has_the_model_loaded_anew(
    embedder: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    states, failures = Encoder.states, iter(range(2))  # of the request, and of the model when it is tried

    def fail(self: Encoder, sequences: Any) -> Any:
        if next(failures, None) is not None:
            raise RuntimeError("device lost")
        return states(self, sequences)

    monkeypatch.setattr(Encoder, "states", fail)
    before = embedder._models.serving("bert")
    with pytest.raises((DeviceFault, ModelUnloading)):
        await embedder.embed("bert", ids(3))
    await until(lambda: embedder._models._entries["bert"].model not in (before, None))
    await until(lambda: embedder._models._entries["bert"].state == "loaded")
    assert await embedder.embed("bert", ids(3))
    assert in_use(embedder, "bert") == (0, 0)
    assert not embedder.broken.is_set()


# ---- leaving, waiting, unloading -----------------------------------------------------------------------------


def slow(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every piece of work of an encoder takes 20 ms and is noted."""
    pieces, quick = list[int](), Encoder.states

    def states(self: Encoder, sequences: Any) -> Any:
        time.sleep(0.02)
        pieces.append(len(sequences))
        return quick(self, sequences)

    monkeypatch.setattr(Encoder, "states", states)
    return pieces


async def test_a_caller_that_leaves_stops_the_work(embedder: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = slow(monkeypatch)
    task = asyncio.create_task(embedder.embed("bert", ids(*[16] * 100)))
    await until(lambda: len(pieces) > 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert in_use(embedder, "bert") == (0, 0)
    await embedder.embed("bert", ids(3))
    assert len(pieces) < 20


async def test_a_request_waits_for_a_place_and_not_for_ever(tiny: tuple[Path, Any]) -> None:
    engine = Engine(replace(SETTINGS, max_in_flight=1, max_queue_depth=1, queue_timeout_s=0.1))
    await engine.start()
    await engine.load(LoadSpec(model_id="tiny"), lambda report: tiny[0])
    hold_device(engine, "tiny", 0.5)
    async with await engine.submit(endless()):
        waiting = asyncio.create_task(engine.embed("tiny", ids(3)))
        await until(lambda: in_use(engine, "tiny")[0] == 2)
        with pytest.raises(QueueFull, match="full"):
            await engine.embed("tiny", ids(3))
        with pytest.raises(QueueFull, match="waited"):
            await waiting
    await until(lambda: in_use(engine, "tiny") == (0, 0))
    assert await engine.embed("tiny", ids(3))
    await until(lambda: in_use(engine, "tiny") == (0, 0))
    await engine.close()


async def test_an_unload_lets_an_embedding_end_and_then_frees_the_weights(
    embedder: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = slow(monkeypatch)
    slot = model_of(embedder, "bert").slot
    assert slot.embedder is not None
    weights = weakref.ref(slot.embedder.model)
    task = asyncio.create_task(embedder.embed("bert", ids(*[16] * 10)))
    await until(lambda: len(pieces) > 0)
    unload = asyncio.create_task(embedder.unload("bert"))
    await asyncio.sleep(0)
    with pytest.raises(ModelUnloading):
        await embedder.embed("bert", ids(1))
    assert len((await task).vectors) == 10
    await unload
    del task
    gc.collect()
    assert weights() is None


async def test_an_unload_that_has_waited_enough_ends_an_embedding(
    bert: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = slow(monkeypatch)
    engine = Engine(replace(SETTINGS, drain_s=0.05))
    await engine.start()
    await engine.load(LoadSpec(model_id="bert"), lambda report: bert[0])
    task = asyncio.create_task(engine.embed("bert", ids(*[16] * 200)))
    await until(lambda: len(pieces) > 1)
    await engine.unload("bert")
    with pytest.raises(ModelUnloading):
        await task
    assert len(pieces) < 100
    await engine.close()


async def test_a_drain_ends_embeddings_with_the_reason(
    embedder: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = slow(monkeypatch)
    task = asyncio.create_task(embedder.embed("bert", ids(*[16] * 200)))
    await until(lambda: len(pieces) > 1)
    await embedder.drain(0.05)
    with pytest.raises(ShuttingDown):
        await task
    with pytest.raises(ShuttingDown):
        await embedder.embed("bert", ids(1))
