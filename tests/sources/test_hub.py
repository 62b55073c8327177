"""``hf:`` against a local stand-in for the hub."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuron.errors import EmptyRepo, NeuronError, NotFetched, QuantNotFound, RepoFetchFailed, UnsafeWeights
from neuron.files import Headers
from neuron.progress import Progress
from neuron.sources import headers
from neuron.sources.cache import cached, remove
from neuron.sources.fetch import fetch, is_cached, verify
from tests.support import fake_hub
from tests.support.fake_hub import FakeHub

WEIGHTS = os.urandom(300_000)
SIDE = {"config.json": b'{"model_type": "llama"}', "tokenizer.json": b"{}", "chat_template.jinja": b"hi"}
SINGLE = {**SIDE, "model.safetensors": WEIGHTS}
SHARDS = {f"model-0000{i}-of-00002.safetensors": WEIGHTS[:i] for i in (1, 2)}
INDEX = {
    "model.safetensors.index.json": json.dumps({"weight_map": dict(zip("ab", SHARDS, strict=True))}).encode()
}
ASIDE = {
    "consolidated.safetensors": b"x",
    "original/model.safetensors": b"x",
    "pytorch_model.bin": b"x",
    "README.md": b"x",
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    monkeypatch.setenv("NEURON_CACHE", str(tmp_path / "neuron"))
    with fake_hub.running() as running:
        fake_hub.use(running, monkeypatch, tmp_path / "hf")
        yield running


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up soon: no waits between the hub client's attempts."""
    from huggingface_hub import constants, file_download
    from huggingface_hub.utils import _http

    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.5)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 16384)
    monkeypatch.setattr(file_download.time, "sleep", lambda s: None)
    monkeypatch.setattr(_http.time, "sleep", lambda s: None)


def failure(text: str) -> NeuronError:
    with pytest.raises(NeuronError) as caught:
        fetch(text)
    return caught.value


def names(path: Path) -> set[str]:
    return {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}


def test_a_fetch_takes_only_what_a_model_needs_and_reports_bytes_over_all_files(hub: FakeHub) -> None:
    hub.repo("org/m", {**SINGLE, **ASIDE, **INDEX})
    seen: list[Progress] = []
    path = fetch("org/m", seen.append)
    assert names(path) == set(SINGLE)
    assert (path / "model.safetensors").read_bytes() == WEIGHTS
    fetched = [p for p in seen if p.stage == "fetch"]
    total = sum(map(len, SINGLE.values()))
    assert fetched[-1].done_bytes == total == fetched[-1].total_bytes
    assert [p.done_bytes for p in fetched] == sorted(p.done_bytes for p in fetched)
    assert len(fetched) > len(SINGLE)


def test_a_model_for_embedding_comes_with_what_describes_its_pooling(hub: FakeHub) -> None:
    described = {"modules.json": b"[]", "sentence_bert_config.json": b"{}", "1_Pooling/config.json": b"{}"}
    hub.repo("org/m", {**SINGLE, **described, "onnx/config.json": b"{}"})
    path = fetch("org/m")
    assert {n for n in described if (path / n).exists()} == set(described)
    assert not (path / "onnx").exists()


def test_shards_are_the_ones_that_the_index_names(hub: FakeHub) -> None:
    hub.repo("org/m", {**SIDE, **INDEX, **SHARDS, **ASIDE, "model-00009-of-00009.safetensors": b"stray"})
    assert names(fetch("hf:org/m")) == {*SIDE, *INDEX, *SHARDS}


def test_a_second_fetch_makes_no_request_and_a_new_commit_on_the_branch_changes_nothing(hub: FakeHub) -> None:
    hub.repo("org/m", SINGLE)
    first = fetch("org/m")
    hub.repo("org/m", {**SINGLE, "config.json": b'{"new": 1}'})
    hub.requests.clear()
    assert is_cached("org/m")
    assert fetch("org/m") == first
    assert hub.requests == []


def test_a_revision_is_fetched_for_itself_and_shares_the_files_that_are_equal(hub: FakeHub) -> None:
    old = hub.repo("org/m", SINGLE)
    hub.repo("org/m", {**SINGLE, "config.json": b'{"new": 1}'})
    assert (fetch("org/m") / "config.json").read_bytes() == b'{"new": 1}'
    hub.requests.clear()
    assert (fetch(f"org/m@{old}") / "config.json").read_bytes() == SINGLE["config.json"]
    assert not any(r.startswith("GET") and r.endswith("model.safetensors") for r in hub.requests)


def test_a_deleted_file_is_noticed_and_fetched_again(hub: FakeHub) -> None:
    hub.repo("org/m", SINGLE)
    weights = fetch("org/m") / "model.safetensors"
    weights.resolve().unlink()
    assert not is_cached("org/m")
    assert (fetch("org/m") / "model.safetensors").read_bytes() == WEIGHTS


def test_verify_finds_a_changed_byte(hub: FakeHub) -> None:
    hub.repo("org/m", SINGLE)
    weights = (fetch("org/m") / "model.safetensors").resolve()
    verify("org/m")
    weights.chmod(0o600)
    weights.write_bytes(b"\0" + WEIGHTS[1:])
    with pytest.raises(RepoFetchFailed, match=r"model\.safetensors: another SHA-256"):
        verify("org/m")


def test_one_gguf_of_several_is_named_by_quantisation_or_file(hub: FakeHub) -> None:
    hub.repo(
        "org/g",
        {"m-Q4_K_M.gguf": b"4", "m-Q8_0.gguf": b"8", "mmproj-f16.gguf": b"p", "sub/m-F16.gguf": b"16"},
    )
    assert fetch("org/g:q8_0").read_bytes() == b"8"
    assert fetch("hf:org/g/sub/m-F16.gguf@main").read_bytes() == b"16"
    error = failure("org/g")
    assert isinstance(error, QuantNotFound)
    assert "m-Q4_K_M.gguf" in error.message
    assert isinstance(failure("org/g:Q2_K"), QuantNotFound)
    assert fetch("org/g:Q4_K_M").name == "m-Q4_K_M.gguf"


def test_a_repository_with_one_gguf_needs_no_choice(hub: FakeHub) -> None:
    hub.repo("org/g", {"m.gguf": b"8", "README.md": b""})
    path = fetch("org/g")
    assert (path.name, is_cached("org/g")) == ("m.gguf", True)


@pytest.mark.parametrize(
    ("files", "kind", "says"),
    [
        ({**SIDE, "pytorch_model.bin": b"x"}, UnsafeWeights, "pytorch_model.bin"),
        ({**SIDE}, EmptyRepo, "no weights"),
        ({}, EmptyRepo, "no weights"),
        ({"model.safetensors": b"x"}, EmptyRepo, "without config.json"),
        ({**SIDE, "consolidated.safetensors": b"x"}, EmptyRepo, "no weights"),
        ({**SIDE, **INDEX}, RepoFetchFailed, "model-00001-of-00002.safetensors"),
        (
            {**SIDE, "model.safetensors.index.json": b'{"weight_map": {"a": "../x.safetensors"}}'},
            RepoFetchFailed,
            r"\.\./x",
        ),
        ({**SIDE, "model.safetensors.index.json": b'{"weight_map": 3}'}, RepoFetchFailed, "names no files"),
    ],
)
def test_a_repository_without_loadable_weights_is_refused_by_name(
    hub: FakeHub, files: dict[str, bytes], kind: type[NeuronError], says: str
) -> None:
    hub.repo("org/m", files)
    with pytest.raises(kind, match=says):
        fetch("org/m")
    assert not any("GET" in r and r.endswith(("tokenizer.json", ".bin")) for r in hub.requests)


@pytest.mark.parametrize(
    ("fail", "says", "hint"),
    [
        (fake_hub.GATED, "gated", "HF_TOKEN"),
        (fake_hub.NOT_FOUND, "no such repository", "./NAME"),
        (fake_hub.NO_REVISION, "no such revision", "after '@'"),
        (fake_hub.BAD_TOKEN, "wants a token", "HF_TOKEN"),
        ((401, {}), "wants a token", "HF_TOKEN"),
        ((403, {}), "forbidden", "HF_TOKEN"),
        ((429, {}), "limits the rate", "wait"),
        ((500, {}), "HTTP 500", "try again"),
        ((503, {}), "HTTP 503", "try again"),
        ((418, {}), "HTTP 418", "HF_ENDPOINT"),
        ((302, {"Location": "/api/models/org/m"}), "redirects without end", "HF_ENDPOINT"),
    ],
)
def test_each_failure_of_the_hub_has_its_message_and_its_hint(
    hub: FakeHub, fail: tuple[int, dict[str, str]], says: str, hint: str
) -> None:
    hub.repo("org/m", SINGLE)
    hub.fail = fail
    error = failure("org/m")
    assert isinstance(error, RepoFetchFailed)
    assert says in error.message
    assert hint in (error.hint or "")


def test_a_hub_that_refuses_connections_and_one_that_does_not_answer(hub: FakeHub, fast: None) -> None:
    from huggingface_hub import constants

    hub.sleep_s = 2
    assert "in time" in failure("org/m").message
    constants.ENDPOINT = "http://127.0.0.1:9"  # the fixture's monkeypatch puts it back
    assert "can't be reached" in failure("org/m").message


def test_offline_mode_asks_nobody_and_says_so(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    hub.repo("org/m", SINGLE)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    error = failure("org/m")
    assert "HF_HUB_OFFLINE" in error.message
    assert hub.requests == []


def test_what_another_program_left_in_the_cache_is_used_when_the_hub_is_down(hub: FakeHub) -> None:
    from huggingface_hub import constants, hf_hub_download

    hub.repo("org/m", SINGLE)
    for name in ("config.json", "tokenizer.json"):
        hf_hub_download("org/m", name, cache_dir=constants.HF_HUB_CACHE)
    hub.fail = (503, {})
    assert "HTTP 503" in failure("org/m").message, "a part of a model is not a model"
    hub.fail = None
    hf_hub_download("org/m", "model.safetensors", cache_dir=constants.HF_HUB_CACHE)
    hub.fail = (503, {})
    seen: list[Progress] = []
    assert (fetch("org/m", seen.append) / "model.safetensors").read_bytes() == WEIGHTS
    assert any("in the cache" in (p.note or "") and "503" in (p.note or "") for p in seen)
    hub.fail = fake_hub.GATED
    assert "gated" in failure("org/m").message


def test_a_connection_cut_in_the_middle_is_taken_up_where_it_broke(hub: FakeHub, fast: None) -> None:
    hub.repo("org/m", SINGLE)
    hub.cut_after_bytes = 100_000
    assert (fetch("org/m") / "model.safetensors").read_bytes() == WEIGHTS
    assert hub.ranges


def test_a_stalled_download_ends_with_words_and_is_not_present(hub: FakeHub, fast: None) -> None:
    hub.repo("org/m", SINGLE)
    hub.stall_after_bytes = 0
    assert "in time" in failure("org/m").message
    assert not is_cached("org/m")


def test_wrong_bytes_of_the_right_length_are_refused_and_removed(hub: FakeHub) -> None:
    hub.repo("org/m", SINGLE)
    hub.wrong_bytes = True
    assert "another hash" in failure("org/m").message
    assert not is_cached("org/m")
    hub.wrong_bytes = False
    assert (fetch("org/m") / "model.safetensors").read_bytes() == WEIGHTS


def test_the_token_is_sent(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repo("org/m", SINGLE)
    hub.token = "hf_secret"
    assert "gated" in failure("org/m").message
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch("org/m")
    assert set(hub.tokens) == {None, "hf_secret"}


def test_a_model_larger_than_the_disk_is_refused_before_its_first_byte(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repo("org/m", SINGLE)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("neuron.sources.manifest.shutil.disk_usage", lambda path: usage)
    error = failure("org/m")
    assert "not enough disk" in error.message
    assert not any("resolve" in request for request in hub.requests)


def test_a_cache_that_cannot_be_written_is_named(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    hub.repo("org/m", SINGLE)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/proc/no-such-folder")
    error = failure("org/m")
    assert isinstance(error, RepoFetchFailed)
    assert error.hint


def test_an_alias_goes_on_to_its_next_source_and_says_why(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(aliases(), "short", ("hf:org/gone", "hf:org/m"))
    hub.repo("org/m", SINGLE)
    seen: list[Progress] = []
    assert names(fetch("short", seen.append)) == set(SINGLE)
    assert any("no such repository" in (p.note or "") and "hf:org/m" in (p.note or "") for p in seen)
    hub.requests.clear()
    fetch("short")
    assert hub.requests == [], "the source that is here is taken before the one that is first"


def test_an_alias_without_any_source_names_the_cause_of_each(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(aliases(), "short", ("hf:org/gone", "hf:org/m@v9"))
    hub.repo("org/m", SINGLE)
    error = failure("short")
    assert "no such repository" in error.message
    assert "no such revision" in error.message


def test_an_alias_does_not_hide_a_repository_that_is_refused(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(aliases(), "short", ("hf:org/bad", "hf:org/m"))
    hub.repo("org/bad", {"pytorch_model.bin": b"x"})
    hub.repo("org/m", SINGLE)
    assert isinstance(failure("short"), UnsafeWeights)


def aliases() -> dict[str, tuple[str, ...]]:
    from neuron.sources.aliases import ALIASES

    return ALIASES


def test_kill_in_the_middle_of_a_download_leaves_nothing_that_looks_whole(
    hub: FakeHub, tmp_path: Path
) -> None:
    hub.repo("org/m", SINGLE)
    for bytes_per_s in (100_000, 400_000):
        hub.bytes_per_s = bytes_per_s
        hub.on_file.clear()
        child = start_fetch(hub, tmp_path)
        assert hub.on_file.wait(20)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not is_cached("org/m")
    hub.bytes_per_s = None
    path = fetch("org/m")
    assert (
        hashlib.sha256((path / "model.safetensors").read_bytes()).digest() == hashlib.sha256(WEIGHTS).digest()
    )
    blobs = path.parents[1] / "blobs"
    assert not list(blobs.glob("*.incomplete"))
    assert sum(p.stat().st_size for p in blobs.iterdir()) == sum(map(len, SINGLE.values()))


def start_fetch(hub: FakeHub, tmp_path: Path) -> subprocess.Popen[bytes]:
    env = {**os.environ, **hub.env(tmp_path / "hf")}
    return subprocess.Popen(
        [sys.executable, "-c", "from neuron.sources.fetch import fetch; fetch('org/m')"], env=env
    )


def test_a_fetched_repository_is_removed_with_the_hubs_own_means(hub: FakeHub) -> None:
    first = hub.repo("org/name", SINGLE)
    kept = hub.repo("org/name", {**SINGLE, "config.json": b'{"model_type": "qwen3"}'}, branch="dev")
    path, other = fetch(f"org/name@{first}"), fetch("org/name@dev")
    removed = remove(f"org/name@{first}")
    assert (path.exists(), other.name) == (False, kept)
    assert (other / "model.safetensors").read_bytes() == WEIGHTS  # a file that both commits have
    assert removed.freed_bytes == len(SINGLE["config.json"])
    assert [m.model for m in cached()] == ["hf:org/name@dev"]
    assert remove("org/name@dev").freed_bytes >= len(WEIGHTS)
    with pytest.raises(NotFetched):
        remove("org/name@dev")


def test_headers_are_read_from_afar_and_nothing_else_is_fetched(hub: FakeHub, tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save

    weights = save({"a": np.zeros((3, 500_000), np.float16)})
    hub.repo("org/name", {"config.json": b'{"model_type": "llama"}', "model.safetensors": weights})
    found = headers.find("org/name")
    assert isinstance(found, Headers)
    assert (found.config, dict(found.tensors)) == ({"model_type": "llama"}, {"a": ((3, 500_000), "F16")})
    assert not list((tmp_path / "hf").rglob("model.safetensors"))
    assert not is_cached("org/name")
    assert fetch("org/name") == headers.find("org/name")


def test_what_has_no_safetensors_must_be_fetched_before_it_is_looked_at(hub: FakeHub) -> None:
    hub.repo("org/gguf", {"model-Q4_0.gguf": b"GGUF"})
    for text in ("org/gguf", "org/gguf:Q4_0", "pypi:some-model"):
        with pytest.raises(RepoFetchFailed) as caught:
            headers.find(text)
        assert "neuron pull" in str(caught.value.hint)


def test_a_hub_that_fails_is_asked_for_headers_once(hub: FakeHub) -> None:
    hub.repo("org/name", {"config.json": b"{}"})
    hub.fail = (500, {})
    with pytest.raises(RepoFetchFailed):
        headers.find("org/name")
    assert len(hub.requests) == 1
