"""The devices and the memory of this host, as data. Without an NVIDIA stack there are no GPUs: that is no error.

On anything but Linux, what the system does not tell is estimated, as each function says.
"""

from __future__ import annotations

import os
import platform
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from neuron import nvml

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, as it is since boot. ``index`` is NVML's."""

    index: int
    name: str
    vram_total_mb: int
    compute_capability: str
    """Such as ``9.0``."""


@dataclass(frozen=True, slots=True)
class GpuReading:
    """A GPU, as it is now. 0 for what the device does not measure."""

    index: int
    vram_used_mb: int
    vram_free_mb: int
    utilization_pct: int
    temp_c: int
    power_w: float = 0.0


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processor and the memory that this process may use."""

    model: str
    cores: int
    memory_total_mb: int


@dataclass(frozen=True, slots=True)
class CpuReading:
    """Memory and load, as they are now."""

    memory_used_mb: int
    memory_free_mb: int
    load_pct: float
    """Tasks that run or wait, averaged over a minute, as a share of the cores; can exceed 100."""


@dataclass(frozen=True, slots=True)
class Host:
    """What does not change while a node runs."""

    hostname: str
    os: str
    kernel: str
    cuda_version: str | None
    """The newest CUDA that the driver supports."""
    driver_version: str | None
    gpus: tuple[Gpu, ...]
    cpu: Cpu
    cuda_unavailable_reason: str | None
    """Why an NVIDIA stack that is there can't be used; None where there is none, or it works."""


def discover() -> Host:
    """This host; takes at most two seconds, whatever NVML does."""
    found = nvml.ask(_inventory)
    cuda, driver, gpus = found if isinstance(found, tuple) else (None, None, ())
    return Host(
        hostname=socket.gethostname(),
        os=_os_name(),
        kernel=platform.release(),
        cuda_version=cuda,
        driver_version=driver,
        gpus=gpus,
        cpu=Cpu(_cpu_model(), usable_cores(), _memory_limit_bytes() // _MIB),
        cuda_unavailable_reason=found.reason if isinstance(found, nvml.Broken) else None,
    )


def read_gpus() -> list[GpuReading]:
    """Every GPU now; none where NVML is absent, broken or too slow."""
    found = nvml.ask(_readings)
    return found if isinstance(found, list) else []


def read_cpu() -> CpuReading:
    """Memory and load now."""
    free = free_memory_bytes()
    used = max(0, _memory_limit_bytes() - free)
    return CpuReading(used // _MIB, free // _MIB, round(100 * os.getloadavg()[0] / usable_cores(), 1))


# ---- processor and memory ------------------------------------------------------------------------------------


def usable_cores() -> int:
    """Cores this process may use: its affinity, and the quota of its control group rounded up."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [-(-quota // period) for quota, period in _cpu_quotas()]
    return max(1, min([affinity, *quotas]))


def free_memory_bytes() -> int:
    """Memory that can be taken without swapping: what the system has, and what the control groups leave."""
    return max(0, min([_available_bytes(), *(limit - used for limit, used in _memory_groups())]))


def _memory_limit_bytes() -> int:
    return min([_total_bytes(), *(limit for limit, _ in _memory_groups())])


def _total_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _available_bytes() -> int:
    """``MemAvailable``; half of the memory where there is no ``/proc``."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _text(Path("/proc/meminfo")), re.MULTILINE)
    return int(found[1]) * 1024 if found else _total_bytes() // 2


def _memory_groups() -> Iterator[tuple[int, int]]:
    """Limit and use, in bytes, of each control group above this process that has a limit.

    File cache that the kernel can drop counts as free: reading a model fills it.
    """
    for folder in _groups("memory"):
        limit = _number(folder / "memory.max") or _number(folder / "memory.limit_in_bytes")
        used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes")
        if limit is not None and used is not None and limit < _total_bytes():
            cache = re.search(
                r"^(?:total_)?inactive_file (\d+)$", _text(folder / "memory.stat"), re.MULTILINE
            )
            yield limit, max(0, used - int(cache[1] if cache else 0))


def _cpu_quotas() -> Iterator[tuple[int, int]]:
    """Quota and period, in microseconds, of each control group above this process that has a quota."""
    for folder in _groups("cpu"):
        v1 = f"{_text(folder / 'cpu.cfs_quota_us')} {_text(folder / 'cpu.cfs_period_us')}"
        for text in (_text(folder / "cpu.max"), v1):
            if found := re.fullmatch(r"(\d+)\s+([1-9]\d*)\s*", text):
                yield int(found[1]), int(found[2])


def _groups(controller: str, root: Path = Path("/sys/fs/cgroup")) -> Iterator[Path]:
    """Folders of this process's control group and of those above it, in version 2 and 1."""
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        number, names, path = line.split(":", 2)
        if number == "0" and names == "":
            mount = root
        elif controller in names.split(","):
            mount = root / controller
        else:
            continue
        group = mount / path.lstrip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(mount))


def _cpu_model() -> str:
    found = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", _text(Path("/proc/cpuinfo")), re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def _os_name() -> str:
    found = re.search(r'^PRETTY_NAME="?([^"\n]+)', _text(Path("/etc/os-release")), re.MULTILINE)
    return found[1] if found else f"{platform.system()} {platform.release()}"


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    """A small system file; nothing where the system has none."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


# ---- NVML ----------------------------------------------------------------------------------------------------


def _inventory(lib: Any) -> tuple[str, str, tuple[Gpu, ...]]:
    cuda = lib.nvmlSystemGetCudaDriverVersion()
    gpus = []
    for index, handle in _handles(lib):
        major, minor = lib.nvmlDeviceGetCudaComputeCapability(handle)
        total_mb = _memory_mb(lib, handle, "total")
        gpus.append(Gpu(index, _str(lib.nvmlDeviceGetName(handle)), total_mb, f"{major}.{minor}"))
    return f"{cuda // 1000}.{cuda % 1000 // 10}", _str(lib.nvmlSystemGetDriverVersion()), tuple(gpus)


def _readings(lib: Any) -> list[GpuReading]:
    return [
        GpuReading(
            index,
            _memory_mb(lib, handle, "used"),
            _memory_mb(lib, handle, "free"),
            _measured(lib, lambda h: int(lib.nvmlDeviceGetUtilizationRates(h).gpu), handle),
            _measured(lib, partial(_temperature, lib), handle),
            _measured(lib, lambda h: int(lib.nvmlDeviceGetPowerUsage(h)), handle) / 1e3,
        )
        for index, handle in _handles(lib)
    ]


def _handles(lib: Any) -> Iterator[tuple[int, Any]]:
    for index in range(lib.nvmlDeviceGetCount()):
        yield index, lib.nvmlDeviceGetHandleByIndex(index)


def _memory_mb(lib: Any, handle: Any, field: str) -> int:
    return _measured(lib, lambda h: int(getattr(lib.nvmlDeviceGetMemoryInfo(h), field)) // _MIB, handle)


def _temperature(lib: Any, handle: Any) -> int:
    return int(lib.nvmlDeviceGetTemperature(handle, lib.NVML_TEMPERATURE_GPU))


def _measured(lib: Any, read: Callable[[Any], int], handle: Any) -> int:
    """A quantity, 0 where this device has none (a laptop, a slice, memory shared with the processor)."""
    try:
        return read(handle)
    except lib.NVMLError_NotSupported:
        return 0


def _str(text: str | bytes) -> str:
    return text.decode(errors="replace") if isinstance(text, bytes) else text
