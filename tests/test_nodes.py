"""Names of nodes: what the file may say, whose key goes where, and what the commands make of it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from neuron import nodes
from neuron.cli.app import program
from neuron.client import NodeClient
from neuron.errors import ConfigError, ExposedSecret, NodeAnsweredError, UsageError
from neuron.nodes import Place, place
from tests.support.callers import OPERATOR_SECRET, READER_SECRET, RING
from tests.support.cli import PROGRAM, environment, free_port, neuron
from tests.support.fake_engine import FakeEngine
from tests.support.node_server import NodeServer, node_server
from tests.support.scripted_http import answer, scripted_server

PATHS = {"--keys-file", "--tls-key"}
"""Options that name a file."""


def written(home: Path, text: str, mode: int = 0o600) -> dict[str, str]:
    """The environment in which the file says this."""
    folder = home / "neuron"
    folder.mkdir(exist_ok=True)
    (folder / "nodes.toml").write_text(text)
    (folder / "nodes.toml").chmod(mode)
    return {"XDG_CONFIG_HOME": str(home)}


@pytest.fixture(scope="module")
def guarded() -> Iterator[NodeServer]:
    with node_server(FakeEngine(), keys=RING) as node:
        yield node


# ---- the file


def test_a_name_an_address_and_nothing_each_lead_to_a_node(tmp_path: Path) -> None:
    env = written(tmp_path, '[gpu1]\nurl = "http://gpu1.lan:13131"\n[gpu-2]\nurl = "gpu2"\n')
    assert place("gpu1", env) == Place("http://gpu1.lan:13131")
    assert place("gpu-2", env) == Place("http://gpu2:13131")
    assert place("gpu3:80", env) == Place("http://gpu3:80")
    assert place("https://gpu4/x", env) == Place("https://gpu4/x")
    assert place(None, env) == Place("http://127.0.0.1:13131")
    with pytest.raises(UsageError):
        place("no address", env)


def test_a_name_that_is_nearly_one_of_the_file_is_told_where_nobody_answers(tmp_path: Path) -> None:
    env = written(tmp_path, '[gpu1]\nurl = "http://gpu1.lan:13131"\n[mac]\nurl = "mac"\n')
    file = tmp_path / "neuron" / "nodes.toml"
    assert place("gup1", env).url == "http://gup1:13131"  # a host may have that name
    done = neuron("models", "--host", "gup1", env=env)
    assert done.returncode == 69
    assert done.stderr == (
        "neuron: no node answers at http://gup1:13131: its name has no address\n"
        f"hint: gup1 is no name in {file}, so it was taken for a host; did you mean gpu1?\n"
    )
    done = neuron("bench", "m", "--host", "gup1", env=env)
    assert (done.returncode, "did you mean gpu1?" in done.stderr) == (69, True)
    assert str(place("zzzz", env).doubt).endswith("; the names there are gpu1, mac")
    for address in ("gpu1", "gup1:80", "http://gup1", "gup1.lan", None):
        assert place(address, env).doubt is None
    assert place("gup1", {"XDG_CONFIG_HOME": "/nonexistent"}).doubt is None


def test_the_key_of_a_node_goes_to_it_by_name_and_by_url_and_to_nobody_else(tmp_path: Path) -> None:
    env = {
        **written(tmp_path, '[a]\nurl = "http://a:1"\nkey = "ka"\n[b]\nurl = "http://b:1"\n'),
        "NEURON_API_KEY": "general",
    }
    assert place("a", env).key == "ka"
    assert place("http://a:1", env).key == "ka"
    assert place("a:1", env).key == "ka"
    for other in ("b", "http://a:2", "http://c:1", None):
        assert place(other, env).key == "general"
    assert "ka" not in repr(place("a", env)) + repr(nodes.read(env))


def test_a_key_comes_from_a_file_or_a_variable_too(tmp_path: Path) -> None:
    text = '[f]\nurl = "f"\nkey_file = "f.key"\n[v]\nurl = "v"\nkey_env = "V_KEY"\n'
    env = {**written(tmp_path, text, 0o644), "V_KEY": "from-variable"}
    key_file = tmp_path / "neuron" / "f.key"
    key_file.write_text("from-file\n")
    key_file.chmod(0o600)
    assert place("f", env).key == "from-file"
    assert place("v", env).key == "from-variable"
    key_file.chmod(0o640)
    with pytest.raises(ExposedSecret, match="others can read it"):
        place("f", env)
    with pytest.raises(ConfigError, match=r"nodes\.toml:4: \[v\]: V_KEY is not set"):
        place("v", {**env, "V_KEY": ""})


def test_only_a_file_with_a_secret_in_it_must_be_private(tmp_path: Path) -> None:
    assert nodes.read(written(tmp_path, '[a]\nurl = "a"\n', 0o644))
    with pytest.raises(ExposedSecret, match="others can read it"):
        nodes.read(written(tmp_path, '[a]\nurl = "a"\nkey = "k"\n', 0o644))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[a", ":1: not valid TOML"),
        ("x = 1", ":1: 'x' is not a table"),
        ("\n[a]", ":2: [a]: url is missing"),
        ('[a]\nurl = "a b"', ":2: [a]: 'a b' is not the address of a node"),
        ('[a]\nurl = "a"\nurll = "b"', ":3: [a]: unknown key 'urll'"),
        ('[a]\nurl = "a"\nkey = 1', ":3: [a]: Expected `str | null`, got `int` in key"),
        ('[a]\nurl = "a"\nkey_env = "E"\nkey_file = "f"', ":3: [a] has both key_file and key_env"),
        ('["a b"]\nurl = "a"', ":1: 'a b' is no name"),
        ('[a]\nurl = "a"\n[a]', ":3: not valid TOML"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_file_and_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        nodes.read(written(tmp_path, text))
    assert refused.value.message.startswith(f"{tmp_path}/neuron/nodes.toml{says}")


@pytest.mark.parametrize("key", ["two words", "line\nline", "ümlaut", "tab\t1", "x" * 5000, "\x7f"])
def test_what_no_header_can_carry_is_refused_unquoted(key: str) -> None:
    with pytest.raises(ConfigError, match="NEURON_API_KEY: what is there is no key") as refused:
        place("a", {"NEURON_API_KEY": key})
    assert key not in refused.value.message


# ---- the client


def test_a_key_is_sent_as_a_bearer_token_and_only_if_there_is_one() -> None:
    for key, sent in ((None, False), ("nk_x", True)):
        with scripted_server(answer(b"[]")) as server, NodeClient(Place(server.url, key)) as client:
            client.models()
            assert (b"uthorization: Bearer nk_x" in server.requests[0]) is sent
            assert (b"uthorization" in server.requests[0]) is sent


@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"]
)
def test_a_key_does_not_follow_a_redirect(status: str) -> None:
    with scripted_server(answer(b"[]")) as other:
        moved = f"HTTP/1.1 {status}\r\nlocation: {other.url}/models\r\ncontent-length: 0\r\n\r\n".encode()
        with (
            scripted_server(moved) as server,
            NodeClient(Place(server.url, "nk_x")) as client,
            pytest.raises(NodeAnsweredError),
        ):
            client.models()
        assert other.requests == []


# ---- the commands


def test_commands_send_the_key_of_the_environment(guarded: NodeServer) -> None:
    env = {"NEURON_API_KEY": READER_SECRET, "NEURON_HOST": guarded.url}
    assert neuron("models", env=env).returncode == 0
    assert neuron("health", env=env).returncode == 0
    assert "Hello wörld" in neuron("chat", "org/tiny", "hi", env=env).stdout
    refused = neuron("unload", "org/tiny", env=env)
    assert (refused.returncode, refused.stdout) == (77, "")
    assert "needs manage" in refused.stderr
    assert neuron("load", "org/b", env={**env, "NEURON_API_KEY": OPERATOR_SECRET}).returncode == 0


@pytest.mark.parametrize("args", [("models",), ("chat", "org/tiny", "hi"), ("load", "org/b"), ("health",)])
def test_a_missing_or_wrong_key_is_exit_77_and_says_where_it_belongs(
    guarded: NodeServer, args: tuple[str, ...]
) -> None:
    missing = neuron(*args, "--host", guarded.url)
    assert (missing.returncode, missing.stdout) == (77, "")
    assert "hint: set NEURON_API_KEY to a key of that node" in missing.stderr
    wrong = neuron(*args, "--host", guarded.url, env={"NEURON_API_KEY": "nk_wrong"})
    assert (wrong.returncode, wrong.stdout) == (77, "")
    assert "the key is from NEURON_API_KEY" in wrong.stderr
    assert "nk_wrong" not in wrong.stderr


def test_a_name_takes_its_own_key(tmp_path: Path, guarded: NodeServer) -> None:
    env = written(tmp_path, f'[gpu1]\nurl = "{guarded.url}"\nkey = "{READER_SECRET}"\n')
    assert neuron("models", "--host", "gpu1", env=env).returncode == 0
    assert neuron("models", env={**env, "NEURON_HOST": "gpu1", "NEURON_API_KEY": "nk_other"}).returncode == 0


def test_a_bad_file_is_exit_78_and_an_exposed_one_77(tmp_path: Path) -> None:
    done = neuron("models", "--host", "gpu1", env=written(tmp_path, '[gpu1]\nurl = "x y"\n'))
    assert (done.returncode, done.stdout) == (78, "")
    assert "nodes.toml:2: [gpu1]:" in done.stderr
    done = neuron("models", "--host", "gpu1", env=written(tmp_path, '[gpu1]\nurl = "x"\nkey = "k"\n', 0o644))
    assert done.returncode == 77
    assert "chmod 600" in done.stderr


def test_nodes_are_listed_with_how_they_are(tmp_path: Path, guarded: NodeServer) -> None:
    text = "".join(
        f'[{name}]\nurl = "{url}"\n{key}\n'
        for name, url, key in [
            ("good", guarded.url, f'key = "{READER_SECRET}"'),
            ("strange", f"{guarded.url}/", 'key = "nk_wrong"'),
            ("gone", f"http://127.0.0.1:{free_port()}", ""),
            ("keyless", guarded.url, 'key_env = "NOT_SET"'),
        ]
    )
    env = written(tmp_path, text)
    done = neuron("nodes", "--json", env=env)
    assert done.returncode == 0
    found = {said["name"]: said for said in json.loads(done.stdout)}
    assert [said["reachable"] for said in found.values()] == [True, True, False, None]
    assert "org/tiny" in found["good"]["models"]
    assert found["good"]["error"] is None
    assert "NOT_SET is not set" in found["keyless"]["error"]
    table = neuron("nodes", env=env).stdout
    assert table.split()[:5] == ["NAME", "URL", "STATE", "MODELS", "ERROR"]
    assert "no answer" in table
    assert READER_SECRET not in table + done.stdout


def test_the_general_key_is_not_sent_around(tmp_path: Path) -> None:
    with scripted_server(answer(b"[]")) as server:
        env = {**written(tmp_path, f'[a]\nurl = "{server.url}"\n'), "NEURON_API_KEY": "nk_general"}
        assert neuron("nodes", env=env).returncode == 0
        assert b"uthorization" not in server.requests[0]


def test_without_names_nodes_says_how_to_give_them() -> None:
    done = neuron("nodes")
    assert (done.returncode, done.stdout) == (0, "")
    assert "nodes.toml" in done.stderr
    assert json.loads(neuron("nodes", "--json").stdout) == []


def test_names_complete_in_the_shell(tmp_path: Path) -> None:
    env = written(tmp_path, '[gpu1]\nurl = "a"\n[gpu2]\nurl = "b"\n[other]\nurl = "c"\n')
    asked = environment(
        **env, _NEURON_COMPLETE="complete_bash", COMP_WORDS="neuron models --host gp", COMP_CWORD="3"
    )
    assert subprocess.run([*PROGRAM], env=asked, capture_output=True, text=True).stdout.split() == [
        "gpu1",
        "gpu2",
    ]
    written(tmp_path, "[broken")
    done = subprocess.run([*PROGRAM], env=asked, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_no_command_takes_a_secret_as_an_argument_that_ps_would_show() -> None:
    def options(command: Any) -> Iterator[str]:
        for parameter in command.params:
            yield from parameter.opts
        for inner in getattr(command, "commands", {}).values():
            yield from options(inner)

    found = set(options(program()))
    assert "--host" in found
    assert not [
        option for option in found if re.search("key|secret|token$|password", option) and option not in PATHS
    ]
