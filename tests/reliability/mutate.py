"""Mutated files of every kind through the loaders, in a process of their own.

python -m tests.reliability.mutate 10000

A failure says the kind and the number, which make the same file again: ``… 1 KIND 4711``.
"""

from __future__ import annotations

import json
import logging
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.reliability import mutators as m
from tests.reliability.hostile.ggufs import vocabulary
from tests.reliability.loader import Loader, Outcome
from tests.support.gguf_files import write_gguf
from tests.support.tiny_chat import CHATML, save_tiny_chat
from tests.support.tiny_models import Case
from tests.support.wheels import make_wheel

LIMIT_S = 90.0
"""Past it a load counts as hung. The longest is 2 s, a template's; the machine may be busy."""
FLOOR_MB = 192
"""Memory that a load may take whatever the file's size."""
MANIFEST = "hf=org%2Fname@.json"


class Kind(NamedTuple):
    """A kind of file: its name in the folder, how it is spoilt, what a first check asks, how it is loaded."""

    name: str
    mutate: m.Mutate
    first_check: Callable[[bytes], bool]
    load: str = "model"


KINDS: dict[str, Kind] = {
    "safetensors": Kind("model.safetensors", m.weights, m.is_safetensors),
    "index": Kind("model.safetensors.index.json", m.structured, m.is_object),
    "config": Kind("config.json", m.structured, m.is_object),
    "generation": Kind("generation_config.json", m.structured, m.is_object),
    "tokenizer": Kind("tokenizer.json", m.tokenizer, m.is_object),
    "tokens": Kind("tokenizer_config.json", m.structured, m.is_object),
    "special tokens": Kind("special_tokens_map.json", m.structured, m.is_object),
    "template": Kind("chat_template.jinja", m.template, m.is_template),
    "pooling": Kind("1_Pooling/config.json", m.structured, m.is_object),
    "gguf": Kind("model.gguf", m.gguf, m.is_gguf),
    "wheel": Kind("tiny-1.0-py3-none-any.whl", m.wheel, m.is_zip, "wheel"),
    "manifest": Kind(MANIFEST, m.structured, m.is_object, "manifest"),
}


@dataclass
class Tally:
    """What came of all files."""

    n_files: int = 0
    n_past_first: int = 0
    loaded: Counter[str] = field(default_factory=Counter)
    """By kind."""
    refused: Counter[str] = field(default_factory=Counter)
    """By the class of the error."""
    faults: list[str] = field(default_factory=list)
    """A sentence for each crash, each hang, each error that is not neuron's own, each waste of memory."""
    slowest_s: float = 0.0
    peak_mb: int = 0

    def summary(self) -> str:
        """One line for people and the scorecard."""
        share = 100 * self.n_past_first / max(1, self.n_files)
        return (
            f"{self.n_files} mutated files, {share:.0f} % past the first check: {self.refused.total()} refused, "
            f"{self.loaded.total()} loaded, {len(self.faults)} faults; at most {self.slowest_s:.1f} s "
            f"and {self.peak_mb} MB"
        )


def run(n_files: int, scratch: Path, kinds: list[str], first: int = 0) -> Tally:
    """``n_files`` files, spread over the kinds; number ``i`` of a kind is always the same file."""
    tally, targets = Tally(), {kind: _good(kind, scratch) for kind in kinds}
    good = {kind: target.read_bytes() for kind, target in targets.items()}
    with Loader(scratch / "cache", LIMIT_S) as loader:
        for i in range(n_files):
            kind, number = kinds[i % len(kinds)], first + i // len(kinds)
            _try(kind, number, targets[kind], good[kind], loader, tally)
    assert (scratch / "precious").exists()
    return tally


def _try(kind: str, number: int, target: Path, good: bytes, loader: Loader, tally: Tally) -> None:
    said = KINDS[kind]
    data = said.mutate(random.Random(f"{kind} {number}"), good)
    target.write_bytes(data)
    outcome = loader.load(said.load, _what_is_loaded(kind, target))
    target.write_bytes(good)
    tally.n_files += 1
    tally.n_past_first += said.first_check(data)
    _count(f"{kind} {number}", kind, outcome, len(data) >> 20, tally)


def _what_is_loaded(kind: str, target: Path) -> Path:
    if kind in ("gguf", "wheel", "manifest"):
        return target
    return target.parents[1] if kind == "pooling" else target.parent


def _count(name: str, kind: str, outcome: Outcome | str, file_mb: int, tally: Tally) -> None:
    if isinstance(outcome, str):
        tally.faults.append(f"{name}: {outcome}")
        return
    if outcome.error is None:
        tally.loaded[kind] += 1
    else:
        tally.refused[outcome.error] += 1
    if not (outcome.ours or outcome.error is None):
        tally.faults.append(f"{name}: {outcome.error}: {outcome.message}")
    if outcome.peak_mb > max(FLOOR_MB, 2 * file_mb):
        tally.faults.append(f"{name}: took {outcome.peak_mb} MB")
    tally.slowest_s = max(tally.slowest_s, outcome.seconds)
    tally.peak_mb = max(tally.peak_mb, outcome.peak_mb)


# ---- what is spoilt ------------------------------------------------------------------------------------------


def _good(kind: str, scratch: Path) -> Path:
    """The file of a good model that is mutated, in a folder of its own."""
    folder = scratch / kind.replace(" ", "-") / "model"
    if kind == "manifest":
        folder = scratch / "cache" / "manifests"
        folder.mkdir(parents=True)
        (folder / MANIFEST).write_text(json.dumps(_manifest(scratch)))
    elif kind == "wheel":
        _wheel(folder)
    else:
        shutil.copytree(_model(scratch), folder)
        _only(kind, folder)
    return folder / KINDS[kind].name


def _model(scratch: Path) -> Path:
    """A whole small model with every file that a loader reads."""
    folder = scratch / "whole"
    if folder.exists():
        return folder
    (scratch / "precious").mkdir()
    save_tiny_chat(folder, Case("tiny", "LlamaConfig", {"num_hidden_layers": 1, "hidden_size": 32}))
    (folder / "chat_template.jinja").write_text(CHATML)
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": "<|im_end|>"}}))
    modules = [{"type": f"sentence_transformers.models.{n}", "path": p} for n, p in _modules()]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    return folder


def _modules() -> Iterator[tuple[str, str]]:
    yield from (("Transformer", ""), ("Pooling", "1_Pooling"))


def _only(kind: str, folder: Path) -> None:
    """What a kind needs besides."""
    if kind == "index":
        (folder / "model.safetensors").rename(folder / "a.safetensors")
        weight_map = {"model.norm.weight": "a.safetensors", "lm_head.weight": "a.safetensors"}
        (folder / KINDS[kind].name).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    if kind == "gguf":
        write_gguf(folder / KINDS[kind].name, folder, extra=vocabulary())


def _wheel(folder: Path) -> None:
    files = {"tiny/config.json": b"{}", "tiny/model.safetensors": bytes(5000), "tiny/__init__.py": b"raise"}
    folder.parent.mkdir(parents=True)
    make_wheel(folder, "tiny", files)


def _manifest(scratch: Path) -> dict[str, object]:
    root = scratch / "hub" / "models--org--name" / "snapshots" / "abc"
    root.mkdir(parents=True)
    (root / "model.gguf").write_bytes(b"GGUF")
    sha256 = "9a1d7c4b39d2bcb8f5cb34bd0d1b57a3bb3cf4f3cd1b1f5eb1a0a4d2c4c1d1aa"
    file = {"name": "model.gguf", "size": 4, "sha256": sha256}
    return {
        "source": "hf:org/name@",
        "revision": "abc",
        "root": str(root),
        "entry": "model.gguf",
        "files": [file, {**file, "name": "config.json"}],
        "fetched_at": 1,
    }


def main(args: list[str]) -> int:
    """Print what came of it; 1 if anything was not as it must be."""
    logging.disable(logging.WARNING)
    kinds = [args[1]] if len(args) > 1 else list(KINDS)
    with tempfile.TemporaryDirectory() as scratch:
        tally = run(int(args[0]), Path(scratch), kinds, int(args[2]) if len(args) > 2 else 0)
    print(*tally.faults, tally.summary(), f"loaded: {dict(tally.loaded)}", sep="\n")
    print(f"refused: {dict(tally.refused)}")
    return int(bool(tally.faults))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
