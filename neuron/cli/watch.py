"""``neuron health --watch``: a page of a node that lives on a terminal, with the last minute as sparklines."""

from __future__ import annotations

import select
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from neuron.cli.terminal_text import one_line
from neuron.errors import NodeUnreachable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from neuron.client import Health, NodeClient
    from neuron.wire.node import ModelLoad

KEPT = 120
"""Samples that a sparkline can show."""
BLOCKS = "▁▂▃▄▅▆▇█"
LEAVE = "q"
NARROW_COLUMNS = 64
"""On less than this the page is one of plain lines."""
FIXED_LINES = 8
"""What the page takes beside its models and GPUs."""
FIXED_COLUMNS = 56
"""What the page takes beside its sparklines, of which there are at most two in a row."""


@dataclass
class History:
    """The newest state of a node and the last values of what is drawn."""

    url: str
    newest: Health | None = None
    missing: str | None = None
    """Why there is no answer now."""
    series: dict[str, deque[float]] = field(default_factory=dict)

    def take(self, health: Health) -> None:
        """A new state."""
        self.newest, self.missing = health, None
        for name, value in _values(health):
            self.series.setdefault(name, deque(maxlen=KEPT)).append(value)

    def poll(self, client: NodeClient) -> None:
        """Ask the node. Raises `NodeUnreachable` only if it has never answered."""
        try:
            self.take(client.health())
        except NodeUnreachable as error:
            if self.newest is None:
                raise
            self.missing = error.message


def _values(health: Health) -> Iterator[tuple[str, float]]:
    body = health.body
    yield "memory", body.cpu.memory_used_mb
    for device in body.devices:
        yield f"gpu {device.index}", device.utilization_pct
        yield f"vram {device.index}", device.vram_used_mb
    for model in body.models:
        yield f"speed {model.id}", speed(model)
        yield f"queue {model.id}", model.queue_depth


def speed(model: ModelLoad) -> float:
    """Tokens per second now: a node tells of its last steps, which may be long ago."""
    return model.tok_s_decode if model.in_flight else 0.0


def sparkline(values: Sequence[float], width: int, top: float | None = None) -> str:
    """The last ``width`` values as blocks, of which the highest is ``top``, or their own maximum."""
    shown = list(values)[-width:] if width > 0 else []
    highest = max([top or 0.0, *shown]) or 1.0
    marks = (BLOCKS[min(len(BLOCKS) - 1, int(len(BLOCKS) * value / highest))] for value in shown)
    return "".join(marks).rjust(width)


def page(history: History, width: int, height: int | None = None) -> RenderableType:
    """What is on a screen of so many columns and lines; None: as many lines as it takes."""
    if width < NARROW_COLUMNS or (height is not None and height < _n_lines(history)):
        return _short_page(history)
    return _whole_page(history, width)


def _n_lines(history: History) -> int:
    assert history.newest is not None
    body = history.newest.body
    return FIXED_LINES + max(1, len(body.models)) + len(body.devices)


def _short_page(history: History) -> RenderableType:
    """A line for each thing, cut where the screen ends, what matters most at the left and at the top."""
    from rich.console import Group
    from rich.text import Text

    assert history.newest is not None
    body = history.newest.body
    models = [f"{m.in_flight}/{m.max_in_flight} {one_line(m.id)} {speed(m):,.0f} tok/s" for m in body.models]
    devices = [f"GPU {d.index} {d.utilization_pct} % {d.vram_free_mb:,} MB free" for d in body.devices]
    host = f"host {body.cpu.load_pct:.0f} % {body.cpu.memory_free_mb:,} MB free"
    lines = [_state(history), *(models or ["no model is loaded"]), *devices, host, f"{LEAVE} leaves"]
    return Group(*(Text(line, no_wrap=True, overflow="ellipsis") for line in lines))


def _whole_page(history: History, width: int) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    spark = max(4, min(KEPT, (width - FIXED_COLUMNS) // 2))
    blank = Text("")
    parts = [Text(_headline(history)), blank, _models(history, spark), blank, _machine(history, spark), blank]
    return Group(*parts, Text(f"{LEAVE} or Ctrl-C leaves", style="dim"))


def _headline(history: History) -> str:
    assert history.newest is not None
    if history.missing is not None:
        return f"{history.url}   {_state(history)}"
    return f"{history.url}   up {_duration(history.newest.body.uptime_secs)}   {_state(history)}"


def _state(history: History) -> str:
    if history.missing is not None:
        return f"{one_line(history.missing)}; these are its last figures"
    health = history.newest
    assert health is not None
    state = "accepting" if health.body.accepting else "draining"
    if health.stalled:
        state = "STALLED: no progress in the decode loop"
    elif health.body.activation.state == "pre_warming":
        state += f", loading {one_line(health.body.activation.in_progress or '')}".rstrip(" ,")
    return state


def _models(history: History, spark: int) -> RenderableType:
    from rich.text import Text

    assert history.newest is not None
    models = history.newest.body.models
    if not models:
        return Text("no model is loaded")
    table = _table("MODEL", "RUN", "KV FREE MB", "TOK/S", "", "QUEUE", "")
    for model in models:
        table.add_row(
            Text(one_line(model.id)),
            f"{model.in_flight}/{model.max_in_flight}",
            f"{model.kv_available_mb:,}",
            f"{speed(model):,.0f}",
            Text(sparkline(history.series[f"speed {model.id}"], spark), style="green"),
            f"{model.queue_depth}/{model.max_queue_depth}",
            Text(sparkline(history.series[f"queue {model.id}"], spark), style="yellow"),
        )
    return table


def _machine(history: History, spark: int) -> Table:
    from rich.text import Text

    assert history.newest is not None
    body = history.newest.body
    table = _table("", "MEMORY MB", "", "LOAD", "", "TEMP")
    for d in body.devices:
        table.add_row(
            f"GPU {d.index}",
            f"{d.vram_used_mb:,}/{d.vram_used_mb + d.vram_free_mb:,}",
            Text(sparkline(history.series[f"vram {d.index}"], spark, d.vram_used_mb + d.vram_free_mb)),
            f"{d.utilization_pct} %",
            Text(sparkline(history.series[f"gpu {d.index}"], spark, 100), style="cyan"),
            f"{d.temp_c} °C",
        )
    used, total = body.cpu.memory_used_mb, body.cpu.memory_used_mb + body.cpu.memory_free_mb
    memory = Text(sparkline(history.series["memory"], spark, total))
    table.add_row("host", f"{used:,}/{total:,}", memory, f"{body.cpu.load_pct:.0f} %", "", "")
    return table


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for at, column in enumerate(columns):
        table.add_column(column, justify="left" if at == 0 or not column else "right", no_wrap=True)
    return table


def _duration(seconds: int) -> str:
    hours, minutes = divmod(seconds // 60, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds % 60:02} s"


# ---- on a terminal


def can_live(console: Console) -> bool:
    """Whether a page can be redrawn there."""
    return console.is_terminal and not console.is_dumb_terminal


def live(client: NodeClient, console: Console, interval_s: float) -> None:
    """The page, until `LEAVE` is pressed."""
    from rich.live import Live

    history = History(client.url)
    history.poll(client)
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as screen:
        while True:
            screen.update(page(history, console.width, console.height), refresh=True)
            if pressed(interval_s) == LEAVE:
                return
            history.poll(client)


@contextmanager
def _keys() -> Iterator[Callable[[float], str | None]]:
    """A function that waits so long for a key; without a terminal to read from, none ever comes."""
    import time

    if not sys.stdin.isatty():
        yield lambda wait_s: time.sleep(wait_s)
        return
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield _pressed
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _pressed(wait_s: float) -> str | None:
    import os

    ready, _, _ = select.select([sys.stdin], [], [], wait_s)
    return os.read(sys.stdin.fileno(), 1).decode(errors="replace").lower() if ready else None
