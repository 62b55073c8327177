"""``hf:`` models from the hub, into the hub's own cache, through `huggingface_hub` (imported late: it is heavy).

``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HOME``, ``HF_HUB_OFFLINE`` and ``HF_HUB_DISABLE_XET`` mean what they mean there.

A model counts as fetched when its manifest says so, and is then used without one request: a branch stays where it
was fetched. A download that was cut starts again with the first file that is not complete.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuron import faults
from neuron.errors import EmptyRepo, NeuronError, QuantNotFound, RepoFetchFailed, UnsafeWeights
from neuron.files import read_bounded, read_json_object
from neuron.progress import Progress, Report
from neuron.sources import manifest
from neuron.sources.hub_errors import cause_of, failure, hub_exceptions
from neuron.sources.reference import Reference
from neuron.sources.selection import INDEX, Selection, select, shards, shown

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as the hub lists it; one of the two hashes is known."""

    size: int
    sha256: str | None
    git_sha1: str | None


@dataclass(frozen=True, slots=True)
class Repo:
    """A repository at one commit."""

    name: str
    commit: str
    files: dict[str, RemoteFile]
    cache: Path

    @property
    def folder(self) -> str:
        """Its name in the hub's cache."""
        return "models--" + self.name.replace("/", "--")


def fetch_repo(reference: Reference, report: Report) -> Path:
    """The snapshot folder, or the ``.gguf`` file in it, of a hub repository; fetched when it is not there yet.

    Raises:
        RepoFetchFailed, EmptyRepo, UnsafeWeights, QuantNotFound: in words, with the next step.
    """
    report(Progress("resolve"))
    try:
        repo = _ask(reference)
    except hub_exceptions() as e:
        return _from_cache(reference, e, report)
    try:
        return _download(reference, repo, report)
    except hub_exceptions() as e:
        raise failure(reference.text, e) from e


def _ask(reference: Reference) -> Repo:
    """The commit and the files behind a reference: one request."""
    from huggingface_hub import HfApi, constants

    faults.at("resolve")
    api = HfApi(endpoint=constants.ENDPOINT)
    timeout_s = constants.HF_HUB_ETAG_TIMEOUT
    info = api.model_info(reference.name, revision=reference.revision, files_metadata=True, timeout=timeout_s)
    files = {
        file.rfilename: RemoteFile(file.size or 0, file.lfs.sha256 if file.lfs else None, file.blob_id)
        for file in info.siblings or ()
    }
    if not (info.sha and _COMMIT.fullmatch(info.sha)):
        raise RepoFetchFailed(f"{reference.text}: the hub names no commit", hint="check HF_ENDPOINT")
    return Repo(reference.name, info.sha, files, Path(constants.HF_HUB_CACHE))


def _download(reference: Reference, repo: Repo, report: Report) -> Path:
    chosen = select(repo.files, reference.text, reference.file)
    names = _with_shards(repo, chosen, reference.text)
    _sweep(repo)
    missing = [name for name in names if not _snapshot(repo, name).exists()]
    manifest.require_space(repo.cache, sum(repo.files[name].size for name in missing))
    meter = _Meter(report, sum(repo.files[name].size for name in names))
    for name in names:
        meter.start(name in missing, repo.files[name].size)
        _get(repo, name, meter)
    files = _verified(reference, repo, names, report)
    root = _snapshot(repo, "")
    return manifest.record(
        reference, revision=repo.commit, root=root, entry=chosen.gguf or ".", files=files
    ).path


def _with_shards(repo: Repo, chosen: Selection, where: str) -> tuple[str, ...]:
    if not chosen.sharded:
        return chosen.files
    names = shards(read_json_object(_get(repo, INDEX, None)), where)
    if absent := [name for name in names if name not in repo.files]:
        raise RepoFetchFailed(
            f"{where}: {INDEX} names {shown(absent)}, which the repository lacks",
            hint="the repository is incomplete; choose another revision",
        )
    return (*chosen.files, *names)


def _get(repo: Repo, name: str, meter: _Meter | None) -> Path:
    """One file, in the cache afterwards; there at once when it is in the cache already."""
    from huggingface_hub import constants, hf_hub_download

    path = hf_hub_download(
        repo.name,
        name,
        revision=repo.commit,
        cache_dir=repo.cache,
        endpoint=constants.ENDPOINT,
        tqdm_class=(meter or _Meter(lambda _: None, 0)).bar_class(),
    )
    return Path(path)


def _verified(
    reference: Reference, repo: Repo, names: tuple[str, ...], report: Report
) -> list[manifest.File]:
    """Hash what lies in the snapshot and compare it with what the hub lists."""
    total, done, files = sum(repo.files[name].size for name in names), 0, []
    for name in names:
        path, listed = _snapshot(repo, name), repo.files[name]
        digest = manifest.sha256(path)
        if digest != listed.sha256 and (listed.sha256 or _git_sha1(path) != listed.git_sha1):
            path.resolve().unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            raise RepoFetchFailed(
                f"{reference.text}: {name} has another hash than the hub lists; removed",
                hint="try again; if it happens again, something between here and the hub alters files",
            )
        files.append(manifest.File(name, path.stat().st_size, digest))
        done += files[-1].size
        report(Progress("verify", done, total))
    return files


def _git_sha1(path: Path) -> str:
    """The hash under which git keeps a file that is not in LFS."""
    content = read_bounded(path)
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _snapshot(repo: Repo, name: str) -> Path:
    return repo.cache / repo.folder / "snapshots" / repo.commit / name


# ---- without the hub -----------------------------------------------------------------------------------------


def _from_cache(reference: Reference, error: Exception, report: Report) -> Path:
    """What an earlier download left in the hub's cache, where the hub says nothing about the repository itself."""
    cause = cause_of(error)
    found = _cached(reference) if cause.transient else None
    if found is None:
        raise failure(reference.text, error) from error
    report(Progress("resolve", note=f"{cause.why}: using the copy of {reference.name} in the cache"))
    return found


def _cached(reference: Reference) -> Path | None:
    from huggingface_hub import constants

    revision = reference.revision or constants.DEFAULT_REVISION
    repo = Repo(reference.name, "", {}, Path(constants.HF_HUB_CACHE))
    ref = repo.cache / repo.folder / "refs" / revision
    commit = revision if _COMMIT.fullmatch(revision) else _read_ref(ref)
    return _complete(repo.cache / repo.folder / "snapshots" / commit, reference) if commit else None


def _read_ref(path: Path) -> str | None:
    try:
        commit = read_bounded(path, 100).decode("ascii", "replace").strip()
    except NeuronError:
        return None
    return commit if _COMMIT.fullmatch(commit) else None


def _complete(folder: Path, reference: Reference) -> Path | None:
    """The model in a snapshot, when nothing it needs is missing. The hub links a file in once it is complete."""
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    try:
        chosen = select(names, reference.text, reference.file)
        whole = not chosen.sharded or names.issuperset(
            shards(read_json_object(folder / INDEX), reference.text)
        )
    except (EmptyRepo, UnsafeWeights, QuantNotFound, RepoFetchFailed):
        return None
    return folder / (chosen.gguf or "") if whole else None


# ---- leftovers and progress ----------------------------------------------------------------------------------


def _sweep(repo: Repo) -> None:
    """Remove the partial files of downloads that died: nobody holds their lock. The hub never reads them again."""
    for orphan in (repo.cache / repo.folder / "blobs").glob("*.incomplete"):
        etag = orphan.name.split(".")[0]
        with _lock_if_free(repo.cache / ".locks" / repo.folder / f"{etag}.lock") as locked:
            if locked:
                orphan.unlink(missing_ok=True)


@contextmanager
def _lock_if_free(path: Path) -> Iterator[bool]:
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(fd)


class _Meter:
    """Bytes over all files of a model, fed by the progress bars that `huggingface_hub` would draw."""

    def __init__(self, report: Report, total: int) -> None:
        self._report = report
        self._total = total
        self._done = 0

    def start(self, missing: bool, size: int) -> None:
        """Before each file: one that is there already counts at once."""
        self.advance(0 if missing else size)

    def advance(self, count: int) -> None:
        """``count`` more bytes; less than none when the hub starts a file again."""
        self._done += count
        self._report(Progress("fetch", self._done, self._total))

    def bar_class(self) -> type[Any]:
        """A progress bar that draws nothing and counts here."""
        from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

        meter = self

        class Bar(tqdm):  # type: ignore[misc, type-arg, unused-ignore]
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **{**kwargs, "disable": True})

            def update(self, n: float | None = 1) -> None:
                meter.advance(int(n or 0))
                faults.at("download")

            def update_transfer(self, n: float) -> None:
                """Bytes on the wire, which xet counts apart from the bytes of the file."""

        return Bar
