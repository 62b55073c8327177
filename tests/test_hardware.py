"""The host as data: what is true of any machine, and every way in which NVML can fail."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from neuron import hardware, nvml


def test_this_host_is_described_quickly_and_plausibly() -> None:
    start = time.monotonic()
    host = hardware.discover()
    assert time.monotonic() - start < 2
    assert host.hostname
    assert 1 <= host.cpu.cores <= (os.cpu_count() or 1)
    assert host.cpu.memory_total_mb > 256
    reading = hardware.read_cpu()
    assert 0 < reading.memory_free_mb < host.cpu.memory_total_mb
    assert reading.memory_used_mb + reading.memory_free_mb in range(
        host.cpu.memory_total_mb - 1, host.cpu.memory_total_mb + 1
    )
    assert reading.load_pct >= 0


class Failure(Exception):
    """An error of NVML."""

    def __init__(self, value: int) -> None:
        super().__init__(f"error {value}")
        self.value = value


class NotSupported(Failure):
    """The device lacks it."""


def library(**changes: Any) -> SimpleNamespace:
    """A stand-in for the module ``pynvml`` with one GPU."""
    gib = 1 << 30
    functions: dict[str, Any] = {
        "NVMLError": Failure,
        "NVMLError_NotSupported": NotSupported,
        "NVML_ERROR_LIBRARY_NOT_FOUND": 12,
        "NVML_ERROR_DRIVER_NOT_LOADED": 9,
        "NVML_ERROR_LIB_RM_VERSION_MISMATCH": 18,
        "NVML_ERROR_NO_PERMISSION": 4,
        "NVML_TEMPERATURE_GPU": 0,
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlSystemGetCudaDriverVersion": lambda: 12090,
        "nvmlSystemGetDriverVersion": lambda: b"575.57",
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda handle: "A GPU",
        "nvmlDeviceGetCudaComputeCapability": lambda handle: (9, 0),
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=80 * gib, used=gib, free=79 * gib),
        "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=42),
        "nvmlDeviceGetTemperature": lambda handle, sensor: 55,
        "nvmlDeviceGetPowerUsage": lambda handle: 310_500,
    }
    return SimpleNamespace(**{**functions, **changes})


def fails(value: int, kind: type[Failure] = Failure) -> Any:
    def call(*args: object) -> None:
        raise kind(value)

    return call


def test_a_gpu_is_described_and_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", library())
    host = hardware.discover()
    assert host.gpus == (hardware.Gpu(0, "A GPU", 81920, "9.0"),)
    assert (host.cuda_version, host.driver_version, host.cuda_unavailable_reason) == ("12.9", "575.57", None)
    assert hardware.read_gpus() == [hardware.GpuReading(0, 1024, 80896, 42, 55, 310.5)]


def test_what_a_device_does_not_measure_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", library(nvmlDeviceGetUtilizationRates=fails(3, NotSupported)))
    assert hardware.read_gpus() == [hardware.GpuReading(0, 1024, 80896, 0, 55, 310.5)]


@pytest.mark.parametrize(
    ("value", "device", "says"),
    [
        (12, False, None),
        (12, True, "libnvidia-ml"),
        (9, True, "not loaded"),
        (18, True, "different versions"),
        (4, True, "permission"),
        (999, True, "error 999"),
    ],
)
def test_a_broken_stack_is_named_and_an_absent_one_is_no_error(
    monkeypatch: pytest.MonkeyPatch, value: int, device: bool, says: str | None
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", library(nvmlInit=fails(value)))
    monkeypatch.setattr(nvml, "_has_device", lambda: device)
    host = hardware.discover()
    assert host.gpus == ()
    assert hardware.read_gpus() == []
    if says is None:
        assert host.cuda_unavailable_reason is None
    else:
        assert says in (host.cuda_unavailable_reason or "")


def test_without_the_module_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(nvml, "_has_device", lambda: False)
    assert hardware.discover().cuda_unavailable_reason is None
    monkeypatch.setattr(nvml, "_has_device", lambda: True)
    assert "nvidia-ml-py" in (hardware.discover().cuda_unavailable_reason or "")


def test_a_library_that_lacks_a_function_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = library()
    del broken.nvmlDeviceGetCount
    monkeypatch.setitem(sys.modules, "pynvml", broken)
    assert "can't be used" in (hardware.discover().cuda_unavailable_reason or "")


def test_a_call_that_hangs_costs_one_thread_and_two_seconds_once(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setitem(sys.modules, "pynvml", library(nvmlInit=lambda: release.wait(30)))
    monkeypatch.setattr(nvml, "TIMEOUT_S", 0.2)
    start = time.monotonic()
    assert "did not answer" in (hardware.discover().cuda_unavailable_reason or "")
    assert hardware.read_gpus() == []
    assert hardware.read_gpus() == []
    assert time.monotonic() - start < 1
    assert sum(thread.name == "nvml" for thread in threading.enumerate()) == 1
    release.set()
    for thread in threading.enumerate():
        if thread.name == "nvml":
            thread.join(5)
    assert len(hardware.read_gpus()) == 1, "it is asked again once the call came back"


def group(root: Path, path: str, **files: str) -> None:
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


@pytest.mark.parametrize(
    ("lines", "folder", "files"),
    [
        (
            "0::/a/b",
            "a",
            {"memory__max": "1073741824", "memory__current": "536870912", "cpu__max": "150000 100000"},
        ),
        (
            "5:memory:/a/b\n4:cpu,cpuacct:/a/b",
            "{}/a/b",
            {
                "memory__limit_in_bytes": "1073741824",
                "memory__usage_in_bytes": "536870912",
                "cpu__cfs_quota_us": "150000",
                "cpu__cfs_period_us": "100000",
            },
        ),
    ],
)
def test_control_groups_bound_memory_and_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str, folder: str, files: dict[str, str]
) -> None:
    for controller in ("memory", "cpu"):
        group(tmp_path, folder.format(controller), **files, memory__stat="inactive_file 104857600")
    text = hardware._text
    monkeypatch.setattr(
        hardware, "_text", lambda path: lines if str(path) == "/proc/self/cgroup" else text(path)
    )
    groups = hardware._groups
    monkeypatch.setattr(hardware, "_groups", lambda controller: groups(controller, tmp_path))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert hardware.free_memory_bytes() == 1073741824 - 536870912 + 104857600
    assert hardware.discover().cpu.memory_total_mb == 1024
    assert hardware.usable_cores() == 2


def test_without_proc_the_numbers_are_estimates_and_not_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_text", lambda path: "")
    assert 0 < hardware.free_memory_bytes() < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert hardware.discover().cpu.cores >= 1
