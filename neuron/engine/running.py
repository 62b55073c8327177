"""What is being generated and embedded, from admission to its end; used on the event loop only."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable

from neuron.engine.answer import Answer
from neuron.engine.api import Embeddings, Journey
from neuron.engine.embedding import EmbedRun, compute
from neuron.engine.loaded import LoadedModel
from neuron.engine.sequence import Output, Sequence
from neuron.engine.stream import Stream
from neuron.errors import NeuronError

SEE_OFF_S = 60.0
"""How long a failed generation may take to leave the device: one step of the largest chunk."""


class Running:
    """Streams and embeddings by model. Every one that was admitted ends here exactly once."""

    def __init__(self, call_soon: Callable[..., None]) -> None:
        self._call_soon = call_soon
        self._active: dict[Sequence, tuple[Stream, LoadedModel]] = {}
        self._embeds: dict[EmbedRun, LoadedModel] = {}
        self._changed = asyncio.Event()
        """Set when something ended."""

    @property
    def n_decoding(self) -> int:
        """Sequences on a device."""
        return sum(1 for sequence in self._active if sequence.started_s)

    def generate(self, model: LoadedModel, answers: list[Answer]) -> Stream:
        """A stream that has a place or waits for one. Raises `QueueFull` and `OverShare`."""
        stream = Stream(answers, self._cancel)
        self._active.update((sequence, (stream, model)) for sequence in stream.sequences)
        try:
            model.gate.enter(stream.sequences[0], lambda s: model.worker.add(model.slot, s), self._fail)
        except NeuronError:
            self._drop(stream, model)
            raise
        return stream

    async def embed(self, model: LoadedModel, run: EmbedRun, journey: Journey | None = None) -> Embeddings:
        """The vectors of one request. Raises `QueueFull`, `OverShare` and what the computing raises."""
        self._embeds[run] = model
        try:
            model.gate.enter(run, EmbedRun.start, EmbedRun.fail)
            if journey is not None:
                journey.admit()
            await run.admitted()
            if journey is not None:
                journey.start()
            return await compute(model, run, self._call_soon)
        finally:
            run.ended_s = time.monotonic()
            del self._embeds[run]
            model.gate.leave(run)
            self._changed.set()

    def take(self, outputs: list[Output]) -> None:
        """What some steps brought."""
        by_sequence: defaultdict[Sequence, list[Output]] = defaultdict(list)
        for output in outputs:
            by_sequence[output.sequence].append(output)
        for sequence, said in by_sequence.items():
            found = self._active.get(sequence)
            if found is None:
                continue
            stream, model = found
            stream.deliver(said)
            if said[-1].is_end:
                del self._active[sequence]
                if not any(sequence in self._active for sequence in stream.sequences):
                    self._drop(stream, model)

    async def end(
        self,
        concerns: Callable[[LoadedModel], bool],
        timeout_s: float,
        error: Callable[[], NeuronError],
        *,
        finish_queued: bool = False,
    ) -> None:
        """Fail what waits, let what runs end within ``timeout_s``, then fail the rest and see it off the device.

        With ``finish_queued`` what waits counts as running.
        """

        def left() -> list[Sequence]:
            return [s for s, (_, model) in self._active.items() if concerns(model)]

        def embeds() -> list[EmbedRun]:
            return [run for run, model in self._embeds.items() if concerns(model)]

        for sequence in left():
            if self._waits(sequence) and not finish_queued:
                self._fail(sequence, error())
        for run in embeds():
            if not run.started_s and not finish_queued:
                run.fail(error())
        await self.until(lambda: not left() and not embeds(), timeout_s)
        for sequence in left():
            self._fail(sequence, error())
        for run in embeds():
            run.fail(error())
        await self.until(lambda: not left() and not embeds(), SEE_OFF_S)

    def notify(self) -> None:
        """Have `until` look again."""
        self._changed.set()

    async def until(self, reached: Callable[[], bool], timeout_s: float) -> None:
        """Return when a condition is true that changes with an end or a `notify`, or after ``timeout_s``."""
        deadline_s = time.monotonic() + timeout_s
        while not reached() and (remaining_s := deadline_s - time.monotonic()) > 0:
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), remaining_s)
            except TimeoutError:
                return

    def _waits(self, sequence: Sequence) -> bool:
        """Whether its stream has no place yet."""
        found = self._active.get(sequence)
        return found is not None and found[0].sequences[0] not in found[1].gate.running

    def _drop(self, stream: Stream, model: LoadedModel) -> None:
        """Forget a stream whose sequences are not on the device, and give its place to the next."""
        for sequence in stream.sequences:
            self._active.pop(sequence, None)
        model.gate.leave(stream.sequences[0])
        self._changed.set()

    def _cancel(self, sequence: Sequence) -> None:
        """The reader left, or a stop string ended the text: stop computing."""
        sequence.cancelled = True
        if self._waits(sequence):
            self._drop(*self._active[sequence])

    def _fail(self, sequence: Sequence, error: NeuronError) -> None:
        found = self._active.get(sequence)
        if found is not None:
            found[0].fail(error)  # which cancels its sequences
