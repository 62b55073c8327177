"""One hostile file: how a good model is spoilt, and the refusal that it must get."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Spoil = Callable[[Path], "Path | None"]
"""Changes a copy of a good model's folder; gives what to load, None for the folder itself."""

DAMAGED, MISMATCH, CHANGED = "invalid_model_file", "weight_mismatch", "weights_changed"
UNSUPPORTED, OUTSIDE, UNFETCHED = "unsupported_architecture", "invalid_reference", "repo_fetch_failed"
UNSAFE, EMPTY, NO_MEMORY, NO_QUANT = "unsafe_weights", "empty_repo", "insufficient_memory", "quant_not_found"

SENTINEL = "SENTINEL"
"""In the text of a hostile file: the path that must never come to be."""


@dataclass(frozen=True)
class Case:
    """``code`` is the refusal's, None for a file that must load all the same; ``words`` are in its message."""

    spoil: Spoil
    code: str | None = DAMAGED
    words: str = ""


Cases = dict[str, Case]


def raw(name: str, content: bytes | str) -> Spoil:
    """Replace a file; its text may speak of `SENTINEL`."""

    def spoil(folder: Path) -> None:
        data = content.encode() if isinstance(content, str) else content
        sentinel = str(folder.parent / SENTINEL).encode()
        (folder / name).write_bytes(data.replace(SENTINEL.encode(), sentinel))

    return spoil


def edited(name: str, change: Callable[[dict[str, Any]], object]) -> Spoil:
    """Change the object in a JSON file."""

    def spoil(folder: Path) -> None:
        path = folder / name
        values = json.loads(path.read_text()) if path.exists() else {}
        change(values)
        path.write_text(json.dumps(values))

    return spoil


def having(name: str, **values: Any) -> Spoil:
    """Set keys of a JSON file."""
    return edited(name, lambda d: d.update(values))


def lacking(name: str, key: str) -> Spoil:
    """Take a key out of a JSON file."""
    return edited(name, lambda d: d.pop(key))


def huge(name: str, n_bytes: int, start: bytes = b"") -> Spoil:
    """A file of zeros with a beginning, which takes no room on the disk."""

    def spoil(folder: Path) -> None:
        with (folder / name).open("wb") as file:
            file.write(start)
            file.truncate(n_bytes)

    return spoil


def special(name: str, make: Callable[[Path], object]) -> Spoil:
    """Something else than a regular file in the place of one."""

    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return spoil


def all_of(*spoils: Spoil) -> Spoil:
    """Several, one after the other."""

    def spoil(folder: Path) -> Path | None:
        return [one(folder) for one in spoils][-1]

    return spoil


def safetensors(
    header: Mapping[str, Any] | bytes | str, data: bytes = b"", length: int | None = None
) -> bytes:
    """A file with this header; ``length`` is what it says of the header's."""
    text = json.dumps(header) if isinstance(header, Mapping) else header
    head = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(head) if length is None else length) + head + data


def entry(shape: Any = (2,), dtype: Any = "F32", offsets: Any = (0, 8)) -> dict[str, Any]:
    """One tensor of a header; None leaves a key out."""
    said = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
    return {key: value for key, value in said.items() if value is not None}


def reheaded(change: Callable[[dict[str, Any]], object]) -> Spoil:
    """Change the header of the good model's weights and keep the data."""

    def spoil(folder: Path) -> None:
        path = folder / "model.safetensors"
        data = path.read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + length])
        change(header)
        path.write_bytes(safetensors(header, data[8 + length :]))

    return spoil
