"""The kernels in Triton without a GPU: their numbers in an interpreter, and that they compile for one."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    find_spec("triton") is None,
    reason="Triton is not installed: it comes with torch's builds for GPUs, not with the one for CPUs",
)


@pytest.mark.timeout(1200)  # a minute where nothing else runs
def test_in_an_interpreter_they_compute_what_torch_computes() -> None:
    # whether kernels are interpreted is settled when Triton is imported, which others here do before
    checks = Path(__file__).with_name("interpreted_kernels.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(checks)]
    done = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.parametrize(
    ("fmt", "kind"), [("Q8_0", "bf16"), ("Q4_0", "fp16"), ("Q4_1", "bf16"), ("Q8_0", "fp32")]
)
def test_they_compile_for_a_gpu_that_is_not_here(fmt: str, kind: str, tmp_path: Path) -> None:
    """In a process of its own, for an H100 and the processors that have the least memory of their own."""
    command = [sys.executable, "-m", "tests.model.compiled_kernels", fmt, kind]
    env = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "TRITON_DEFAULT_FP_FUSION": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
