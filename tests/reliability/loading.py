"""The ways on which files come into a node, each as one function of a path."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from neuron.engine.request import LoadSpec
from neuron.engine.torch_harness import TorchHarness
from neuron.errors import RepoFetchFailed
from neuron.progress import Progress, Report, ignore
from neuron.settings import Settings, cache_dir
from neuron.sources import cache, package_index
from neuron.sources.fetch import fetch, is_cached, verify

SMALL = Settings(device="cpu", threads=1, context=64, kv_budget_mb=16, prefix_cache_mb=0)
_harness = TorchHarness(SMALL, lambda outputs: None, list)


def model(path: Path) -> None:
    """What ``POST /models/load`` does, and one prompt."""
    where = fetch(str(path), ignore)
    loaded = _harness.load(LoadSpec(model_id="m"), where, ignore)
    try:
        if loaded.text.has_chat_template:
            loaded.text.encode_chat([{"role": "user", "content": "Hello, wörld!"}])
        loaded.text.tokenizer.decode(loaded.text.encode_text("Hello, wörld!"))
    finally:
        dropped = threading.Event()
        loaded.worker.drop_slot(loaded.slot, dropped.set)
        dropped.wait(10)


def model_that_changes(path: Path) -> None:
    """A load during which the files change: ``change.json`` says at which share of it, and how."""
    said = json.loads((path / "change.json").read_text())
    files = sorted([*path.glob("*.safetensors"), *path.glob("*.gguf")])

    def report(progress: Progress) -> None:
        if (
            progress.stage == "read"
            and 0 < said["share"] * (progress.total_bytes or 0) <= progress.done_bytes
        ):
            while files:
                CHANGES[said["change"]](files.pop())

    where = fetch(str(path), ignore)
    _harness.load(LoadSpec(model_id="m"), where, report)


def cut_short(file: Path) -> None:
    """Leave a tenth."""
    os.truncate(file, file.stat().st_size // 10)


def replaced_by_another(file: Path) -> None:
    """Another file of the same length moves into its place."""
    other = file.with_suffix(".other")
    other.write_bytes(bytes(file.stat().st_size))
    os.replace(other, file)


def written_over(file: Path) -> None:
    """The same file, the same length, other bytes."""
    with file.open("r+b") as out:
        out.seek(file.stat().st_size // 2)
        out.write(os.urandom(64))
    os.utime(file)


CHANGES: dict[str, Callable[[Path], None]] = {
    "cut short": cut_short,
    "replaced": replaced_by_another,
    "deleted": Path.unlink,
    "written over": written_over,
}


def wheel(path: Path) -> None:
    """What a fetch from a package index does once pip has brought the wheel."""

    def download(requirements: Sequence[str], folder: Path, report: Report) -> list[Path]:
        if len(requirements) != 1 or not requirements[0].startswith("tiny"):
            raise RepoFetchFailed("no such wheel", hint="none")
        folder.mkdir(parents=True)
        return [Path(shutil.copy(path, folder / "tiny-1.0-py3-none-any.whl"))]

    package_index.download = download
    shutil.rmtree(cache_dir() / "pypi", ignore_errors=True)
    for written in (cache_dir() / "manifests").glob("pypi=*"):
        written.unlink()
    fetch("pypi:tiny", ignore)
    verify("pypi:tiny", ignore)


def manifest(path: Path) -> None:
    """Everything that reads what was written down of a fetch; ``path`` is a file in the folder of manifests."""
    cache.cached()
    if is_cached("hf:org/name"):
        verify("hf:org/name", ignore)
        cache.remove("hf:org/name")


# ---- what must be noticed --------------------------------------------------------------------------------------


def die(path: Path) -> None:
    """End as a library does that can't allocate."""
    os.abort()


def hang(path: Path) -> None:
    """Take for ever."""
    time.sleep(3600)


def waste(path: Path) -> None:
    """Take 256 MB, then raise what is none of neuron's errors."""
    taken = bytearray(os.urandom(1 << 20) * 256)
    raise KeyError(len(taken))


LOADS: dict[str, Callable[[Path], None]] = {
    "model": model,
    "model that changes": model_that_changes,
    "wheel": wheel,
    "manifest": manifest,
    "die": die,
    "hang": hang,
    "waste": waste,
}
