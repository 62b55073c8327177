"""Models come and go, clients leave, the queue is bounded, the node drains: nothing is lost and nothing stays."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from neuron.engine.engine import Engine
from neuron.engine.events import Event, Failed, Finished, TextDelta
from neuron.engine.request import Generation, LoadSpec, Regex, Sampling, TokenPrompt
from neuron.errors import (
    AlreadyLoaded,
    HarnessNotEnabled,
    InvalidModelFile,
    ModelNotLoaded,
    ModelUnloading,
    NeuronError,
    QueueFull,
    ShuttingDown,
    UnknownHarness,
)
from neuron.model import load as model_load
from neuron.model.safetensors_checkpoint import SafetensorsCheckpoint
from neuron.progress import Progress, Report
from neuron.text import grammar
from tests.engine.conftest import SETTINGS, hold_device


def endless(n: int = 250, model_id: str = "tiny") -> Generation:
    """A generation of ``n`` tokens from a short prompt."""
    return Generation(
        model_id=model_id,
        prompt=TokenPrompt(ids=[5, 6, 7]),
        request_id="test",
        sampling=Sampling(temperature=0.0),
        max_tokens=n,
        ignore_eos=True,
    )


async def last_event(engine: Engine, generation: Generation) -> Event:
    """How one generation ends."""
    async with await engine.submit(generation) as stream:
        events = [event async for event in stream]
    return events[-1]


async def until(reached: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait for a state that comes soon."""
    deadline_s = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < deadline_s, "it did not come"
        await asyncio.sleep(0.005)


def figures(engine: Engine) -> Any:
    """How busy the tiny model is."""
    status = engine.model("tiny")
    assert status is not None
    return status.load


async def test_a_reader_that_leaves_frees_its_place_and_its_cache(engine: Engine) -> None:
    async with await engine.submit(endless()) as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                break
    await until(lambda: figures(engine).in_flight == 0)
    assert figures(engine).kv_free_bytes == figures(engine).kv_budget_bytes


async def test_queued_readers_that_leave_do_not_touch_the_running_one(tiny: tuple[Path, Any]) -> None:
    engine = Engine(replace(SETTINGS, max_in_flight=1))
    await engine.start()
    await engine.load(LoadSpec(model_id="tiny"), lambda report: tiny[0])
    hold_device(engine, "tiny", 0.3)
    running = await engine.submit(endless())
    queued = [await engine.submit(endless()) for _ in range(20)]
    assert figures(engine).queue_depth == 20
    for stream in queued:
        stream.cancel()
    assert figures(engine).queue_depth == 0
    events = [event async for event in running]
    assert isinstance(events[-1], Finished)
    assert isinstance(await last_event(engine, endless(5)), Finished)
    await engine.close()


async def test_the_queue_is_bounded_and_everyone_admitted_finishes(tiny: tuple[Path, Any]) -> None:
    engine = Engine(replace(SETTINGS, max_in_flight=2, max_queue_depth=3))
    await engine.start()
    await engine.load(LoadSpec(model_id="tiny"), lambda report: tiny[0])
    hold_device(engine, "tiny", 0.3)
    streams, refused = [], []
    for _ in range(9):
        try:
            streams.append(await engine.submit(endless()))
        except QueueFull as e:
            refused.append(e)
    assert (len(streams), len(refused)) == (5, 4)
    assert all(1 <= e.details["retry_after_s"] <= 60 for e in refused)
    for stream in streams:
        assert isinstance([event async for event in stream][-1], Finished)
    assert figures(engine).rejected_queue_full == 4
    await engine.close()


async def test_who_waits_too_long_is_told_so(tiny: tuple[Path, Any]) -> None:
    engine = Engine(replace(SETTINGS, max_in_flight=1, queue_timeout_s=0.05))
    await engine.start()
    await engine.load(LoadSpec(model_id="tiny"), lambda report: tiny[0])
    hold_device(engine, "tiny", 0.5)
    running = await engine.submit(endless())
    event = await last_event(engine, endless())
    assert isinstance(event, Failed)
    assert isinstance(event.error, QueueFull)
    running.cancel()
    assert figures(engine).rejected_timeout == 1
    assert figures(engine).queue_depth == 0
    await engine.close()


async def test_cache_bytes_are_reserved_and_the_next_waits_for_them(tiny: tuple[Path, Any]) -> None:
    engine = Engine(SETTINGS)
    await engine.start()
    await engine.load(LoadSpec(model_id="tiny"), lambda report: tiny[0])
    model = engine._models.serving("tiny")
    model.gate.kv_budget_bytes = 256 * model.kv_bytes_per_token  # one whole context
    first, second = await engine.submit(endless(200)), await engine.submit(endless(200))
    assert (figures(engine).in_flight, figures(engine).queue_depth) == (1, 1)
    for stream in (first, second):
        assert isinstance([event async for event in stream][-1], Finished)
    await engine.close()


async def test_parallel_loads_of_one_id_read_the_files_once(tiny: tuple[Path, Any]) -> None:
    engine = Engine(SETTINGS)
    await engine.start()
    fetches = []

    def fetch(report: Report) -> Path:
        fetches.append(1)
        time.sleep(0.05)
        return tiny[0]

    loads = [engine.load(LoadSpec(model_id="tiny"), fetch) for _ in range(50)]
    assert await asyncio.gather(*loads) == [()] * 50
    assert len(fetches) == 1
    with pytest.raises(AlreadyLoaded):
        await engine.load(LoadSpec(model_id="tiny"), fetch)
    await engine.close()


async def test_a_failed_load_says_why_and_can_be_tried_again(tiny: tuple[Path, Any], tmp_path: Path) -> None:
    engine = Engine(SETTINGS)
    await engine.start()
    with pytest.raises(InvalidModelFile, match=r"config\.json is missing"):
        await engine.load(LoadSpec(model_id="tiny"), lambda report: tmp_path)
    status = engine.model("tiny")
    assert status is not None
    assert status.state == "failed"
    assert "config.json" in str(status.error)
    await engine.load(LoadSpec(model_id="tiny"), lambda report: tiny[0])
    assert isinstance(await last_event(engine, endless(3)), Finished)
    await engine.close()


async def test_a_caller_that_leaves_does_not_stop_a_load(tiny: tuple[Path, Any]) -> None:
    engine = Engine(SETTINGS)
    await engine.start()
    caller = asyncio.create_task(engine.load(LoadSpec(model_id="tiny"), lambda report: tiny[0]))
    await asyncio.sleep(0.001)
    caller.cancel()
    await until(lambda: (s := engine.model("tiny")) is not None and s.state == "loaded", 30)
    await engine.close()


async def test_progress_of_a_load_is_seen_while_it_runs(tiny: tuple[Path, Any]) -> None:
    engine = Engine(SETTINGS)
    await engine.start()

    def fetch(report: Report) -> Path:
        for n in range(3):
            report(Progress("fetch", n, 3))
            time.sleep(0.2)
        return tiny[0]

    load = asyncio.create_task(engine.load(LoadSpec(model_id="tiny"), fetch))
    await asyncio.sleep(0)
    seen = [progress async for progress in engine.load_progress("tiny")]
    await load
    assert [p.done_bytes for p in seen if p.stage == "fetch"] == [0, 1, 2]
    assert seen[-1].stage != "fetch"
    assert "wait for memory" not in {p.stage for p in seen}
    await engine.close()


async def test_a_load_builds_what_constrained_answers_need_off_the_event_loop(
    tiny: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[threading.Thread] = []
    inner = grammar.LLTokenizer

    def tokenizer(*args: Any, **said: Any) -> Any:
        built.append(threading.current_thread())
        return inner(*args, **said)

    monkeypatch.setattr(grammar, "LLTokenizer", tokenizer)
    engine = Engine(SETTINGS)
    await engine.start()
    await engine.load(LoadSpec(model_id="tiny"), lambda report: tiny[0])
    assert [thread is threading.main_thread() for thread in built] == [False]
    constrained = replace(endless(5), constraint=Regex(pattern="[ab]+"))
    assert isinstance(await last_event(engine, constrained), Finished)
    assert len(built) == 1
    await engine.close()


async def test_a_tokenizer_that_no_grammar_knows_does_not_stop_a_load(
    tiny: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def tokenizer(*args: Any, **said: Any) -> Any:
        raise ValueError("of no known kind")

    monkeypatch.setattr(grammar, "LLTokenizer", tokenizer)
    engine = Engine(SETTINGS)
    await engine.start()
    await engine.load(LoadSpec(model_id="tiny"), lambda report: tiny[0])
    assert isinstance(await last_event(engine, endless(3)), Finished)
    with pytest.raises(InvalidModelFile, match="of no known kind"):
        await engine.submit(replace(endless(3), constraint=Regex(pattern="a")))
    await engine.close()


async def test_unload_waits_for_running_streams_and_refuses_new_ones(engine: Engine) -> None:
    stream = await engine.submit(endless())
    unload = asyncio.create_task(engine.unload("tiny"))
    await asyncio.sleep(0)
    with pytest.raises(NeuronError) as refused:
        await engine.submit(endless())
    assert refused.value.code == "model_unloading"
    assert isinstance([event async for event in stream][-1], Finished)
    await unload
    with pytest.raises(ModelNotLoaded, match="model 'tiny' not loaded"):
        await engine.submit(endless())
    with pytest.raises(ModelNotLoaded):
        await engine.unload("tiny")


async def test_a_name_that_is_nearly_a_loaded_one_is_told_it(engine: Engine) -> None:
    for name, hint in (("tinny", "did you mean tiny?"), ("another", "neuron load loads it")):
        with pytest.raises(ModelNotLoaded, match=f"'{name}' not loaded; loaded: tiny") as refused:
            await engine.submit(endless(model_id=name))
        assert refused.value.hint == hint


async def test_unload_ends_streams_that_outlast_the_drain_with_an_error(tiny: tuple[Path, Any]) -> None:
    engine = Engine(replace(SETTINGS, drain_s=0.0))
    await engine.start()
    await engine.load(LoadSpec(model_id="tiny"), lambda report: tiny[0])
    stream = await engine.submit(endless())
    await engine.unload("tiny")
    last = [event async for event in stream][-1]
    assert isinstance(last, Failed)
    assert last.error.code == "model_unloading"
    await engine.load(LoadSpec(model_id="tiny"), lambda report: tiny[0])
    assert isinstance(await last_event(engine, endless(3)), Finished)
    await engine.close()


async def test_an_unload_cancels_a_load_that_fetches(tiny: tuple[Path, Any]) -> None:
    stuck, ended = threading.Event(), threading.Event()

    def fetch(report: Report) -> Path:
        try:
            stuck.wait(10)
            report(Progress("fetch", 1, 2))
        except NeuronError:
            ended.set()
            raise
        return tiny[0]

    engine = Engine(SETTINGS)
    await engine.start()
    load = asyncio.create_task(engine.load(LoadSpec(model_id="tiny"), fetch))
    await until(lambda: engine.model("tiny") is not None)
    await asyncio.wait_for(engine.unload("tiny"), 5)  # although the fetch hangs
    with pytest.raises(ModelUnloading, match="the load of model 'tiny' was cancelled"):
        await load
    assert engine.model("tiny") is None
    stuck.set()
    assert await asyncio.to_thread(ended.wait, 5)
    await engine.load(LoadSpec(model_id="tiny"), lambda report: tiny[0])
    assert isinstance(await last_event(engine, endless(3)), Finished)
    await engine.close()


async def test_an_unload_cancels_a_load_between_two_tensors_and_its_memory_is_back(
    tiny: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, go_on, weights = threading.Event(), threading.Event(), []
    built = model_load.build

    def remembered(*args: Any, **said: Any) -> Any:
        model = built(*args, **said)
        if said["device"].type != "meta":
            weights.append(weakref.ref(model))
        return model

    def read(self: SafetensorsCheckpoint, name: str) -> Any:
        reading.set()
        go_on.wait(10)
        return tensor(self, name)

    tensor = SafetensorsCheckpoint.read
    monkeypatch.setattr(SafetensorsCheckpoint, "read", read)
    monkeypatch.setattr(model_load, "build", remembered)
    engine = Engine(SETTINGS)
    await engine.start()
    load = asyncio.create_task(engine.load(LoadSpec(model_id="tiny"), lambda report: tiny[0]))
    assert await asyncio.to_thread(reading.wait, 30)
    unload = asyncio.create_task(engine.unload("tiny"))
    await asyncio.sleep(0.05)
    assert not unload.done()  # what the thread holds is not back yet
    go_on.set()
    await asyncio.wait_for(unload, 10)
    with pytest.raises(ModelUnloading):
        await load
    assert [ref() for ref in weights] == [None]
    assert engine.status().loads.loaded == 0
    await engine.load(LoadSpec(model_id="tiny"), lambda report: tiny[0])
    await engine.close()


async def test_an_unload_that_comes_as_a_load_ends_frees_what_was_loaded(
    tiny: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    warming, go_on = threading.Event(), threading.Event()

    def warm_up(*args: Any) -> None:
        warming.set()
        go_on.wait(10)

    monkeypatch.setattr("neuron.engine.torch_harness.warm_up", warm_up)
    engine = Engine(SETTINGS)
    await engine.start()
    load = asyncio.create_task(engine.load(LoadSpec(model_id="tiny"), lambda report: tiny[0]))
    assert await asyncio.to_thread(warming.wait, 30)
    unload = asyncio.create_task(engine.unload("tiny"))
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.wait_for(unload, 10)
    with pytest.raises(ModelUnloading):
        await load
    assert engine.status().models == ()
    await engine.close()


async def test_a_second_model_loads_and_unloads_while_the_first_generates(
    engine: Engine, tiny: tuple[Path, Any]
) -> None:
    alone = [event async for event in await engine.submit(endless())]
    stream = await engine.submit(endless())
    await engine.load(LoadSpec(model_id="other"), lambda report: tiny[0])
    assert isinstance(await last_event(engine, endless(3, "other")), Finished)
    await engine.unload("other")
    together = [event async for event in stream]

    def text(events: list[Event]) -> str:
        return "".join(e.text for e in events if isinstance(e, TextDelta))

    assert text(together) == text(alone)


@pytest.mark.parametrize("finish_queued", [False, True])
async def test_a_drain_fails_what_waits_or_lets_it_run(tiny: tuple[Path, Any], finish_queued: bool) -> None:
    engine = Engine(replace(SETTINGS, max_in_flight=1))
    await engine.start()
    await engine.load(LoadSpec(model_id="tiny"), lambda report: tiny[0])
    hold_device(engine, "tiny", 0.3)
    streams = [await engine.submit(endless()) for _ in range(4)]
    drain = asyncio.create_task(engine.drain(60.0, finish_queued=finish_queued))
    ends = [[event async for event in stream][-1] for stream in streams]
    await drain
    expected = Finished if finish_queued else Failed
    assert [type(end) for end in ends] == [Finished, *[expected] * 3]
    await engine.close()


async def test_drain_refuses_new_work_and_lets_running_streams_end(engine: Engine) -> None:
    stream = await engine.submit(endless())
    drain = asyncio.create_task(engine.drain(60.0))
    await asyncio.sleep(0)
    with pytest.raises(ShuttingDown):
        await engine.submit(endless())
    with pytest.raises(ShuttingDown):
        await engine.load(LoadSpec(model_id="other"), lambda report: Path("/nowhere"))
    assert isinstance([event async for event in stream][-1], Finished)
    await drain
    assert not engine.status().decode.accepting


async def test_activation_goes_on_after_a_failure_and_ends_ready(
    tiny: tuple[Path, Any], tmp_path: Path
) -> None:
    engine = Engine(SETTINGS)
    await engine.start()
    ids = {"a": tiny[0], "b": tmp_path, "c": tiny[0]}
    engine.activate([(LoadSpec(model_id=i), lambda report, p=path: p) for i, path in ids.items()])
    assert engine.status().activation.state == "pre_warming"
    await until(lambda: engine.status().activation.state == "ready", 30)
    activation = engine.status().activation
    assert activation.completed == ("a", "c")
    assert [model_id for model_id, _ in activation.failed] == ["b"]
    assert activation.pending == ()
    assert activation.in_progress is None
    await engine.close()


async def test_a_harness_that_is_off_or_unknown_is_refused() -> None:
    engine = Engine(replace(SETTINGS, harnesses=()))
    await engine.start()
    with pytest.raises(HarnessNotEnabled):
        await engine.load(LoadSpec(model_id="tiny"), lambda report: Path("/nowhere"))
    with pytest.raises(HarnessNotEnabled):
        await engine.submit(endless())
    with pytest.raises(UnknownHarness, match="unknown harness: mlx"):
        await engine.load(LoadSpec(model_id="tiny", harness="mlx"), lambda report: Path("/nowhere"))
    await engine.close()
