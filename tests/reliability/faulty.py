"""A real node with the tiny model, into which faults are put, and what clients ask of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from neuron.faults import SWITCH, VARIABLE
from tests.support.node_process import NodeProcess, node

CHAT = "/v1/chat/completions"


@contextmanager
def faulty(
    root: Path, faults: str, *args: str, loads: bool = True, env: dict[str, str] | None = None
) -> Iterator[NodeProcess]:
    """A node of one thread with the model ``tiny`` of a root, in memory unless its load is to fail."""
    said = {VARIABLE: faults, SWITCH: "1", **(env or {})}
    models = [str(root / "tiny")] if loads else []
    with node("--threads", "1", "--model-root", root, *models, *args, env=said) as running:
        if loads:
            running.wait_loaded("tiny")
        yield running


def asked(n: int = 8, content: str = "Hi", **more: Any) -> dict[str, Any]:
    """A greedy request for ``n`` tokens."""
    messages = [{"role": "user", "content": content}]
    return {
        "model": "tiny", "messages": messages, "max_tokens": n, "temperature": 0, "ignore_eos": True, **more
    }  # fmt: skip


def ask(running: NodeProcess, n: int = 8, **more: Any) -> httpx.Response:
    """One answer that is not streamed."""
    return running.post(CHAT, asked(n, **more))


def text_of(answer: httpx.Response) -> str:
    """The text of a whole answer."""
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


def code_of(answer: httpx.Response) -> tuple[int, str | None]:
    """Status and code of a refusal."""
    return answer.status_code, answer.json()["error"]["code"]


def log_of(running: NodeProcess, name: str) -> list[dict[str, Any]]:
    """The log's lines of one event."""
    found = [json.loads(line) for line in list(running.log) if line.startswith("{")]
    return [line for line in found if line["event"] == name]
