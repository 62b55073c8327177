"""Screens of ``neuron bench`` and ``neuron load``, made by the program itself."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from unittest.mock import patch

from neuron.bench.answer import Answer
from neuron.bench.report import Report, level
from neuron.cli.bench import show
from neuron.progress import Progress
from tests.support.fake_engine import FakeEngine
from tests.support.node_server import node_server
from tests.support.terminal import terminal

MODEL = "smollm2"
N_REQUESTS, N_TOKENS = 128, 64


class _TerminalText(io.StringIO):
    """Says that it is a terminal, and keeps what is written."""

    def isatty(self) -> bool:
        return True


def bench_screen() -> str:
    """A measurement with scripted times; a terminal without colours shows it."""
    report = Report(
        url="http://gpu1:13131/v1",
        model=MODEL,
        requests=N_REQUESTS,
        prompt_tokens=128,
        max_tokens=N_TOKENS,
        ignore_eos=True,
        levels=[
            level(places, answers, sum(a.total_s for a in answers) / places, interrupted=False)
            for places, answers in ((n, _answers(n)) for n in (1, 4, 8))
        ],
    )
    with (
        redirect_stdout(_TerminalText()) as shown,
        patch.dict("os.environ", {"TERM": "dumb", "COLUMNS": "80"}),
    ):
        show(report)
    return "$ neuron bench --requests 128 --host gpu1\n" + _trimmed(shown.getvalue())


def _answers(places: int) -> Sequence[Answer]:
    """As of a server that slows down a little with each request beside another."""
    return [
        _answer(0.030 + 0.004 * places, 0.008 + 0.0006 * places, 1 + (n % 10) / 40) for n in range(N_REQUESTS)
    ]


def _answer(first_s: float, gap_s: float, slower: float) -> Answer:
    arrived_s = [slower * (first_s + gap_s * n) for n in range(N_TOKENS)]
    return Answer(arrived_s, arrived_s[-1], prompt_tokens=128, completion_tokens=N_TOKENS)


def load_screen() -> str:
    """A load at work and when it is over: the bars vanish, the result stays."""
    engine = FakeEngine(models=())
    engine.load_steps = [
        Progress("fetch", 92_600_000, 92_600_000),
        Progress("read", 130_000_000, 269_000_000),
    ]
    engine.load_s = 3.0
    with (
        node_server(engine) as node,
        tempfile.TemporaryDirectory() as state,
        terminal("load", MODEL, "--host", node.url, state=Path(state), columns=80) as screen,
    ):
        screen.wait_for("130.0/269.0 MB")
        at_work = screen.text
        assert screen.wait_end() == 0
    return f"$ neuron load {MODEL} --host gpu1\n" + _trimmed(_without_speed(at_work)) + _trimmed(screen.text)


def _without_speed(text: str) -> str:
    return re.sub(r"MB +(\?|[\d.]+ [kMG]?B/s)$", "MB", text, flags=re.MULTILINE)


def _trimmed(text: str) -> str:
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())
