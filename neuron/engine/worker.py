"""The one thread that owns a device: it takes jobs between steps and says what happened, never waiting."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

import torch

from neuron.engine.ahead import Ahead
from neuron.engine.device_errors import why_broken
from neuron.engine.embedder import Embedder
from neuron.engine.meter import Meter
from neuron.engine.prefix import PrefixCache
from neuron.engine.reuse import forget, keep, keep_new, piece_tokens, take_over
from neuron.engine.scheduler import Scheduler
from neuron.engine.sequence import Output, Sequence
from neuron.engine.step import begin, begin_followers, run_step
from neuron.errors import DeviceFault, NeuronError, NumericalError
from neuron.log import event
from neuron.model.decoder import Decoder
from neuron.model.native_step import MOST_ROWS

log = logging.getLogger("neuron.engine")

PACE_S = 0.016
"""Least time between two deliveries of tokens. Who reads does not notice, and the event loop, which shares the
processor's cores with the kernels, has a fraction of the work.
"""

Deliver = Callable[[list[Output]], None]
Job = Callable[[], None]


class Slot:
    """A model on the device and its running sequences."""

    def __init__(
        self,
        decoder: Decoder | None,
        chunk_tokens: int,
        embedder: Embedder | None = None,
        prefixes: PrefixCache | None = None,
        *,
        speculates: bool = False,
    ) -> None:
        self.prefixes = prefixes
        """None: nothing is kept of what sequences compute."""
        self.piece_tokens = piece_tokens(decoder, chunk_tokens) if decoder else 0
        """Tokens that may be copied between two steps of a stream."""
        self.speculates = speculates and decoder is not None and decoder.drafts_pay
        """Whether ids are guessed and checked several at a time."""
        self.decoder = decoder
        """None for a model that only embeds."""
        self.embedder = embedder
        self.scheduler = Scheduler(chunk_tokens, MOST_ROWS if decoder and decoder.native else None)
        self.meter = Meter()
        graphs = decoder.graphs if decoder else None
        self.ahead = Ahead(graphs, self.meter) if graphs else None
        """None: every step is read before the next one is launched."""
        self.on_broken: Callable[[str], None] = lambda why: None
        """Told once, on the device thread, why the model can't compute any more."""
        self._broken = False

    def seen(self, outcome: object) -> object:
        """``outcome`` itself; after an error that no request explains, the model is tried."""
        if isinstance(outcome, DeviceFault | NumericalError) and self.embedder and not self._broken:
            why = why_broken(self.embedder.model)
            if why is not None:
                self._broken = True
                self.on_broken(why)
        return outcome


class Worker:
    """Runs every model of one device, a step of each in turn.

    ``deliver`` is called on the device thread with what a step brought; it must return at once and not raise.
    """

    def __init__(self, name: str, n_threads: int | None, deliver: Deliver) -> None:
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._deliver = deliver
        self._n_threads = n_threads
        self._slots: list[Slot] = []
        self._stopping = False
        self._held: list[Output] = []
        self._delivered_s = 0.0
        self.busy_since_s: float | None = None
        """`time.monotonic` of the begin of the step that is running, None between steps."""
        self._thread = threading.Thread(target=self._run, name=f"device-{name}", daemon=True)
        self._thread.start()

    # ---- from any thread

    def add_slot(self, slot: Slot) -> None:
        """Take over a loaded decoder."""
        self._jobs.put(lambda: self._slots.append(slot))

    def add(self, slot: Slot, sequence: Sequence) -> None:
        """Start a sequence before the next step."""
        self._jobs.put(lambda: self._begin(slot, sequence))

    def call(self, job: Job) -> None:
        """Run ``job``, which must not raise, before the next step."""

        def timed() -> None:
            self.busy_since_s = time.monotonic()
            job()
            self.busy_since_s = None

        self._jobs.put(timed)

    def drop_slot(self, slot: Slot, done: Callable[[], None]) -> None:
        """Let go of a decoder that has no sequences left, then call ``done`` on the device thread."""

        def drop() -> None:
            self._slots.remove(slot)
            slot.decoder = slot.embedder = slot.prefixes = slot.ahead = None
            done()

        self._jobs.put(drop)

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the thread after the current step."""

        def end() -> None:
            self._stopping = True

        self._jobs.put(end)
        self._thread.join(timeout_s)

    # ---- on the device thread

    def _run(self) -> None:
        if self._n_threads:
            torch.set_num_threads(self._n_threads)
        while not self._stopping:
            for slot in self._slots:  # before new work, which may go on from what was left
                self._end_cancelled(slot)
            self._take_jobs()
            for slot in self._slots:
                self._step(slot)

    def _take_jobs(self) -> None:
        """The jobs that wait by now, not those that they lead to; without work, wait for one."""
        idle = not any(slot.scheduler.running for slot in self._slots)
        for _ in range(max(int(idle), self._jobs.qsize())):
            self._jobs.get()()

    def _begin(self, slot: Slot, sequence: Sequence) -> None:
        assert slot.decoder is not None
        try:
            begin(sequence, slot.decoder)
        except NeuronError as e:
            self._publish(slot, [Output(sequence, is_end=True, error=e)])
            return
        sequence.filling = slot.prefixes is not None and sequence.n_prompt_left > 1
        slot.scheduler.running.append(sequence)
        self._say([Output(sequence)])

    def _end_cancelled(self, slot: Slot) -> None:
        gone = [s for s in slot.scheduler.running if s.cancelled]
        if gone:
            self._publish(slot, [Output(s, is_end=True) for s in gone])

    def _step(self, slot: Slot) -> None:
        running = slot.scheduler.running
        if not running or slot.decoder is None:
            return
        self.busy_since_s = time.monotonic()
        self._copy(slot)
        outputs = slot.ahead.step(running) if slot.ahead else None
        if outputs is None:
            outputs = self._plain_step(slot, slot.decoder, time.monotonic())
        self.busy_since_s = None
        failed = [output.error for output in outputs if output.error is not None]
        for error in failed:
            cause, fault = str(error), error.__cause__
            event(log, "generation failed", level=logging.ERROR, fault=fault, cause=cause)
        self._publish(slot, outputs)
        for error in failed:
            slot.seen(error)

    def _copy(self, slot: Slot) -> None:
        """Keep what the last step computed, take over what is known; little where a stream of the device waits."""
        waits = any(s.is_decoding for each in self._slots for s in each.scheduler.running)
        most = slot.piece_tokens if waits else sys.maxsize
        if slot.prefixes is not None:
            keep_new(slot.prefixes, slot.scheduler.running, most)
        take_over(slot.prefixes, slot.scheduler.running, most)

    def _plain_step(self, slot: Slot, decoder: Decoder, begun_s: float) -> list[Output]:
        """The next step of whatever the sequences need."""
        plan = slot.scheduler.plan()
        if not plan:  # all wait for a copy
            return []
        n_tokens = sum(len(part.ids) for part in plan)
        if n_tokens > len(plan):
            self._flush()  # this step may take long
        outputs = run_step(decoder, plan)
        slot.meter.record(n_tokens, len(plan), len(outputs), time.monotonic() - begun_s)
        for leader in [o.sequence for o in outputs if o.sequence.followers and o.error is None]:
            begun, failed = begin_followers(leader, decoder)
            slot.scheduler.running += begun
            outputs += failed
        return outputs

    def _publish(self, slot: Slot, outputs: list[Output]) -> None:
        ended = {output.sequence for output in outputs if output.is_end}
        # answers whose leader ended before it held the prompt never started
        outputs = outputs + [Output(f, is_end=True) for s in ended for f in s.followers]
        if ended:
            slot.scheduler.running = [s for s in slot.scheduler.running if s not in ended]
        ends = [o for o in outputs if o.is_end] if ended else []
        for output in ends:
            output.sequence.ended_s = time.monotonic()
        self._say(outputs)
        for output in ends:
            _leave(slot, output)

    def _say(self, outputs: list[Output]) -> None:
        """Deliver, but hold tokens back that come at a faster pace than `PACE_S`, for the next call."""
        self._held += outputs
        urgent = any(o.is_end or o.token is None or len(o.sequence.ids) == 1 for o in outputs)
        if self._held and (urgent or time.monotonic() - self._delivered_s >= PACE_S):
            self._flush()

    def _flush(self) -> None:
        if self._held:
            self._delivered_s = time.monotonic()
            self._deliver(self._held)
            self._held = []


def _leave(slot: Slot, output: Output) -> None:
    """Give back what the sequence held; keep what it computed for prompts that begin the same, unless it failed.

    What it began with is forgotten, too, if that may be why.
    """
    sequence, error = output.sequence, output.error
    if slot.prefixes is not None and sequence.cache is not None:
        if error is None:
            keep(slot.prefixes, sequence)
        elif isinstance(error, DeviceFault | NumericalError):
            forget(slot.prefixes, sequence)
    sequence.cache = sequence.source = sequence.sampler = None
