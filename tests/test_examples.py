"""Every command line that the help, the manual pages and the documents show is run, as it stands, in a sandbox.

The sandbox is a folder with the files that the lines name, a node with a scripted engine behind the names ``gpu1``
and ``localhost:13131``, and a cache in which the models lie. A line has to end by itself with 0; others are in
`FOREVER` (until Ctrl-C) and `CONVERSATIONS` (until Ctrl-D). What a line needs first is in `BEFORE`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from neuron.cli.app import EXAMPLES, commands
from neuron.cli.generate import ROOT
from neuron.cli.manual import escape
from neuron.engine.request import Generation
from neuron.sources import manifest
from neuron.sources.aliases import alternatives
from neuron.sources.reference import parse_reference
from tests.daemon.test_server_process import process
from tests.support.cli import environment, free_port
from tests.support.fake_engine import FakeEngine, Script
from tests.support.node_server import NodeServer, node_server
from tests.support.terminal import Terminal
from tests.test_documents import DOCUMENTS, blocks

HELP = [*EXAMPLES, *(line for _, module in commands() for line in module.EXAMPLES)]
SHOWN = [
    line.removeprefix("$ ")
    for path in DOCUMENTS
    for block in blocks(path, "console")
    for line in block.splitlines()
    if re.search(r"^\$ (.*\| )?neuron ", line)
]
LINES = list(dict.fromkeys([*HELP, *SHOWN]))

MODELS = ("smollm2", "Qwen/Qwen3-0.6B", "assistant")
REQUEST_ID = "req_0123456789abcdef01234567"
FOREVER = {
    r"neuron serve": "listening",
    r"neuron events.* -f": "total_ms",
    r"neuron health --watch": "smollm2",
}
"""Begins like this → what it has shown when Ctrl-C is sent."""
CONVERSATIONS = r"neuron chat( (?!-)[\w./-]+)?( --(continue|host gpu1|session \w+|system \".*\"))*$"
LEAVES = r"neuron drain --wait"
"""It ends when the node does, so the node is a process of its own."""
CERTIFICATE = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost "
    "-keyout /etc/neuron/node.key -out /etc/neuron/node.pem"
)
BEFORE = {
    r"neuron serve .*--tls-cert": (CERTIFICATE,),
    r"neuron keys (list|revoke)": (
        "neuron keys add alice",
        "neuron keys add fleet --file /etc/neuron/keys.toml",
    ),
    r"neuron chat --continue": ("neuron chat smollm2",),
    r"neuron chat -c": ("neuron chat smollm2 Hello --session s",),
    r"neuron chat --host gpu1": ("neuron unload assistant", "neuron unload Qwen/Qwen3-0.6B"),
    r"neuron bench( --|$)": ("neuron unload assistant", "neuron unload Qwen/Qwen3-0.6B"),
    r"neuron endpoint( --|$)": ("neuron unload assistant", "neuron unload Qwen/Qwen3-0.6B"),
    r"neuron load": ("neuron unload smollm2",),
    r"neuron events": ("neuron unload assistant", "neuron load assistant"),
}
"""Begins like this → lines that make what it needs."""
LIMIT_S = 40


@dataclass
class Sandbox:
    """Where a line runs."""

    folder: Path
    node: NodeServer
    env: dict[str, str]

    def run(self, line: str) -> str:
        """As a person would, to its end; what it printed, where that is not for a terminal."""
        for pattern, prepared in BEFORE.items():
            if re.match(pattern, line):
                for first in prepared:
                    self._end(first)
        if not re.match(LEAVES, line):
            return self._end(line)
        with process() as leaving:
            self.nodes(leaving.url)
            printed = self._end(line)
            assert leaving.end(10)[0] == 0
            return printed

    def nodes(self, url: str) -> None:
        """Name the node ``gpu1``."""
        (self.folder.parent / "neuron" / "nodes.toml").write_text(f"[gpu1]\nurl = '{url}'\n")

    def _end(self, line: str) -> str:
        if re.match(CONVERSATIONS, line):
            self._converse(line)
        elif until := next((said for begin, said in FOREVER.items() if re.match(begin, line)), None):
            self._interrupt(line, until)
        else:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", self.real(line)], **self._how(), timeout=LIMIT_S
            )
            assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
            assert "Traceback" not in done.stderr
            return str(done.stdout)
        return ""

    def _how(self) -> dict[str, object]:
        return {
            "cwd": self.folder,
            "env": self.env,
            "capture_output": True,
            "text": True,
            "stdin": subprocess.DEVNULL,
        }

    def _interrupt(self, line: str, until: str) -> None:
        """On a terminal, until it has shown what it should; then Ctrl-C ends it."""
        shell = self._terminal(line)
        shell.wait_for(until, LIMIT_S)
        shell.press("ctrl-c")
        assert shell.wait_end() in (0, 130), shell.text

    def _converse(self, line: str) -> None:
        shell = self._terminal(line)
        shell.wait_prompt()
        shell.ask("hello")
        shell.wait_for("Hello w")
        shell.wait_prompt()
        shell.press("ctrl-d")
        assert shell.wait_end() == 0, shell.text

    def _terminal(self, line: str) -> Terminal:
        command = ["bash", "-c", f"cd {self.folder} && exec {self.real(line)}"]
        return Terminal(command, self.env, columns=120, lines=40)

    def real(self, line: str) -> str:
        """The line with what only a real machine has put in its place."""
        place = f"127.0.0.1:{self.node.port}"
        names = {
            "gpu1:13131": place,
            "localhost:13131": place,
            "/etc/neuron": self.folder,
            "/run/neuron": self.folder,
            "/srv/models": self.folder,
            "memory-free=8G": "memory-free=500M",  # what the node of the tests has
            "--port 13132": f"--port {free_port()}",
            REQUEST_ID: self.node.asked,  # type: ignore[attr-defined]
        }
        for name, found in names.items():
            line = line.replace(name, str(found))
        return line


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """A fresh one."""
    folder = tmp_path / "work"
    _files(folder, tmp_path)
    monkeypatch.setenv("NEURON_CACHE", str(tmp_path / "cache"))
    for text in ("smollm2", "hf:Qwen/Qwen3-0.6B@main"):
        _fetched(text, tmp_path / "cache" / "pypi" / "model" / "1")
    engine = FakeEngine(models=MODELS)
    engine.on_submit = lambda generation: _script(engine, generation)
    with node_server(engine) as node:
        body = {"model": "smollm2", "messages": [{"role": "user", "content": "hi"}]}
        node.asked = node.post("/v1/chat/completions", body)[1]["x-request-id"]  # type: ignore[attr-defined]
        (tmp_path / "neuron").mkdir()
        sandbox = Sandbox(folder, node, _environment(tmp_path, node))
        sandbox.nodes(node.url)
        yield sandbox


def _environment(home: Path, node: NodeServer) -> dict[str, str]:
    return environment(
        home,
        PATH=f"{_program(home)}:{os.environ['PATH']}",
        HOME=str(home),
        NEURON_HOST=node.url,
        NEURON_PORT=str(free_port()),
        NEURON_CACHE=str(home / "cache"),
        HF_HUB_OFFLINE="1",
        TERM="xterm",
    )


def _program(home: Path) -> Path:
    """A folder with ``neuron`` in it."""
    program = home / "bin" / "neuron"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m neuron.cli.main "$@"\n')
    program.chmod(0o755)
    return program.parent


def _files(folder: Path, home: Path) -> None:
    """What the lines name."""
    folder.mkdir()
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    schema = '{"type": "object", "properties": {"name": {"type": "string"}}}'
    contents = {
        "letter.txt": "Dear Ada",
        "person.json": schema,
        "letter.json": schema,
        "neuron.toml": "threads = 1\n",
    }
    for name, text in {**contents, "model.gguf": ""}.items():
        (folder / name).write_text(text)
    subprocess.run(["git", "-C", str(folder), "add", "letter.txt"], check=True)
    (folder / "letter.txt").write_text("Dear Ada,")


def _fetched(text: str, root: Path) -> None:
    """A model that lies in the cache, whole."""
    root.mkdir(parents=True, exist_ok=True)
    files = []
    for name in ("config.json", "chat_template.jinja"):
        (root / name).write_text("{}")
        files.append(manifest.File(name, 2, manifest.sha256(root / name)))
    manifest.record(
        parse_reference(alternatives(text)[0]), revision="main", root=str(root), entry=".", files=files
    )


def _script(engine: FakeEngine, generation: Generation) -> None:
    """Answers as a model would that is asked for JSON, or for code."""
    asked = str(generation)
    if "person" in asked or "json_schema" in asked or "'name'" in asked:
        engine.script = Script(texts=['{"name": ', '"Ada"}'])
    elif "shell loop" in asked:
        engine.script = Script(texts=["Here:\n```sh\n", "for f in *.txt; do echo $f; done\n", "```\n"])
    else:
        engine.script = Script()


@pytest.mark.parametrize("line", LINES)
def test_an_example_runs(line: str, sandbox: Sandbox) -> None:
    if "--tls-cert" in line and shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    sandbox.run(line)


def test_the_manual_pages_show_the_examples_of_the_help() -> None:
    for words, module in commands():
        page = (ROOT / "man" / f"{'-'.join(('neuron', *words))}.1").read_text()
        assert all(escape(line) in page for line in module.EXAMPLES)


def test_a_line_that_fails_would_be_noticed(sandbox: Sandbox) -> None:
    with pytest.raises(AssertionError):
        sandbox.run("neuron load --no-such-option")
    with pytest.raises(AssertionError):
        sandbox.run("neuron unload nobody")
