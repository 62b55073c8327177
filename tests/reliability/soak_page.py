"""``docs/soak.md``: what a soak found, in figures and over time."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from neuron.hardware import discover

N_ROWS = 12
HEAD = """# Soak

`make soak` wrote this page and `soak.json`. Eight clients ask one node (a tiny model, one thread of kernels) for
random things, as fast as it answers: chat, completions, responses, messages and embeddings, streamed or not,
schemas, several answers, shared beginnings, requests that must be refused; a fifth of the clients leave in the
middle. Meanwhile a second model is loaded and unloaded, in half of the cases under its requests; metrics, health,
models and requests are read, and readers of `/events` come and go. Between two rounds everybody rests, and what the
node keeps is read. A fault is an answer of 5xx (but for a model on its way out), an error in the log, or a request
of which client, log and metrics tell differently.
"""


def about(root: Path) -> dict[str, Any]:
    """Date, commit and machine of a run that begins now."""
    commit, changed = (
        _git(root, *args) for args in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain"))
    )
    cpu = discover().cpu
    said = f"{commit} and changes" if changed else commit
    return {"date": date.today().isoformat(), "commit": said, "processor": cpu.model, "cores": cpu.cores}


def _git(root: Path, *args: str) -> str:
    """What git says, nothing where there is none."""
    found = subprocess.run(["git", *args], cwd=root, capture_output=True, text=True)
    return found.stdout.strip()


def page(report: dict[str, Any]) -> str:
    """The document."""
    of = report["outcomes"]
    ended = ", ".join(f"{of[name]:,} {name}" for name in sorted(of))
    figures = {
        "requests": (f"{report['requests']:,} in {report['took_s'] / 60:.0f} minutes: {ended}", ">= 10,000"),
        "beside them": (
            f"{report['loads']:,} loads and unloads, {report['looks']:,} looks at metrics, health, models and "
            f"requests, {report['readers']:,} readers of events", "",
        ),
        "faults": (f"{len(report['faults'])}", "0"),
        "memory, for 1,000 requests": (f"{report['rss_mb_per_1000']:+.2f} MB", "< 1 MB"),
        "descriptors, for 1,000 requests": (f"{report['descriptors_per_1000']:+.2f}", "0"),
        "threads, for 1,000 requests": (f"{report['threads_per_1000']:+.2f}", "0"),
    }  # fmt: skip
    lines = [f"| {name} | {figure} | {target} |" for name, (figure, target) in figures.items()]
    return "\n".join([
        HEAD,
        f"{report['date']}, commit {report['commit']}, {report['processor']}, {report['cores']} cores: "
        f"{'met' if report['met'] else 'missed'}.\n",
        "| what | figure | target |\n|---|---|---|", *lines, "",
        "Slopes are lines of least squares through the samples after the first third.\n",
        "| minute | requests | memory MB | descriptors | threads |\n|--:|--:|--:|--:|--:|",
        *(_row(one) for one in _some(report["samples"])), "",
    ])  # fmt: skip


def _some(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first, the last, and some between at equal distances."""
    n = min(N_ROWS, len(samples))
    return [samples[round(i * (len(samples) - 1) / max(1, n - 1))] for i in range(n)]


def _row(one: dict[str, Any]) -> str:
    cells = f"{one['at_s'] / 60:.1f} | {one['n_requests']:,} | {one['rss_kb'] / 1024:.1f}"
    return f"| {cells} | {one['n_descriptors']} | {one['n_threads']} |"
