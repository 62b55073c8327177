"""Model files as untrusted input: regular files only, bounded sizes, JSON objects or a clear error."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from neuron.errors import InvalidModelFile, WeightsChanged

MAX_JSON_BYTES = 64 << 20
"""Largest JSON or template file read whole (a big ``tokenizer.json`` is about 30 MB)."""


@dataclass(frozen=True, slots=True)
class Headers:
    """What the safetensors files of a model say of themselves, where the files are on another machine."""

    config: dict[str, Any]
    """``config.json``."""
    tensors: Mapping[str, tuple[tuple[int, ...], str]]
    """Name → shape and dtype."""


def open_regular(path: Path) -> int:
    """File descriptor of a regular file, opened without waiting (a FIFO would block for ever).

    Raises:
        InvalidModelFile: it is not there, not readable, or not a regular file.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        raise InvalidModelFile(f"{path}: {e.strerror or e}") from e
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise InvalidModelFile(f"{path}: not a regular file")
    return fd


def read_exactly(path: Path, fd: int, into: memoryview, offset: int, name: str) -> None:
    """Fill a buffer of bytes from an open file, with what errors call ``name``.

    Raises:
        WeightsChanged: the file ends before; it was longer when its header was read.
        InvalidModelFile: the system can't read it.
    """
    done = 0
    while done < len(into):
        try:
            n = os.preadv(fd, [into[done:]], offset + done)
        except OSError as e:
            raise InvalidModelFile(f"{path}: {name} can't be read: {e.strerror}") from e
        if n == 0:
            raise WeightsChanged(
                f"{path}: became shorter while {name} was read", hint="load it again once it is written"
            )
        done += n


def read_bounded(path: Path, limit: int = MAX_JSON_BYTES) -> bytes:
    """The whole content of a regular file of at most ``limit`` bytes."""
    fd = open_regular(path)
    try:
        size = os.fstat(fd).st_size
        if size > limit:
            raise InvalidModelFile(f"{path}: {size} bytes, this build reads at most {limit}")
        with os.fdopen(os.dup(fd), "rb") as f:
            return f.read(limit + 1)[:limit]
    finally:
        os.close(fd)


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON file whose top level is an object."""
    value = _read_json(path)
    if not isinstance(value, dict):
        raise InvalidModelFile(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def _read_json(path: Path) -> Any:
    try:
        return msgspec.json.decode(read_bounded(path))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise InvalidModelFile(f"{path}: not valid JSON: {e}") from e


class ModelFolder:
    """A local folder in the hub's layout: ``config.json``, ``*.safetensors``, tokenizer files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def json(self, name: str) -> dict[str, Any] | None:
        """The JSON object in file ``name``, or None where there is no such file."""
        path = self.path / name
        return read_json_object(path) if path.exists() else None

    def json_array(self, name: str) -> list[Any] | None:
        """The JSON array in file ``name``, or None where there is no such file."""
        path = self.path / name
        if not path.exists():
            return None
        value = _read_json(path)
        if not isinstance(value, list):
            raise InvalidModelFile(f"{path}: expected a JSON array, found {type(value).__name__}")
        return value

    def text(self, name: str) -> str | None:
        """The text in file ``name``, or None where there is no such file."""
        path = self.path / name
        if not path.exists():
            return None
        try:
            return read_bounded(path, limit=1 << 20).decode()
        except UnicodeDecodeError as e:
            raise InvalidModelFile(f"{path}: not UTF-8: {e}") from e
