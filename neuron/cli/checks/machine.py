"""The machine: Python, torch, driver, memory, disk, open files."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec

from neuron.cli.checks.finding import Finding, Where, failure, ok, warning
from neuron.settings import cache_dir, state_dir

LOW_MEMORY_MB, LOW_DISK_MB, NO_DISK_MB = 2_000, 10_000, 500
FEW_FILES = 1024
TORCH_S = 90
_ASK_TORCH = (
    "import json, torch; from neuron.model.native import library; "
    "print(json.dumps({'version': torch.__version__, 'cuda': torch.version.cuda, "
    "'usable': torch.cuda.is_available(), 'kernels': library() is not None}))"
)


class Torch(msgspec.Struct):
    """A torch that can be imported."""

    version: str
    cuda: str | None
    """The CUDA it was built for; None: a build for CPUs."""
    usable: bool
    """It can compute on a GPU here."""
    kernels: bool = True
    """neuron's own for the CPU are compiled, and turned on."""


def python(where: Where) -> Finding:
    """The interpreter that runs this."""
    return ok(f"{platform.python_implementation()} {platform.python_version()} at {sys.executable}")


def driver(where: Where) -> Finding:
    """The NVIDIA driver and its library."""
    host = where.host
    if host.cuda_unavailable_reason:
        says, _, step = host.cuda_unavailable_reason.partition("; ")
        return failure(says, step or "look at nvidia-smi and the kernel log (dmesg)")
    if not host.gpus:
        return ok("no NVIDIA GPU: models run on the CPU")
    names = ", ".join(gpu.name for gpu in host.gpus)
    return ok(f"{names}; driver {host.driver_version}, CUDA {host.cuda_version} at most")


def torch(where: Where) -> Finding:
    """The torch that a node would import, asked in a process of its own."""
    try:
        found = ask_torch()
    except (OSError, ValueError, subprocess.SubprocessError) as e:
        reason = getattr(e, "stderr", None) or str(e)
        last = reason.strip().rpartition("\n")[2] or type(e).__name__
        return failure(
            f"torch can't be imported: {last}", f"{sys.executable} -m pip install --force-reinstall torch"
        )
    return torch_finding(found, n_gpus=len(where.host.gpus), driver_cuda=where.host.cuda_version)


def ask_torch() -> Torch:
    """What a process of its own says of torch; raises what `subprocess.run` does."""
    done = subprocess.run(
        [sys.executable, "-c", _ASK_TORCH], capture_output=True, text=True, timeout=TORCH_S, check=True
    )
    return msgspec.json.decode(done.stdout.strip().rpartition("\n")[2], type=Torch)


def torch_finding(found: Torch, *, n_gpus: int, driver_cuda: str | None) -> Finding:
    """Whether the build fits the machine."""
    build = f"torch {found.version}, built for {f'CUDA {found.cuda}' if found.cuda else 'CPUs'}"
    if n_gpus and not found.cuda:
        return warning(
            f"{build}, on a machine with {n_gpus} GPUs",
            "install a CUDA build: see pytorch.org/get-started/locally",
        )
    if n_gpus and not found.usable:
        return failure(
            f"{build}, can't use the GPUs; the driver takes CUDA {driver_cuda}",
            f"update the driver, or install a build of torch for CUDA {driver_cuda} or older",
        )
    if found.cuda and not n_gpus:
        return warning(
            f"{build}, on a machine without a GPU",
            "the CPU build takes a fraction of the disk; nothing else is wrong",
        )
    if not found.kernels and not n_gpus:
        return warning(
            f"{build}; without neuron's own kernels, which are several times as fast on a CPU",
            "unset NEURON_TORCH_ONLY, or install a C compiler and then neuron again",
        )
    return ok(build)


def memory(where: Where) -> Finding:
    """What is free, within the limit of the control group."""
    from neuron.hardware import read_cpu

    free_mb, total_mb = read_cpu().memory_free_mb, where.host.cpu.memory_total_mb
    machine_mb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    limit = (
        f" (limited by the control group; the machine has {machine_mb:,} MB)" if total_mb < machine_mb else ""
    )
    says = f"{free_mb:,} MB free of {total_mb:,} MB{limit}"
    if free_mb < LOW_MEMORY_MB:
        return warning(says, "stop something, unload a model, or raise the limit (MemoryMax= of a service)")
    return ok(says)


def cache(where: Where) -> Finding:
    """The folder of fetched models."""
    return _folder(cache_dir(), "NEURON_CACHE")


def state(where: Where) -> Finding:
    """The folder of what outlives a process."""
    return _folder(state_dir(), "NEURON_STATE")


def _folder(path: Path, variable: str) -> Finding:
    """A folder that is, or can be, written to, with room on its disk."""
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return failure(f"{path}: {existing} can't be written to", f"chown or chmod it, or set {variable}")
    free_mb = shutil.disk_usage(existing).free >> 20
    says = f"{path}: {free_mb:,} MB free"
    if free_mb < NO_DISK_MB:
        return failure(says, f"free some space, or set {variable}")
    if free_mb < LOW_DISK_MB:
        return warning(says, f"a model may not fit: free some space, or set {variable}")
    return ok(says)


def open_files(where: Where) -> Finding:
    """How many files and connections a process may hold."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < FEW_FILES:
        return warning(f"{soft} open files at most", "ulimit -n 4096; for a service LimitNOFILE=4096")
    return ok("any number of open files" if soft < 0 else f"{soft:,} open files at most")
