"""A stand-in for the model hub: a real HTTP server in a thread, with what `huggingface_hub` asks of the real one.

Repositories are dicts of name to bytes. It can fail on purpose: see `FakeHub.fail` and the flags of `FakeHub`.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

LFS_SUFFIXES = (".safetensors", ".gguf", ".bin")
MAX_SLEEP_S = 30.0


@dataclass
class Repository:
    """One repository: commits by hash, branches and tags by name."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """A new state of ``branch``; returns its hash."""
        text = branch.encode() + b"".join(n.encode() + c for n, c in sorted(files.items()))
        sha = hashlib.sha1(text).hexdigest()
        self.commits[sha] = files
        self.refs[branch] = sha
        return sha

    def find(self, revision: str) -> str | None:
        """The commit behind a branch, tag or hash."""
        return revision if revision in self.commits else self.refs.get(revision)


@dataclass
class FakeHub:
    """The state of the server; tests change it between requests."""

    endpoint: str = ""
    repos: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    """``METHOD /path`` of each."""
    tokens: list[str | None] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    fail: tuple[int, dict[str, str]] | None = None
    """Status and headers for every answer."""
    token: str | None = None
    """The one that is asked for; anything else gets 401."""
    cut_after_bytes: int | None = None
    """Close the connection in the middle of a file, once."""
    stall_after_bytes: int | None = None
    bytes_per_s: int | None = None
    wrong_bytes: bool = False
    """Send other bytes than the hash says, as many."""
    wrong_length: bool = False
    """Send half of the bytes that are listed, and say that this is all."""
    files_elsewhere: str = ""
    """Where weights are, by a redirect: another endpoint."""
    sleep_s: float = 0.0
    """Wait before each answer."""
    on_file: threading.Event = field(default_factory=threading.Event)
    """Set when the first bytes of a large file went out."""
    stalled: threading.Event = field(default_factory=threading.Event)
    """Set when `stall_after_bytes` of a file went out."""
    stop: threading.Event = field(default_factory=threading.Event)

    def repo(self, name: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Create or extend a repository; returns the commit."""
        return self.repos.setdefault(name, Repository()).commit(files, branch)

    def env(self, home: Path) -> dict[str, str]:
        """Environment for a process that uses this hub and nothing else."""
        return {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}


GATED = (403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to this repository is restricted"})
NOT_FOUND = (404, {"X-Error-Code": "RepoNotFound"})
NO_REVISION = (404, {"X-Error-Code": "RevisionNotFound"})
NO_ENTRY = (404, {"X-Error-Code": "EntryNotFound"})
BAD_TOKEN = (401, {"X-Error-Message": "Invalid credentials in Authorization header"})


@contextmanager
def running(host: str = "127.0.0.1") -> Iterator[FakeHub]:
    """A hub on a free port of loopback."""
    hub = FakeHub()
    server = ThreadingHTTPServer((host, 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.endpoint = f"http://{host}:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.stop.set()
        server.shutdown()
        server.server_close()
        thread.join()


def use(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Point `huggingface_hub` in this process at the hub; it read its environment when it was imported."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def handle(self) -> None:
        try:
            super().handle()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, with_body: bool) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.requests.append(f"{self.command} {path}")
        token = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        hub.tokens.append(token)
        hub.stop.wait(min(hub.sleep_s, MAX_SLEEP_S))
        if hub.fail:
            self._refuse(*hub.fail)
        elif hub.token and token != hub.token:
            self._refuse(*(BAD_TOKEN if token else GATED))
        elif found := re.fullmatch(r"/api/models/(.+?)(?:/revision/(.+))?", path):
            self._info(found[1], found[2] or "main")
        elif found := re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", path):
            self._file(found[1], found[2], found[3], with_body)
        else:
            self._refuse(*NOT_FOUND)

    def _info(self, name: str, revision: str) -> None:
        repo = self.hub.repos.get(name)
        commit = repo.find(revision) if repo else None
        if repo is None or commit is None:
            self._refuse(*(NO_REVISION if repo else NOT_FOUND))
            return
        siblings = [_listed(name, content) for name, content in repo.commits[commit].items()]
        body = json.dumps({"id": name, "modelId": name, "sha": commit, "siblings": siblings}).encode()
        self._send(200, {"Content-Type": "application/json"}, body)

    def _file(self, name: str, revision: str, path: str, with_body: bool) -> None:
        repo = self.hub.repos.get(name)
        commit = repo.find(revision) if repo else None
        content = repo.commits[commit].get(path) if repo and commit else None
        if content is None or commit is None:
            self._refuse(*(NO_ENTRY if repo else NOT_FOUND))
            return
        headers = {"ETag": f'"{_etag(path, content)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        start, status = 0, 200
        if found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            self.hub.ranges.append(self.headers["Range"])
            start, status = int(found[1]), 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        large = path.endswith(LFS_SUFFIXES)
        if self.hub.files_elsewhere and large:
            linked = {"Location": self.hub.files_elsewhere + self.path, "X-Linked-Etag": headers["ETag"]}
            self._refuse(302, {**headers, **linked, "X-Linked-Size": str(len(content))})
            return
        if self.hub.wrong_bytes and large:
            content = bytes(len(content))
        if self.hub.wrong_length and large:
            content = content[: len(content) // 2]
        self._send(status, headers, content[start:], with_body)

    def _refuse(self, status: int, headers: dict[str, str]) -> None:
        self._send(status, headers, b"{}", self.command == "GET")

    def _send(self, status: int, headers: dict[str, str], body: bytes, with_body: bool = True) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if with_body:
            self._write(body)

    def _write(self, body: bytes) -> None:
        """In pieces, as slow and as far as the hub is told to."""
        hub, step = self.hub, 4096 if self.hub.bytes_per_s else 65536
        large = len(body) > 4096
        for at in range(0, len(body), step):
            if large and hub.cut_after_bytes is not None and at >= hub.cut_after_bytes:
                hub.cut_after_bytes = None
                self.close_connection = True
                return
            if large and hub.stall_after_bytes is not None and at >= hub.stall_after_bytes:
                hub.stalled.set()
                hub.stop.wait(MAX_SLEEP_S)
                self.close_connection = True
                return
            self.wfile.write(body[at : at + step])
            if large and at:
                hub.on_file.set()
            if hub.bytes_per_s and large:
                time.sleep(step / hub.bytes_per_s)


def _listed(name: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": _git_sha1(content)}
    if name.endswith(LFS_SUFFIXES):
        sha = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"size": len(content), "sha256": sha, "pointerSize": 130}
    return entry


def _etag(name: str, content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if name.endswith(LFS_SUFFIXES) else _git_sha1(content)


def _git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
