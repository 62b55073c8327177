"""A load that can't succeed says why in one line, with the contract's status, and the node goes on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.gguf_files import write_gguf
from tests.support.node_process import NodeProcess, node
from tests.support.tiny_chat import save_tiny_chat

Breaker = Callable[[Path], Path]
"""Spoils a copy of a good model folder; what to load."""


def cut(path: Path, share: float = 0.5) -> None:
    """Leave only the first part of a file."""
    os.truncate(path, int(path.stat().st_size * share))


def truncated_shard(folder: Path) -> Path:
    cut(sorted(folder.glob("*.safetensors"))[1])
    return folder


def missing_shard(folder: Path) -> Path:
    sorted(folder.glob("*.safetensors"))[1].unlink()
    return folder


def truncated_gguf(folder: Path) -> Path:
    whole = folder.parent / "whole"
    save_tiny_chat(whole)
    path = write_gguf(folder / "cut.gguf", whole)
    cut(path)
    return path


def only_pickles(folder: Path) -> Path:
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    return folder


def no_weights(folder: Path) -> Path:
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    return folder


def no_numbers(folder: Path) -> Path:
    path = sorted(folder.glob("*.safetensors"))[1]
    tensors = load_file(path)
    next(tensor for tensor in tensors.values() if tensor.dim() == 2)[0] = torch.nan
    save_file(tensors, path, {"format": "pt"})
    return folder


def with_config(**values: Any) -> Breaker:
    """A breaker that overwrites keys of ``config.json``."""

    def edit(folder: Path) -> Path:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
        return folder

    return edit


def with_file(name: str, content: str) -> Breaker:
    """A breaker that replaces one file."""

    def write(folder: Path) -> Path:
        (folder / name).write_text(content)
        return folder

    return write


def without_file(name: str) -> Breaker:
    """A breaker that removes one file."""

    def remove(folder: Path) -> Path:
        (folder / name).unlink()
        return folder

    return remove


CASES: dict[str, tuple[Breaker, int, str]] = {
    "truncated shard": (truncated_shard, 400, "not a whole safetensors file"),
    "missing shard": (missing_shard, 400, "weight files are missing"),
    "truncated gguf": (truncated_gguf, 400, "cut.gguf"),
    "no numbers": (no_numbers, 400, "not finite"),
    "only pickles": (only_pickles, 422, "unsafe_weights"),
    "no weights": (no_weights, 422, "empty_repo"),
    "no config": (without_file("config.json"), 422, "without config.json"),
    "config is no JSON": (with_file("config.json", "{"), 400, "config.json: not valid JSON"),
    "unknown family": (with_config(model_type="mamba"), 422, "unsupported_architecture"),
    "unknown activation": (with_config(hidden_act="snake"), 422, "unsupported_architecture"),
    "a size that is a word": (with_config(num_hidden_layers="four"), 400, "num_hidden_layers"),
    "a size that is huge": (with_config(hidden_size=1 << 40), 400, "hidden_size"),
    "a layer too many": (with_config(num_hidden_layers=5), 400, "missing: model.layers.4"),
    "a layer too few": (with_config(num_hidden_layers=3), 400, "unknown: model.layers.3"),
    "other size": (with_config(intermediate_size=128), 400, "of another shape"),
    "broken template": (with_file("chat_template.jinja", "{% if %}"), 400, "the chat template, line 1"),
    "broken tokenizer": (with_file("tokenizer.json", '{"model": 1}'), 400, "tokenizer.json"),
    "no tokenizer": (without_file("tokenizer.json"), 400, "tokenizer"),
    "tokenizer of a larger model": (with_config(vocab_size=300), 400, "the tokenizer has 320 ids"),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good model in several shards, to copy."""
    folder = tmp_path_factory.mktemp("good") / "model"
    save_tiny_chat(folder, shard_size="100KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the node may load from."""
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def running(root: Path, good: Path) -> Iterator[NodeProcess]:
    """A node that has one good model loaded, ``survivor``."""
    shutil.copytree(good, root / "survivor")
    with node(root / "survivor", "--model-root", root) as started:
        started.wait_loaded("survivor")
        yield started


@pytest.mark.parametrize("name", CASES)
def test_a_broken_model_is_refused_in_one_line_and_the_node_goes_on(
    name: str, running: NodeProcess, root: Path, good: Path
) -> None:
    spoil, status, words = CASES[name]
    path = spoil(Path(shutil.copytree(good, root / name.replace(" ", "-"))))
    answer = running.post("/models/load", {"model_id": str(path)})
    error = answer.json()["error"]
    told = error if isinstance(error, str) else json.dumps(error)
    assert (answer.status_code, words in told) == (status, True), answer.text
    assert "\n" not in told
    assert "Traceback" not in told
    assert isinstance(error, str) == (status == 400)
    assert running.get(f"/models/{path.stem}").json()["status"] == "failed"
    assert chat(running, "survivor") == 200


def test_the_same_id_loads_once_its_files_are_whole(running: NodeProcess, root: Path, good: Path) -> None:
    folder = root / "mended"
    folder.mkdir()
    body = {"model_id": str(folder)}
    assert running.post("/models/load", body).status_code == 422
    shutil.copytree(good, folder, dirs_exist_ok=True)
    assert running.post("/models/load", body).json() == {"status": "loaded"}
    assert chat(running, "mended") == 200
    assert running.post("/models/unload", {"model_id": "mended"}).status_code == 200


def chat(running: NodeProcess, model: str) -> int:
    """Status of a short request."""
    messages = [{"role": "user", "content": "Hi"}]
    body = {"model": model, "messages": messages, "max_tokens": 2, "temperature": 0}
    return running.post("/v1/chat/completions", body).status_code
