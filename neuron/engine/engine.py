"""The engine: models come and go, generations are admitted and their events delivered. See `neuron.engine.api`.

This module runs on the event loop and never imports torch; devices belong to `neuron.engine.worker`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from collections.abc import Sequence as TokenIds
from contextlib import AbstractAsyncContextManager, AbstractContextManager

from neuron.engine.absent import unloading
from neuron.engine.api import Embeddings, Fetch, Find, Journey
from neuron.engine.embedding import encode_inputs
from neuron.engine.harness import Harnesses
from neuron.engine.loaded import LoadedModel
from neuron.engine.models import Models
from neuron.engine.plan import LoadPlan
from neuron.engine.request import (
    ChatPrompt,
    Generation,
    LoadSpec,
    Prompt,
    TextPrompt,
    TokenPrompt,
)
from neuron.engine.running import Running
from neuron.engine.sequence import Output
from neuron.engine.status import DecodeStatus, EngineStatus, ModelStatus
from neuron.engine.stream import Stream
from neuron.errors import InvalidValue, ShuttingDown
from neuron.keys import ANONYMOUS
from neuron.progress import Progress
from neuron.settings import Settings


class Engine:
    """See `neuron.engine.api.EngineApi` for what each method promises."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._accepting = True
        self._running = Running(self._call_soon)
        self._models = Models(settings, self._harnesses_for, self._running, self._call_soon)

    @property
    def broken(self) -> asyncio.Event:
        return self._models.broken

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._models.warm()

    # ---- models

    async def load(self, spec: LoadSpec, fetch: Fetch) -> tuple[str, ...]:
        self._check_accepting()
        return await self._models.load(spec, fetch)

    def load_progress(self, model_id: str) -> AsyncIterator[Progress]:
        return self._models.progress(model_id)

    async def plan(self, spec: LoadSpec, find: Find) -> LoadPlan:
        return await self._models.plan(spec, find)

    async def unload(self, model_id: str, *, now: bool = False) -> None:
        await self._models.unload(model_id, now=now)

    def configure(self, settings: Settings) -> None:
        self._settings = settings
        self._harnesses.configure(settings)
        self._models.configure(settings)

    def activate(self, models: Iterable[tuple[LoadSpec, Fetch]]) -> None:
        self._models.activate(models)

    def offer(self, models: Iterable[tuple[LoadSpec, Fetch]]) -> None:
        self._models.demand.offer(models)

    def hold(self, model_id: str) -> AbstractAsyncContextManager[None]:
        self._check_accepting()
        return self._models.demand.hold(model_id)

    # ---- work

    async def submit(self, generation: Generation) -> Stream:
        with self._using(generation.model_id) as model:
            if not model.generates:
                raise _only_embeds(model.id)
            model.gate.check(
                generation.principal, generation.principal_limit, generation.n, generation.returns
            )
            answers = await asyncio.to_thread(
                lambda: model.answers(generation, model.encode(generation.prompt))
            )
            self._check_still(model)
            return self._running.generate(model, answers)

    async def embed(
        self,
        model_id: str,
        inputs: TokenIds[TextPrompt | TokenPrompt],
        journey: Journey | None = None,
        *,
        principal: str = ANONYMOUS,
        principal_limit: int | None = None,
        returns: bool = False,
    ) -> Embeddings:
        with self._using(model_id) as model:
            model.gate.check(principal, principal_limit, 1, returns)
            run = await asyncio.to_thread(encode_inputs, model, inputs)
            run.principal, run.principal_limit = principal, principal_limit
            self._check_still(model)
            return await self._running.embed(model, run, journey)

    async def tokenize(self, model_id: str, prompt: Prompt) -> list[int]:
        with self._using(model_id) as model:
            return await asyncio.to_thread(model.tokenize, prompt)

    async def detokenize(self, model_id: str, ids: TokenIds[int]) -> str:
        with self._using(model_id) as model:
            model.check_ids(ids)
            return await asyncio.to_thread(model.text.tokenizer.decode, ids)

    async def render(self, model_id: str, prompt: ChatPrompt) -> str:
        with self._using(model_id) as model:
            return await asyncio.to_thread(model.render, prompt)

    # ---- the node

    def status(self) -> EngineStatus:
        return EngineStatus(
            models=self._models.statuses(),
            activation=self._models.activation,
            decode=self._decode_status(),
            loads=self._models.loads,
        )

    def model(self, model_id: str) -> ModelStatus | None:
        return self._models.status(model_id)

    def refuse_new(self) -> None:
        self._accepting = False
        self._models.demand.stop()

    async def drain(self, timeout_s: float, *, finish_queued: bool = False) -> None:
        self.refuse_new()
        await self._running.end(lambda model: True, timeout_s, _shut_down, finish_queued=finish_queued)

    async def close(self) -> None:
        await self.drain(0)
        self._models.close()
        await asyncio.to_thread(self._harnesses.close)

    # ---- inside

    def _check_accepting(self) -> None:
        if not self._accepting:
            raise _shutting_down()

    def _using(self, model_id: str) -> AbstractContextManager[LoadedModel]:
        """The model, if it may take work now."""
        self._check_accepting()
        return self._models.using(model_id)

    def _check_still(self, model: LoadedModel) -> None:
        """Refuse work that was prepared for a model which has been unloaded meanwhile."""
        self._check_accepting()
        if self._models.serving(model.id) is not model:
            raise unloading(model.id)

    def _harnesses_for(self, models: Callable[[], list[LoadedModel]]) -> Harnesses:
        self._harnesses = Harnesses(self._settings, self._deliver, models)
        return self._harnesses

    def _decode_status(self) -> DecodeStatus:
        begun = [worker.busy_since_s for worker in self._harnesses.workers()]
        age_s = max((time.monotonic() - b for b in begun if b is not None), default=0.0)
        return DecodeStatus(
            active=self._running.n_decoding,
            last_step_age_ms=age_s * 1000,
            stalled=age_s > self._settings.stall_s,
            accepting=self._accepting,
        )

    def _deliver(self, outputs: list[Output]) -> None:
        """Called on a device thread."""
        self._call_soon(self._running.take, outputs)

    def _call_soon(self, function: Callable[..., object], *args: object) -> None:
        """Run on the event loop; from any thread."""
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            pass  # the loop is closed: nobody listens any more


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("the node is shutting down and takes no new work", retry_after_s=15)


def _shut_down() -> ShuttingDown:
    return ShuttingDown("the node shut down before this was done", retry_after_s=15)


def _only_embeds(model_id: str) -> InvalidValue:
    return InvalidValue(
        f"model '{model_id}' only embeds and writes no text", param="model", hint="use /v1/embeddings"
    )
