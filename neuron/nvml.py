"""NVML, asked in a thread with a deadline, because a broken driver can hang a call for ever.

`pynvml` is imported late: it may be missing, and it loads a system library.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

TIMEOUT_S = 1.5
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Broken:
    """NVML gave no answer; ``reason`` is None where there is no NVIDIA stack at all."""

    reason: str | None


_HUNG = Broken(f"NVML did not answer within {TIMEOUT_S:g} s; see `nvidia-smi` and the kernel log (dmesg)")
_hung: list[threading.Thread] = []
"""The thread that waits in a call of NVML for ever, if there is one: no second one joins it."""


def ask(question: Callable[[Any], T]) -> T | Broken:
    """What ``question`` makes of an open NVML, or why there is no answer."""
    if any(thread.is_alive() for thread in _hung):
        return _HUNG
    answers: list[T | Broken] = []
    thread = threading.Thread(target=lambda: answers.append(_guarded(question)), name="nvml", daemon=True)
    thread.start()
    thread.join(TIMEOUT_S)
    if answers:
        return answers[0]
    _hung[:] = [thread]
    return _HUNG


def _guarded(question: Callable[[Any], T]) -> T | Broken:
    try:
        return _asked(question)
    except Exception as e:  # whatever a library does that is no NVML, or an old one
        return Broken(f"the NVML library can't be used: {e}")


def _asked(question: Callable[[Any], T]) -> T | Broken:
    try:
        import pynvml
    except ImportError:
        return Broken("the module pynvml is missing; install nvidia-ml-py" if _has_device() else None)
    try:
        pynvml.nvmlInit()
        try:
            return question(pynvml)
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as e:
        return Broken(_reason(pynvml, e))


def _reason(nvml: Any, error: Any) -> str | None:
    """An NVML error as an operator can act on it."""
    advice = {
        nvml.NVML_ERROR_LIBRARY_NOT_FOUND: "libnvidia-ml is not installed here; start a container with --gpus",
        nvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA driver is not loaded; try `modprobe nvidia` or reboot",
        nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "driver and library have different versions, as after an update; "
        "reboot or reload the nvidia kernel module",
        nvml.NVML_ERROR_NO_PERMISSION: "no permission for the NVIDIA devices; see the groups of this user",
    }
    if error.value == nvml.NVML_ERROR_LIBRARY_NOT_FOUND and not _has_device():
        return None
    return advice.get(error.value) or f"NVML: {error}; see `nvidia-smi` and the kernel log (dmesg)"


def _has_device() -> bool:
    """A kernel driver of NVIDIA is at work here."""
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists()
