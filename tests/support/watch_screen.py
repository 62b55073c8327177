"""A screen of ``neuron health --watch``, drawn by the program from scripted states."""

from __future__ import annotations

import io
import math

from rich.console import Console

from neuron.cli.watch import History, page
from neuron.client import Health
from neuron.wire import node as wire

WIDTH = 100


def watch_screen() -> str:
    """Half a minute of a busy node."""
    return text(page(watched(), WIDTH))


def text(renderable: object, width: int = WIDTH) -> str:
    """What a terminal of that width shows, without colours."""
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(renderable)
    return "".join(f"{line.rstrip()}\n" for line in console.export_text().splitlines())


def watched(n_samples: int = 60) -> History:
    """A node with two models and a GPU, half a minute of it."""
    history = History("http://gpu1:13131")
    for n in range(n_samples):
        history.take(Health(state(n), stalled=False))
    return history


def state(n: int) -> wire.HealthResponse:
    """The node at look ``n``."""
    wave = (1 + math.sin(n / 6)) / 2
    return wire.HealthResponse(
        uptime_secs=7500 + n // 2,
        devices=[
            wire.DeviceHealth(
                index=0,
                vram_used_mb=31_000 + 250 * n,
                vram_free_mb=50_000 - 250 * n,
                utilization_pct=round(20 + 75 * wave),
                temp_c=64,
            )
        ],
        activation=wire.Activation(state="ready", pending=[], in_progress=None, completed=[], failed=[]),
        models=[
            load(
                "qwen3-1.7b",
                running=round(14 * wave),
                queue=round(20 * max(0.0, wave - 0.7)),
                tok_s=1900 * wave,
            ),
            load("smollm2", running=1 if n > 40 else 0, queue=0, tok_s=310),
        ],
        cpu=wire.CpuHealth(memory_used_mb=9_300, memory_free_mb=119_000, load_pct=23.0),
        decode=wire.DecodeHealth(active=3, last_step_age_ms=4.0),
        accepting=True,
    )


def load(model_id: str, *, running: int, queue: int, tok_s: float) -> wire.ModelLoad:
    """How busy a model is."""
    return wire.ModelLoad(
        id=model_id,
        in_flight=running,
        queue_depth=queue,
        max_in_flight=16,
        max_queue_depth=64,
        rejected_queue_full=0,
        rejected_timeout=0,
        kv_budget_mb=20_000,
        kv_available_mb=20_000 - 900 * running,
        tok_s_prefill=5000.0,
        tok_s_decode=tok_s,
    )
