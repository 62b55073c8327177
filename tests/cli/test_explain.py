"""``neuron explain``: what a person and a program see of a request."""

from __future__ import annotations

import json
import re

import pytest

from neuron.errors import InvalidValue, QueueFull
from neuron.settings import Settings
from tests.support.callers import OPERATOR_SECRET, READER_SECRET, RING, bearer
from tests.support.cli import neuron
from tests.support.fake_engine import Script, Think
from tests.support.node_server import NodeServer, eventually, node_server

CHAT = {"model": "org/tiny", "messages": [{"role": "user", "content": "the secret word"}]}


def asked(node: NodeServer, **more: object) -> str:
    request_id = node.post("/v1/chat/completions", {**CHAT, **more})[1]["x-request-id"]
    eventually(lambda: node.get(f"/requests/{request_id}")[2]["state"] in ("finished", "refused", "failed"))
    return request_id


def test_a_request_is_explained(node: NodeServer) -> None:
    node.engine.script = Script(texts=[Think("a"), "b", "c"], before_s=0.1, step_s=0.1, reason="length")
    done = neuron("explain", asked(node, max_tokens=3, stream=True), "--host", node.url)
    assert (done.returncode, done.stderr) == (0, "")
    lines = dict(line.split(None, 1) for line in done.stdout.splitlines() if line)
    assert lines["state"] == "finished"
    assert lines["path"] == "/v1/chat/completions, streamed"
    assert lines["prompt"] == "7 tokens, 2 of them cached"
    assert lines["answer"].startswith("3 tokens, 1 of them reasoning, ")
    assert lines["answer"].endswith("; 3 of 5 guesses were right")
    assert lines["asked"] == "max_tokens=3"
    assert lines["why"] == "length: the limit of tokens was reached"
    assert "secret" not in done.stdout


def test_the_bars_lie_one_behind_the_other_and_fill_the_whole(node: NodeServer) -> None:
    node.engine.script = Script(texts=["a"] * 3, before_s=0.1, step_s=0.1)
    shown = neuron("explain", asked(node), "--host", node.url).stdout
    bars = re.findall(r"\|([ #]+)\|", shown)
    assert len(bars) == 7
    assert {len(bar) for bar in bars} == {40}
    assert ["".join(column).strip() for column in zip(*bars, strict=True)] == ["#"] * 40


def test_a_refusal_says_which(node: NodeServer) -> None:
    node.engine.script = Script(refuse=QueueFull("the queue is full"))
    assert (
        "why      refused: rate_limit_exceeded" in neuron("explain", asked(node), "--host", node.url).stdout
    )


def test_a_refusal_says_what_of_the_request_was_refused(node: NodeServer) -> None:
    node.engine.script = Script(refuse=InvalidValue("no", param="temperature"))
    shown = neuron("explain", asked(node), "--host", node.url).stdout
    assert "why      refused: invalid_value, because of temperature" in shown


def test_without_an_id_the_last_ones_are_listed(node: NodeServer) -> None:
    assert "no requests yet" in neuron("explain", "--host", node.url).stderr
    ids = [asked(node) for _ in range(3)]
    table = neuron("explain", "--host", node.url).stdout.splitlines()
    assert [line.split()[0] for line in table] == ["ID", *reversed(ids)]
    listed = json.loads(neuron("explain", "--limit", "2", "--json", "--host", node.url).stdout)
    assert [info["id"] for info in listed] == ids[:0:-1]


def test_the_list_says_when_a_request_came_and_whose_key_it_had() -> None:
    with node_server(keys=RING) as node:
        node.post("/v1/chat/completions", CHAT, **bearer(READER_SECRET))
        env = {"NEURON_API_KEY": OPERATOR_SECRET}
        [head, row] = neuron("explain", "--host", node.url, env=env).stdout.splitlines()
    assert head.split()[:4] == ["ID", "ARRIVED", "KEY", "STATE"]
    _, arrived, key, state, *_ = row.split()
    assert re.fullmatch(r"\d\d:\d\d:\d\d", arrived)
    assert (key, state) == ("reader", "finished")


def test_a_table_has_no_blanks_at_the_end_of_a_line(node: NodeServer) -> None:
    asked(node)
    lines = neuron("explain", "--host", node.url).stdout.splitlines()
    assert [line for line in lines if line != line.rstrip()] == []


def test_json_is_what_the_node_says(node: NodeServer) -> None:
    request_id = asked(node)
    shown = json.loads(neuron("explain", request_id, "--json", "--host", node.url).stdout)
    assert shown == node.get(f"/requests/{request_id}")[2]


def test_text_is_shown_where_it_is_kept_and_cannot_act_on_the_terminal() -> None:
    with node_server(settings=Settings(port=0, log_prompts=True)) as node:
        node.engine.script = Script(texts=["a\x1b]0;owned\x07b"])
        shown = neuron("explain", asked(node), "--host", node.url).stdout
    assert "the secret word" in shown
    assert "answer:\nab\n" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["req_0"], 1, "no request 'req_0' is running or kept"),
        (["req_0", "--limit", "3"], 64, "--limit is for the list"),
        (["--limit", "0"], 64, "limit"),
    ],
)
def test_what_can_t_be_explained_is_said(node: NodeServer, args: list[str], code: int, says: str) -> None:
    done = neuron("explain", *args, "--host", node.url)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
