"""Changes of the file of keys: one at a time, whole or not at all, for the eyes of its owner alone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from neuron.errors import ConfigError
from neuron.keys import Keyring, default_file, read, text_of
from neuron.secret_file import is_there, not_for_me


def change(path: Path, edit: Callable[[Keyring], Keyring]) -> Keyring:
    """Replace the keys of ``path``, which need not exist, by what ``edit`` makes of them; the new ones.

    Raises:
        ExposedSecret, ConfigError: the file there is no file of keys, or can't be written.
    """
    try:
        _need_folder(path)
        with _alone(path.parent):
            ring = edit(read(path) if is_there(path) else Keyring(()))
            _replace(path.resolve(), text_of(ring))
    except PermissionError as e:
        raise not_for_me(path, "write") from e
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}", hint="name another file with --file") from e
    return ring


def _need_folder(path: Path) -> None:
    """The state folder is made at its first use, for its owner alone; any other must be there."""
    folder = path.parent
    if folder.exists():
        return
    if path != default_file():
        raise ConfigError(f"{path}: there is no folder {folder}", hint=f"mkdir -p {shlex.quote(str(folder))}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait for other changes. The folder is locked, since the file itself is replaced."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _replace(path: Path, text: str) -> None:
    """Write beside it, to disk, and rename over it."""
    fd, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            _give(file.fileno(), path)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise
    _sync(path.parent)


def _give(fd: int, path: Path) -> None:
    """What root writes for a service stays the service's: as the file before it, else as its folder."""
    if os.geteuid() == 0:
        owner = os.stat(path if path.exists() else path.parent)
        os.fchown(fd, owner.st_uid, owner.st_gid)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
