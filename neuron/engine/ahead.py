"""Steps on a GPU that are launched before the host has read the ids of the step before (ADR 0014)."""

from __future__ import annotations

import logging
import time
from typing import NamedTuple

import torch

from neuron import faults
from neuron.engine.meter import Meter
from neuron.engine.race import Draws
from neuron.engine.sequence import Output, Sequence
from neuron.engine.step import accept, not_finite
from neuron.log import event
from neuron.model.cache import SequenceCache
from neuron.model.graphs import DecodeGraphs, Launched

log = logging.getLogger("neuron.engine")


class Flight(NamedTuple):
    """A step that was launched and is not read yet."""

    sequences: list[Sequence]
    launched: Launched
    draws: Draws | None
    """None: all ids are the likeliest."""
    begun_s: float
    injected: str | None
    """A fault that was planned for it."""


class Ahead:
    """Runs the steps of one decoder that need nothing but the likeliest or a drawn id of every running sequence.

    The device has these ids first and goes on with them. A sequence that turns out to have ended is then a step too
    far: nobody reads that id, and the cache forgets the token. So at most one step is ahead of what is known.
    """

    def __init__(self, graphs: DecodeGraphs, meter: Meter) -> None:
        self._graphs, self._meter = graphs, meter
        self._flight: Flight | None = None
        self._read_s = 0.0

    @torch.inference_mode()
    def step(self, running: list[Sequence]) -> list[Output] | None:
        """What became of each sequence in one step; None: it has to be computed the plain way.

        Whatever goes wrong here, the plain way computes the step once more and tells whose fault it was.
        """
        try:
            flight = self._in_flight() or self._begun(running)
            if flight is None:
                return None
            self._flight = self._next(flight, running)
            return self._landed(flight)
        except Exception as e:
            event(log, "step ahead given up", level=logging.WARNING, cause=f"{type(e).__name__}: {e}"[:200])
            self._flight = None
            for sequence in running:
                sequence.forget_unread()
            return None

    def _in_flight(self) -> Flight | None:
        """The step that is to be read next, if somebody is left in it."""
        flight = self._flight
        return flight if flight and any(s.cache is not None for s in flight.sequences) else None

    def _begun(self, running: list[Sequence]) -> Flight | None:
        """A step behind ids that are known."""
        if not 0 < len(running) <= self._graphs.most or not all(map(_only_needs_ids, running)):
            return None
        begun_s, injected = time.monotonic(), faults.at("step")
        caches, draws = _caches(running), _draws(running)
        launched = self._graphs.launch([s.ids[-1] for s in running], caches, draws)
        return Flight(list(running), launched, draws, begun_s, injected)

    def _next(self, flight: Flight, running: list[Sequence]) -> Flight | None:
        """The step behind the ids of ``flight``, if the same sequences take part and one will need it."""
        if running != flight.sequences or not any(len(s.ids) + 1 < s.max_new_tokens for s in running):
            return None
        caches = _caches(running)
        if not all(cache.length < cache.capacity for cache in caches):
            return None
        begun_s, injected = time.monotonic(), faults.at("step")
        launched = self._graphs.launch_next(caches, flight.draws)
        return Flight(flight.sequences, launched, flight.draws, begun_s, injected)

    def _landed(self, flight: Flight) -> list[Output]:
        """The ids of a step."""
        ids = flight.launched.read()
        elapsed_s = time.monotonic() - max(self._read_s, flight.begun_s)
        self._read_s = time.monotonic()
        if "nan" in (flight.injected, faults.at("logits")):
            ids[0] = -1
        live = [(s, token) for s, token in zip(flight.sequences, ids, strict=True) if s.cache is not None]
        self._meter.record(len(live), len(live), len(live), elapsed_s)
        for sequence in flight.sequences if flight.draws else ():
            if sequence.sampler is not None:
                sequence.sampler.n_drawn += 1
        outputs = [not_finite(s) if token < 0 else accept(s, token) for s, token in live]
        for output in outputs:
            if output.is_end:
                output.sequence.forget_unread()
        return outputs


def _only_needs_ids(sequence: Sequence) -> bool:
    """Whether an id is all that it wants to know of a step, and logits all that the id depends on."""
    sampler, plain = sequence.sampler, sequence.drafts is None and sequence.generation.logprobs is None
    return bool(plain and sequence.ids and sampler and (sampler.is_plain_greedy or sampler.is_plain_draw))


def _draws(sequences: list[Sequence]) -> Draws | None:
    """How their next ids are drawn; None where all take the likeliest."""
    samplers = [s.sampler for s in sequences if s.sampler is not None]
    if all(sampler.is_plain_greedy for sampler in samplers):
        return None
    return Draws([sampler.next_draw() for sampler in samplers], _caches(sequences)[0].data.device)


def _caches(sequences: list[Sequence]) -> list[SequenceCache]:
    return [s.cache for s in sequences if s.cache is not None]
