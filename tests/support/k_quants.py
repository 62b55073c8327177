"""Encodes matrices as K-quants, which the `gguf` package only reads. Rounding, no search for better scales."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray


def quantize(rows: Array, name: str) -> Array:
    """float32 [out, in], ``in`` in blocks of 256 -> uint8 [out, row bytes]."""
    return ENCODERS[name](rows.reshape(-1, 256)).reshape(len(rows), -1)


def q4_k(x: Array) -> Array:
    """Groups of 32: a scale and a minimum of six bits each, values of four."""
    groups = x.reshape(-1, 8, 32)
    low = np.minimum(groups.min(-1), 0)
    d, scales = _parts((groups.max(-1) - low) / 15, 63)
    d_min, minima = _parts(-low, 63)
    values = _steps(groups + _wide(d_min, minima), _wide(d, scales), 0, 15).reshape(-1, 4, 2, 32)
    packed = (values[:, :, 0] | values[:, :, 1] << 4).reshape(-1, 128)
    return _joined(_bytes(d), _bytes(d_min), _six_bits(scales, minima), packed)


def q3_k(x: Array) -> Array:
    """Groups of 16: a signed scale of six bits, values from -4 to 3."""
    groups = x.reshape(-1, 16, 16)
    d, scales = _parts(np.abs(groups).max(-1) / 4, 31)
    values = _steps(groups, _wide(d, scales), -4, 3).reshape(-1, 256) + 4
    third = _shifted((values >> 2).reshape(-1, 1, 8, 32), 1)
    high = (scales + 32 >> 4).reshape(-1, 1, 4, 4)
    low = scales + 32 & 15
    packed = _joined(low[:, :8] | low[:, 8:] << 4, _shifted(high, 2))
    return _joined(third, _shifted((values & 3).reshape(-1, 2, 4, 32), 2), packed, _bytes(d))


def q6_k(x: Array) -> Array:
    """Groups of 16: a signed scale of eight bits, values from -32 to 31."""
    groups = x.reshape(-1, 16, 16)
    d, scales = _parts(np.abs(groups).max(-1) / 32, 127)
    values = (_steps(groups, _wide(d, scales), -32, 31) + 32).reshape(-1, 2, 4, 32)
    low = values & 15
    packed = (low[:, :, :2] | low[:, :, 2:] << 4).reshape(-1, 128)
    return _joined(packed, _shifted(values >> 4, 2), scales, _bytes(d))


ENCODERS: dict[str, Callable[[Array], Array]] = {"Q3_K": q3_k, "Q4_K": q4_k, "Q6_K": q6_k}


def _parts(sizes: Array, most: int) -> tuple[Array, Array]:
    """Sizes [N, groups], 0 or more, as whole multiples, ``most`` at most, of a float16 [N, 1]."""
    d = (sizes.max(-1, keepdims=True) / most).astype(np.float16)
    return d, _steps(sizes, d.astype(np.float32), 0, most)


def _steps(x: Array, step: Array, least: int, most: int) -> Array:
    found = np.divide(x, step, out=np.zeros_like(x), where=step > 0)
    return np.clip(np.round(found), least, most).astype(np.int64)


def _wide(d: Array, parts: Array) -> Array:
    return (d.astype(np.float32) * parts)[..., None]


def _six_bits(scales: Array, minima: Array) -> Array:
    """Of eight each: the low bits of four and their own, the top two bits of the others beside; their low four."""
    first, second = (part[:, :4] | part[:, 4:] >> 4 << 6 for part in (scales, minima))
    return _joined(first, second, scales[:, 4:] & 15 | (minima[:, 4:] & 15) << 4)


def _shifted(parts: Array, bits: int) -> Array:
    """[N, runs, n, bytes] -> [N, runs · bytes]: n numbers of so many bits in a byte, lowest first."""
    shifts = bits * np.arange(parts.shape[2]).reshape(-1, 1)
    return (parts << shifts).sum(2).reshape(len(parts), -1)


def _bytes(d: Array) -> Array:
    return d.view(np.uint8)


def _joined(*parts: Array) -> Array:
    return np.concatenate([part.astype(np.uint8) for part in parts], axis=1)
