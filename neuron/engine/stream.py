"""The events of one generation, all its answers together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from neuron.engine.answer import Answer
from neuron.engine.events import Event, Failed, Finished, Started, TextDelta
from neuron.engine.sequence import Output, Sequence
from neuron.errors import NeuronError


class Stream:
    """An `neuron.engine.api.EventStream` with one reader.

    Text that waits for the reader is joined, so a slow reader costs no more memory than the answer has.
    ``on_end`` is called with a sequence that should not be computed any further: the reader left, a stop string
    ended its text, or another answer failed.
    """

    def __init__(self, answers: list[Answer], on_end: Callable[[Sequence], None]) -> None:
        self._answers = {answer.sequence: answer for answer in answers}
        self._on_end = on_end
        self._events: list[Event] = []
        self._ready = asyncio.Event()
        self._ended = False

    @property
    def sequences(self) -> list[Sequence]:
        """One for each answer, the leader first."""
        return list(self._answers)

    # ---- the reader

    async def __aiter__(self) -> AsyncIterator[Event]:
        n_open = len(self._answers)
        while n_open:
            await self._ready.wait()
            events, self._events = self._events, []
            self._ready.clear()
            for event in events:
                yield event
                if isinstance(event, Failed):
                    return
                n_open -= isinstance(event, Finished)

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.cancel()

    def cancel(self) -> None:
        """End the generation; nothing happens if it has ended."""
        self._close()

    # ---- the engine

    def deliver(self, outputs: list[Output]) -> None:
        """Take what the device thread says of one sequence. Ignored once the answer has ended (a stop string was
        hit, say).
        """
        last = outputs[-1]
        answer = self._answers[last.sequence]
        if self._ended or answer.ended:
            return
        if outputs[0].token is None and not outputs[0].is_end and last.sequence.index == 0:
            self._push(Started(prompt_tokens=len(last.sequence.prompt_ids)))
        for event in answer.take(output for output in outputs if output.token is not None):
            self._push(event)
        if last.error is not None and not answer.ended:
            self.fail(last.error)
        elif answer.ended and not last.is_end:
            self._on_end(last.sequence)
        self._ended = self._ended or all(a.ended for a in self._answers.values())

    def fail(self, error: NeuronError) -> None:
        """End the stream with an error."""
        if not self._ended:
            self._push(Failed(error=error))
            self._close()

    def _close(self) -> None:
        if not self._ended:
            self._ended = True
            for sequence in self.sequences:
                self._on_end(sequence)

    def _push(self, event: Event) -> None:
        last = self._events[-1] if self._events else None
        if isinstance(event, TextDelta) and isinstance(last, TextDelta) and event.index == last.index:
            joined = replace(event, text=last.text + event.text, logprobs=last.logprobs + event.logprobs)
            self._events[-1] = joined
        else:
            self._events.append(event)
        self._ready.set()
