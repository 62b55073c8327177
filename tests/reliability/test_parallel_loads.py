"""Fifty clients that ask for the same model at once: its files are read once, and all of them are answered."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.reliability.faulty import ask, faulty, log_of
from tests.support.node_process import NodeProcess
from tests.support.node_server import eventually
from tests.support.scorecard import Scorecard

N_CLIENTS = 50
TOLD = [f"load:hang=0.05@{n}" for n in range(1, 300)]
"""The log tells of each tensor, and a load takes long enough for all of the clients to come."""
LOADED = (200, '{"status":"loaded"}')
LATE = (400, "already_loaded")


def read_bytes(running: NodeProcess) -> int:
    """What the process has read of files so far."""
    found = re.search(r"rchar: (\d+)", Path(f"/proc/{running.process.pid}/io").read_text())
    assert found
    return int(found[1])


def n_tensors(running: NodeProcess) -> int:
    return len(log_of(running, "fault injected"))


def test_50_parallel_loads_of_one_id_read_its_files_once(tiny_root: Path, scorecard: Scorecard) -> None:
    together: list[int] = []
    with faulty(tiny_root, ",".join(TOLD), loads=False) as running, httpx.Client(timeout=120) as client:

        def load(_: int) -> tuple[int, str]:
            body = {"model_id": str(tiny_root / "tiny")}
            answer = client.post(running.url + "/models/load", json=body)
            return (answer.status_code, answer.text if answer.is_success else answer.json()["code"])

        def passed(n_clients: int) -> tuple[int, int]:
            """Tensors and bytes that were read for so many who ask at once."""
            before_tensors, before_bytes = n_tensors(running), read_bytes(running)
            with ThreadPoolExecutor(n_clients) as pool:
                answers = list(pool.map(load, range(n_clients)))
            assert set(answers) <= {LOADED, LATE}
            together.append(answers.count(LOADED))
            read = read_bytes(running) - before_bytes
            eventually(
                lambda: len(log_of(running, "model loaded")) == len(log_of(running, "load started")), 20
            )
            return n_tensors(running) - before_tensors, read

        passed(1)  # the first imports what loads
        running.post("/models/unload", {"model_id": "tiny"})
        one_tensors, one_bytes = passed(1)
        running.post("/models/unload", {"model_id": "tiny"})
        tensors, n_bytes = passed(N_CLIENTS)
        assert ask(running).status_code == 200
        n_loads = len(log_of(running, "load started"))
    share = f"{tensors} of {one_tensors} tensors, {n_bytes / one_bytes:.2f} x the bytes of one load"
    figure = f"{together[-1]} of {N_CLIENTS} waited for one load: {share}"
    scorecard(26, figure, "1 pass over the files", (tensors, n_loads) == (one_tensors, 3))
    assert (tensors, n_loads) == (one_tensors, 3)
    assert n_bytes < 1.5 * one_bytes
