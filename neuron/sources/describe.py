"""What a model on this machine is, from its files: no weights are read, no torch."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuron.files import ModelFolder
from neuron.gguf import GgufFile
from neuron.safetensors_header import read_header
from neuron.sources import fetch, manifest

SPECIAL = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
GGUF_WORDS = {"unk": "unknown", "sep": "seperator", "pad": "padding"}
"""Where GGUF's key for a special token has another word (one of them misspelt)."""
MAX_LICENCE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedFile:
    """A file of a model."""

    name: str
    size_bytes: int
    sha256: str | None
    """As it was fetched; None for a file that was not, unless it was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A model, as its files say."""

    model: str
    path: str
    source: str | None
    """The reference that it was fetched from."""
    revision: str | None
    architecture: str | None
    parameters: int
    quant: str
    """What most of it is stored in."""
    types: dict[str, int]
    """Numbers stored in each type, most first."""
    context: int | None
    layers: int | None
    hidden_size: int | None
    vocabulary: int | None
    special_tokens: dict[str, str]
    chat_template: str | None
    licence: str | None
    files: tuple[DescribedFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """What one kind of file says."""

    architecture: str | None
    tensors: Iterable[tuple[str, tuple[int, ...]]]
    """Dtype and shape of each."""
    context: int | None
    layers: int | None
    hidden_size: int | None
    vocabulary: int | None
    special_tokens: dict[str, str]
    chat_template: str | None
    licence: str | None


def local(text: str, *, hashes: bool = False) -> Description:
    """A folder, a file or a fetched model of this machine; ``hashes``: also of files that were not fetched.

    Raises:
        NotFetched: it is not on this machine.
        PreflightError, InvalidModelFile: its files can't be read.
    """
    if not fetch.is_cached(text):
        raise fetch.not_fetched(text, hint=f"fetch it: neuron pull {text}; or look at a node's: --host")
    path = fetch.fetch(text)
    found = fetch.recorded(text) if fetch.was_fetched(text) else None
    return describe(path, text, found, hashes=hashes)


def describe(path: Path, model: str, found: manifest.Manifest | None, *, hashes: bool = False) -> Description:
    """The model in a folder or a ``.gguf`` file."""
    said = _gguf(path) if path.suffix == ".gguf" else _folder(ModelFolder(path))
    elements: Counter[str] = Counter()
    for dtype, shape in said.tensors:
        elements[dtype] += math.prod(shape)
    types = dict(elements.most_common())
    return Description(
        model=model,
        path=str(path),
        source=found.source.removesuffix("@") if found else None,
        revision=found.revision if found else None,
        architecture=said.architecture,
        parameters=sum(elements.values()),
        quant=next(iter(types), "none"),
        types=types,
        context=said.context,
        layers=said.layers,
        hidden_size=said.hidden_size,
        vocabulary=said.vocabulary,
        special_tokens=said.special_tokens,
        chat_template=said.chat_template,
        licence=said.licence,
        files=_files(path, found, hashes=hashes),
    )


def _files(path: Path, found: manifest.Manifest | None, *, hashes: bool) -> tuple[DescribedFile, ...]:
    if found is not None:
        return tuple(DescribedFile(name=f.name, size_bytes=f.size, sha256=f.sha256) for f in found.files)
    paths = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    root = path if path.is_dir() else path.parent
    return tuple(
        DescribedFile(
            name=p.relative_to(root).as_posix(),
            size_bytes=p.stat().st_size,
            sha256=manifest.sha256(p) if hashes else None,
        )
        for p in paths
    )


# ---- a GGUF file ---------------------------------------------------------------------------------------------


def _gguf(path: Path) -> _Said:
    with GgufFile.open(path) as file:
        said = file.metadata
        arch = said.get("general.architecture")
        tensors = [(t.type_name, t.shape) for t in file.tensors.values()]
    vocabulary = said.get("tokenizer.ggml.tokens")
    tokens = vocabulary if isinstance(vocabulary, list) else []
    return _Said(
        architecture=_text(arch),
        tensors=tensors,
        context=_count(said.get(f"{arch}.context_length")),
        layers=_count(said.get(f"{arch}.block_count")),
        hidden_size=_count(said.get(f"{arch}.embedding_length")),
        vocabulary=len(tokens) or _count(said.get(f"{arch}.vocab_size")),
        special_tokens=_gguf_specials(said, tokens),
        chat_template=_text(said.get("tokenizer.chat_template")),
        licence=_text(said.get("general.license")),
    )


def _gguf_specials(said: Mapping[str, Any], tokens: list[Any]) -> dict[str, str]:
    ids = {word: said.get(f"tokenizer.ggml.{GGUF_WORDS.get(word, word)}_token_id") for word in SPECIAL}
    return {
        word: str(tokens[at]) for word, at in ids.items() if isinstance(at, int) and 0 <= at < len(tokens)
    }


# ---- a folder ------------------------------------------------------------------------------------------------


def _folder(folder: ModelFolder) -> _Said:
    whole = folder.json("config.json") or {}
    inner = whole.get("text_config")
    config = {**whole, **inner} if isinstance(inner, dict) else whole
    tokenizer = folder.json("tokenizer_config.json") or {}
    return _Said(
        architecture=_text(whole.get("model_type")),
        tensors=_safetensors(folder.path),
        context=_count(config.get("max_position_embeddings")),
        layers=_count(config.get("num_hidden_layers")),
        hidden_size=_count(config.get("hidden_size")),
        vocabulary=_count(config.get("vocab_size")),
        special_tokens=_folder_specials(tokenizer, folder.json("special_tokens_map.json") or {}),
        chat_template=_template(folder, tokenizer),
        licence=_licence(folder.path),
    )


def _safetensors(path: Path) -> list[tuple[str, tuple[int, ...]]]:
    files = sorted(
        p for p in path.glob("*.safetensors") if not p.name.startswith(("consolidated", "adapter"))
    )
    return [(t.dtype, tuple(t.shape)) for file in files for t in read_header(file).values()]


def _folder_specials(*configs: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in SPECIAL:
        for config in configs:
            token = config.get(f"{word}_token")
            content = token.get("content") if isinstance(token, dict) else token
            if isinstance(content, str):
                found.setdefault(word, content)
    return found


def _template(folder: ModelFolder, tokenizer: Mapping[str, Any]) -> str | None:
    """As a load chooses it; of several named ones the default."""
    if (text := folder.text("chat_template.jinja")) is not None:
        return text
    found = (folder.json("chat_template.json") or tokenizer).get("chat_template")
    if isinstance(found, list):
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        found = named.get("default")
    return _text(found)


def _licence(path: Path) -> str | None:
    """What the model card says, else the first line of the licence's text."""
    card = path / "README.md"
    if card.is_file():
        head = re.match(r"---\n(.*?)\n---", _start(card), re.DOTALL)
        if head and (found := re.search(r"^licen[sc]e:\s*(\S.*)$", head[1], re.MULTILINE)):
            return found[1].strip().strip("'\"")
    for name in ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE"):
        lines = [x.strip() for x in _start(path / name).splitlines()] if (path / name).is_file() else []
        if first := next(filter(None, lines), None):
            return first
    return None


def _start(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(MAX_LICENCE_BYTES).decode(errors="replace")


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None
