"""What only the engine can refuse, on a real model: ids outside the vocabulary, and prompts that are too long."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.node_process import NodeProcess, node
from tests.support.tiny_chat import VOCAB, save_tiny_chat

CONTEXT = 256
USER = [{"role": "user", "content": "hi"}]
OUTSIDE = (-1, VOCAB, 2**31 - 1, 2**31, 2**63, 2**64, -(2**63), 10**30)
"""Ids that the model lacks, at the edges of what a number may be stored in."""
PLACES: dict[str, tuple[str, dict[str, Any], str]] = {
    "a prompt": ("/v1/completions", {"prompt": [1, "ID"]}, "prompt"),
    "prompts": ("/v1/completions", {"prompt": [[1], ["ID"]]}, "prompt"),
    "an input": ("/v1/embeddings", {"input": ["ID"]}, "input"),
    "inputs": ("/v1/embeddings", {"input": [[1], [1, "ID"]]}, "input"),
    "ids to decode": ("/detokenize", {"tokens": [1, "ID"]}, "tokens"),
    "stops of a chat": (
        "/v1/chat/completions",
        {"messages": USER, "stop_token_ids": ["ID"]},
        "stop_token_ids",
    ),
    "stops of a text": ("/v1/completions", {"prompt": "hi", "stop_token_ids": ["ID"]}, "stop_token_ids"),
    "stops of a response": ("/v1/responses", {"input": "hi", "stop_token_ids": ["ID"]}, "stop_token_ids"),
    "a bias": ("/v1/chat/completions", {"messages": USER, "logit_bias": {"ID": 1}}, "logit_bias"),
}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_tiny_chat(folder)
    with node(folder) as running:
        running.wait_loaded("tiny")
        yield running


def with_id(value: Any, token_id: int) -> Any:
    """The value with the id in its place."""
    match value:
        case "ID":
            return token_id
        case list():
            return [with_id(each, token_id) for each in value]
        case dict():
            return {k if k != "ID" else str(token_id): with_id(each, token_id) for k, each in value.items()}
    return value


def is_well(real: NodeProcess) -> bool:
    """It answers, and its health says so."""
    asked = {"model": "tiny", "messages": USER, "max_tokens": 4, "temperature": 0}
    return real.post("/v1/chat/completions", asked).status_code == 200 == real.get("/health").status_code


@pytest.mark.parametrize("place", PLACES)
def test_an_id_that_the_model_lacks_is_refused(real: NodeProcess, place: str) -> None:
    path, body, param = PLACES[place]
    for token_id in OUTSIDE:
        answer = real.post(path, {"model": "tiny", **with_id(body, token_id)})
        assert answer.status_code == 400, (token_id, answer.text)
        if path.startswith("/v1/"):
            assert answer.json()["error"]["param"].startswith(param), (token_id, answer.text)
    assert is_well(real)


LONG = {
    "/v1/chat/completions": lambda text: {"messages": [{"role": "user", "content": text}], "stream": True},
    "/v1/completions": lambda text: {"prompt": text, "stream": True},
    "/v1/responses": lambda text: {"input": text, "stream": True},
    "/v1/embeddings": lambda text: {"input": text},
}


@pytest.mark.parametrize("chars", [CONTEXT + 1, 10_000, 1_000_000, 7_500_000])
@pytest.mark.parametrize("path", LONG)
def test_a_prompt_that_is_too_long_is_refused_and_no_stream_begins(
    real: NodeProcess, path: str, chars: int
) -> None:
    answer = real.post(path, {"model": "tiny", **LONG[path]("x" * chars)})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert is_well(real)
