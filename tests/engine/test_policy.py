"""Plans against real loads; models that leave by themselves, and those that requests bring in."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from neuron.engine.engine import Engine
from neuron.engine.events import Finished
from neuron.engine.request import LoadSpec
from neuron.errors import (
    AlreadyLoaded,
    InsufficientMemory,
    InvalidValue,
    LoadedDifferently,
    ModelNotLoaded,
    NeuronError,
    QueueFull,
    UnsupportedParameter,
)
from neuron.log import as_line
from neuron.model.native import library
from neuron.model.packed import PackedWeight
from neuron.progress import Report
from neuron.settings import Settings
from tests.engine.conftest import SETTINGS
from tests.engine.test_lifecycle import endless, last_event, until
from tests.support.tiny_chat import save_tiny_chat
from tests.support.tiny_models import CASES

MIB = 1 << 20


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 5 to 6 MB in float32: two of them are more than `SMALL` allows."""
    folder = tmp_path_factory.mktemp("large")
    case = replace(CASES[0], values={"intermediate_size": 1792})
    save_tiny_chat(folder, case)
    return folder


SMALL = replace(SETTINGS, memory_budget_mb=9, kv_budget_mb=1, unload_when_short=True)


@asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[Engine]:
    """An engine until the block ends."""
    engine = Engine(settings)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


def states(engine: Engine) -> dict[str, str]:
    """State by id."""
    return {model.id: model.state for model in engine.status().models}


async def load(engine: Engine, folder: Path, model_id: str, **spec: Any) -> None:
    """Load a folder."""
    await engine.load(LoadSpec(model_id=model_id, **spec), lambda report: folder)


async def ask(engine: Engine, model_id: str, n: int = 5) -> None:
    """One generation as the daemon has it made: the model is held until it is admitted."""
    async with engine.hold(model_id):
        stream = await engine.submit(endless(n, model_id))
    assert isinstance([event async for event in stream][-1], Finished)


# ---- plans


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_a_plan_is_what_the_load_then_takes(tiny: tuple[Path, Any], dtype: str) -> None:
    async with started(replace(SETTINGS, kv_budget_mb=None, memory_budget_mb=50)) as engine:
        spec = LoadSpec(model_id="tiny", dtype=dtype)
        plan = await engine.plan(spec, lambda: tiny[0])
        assert engine.status().models == ()
        await engine.load(spec, lambda report: tiny[0])
        model = engine._models.serving("tiny")
        decoder = model.slot.decoder
        assert decoder is not None
        tensors = [v.data if isinstance(v, PackedWeight) else v for _, v in decoder.named_views()]
        storages = {s.data_ptr(): s.nbytes() for tensor in tensors if (s := tensor.untyped_storage())}
        assert plan.weight_bytes == model.weight_bytes == sum(storages.values())
        assert decoder.new_cache(1000).data.nbytes == 1000 * plan.kv_bytes_per_token
        assert (plan.context, plan.dtype, plan.device) == (model.context, model.dtype, model.device)
        assert plan.quant == model.quant
        assert plan.free_bytes == 50 * MIB
        assert plan.headroom_bytes == 50 * MIB - plan.weight_bytes


@pytest.mark.real_model
async def test_a_plan_of_a_gguf_file_is_what_the_load_then_takes(smollm2_gguf: Path) -> None:
    async with started(SETTINGS) as engine:
        plan = await engine.plan(LoadSpec(model_id="q"), lambda: smollm2_gguf)
        await engine.load(LoadSpec(model_id="q"), lambda report: smollm2_gguf)
        model = engine._models.serving("q")
        decoder = model.slot.decoder
        assert decoder is not None
        assert plan.weight_bytes == model.weight_bytes
        assert decoder.new_cache(100).data.nbytes == 100 * plan.kv_bytes_per_token
        assert plan.file_bytes == plan.weight_bytes or library() is None, "kept as they are stored"
        assert (plan.quant, model.quant) == ("Q4_1", "Q4_1")


async def test_a_plan_that_does_not_fit_says_by_how_much_and_the_load_agrees(large: Path) -> None:
    async with started(replace(SMALL, memory_budget_mb=3)) as engine:
        plan = await engine.plan(LoadSpec(model_id="a"), lambda: large)
        assert plan.missing_bytes == plan.min_free_bytes - 3 * MIB > 0
        assert (plan.context, plan.headroom_bytes < 0) == (0, True)
        with pytest.raises(InsufficientMemory) as refused:
            await load(engine, large, "a")
        assert refused.value.details == {"required_mb": plan.weight_bytes >> 20, "free_mb": 3}
        assert "--force" in str(refused.value.hint)


async def test_force_loads_what_does_not_seem_to_fit_but_not_what_is_damaged(
    large: Path, tmp_path: Path
) -> None:
    async with started(replace(SMALL, memory_budget_mb=3)) as engine:
        await load(engine, large, "a", force=True)
        assert isinstance(await last_event(engine, endless(3, "a")), Finished)
        with pytest.raises(NeuronError, match=r"config\.json is missing"):
            await load(engine, tmp_path, "b", force=True)


# ---- time to live


async def test_an_idle_model_is_unloaded_after_its_ttl_and_a_working_one_is_not(
    tiny: tuple[Path, Any],
) -> None:
    async with started(SETTINGS) as engine:
        await load(engine, tiny[0], "tiny", ttl_s=0.3)
        stream = await engine.submit(endless(250))
        async for _ in stream:
            await asyncio.sleep(0.01)
            assert states(engine) == {"tiny": "loaded"}
        ended_s = time.monotonic()
        await until(lambda: states(engine) == {})
        assert time.monotonic() - ended_s >= 0.25


async def test_a_models_own_ttl_counts_before_the_settings_and_a_pinned_one_stays(
    tiny: tuple[Path, Any],
) -> None:
    async with started(replace(SETTINGS, ttl_s=0.05, pinned=("kept",))) as engine:
        for name, spec in {
            "kept": {},
            "pinned": {"pinned": True},
            "never": {"ttl_s": 0.0},
            "goes": {},
        }.items():
            await load(engine, tiny[0], name, **spec)
        await until(lambda: "goes" not in states(engine))
        await asyncio.sleep(0.2)
        assert set(states(engine)) == {"kept", "pinned", "never"}
        with pytest.raises(InvalidValue, match="pinned"):
            await engine.load(LoadSpec(model_id="x", pinned=True, ttl_s=5), lambda report: tiny[0])


# ---- caches of several models


async def test_caches_of_several_models_fit_into_the_memory_together(
    tiny: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with started(replace(SETTINGS, kv_budget_mb=None, max_in_flight=10_000)) as engine:
        plan = await engine.plan(LoadSpec(model_id="a"), lambda: tiny[0])
        total, listed = 24 * MIB, 0
        monkeypatch.setattr(
            "neuron.engine.torch_harness.free_bytes",
            lambda device: total - listed - (plan.weight_bytes if reading(engine) else 0),
        )
        for n, name in enumerate(("a", "b", "c"), start=1):
            await load(engine, tiny[0], name)
            listed = n * plan.weight_bytes
            budgets = [model.load.kv_budget_bytes for model in engine.status().models if model.load]
            assert len(budgets) == n
            assert listed + sum(budgets) <= total
            assert min(budgets) > 0.5 * max(budgets)
            assert all(model.context == plan.model_context for model in engine.status().models)


def reading(engine: Engine) -> bool:
    """Whether a model's weights are in memory that is not loaded yet."""
    progress = [model.progress for model in engine.status().models if model.state == "loading"]
    return any(one is not None and one.stage == "warm up" for one in progress)


async def test_the_cache_that_a_model_needs_for_one_context_is_no_others(
    tiny: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with started(replace(SETTINGS, kv_budget_mb=None)) as engine:
        plan = await engine.plan(LoadSpec(model_id="a"), lambda: tiny[0])
        whole = plan.model_context * plan.kv_bytes_per_token
        free = 2 * plan.weight_bytes + 4 * whole
        monkeypatch.setattr("neuron.engine.torch_harness.free_bytes", lambda device: free)
        await load(engine, tiny[0], "a")
        left = (await engine.plan(LoadSpec(model_id="b"), lambda: tiny[0])).free_bytes
        assert 0 < left <= free - whole
        monkeypatch.setattr("neuron.engine.torch_harness.free_bytes", lambda device: whole)
        assert (await engine.plan(LoadSpec(model_id="b"), lambda: tiny[0])).free_bytes == 0
        with pytest.raises(InsufficientMemory):
            await load(engine, tiny[0], "b")


async def test_a_model_is_promised_no_more_cache_than_it_can_use(tiny: tuple[Path, Any]) -> None:
    async with started(replace(SETTINGS, kv_budget_mb=None, max_in_flight=3)) as engine:
        plan = await engine.plan(LoadSpec(model_id="a"), lambda: tiny[0])
        await load(engine, tiny[0], "a")
        status = engine.model("a")
        assert status is not None
        assert status.load is not None
        assert status.load.kv_budget_bytes == 3 * plan.model_context * plan.kv_bytes_per_token


# ---- loads of what is there


async def test_a_repeated_load_changes_how_long_a_model_stays_and_loads_nothing(
    tiny: tuple[Path, Any],
) -> None:
    async def again(**spec: Any) -> tuple[str, ...]:
        return await engine.load(LoadSpec(model_id="tiny", **spec), lambda report: Path("/nowhere"))

    def now() -> tuple[float | None, bool]:
        status = engine.model("tiny")
        assert status is not None
        return status.ttl_s, status.pinned

    async with started(replace(SETTINGS, ttl_s=500.0)) as engine:
        await load(engine, tiny[0], "tiny")
        with pytest.raises(AlreadyLoaded):
            await again()
        assert await again(ttl_s=900.0) == ("ttl_s",)
        assert now() == (900.0, False)
        assert await again(pinned=True) == ("pin",)
        assert now() == (None, True)
        with pytest.raises(InvalidValue, match="pinned"):
            await again(ttl_s=5.0)
        assert now() == (None, True)
        assert await again(pinned=False) == ("pin",)
        assert now() == (500.0, False)
        assert await again(pinned=False, ttl_s=0.05) == ("ttl_s", "pin")
        await until(lambda: states(engine) == {})


async def test_a_time_to_live_that_was_lengthened_counts(tiny: tuple[Path, Any]) -> None:
    async with started(SETTINGS) as engine:
        await load(engine, tiny[0], "tiny", ttl_s=0.3)
        await load(engine, tiny[0], "tiny", ttl_s=0.0)
        await asyncio.sleep(0.6)
        assert states(engine) == {"tiny": "loaded"}


@pytest.mark.parametrize(
    ("spec", "there"),
    [
        ({"dtype": "bfloat16"}, "in float32"),
        ({"devices": (0,)}, "on cpu"),
        ({"device": "cuda"}, "on cpu"),
        ({"origins": frozenset({"hf:c/d@"})}, "from a/b"),
        ({"dtype": "float16", "ttl_s": 9.0}, "in float32"),
    ],
)
async def test_what_a_repeated_load_can_not_change_is_refused(
    tiny: tuple[Path, Any], spec: dict[str, Any], there: str
) -> None:
    async with started(SETTINGS) as engine:
        await load(engine, tiny[0], "tiny", source="a/b", origins=frozenset({"hf:a/b@"}))
        with pytest.raises(LoadedDifferently, match=there) as refused:
            await load(engine, tiny[0], "tiny", **spec)
        assert "neuron unload tiny" in (refused.value.hint or "")
        status = engine.model("tiny")
        assert status is not None
        assert (status.state, status.ttl_s) == ("loaded", None)
        for same in ({"dtype": "float32"}, {"device": "cpu"}, {"origins": frozenset({"hf:a/b@", "pypi:x@"})}):
            with pytest.raises(AlreadyLoaded):
                await load(engine, tiny[0], "tiny", **same)


async def test_a_load_under_another_id_gives_the_model_in_memory_that_id_too(
    tiny: tuple[Path, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "neuron")
    files = {"source": "a/b", "origins": frozenset({"hf:a/b@"})}
    async with started(SETTINGS) as engine:
        await load(engine, tiny[0], "first", **files)
        taken = engine.status().models[0].weight_bytes
        spec = LoadSpec(model_id="second", ttl_s=900.0, **files)  # type: ignore[arg-type]
        assert await engine.load(spec, lambda report: Path("/nowhere")) == ("alias", "ttl_s")
        (changed,) = (as_line(r) for r in caplog.records if r.getMessage() == "model changed")
        assert (changed["id"], changed["ttl_s"]) == ("second", 900.0)
        rows = {m.id: (m.alias_of, m.weight_bytes, m.ttl_s) for m in engine.status().models}
        assert rows == {"first": (None, taken, 900.0), "second": ("first", None, 900.0)}
        for name in ("first", "second"):
            await ask(engine, name)
        await load(engine, tiny[0], "third", dtype="bfloat16", **files)
        third = engine.model("third")
        assert third is not None
        assert (third.alias_of, third.dtype) == (None, "bfloat16")
        await engine.unload("second")
        assert set(states(engine)) == {"third"}


async def test_a_load_that_joins_another_is_told_where_that_one_differs(tiny: tuple[Path, Any]) -> None:
    async with started(SETTINGS) as engine:
        first = asyncio.create_task(load(engine, tiny[0], "tiny"))
        await asyncio.sleep(0)
        with pytest.raises(LoadedDifferently):
            await load(engine, tiny[0], "tiny", dtype="bfloat16")
        await first
        second = engine.model("tiny")
        assert second is not None
        assert second.state == "loaded"


# ---- room


async def test_the_least_recently_used_idle_model_makes_room(
    large: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with started(replace(SMALL, memory_budget_mb=15)) as engine:
        await load(engine, large, "a")
        await load(engine, large, "b")
        await ask(engine, "a")
        plan = await engine.plan(LoadSpec(model_id="c"), lambda: large)
        assert plan.evicts == ("b",)
        with caplog.at_level(logging.INFO, "neuron"):
            await load(engine, large, "c")
        assert set(states(engine)) == {"a", "c"}
    assert "wait for memory" in stages(caplog)


async def test_a_load_that_waits_for_no_memory_does_not_say_so(
    tiny: tuple[Path, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with started(SETTINGS) as engine:
        with caplog.at_level(logging.INFO, "neuron"):
            await load(engine, tiny[0], "a")
    assert "read" in stages(caplog)
    assert "wait for memory" not in stages(caplog)


def stages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Of the loads that were logged."""
    lines = [as_line(record) for record in caplog.records]
    return [line["stage"] for line in lines if line["event"] == "load progress"]


async def test_working_and_pinned_models_make_no_room(large: Path) -> None:
    async with started(SMALL) as engine:
        await load(engine, large, "a", pinned=True)
        with pytest.raises(InsufficientMemory):
            await load(engine, large, "b")
    async with started(SMALL) as engine:
        await load(engine, large, "a")
        stream = await engine.submit(endless(200, "a"))
        with pytest.raises(InsufficientMemory):
            await load(engine, large, "b")
        assert isinstance([event async for event in stream][-1], Finished)


async def test_without_the_setting_nothing_is_unloaded(large: Path) -> None:
    async with started(replace(SMALL, unload_when_short=False)) as engine:
        await load(engine, large, "a")
        with pytest.raises(InsufficientMemory):
            await load(engine, large, "b")
        assert states(engine)["a"] == "loaded"


# ---- on request


def offer(engine: Engine, fetch: Callable[[Report], Path], *names: str) -> None:
    """Let requests load these."""
    engine.offer([(LoadSpec(model_id=name), fetch) for name in names])


async def test_twenty_requests_are_one_load_and_all_are_answered(tiny: tuple[Path, Any]) -> None:
    fetches = []

    def fetch(report: Report) -> Path:
        fetches.append(1)
        time.sleep(0.05)
        return tiny[0]

    async with started(SETTINGS) as engine:
        offer(engine, fetch, "tiny")
        assert states(engine) == {"tiny": "available"}
        await asyncio.gather(*(ask(engine, "tiny") for _ in range(20)))
        assert len(fetches) == 1


async def test_what_is_not_offered_is_not_loaded(tiny: tuple[Path, Any]) -> None:
    async with started(SETTINGS) as engine:
        offer(engine, lambda report: tiny[0], "tiny")
        with pytest.raises(ModelNotLoaded):
            await ask(engine, "org/other")
        assert states(engine) == {"tiny": "available"}


async def test_two_models_that_do_not_fit_together_serve_everybody_without_thrashing(large: Path) -> None:
    loads = []

    def fetch(report: Report) -> Path:
        loads.append(1)
        return large

    async with started(SMALL) as engine:
        offer(engine, fetch, "a", "b")
        await asyncio.gather(*(ask(engine, "ab"[i % 2], n=20) for i in range(24)))
        assert len(loads) == 2  # who came for a was served before it went

        async def caller(name: str) -> None:
            for _ in range(5):
                await ask(engine, name, n=3)

        await asyncio.gather(*(caller(name) for name in "abab"))
        assert len(loads) <= 2 + 10


async def test_a_load_on_request_that_can_not_be_says_why_and_is_not_tried_by_each(large: Path) -> None:
    loads = []

    def fetch(report: Report) -> Path:
        loads.append(1)
        return large

    async with started(SMALL) as engine:
        await load(engine, large, "kept", pinned=True)
        offer(engine, fetch, "b")
        answers = await asyncio.gather(*(ask(engine, "b") for _ in range(5)), return_exceptions=True)
        answers += await asyncio.gather(*(ask(engine, "b") for _ in range(5)), return_exceptions=True)
        assert all(isinstance(answer, InsufficientMemory) for answer in answers)
        assert len(loads) == 1


async def test_a_request_waits_no_longer_than_the_queue_allows_for_a_busy_model(large: Path) -> None:
    async with started(replace(SMALL, queue_timeout_s=0.2)) as engine:
        offer(engine, lambda report: large, "a", "b")
        async with engine.hold("a"):  # as a request that takes its time
            with pytest.raises(InsufficientMemory):
                await ask(engine, "b")
        await ask(engine, "a")


async def test_only_so_many_wait_for_a_load(tiny: tuple[Path, Any]) -> None:
    def fetch(report: Report) -> Path:
        time.sleep(0.3)
        return tiny[0]

    async with started(replace(SETTINGS, max_in_flight=2, max_queue_depth=1)) as engine:
        offer(engine, fetch, "tiny")
        answers = await asyncio.gather(*(ask(engine, "tiny") for _ in range(5)), return_exceptions=True)
        assert [type(answer) for answer in answers].count(QueueFull) == 2
        assert answers.count(None) == 3


async def test_unload_now_cuts_what_runs(engine: Engine) -> None:
    stream = await engine.submit(endless(250))
    began_s = time.monotonic()
    await engine.unload("tiny", now=True)
    assert time.monotonic() - began_s < 5
    assert not isinstance([event async for event in stream][-1], Finished)


@pytest.mark.skipif(library() is None, reason="no kernels were compiled: there is no C compiler")
@pytest.mark.parametrize(("quant", "kept"), [("int8", "Q8_0"), ("int4", "Q4_1")])
async def test_weights_are_narrower_where_a_load_or_the_settings_ask_for_it(
    tiny: tuple[Path, Any], quant: str, kept: str
) -> None:
    def found(report: Report | None = None) -> Path:
        return tiny[0]

    async with started(SETTINGS) as engine:
        spec = LoadSpec(model_id="narrow", quant=quant)
        plan = await engine.plan(spec, found)
        await engine.load(spec, found)
        await engine.load(LoadSpec(model_id="wide"), found)
        narrow, wide = engine._models.serving("narrow"), engine._models.serving("wide")
        assert (narrow.weights, plan.weights, wide.weights) == (kept, kept, "F32")
        assert plan.weight_bytes == narrow.weight_bytes < wide.weight_bytes / 2
        assert narrow.fingerprint != wide.fingerprint
        await ask(engine, "narrow")
        other = "int4" if quant == "int8" else "int8"
        with pytest.raises(LoadedDifferently, match=kept):
            await engine.load(LoadSpec(model_id="narrow", quant=other), found)
    async with started(replace(SETTINGS, quant=quant)) as engine:
        await engine.load(LoadSpec(model_id="narrow"), found)
        assert engine._models.serving("narrow").weights == kept


async def test_weights_that_can_not_be_made_narrower_are_refused(tiny: tuple[Path, Any]) -> None:
    async with started(SETTINGS) as engine:
        for how in (engine.plan, engine.load):
            with pytest.raises(UnsupportedParameter, match="int8"):
                await how(LoadSpec(model_id="x", dtype="bfloat16", quant="int8"), lambda *report: tiny[0])
