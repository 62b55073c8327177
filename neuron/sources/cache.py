"""What was fetched to this machine: listed, and removed."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from neuron.errors import InvalidModelFile
from neuron.settings import cache_dir
from neuron.sources import fetch, manifest
from neuron.sources.aliases import ALIASES, alternatives
from neuron.sources.manifest import Manifest
from neuron.sources.reference import parse_reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Cached:
    """One fetched model."""

    model: str
    """The reference it answers to."""
    short_names: tuple[str, ...]
    revision: str
    size_bytes: int
    path: str
    fetched_at: int
    """Seconds since 1970."""
    whole: bool
    """Whether every file is there and as long as it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What a removal gave back."""

    model: str
    path: str
    freed_bytes: int


def cached() -> list[Cached]:
    """Every model that was fetched."""
    return [_cached(found) for _, found in manifest.all_recorded()]


def _cached(found: Manifest) -> Cached:
    return Cached(
        model=found.source.removesuffix("@"),
        short_names=tuple(name for name in ALIASES if found.source in keys(name)),
        revision=found.revision,
        size_bytes=sum(file.size for file in found.files),
        path=str(found.path),
        fetched_at=found.fetched_at,
        whole=found.is_whole(),
    )


def keys(text: str) -> frozenset[str]:
    """What a reference, or a short name, is written down under; nothing for a path."""
    references = map(parse_reference, alternatives(text))
    return frozenset(manifest.key(one) for one in references if one.scheme != "path")


def remove(text: str) -> Removed:
    """Remove a fetched model, and what was written down of it.

    Raises:
        NotFetched: it was not fetched.
        InvalidModelFile: what was written down of it names a place that is none of a cache.
    """
    found = fetch.recorded(text)
    root = Path(found.root)
    freed = _remove_package(root) if _is_package(root) else _remove_snapshot(root)
    for path, other in manifest.all_recorded():
        if other.root == found.root:
            path.unlink(missing_ok=True)
    return Removed(model=found.source.removesuffix("@"), path=found.root, freed_bytes=freed)


def _is_package(root: Path) -> bool:
    """Whether it is ``pypi/NAME/VERSION`` of the cache, wherever links and ``..`` in it lead."""
    return root.resolve().parents[1:2] == ((cache_dir() / "pypi").resolve(),)


def _remove_package(root: Path) -> int:
    freed = sum(path.lstat().st_size for path in root.rglob("*") if path.is_file())
    shutil.rmtree(root, ignore_errors=False)
    _remove_if_empty(root.parent)
    return freed


def _remove_if_empty(home: Path) -> None:
    """A package's folder without a version in it, unless somebody fetches one just now."""
    with suppress(OSError), open(home / ".lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if all(path.name == ".lock" for path in home.iterdir()):
            (home / ".lock").unlink()
            home.rmdir()


def _remove_snapshot(root: Path) -> int:
    """A commit in the hub's cache, as the hub's own library removes it: files of other commits stay."""
    from huggingface_hub import scan_cache_dir

    if not root.exists():
        return 0
    if root.parent.name != "snapshots":
        raise InvalidModelFile(f"{root}: no place where a model is fetched to; nothing was removed")
    folder = root.parents[2]  # of models--ORG--NAME/snapshots/COMMIT
    strategy = scan_cache_dir(folder).delete_revisions(root.name)
    strategy.execute()
    return strategy.expected_freed_size


def in_use(text: str, sources: Iterable[str]) -> bool:
    """Whether one of the references that models were loaded from is this one, or lies in its folder."""
    wanted, root = keys(text), Path(fetch.recorded(text).root)
    return any(_is(source, wanted, root) for source in sources)


def _is(source: str, wanted: frozenset[str], root: Path) -> bool:
    if wanted & keys(source):
        return True
    reference = parse_reference(source)
    return reference.scheme == "path" and Path(os.path.realpath(reference.name)).is_relative_to(
        os.path.realpath(root)
    )
