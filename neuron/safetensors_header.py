"""The header of a safetensors file: names, dtypes and shapes, without any library. The file is untrusted."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import msgspec

from neuron.errors import InvalidModelFile
from neuron.files import open_regular

MAX_HEADER_BYTES = 8 << 20
"""Of one file. Parsed it takes 17 times as much; 50,000 tensors with long names fit, real files have hundreds."""


class TensorHeader(msgspec.Struct, frozen=True):
    """One tensor."""

    dtype: str
    shape: list[int]


def read_header(path: Path) -> dict[str, TensorHeader]:
    """Every tensor of a file. Raises `InvalidModelFile`."""
    with os.fdopen(open_regular(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise InvalidModelFile(f"{path}: not a whole safetensors file")
        text = file.read(length)
    try:
        header = msgspec.json.decode(text, type=dict[str, Any])
        header.pop("__metadata__", None)
        return msgspec.convert(header, dict[str, TensorHeader])
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as e:
        raise InvalidModelFile(f"{path}: its header is not what the format says: {e}") from e
