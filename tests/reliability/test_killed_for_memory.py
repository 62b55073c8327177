"""A node that the kernel kills, since its control group has no memory left, is itself again after its supervisor's
restart."""

from __future__ import annotations

import json
import math
import signal
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.reliability.faulty import CHAT, asked
from tests.support.control_group import MemoryGroup, memory_group
from tests.support.node_process import NEURON
from tests.support.scorecard import Scorecard
from tests.support.supervisor import Service, service
from tests.support.tiny_chat import save_tiny_chat
from tests.support.tiny_models import VOCAB

TARGET, TARGET_S = "ready again <= 10 s", 10
LIMIT_BYTES = 700 << 20
LARGE_VOCAB = 2_000_000
HEADER_LENGTH = struct.Struct("<Q")


def save_large(folder: Path) -> None:
    """A model whose embeddings alone are larger than the limit; the file is a hole behind its header."""
    save_tiny_chat(folder)
    path = folder / "model.safetensors"
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + HEADER_LENGTH.unpack(content[:8])[0]])
    end = 0
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        tensor["shape"] = [LARGE_VOCAB if n == VOCAB else n for n in tensor["shape"]]
        tensor["data_offsets"] = [end, end := end + 4 * math.prod(tensor["shape"])]
    text = json.dumps(header).encode()
    path.write_bytes(HEADER_LENGTH.pack(len(text)) + text)
    with path.open("r+b") as file:
        file.truncate(8 + len(text) + end)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": LARGE_VOCAB}))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model root with ``tiny`` and ``large``."""
    folder = tmp_path_factory.mktemp("models")
    save_tiny_chat(folder / "tiny")
    save_large(folder / "large")
    return folder


@contextmanager
def started(root: Path, group: MemoryGroup | None) -> Iterator[Service]:
    """What a supervisor starts, first and again."""
    command = [*NEURON, "serve", "--port", "0", "--threads", "1", "--kv-budget-mb", "8"]
    command += ["--model-root", str(root), str(root / "tiny")]
    with service(command=group.command(command) if group else command) as running:
        yield running


def answer(running: Service) -> str:
    """The text of an answer, once the model is there."""
    running.await_event("model loaded", within_s=60)
    said = httpx.post(running.url + CHAT, json=asked(12), timeout=60, trust_env=False)
    assert said.status_code == 200, said.text
    text: str = said.json()["choices"][0]["message"]["content"]
    return text


def load(running: Service, large: Path, **said: object) -> httpx.Response:
    body = {"model_id": str(large), **said}
    return httpx.post(running.url + "/models/load", json=body, timeout=120, trust_env=False)


def again(root: Path, group: MemoryGroup | None, text: str) -> float:
    """Seconds from the start of another process to the same answer."""
    began_s = time.monotonic()
    with started(root, group) as second:
        assert answer(second) == text
        took_s = time.monotonic() - began_s
        second.popen.terminate()
        assert second.popen.wait(60) == 0
    return took_s


@pytest.fixture
def group(scorecard: Scorecard) -> Iterator[MemoryGroup]:
    with ExitStack() as stack:
        try:
            made = stack.enter_context(memory_group())
        except OSError as e:
            scorecard(20, f"no memory cgroup can be made here ({e.strerror})", TARGET, "not run")
            pytest.skip(f"needs a memory cgroup: {e}")
        yield made


def test_a_node_that_its_memory_cgroup_kills_is_itself_again_after_a_restart(
    root: Path, group: MemoryGroup, scorecard: Scorecard
) -> None:
    group.limit(LIMIT_BYTES)
    with started(root, group) as first:
        text = answer(first)
        refused = load(first, root / "large")
        assert (refused.status_code, refused.json()["error"]["kind"]) == (422, "insufficient_memory")
        with pytest.raises(httpx.TransportError):
            load(first, root / "large", force=True)
        assert first.popen.wait(60) == -signal.SIGKILL
        assert group.n_killed() == 1
    took_s = again(root, group, text)
    figure = (
        f"killed by a cgroup of {LIMIT_BYTES >> 20} MB in a forced load: the same answer {took_s:.1f} s after"
    )
    scorecard(20, figure, TARGET, took_s <= TARGET_S)


def test_a_node_that_is_killed_at_work_is_itself_again_after_a_restart(
    root: Path, scorecard: Scorecard
) -> None:
    with started(root, None) as first:
        text = answer(first)
        body = asked(200, stream=True)
        with httpx.stream("POST", first.url + CHAT, json=body, timeout=60, trust_env=False) as streaming:
            next(streaming.iter_bytes())
            first.popen.kill()
            assert first.popen.wait(60) == -signal.SIGKILL
    took_s = again(root, None, text)
    scorecard(20, f"killed with SIGKILL in an answer: {took_s:.1f} s after", TARGET, took_s <= TARGET_S)
