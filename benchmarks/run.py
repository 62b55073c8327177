"""Compare neuron with its peers and write `docs/benchmarks`: ``make bench``, or some parts of it by name."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from benchmarks import alone, bare, loads, served
from benchmarks.lines import PEERS
from benchmarks.models import DTYPES, WIDTHS
from benchmarks.report import Measure, Part, kept, lined, machine, write

OUT = Path(__file__).parents[1] / "docs" / "benchmarks"

PARTS: dict[str, Measure] = {
    **{f"bare-{width}": partial(bare.width, width) for width in WIDTHS},
    "prefill": bare.prefill,
    **{f"served-{width}": partial(served.width, width) for width in WIDTHS},
    "streams-4": partial(served.streams, 4),
    "streams-8": partial(served.streams, 8, 2.5),
    "prompts": served.prompts,
    "overhead": alone.overhead,
    "prefix": alone.prefix,
    "pace": alone.pace,
    **{f"load-{dtype}": partial(loads.loads, dtype) for dtype in DTYPES},
    "starts": alone.starts,
    "growth": bare.growth,
    "requests": alone.requests,
}
"""What is measured, in the order of the table."""


def main() -> None:
    """Measure the parts that were asked for, keep those of earlier runs, write everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; default: all")
    asked = parser.parse_args().parts or list(PARTS)
    if unknown := set(asked) - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # and with it what was started
    for name in asked:
        print(f"{name} …", file=sys.stderr, flush=True)
        keep(name, *timed(PARTS[name]))


def timed(measure: Measure) -> tuple[Part, dict[str, object]]:
    """What was measured, and how long it took beside what else."""
    load, begin_s = round(os.getloadavg()[0], 1), time.perf_counter()
    part = measure()
    about = {"date": time.strftime("%Y-%m-%d"), "took_s": round(time.perf_counter() - begin_s), "load": load}
    return part, {**about, "commit": commit()}


def commit() -> str:
    """Of the working tree; empty where there is no git."""
    try:
        asked = ["git", "describe", "--always", "--abbrev=10"]
        return subprocess.run(asked, cwd=OUT, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def keep(name: str, part: Part, about: dict[str, object]) -> None:
    """Put a part in its place among the others and write all documents anew."""
    path = OUT / "latest.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    record = {**before, "facts": facts(), name: kept(part, **about)}
    write(OUT, {key: record[key] for key in ("facts", *PARTS) if key in record})
    print(lined(("", "neuron", "beside it", "ratio", "goal", "met"), (row.cells() for row in part.rows)))


def facts() -> dict[str, str]:
    """What the figures depend on."""
    asked = "from importlib.metadata import version as v; print(v('transformers'), v('xllamacpp'))"
    done = subprocess.run([PEERS, "-c", asked], check=True, stdout=subprocess.PIPE, text=True)
    transformers, llama = done.stdout.split()
    peers = {"transformers": transformers, "llama.cpp": f"xllamacpp {llama}"}
    return {**machine(), **peers, "command": "make bench"}


if __name__ == "__main__":
    main()
