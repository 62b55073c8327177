"""Safetensors files, single or sharded with an index, read with ``pread`` (a mapping dies with its file)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from neuron.errors import EmptyRepo, InvalidModelFile, UnsafeWeights, UnsupportedArchitecture, WeightsChanged
from neuron.files import Headers, ModelFolder, open_regular, read_exactly
from neuron.model.checkpoint import TensorInfo
from neuron.safetensors_header import MAX_HEADER_BYTES

MAX_TENSORS = 200_000
MAX_SHARDS = 4096
NAME = re.compile(r"[\w.\-/]{1,512}")
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
}
ELEMENT_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
BUFFER_BYTES = {"I64": 8}
"""Numbered positions and such, which are listed so that the loader can drop them by name."""
_FETCH_AGAIN = "fetch the model again: neuron pull MODEL"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class _Identity(NamedTuple):
    """What tells whether a file is still the one that was opened."""

    device: int
    inode: int
    n_bytes: int
    mtime_ns: int


class _Place(NamedTuple):
    """Where a tensor is."""

    path: Path
    fd: int
    offset: int
    """Of its first byte in the file."""


class SafetensorsCheckpoint:
    """The weights of a folder in the hub's layout. See `neuron.model.checkpoint.Checkpoint`."""

    def __init__(self, folder: ModelFolder) -> None:
        config = folder.json("config.json")
        if config is None:
            raise InvalidModelFile(f"{folder.path}: config.json is missing")
        self.config: dict[str, Any] = config
        self._files = ExitStack()
        self._opened: dict[Path, _Identity] = {}
        self._places: dict[str, _Place] = {}
        self.tensors: dict[str, TensorInfo] = {}
        try:
            for path in _shards(folder):
                self._open(path)
        except BaseException:
            self._files.close()
            raise

    def read(self, name: str) -> torch.Tensor:
        """One tensor in memory of its own on the CPU, in the file's dtype."""
        shape, dtype, n_bytes = self.tensors[name]
        return self._read(name, 0, n_bytes).view(DTYPES[dtype]).view(shape)

    def read_rows(self, name: str, n_rows: int) -> Iterator[torch.Tensor]:
        """A matrix in the file's dtype, so many rows at a time."""
        dtype = DTYPES[self.tensors[name].dtype]
        return (rows.view(dtype) for rows in self.read_blocks(name, n_rows))

    def read_blocks(self, name: str, n_rows: int) -> Iterator[torch.Tensor]:
        """A matrix as it is stored, so many rows at a time: uint8 [rows, bytes of a row]."""
        (n_out, _), _, n_bytes = self.tensors[name]
        row_bytes = n_bytes // n_out
        for start in range(0, n_out, n_rows):
            n = min(n_rows, n_out - start)
            yield self._read(name, start * row_bytes, n * row_bytes).view(n, row_bytes)

    def close(self) -> None:
        """Close the files; a second call does nothing. Raises `WeightsChanged` if one changed while it was read."""
        self._files.close()
        opened, self._opened = self._opened, {}
        for path, identity in opened.items():
            _check_unchanged(path, identity)

    def _read(self, name: str, start: int, n_bytes: int) -> torch.Tensor:
        path, fd, offset = self._places[name]
        data = torch.empty(n_bytes, dtype=torch.uint8)
        read_exactly(path, fd, data.numpy().data, offset + start, name)
        return data

    def _open(self, path: Path) -> None:
        fd = open_regular(path)
        self._files.callback(os.close, fd)
        self._opened[path] = _identity(os.fstat(fd))
        offset = 8 + _check_header_size(path, fd)
        try:
            # The path is opened a second time by the library; the identity check at the end covers a swap between.
            with safe_open(path, framework="pt", backend="pread") as shard:
                found = {name: shard.get_slice(name) for name in shard.offset_keys()}
        except (SafetensorError, OSError) as e:
            raise InvalidModelFile(f"{path}: not a whole safetensors file: {e}", hint=_FETCH_AGAIN) from e
        if len(self.tensors) + len(found) > MAX_TENSORS:
            raise InvalidModelFile(f"{path}: more than {MAX_TENSORS} tensors")
        for name, part in found.items():
            if name in self._places:
                raise InvalidModelFile(f"{path}: tensor {name} is also in {self._places[name].path.name}")
            self.tensors[name] = info = tensor_info(path, name, part.get_shape(), str(part.get_dtype()))
            self._places[name] = _Place(path, fd, offset)
            offset += info.n_bytes  # the library has seen to it that there are no gaps


class HeadersCheckpoint:
    """A `neuron.model.checkpoint.Checkpoint` whose tensors are far away: enough for a plan, not for a load."""

    def __init__(self, headers: Headers, where: str) -> None:
        self.config = headers.config
        self.tensors = {
            name: tensor_info(where, name, shape, dtype) for name, (shape, dtype) in headers.tensors.items()
        }
        self._where = where

    def read(self, name: str) -> torch.Tensor:
        """Always refused."""
        raise EmptyRepo(f"{self._where}: not on this machine", hint="fetch it: neuron pull MODEL")

    def read_rows(self, name: str, n_rows: int) -> Iterator[torch.Tensor]:
        """Always refused."""
        yield self.read(name)

    def read_blocks(self, name: str, n_rows: int) -> Iterator[torch.Tensor]:
        """Always refused."""
        yield self.read(name)

    def close(self) -> None:
        """Nothing is open."""


def tensor_info(path: Path | str, name: str, dims: Sequence[int], dtype: str) -> TensorInfo:
    """Shape and dtype of a tensor from the header, checked before anything is allocated."""
    if not NAME.fullmatch(name) or ".." in name:
        raise InvalidModelFile(f"{path}: a tensor is named {name[:80]!r}")
    shape = tuple(dims)
    if len(shape) > 8:
        raise InvalidModelFile(f"{path}: tensor {name} has {len(shape)} dimensions")
    if dtype not in ELEMENT_BYTES and dtype not in BUFFER_BYTES:
        raise UnsupportedArchitecture(
            f"{path}: tensor {name} is {dtype}, this build loads {', '.join(ELEMENT_BYTES)}"
        )
    n_bytes = ELEMENT_BYTES.get(dtype) or BUFFER_BYTES[dtype]
    for size in shape:
        n_bytes *= size
    return TensorInfo(shape, dtype, n_bytes)


def _shards(folder: ModelFolder) -> list[Path]:
    """The weight files of a folder: what the index names, else the single file."""
    index = folder.json("model.safetensors.index.json")
    if index is not None:
        return _indexed(folder.path, index)
    single = folder.path / "model.safetensors"
    if single.exists():
        return [single]
    found = sorted(p for p in folder.path.glob("*.safetensors") if not p.name.startswith("consolidated"))
    if found:
        return found
    pickles = sorted(p.name for p in folder.path.iterdir() if p.suffix in PICKLES)
    if pickles:
        raise UnsafeWeights(
            f"{folder.path}: only pickled weights ({pickles[0]}), which can run code when opened",
            hint="use a repository with .safetensors files",
        )
    raise EmptyRepo(f"{folder.path}: no .safetensors files", hint="name a folder with model.safetensors")


def _indexed(folder: Path, index: dict[str, Any]) -> list[Path]:
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InvalidModelFile(f"{folder}/model.safetensors.index.json: weight_map is missing")
    for name in weight_map.values():
        if not isinstance(name, str) or not NAME.fullmatch(name) or "/" in name or ".." in name:
            raise InvalidModelFile(
                f"{folder}/model.safetensors.index.json: {str(name)[:80]!r} is no file name"
            )
    names = set(weight_map.values())
    if len(names) > MAX_SHARDS:
        raise InvalidModelFile(f"{folder}/model.safetensors.index.json: more than {MAX_SHARDS} files")
    missing = sorted(name for name in names if not (folder / name).exists())
    if missing:
        raise InvalidModelFile(
            f"{folder}: {len(missing)} of {len(names)} weight files are missing: {', '.join(missing[:10])}",
            hint=_FETCH_AGAIN,
        )
    return [folder / name for name in sorted(names)]


def _check_header_size(path: Path, fd: int) -> int:
    """Bytes of the header. Refuses one that would take long, and ten times its size, to be parsed."""
    n_bytes = int.from_bytes(os.pread(fd, 8, 0), "little")
    if n_bytes > MAX_HEADER_BYTES:
        raise InvalidModelFile(
            f"{path}: not a whole safetensors file: a header of {n_bytes} bytes, this build reads at most "
            f"{MAX_HEADER_BYTES}",
            hint=_FETCH_AGAIN,
        )
    return n_bytes


def _check_unchanged(path: Path, identity: _Identity) -> None:
    try:
        now = _identity(path.stat())
    except OSError:
        now = None
    if now != identity:
        raise WeightsChanged(f"{path}: changed while it was read", hint="load the model again")


def _identity(s: os.stat_result) -> _Identity:
    return _Identity(s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns)
