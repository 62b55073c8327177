"""Ids and paths that no request may name, at every endpoint that takes one: refused, and nothing is opened."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

from tests.sources.test_reference import ODD
from tests.support.field_cases import REQUESTS
from tests.support.node_process import NodeProcess, node
from tests.support.node_server import http, parsed, read_all
from tests.support.opened import Opened
from tests.support.scorecard import Scorecard
from tests.support.tiny_chat import save_tiny_chat

TARGET = 60
POSTS = {request.path: request.base for request in REQUESTS if "/drain" not in request.path}
GETS = {
    "/models/{}": "GET",
    "/models/{}/endpoint": "GET",
    "/v1/models/{}": "GET",
    "/requests/{}": "GET",
    "/v1/responses/{}": "GET",
    "/v1/responses/{}/input_items": "GET",
    "DELETE /v1/responses/{}": "DELETE",
}
OWN = tuple(
    {os.path.realpath(place) for place in (*sys.path, sys.prefix, sys.base_prefix, "/proc", "/sys") if place}
)
"""Where a program of Python reads in any case."""


class World(NamedTuple):
    """A node with one model root, and what lies around it."""

    node: NodeProcess
    opened: Opened
    folder: Path

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.node.url.rpartition(":")[2])

    @property
    def ids(self) -> list[str]:
        """Every id that is to be refused."""
        root, outside = self.folder / "root", self.folder / "outside"
        return [*ODD, *(text.format(root=root, outside=outside, up="../" * 12) for text in PATHS)]


PATHS = (
    "/etc/passwd",
    "/etc",
    "/",
    "//",
    "/dev/zero",
    "/dev/stdin",
    "/proc/self/environ",
    "/proc/self/fd/0",
    "/proc/self/root/etc/passwd",
    "path:/etc/passwd",
    "path:etc/passwd",
    "./etc/passwd",
    "../etc/passwd",
    "{up}etc/passwd",
    "./{up}etc/passwd",
    "~/.ssh/id_rsa",
    "~root/.bashrc",
    "~nobody-at-all/x",
    "{outside}",
    "{outside}/tiny",
    "{outside}/secret.gguf",
    "path:{outside}/tiny",
    "{root}/../outside/tiny",
    "{root}/tiny/../../outside/tiny",
    "{root}/./../outside/secret.gguf",
    "{root}/link",
    "{root}/link/config.json",
    "{root}/linked.gguf",
    "{root}/loop",
    "{root}/none",
    "{root}/pipe.gguf",
    "{root}-other/tiny",
    "{root}",
    "{root}/",
    "{root}/tiny/config.json",
    "{root}/tiny\x00/../../outside/tiny",
    "{root}/..",
    "./secret.gguf",
    "secret.gguf",
    "file://{outside}/secret.gguf",
    "load",
    "tiny/../tiny",
    "tiny%00",
    "tiny/",
    "TINY",
    "tiny\n",
    "tiny\u202e",
)
"""Places around the root, and spellings of the model's own id that are not its id."""
FORBIDDEN = ("/etc/passwd", "/etc/shadow", "/root/.ssh")
WITHOUT_ROOTS = (
    "import neuron.sources.fetch\nneuron.sources.fetch.check_model_root = lambda path, roots: None\n"
)
tried: set[tuple[str, str]] = set()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    for place in ("root", "outside", "root-other"):
        save_tiny_chat(folder / place / "tiny")
    (folder / "outside" / "secret.gguf").write_bytes(b"GGUF" + b"secret" * 100)
    (folder / "root" / "link").symlink_to(folder / "outside" / "tiny")
    (folder / "root" / "linked.gguf").symlink_to(folder / "outside" / "secret.gguf")
    (folder / "root" / "loop").symlink_to(folder / "root" / "loop")
    os.mkfifo(folder / "root" / "pipe.gguf")
    opened = Opened(folder / "hook")
    env = {**opened.env, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub")}
    env |= {"NEURON_CACHE": str(folder / "cache"), "NEURON_RESPONSE_STORE": str(folder / "store")}
    with node("--model-root", folder / "root", folder / "root" / "tiny", env=env) as running:
        running.wait_loaded("tiny")
        yield World(running, opened, folder)


def test_the_hook_tells_of_what_is_opened(world: World) -> None:
    world.opened.since()
    place = str(world.folder / "root" / "tiny")
    assert world.node.post("/models/plan", {"model_id": place}).status_code == 200
    assert f"{place}/config.json" in world.opened.since()


def test_without_the_check_of_roots_a_place_outside_is_opened(world: World, tmp_path: Path) -> None:
    opened = Opened(tmp_path / "hook", WITHOUT_ROOTS)
    place = str(world.folder / "outside" / "tiny")
    with node("--model-root", world.folder / "root", env=opened.env) as careless:
        assert careless.post("/models/plan", {"model_id": place}).status_code == 200
    assert [path for path in opened.since() if is_stray(world, path) and path.startswith(place)]


def ask(world: World, path: str, model_id: str) -> tuple[int, str]:
    """The endpoint with that id in its place: status and body. Nothing on the way makes the path any plainer."""
    method, target, content = "POST", path, b""
    if path in POSTS:
        key = "model_id" if path.startswith("/models/") else "model"
        content = json.dumps({**POSTS[path], "content": "hi", key: model_id}).encode()
    else:
        method, target = GETS[path], path.removeprefix("DELETE ").format(quote(model_id, safe="/"))
    with socket.create_connection(("127.0.0.1", world.port), timeout=30) as sock:
        sock.sendall(http(method, target, content, {"content-type": "application/json"}))
        status, _, answer = parsed(read_all(sock))
    return status, str(answer)


@pytest.mark.parametrize("path", [*GETS, *POSTS])
def test_no_such_id_is_taken_and_nothing_is_opened_for_it(world: World, path: str) -> None:
    world.opened.since()
    for model_id in world.ids:
        if path in GETS and model_id.strip("/ ") in ("", "tiny"):
            continue  # empty parts of a path count for nothing: the list, or the model itself
        status, answer = ask(world, path, model_id)
        assert 400 <= status < 500, (model_id, status, answer[:300])
        assert "secretsecret" not in answer, model_id
        strays = [place for place in world.opened.since() if is_stray(world, place)]
        assert strays == [], model_id
        tried.add((path, model_id))


def is_stray(world: World, place: str) -> bool:
    """Whether a place that was opened is none of the program's, the root's or the cache's."""
    real = os.path.realpath(place)
    kept = [str(world.folder / name) for name in ("root", "cache", "store", "hub")]
    inside = any(real == own or real.startswith(own + "/") for own in (*OWN, *kept))
    return not inside or real in FORBIDDEN or "/proc/self/root" in place


def test_afterwards_the_model_answers_and_enough_was_tried(world: World, scorecard: Scorecard) -> None:
    body: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
    assert world.node.post("/v1/chat/completions", body).status_code == 200
    assert [model["id"] for model in world.node.get("/models").json()] == ["tiny"]
    if len(tried) > 1000:
        ids = len({model_id for _, model_id in tried})
        figure = f"{ids} ids at {len(POSTS) + len(GETS)} endpoints: {len(tried)} requests, 0 opens outside"
        scorecard(35, figure, f">= {TARGET} x n, 0 opens outside the root", ids >= TARGET)
