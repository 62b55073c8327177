"""How long a node takes until it answers, and until it says that its port is taken. No test fails for slowness."""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.node_process import NEURON, clean_env
from tests.support.scorecard import Scorecard
from tests.support.supervisor import manager, service

N = 5
PORT_TAKEN = 75
READY_S, TAKEN_S = 1.5, 0.5


def median_s(work: Callable[[], None]) -> float:
    """Of `N` times."""
    took_s = []
    for _ in range(N):
        began_s = time.monotonic()
        work()
        took_s.append(time.monotonic() - began_s)
    return statistics.median(took_s)


def test_times_to_ready_and_to_the_error_of_a_taken_port(tmp_path: Path, scorecard: Scorecard) -> None:
    took_s: list[float] = []
    for nth in range(N):
        folder = tmp_path / str(nth)
        folder.mkdir()
        with manager(folder) as listener:
            began_s = time.monotonic()
            with service("--port", "0", env={"NOTIFY_SOCKET": listener.address}):
                listener.await_("READY", "1", within_s=60)
                took_s.append(time.monotonic() - began_s)
    ready_s, bare_s = statistics.median(took_s), median_s(lambda: run([sys.executable, "-c", "pass"], 0))
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
        taken_s = median_s(lambda: run([*NEURON, "serve", "--port", port], PORT_TAKEN))
    figure = f"{ready_s:.2f} s; {taken_s:.2f} s; medians of {N}, `python -c pass` takes {bare_s:.2f} s"
    scorecard(10, figure, "< 1.5 s; < 0.5 s", ready_s < READY_S and taken_s < TAKEN_S)


def run(command: list[str], code: int) -> None:
    """To its end, which must be this exit code."""
    done = subprocess.run(command, env=clean_env(), capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
