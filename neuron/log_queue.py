"""A log that never holds up who writes to it: a bounded queue, and a thread that takes from it."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import TextIO

from neuron import faults

QUEUED_LINES = 4096
FLUSH_S = 1.0


class QueuedHandler(logging.Handler):
    """Lines that find the queue full are dropped and counted; ``on_loss`` gets the number once there is room."""

    def __init__(self, stream: TextIO, on_loss: Callable[[int], None], max_lines: int = QUEUED_LINES) -> None:
        super().__init__()
        self._stream = stream
        self._on_loss = on_loss
        self._lines: queue.Queue[str] = queue.Queue(max_lines)
        self._dropped = 0
        threading.Thread(target=self._run, name="neuron-log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the line; never waits."""
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._dropped += 1

    def flush(self) -> None:
        """Wait until all is written, at most `FLUSH_S`."""
        deadline_s = time.monotonic() + FLUSH_S
        while self._lines.unfinished_tasks and time.monotonic() < deadline_s:
            time.sleep(0.005)

    def _run(self) -> None:
        while True:
            line = self._lines.get()
            try:
                faults.at("log")
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                self._dropped += 1  # the reader is gone
            else:
                self._tell_loss()
            self._lines.task_done()

    def _tell_loss(self) -> None:
        if self._dropped:
            n, self._dropped = self._dropped, 0
            self._on_loss(n)
