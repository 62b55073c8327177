"""``GET /metrics``: what is read when it is asked for, from snapshots that wait for nothing."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from neuron.daemon.node import Node
from neuron.engine.status import EngineStatus, LoadFigures, ModelStatus
from neuron.hardware import GpuReading
from neuron.log import n_dropped

MIB = 1 << 20

OF_MODEL: dict[str, tuple[str, Callable[[ModelStatus, LoadFigures], float]]] = {
    "kv_budget_bytes": ("Cache memory of the model", lambda model, load: load.kv_budget_bytes),
    "kv_used_bytes": ("Cache memory that requests have reserved", lambda model, load: _kv_used_bytes(load)),
    "model_weight_bytes": ("Memory of the weights", lambda model, load: model.weight_bytes or 0),
    "model_load_seconds": ("How long the load of the model took", lambda model, load: model.load_s),
}
OF_DEVICE: dict[str, tuple[str, Callable[[GpuReading], float]]] = {
    "device_memory_used_bytes": ("Memory in use on a GPU", lambda gpu: gpu.vram_used_mb * MIB),
    "device_memory_free_bytes": ("Memory that is free on a GPU", lambda gpu: gpu.vram_free_mb * MIB),
    "device_utilization_ratio": (
        "Share of the time in which a GPU was busy",
        lambda gpu: gpu.utilization_pct / 100,
    ),
    "device_temperature_celsius": ("Temperature of a GPU", lambda gpu: gpu.temp_c),
    "device_power_watts": ("Power that a GPU draws", lambda gpu: gpu.power_w),
}
OF_NODE: dict[str, tuple[str, Callable[[EngineStatus], float]]] = {
    "accepting": ("1 while new work is accepted", lambda status: status.decode.accepting),
    "decode_stalled": (
        "1 while a decode step takes longer than stall_s",
        lambda status: status.decode.stalled,
    ),
    "decode_step_age_seconds": (
        "Age of the decode step that runs",
        lambda status: status.decode.last_step_age_ms / 1e3,
    ),
}


def _kv_used_bytes(load: LoadFigures) -> int:
    return load.kv_budget_bytes - load.kv_free_bytes


class Gauges(Collector):
    """Gauges of one node, and counters that the engine keeps."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._build = _build()  # now: later there may be no descriptor to read it with

    def collect(self) -> Iterator[Metric]:
        """Read everything once."""
        status = self._node.engine.status()
        yield from self._requests()
        for name, (text, value) in OF_NODE.items():
            yield GaugeMetricFamily(f"neuron_{name}", text, value=value(status))
        loaded = [
            (model, model.load)
            for model in status.models
            if model.load is not None and model.alias_of is None
        ]
        for name, (text, of_model) in OF_MODEL.items():
            yield _gauge(name, text, "model", ((m.id, of_model(m, load)) for m, load in loaded))
        for name, (text, of_gpu) in OF_DEVICE.items():
            yield _gauge(name, text, "device", ((str(g.index), of_gpu(g)) for g in self._node.readings.gpus))
        yield _loads(status)
        yield CounterMetricFamily(
            "neuron_events_lost", "Events that readers were too slow for", value=self._node.events.lost
        )
        yield CounterMetricFamily(
            "neuron_log_lines_dropped", "Lines of the log that found no room", value=n_dropped()
        )
        if (resident := _resident_bytes()) is not None:
            text = "Memory of the process that is in RAM"
            yield GaugeMetricFamily("neuron_process_resident_bytes", text, value=resident)
        yield self._build

    def _requests(self) -> Iterator[Metric]:
        """Of models that are loaded, zeros included."""
        admitted = [record for record in self._node.requests.running.values() if record.admitted]
        waiting = Counter(record.model for record in admitted if record.state == "queued")
        running = Counter(record.model for record in admitted if record.state != "queued")
        models = dict.fromkeys([*self._node.loaded_ids(), *waiting, *running])
        for name, text, counts in (
            ("requests_running", "Admitted requests that are being computed", running),
            ("requests_waiting", "Admitted requests that wait for a place", waiting),
        ):
            yield _gauge(name, text, "model", ((model or "", counts[model]) for model in models))


def _gauge(name: str, text: str, label: str, values: Iterable[tuple[str, float]]) -> Metric:
    family = GaugeMetricFamily(f"neuron_{name}", text, labels=[label])
    for said, value in values:
        family.add_metric([said], value)
    return family


def _loads(status: EngineStatus) -> Metric:
    family = CounterMetricFamily("neuron_loads", "Loads of models by how they ended", labels=["outcome"])
    family.add_metric(["loaded"], status.loads.loaded)
    family.add_metric(["failed"], status.loads.failed)
    return family


def _build() -> Metric:
    build = {
        "version": version("neuron-node"),
        "python": platform.python_version(),
        "torch": version("torch"),
    }
    family = GaugeMetricFamily("neuron_build_info", "1; its labels say what runs", labels=list(build))
    family.add_metric(list(build.values()), 1)
    return family


def _resident_bytes() -> int | None:
    """None where the system has no ``/proc``."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
