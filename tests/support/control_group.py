"""A control group with a limit of memory, where this machine and user may make one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Version:
    """Where the groups of a version are, and names of their files."""

    root: Path
    limit: str
    swap: str
    """The limit of swap alone (2), or of memory with it (1)."""
    kills: str


FIRST = Version(ROOT / "memory", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.oom_control")
SECOND = Version(ROOT, "memory.max", "memory.swap.max", "memory.events")


@dataclass(frozen=True)
class MemoryGroup:
    """A group of its own."""

    version: Version
    folder: Path

    def limit(self, n_bytes: int) -> None:
        """Its processes together may have so much memory, and no swap."""
        (self.folder / self.version.limit).write_text(str(n_bytes))
        swap = self.folder / self.version.swap
        if swap.exists():  # not where the kernel does not count it
            swap.write_text("0" if self.version is SECOND else str(n_bytes))

    def command(self, command: Sequence[str]) -> list[str]:
        """``command``, begun in the group."""
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.folder / "cgroup.procs"), *command]

    def n_killed(self) -> int:
        """How often the kernel killed one of its processes for memory."""
        text = (self.folder / self.version.kills).read_text()
        found = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
        return int(found[1]) if found else 0


@contextmanager
def memory_group() -> Iterator[MemoryGroup]:
    """A group that is removed on the way out. Raises `OSError` where none can be made."""
    version = FIRST if (FIRST.root / FIRST.limit).exists() else SECOND
    folder = version.root / f"neuron-test-{os.getpid()}"
    folder.mkdir()
    try:
        (folder / version.limit).read_text()  # not there where the controller is not handed down
        yield MemoryGroup(version, folder)
    finally:
        folder.rmdir()
