"""Every named hostile file through a real node: refused in one line, soon and cheaply, or loaded without harm."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.hostile import configs, ggufs, templates, tokenizers, weights
from tests.reliability.hostile.case import SENTINEL, Case, Cases
from tests.support.gguf_files import write_gguf
from tests.support.node_process import NodeProcess, node
from tests.support.scorecard import Scorecard
from tests.support.tiny_chat import save_tiny_chat
from tests.support.tiny_models import Case as Model

CASES: Cases = {
    **weights.CASES,
    **configs.CASES,
    **tokenizers.CASES,
    **templates.CASES,
    **ggufs.CASES,
}
LOAD_S = 90.0
"""Past it a load counts as hung; the slowest takes 2 s of its own, on a machine that may be busy."""
FLOOR_MB = 192
"""Memory that a refusal may take whatever the file's size: a template may make 32 million characters."""
refusals = {"named": 0, "refused": 0, "loaded": 0}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good model, to copy."""
    folder = tmp_path_factory.mktemp("good") / "model"
    save_tiny_chat(folder, Model("tiny", "LlamaConfig", {"num_hidden_layers": 1}))
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the node may load from."""
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def running(root: Path, good: Path) -> Iterator[NodeProcess]:
    """A node that has the good model loaded."""
    shutil.copytree(good, root / "survivor")
    with node(root / "survivor", "--model-root", root, "--context", "64") as started:
        started.wait_loaded("survivor")
        yield started


def answer_of(running: NodeProcess) -> str:
    """What the good model says."""
    messages = [{"role": "user", "content": "Hi"}]
    body = {"model": "survivor", "messages": messages, "max_tokens": 8, "temperature": 0}
    done = running.post("/v1/chat/completions", body)
    assert done.status_code == 200, done.text
    return str(done.json()["choices"][0]["message"]["content"])


@pytest.fixture(scope="module")
def golden(running: NodeProcess) -> str:
    """The same before anything hostile came."""
    return answer_of(running)


def file_mb(path: Path) -> int:
    """Size of what is loaded."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file() and not p.is_symlink()]
    return sum(p.stat().st_size for p in files) >> 20


def forget_peak(running: NodeProcess) -> int:
    """Begin to count the node's peak memory anew; MB in use now."""
    Path(f"/proc/{running.process.pid}/clear_refs").write_text("5")
    return running.rss_mb()


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_file_is_refused_by_name_or_does_no_harm(
    name: str, running: NodeProcess, golden: str, root: Path, good: Path
) -> None:
    case, folder = CASES[name], root / "case"
    shutil.copytree(good, folder)
    path = case.spoil(folder) or folder
    try:
        before_mb, began_s = forget_peak(running), time.monotonic()
        answer = running.post("/models/load", {"model_id": str(path)})
        assert time.monotonic() - began_s < LOAD_S
        assert running.peak_rss_mb() - before_mb < max(2 * file_mb(path), FLOOR_MB)
        check_answer(case, answer.status_code, answer.json())
        assert not (root / SENTINEL).exists()
        assert answer_of(running) == golden
    finally:
        running.post("/models/unload", {"model_id": path.stem})
        shutil.rmtree(folder)
    refusals["named"] += 1
    refusals["loaded" if case.code is None else "refused"] += 1


def check_answer(case: Case, status: int, body: dict[str, Any]) -> None:
    """The right refusal, in one printable line without a traceback; or a loaded model."""
    if case.code is None:
        assert (status, body) == (200, {"status": "loaded"})
        return
    error = body["error"]
    code, told = (body["code"], error) if isinstance(error, str) else (error["kind"], json.dumps(error))
    assert (code, case.words in told) == (case.code, True), body
    assert status in (400, 422)
    assert not re.search(r"Traceback|[\x00-\x1f\x7f-\x9f\u202a-\u202e]", told), told
    assert len(told) < 3000


def test_failed_loads_leave_no_file_open_and_no_memory(running: NodeProcess, root: Path, good: Path) -> None:
    folder = Path(shutil.copytree(good, root / "again"))
    (folder / "tokenizer.json").write_text("{}")
    write_gguf(folder / "no-vocabulary.gguf", folder)
    for path in (folder, folder / "no-vocabulary.gguf"):
        refuse(running, path, 3)
        open_before, before_mb = open_files(running, root), running.rss_mb()
        refuse(running, path, 10)
        assert open_files(running, root) == open_before
        assert running.rss_mb() <= before_mb * 1.05


def refuse(running: NodeProcess, path: Path, times: int) -> None:
    """A load that fails behind the weights' headers, several times."""
    for _ in range(times):
        assert running.post("/models/load", {"model_id": str(path)}).status_code == 400


def open_files(running: NodeProcess, root: Path) -> list[str]:
    """What the node holds open below ``root``."""
    links = []
    for path in Path(f"/proc/{running.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile, as connections are
            links.append(os.readlink(path))
    return [link for link in links if link.startswith(str(root))]


def test_there_are_at_least_150_and_the_node_has_lost_nothing(
    running: NodeProcess, golden: str, scorecard: Scorecard
) -> None:
    log = [line for line in running.log if "Traceback" in line]
    assert not log
    assert running.process.poll() is None
    assert answer_of(running) == golden
    injections = [name for name in CASES if "injection" in name]
    bombs = [name for name in CASES if "bomb" in name]
    assert (len(CASES) >= 150, len(injections) >= 9, len(bombs) >= 10) == (True, True, True)
    if refusals["named"] == len(CASES):
        figure = f"{len(CASES)} named: {refusals['refused']} refused by name, {refusals['loaded']} harmless"
        scorecard(31, figure, ">= 150 named, 0 crashes, 0 answers of 5xx, memory < 2 x file", True)
