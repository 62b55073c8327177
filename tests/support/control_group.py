"""A control group with a limit of memory, where this machine and user may make one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


class MemoryGroup:
    """A group of its own, in version 1 or 2."""

    def __init__(self, folder: Path, limit: str, kills: str) -> None:
        self.folder = folder
        self._limit, self._kills = folder / limit, folder / kills

    def limit(self, n_bytes: int) -> None:
        """Its processes together may have so much memory."""
        self._limit.write_text(str(n_bytes))

    def command(self, command: Sequence[str]) -> list[str]:
        """``command``, begun in the group."""
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.folder / "cgroup.procs"), *command]

    def n_killed(self) -> int:
        """How often the kernel killed one of its processes for memory."""
        found = re.search(r"^oom_kill (\d+)$", self._kills.read_text(), re.MULTILINE)
        return int(found[1]) if found else 0


@contextmanager
def memory_group() -> Iterator[MemoryGroup]:
    """A group that is removed on the way out. Raises `OSError` where none can be made."""
    first = (ROOT / "memory" / "memory.limit_in_bytes").exists()
    folder = (ROOT / "memory" if first else ROOT) / f"neuron-test-{os.getpid()}"
    folder.mkdir()
    try:
        if first:
            yield MemoryGroup(folder, "memory.limit_in_bytes", "memory.oom_control")
        else:
            (folder / "memory.max").read_text()  # not there where the controller is not handed down
            yield MemoryGroup(folder, "memory.max", "memory.events")
    finally:
        folder.rmdir()
