"""SIGKILL in a download, a load, a generation: the next start finds nothing in its way, and nothing half done."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.reliability.faulty import CHAT, ask, asked, faulty, log_of, text_of
from tests.support import fake_hub
from tests.support.fake_hub import FakeHub
from tests.support.node_process import NEURON, NodeProcess, clean_env
from tests.support.node_server import eventually
from tests.support.scorecard import Scorecard

N_OFFSETS = 10
CHUNK = 10 << 20
"""What the hub's library collects before it writes."""
WEIGHTS = os.urandom(5 * CHUNK)
FILES = {"config.json": b"{}", "tokenizer.json": b"[]", "model.safetensors": WEIGHTS}
SIZE = sum(map(len, FILES.values()))


# ---- row 15


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with fake_hub.running() as running:
        running.repo("org/m", FILES)
        yield running


def pull(hub: FakeHub, folder: Path) -> subprocess.Popen[str]:
    """The command that fetches the model, in a process of its own."""
    env = clean_env({**hub.env(folder / "hub"), "NEURON_CACHE": str(folder / "cache")})
    return subprocess.Popen(
        [*NEURON, "pull", "org/m"], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def on_disk(folder: Path) -> int:
    """Bytes of all files, each counted once."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def killed_at(hub: FakeHub, folder: Path, offset: int) -> None:
    """Kill a download once so many bytes of the weights came, and what it could write of them is on disk."""
    hub.stalled.clear()
    hub.stall_after_bytes = offset
    child = pull(hub, folder)
    assert hub.stalled.wait(60)
    eventually(lambda: on_disk(folder) >= offset // CHUNK * CHUNK, 60)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    hub.stall_after_bytes = None


def test_a_download_that_was_killed_is_fetched_whole_and_takes_no_more_room(
    hub: FakeHub, tmp_path: Path, scorecard: Scorecard
) -> None:
    shares = []
    for n in range(N_OFFSETS):
        killed_at(hub, tmp_path, len(WEIGHTS) * n // N_OFFSETS)
        shares.append(on_disk(tmp_path) / SIZE)  # with what the kills before left, if that were not removed
        assert not list(tmp_path.rglob("manifests/*.json")), "it counts as fetched"
        if n in (4, 9):
            shares.append(fetched_share(hub, tmp_path))
            shutil.rmtree(tmp_path / "hub")
            shutil.rmtree(tmp_path / "cache")
    figure = f"{N_OFFSETS} kills, then right sha and {max(shares):.2f} x the disk"
    scorecard(15, figure, "right sha, <= 1.05 x disk", max(shares) <= 1.05)
    assert max(shares) <= 1.05


def fetched_share(hub: FakeHub, folder: Path) -> float:
    """Fetch the model; what the disk holds then, in parts of its size."""
    child = pull(hub, folder)
    path = Path(child.communicate(timeout=120)[0].strip())
    assert child.returncode == 0
    for name, content in FILES.items():
        assert hashlib.sha256((path / name).read_bytes()).digest() == hashlib.sha256(content).digest()
    assert not list(folder.rglob("*.incomplete"))
    return on_disk(folder) / SIZE


# ---- row 16


@pytest.fixture
def port() -> int:
    """One that was free a moment ago, to be taken again and again."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def kill(running: NodeProcess) -> None:
    running.process.send_signal(signal.SIGKILL)
    assert running.process.wait(30) == -signal.SIGKILL


def writing(running: NodeProcess, started: threading.Event) -> None:
    """A stream that is kept by the node, until it breaks."""
    body = asked(200, stream=True)
    try:
        with httpx.stream("POST", running.url + CHAT, json=body, timeout=60, trust_env=False) as answer:
            for _ in answer.iter_lines():
                started.set()
    except httpx.HTTPError:
        pass


def test_a_node_that_was_killed_starts_again_at_the_same_place(
    tiny_root: Path, tmp_path: Path, port: int, scorecard: Scorecard
) -> None:
    args = ("--port", str(port), "--response-store", str(tmp_path / "store"))
    env = {"NEURON_CACHE": str(tmp_path / "cache"), "NEURON_STATE": str(tmp_path / "state")}
    with faulty(tiny_root, "load:hang=60@20", *args, loads=False, env=env) as running:
        load = threading.Thread(target=loading, args=(running, tiny_root))
        load.start()
        eventually(lambda: bool(log_of(running, "fault injected")), 60)
        kill(running)
        load.join()
    slow = ",".join(f"step:hang=0.05@{n}" for n in range(8, 200))
    with faulty(tiny_root, slow, *args, env=env) as running:
        golden, started = text_of(ask(running)), threading.Event()
        stream = threading.Thread(target=writing, args=(running, started))
        stream.start()
        assert started.wait(60)
        kill(running)
        stream.join()
    with faulty(tiny_root, "", *args, env=env) as running:
        assert running.get("/ready").status_code == 200
        assert text_of(ask(running)) == golden
        assert running.stop() == 0
    figure = "killed in a load and in a generation: ready at the same port, the same tokens"
    scorecard(16, figure, "ready, no stale lock", True)


def loading(running: NodeProcess, root: Path) -> None:
    with pytest.raises(httpx.HTTPError):
        running.post("/models/load", {"model_id": str(root / "tiny")})
