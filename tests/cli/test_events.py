"""``neuron events``: lines for people and programs, ended by Ctrl-C, a pipe, or the node."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from typing import Any

from tests.support.cli import PROGRAM, environment, neuron
from tests.support.node_process import node as node_process
from tests.support.node_server import NodeServer, eventually

CHAT = ("/v1/chat/completions", {"model": "org/tiny", "messages": [{"role": "user", "content": "hi"}]})


def refuse(node: NodeServer, n: int = 1) -> None:
    for _ in range(n):
        node.post(CHAT[0], {})
    eventually(lambda: len(node.get("/events?follow=false")[2]) > 100 * n)


def follow(node: NodeServer, *args: str) -> subprocess.Popen[str]:
    command = [*PROGRAM, "events", "-f", "--host", node.url, *args]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )


def test_what_is_kept_is_shown_in_lines_and_in_json(node: NodeServer) -> None:
    refuse(node, 2)
    done = neuron("events", "--host", node.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(r" +1 \d\d:\d\d:\d\d warning refused id=req_\w+ path=/v1/chat", done.stdout)
    lines = [json.loads(line) for line in neuron("events", "--json", "--host", node.url).stdout.splitlines()]
    assert [line["seq"] for line in lines] == [1, 2]
    later = neuron("events", "--since", "1", "--json", "--host", node.url).stdout
    assert [json.loads(line)["seq"] for line in later.splitlines()] == [2]


def test_a_number_beyond_the_newest_is_refused_with_the_next_step(node: NodeServer) -> None:
    refuse(node)
    done = neuron("events", "--since", "999", "--host", node.url)
    assert (done.returncode, done.stdout) == (64, "")
    assert "since=999 is beyond the newest event" in done.stderr
    assert "0 shows all that are kept" in done.stderr


def test_an_event_is_shown_when_it_happens_and_ctrl_c_is_quiet(node: NodeServer) -> None:
    with follow(node, "--json") as child:
        assert child.stdout is not None
        refuse(node)
        first: dict[str, Any] = json.loads(child.stdout.readline())
        assert first["event"] == "refused"
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=10)
    assert (child.returncode, out, err) == (130, "", "")


def test_a_pipe_that_closes_after_the_first_line_leaves_no_traceback(node: NodeServer) -> None:
    refuse(node, 3)
    command = f"{' '.join(PROGRAM)} events --host {node.url} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment())
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
    assert done.returncode in (0, 141)


def test_a_follower_whose_reader_went_away_ends_at_the_next_event(node: NodeServer) -> None:
    with follow(node) as child:
        assert child.stdout is not None
        refuse(node)
        child.stdout.readline()
        child.stdout.close()
        refuse(node)
        assert child.wait(10) == 141
        assert child.stderr is not None
        assert child.stderr.read() == ""


def test_what_a_client_sent_cannot_act_on_the_terminal(node: NodeServer) -> None:
    node.post(CHAT[0], {**CHAT[1], "model": "a\x1b]0;owned\x07\x9b31m"})
    node.get("/models/%1b%5b31m")
    for args in ([], ["--json"]):
        shown = neuron("events", *args, "--host", node.url).stdout
        assert shown
        assert not set(shown) & set("\x1b\x07\x9b\x7f")


def test_following_ends_with_the_node() -> None:
    with node_process() as node:
        command = [*PROGRAM, "events", "-f", "--json", "--host", node.url]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
        assert child.stdout is not None
        assert json.loads(child.stdout.readline())["event"] == "listening"
        assert node.stop() == 0
        rest = [json.loads(line)["event"] for line in child.communicate(timeout=10)[0].splitlines()]
    assert (child.returncode, rest[-1]) == (0, "draining")
