"""A node beside an NVML that is absent, hangs or is none: ``/discovery`` says why there is no GPU."""

from __future__ import annotations

import time
from pathlib import Path

from tests.support.node_process import node
from tests.support.scorecard import Scorecard

TARGET_S = 2
WORKING = """
class NVMLError(Exception): value = 999
class NVMLError_NotSupported(NVMLError): pass
NVML_ERROR_LIBRARY_NOT_FOUND, NVML_ERROR_DRIVER_NOT_LOADED, NVML_ERROR_NO_PERMISSION = 12, 9, 4
NVML_ERROR_LIB_RM_VERSION_MISMATCH, NVML_TEMPERATURE_GPU = 18, 0
class Memory: total = used = free = 1 << 30
class Rates: gpu = 7
def nvmlInit(): pass
def nvmlShutdown(): pass
def nvmlSystemGetCudaDriverVersion(): return 12090
def nvmlSystemGetDriverVersion(): return b"575.57"
def nvmlDeviceGetCount(): return 1
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetName(handle): return "A GPU"
def nvmlDeviceGetCudaComputeCapability(handle): return 9, 0
def nvmlDeviceGetMemoryInfo(handle): return Memory
def nvmlDeviceGetUtilizationRates(handle): return Rates
def nvmlDeviceGetTemperature(handle, sensor): return 55
def nvmlDeviceGetPowerUsage(handle): return 310_500
"""
HANGS = "import time\ndef {}(*args): time.sleep(3600)\n"
STAND_INS = {
    "absent": ("raise ImportError", None),
    "hangs at once": (WORKING + HANGS.format("nvmlInit"), "did not answer"),
    "hangs at a device": (WORKING + HANGS.format("nvmlDeviceGetMemoryInfo"), "did not answer"),
    "fails": (WORKING + "def nvmlInit(): raise NVMLError('gone')", "NVML: gone"),
    "is empty": ("", "can't be used"),
    "is no Python": ("def def", "can't be used"),
    "answers text": (WORKING + "def nvmlSystemGetCudaDriverVersion(): return 'twelve'", "can't be used"),
    "answers nothing": (WORKING + "def nvmlDeviceGetMemoryInfo(handle): return None", "can't be used"),
}
"""What a module of this name holds, and words of the reason that the node gives."""


def discovered(folder: Path, source: str) -> tuple[dict[str, object], float, str]:
    """What a node says of its machine beside such a module, in how many seconds, and its log."""
    folder.mkdir()
    (folder / "pynvml.py").write_text(source)
    with node("--threads", "1", env={"PYTHONPATH": str(folder)}) as running:
        began_s = time.monotonic()
        answer = running.get("/discovery")
        took_s = time.monotonic() - began_s
        assert running.get("/health").status_code == 200
    assert answer.status_code == 200
    return answer.json(), took_s, "".join(running.log)


def test_a_gpu_that_is_there_is_told(tmp_path: Path) -> None:
    found, *_ = discovered(tmp_path / "a", WORKING)
    assert found["driver_version"] == "575.57"


def test_discovery_answers_whatever_nvml_does(tmp_path: Path, scorecard: Scorecard) -> None:
    longest_s = 0.0
    for number, (name, (source, words)) in enumerate(STAND_INS.items()):
        found, took_s, log = discovered(tmp_path / str(number), source)
        longest_s = max(longest_s, took_s)
        assert words is None or words in str(found["cuda_unavailable_reason"]), name
        assert found["devices"] == [], name
        assert "Traceback" not in log, name
    figure = f"{len(STAND_INS)} stand-ins, {1000 * longest_s:.0f} ms at most"
    scorecard(30, figure, f"`/discovery` <= {TARGET_S} s", longest_s <= TARGET_S)
