"""The requests of a node: those that run, and the last ones that ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain, islice

from neuron.daemon.asked import Transcript
from neuron.daemon.record import Observer, Record


class Requests:
    """Keeps every record that has not ended and the newest ``kept`` that have. Used on the event loop only."""

    def __init__(self, *, kept: int, texts: bool, observers: Sequence[Observer] = ()) -> None:
        self._observers = observers
        self._texts = texts
        self.running: dict[str, Record] = {}
        self._ended: deque[Record] = deque(maxlen=kept)

    def begin(self, request_id: str, path: str, arrived_s: float | None = None) -> Record:
        """The record of a request that has arrived; on the monotonic clock, None: now."""
        record = Record(request_id, path, self, Transcript() if self._texts else None, arrived_s)
        self.running[request_id] = record
        return record

    def find(self, request_id: str) -> Record | None:
        """One that runs or is kept."""
        if request_id in self.running:
            return self.running[request_id]
        return next((record for record in self._ended if record.request_id == request_id), None)

    def newest(self, limit: int) -> list[Record]:
        """The last ones that arrived, newest first."""
        known: Iterator[Record] = chain(self.running.values(), reversed(self._ended))
        return list(islice(sorted(known, key=lambda record: -record.marks.arrived_s), limit))

    # ---- told by records

    def admitted(self, record: Record) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.admitted(record)

    def generated(self, record: Record, n_tokens: int, gap_s: float | None) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.generated(record, n_tokens, gap_s)

    def ended(self, record: Record) -> None:
        """Keep it among those that ended, the oldest of which goes."""
        self.running.pop(record.request_id, None)
        self._ended.append(record)
        for observer in self._observers:
            observer.ended(record)
