"""The program as a process of its own, with nothing of the caller's configuration."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

PROGRAM = (sys.executable, "-m", "neuron.cli.main")


def environment(home: Path | None = None, **more: str) -> dict[str, str]:
    """The caller's environment without its settings, proxies and colours."""
    dropped = ("NEURON_", "HF_", "XDG_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_COLOR", "FORCE_COLOR")
    kept = {k: v for k, v in os.environ.items() if not k.upper().startswith(dropped)}
    mine = str(home or "/nonexistent")
    return {**kept, "XDG_CONFIG_HOME": mine, "XDG_STATE_HOME": mine, "OMP_NUM_THREADS": "1", **more}


def neuron(
    *args: str, stdin: str | bytes = b"", env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run it to its end; output as text, byte for byte."""
    done = subprocess.run(
        [*PROGRAM, *args],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        env=environment(**(env or {})),
        capture_output=True,
        timeout=60,
        cwd=cwd,
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in err, err
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
