"""Loading safetensors beside reading the file, from the disk and from the page cache; peak memory."""

from __future__ import annotations

import os
import time
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from pathlib import Path

from benchmarks.lines import child
from benchmarks.models import folder
from benchmarks.report import Part, Row, at_most, within

ROUNDS = 3
PIECE_BYTES = 8 << 20


def loads(dtype: str) -> Part:
    """The reader and the loader in turn."""
    file = folder(dtype) / "model.safetensors"
    times: dict[str, list[float]] = {"read cold": [], "load cold": [], "read": [], "load": []}
    peaks_mib, weights_mib, theirs_s = [], 0.0, []
    for _ in range(ROUNDS):
        for cold in (" cold", ""):
            if cold:
                forget(file)
            times[f"read{cold}"].append(read_s(file))
            if cold:
                forget(file)
            with child("neuron", file.parent) as loaded:
                times[f"load{cold}"].append(loaded.load_s)
                loaded.ask(list(range(1, 101)), 16)
                peaks_mib.append(loaded.peak_mib())
                weights_mib = loaded.weight_bytes / 2**20
    with child("transformers", file.parent, dtype) as peer:
        theirs_s.append(peer.load_s)
        peer.ask(list(range(1, 101)), 16)
        theirs_mib = peer.peak_mib()
    what = f"safetensors {dtype}"
    rows = [
        within(f"load {what} from disk", "s", times["load cold"], {"read it": times["read cold"]}, 2),
        within(f"load {what} from the page cache", "s", times["load"], {"read it": times["read"]}, 2),
        at_most(
            f"peak memory, load {what} and answer",
            "MiB",
            peaks_mib,
            1.15 * weights_mib + 300,
            {"transformers": [theirs_mib]},
        ),
        Row(f"load {what} until the first token", "s", times["load"], {"transformers": theirs_s}),
    ]
    return Part(rows)


def forget(file: Path) -> None:
    """Have the system drop what it holds of a file."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_s(file: Path) -> float:
    """Seconds to read all of it into new memory, which is where a load has to put it, too."""
    begin_s = time.perf_counter()
    with (
        file.open("rb", buffering=0) as opened,
        mmap(-1, file.stat().st_size, MAP_PRIVATE | MAP_ANONYMOUS) as memory,
    ):
        while opened.readinto(memoryview(memory)[opened.tell() : opened.tell() + PIECE_BYTES]):
            pass
    return time.perf_counter() - begin_s
