"""``neuron bench`` against a real server with a scripted engine, and against servers of others."""

import json
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from neuron.bench.answer import Answer
from neuron.bench.prompts import words_for
from neuron.bench.report import level, spread
from neuron.errors import NodeAnsweredError, QueueFull, StreamCut
from neuron.settings import Settings
from tests.support.callers import RING
from tests.support.cli import PROGRAM, environment, free_port, neuron
from tests.support.fake_engine import FakeEngine, Script
from tests.support.node_server import NodeServer, eventually, node_server
from tests.support.scripted_http import answer, scripted_server, stream

SMALL = ("--concurrency", "1,2", "--requests", "4", "--max-tokens", "8", "--warmup", "0")


def sse(*texts: str) -> bytes:
    """A foreign stream with the least that the format demands."""
    chunks = [f'data: {{"choices":[{{"delta":{{"content":"{text}"}}}}]}}\n\n' for text in texts]
    chunks.append('data: {"choices":[{"delta":{},"finish_reason":"length"}],"usage":null}\n\n')
    return stream(*chunks, "data: [DONE]\n\n")


def test_what_a_node_did_is_counted_and_timed() -> None:
    with node_server(FakeEngine(Script(texts=["a"] * 5, step_s=0.02))) as node:
        report = json.loads(neuron("bench", *SMALL, "--json", "--host", node.url).stdout)
        assert len(node.engine.streams) >= 8
        asked = node.engine.streams[-1].generation
    assert (report["model"], report["url"]) == ("org/tiny", f"{node.url}/v1")
    assert asked.max_tokens == 8
    for n, found in zip((1, 2), report["levels"], strict=True):
        assert (found["concurrency"], found["completed"], found["failed"]) == (n, 4, 0)
        assert (found["prompt_tokens"], found["completion_tokens"], found["tokens_from"]) == (7, 20, "usage")
        assert 20 <= found["inter_token_ms"]["p50"] < 60
        assert 20 <= found["first_token_ms"]["p50"] < found["total_ms"]["p50"]
        assert found["tokens_per_second_each"]["p50"] < 50
        assert found["inter_token_ms"]["p99"] is None
    one, two = report["levels"]
    assert two["tokens_per_second"] > 1.3 * one["tokens_per_second"]


def test_a_table_and_bars_without_escapes(node: NodeServer) -> None:
    done = neuron("bench", "org/tiny", *SMALL, "--host", node.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert done.stdout.isascii()
    assert re.search(r"^2 at once  #+ +[\d,.]+$", done.stdout, re.MULTILINE)
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_prompts_differ_from_their_first_word_on(node: NodeServer) -> None:
    neuron("bench", *SMALL, "--prompt-tokens", "50", "--host", node.url)
    texts = [stream.generation.prompt.messages[0]["content"] for stream in node.engine.streams]  # type: ignore[union-attr]
    assert len({" ".join(text.split()[:8]) for text in texts}) == len(texts)


def test_errors_of_the_server_are_counted_by_name_and_exit_1(node: NodeServer) -> None:
    asked = 0

    def every_second_is_refused(generation: object) -> None:
        nonlocal asked
        asked += 1
        if asked > 4 and asked % 2:
            raise QueueFull("the queue is full")

    node.engine.on_submit = every_second_is_refused
    done = neuron(
        "bench", "--concurrency", "1", "--requests", "8", "--warmup", "0", "--json", "--host", node.url
    )
    assert done.returncode == 1
    found = json.loads(done.stdout)["levels"][0]
    assert found["failed"] >= 3
    assert found["completed"] + found["failed"] == 8
    [failure] = found["failures"]
    assert (failure["error"], failure["count"]) == ("503 rate_limit_exceeded", found["failed"])
    assert "queue is full" in failure["message"]


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["--concurrency", "1,x"], 64, "write --concurrency 1,4,8"),
        (["--concurrency", "0"], 64, "from 1 to 1024"),
        (["--requests", "0"], 64, "--requests"),
        (["--url", "gpu1/v1"], 64, "is no URL"),
        (["--url", "http://x/v1", "--host", "y"], 64, "name two servers"),
        (["m", "--host", "127.0.0.1:{port}"], 69, "nobody answers"),
        (["m", "--url", "http://127.0.0.1:{port}/v1"], 69, "nobody answers"),
    ],
)
def test_a_mistake_is_one_line(args: list[str], code: int, says: str) -> None:
    done = neuron("bench", *(arg.format(port=free_port()) for arg in args))
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_a_model_that_is_not_there_is_the_nodes_error(node: NodeServer) -> None:
    done = neuron("bench", "org/tinny", "--host", node.url)
    assert (done.returncode, done.stdout) == (1, "")
    assert "org/tinny" in done.stderr


def test_without_a_model_the_only_one_is_taken(node: NodeServer) -> None:
    node.engine.models["other"] = node.engine.loaded("other")
    done = neuron("bench", "--host", node.url)
    assert done.returncode == 64
    assert "serves 2 models: org/tiny, other" in done.stderr


class Foreign(BaseHTTPRequestHandler):
    """A server of others: refuses the fields it does not know, counts no tokens."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[tuple[str, str | None, set[str]]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append((self.path, self.headers["authorization"], set(body)))
        unknown = {"ignore_eos", "stream_options"} & set(body)
        if unknown:
            refused = answer(b'{"detail": "extra inputs are not permitted"}', "422 Unprocessable Entity")
        self.wfile.write(refused if unknown else sse("a", "b", "c"))

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def foreign() -> Iterator[str]:
    Foreign.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Foreign) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_foreign_server_may_know_less(foreign: str) -> None:
    keys = {"OPENAI_API_KEY": "k1", "NEURON_API_KEY": "k2"}
    done = neuron("bench", "m", "--url", f"{foreign}/v1/", *SMALL, "--json", env=keys)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["ignore_eos"] is False
    assert [(n["tokens_from"], n["completion_tokens"]) for n in report["levels"]] == [("pieces", 12)] * 2
    path, key, fields = Foreign.asked[-1]
    assert (path, key) == ("/v1/chat/completions", "Bearer k1")
    assert not {"ignore_eos", "stream_options"} & fields


def test_a_node_gets_its_own_key_and_never_that_of_others(foreign: str) -> None:
    neuron("bench", "m", "--host", foreign, *SMALL, env={"OPENAI_API_KEY": "k1"})
    neuron("bench", "m", "--host", foreign, *SMALL, env={"OPENAI_API_KEY": "k1", "NEURON_API_KEY": "k2"})
    assert {key for _, key, _ in Foreign.asked} == {None, "Bearer k2"}


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (answer(b"<html>hello</html>", kind="text/html"), "cut off"),
        (
            answer(b'{"error": {"message": "bad key", "code": "invalid_api_key"}}', "401 Unauthorized"),
            "bad key",
        ),
        (stream('data: {"error": {"message": "boom"}}\n\n'), "boom"),
        (stream("data: nonsense\n\n"), "not in OpenAI's format"),
        (stream('data: {"choices":[]}\n\n', end=False), "cut off"),
    ],
)
def test_what_is_no_answer_is_said_so(raw: bytes, says: str) -> None:
    with scripted_server(raw) as server:
        done = neuron("bench", "m", "--url", f"{server.url}/v1", *SMALL)
    assert done.returncode in (1, 74, 77)
    assert says in done.stderr


@pytest.mark.parametrize("model", [[], ["org/tiny"]])
def test_a_key_that_a_node_does_not_know_is_exit_77(model: list[str]) -> None:
    with node_server(keys=RING) as node:
        done = neuron("bench", *model, "--url", f"{node.url}/v1", *SMALL, env={"OPENAI_API_KEY": "wrong"})
    assert (done.returncode, done.stdout) == (77, "")
    assert "does not know the key" in done.stderr


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_a_key_that_a_server_of_others_does_not_know_is_exit_77(status: str) -> None:
    with scripted_server(answer(b'{"error": "Unauthorized"}', status)) as server:
        done = neuron("bench", "m", "--url", f"{server.url}/v1", *SMALL)
    assert (done.returncode, done.stdout) == (77, "")


def test_a_node_on_a_unix_socket_is_named_by_it(tmp_path: Path) -> None:
    where = tmp_path / "n.sock"
    with node_server(settings=Settings(uds=where)):
        done = neuron("bench", *SMALL, "--host", f"unix://{where}")
        report = json.loads(neuron("bench", *SMALL, "--json", "--host", f"unix://{where}").stdout)
    assert done.stdout.splitlines()[0] == f"org/tiny at unix://{where}"
    assert report["url"] == f"unix://{where}"


def test_ctrl_c_shows_what_there_is() -> None:
    with node_server(FakeEngine(Script(texts=["a"] * 10, step_s=0.01))) as node:
        command = [*PROGRAM, "bench", "--requests", "100000", "--concurrency", "2,4", "--host", node.url]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
        )
        eventually(lambda: len(node.engine.streams) > 12, within_s=20)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert re.search(r"^ +2 +[1-9]\d* +0 ", out, re.MULTILINE)
    assert "4 at once" not in out


def test_percentiles_lie_between_neighbours_and_need_enough_values() -> None:
    found = spread(range(1, 102))
    assert (found.mean, found.p50, found.p90, found.p99) == (51, 51, 91, 100)
    assert spread([1, 2]).p50 == 1.5
    assert (spread([1, 2]).p90, spread([]).mean, spread([]).p50) == (None, None, None)


def test_a_level_adds_up() -> None:
    quick = Answer([0.1, 0.2, 0.4], 0.5, prompt_tokens=10, completion_tokens=4)
    refused = NodeAnsweredError("full", status=503, remote_code="rate_limit_exceeded")
    found = level(2, [quick, refused, StreamCut("cut"), refused], 2.0, interrupted=False)
    assert (found.completed, found.failed, found.tokens_per_second) == (1, 3, 2.0)
    assert found.tokens_per_second_each.p50 == pytest.approx(10)
    assert (found.first_token_ms.p50, found.total_ms.p50) == (100, 500)
    assert [(f.error, f.count) for f in found.failures] == [("503 rate_limit_exceeded", 2), ("stream_cut", 1)]


@pytest.mark.parametrize(("per_word", "template"), [(1, 0), (1, 30), (1.25, 8)])
def test_prompts_are_as_long_as_was_asked_for(per_word: float, template: int) -> None:
    def count(n_words: int) -> int:
        return round(per_word * n_words) + template

    assert abs(count(words_for(200, count)) - 200) <= 1


def test_a_prompt_has_a_word_at_least_and_a_word_is_a_token_where_nobody_counts() -> None:
    assert words_for(5, lambda n: n + 30) == 1
    assert words_for(5, lambda n: None) == 5
