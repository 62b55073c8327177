"""Files that hold secrets: read only where nobody else can, and never in part."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from neuron.errors import ConfigError, ExposedSecret

MAX_BYTES = 1 << 20
OTHERS = 0o007
GROUP_AND_OTHERS = 0o077


def is_there(path: Path) -> bool:
    """False only where it surely is not. Raises `ExposedSecret` for a folder that this user can't look into."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as e:
        raise not_for_me(path, "read") from e
    return True


def not_for_me(path: Path, what: str) -> ExposedSecret:
    """The error of a file that belongs to somebody else."""
    return ExposedSecret(
        f"{path}: this user may not {what} it",
        hint="give it to the user that runs neuron, or run as that user",
    )


def read_secret(path: Path, forbidden: int = GROUP_AND_OTHERS) -> str:
    """The text of a file that grants none of the ``forbidden`` mode bits.

    Raises:
        ExposedSecret: others can read or write it, or it belongs to somebody else.
        ConfigError: it is not there, not a regular file, too large, or not UTF-8.
    """
    text, status = read_with_status(path)
    check_private(path, status, forbidden)
    return text


def read_with_status(path: Path) -> tuple[str, os.stat_result]:
    """The text of a regular file, and the status of the very file that was read. Raises as `read_secret` does."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would block for ever
    except PermissionError as e:
        raise not_for_me(path, "read") from e
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}") from e
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{path}: not a regular file")
        return _text(path, file.read(MAX_BYTES + 1)), status


def check_private(path: Path, status: os.stat_result, forbidden: int = GROUP_AND_OTHERS) -> None:
    """Raise where the file of this status is no place for a secret."""
    if status.st_mode & forbidden:
        raise ExposedSecret(
            f"{path}: others can read it (mode {stat.S_IMODE(status.st_mode):04o}), and it holds secrets",
            hint=f"chmod 600 {path}",
        )
    me = os.geteuid()
    if me != 0 and status.st_uid not in (0, me):
        raise ExposedSecret(f"{path}: belongs to another user", hint=f"chown it to user {me}")


def _text(path: Path, content: bytes) -> str:
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES >> 20} MiB")
    try:
        return content.decode()
    except UnicodeDecodeError as e:
        raise ConfigError(f"{path}: not UTF-8: {e.reason}") from e
