"""The processor's own kernels (``csrc/``), where they were compiled: products with packed weights, and whole steps.

Everything is float32 but the weights, which stay as they are stored. See `docs/adr/0016-cpu-kernels.md`.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from neuron.log import event

log = logging.getLogger("neuron.model")

VERSION = 6
"""As in ``csrc/step.c``; goes up with every change of what Python calls."""
TORCH_ONLY = "NEURON_TORCH_ONLY"
"""Environment variable that turns all kernels off but torch's, for comparisons."""

BUILDS_FOR = {"AVX512": ("v4", "v3"), "AVX2": ("v3",), "DEFAULT": ("any",)}
"""What torch calls the processor's vectors -> the builds that run there, best first."""


class Matrix(ctypes.Structure):
    """``Matrix`` of ``matrix.h``."""

    _fields_ = (
        ("format", ctypes.c_int32),
        ("n_out", ctypes.c_int32),
        ("n_in", ctypes.c_int32),
        ("unused", ctypes.c_int32),
        ("data", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
    )


class Draw(ctypes.Structure):
    """``Draw`` of ``draw.h``: how one id is drawn. ``count``: how many were drawn with the seed before."""

    _fields_ = (
        ("temperature", ctypes.c_float),
        ("top_p", ctypes.c_float),
        ("min_p", ctypes.c_float),
        ("top_k", ctypes.c_int32),
        ("seed", ctypes.c_uint64),
        ("count", ctypes.c_uint64),
    )


@cache
def library() -> ctypes.CDLL | None:
    """The build for this processor; None where nothing was compiled or it is turned off."""
    if os.environ.get(TORCH_ONLY):
        return None
    for name in BUILDS_FOR.get(torch.backends.cpu.get_cpu_capability(), ("any",)):
        for path in Path(__file__).parent.glob(f"_native_{name}.*"):
            lib = ctypes.CDLL(str(path))
            if _version(lib) == VERSION:
                return declared(lib)
            event(
                log,
                "kernels not used",
                level=logging.WARNING,
                path=str(path),
                cause="built from other sources",
                hint="install neuron again",
            )
    return None


def _version(lib: ctypes.CDLL) -> int | None:
    try:
        return ctypes.c_int.in_dll(lib, "neuron_kernels_version").value
    except ValueError:
        return None


def declared(lib: ctypes.CDLL) -> ctypes.CDLL:
    """The library with the types of its functions."""
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    lib.neuron_product.argtypes = (pointer, pointer, size, pointer, size, ctypes.c_int)
    lib.neuron_product.restype = ctypes.c_int
    lib.neuron_rounds.argtypes = ()
    lib.neuron_rounds.restype = ctypes.c_int
    lib.neuron_set_exact.argtypes = (ctypes.c_int,)
    lib.neuron_set_exact.restype = None
    lib.neuron_rows.argtypes = (pointer, pointer, size, pointer)
    lib.neuron_rows.restype = None
    lib.neuron_draw.argtypes = (pointer, size, size, pointer, pointer, ctypes.c_int)
    lib.neuron_draw.restype = ctypes.c_int
    lib.neuron_best.argtypes = (pointer, size, size, pointer)
    lib.neuron_best.restype = None
    lib.neuron_pack.argtypes = (pointer, size, size, size, pointer)
    lib.neuron_pack.restype = None
    number = ctypes.c_int
    lib.neuron_attend.argtypes = (
        pointer,
        size,
        pointer,
        pointer,
        *[size] * 4,
        *[number] * 3,
        pointer,
        number,
    )
    lib.neuron_attend.restype = None
    lib.neuron_norm.argtypes = (pointer, size, size, number, pointer, ctypes.c_float, pointer, number)
    lib.neuron_norm.restype = None
    lib.neuron_rotate.argtypes = (pointer, size, size, number, number, pointer, pointer, number, number)
    lib.neuron_rotate.restype = None
    lib.neuron_gate.argtypes = (pointer, size, number, number, pointer, number)
    lib.neuron_gate.restype = None
    lib.neuron_step.argtypes = (pointer, pointer)
    lib.neuron_step.restype = ctypes.c_int
    return lib


def product(matrix: Matrix, x: Tensor, y: Tensor) -> None:
    """``y = x Wᵀ + b``: x [T, in] float32; y [T, out] float32, whose rows may lie apart. Raises `MemoryError`."""
    lib = library()
    assert lib is not None
    x = x.contiguous()
    threads = torch.get_num_threads()
    at, to = (x.data_ptr(), len(x)), (y.data_ptr(), y.stride(0))
    if lib.neuron_product(ctypes.byref(matrix), *at, *to, threads):
        raise MemoryError("no memory to compute a prompt")


def rounds() -> bool:
    """Whether rows of a prompt are rounded to 16 bits where the weights are quantised (``csrc/integers.h``)."""
    lib = library()
    return lib is not None and bool(lib.neuron_rounds())


def set_exact(exact: bool) -> None:
    """Whether prompts are computed in float32 throughout, from now on and by every model."""
    if (lib := library()) is not None:
        lib.neuron_set_exact(exact)


def computes(x: Tensor) -> bool:
    """Whether the kernels take this tensor: float32 on the CPU, and there are kernels."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and library() is not None


def attend(q: Tensor, keys: Tensor, values: Tensor, window: int | None) -> Tensor:
    """Causal attention of rows that follow each other; the last keys are their own.

    Args:
        q: [n, H, D] float32, rows may lie apart.
        keys, values: [K, S, D] float32, heads may lie apart.
        window: how many keys a row may see; None: all up to its own.

    Returns:
        [n, H·D].
    """
    lib = library()
    assert lib is not None
    n, n_heads, head_dim = q.shape
    n_kv_heads, n_keys, _ = keys.shape
    out = q.new_empty(n, n_heads * head_dim)
    at, of_keys = (q.data_ptr(), q.stride(0)), (keys.data_ptr(), values.data_ptr(), keys.stride(0))
    sizes = (n, n_keys, window or 0, n_heads, n_kv_heads, head_dim)
    lib.neuron_attend(*at, *of_keys, *sizes, out.data_ptr(), torch.get_num_threads())
    return out


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x [T, C] float32, rows may lie apart → [T, C]."""
    lib = library()
    assert lib is not None
    out = torch.empty(x.shape)
    threads = torch.get_num_threads()
    lib.neuron_norm(x.data_ptr(), x.stride(0), *x.shape, weight.data_ptr(), eps, out.data_ptr(), threads)
    return out


def rotate_in_place(x: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Rotate the first ``dim`` values of each head: x [T, heads, D], rows may lie apart; cos, sin [T, 1, dim/2]."""
    lib = library()
    assert lib is not None
    at, (cos, sin) = (x.data_ptr(), x.stride(0)), (cos.contiguous(), sin.contiguous())
    threads = torch.get_num_threads()
    lib.neuron_rotate(*at, *x.shape, cos.data_ptr(), sin.data_ptr(), cos.shape[-1], threads)


ACTIVATIONS = {"silu": 0, "gelu": 1, "gelu_pytorch_tanh": 2, "relu": 3}
"""As in ``csrc/rows.h``."""


def gate(gate_up: Tensor, activation: str) -> Tensor:
    """``activation(gate) * up``: [T, 2F] → [T, F]."""
    lib = library()
    assert lib is not None
    n, size = len(gate_up), gate_up.shape[1] // 2
    out = gate_up.new_empty(n, size)
    threads = torch.get_num_threads()
    lib.neuron_gate(gate_up.data_ptr(), n, size, ACTIVATIONS[activation], out.data_ptr(), threads)
    return out


def draw(scores: Tensor, draws: Sequence[Draw]) -> list[int]:
    """An id for each row of scores [R, V] float32. Raises `MemoryError`."""
    lib = library()
    assert lib is not None
    ids = torch.empty(len(scores), dtype=torch.int64)
    how = (Draw * len(draws))(*draws)
    at, threads = scores.contiguous().data_ptr(), torch.get_num_threads()
    if lib.neuron_draw(at, *scores.shape, ctypes.byref(how), ids.data_ptr(), threads):
        raise MemoryError("no memory to draw a token")
    return ids.tolist()


def best_ids(logits: Tensor) -> list[int]:
    """The likeliest id of each row of logits [R, V] float32; -1 where one of a row is not finite."""
    if logits.device.type != "cpu" or (lib := library()) is None:
        finite = logits.sum(dim=-1).isfinite()
        return torch.where(finite, logits.argmax(dim=-1), -1).tolist()
    ids = torch.empty(len(logits), dtype=torch.int64)
    lib.neuron_best(logits.contiguous().data_ptr(), *logits.shape, ids.data_ptr())
    return ids.tolist()


def pack(blocks: Tensor, unit_bytes: int, tiles: Tensor) -> None:
    """Rows of a file, uint8 [out, row bytes], into tiles, with units of so many bytes kept whole; on one thread."""
    lib = library()
    assert lib is not None
    n_out, row_bytes = blocks.shape
    at = blocks.contiguous().data_ptr()
    lib.neuron_pack(at, n_out, row_bytes // unit_bytes, unit_bytes, tiles.data_ptr())


def rows(matrix: Matrix, ids: Tensor) -> Tensor:
    """Rows ids [T] int64 of a matrix as [T, in] float32. The ids must be within it."""
    lib = library()
    assert lib is not None
    out = torch.empty(len(ids), matrix.n_in)
    lib.neuron_rows(ctypes.byref(matrix), ids.contiguous().data_ptr(), len(ids), out.data_ptr())
    return out
