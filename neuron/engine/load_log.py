"""What the log has of a load while it runs."""

from __future__ import annotations

import logging
import time

from neuron.log import event
from neuron.progress import Progress

log = logging.getLogger("neuron.engine")

INTERVAL_S = 1.0


class LoadLog:
    """A `neuron.progress.Report`: a line when a stage begins, a line for a note, and one at each tenth of a stage,
    but at most one a second of those."""

    def __init__(self, model_id: str) -> None:
        self._model_id = model_id
        self._stage = ""
        self._tenth = 0
        self._note: str | None = None
        self._said_s = 0.0

    def __call__(self, progress: Progress) -> None:
        tenth = 10 * progress.done_bytes // progress.total_bytes if progress.total_bytes else 0
        is_new = progress.stage != self._stage or progress.note not in (None, self._note)
        is_due = tenth != self._tenth and time.monotonic() - self._said_s >= INTERVAL_S
        if is_new or is_due:
            self._stage, self._tenth, self._note = progress.stage, tenth, progress.note
            self._said_s = time.monotonic()
            self._say(progress)

    def _say(self, progress: Progress) -> None:
        event(
            log,
            "load progress",
            id=self._model_id,
            stage=progress.stage,
            done_bytes=progress.done_bytes if progress.total_bytes else None,
            total_bytes=progress.total_bytes,
            note=progress.note,
        )
