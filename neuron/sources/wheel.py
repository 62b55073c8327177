"""A wheel as untrusted data: a zip whose files are copied out one by one and checked against its RECORD.

Nothing in a wheel is imported, installed or unpacked by name.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import msgspec

from neuron.errors import RepoFetchFailed

MAX_METADATA_BYTES = 16 << 20
_CHUNK_BYTES = 1 << 20
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, struct.error, csv.Error)
"""What a zip raises that is damaged, encrypted or packed in a way that zipfile does not know (a RuntimeError)."""
_HINT = "the package is damaged or was not built as a wheel should be; try another version"


class Wheel:
    """An open wheel. Use as a context manager.

    Raises:
        RepoFetchFailed: not a zip, names that lead out of a folder, no RECORD or METADATA.
    """

    def __init__(self, path: Path) -> None:
        self.label = path.name
        try:
            self._zip = zipfile.ZipFile(path)
        except _BROKEN as e:
            raise self.refusal(f"not a zip file: {e}") from e
        try:
            # a directory by its name; `is_dir` does not bear a name of no characters
            listed = {info.filename: info for info in self._zip.infolist()}
            self._infos = {name: info for name, info in listed.items() if not name.endswith("/")}
            self._check_names()
            metadata = HeaderParser().parsestr(self._text("METADATA"))
            self.version = str(metadata.get("Version", ""))
            self.requires = [str(line) for line in metadata.get_all("Requires-Dist", [])]
            self._hashes = {
                row[0]: row[1] for row in csv.reader(self._text("RECORD").splitlines()) if len(row) > 1
            }
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> Wheel:
        return self

    def __exit__(self, *exc: object) -> None:
        self._zip.close()

    @property
    def names(self) -> list[str]:
        """Paths of the files in it."""
        return list(self._infos)

    def size(self, name: str) -> int:
        """Length of a file, as the wheel declares it."""
        return self._infos[name].file_size

    def json_object(self, name: str) -> dict[str, Any]:
        """A small JSON file in it."""
        try:
            value = msgspec.json.decode(self._small(name))
        except msgspec.DecodeError as e:
            raise self.refusal(f"{name} is not valid JSON") from e
        if not isinstance(value, dict):
            raise self.refusal(f"{name} is not a JSON object")
        return value

    def copy(self, name: str, out: BinaryIO, advance: Callable[[int], None]) -> None:
        """Write a file's bytes to ``out`` and compare their hash with RECORD; ``advance`` gets each count.

        Raises:
            RepoFetchFailed: no hash in RECORD, another hash, a damaged or irregular entry.
        """
        expected = self._hashes.get(name, "")
        if not expected.startswith("sha256="):
            raise self.refusal(f"RECORD holds no sha256 of {name}")
        digest, n_bytes = hashlib.sha256(), 0
        try:
            with self._zip.open(self._infos[name]) as member:
                while chunk := member.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    out.write(chunk)
                    n_bytes += len(chunk)
                    advance(len(chunk))
        except _BROKEN as e:
            raise self.refusal(f"{name} can't be read: {e}") from e
        if n_bytes != self.size(name):
            raise self.refusal(f"{name} has {n_bytes} bytes, and the wheel says {self.size(name)}")
        found = base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
        if expected.removeprefix("sha256=").rstrip("=") != found:
            raise self.refusal(f"{name} has another hash than RECORD says")

    def refusal(self, why: str) -> RepoFetchFailed:
        """The error for something wrong with this wheel."""
        return RepoFetchFailed(f"{self.label}: {why}", hint=_HINT)

    def _check_names(self) -> None:
        for name, info in self._infos.items():
            path = PurePosixPath(name)
            if not name or path.is_absolute() or ".." in path.parts or re.search(r"[\\\x00-\x1f:]", name):
                raise self.refusal(f"it holds a file named {name!r}, which leads out of it")
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise self.refusal(f"{name} is not a regular file")

    def _text(self, name: str) -> str:
        """A file of the ``.dist-info`` folder."""
        found = [n for n in self._infos if re.fullmatch(rf"[^/]+\.dist-info/{name}", n)]
        if len(found) != 1:
            raise self.refusal(f"it has no {name}" if not found else f"it has {len(found)} {name} files")
        try:
            return self._small(found[0]).decode()
        except UnicodeDecodeError as e:
            raise self.refusal(f"{name} is not UTF-8") from e

    def _small(self, name: str) -> bytes:
        if self.size(name) > MAX_METADATA_BYTES:
            raise self.refusal(f"{name} is {self.size(name)} bytes long")
        try:
            return self._zip.read(self._infos[name])
        except _BROKEN as e:
            raise self.refusal(f"{name} can't be read: {e}") from e
