"""A disk that is full: a fetch is refused or ends in words, a log loses whole lines, and the node goes on."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.reliability.faulty import ask, faulty, text_of
from tests.support import fake_hub
from tests.support.fake_hub import FakeHub
from tests.support.node_process import NEURON, NodeProcess, clean_env
from tests.support.node_server import eventually
from tests.support.scorecard import Scorecard
from tests.support.scrape import Scrape
from tests.support.tiny_chat import save_tiny_chat
from tests.support.tiny_models import CASES

DISK_MB = 16
TARGET = "507 (the wire contract: 422) / dropped-log counter"
FULL = "No space left on device"


@pytest.fixture
def disk(tmp_path: Path, scorecard: Scorecard) -> Iterator[Path]:
    """A disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "none", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        scorecard(17, "no disk of its own can be mounted here", TARGET, "not run")
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A repository with a model of 6 MB."""
    folder = tmp_path_factory.mktemp("wide")
    save_tiny_chat(folder, replace(CASES[0], values={"intermediate_size": 1792}))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@contextlib.contextmanager
def filled(disk: Path, but_bytes: int = 0) -> Iterator[None]:
    """All of the disk is taken, but for so much."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    if but_bytes:
        with filler.open("ab") as file:
            file.truncate(filler.stat().st_size - but_bytes)
    yield
    filler.unlink()


@contextlib.contextmanager
def fetching(tiny_root: Path, tmp_path: Path, **places: Path) -> Iterator[tuple[NodeProcess, FakeHub]]:
    """A node that has one model and may fetch another; where it keeps what it fetches."""
    with fake_hub.running() as hub:
        at = {"NEURON_CACHE": tmp_path / "cache", "HF_HOME": tmp_path / "hub", **places}
        env = {**hub.env(tmp_path), **{key: str(place) for key, place in at.items()}}
        with faulty(tiny_root, "", env=env) as running:
            yield running, hub


def load(running: NodeProcess) -> httpx.Response:
    return running.post("/models/load", {"model_id": "org/wide"})


def refusal(answer: httpx.Response) -> str:
    """The words of a fetch that was refused."""
    assert answer.status_code == 422, answer.text
    error: dict[str, str] = answer.json()["error"]
    assert error["kind"] == "repo_fetch_failed"
    assert error["suggestion"]
    return error["message"]


def test_a_fetch_that_a_disk_has_no_room_for(
    disk: Path, tiny_root: Path, tmp_path: Path, files: dict[str, bytes], scorecard: Scorecard
) -> None:
    with fetching(tiny_root, tmp_path, HF_HOME=disk / "hf") as (running, hub):
        hub.repo("org/wide", files)
        golden = text_of(ask(running))
        with filled(disk, 4 << 20):
            assert "not enough disk" in refusal(load(running)), "before its first byte"
        hub.bytes_per_s = 400_000
        answers: list[httpx.Response] = []
        loading = threading.Thread(target=lambda: answers.append(load(running)))
        loading.start()
        assert hub.on_file.wait(60)
        with filled(disk):
            hub.bytes_per_s = 1 << 40
            loading.join(120)
            assert FULL in refusal(answers[0]), "in its middle"
            assert not list(disk.rglob("*.incomplete"))
            assert text_of(ask(running)) == golden
        assert load(running).json() == {"status": "loaded"}
        assert running.get("/health").status_code == 200
    scorecard(17, "fetch: 422 before the first byte and in the middle, then loaded", TARGET, True)


def test_a_cache_whose_account_has_no_room(
    disk: Path, tiny_root: Path, tmp_path: Path, files: dict[str, bytes], scorecard: Scorecard
) -> None:
    with fetching(tiny_root, tmp_path, NEURON_CACHE=disk / "cache") as (running, hub):
        hub.repo("org/wide", files)
        with filled(disk):
            assert FULL in refusal(load(running))
            assert not list(disk.rglob("manifests/*"))
            assert ask(running).status_code == 200
        assert load(running).json() == {"status": "loaded"}
    scorecard(17, "cache: 422, then loaded", TARGET, True)


@contextlib.contextmanager
def logging_to(path: Path) -> Iterator[httpx.Client]:
    """A node whose log is a file."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    env = clean_env({"NEURON_HARNESSES": ",", "NEURON_LOG_FORMAT": "json"})
    with path.open("wb") as log:
        popen = subprocess.Popen([*NEURON, "serve", "--port", url.rpartition(":")[2]], stderr=log, env=env)
    try:
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
            eventually(lambda: answers(client), 60)
            yield client
        popen.terminate()
        assert popen.wait(30) == 0
    finally:
        popen.kill()
        popen.wait()


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def refused(client: httpx.Client, n: int) -> None:
    """Requests of which each is a line of the log."""
    for _ in range(n):
        assert client.get("/nowhere", headers={"host": "x.invalid"}).status_code == 403


def dropped(client: httpx.Client) -> float:
    return Scrape(client.get("/metrics").text).total("neuron_log_lines_dropped_total")


def test_a_log_that_has_no_room(disk: Path, scorecard: Scorecard) -> None:
    with logging_to(disk / "log") as client:
        refused(client, 10)
        eventually(lambda: len(lines_of(disk / "log")) == 10, 20)
        with filled(disk):
            refused(client, 100)
            eventually(lambda: dropped(client) > 50, 20)
        refused(client, 10)
        eventually(lambda: len(lines_of(disk / "log")) + dropped(client) == 120, 20)
        n_dropped = dropped(client)
    assert (disk / "log").read_bytes().endswith(b"\n")
    told = [line["lines"] for line in lines_of(disk / "log", "log lines dropped")]
    assert sum(told) == n_dropped
    written = len(lines_of(disk / "log"))
    figure = f"log: {n_dropped:.0f} lines counted as dropped, {written} whole, of 120"
    scorecard(17, figure, TARGET, written + n_dropped == 120)


def lines_of(path: Path, event: str = "refused") -> list[dict[str, Any]]:
    """Lines of one event; all must be whole, but one that is being written."""
    found = [json.loads(line) for line in path.read_bytes().rpartition(b"\n")[0].splitlines()]
    return [line for line in found if line["event"] == event]
