"""Completion as a person meets it: in bash, zsh and fish, with a node that answers, one that does not, and none."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pexpect
import pytest

from neuron.cli import completing
from neuron.cli.generate import ROOT
from neuron.sources.aliases import ALIASES, near_miss
from tests.support.cli import PROGRAM, environment, free_port, neuron
from tests.support.node_server import NodeServer

SHELLCHECK = shutil.which("shellcheck") or shutil.which(
    "shellcheck", path=str(Path(pytest.__file__).parents[4] / "bin")
)


def asked(line: str, home: Path | None = None, **env: str) -> list[str]:
    """What the program says when bash asks it."""
    n_words = len(line.split()) - (not line.endswith(" "))
    given = environment(
        home, COMP_WORDS=line, COMP_CWORD=str(n_words), _NEURON_COMPLETE="complete_bash", **env
    )
    done = subprocess.run([*PROGRAM], env=given, capture_output=True, text=True, timeout=30)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.fixture
def nowhere(tmp_path: Path) -> dict[str, str]:
    """An environment without a node and with an empty cache."""
    return {"NEURON_HOST": f"127.0.0.1:{free_port()}", "NEURON_CACHE": str(tmp_path / "cache")}


# ---- models and nodes --------------------------------------------------------------------------------------------


def test_an_id_is_one_of_the_node_s(node: NodeServer, nowhere: dict[str, str]) -> None:
    node.engine.models["tiny2"] = node.engine.loaded("tiny2")
    assert asked("neuron unload ", **{**nowhere, "NEURON_HOST": node.url}) == ["org/tiny", "tiny2"]
    assert asked(f"neuron bench --host {node.url} ti", **nowhere) == ["tiny2"]
    assert {"org/tiny", *ALIASES} <= set(asked(f"neuron chat --host {node.url} ", **nowhere))


def test_a_condition_to_wait_for_is_one_of_those_there_are(node: NodeServer) -> None:
    assert asked("neuron wait --for ") == ["ready", "idle", "loaded=", "memory-free="]
    assert asked("neuron wait --for i") == ["idle"]
    assert asked(f"neuron wait --host {node.url} --for loaded=or") == ["loaded=org/tiny"]


def test_without_a_node_it_is_a_short_name_or_one_that_was_fetched(
    nowhere: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from neuron.sources import manifest
    from neuron.sources.reference import parse_reference

    monkeypatch.setenv("NEURON_CACHE", nowhere["NEURON_CACHE"])
    for text in ("hf:org/fetched", "pypi:llm-x==1.0"):
        manifest.record(parse_reference(text), revision="r", root="/", entry=".", files=())
    (Path(nowhere["NEURON_CACHE"]) / "manifests" / "broken.json").write_text("{")
    for command in ("load", "unload", "pull", "serve", "bench", "chat"):
        assert asked(f"neuron {command} ", **nowhere) == [*ALIASES, "hf:org/fetched", "pypi:llm-x==1.0"]
    assert asked("neuron load hf:org/f", **nowhere) == ["hf:org/fetched"]


def test_a_node_that_keeps_silent_is_left_after_100_ms(nowhere: dict[str, str]) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert completing._on_node(f"127.0.0.1:{free_port()}") is None  # the client is imported
        began_s = time.monotonic()
        assert completing._on_node(url) is None
        assert time.monotonic() - began_s < 0.1 + 0.3  # a client is made, on a busy machine
        assert "smollm2" in asked("neuron unload ", **{**nowhere, "NEURON_HOST": url})


def test_what_a_shell_could_act_on_is_left_out(node: NodeServer, nowhere: dict[str, str]) -> None:
    for evil in ("$(touch owned)", "a b", "`x`", "a;b", "a\nb", "\x1b]0;x\x07", "a'b", "*"):
        node.engine.models[evil] = node.engine.loaded(evil)
    assert asked("neuron unload ", **{**nowhere, "NEURON_HOST": node.url}) == ["org/tiny"]


def test_a_host_is_one_of_nodes_toml(tmp_path: Path) -> None:
    (tmp_path / "neuron").mkdir()
    (tmp_path / "neuron" / "nodes.toml").write_text(
        "[gpu1]\nurl = 'http://gpu1'\n[gpu2]\nurl = 'http://gpu2'\n"
    )
    assert asked("neuron models --host gpu", tmp_path) == ["gpu1", "gpu2"]
    (tmp_path / "neuron" / "nodes.toml").write_text("nonsense")
    assert asked("neuron models --host gpu", tmp_path) == []


# ---- nearly right ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["load", "pull", "serve", "chat"])
def test_a_name_that_is_nearly_a_short_one_is_exit_64_and_names_it(command: str) -> None:
    done = neuron(command, "smolm2", stdin="hello", env={"NEURON_PORT": str(free_port()), "NEURON_HOST": ""})
    assert (done.returncode, done.stdout) == (64, "")
    assert "hint: did you mean smollm2? hf:smolm2 is" in done.stderr


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("smollm2", None),
        ("smolm2", "smollm2"),
        ("qwen3-0.6", "qwen3-0.6b"),
        ("tinylama", "tinyllama"),
        ("gpt2", None),
        ("hf:smolm2", None),
        ("org/smollm2", None),
        ("./smolm2", None),
        ("smolm2.gguf", None),
        ("qwen3-4b", None),
    ],
)
def test_only_a_bare_name_can_be_nearly_a_short_one(text: str, near: str | None) -> None:
    assert near_miss(text) == near


# ---- shells ------------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH with a ``neuron`` on it."""
    program = tmp_path / "bin" / "neuron"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m neuron.cli.main "$@"\n')
    program.chmod(0o755)
    return f"{program.parent}:{os.environ['PATH']}"


def test_the_script_of_bash_is_clean() -> None:
    if SHELLCHECK is None:
        pytest.skip("needs shellcheck")
    done = subprocess.run([SHELLCHECK, ROOT / "completions" / "neuron.bash"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


SHELLS = {
    "bash": ("--norc --noprofile -i", "source {completions}/neuron.bash"),
    "zsh": ("-f -i", "fpath=({completions} $fpath); autoload -Uz compinit; compinit -u -D"),
}
LINES = {
    "neuron unl": "neuron unload",
    "neuron chat --temper": "neuron chat --temperature",
    "neuron unload org/ti": "neuron unload org/tiny",
    "neuron pull hf:org/f": "neuron pull hf:org/fetched",
}


@pytest.fixture
def shell_env(path: str, node: NodeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A node with ``org/tiny``, and a cache with ``hf:org/fetched``."""
    from neuron.sources import manifest
    from neuron.sources.reference import parse_reference

    monkeypatch.setenv("NEURON_CACHE", str(tmp_path / "cache"))
    manifest.record(parse_reference("hf:org/fetched"), revision="r", root="/", entry=".", files=())
    more = {"NEURON_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path), "TERM": "dumb", "PS1": "> "}
    return environment(tmp_path, PATH=path, NEURON_HOST=node.url, INPUTRC="/dev/null", **more)


@pytest.mark.parametrize("name", SHELLS)
def test_tab_completes_on_a_terminal(name: str, shell_env: dict[str, str]) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    options, setup = SHELLS[name]
    shell = pexpect.spawn(
        name, options.split(), env=shell_env, encoding="utf-8", timeout=20, dimensions=(40, 200)
    )
    try:
        shell.sendline(f"{setup.format(completions=ROOT / 'completions')}; echo ready''now")
        shell.expect("readynow")
        for typed, completed in LINES.items():
            shell.send(f"{typed}\t")
            shell.expect(re.escape(completed.removeprefix(typed)))
            shell.send("\x01echo '<\x05>'\r")
            shell.expect(rf"\n<{re.escape(completed)} *>")
    finally:
        shell.close(force=True)


def test_fish_completes(shell_env: dict[str, str]) -> None:
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    for typed, completed in LINES.items():
        script = f"source {ROOT / 'completions' / 'neuron.fish'}; complete -C '{typed}'"
        done = subprocess.run(
            ["fish", "--no-config", "-c", script], env=shell_env, capture_output=True, text=True, timeout=30
        )
        assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [completed.split()[-1]], (
            done.stderr
        )
