"""Commands against a real node: what they print, where, and how they end."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from neuron.engine.status import DecodeStatus
from neuron.errors import EmptyRepo, InvalidModelFile, InvalidReference, RepoFetchFailed
from neuron.progress import Progress, ignore
from tests.support.cli import PROGRAM, environment, neuron
from tests.support.node_server import NodeServer


def test_models_is_a_table_without_escapes_or_cuts(node: NodeServer) -> None:
    long = "org/" + "a-name-that-is-far-too-long-for-eighty-columns-" * 4
    node.engine.models[long] = node.engine.loaded(long)
    done = neuron("models", "--host", node.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[:4] == ["ID", "STATUS", "SIZE", "QUANT"]
    assert "\x1b" not in done.stdout
    assert any(line.startswith(long) and "2048" in line for line in done.stdout.splitlines())


def test_models_as_json_is_what_the_node_says(node: NodeServer) -> None:
    done = neuron("models", "--json", env={"NEURON_HOST": node.url})
    assert json.loads(done.stdout) == node.get("/models")[2]


def test_no_models_leaves_stdout_empty(node: NodeServer) -> None:
    node.engine.models.clear()
    done = neuron("models", "--host", node.url)
    assert (done.returncode, done.stdout) == (0, "")
    assert "neuron load" in done.stderr
    assert json.loads(neuron("models", "--json", "--host", node.url).stdout) == []


def test_load_shows_progress_on_stderr_and_the_result_on_stdout(node: NodeServer) -> None:
    node.engine.load_steps = [Progress("fetch", 5_000_000, 10_000_000), Progress("read", 1, 1)]
    node.engine.load_s = 0.5
    done = neuron("load", "org/new", "--dtype", "float32", "--host", node.url)
    assert (done.returncode, done.stdout) == (0, "loaded: org/new\n")
    assert "org/new: fetch 50% of 10.0 MB" in done.stderr
    assert "\x1b" not in done.stderr
    assert node.engine.loads[-1][0].dtype == "float32"


def test_a_model_that_is_there_is_success(node: NodeServer) -> None:
    for extra in ([], ["--no-wait"]):
        done = neuron("load", "org/tiny", "--host", node.url, "--json", *extra)
        assert done.returncode == 0
        assert json.loads(done.stdout) == {"model_id": "org/tiny", "status": "already loaded"}


def test_a_load_that_fails_says_why_and_exits_1(node: NodeServer) -> None:
    node.engine.load_error = EmptyRepo("org/new: there are no weights", hint="look at the repository")
    done = neuron("load", "org/new", "--host", node.url)
    assert (done.returncode, done.stdout) == (1, "")
    assert "neuron: org/new: there are no weights\nhint: look at the repository\n" in done.stderr
    assert done.stderr.count("look at the repository") == 1


@pytest.mark.parametrize(
    "args", [["load", "org/new"], ["load", "org/new", "--no-wait"], ["load", "--plan", "a/b"]]
)
def test_a_nodes_error_is_shown_as_ones_own(node: NodeServer, args: list[str]) -> None:
    node.engine.load_error = InvalidModelFile("x.gguf: truncated", hint="fetch it again")
    done = neuron(*args, "--host", node.url)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-2:] == ["neuron: x.gguf: truncated", "hint: fetch it again"]


def test_what_the_hubs_library_says_is_not_passed_on(node: NodeServer) -> None:
    error = RepoFetchFailed("a/b: no such repository", hint="check the spelling")
    error.__cause__ = OSError(
        "404 Client Error. (Request ID: Root=1-2) Please make sure you specified `repo_id`"
    )
    node.engine.load_error = error
    done = neuron("load", "--plan", "a/b", "--host", node.url)
    assert done.returncode == 69
    assert done.stderr.splitlines() == ["neuron: a/b: no such repository", "hint: check the spelling"]


def test_a_relative_path_is_made_absolute_for_a_node_on_this_machine(
    node: NodeServer, tmp_path: Path
) -> None:
    assert neuron("load", "./tiny.gguf", "--host", node.url, cwd=tmp_path).stdout == "loaded: tiny\n"
    spec, fetch = node.engine.loads[-1]
    assert spec.model_id == "tiny"
    with pytest.raises(InvalidReference, match=str(tmp_path / "tiny.gguf")):
        fetch(ignore)  # this node has no model root, so it refuses by the name that it was given


def test_unload_frees_and_refuses_what_is_not_there(node: NodeServer) -> None:
    assert neuron("unload", "org/tiny", "--host", node.url).stdout == "unloaded: org/tiny\n"
    done = neuron("unload", "org/tiny", "--host", node.url)
    assert (done.returncode, done.stdout) == (1, "")
    assert "not loaded" in done.stderr


def test_health_and_discovery_are_read_by_people_and_programs(node: NodeServer) -> None:
    health = neuron("health", "--host", node.url)
    assert (health.returncode, health.stderr) == (0, "")
    assert "accepting" in health.stdout
    assert "org/tiny" in health.stdout
    assert json.loads(neuron("health", "--json", "--host", node.url).stdout)["accepting"] is True
    assert "processor" in neuron("discovery", "--host", node.url).stdout
    assert json.loads(neuron("discovery", "--json", "--host", node.url).stdout)["harnesses"] == ["torch"]


def test_health_of_a_stalled_node_fails_and_still_shows_it(node: NodeServer) -> None:
    node.engine.decode = DecodeStatus(stalled=True)
    done = neuron("health", "--json", "--host", node.url)
    assert done.returncode == 1
    assert "stalled" in done.stderr
    assert json.loads(done.stdout)["models"]


def test_version_shows_the_nodes_too(node: NodeServer) -> None:
    shown = json.loads(neuron("version", "--json", "--host", node.url).stdout)
    assert shown["node"]["features"] is not None


def test_what_a_node_says_cannot_act_on_the_terminal(node: NodeServer) -> None:
    evil = "org/\x1b]0;owned\x07tiny\x9b31m\u202e"
    node.engine.models[evil] = node.engine.loaded(evil)
    for args in (["models"], ["models", "--json"], ["health"], ["health", "--json"]):
        done = neuron(*args, "--host", node.url)
        assert not set(done.stdout + done.stderr) & set("\x1b\x07\x9b\u202e")
    assert json.loads(neuron("models", "--json", "--host", node.url).stdout)[1]["id"] == evil


def test_no_color_and_a_terminal_type_change_nothing_in_a_pipe(node: NodeServer) -> None:
    plain = neuron("models", "--host", node.url).stdout
    assert neuron("models", "--host", node.url, env={"NO_COLOR": "1"}).stdout == plain
    assert neuron("models", "--host", node.url, env={"TERM": "xterm-256color"}).stdout == plain


def test_a_pipe_that_closes_early_leaves_no_traceback(node: NodeServer) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*PROGRAM, "models", "--host", node.url],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")
