"""``neuron serve`` as a process of its own, and the command line beside it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.support import kept_output

NEURON = [sys.executable, "-m", "neuron.cli.main"]


@dataclass
class NodeProcess:
    """A node that answers ``/health``."""

    process: subprocess.Popen[str]
    log: list[str] = field(default_factory=list)
    url: str = ""

    def get(self, path: str) -> httpx.Response:
        """GET from the node."""
        return kept_output.answered(httpx.get(self.url + path, timeout=30, trust_env=False))

    def post(self, path: str, body: Any) -> httpx.Response:
        """POST JSON to the node; waits as long as a load takes."""
        return kept_output.answered(httpx.post(self.url + path, json=body, timeout=120, trust_env=False))

    def stop(self, timeout_s: float = 40) -> int:
        """SIGTERM, then the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def wait_loaded(self, model_id: str, timeout_s: float = 60) -> None:
        """Until the model is in memory."""
        deadline_s = time.monotonic() + timeout_s
        while self.get(f"/models/{model_id}").json().get("status") != "loaded":
            assert time.monotonic() < deadline_s, "".join(self.log)
            time.sleep(0.05)

    def rss_mb(self) -> int:
        """Memory of the process that is in RAM now."""
        return self._status("VmRSS")

    def peak_rss_mb(self) -> int:
        """The most memory of the process that was in RAM."""
        return self._status("VmHWM")

    def _status(self, key: str) -> int:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"{key}:\s+(\d+) kB", text)
        assert found
        return int(found[1]) // 1024


@contextmanager
def node(*args: str | Path, env: dict[str, str] | None = None, wait_s: float = 60) -> Iterator[NodeProcess]:
    """A node on a free port, ended on the way out."""
    command = [*NEURON, "serve", "--port", "0", *map(str, args)]
    kept_output.given(env or {})
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=clean_env(env), start_new_session=True
    )
    running = NodeProcess(process)
    listening = threading.Event()

    def follow() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            running.log.append(line)
            kept_output.lines.append(line)
            if not running.url and (found := re.search(r"http://127\.0\.0\.1:(\d+)", line)):
                running.url = f"http://127.0.0.1:{found[1]}"
                listening.set()
        listening.set()

    threading.Thread(target=follow, daemon=True).start()
    try:
        assert listening.wait(wait_s), "the node does not listen"
        assert running.url, "".join(running.log)
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        if process.stderr is not None:
            process.stderr.close()


def clean_env(extra: dict[str, str] | None = None) -> dict[str, str]:
    """The environment without anything of neuron's own but the cache, and with ``extra``."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("NEURON_") or k == "NEURON_CACHE"}
    return {
        **kept,
        "NO_COLOR": "1",
        "XDG_CONFIG_HOME": "/nonexistent",
        "XDG_STATE_HOME": "/nonexistent",
        **(extra or {}),
    }


def cli(
    *args: str | Path, stdin: str = "", timeout_s: float = 120, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run one command of the program to its end."""
    return subprocess.run(
        [*NEURON, *map(str, args)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=clean_env(env),
    )
