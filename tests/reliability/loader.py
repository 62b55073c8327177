"""A process that loads whatever files it is told to, within limits, and says what came of it.

A line of JSON in: ``{"kind": "model" | "wheel" | "manifest", "path": …}``. A line out: `Outcome`.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self

ROOM_BYTES = 2 << 30
"""Address space beyond what the imports took."""


@dataclass(frozen=True)
class Outcome:
    """What came of one load."""

    error: str | None
    """Class of what was raised; None: it loaded."""
    ours: bool
    """Whether the class is one of neuron's own."""
    message: str
    peak_mb: int
    """Memory that it took at most beyond what was in use."""
    seconds: float


class Loader:
    """The process. Use as a context manager; it is started anew when it has died."""

    def __init__(self, cache: Path, limit_s: float) -> None:
        self.cache = cache
        self.limit_s = limit_s
        self._process: subprocess.Popen[str] | None = None

    def load(self, kind: str, path: Path) -> Outcome | str:
        """What came of it; a sentence where the process died, or had to be ended because it took too long."""
        process = self._process or self._start()
        assert process.stdin is not None
        process.stdin.write(json.dumps({"kind": kind, "path": str(path)}) + "\n")
        process.stdin.flush()
        try:
            line = self._lines.get(timeout=self.limit_s)
        except Empty:
            self._end()
            return f"took longer than {self.limit_s:g} s"
        if line is None:
            code = process.wait()
            self._end()
            return f"the process died with {code}"
        return Outcome(**json.loads(line))

    def _start(self) -> subprocess.Popen[str]:
        env = {**os.environ, "NEURON_CACHE": str(self.cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.loader"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=env,
        )
        self._process, self._lines = process, SimpleQueue[str | None]()
        threading.Thread(target=_follow, args=(process, self._lines), daemon=True).start()
        assert self._lines.get(timeout=120) == "ready\n"
        return process

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                pipe.close()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()


def _follow(process: subprocess.Popen[str], lines: SimpleQueue[str | None]) -> None:
    assert process.stdout is not None
    try:
        for line in process.stdout:
            lines.put(line)
    except ValueError:  # closed
        pass
    lines.put(None)


# ---- in the process ------------------------------------------------------------------------------------------


def main() -> None:
    """Load what standard input names, one after the other."""
    from tests.reliability.loading import LOADS

    limit = _memory_mb("VmSize") * (1 << 20) + ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever prints does not print into the answers
    out.write("ready\n")
    for line in sys.stdin:
        task = json.loads(line)
        out.write(json.dumps(asdict(_outcome(LOADS[task["kind"]], Path(task["path"])))) + "\n")


def _outcome(load: Any, path: Path) -> Outcome:
    from neuron.errors import NeuronError

    Path("/proc/self/clear_refs").write_text("5")
    before_mb, began_s, error = _memory_mb("VmRSS"), time.monotonic(), None
    try:
        load(path)
    except BaseException as e:
        error = e
    return Outcome(
        error=None if error is None else type(error).__name__,
        ours=isinstance(error, NeuronError),
        message=str(error)[:500] if error else "",
        peak_mb=_memory_mb("VmHWM") - before_mb,
        seconds=time.monotonic() - began_s,
    )


def _memory_mb(key: str) -> int:
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) // 1024


if __name__ == "__main__":
    main()
