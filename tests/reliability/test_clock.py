"""The clock on the wall jumps by a day in the middle of answers, and nothing but the dates of answers shows it.

A library between the node and the system moves that clock alone; the machine's own stays as it is.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.reliability.faulty import CHAT, ask, asked, faulty, log_of, text_of
from tests.support.node_process import NodeProcess
from tests.support.node_server import eventually
from tests.support.scorecard import Scorecard

DAY_S = 86_400
N = 60
TARGET = "no effect"
SHIM = r"""
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long moved_s(void) {
    long seconds = 0;
    FILE *file = fopen(MOVED, "r");
    if (file) {
        if (fscanf(file, "%ld", &seconds) != 1) seconds = 0;
        fclose(file);
    }
    return seconds;
}

int clock_gettime(clockid_t id, struct timespec *at) {
    int rc = syscall(SYS_clock_gettime, id, at);
    if (rc == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) at->tv_sec += moved_s();
    return rc;
}

int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""


class Clock:
    """What the processes with this environment read off the wall."""

    def __init__(self, folder: Path, compiler: str) -> None:
        self._moved = folder / "moved"
        library, source = folder / "clock.so", folder / "clock.c"
        source.write_text(SHIM)
        how = ["-shared", "-fPIC", f'-DMOVED="{self._moved}"']
        subprocess.run([compiler, *how, "-o", library, source], check=True)
        self.env = {"LD_PRELOAD": str(library)}

    def move(self, seconds: int) -> None:
        """Set it that far from the right time."""
        new = self._moved.with_suffix(".new")
        new.write_text(str(seconds))
        new.rename(self._moved)


@pytest.fixture
def clock(tmp_path: Path, scorecard: Scorecard) -> Clock:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        scorecard(28, "no C compiler here for what moves the clock", TARGET, "not run")
        pytest.skip("no C compiler")
    return Clock(tmp_path, compiler)


@pytest.fixture
def running(clock: Clock, tiny_root: Path) -> Iterator[NodeProcess]:
    """One place, short patience, and a step of the second answer that takes its time."""
    patience = ("--ttl-s", "600", "--queue-timeout-s", "60", "--stall-s", "30", "--hang-s", "60")
    with faulty(tiny_root, f"step:hang=5@{N + 9}", "--max-in-flight", "1", *patience, env=clock.env) as one:
        yield one


def stream(running: NodeProcess, begun: threading.Event, texts: list[str]) -> None:
    """One streamed answer, whose end is demanded."""
    events, body = [], asked(N, stream=True)
    with httpx.stream("POST", running.url + CHAT, json=body, timeout=120, trust_env=False) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                events.append(line.removeprefix("data: "))
                begun.set()
    assert events.pop() == "[DONE]"
    deltas = [choice["delta"] for event in events for choice in json.loads(event)["choices"]]
    texts.append("".join(delta.get("content") or "" for delta in deltas))


def date_error_s(answer: dict[str, Any]) -> float:
    """How far the date of an answer is from now."""
    return float(answer["created"]) - time.time()


@pytest.mark.parametrize("by_s", [DAY_S, -DAY_S], ids=["forward", "back"])
def test_a_clock_that_jumps_changes_nothing_but_dates(
    clock: Clock, running: NodeProcess, by_s: int, scorecard: Scorecard
) -> None:
    golden, begun, texts = text_of(ask(running, N)), threading.Event(), list[str]()
    reading = threading.Thread(target=stream, args=(running, begun, texts))
    waiting: list[httpx.Response] = []
    queued = threading.Thread(target=lambda: waiting.append(ask(running, N)))
    reading.start()
    assert begun.wait(60)
    queued.start()
    eventually(lambda: running.get("/health").json()["models"][0]["queue_depth"] == 1, 60)
    clock.move(by_s)
    for thread in (reading, queued):
        thread.join(120)
    assert texts == [golden]
    assert text_of(waiting[0]) == golden
    after = ask(running, N)
    assert text_of(after) == golden
    assert abs(date_error_s(after.json()) - by_s) < 600, "the clock did not move"
    assert running.get("/health").status_code == 200
    assert running.get("/models/tiny").json()["status"] == "loaded"
    generations = log_of(running, "generation")
    assert [line["finish"] for line in generations] == ["length"] * 4
    assert all(0 <= line["total_ms"] < 600_000 for line in generations)
    assert running.stop() == 0
    way = "forward" if by_s > 0 else "back"
    figure = f"{way}: what was streamed, what waited and what came later whole, no time-out, nothing unloaded"
    scorecard(28, figure, TARGET, True)
