"""GGUF files, version 2 and 3, little-endian: metadata and the bytes of tensors.

Read with ``pread`` through one descriptor, never mapped: a mapping dies with the process when the file
shrinks. What the file says is checked in `neuron.gguf_header`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from neuron.errors import WeightsChanged
from neuron.files import open_regular, read_exactly
from neuron.gguf_header import GgufTensor, Header, parse


class GgufFile:
    """An open GGUF file. Use `open`; close it, or use it as a context manager."""

    def __init__(self, path: Path, fd: int) -> None:
        status = os.fstat(fd)
        self.path = path
        self._fd = fd
        self._identity = _identity(status)
        self.metadata: Mapping[str, Any]
        self.tensors: Mapping[str, GgufTensor]
        self.metadata, self.tensors = parse(Header(path, fd, status.st_size))

    @classmethod
    def open(cls, path: Path) -> Self:
        """Parse the header; tensor data stays in the file.

        Raises:
            InvalidModelFile: the file is not there, not GGUF, damaged, truncated or beyond the limits.
        """
        fd = open_regular(path)
        try:
            return cls(path, fd)
        except BaseException:
            os.close(fd)
            raise

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._fd < 0

    def read(self, name: str, start: int = 0, n_bytes: int | None = None) -> bytearray:
        """The bytes of one tensor, or some of them, as they are in the file.

        Raises:
            WeightsChanged: the file has become shorter since it was opened.
            InvalidModelFile: it can't be read.
        """
        tensor = self.tensors[name]
        data = bytearray(tensor.n_bytes - start if n_bytes is None else n_bytes)
        read_exactly(self.path, self._fd, memoryview(data), tensor.offset + start, name)
        return data

    def check_unchanged(self) -> None:
        """Raise `WeightsChanged` if the file was written to, replaced or deleted since it was opened."""
        try:
            now = {_identity(os.fstat(self._fd)), _identity(os.stat(self.path))}
        except OSError as e:
            raise WeightsChanged(f"{self.path}: gone while it was read: {e.strerror}") from e
        if now != {self._identity}:
            raise WeightsChanged(
                f"{self.path}: changed while it was read", hint="load it again once it is written"
            )

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if not self.closed:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
