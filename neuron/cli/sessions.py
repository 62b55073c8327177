"""Saved chats: files of JSON lines in the state folder, which only their owner reads, growing by the message."""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from neuron.cli.conversation import Line
from neuron.errors import SessionBusy, SessionUnreadable, UsageError
from neuron.settings import state_dir

FIRST_LINE = {"neuron_chat": 1}
"""What every file begins with; the number is the version of the form."""
MAX_BYTES = 256 << 20
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
SUFFIX = ".jsonl"


def folder() -> Path:
    """Where sessions are."""
    return state_dir() / "sessions"


class Session:
    """A file that this process alone appends to, until it is closed."""

    def __init__(self, name: str, fd: int, lines: list[Line], cut_bytes: int) -> None:
        self.name = name
        self.lines = lines
        """What the file held when it was opened."""
        self.cut_bytes = cut_bytes
        """Length of a last line that had no end, as after a crash; it was taken away."""
        self._fd = fd
        self._held: list[Line] | None = None if lines else [FIRST_LINE]

    def append(self, line: Line) -> None:
        """Write a line; it is in the file when this returns, as soon as there is a message at all."""
        if self._held is None:
            _write(self._fd, encoded(line))
            return
        self._held.append(line)
        if "role" in line:
            _write(self._fd, b"".join(map(encoded, self._held)))
            self._held = None

    def close(self) -> None:
        """Let others have it; a file to which nothing was written goes away."""
        if self._held is not None:
            path_of(self.name).unlink(missing_ok=True)
        os.close(self._fd)


def open_session(name: str, *, new: bool = False) -> Session:
    """The session of that name, made if it is not there; with ``new`` it must not be.

    Raises:
        SessionBusy: another process has it open.
        SessionUnreadable: the file is not one of ours.
        UsageError: no name for a session, or (``new``) one that is taken.
        OSError: the folder or file can't be written.
    """
    path = path_of(name)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(path, flags, 0o600)
    try:
        _lock(fd, name)
        lines, whole = parsed(_read(fd), path)
        if new and lines:
            raise UsageError(f"there is a session {name} already", hint=f"go on with it: /load {name}")
        size = os.fstat(fd).st_size
        if whole < size:
            os.ftruncate(fd, whole)
    except BaseException:
        os.close(fd)
        raise
    return Session(name, fd, lines, size - whole)


def new_session() -> Session:
    """A session named after the time, a name that nobody has."""
    stem = time.strftime("%Y-%m-%d-%H%M%S")
    for name in (stem, *(f"{stem}-{n}" for n in range(2, 100))):
        try:
            return open_session(name, new=True)
        except (SessionBusy, UsageError):
            continue
    raise SessionBusy(f"every name after {stem} is taken")


def existing(name: str) -> str:
    """``name``, if there is such a session. Raises `SessionUnreadable` that names the nearest."""
    import difflib

    if not path_of(name).exists():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {near[0]}?" if near else "neuron chat --list shows them"
        raise SessionUnreadable(f"there is no session {name}", hint=hint)
    return name


def last_name() -> str:
    """The session that was written to last. Raises `SessionUnreadable` if there is none."""
    found = names()
    if not found:
        raise SessionUnreadable("there is no session to continue", hint="begin one: neuron chat MODEL")
    return found[0]


def names() -> list[str]:
    """Every session that was written to, the newest first."""
    files = [(path, path.stat()) for path in folder().glob(f"*{SUFFIX}") if NAME.fullmatch(path.stem)]
    written = [(path, stat) for path, stat in files if stat.st_size]
    return [path.stem for path, _ in sorted(written, key=lambda found: -found[1].st_mtime_ns)]


class Summary(NamedTuple):
    """A session in a list."""

    name: str
    model: str | None
    messages: int
    changed_s: float
    """Seconds since 1970."""
    begins: str
    """The first question."""


def summaries() -> list[Summary]:
    """Every session that can be read, the newest first."""
    return [found for name in names() if (found := _summary(name))]


def model_of(name: str) -> str | None:
    """The model that a session was with last; None of one that is new or can't be read."""
    found = _summary(name)
    return found.model if found else None


def _summary(name: str) -> Summary | None:
    try:
        lines = read(path_of(name))
        changed_s = path_of(name).stat().st_mtime
    except (OSError, SessionUnreadable):
        return None
    models = [line["value"] for line in lines if line.get("do") == "model"]
    said = [line for line in lines if "role" in line]
    first = next((str(line.get("content")) for line in said if line["role"] == "user"), "")
    return Summary(name, models[-1] if models else None, len(said), changed_s, first)


def path_of(name: str) -> Path:
    """The file of a session. Raises `UsageError` for what is no name."""
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name for a session", hint="letters, digits, dots, hyphens and underscores"
        )
    return folder() / f"{name}{SUFFIX}"


def read(path: Path) -> list[Line]:
    """The lines of a file, without a cut last one. Raises `SessionUnreadable`, `OSError`."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return parsed(_read(fd), path)[0]
    finally:
        os.close(fd)


def write_copy(path: Path, lines: Iterable[Line]) -> None:
    """Lines as a file of their own; an existing file is not touched.

    Raises:
        FileExistsError, OSError
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _write(fd, b"".join(map(encoded, [FIRST_LINE, *lines])))
    finally:
        os.close(fd)


def encoded(line: Line) -> bytes:
    """A line of the file."""
    return msgspec.json.encode(line) + b"\n"


def parsed(raw: bytes, path: Path) -> tuple[list[Line], int]:
    """Lines, and the length of all that have an end."""
    whole = raw.rfind(b"\n") + 1
    lines = [_line(n, text, path) for n, text in enumerate(raw[:whole].splitlines(), 1)]
    if lines and lines[0] != FIRST_LINE:
        raise SessionUnreadable(f"{path}:1: not a chat that this program wrote")
    return lines[1:], whole


def _line(number: int, text: bytes, path: Path) -> Line:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        hint = "take the line away, or begin another session"
        raise SessionUnreadable(f"{path}:{number}: damaged: {e}", hint=hint) from e


def _read(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    if size > MAX_BYTES:
        raise SessionUnreadable(f"a chat of {size} bytes; at most {MAX_BYTES} are read")
    parts = []
    while part := os.read(fd, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _lock(fd: int, name: str) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        hint = "leave it there first, or take another: --session NAME"
        raise SessionBusy(f"the session {name} is open in another terminal", hint=hint) from e
