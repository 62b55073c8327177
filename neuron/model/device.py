"""Which device and dtype a model runs on, and how much memory is free there."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec

import torch

from neuron.errors import CudaUnavailable, InvalidValue
from neuron.hardware import free_memory_bytes
from neuron.model.native import TORCH_ONLY

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(name: str) -> torch.device:
    """``auto`` is the first CUDA device where torch can use one, else the CPU.

    Raises:
        CudaUnavailable: CUDA was asked for and can't be used.
        InvalidValue: no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as e:
        raise InvalidValue(
            f"device {name!r} is not known", param="device", hint="cpu, cuda, cuda:N or mps"
        ) from e
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise CudaUnavailable("this torch can't use CUDA here", hint="neuron discovery says why")
        if (device.index or 0) >= torch.cuda.device_count():
            raise InvalidValue(f"there is no CUDA device {device.index}", param="device")
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """``auto`` is bfloat16 on an accelerator and float32 on a CPU (`docs/adr/0004-dtype.md`)."""
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in DTYPES:
        raise InvalidValue(f"dtype {name!r} is not known", param="dtype", hint=", ".join(DTYPES))
    return DTYPES[name]


@cache
def runs_triton(device: torch.device) -> bool:
    """Whether kernels in Triton run there: its compiler comes with torch for such devices."""
    wanted = not os.environ.get(TORCH_ONLY)
    return wanted and device.type == "cuda" and find_spec("triton") is not None


def free_bytes(device: torch.device) -> int:
    """Memory that can still be taken on the device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory_bytes()
