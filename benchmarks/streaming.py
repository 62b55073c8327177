"""Streamed answers over HTTP as a client sees them, from a node of neuron and from llama.cpp's server."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.lines import ROOT, command
from tests.support.node_process import NodeProcess, node

_numbers = count(int(time.time()))


@dataclass
class Server:
    """What answers in OpenAI's format."""

    host: str
    model: str
    extra: dict[str, Any] = field(default_factory=dict)
    """What it must be asked besides."""
    node: NodeProcess | None = None
    """neuron's own."""
    load_s: float = 0


@dataclass
class Streamed:
    """One answer; every time is a reading of one clock."""

    begin_s: float
    arrived_s: list[float]
    """Of each piece of text."""
    n_prompt: int
    n_new: int

    @property
    def first_ms(self) -> float:
        """From the request to the first text."""
        return 1e3 * (self.arrived_s[0] - self.begin_s)

    @property
    def tok_s(self) -> float:
        """From the first text to the last."""
        return (self.n_new - 1) / (self.arrived_s[-1] - self.arrived_s[0])


@contextmanager
def neuron(gguf: Path, *flags: str) -> Iterator[Server]:
    """A node with one model, which computes each token by itself."""
    with node("--model-root", gguf.parent, "--no-speculation", *flags) as running:
        begin_s = time.perf_counter()
        running.post("/models/load", {"model_id": str(gguf)}).raise_for_status()
        load_s = time.perf_counter() - begin_s
        yield Server(running.url.removeprefix("http://"), gguf.stem, node=running, load_s=load_s)


@contextmanager
def llama(gguf: Path, n_slots: int = 8, context: int = 1024) -> Iterator[Server]:
    """llama.cpp's server on a free port."""
    asked = command("llama", gguf, 0, n_slots, context)
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(asked, cwd=ROOT, text=True, **quiet) as process:  # type: ignore[call-overload]
        try:
            address = process.stdout.readline().strip().removeprefix("http://")
            if not address:
                sys.exit("llama.cpp's server does not start")
            yield Server(address, gguf.stem, {"cache_prompt": False})
        finally:
            process.kill()


def stream(server: Server, prompt: str, n_new: int) -> Streamed:
    """One answer of exactly so many tokens, greedy. The prompt gets a number in front: nobody has seen it."""
    return ask(server, f"{next(_numbers)}. {prompt}", n_new)


def ask(server: Server, prompt: str, n_new: int, until: threading.Event | None = None) -> Streamed:
    """The same of this very prompt; ``until`` cuts it off."""
    body = {
        "model": server.model,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "max_tokens": n_new,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        **server.extra,
    }
    connection = http.client.HTTPConnection(server.host, timeout=300)
    begin_s = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        sys.exit(f"{server.host}: {response.read().decode()}")
    lines: list[tuple[float, bytes]] = []
    while (line := response.readline()) and not (until and until.is_set()):
        lines.append((time.perf_counter(), line))
    connection.close()
    return _read(begin_s, lines)


def _read(begin_s: float, lines: list[tuple[float, bytes]]) -> Streamed:
    """Parsed when it is over, which takes time."""
    arrived_s, usage = [], {"prompt_tokens": 0, "completion_tokens": 0}
    for at_s, line in lines:
        if line.startswith(b"data: {"):
            said = json.loads(line[6:])
            usage = said.get("usage") or usage
            if said["choices"] and said["choices"][0]["delta"].get("content"):
                arrived_s.append(at_s)
    return Streamed(begin_s, arrived_s, usage["prompt_tokens"], usage["completion_tokens"])


def together(server: Server, prompts: list[str], n_new: int) -> tuple[float, list[Streamed]]:
    """Tokens per second of so many streams that begin together, prompts included; and each stream."""
    said: list[Streamed] = []
    clients = [
        threading.Thread(target=lambda prompt=prompt: said.append(stream(server, prompt, n_new)))
        for prompt in prompts
    ]
    begin_s = time.perf_counter()
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    elapsed_s = time.perf_counter() - begin_s
    return sum(each.n_new for each in said) / elapsed_s, said
