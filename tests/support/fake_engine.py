"""An engine of scripted text: no torch, no threads, faults on demand. It keeps account of what became of what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path

from neuron.engine.api import Embeddings, Fetch, Find, Journey
from neuron.engine.events import (
    Event,
    Failed,
    Finished,
    FinishReason,
    Likelihood,
    ReasoningDelta,
    Started,
    TextDelta,
    Timings,
    TokenLogprobs,
    ToolCallDelta,
    Usage,
)
from neuron.engine.plan import LoadPlan
from neuron.engine.repeat import asked_changes
from neuron.engine.request import ChatPrompt, Generation, LoadSpec, Prompt, Sampling, TextPrompt, TokenPrompt
from neuron.engine.status import Activation, DecodeStatus, EngineStatus, LoadFigures, Loads, ModelStatus
from neuron.errors import AlreadyLoaded, InvalidValue, ModelNotLoaded, NeuronError, ShuttingDown
from neuron.keys import ANONYMOUS
from neuron.progress import Progress
from neuron.settings import Settings

PLAN = LoadPlan(
    model_id="",
    family="llama",
    n_parameters=1000,
    quant="BF16",
    file_bytes=2000,
    dtype="float32",
    weights="F32",
    device="cpu",
    weight_bytes=4000,
    kv_bytes_per_token=10,
    model_context=2048,
    free_bytes=1 << 30,
    room_bytes=4100,
)
SHOWN = Path(__file__).parent / "shown"
"""The folder of every loaded model."""
TIMINGS = Timings(queue_ms=1, prefill_ms=2, decode_ms=3)


@dataclass(frozen=True)
class Think:
    """A piece of thinking."""

    text: str


@dataclass(frozen=True)
class Call:
    """A whole tool call, or a piece of one: its name comes with the first."""

    arguments: str = ""
    name: str | None = None
    number: int = 0


Piece = str | Think | Call


@dataclass(kw_only=True)
class Script:
    """What the engine says to a generation; each piece is one token."""

    texts: Sequence[Piece] = ("Hel", "lo", " wörld")
    answers: Sequence[Sequence[Piece]] = ()
    """Of a generation with ``n``: each answer's own pieces; empty: all say ``texts``."""
    before_s: float = 0.0
    """Silence before the prompt begins: the queue."""
    step_s: float = 0.0
    """Silence before each text."""
    submit_s: float = 0.0
    """Time that admission takes."""
    refuse: NeuronError | None = None
    """Raised by `submit`."""
    fail: NeuronError | None = None
    """The end instead of `Finished`."""
    cut: bool = False
    """No end at all."""
    reason: str = "stop"
    stop: str | None = None
    """The stop string that ended it."""


@dataclass
class FakeStream:
    """The events of one generation, and whether it was left."""

    engine: FakeEngine
    generation: Generation
    script: Script
    left: asyncio.Event = field(default_factory=asyncio.Event)
    ended: bool = False
    drained: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> FakeStream:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.cancel()

    def cancel(self) -> None:
        """The reader is gone."""
        self.left.set()
        self.engine.running.discard(self.generation.request_id)

    async def __aiter__(self) -> AsyncIterator[Event]:
        await asyncio.sleep(self.script.before_s)
        yield Started(prompt_tokens=7)
        for n, round_ in enumerate(zip_longest(*self._answers()), start=1):
            for index, piece in enumerate(round_):
                if piece is None:
                    continue
                await self._sleep(self.script.step_s)
                if self.drained.is_set():
                    yield Failed(error=ShuttingDown("the node is shutting down"))
                    return
                yield self._delta(piece, n, index)
        if self.script.cut:
            return
        self.ended = True
        if self.script.fail:
            yield Failed(error=self.script.fail)
            return
        for index, pieces in enumerate(self._answers()):
            yield self._finished(pieces, index)

    def _answers(self) -> Sequence[Sequence[Piece]]:
        return self.script.answers or [self.script.texts] * self.generation.n

    def _delta(self, piece: Piece, n: int, index: int) -> Event:
        match piece:
            case str():
                return TextDelta(text=piece, n_tokens=n, index=index, logprobs=self._logprobs(piece))
            case Think():
                return ReasoningDelta(
                    text=piece.text, n_tokens=n, index=index, logprobs=self._logprobs(piece.text)
                )
            case Call():
                return ToolCallDelta(
                    call=piece.number,
                    id=piece.name and f"call_{index}_{piece.number}",
                    name=piece.name,
                    arguments=piece.arguments,
                    n_tokens=n,
                    index=index,
                    logprobs=self._logprobs(piece.arguments),
                )

    def _logprobs(self, text: str) -> tuple[TokenLogprobs, ...]:
        """One token: ``text``, and as many others as were asked for."""
        if self.generation.logprobs is None:
            return ()
        top = [Likelihood(token_id=i, token=text, data=text.encode(), logprob=-0.5 - i) for i in range(20)]
        return (TokenLogprobs(chosen=top[0], top=tuple(top[: self.generation.logprobs])),)

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds or 0):
                await self.drained.wait()
        except TimeoutError:
            return

    def _finished(self, pieces: Sequence[Piece], index: int) -> Finished:
        thoughts = sum(isinstance(piece, Think) for piece in pieces)
        usage = Usage(
            prompt_tokens=7,
            completion_tokens=len(pieces),
            cached_tokens=2,
            reasoning_tokens=thoughts,
            drafted_tokens=5,
            drafted_right_tokens=3,
        )
        calls = any(isinstance(piece, Call) for piece in pieces)
        reason: FinishReason = "tool_calls" if calls else "stop"
        reason = "length" if self.script.reason == "length" else reason
        return Finished(reason=reason, usage=usage, timings=TIMINGS, index=index, stop=self.script.stop)


class FakeEngine:
    """Implements `neuron.engine.api.EngineApi`."""

    def __init__(self, script: Script | None = None, models: Iterable[str] = ("org/tiny",)) -> None:
        self.script = script or Script()
        self.models = {name: self.loaded(name) for name in models}
        self.activation = Activation()
        self.broken = asyncio.Event()
        self.decode = DecodeStatus()
        self.ended_loads = Loads()
        self.streams: list[FakeStream] = []
        self.running: set[str] = set()
        self.cancelled_submits = 0
        self.load_s = 0.0
        self.load_error: BaseException | None = None
        self.load_steps: Sequence[Progress] = ()
        self.loads: list[tuple[LoadSpec, Fetch]] = []
        self.offered: dict[str, tuple[LoadSpec, Fetch]] = {}
        self.unloads: list[tuple[str, bool]] = []
        """Id, and whether it was to be now."""
        self.planned = PLAN
        self.calls: list[str] = []
        self.on_submit: Callable[[Generation], None] = lambda generation: None
        self.prompts: list[Prompt] = []
        """What was tokenised, rendered or embedded."""
        self.embedders: list[tuple[str, int | None]] = []
        """Who embedded, and how much they may."""
        self._ends: dict[str, asyncio.Event] = {}

    @staticmethod
    def loaded(name: str) -> ModelStatus:
        """A model that answers."""
        return ModelStatus(
            id=name,
            harness="torch",
            state="loaded",
            path=str(SHOWN),
            weight_bytes=3 << 20,
            context=2048,
            dtype="float32",
            weights="F32",
            reasoning=True,
            tool_call=True,
            fingerprint="fp_fake",
            loaded_at_s=1_700_000_000,
            load=LoadFigures(max_in_flight=16, kv_budget_bytes=8 << 20, kv_free_bytes=4 << 20),
            sampling=Sampling(),
        )

    @classmethod
    def encoder(cls, name: str) -> ModelStatus:
        """A model that only embeds."""
        return replace(cls.loaded(name), generates=False, reasoning=False, tool_call=False)

    async def start(self) -> None:
        self.calls.append("start")

    async def load(self, spec: LoadSpec, fetch: Fetch) -> tuple[str, ...]:
        self.loads.append((spec, fetch))
        if not self.decode.accepting:
            raise ShuttingDown("the node is shutting down")
        if self._state(spec.model_id) == "loaded":
            if changed := asked_changes(spec):
                return changed
            raise AlreadyLoaded(f"model '{spec.model_id}' already loaded")
        if (there := self.models.get(str(spec.source))) and spec.model_id not in self.models:
            self.models[spec.model_id] = replace(
                there, id=spec.model_id, alias_of=there.id, weight_bytes=None
            )
            return ("alias", *asked_changes(spec))
        self._ends[spec.model_id] = asyncio.Event()
        self.models[spec.model_id] = ModelStatus(id=spec.model_id, harness=spec.harness, state="loading")
        try:
            await asyncio.sleep(self.load_s)
            self._end_load(spec.model_id)
        finally:
            self._ends.pop(spec.model_id).set()
        return ()

    def _end_load(self, name: str) -> None:
        if self.load_error is None:
            self.models[name] = self.loaded(name)
            self.ended_loads = replace(self.ended_loads, loaded=self.ended_loads.loaded + 1)
            return
        self.ended_loads = replace(self.ended_loads, failed=self.ended_loads.failed + 1)
        self.models[name] = replace(self.models[name], state="failed", error=str(self.load_error))
        raise self.load_error

    def _state(self, name: str) -> str | None:
        model = self.models.get(name)
        return model and model.state

    async def load_progress(self, model_id: str) -> AsyncIterator[Progress]:
        for step in self.load_steps:
            yield step
        if end := self._ends.get(model_id):
            await end.wait()

    async def plan(self, spec: LoadSpec, find: Find) -> LoadPlan:
        self.loads.append((spec, lambda report: Path("/nowhere")))
        if self.load_error is not None:
            raise self.load_error
        return replace(self.planned, model_id=spec.model_id)

    def offer(self, models: Iterable[tuple[LoadSpec, Fetch]]) -> None:
        self.offered.update({spec.model_id: (spec, fetch) for spec, fetch in models})

    @asynccontextmanager
    async def hold(self, model_id: str) -> AsyncIterator[None]:
        if model_id in self.offered and self._state(model_id) is None:
            await self.load(*self.offered[model_id])
        yield

    async def unload(self, model_id: str, *, now: bool = False) -> None:
        self.unloads.append((model_id, now))
        if self._state(model_id) != "loaded":
            raise ModelNotLoaded(f"model '{model_id}' not loaded")
        del self.models[model_id]

    def configure(self, settings: Settings) -> None:
        self.calls.append(f"configure {settings.max_in_flight}")

    def activate(self, models: Iterable[tuple[LoadSpec, Fetch]]) -> None:
        names = tuple(spec.model_id for spec, _ in models)
        self.calls.append(f"activate {' '.join(names)}".strip())
        self.activation = Activation(state="pre_warming" if names else "ready", pending=names)

    async def submit(self, generation: Generation) -> FakeStream:
        self.on_submit(generation)
        if not self.decode.accepting:
            raise ShuttingDown("the node is shutting down", retry_after_s=7)
        self._demand(generation.model_id)
        try:
            await asyncio.sleep(self.script.submit_s)
        except asyncio.CancelledError:
            self.cancelled_submits += 1
            raise
        if self.script.refuse:
            raise self.script.refuse
        stream = FakeStream(self, generation, self.script)
        self.streams.append(stream)
        self.running.add(generation.request_id)
        return stream

    async def tokenize(self, model_id: str, prompt: Prompt) -> list[int]:
        """Ids are bytes; 256 begins a text."""
        self._note(model_id, prompt)
        match prompt:
            case ChatPrompt():
                return list(self._rendered(prompt).encode())
            case TextPrompt():
                return [*([256] if prompt.special else []), *prompt.text.encode()]
            case TokenPrompt():
                return list(prompt.ids)

    async def detokenize(self, model_id: str, ids: Sequence[int]) -> str:
        self._note(model_id, TokenPrompt(ids=ids))
        if any(not 0 <= i <= 256 for i in ids):
            raise InvalidValue("the prompt has an id outside the vocabulary of 257", param="prompt")
        return bytes(i for i in ids if i < 256).decode(errors="replace")

    async def render(self, model_id: str, prompt: ChatPrompt) -> str:
        self._note(model_id, prompt)
        return self._rendered(prompt)

    @staticmethod
    def _rendered(prompt: ChatPrompt) -> str:
        said = "".join(f"<{m['role']}>{m['content']}" for m in prompt.messages)
        return said if prompt.continue_final else f"{said}<assistant>"

    async def embed(
        self,
        model_id: str,
        inputs: Sequence[TextPrompt | TokenPrompt],
        journey: Journey | None = None,
        *,
        principal: str = ANONYMOUS,
        principal_limit: int | None = None,
        returns: bool = False,
    ) -> Embeddings:
        """A vector of three numbers, of which the second is the number of tokens."""
        self.embedders.append((principal, principal_limit))
        sizes = [len(await self.tokenize(model_id, prompt)) for prompt in inputs]
        if self.script.refuse:
            raise self.script.refuse
        if journey is not None:
            journey.admit()
        await asyncio.sleep(self.script.before_s)
        if journey is not None:
            journey.start()
        await asyncio.sleep(self.script.step_s)
        if self.script.fail:
            raise self.script.fail
        return Embeddings(vectors=tuple((0.1, float(n), -0.5) for n in sizes), prompt_tokens=sum(sizes))

    def _note(self, model_id: str, prompt: Prompt) -> None:
        self._demand(model_id)
        self.prompts.append(prompt)

    def _demand(self, model_id: str) -> None:
        if self._state(model_id) != "loaded":
            raise ModelNotLoaded(f"model '{model_id}' not loaded; loaded: {', '.join(self.models)}")

    def status(self) -> EngineStatus:
        return EngineStatus(
            models=tuple(self.models.values()),
            activation=self.activation,
            decode=self.decode,
            loads=self.ended_loads,
        )

    def model(self, model_id: str) -> ModelStatus | None:
        return self.models.get(model_id)

    def refuse_new(self) -> None:
        self.decode = replace(self.decode, accepting=False)

    async def drain(self, timeout_s: float, *, finish_queued: bool = False) -> None:
        self.calls.append("drain all" if finish_queued else "drain")
        self.refuse_new()
        deadline = asyncio.get_running_loop().time() + timeout_s
        while self.running and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)
        for stream in self.streams:
            stream.drained.set()

    async def close(self) -> None:
        self.calls.append("close")
