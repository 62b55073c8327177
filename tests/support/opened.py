"""What a Python process opens and connects to, told by an audit hook that is there before anything else of it."""

from __future__ import annotations

from pathlib import Path

HOOK = """
import os, sys
_fd = os.open({record!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
_EVENTS = frozenset(("open", "os.listdir", "os.scandir", "sqlite3.connect"))
def _hook(event, args):
    if event in _EVENTS and not isinstance(args[0], int):
        os.write(_fd, ascii(os.fsdecode(args[0] or ".")).encode() + b"\\n")
    elif event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        os.write(_fd, ascii(f"{{event}} {{args[1] if event == 'socket.connect' else args[0]}}").encode() + b"\\n")
sys.addaudithook(_hook)
"""
"""``sitecustomize.py`` of the process."""


class Opened:
    """Files and folders that a process opened, and ``socket.connect ADDRESS``, in their order."""

    def __init__(self, folder: Path, more: str = "") -> None:
        """``more`` is run at the start of the process, too."""
        folder.mkdir()
        self._record = folder / "opened"
        (folder / "sitecustomize.py").write_text(HOOK.format(record=str(self._record)) + more)
        self.env = {"PYTHONPATH": str(folder)}
        """Of a process that is to be listened to."""
        self._seen = 0

    def since(self) -> list[str]:
        """Those since the last time, as they were written down."""
        from ast import literal_eval

        lines = self._record.read_text().splitlines()
        new, self._seen = lines[self._seen :], len(lines)
        return [literal_eval(line) for line in new]
