"""An engine in a process of its own, asked over lines of JSON: with its own threads, memory and libraries.

Imports nothing but the standard library, since the peers' environment runs it, too.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PEERS = ROOT / ".venv-peers" / "bin" / "python"
"""The Python that has llama.cpp and transformers; `make bench` makes it."""


class Answer(NamedTuple):
    """Time of new tokens, greedy. The first comes with the prefill, ``decode_s`` is the time of the others."""

    n_new: int
    prefill_s: float
    decode_s: float

    @property
    def decode_tok_s(self) -> float:
        """New tokens per second behind the first."""
        return (self.n_new - 1) / self.decode_s


@dataclass
class Child:
    """An engine that has loaded its model."""

    process: subprocess.Popen[str]
    load_s: float
    """From the call to the first token of a prompt of one: a file that is mapped is not yet read before."""
    weight_bytes: int

    def ask(self, prompt: list[int], n_new: int) -> Answer:
        """How long the next ``n_new`` ids of a prompt take."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([prompt, n_new]) + "\n")
        self.process.stdin.flush()
        return Answer(*self._read())

    def peak_mib(self) -> float:
        """The most memory of the process that was in RAM."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found
        return int(found[1]) / 1024

    def _read(self) -> list[float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.process.args} ended")
        return json.loads(line)


def command(engine: str, *args: object) -> list[str]:
    """How to start ``benchmarks.with_<engine>``."""
    python = sys.executable if engine == "neuron" else str(PEERS)
    return [python, "-m", f"benchmarks.with_{engine}", *map(str, args)]


@contextmanager
def child(engine: str, *args: object) -> Iterator[Child]:
    """Start an engine, wait until it has loaded, end it on the way out."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("NEURON_")}
    process = subprocess.Popen(
        command(engine, *args),
        cwd=ROOT,
        env=env,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with process:
        try:
            started = Child(process, 0, 0)
            load_s, weight_bytes = started._read()
            yield Child(process, load_s, int(weight_bytes))
        finally:
            process.kill()


def serve(load_s: float, weight_bytes: int, answer: Callable[[list[int], int], Answer]) -> None:
    """What an engine's process does behind its load: answer each line until they end."""
    print(json.dumps([load_s, weight_bytes]), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(*json.loads(line))), flush=True)
