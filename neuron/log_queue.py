"""A log that never holds up who writes to it: a bounded queue, and a thread that takes from it."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import TextIO

from neuron import faults

QUEUED_LINES = 4096
FLUSH_S = 1.0


class QueuedHandler(logging.Handler):
    """Lines that find the queue full, or no room where they go to, are dropped and counted; ``on_loss`` gets the
    number once there is room. None is cut: what a full disk took a part of is ended before the next.
    """

    def __init__(self, stream: TextIO, on_loss: Callable[[int], None], max_lines: int = QUEUED_LINES) -> None:
        super().__init__()
        self._fd, self._encoding = stream.fileno(), stream.encoding
        self._on_loss = on_loss
        self._lines: queue.Queue[str] = queue.Queue(max_lines)
        self._rest = b""
        """Of the line that is being written."""
        self._overflowed = 0
        self._unwritten = 0
        self._told = 0
        threading.Thread(target=self._run, name="neuron-log", daemon=True).start()

    @property
    def dropped(self) -> int:
        """Lines that are lost, since the begin."""
        return self._overflowed + self._unwritten

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the line; never waits."""
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._overflowed += 1

    def flush(self) -> None:
        """Wait until all is written, at most `FLUSH_S`."""
        deadline_s = time.monotonic() + FLUSH_S
        while self._lines.unfinished_tasks and time.monotonic() < deadline_s:
            time.sleep(0.005)

    def _run(self) -> None:
        while True:
            self._write(self._lines.get())
            self._lines.task_done()

    def _write(self, line: str) -> None:
        if not self._written():
            self._unwritten += 1
            return
        self._rest = f"{line}\n".encode(self._encoding, "backslashreplace")
        if self._written():
            self._tell_loss()

    def _written(self) -> bool:
        """Whether nothing is left of the line after another try."""
        try:
            while self._rest:
                faults.at("log")
                self._rest = self._rest[os.write(self._fd, self._rest) :]
        except OSError:  # a full disk, or a reader that is gone
            return False
        return True

    def _tell_loss(self) -> None:
        if n := self.dropped - self._told:
            self._told += n
            self._on_loss(n)
