"""What is known of one request for text or vectors, from its arrival to its end, and its line in the log.

Every request has one `Record`, which ends exactly once: finished, cut, failed or refused. The line says so, and
whoever counts is told.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Any, Literal, Protocol

from neuron.daemon import errors
from neuron.daemon.asked import Transcript, parameters
from neuron.daemon.body import ClientGone
from neuron.daemon.phases import Marks
from neuron.engine.events import (
    Event,
    Failed,
    Finished,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from neuron.engine.request import Generation, Prompt
from neuron.errors import NeuronError
from neuron.log import event as log_event

log = logging.getLogger(__name__)

State = Literal["queued", "prefill", "decoding", "finished", "cut", "failed", "refused"]
CUT = "client_gone"


class Observer(Protocol):
    """Who is told of what happens to a record."""

    def admitted(self, record: Record) -> None: ...
    def generated(self, record: Record, n_tokens: int, gap_s: float | None) -> None: ...
    def ended(self, record: Record) -> None: ...


class Record:
    """One request. As a context manager it ends on leaving, at most once.

    A handler that answers calls `hand_over`, and the answer closes the record when its last byte is written.
    """

    def __init__(
        self,
        request_id: str,
        path: str,
        observer: Observer,
        transcript: Transcript | None = None,
        arrived_s: float | None = None,
    ) -> None:
        self.request_id = request_id
        self.path = path
        self.marks = Marks() if arrived_s is None else Marks(arrived_s)
        self.arrived_at_s = time.time()
        self.kind: Literal["generation", "embeddings"] = "generation"
        self.principal: str | None = None
        """The name of the key that was shown; None without one."""
        self.model: str | None = None
        self.stream = False
        self.n = 1
        """Answers to each prompt: answer ``i`` of prompt ``p`` has the index ``p * n + i``."""
        self.n_prompts = 1
        self.parameters: dict[str, Any] = {}
        self.finish = CUT
        """Why it ended, once it has: a finish reason, the code of an error, or `CUT`."""
        self.cause: str | None = None
        self.param: str | None = None
        """Of a failure that is not its client's."""
        self.transcript = transcript
        """What was asked and answered; None where that is not kept."""
        self._observer = observer
        self._prompts: dict[int, int] = {}
        self._usage: dict[int, Usage] = {}
        self._tokens: dict[int, int] = {}
        self._newest_s: dict[int, float] = {}
        self._n_open = 1
        self._failed = False
        self._handed_over = False

    # ---- its life

    def __enter__(self) -> Record:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, NeuronError):
            self._fail(error)
        elif isinstance(error, Exception) and not isinstance(error, ClientGone):
            self._fail(NeuronError(type(error).__name__))
        if error is not None or not self._handed_over:
            self.close()

    def expect(self, wanted: Sequence[Generation]) -> None:
        """What will be submitted."""
        self.n, self.n_prompts, self.parameters = wanted[0].n, len(wanted), parameters(wanted[0])
        self._n_open = self.n * self.n_prompts
        if self.transcript is not None:
            self.transcript.ask([one.prompt for one in wanted])

    def embeds(self, inputs: Sequence[Prompt]) -> None:
        """It asks for vectors of these."""
        self.kind, self.n_prompts = "embeddings", len(inputs)
        if self.transcript is not None:
            self.transcript.ask(inputs)

    def read(self) -> None:
        """Its body is there."""
        self.marks.read_s = time.monotonic()

    def held(self) -> None:
        """Its model is in memory."""
        self.marks.held_s = time.monotonic()

    def admit(self) -> None:
        """It has a place or waits for one."""
        self.marks.admitted_s = time.monotonic()
        self._observer.admitted(self)

    def start(self) -> None:
        """The device has begun."""
        self.marks.started_s = time.monotonic()

    def embedded(self, prompt_tokens: int) -> None:
        """The vectors are there."""
        self.marks.done_s = time.monotonic()
        self.finish, self._n_open = "done", 0
        self._prompts[0] = prompt_tokens

    def hand_over(self) -> None:
        """Leave the end to whoever writes the answer."""
        self._handed_over = True

    def close(self) -> None:
        """It has ended: say so, once."""
        if self.marks.closed_s:
            return
        self.marks.closed_s = time.monotonic()
        if self._n_open and not self._failed:
            self.finish = CUT
        if self.admitted:
            self._write_line()
        elif self._handed_over or not self._failed:
            self._write_refusal()
        self._observer.ended(self)

    # ---- what passes

    def watch(self, events: AsyncIterable[Event]) -> AsyncIterator[Event]:
        """``events``, noted as they pass."""
        return _Watched(aiter(events), self.note)

    def note(self, event: Event) -> None:
        """Keep what is told of ``event``."""
        match event:
            case Started():
                self.marks.started_s = self.marks.started_s or event.at_s
                self._prompts.setdefault(0, event.prompt_tokens)
            case TextDelta() | ReasoningDelta() | ToolCallDelta():
                self._note_tokens(event)
            case Finished():
                self.finish = event.reason
                self._note_first(event.first_token_s)
                self._usage[event.index] = event.usage
                self._count(event.index, event.usage.completion_tokens, event.at_s)
                self._n_open -= 1
                self.marks.done_s = 0.0 if self._n_open else event.at_s
            case Failed():
                self._fail(event.error)

    def _note_first(self, at_s: float) -> None:
        """An answer says when the device had its first token."""
        if at_s:
            self.marks.computed_s = min(at_s, self.marks.computed_s or at_s)

    def _note_tokens(self, event: TextDelta | ReasoningDelta | ToolCallDelta) -> None:
        self.marks.first_token_s = self.marks.first_token_s or event.at_s
        self._count(event.index, event.n_tokens, event.at_s)
        if self.transcript is not None:
            self.transcript.note(event)

    def _count(self, index: int, n_tokens: int, at_s: float) -> None:
        """An answer has so many tokens now."""
        before = self._tokens.get(index, 0)
        n_new = n_tokens - before
        if n_new <= 0:
            return
        gap_s = (at_s - self._newest_s[index]) / n_new if before else None
        self._tokens[index], self._newest_s[index] = n_tokens, at_s
        self._observer.generated(self, n_new, gap_s)

    def _fail(self, error: NeuronError) -> None:
        self.finish, self.param, self._failed = error.code, error.param, True
        if errors.row_of(error).status >= 500:
            self.cause = errors.whole_cause(error)

    # ---- what is told

    @property
    def admitted(self) -> bool:
        """Whether it ever had a place or waited for one; a refusal before is told of by who answers with it."""
        return bool(self.marks.admitted_s)

    @property
    def state(self) -> State:
        """Where it is, or how it ended."""
        marks = self.marks
        if not marks.closed_s:
            return "decoding" if marks.first_token_s else "prefill" if marks.started_s else "queued"
        if self._failed:
            return "failed" if self.admitted else "refused"
        return "cut" if self.finish == CUT else "finished"

    @property
    def prompt_tokens(self) -> int | None:
        """Of every prompt once, where known."""
        known = {index // self.n: usage.prompt_tokens for index, usage in self._usage.items()}
        prompts = {**self._prompts, **known}
        return sum(prompts.values()) if prompts else None

    @property
    def completion_tokens(self) -> int:
        """Of every answer, so far."""
        return sum(self._tokens.values())

    def used(self, of: Callable[[Usage], int]) -> int:
        """A count of every answer that is whole."""
        return sum(map(of, self._usage.values()))

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens after the first of each answer, over the time that they took."""
        after_first = self.completion_tokens - max(1, len(self._tokens))
        decode_ms = self.marks.phases_ms()["decode"]
        return after_first / decode_ms * 1e3 if after_first > 0 and decode_ms > 0 else None

    def _write_line(self) -> None:
        is_text = self.kind == "generation"
        log_event(
            log,
            self.kind,
            id=self.request_id,
            model=self.model,
            principal=self.principal,
            stream=self.stream if is_text else None,
            inputs=None if is_text else self.n_prompts,
            finish=self.finish,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.used(lambda usage: usage.cached_tokens) if is_text else None,
            completion_tokens=self.completion_tokens if is_text else None,
            tokens_per_s=self.tokens_per_s,
            first_token_ms=self.marks.first_token_ms(),
            **self._times(),
            cause=self.cause,
        )

    def _write_refusal(self) -> None:
        """Of one that nobody answers with a status: its stream had begun, or its client left."""
        level = logging.WARNING if self._failed else logging.INFO
        log_event(
            log,
            "refused",
            level=level,
            id=self.request_id,
            path=self.path,
            code=self.finish,
            param=self.param,
            cause=self.cause,
        )

    def _times(self) -> dict[str, Any]:
        phases = {f"{name}_ms": ms for name, ms in self.marks.phases_ms().items()}
        return {**phases, "total_ms": self.marks.total_ms()}


class _Watched:
    """An iterator and not a generator: nothing is left to the garbage collector when a client leaves."""

    def __init__(self, events: AsyncIterator[Event], note: Callable[[Event], None]) -> None:
        self._events = events
        self._note = note

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        event = await anext(self._events)
        self._note(event)
        return event
