"""GGUF files: the hostile headers of their own tests, and whole models with something wrong."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

from tests.reliability.hostile.case import DAMAGED, UNSUPPORTED, Case, Cases, Spoil
from tests.support.gguf_files import write_gguf
from tests.support.tiny_chat import CHATML, SPECIALS, byte_tokenizer
from tests.test_gguf_hostile import HOSTILE
from tests.text.test_template_attacks import BOMBS, INJECTIONS

NAME = "model.gguf"


def _bytes(content: bytes) -> Spoil:
    def spoil(folder: Path) -> Path:
        (folder / NAME).write_bytes(content)
        return folder / NAME

    return spoil


def _whole(folder: Path) -> Path:
    """The good model as a GGUF file."""
    path: Path = write_gguf(folder / NAME, folder, extra=vocabulary())
    return path


def _cut(share: float) -> Spoil:
    def spoil(folder: Path) -> Path:
        path = _whole(folder)
        os.truncate(path, int(path.stat().st_size * share))
        return path

    return spoil


def _swapped(old: bytes, new: bytes) -> Spoil:
    """Bytes of the whole file in the place of others, as many."""
    assert len(old) == len(new)

    def spoil(folder: Path) -> Path:
        path = _whole(folder)
        data = path.read_bytes()
        assert old in data, old
        path.write_bytes(data.replace(old, new, 1))
        return path

    return spoil


@cache
def vocabulary() -> dict[str, Any]:
    """The good model's tokenizer as metadata."""
    spec = json.loads(byte_tokenizer().to_str())
    tokens = sorted(spec["model"]["vocab"], key=spec["model"]["vocab"].get)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in SPECIALS else 1 for token in tokens],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in spec["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": CHATML,
    }


def _with(key: str, value: Any) -> Spoil:
    """The whole model with its vocabulary, one key of which is another; None leaves it out."""

    def spoil(folder: Path) -> Path:
        said = {**vocabulary(), f"tokenizer.{key}": value}
        extra = {name: one for name, one in said.items() if one is not None}
        path: Path = write_gguf(folder / NAME, folder, extra=extra)
        return path

    return spoil


CASES: Cases = {
    **{f"gguf: {name}": Case(_bytes(data), DAMAGED, NAME) for name, (data, _) in HOSTILE.items()},
    **{
        f"gguf: cut at {share:.0%}": Case(_cut(share), DAMAGED, NAME)
        for share in (0.1, 0.25, 0.5, 0.75, 0.99)
    },
    "gguf: an architecture of the future": Case(
        _swapped(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0mamba"), UNSUPPORTED, "mamba"
    ),
    "gguf: no architecture": Case(
        _swapped(b"general.architecture", b"general.architectura"), DAMAGED, "general.architecture"
    ),
    "gguf: no number of layers": Case(_swapped(b"block_count", b"block_coumt"), DAMAGED, "block_count"),
    "gguf: a tensor of another name": Case(
        _swapped(b"output_norm.weight", b"output_morn.weight"), "weight_mismatch", "output_morn"
    ),
    "gguf: a whole model": Case(_with("ggml.add_bos_token", False), None),
    "gguf: no vocabulary": Case(_with("ggml.tokens", None), DAMAGED, "tokens"),
    "gguf: a vocabulary of numbers": Case(_with("ggml.tokens", [1] * 320), DAMAGED, "tokens"),
    "gguf: a token twice": Case(_with("ggml.tokens", ["a"] * 320), DAMAGED, "twice"),
    "gguf: too few tokens": Case(_with("ggml.tokens", ["a", "b"]), DAMAGED),
    "gguf: too many tokens": Case(_with("ggml.tokens", [f"t{i}" for i in range(900)]), DAMAGED),
    "gguf: kinds of other tokens": Case(_with("ggml.token_type", [1, 2, 3]), DAMAGED, "token_type"),
    "gguf: kinds of the future": Case(_with("ggml.token_type", [77] * 320), None),
    "gguf: merges of what is not there": Case(_with("ggml.merges", ["zz yy"]), DAMAGED, "merges"),
    "gguf: merges without a blank": Case(_with("ggml.merges", ["zzyy"]), DAMAGED, "merges"),
    "gguf: merges that are numbers": Case(_with("ggml.merges", [1]), DAMAGED, "merges"),
    "gguf: a vocabulary of the future": Case(_with("ggml.model", "mamba"), UNSUPPORTED, "mamba"),
    "gguf: a cut of the future": Case(_with("ggml.pre", "../../x"), UNSUPPORTED, "../../x"),
    "gguf: an end outside the vocabulary": Case(_with("ggml.eos_token_id", 10**9), DAMAGED, "eos"),
    "gguf: a beginning outside the vocabulary": Case(_with("ggml.bos_token_id", 320), DAMAGED, "bos"),
    "gguf: an end that is text": Case(_with("ggml.eos_token_id", "2"), DAMAGED, "eos"),
    "gguf: a template that is a number": Case(_with("chat_template", 7), DAMAGED, "chat_template"),
    "gguf: a template with an injection": Case(_with("chat_template", INJECTIONS[0]), DAMAGED, "template"),
    "gguf: a template that is a bomb": Case(_with("chat_template", BOMBS[0]), DAMAGED, "template"),
    "gguf: safetensors inside": Case(_bytes(b"\x08\0\0\0\0\0\0\0{}      "), DAMAGED, "not a GGUF file"),
}
