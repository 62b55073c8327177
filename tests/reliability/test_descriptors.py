"""A node that may open 64 files and is connected to 200 times goes on, and is as before once they have left."""

from __future__ import annotations

import resource
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from tests.reliability.faulty import CHAT, ask, asked, faulty, log_of, text_of
from tests.support.node_process import NodeProcess
from tests.support.node_server import eventually
from tests.support.scorecard import Scorecard

LIMIT, CONNECTS = 64, 200
TOLD_A_SECOND = 1


@contextmanager
def crowd(running: NodeProcess) -> Iterator[None]:
    """Connections that say nothing."""
    address = ("127.0.0.1", int(running.url.rpartition(":")[2]))
    with ExitStack() as held:
        for _ in range(CONNECTS):
            held.enter_context(socket.create_connection(address, timeout=30))
        yield


def n_open(running: NodeProcess) -> int:
    return len(list(Path(f"/proc/{running.process.pid}/fd").iterdir()))


def test_200_connects_where_64_descriptors_are_cost_nobody_but_themselves(
    tiny_root: Path, tmp_path: Path, scorecard: Scorecard
) -> None:
    with (
        faulty(tiny_root, "", "--model-root", tmp_path) as running,
        httpx.Client(timeout=60, trust_env=False) as kept,
    ):
        other = {"model_id": str(shutil.copytree(tiny_root / "tiny", tmp_path / "other"))}
        golden, before = text_of(ask(running)), n_open(running)
        resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
        assert text_of(kept.post(running.url + CHAT, json=asked())) == golden
        began_s = time.monotonic()
        with crowd(running):
            eventually(lambda: bool(log_of(running, "connection not taken")), 30)
            assert text_of(kept.post(running.url + CHAT, json=asked())) == golden
            refused = kept.post(running.url + "/models/load", json=other)
            assert (refused.status_code, "Too many open files" in refused.text) == (422, True), refused.text
            assert kept.get(running.url + "/metrics").status_code == 200
            time.sleep(2)
        left_s = time.monotonic()
        assert text_of(ask(running)) == golden
        recovered_s = time.monotonic() - left_s
        lines, lasted_s = len(log_of(running, "connection not taken")), time.monotonic() - began_s
        assert lines <= TOLD_A_SECOND * lasted_s + 2, "each connection that waited was told of"
        assert kept.post(running.url + "/models/load", json=other).status_code == 200
        kept.close()
        eventually(lambda: n_open(running) <= before, 60)
        assert running.stop() == 0
    figure = f"{CONNECTS} connects, {lines} lines of log; an open one answered, a new one {recovered_s:.1f} s after"
    scorecard(29, figure, "recovers", True)
