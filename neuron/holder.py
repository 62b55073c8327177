"""Which process listens on a port or a Unix socket, as far as ``/proc`` tells."""

from __future__ import annotations

from pathlib import Path

LISTENING = "0A"
"""State of a socket in ``/proc/net/tcp``."""
ACCEPTS = "00010000"
"""Flags of a socket in ``/proc/net/unix`` that listens."""
PROC = Path("/proc")


def holder(where: int | Path, proc: Path = PROC) -> int | None:
    """The process that listens on a port or at a path; None if nobody does, or it can't be seen."""
    inodes = _listening(where, proc) if isinstance(where, int) else _listening_at(where, proc)
    sockets = {f"socket:[{inode}]" for inode in inodes}
    for fd in proc.glob("[0-9]*/fd/*") if sockets else ():
        try:
            if str(fd.readlink()) in sockets:
                return int(fd.parts[-3])
        except OSError:
            continue  # the process ended, or is another user's
    return None


def described(pid: int | None, proc: Path = PROC) -> str:
    """A process for people: ``process 812 (neuron)``."""
    return f"process {pid} ({_text(proc / str(pid) / 'comm').strip()})" if pid else "another user's process"


def _listening(number: int, proc: Path) -> set[str]:
    """Inodes of the sockets that listen on a port."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in _text(proc / "net" / name).splitlines()[1:]]
    return {row[9] for row in rows if row[3] == LISTENING and int(row[1].rpartition(":")[2], 16) == number}


def _listening_at(path: Path, proc: Path) -> set[str]:
    """The same of Unix sockets that were bound to a path."""
    rows = [line.split(maxsplit=7) for line in _text(proc / "net" / "unix").splitlines()[1:]]
    return {row[6] for row in rows if len(row) == 8 and row[3] == ACCEPTS and row[7] == str(path)}


def _text(path: Path) -> str:
    """A small system file; nothing where there is none or it is closed to us."""
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""
