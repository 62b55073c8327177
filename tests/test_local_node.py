"""Where this machine's node is, for every command that is not told: as `neuron serve` would be told."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from neuron.daemon.listen import bind
from neuron.errors import ConfigError
from neuron.local_node import listens, local_url
from neuron.nodes import here, place
from neuron.settings import Settings
from tests.support.cli import free_port, neuron
from tests.support.supervisor import service

NO_FILE = {"XDG_CONFIG_HOME": "/nonexistent"}


@pytest.mark.parametrize(
    ("env", "url"),
    [
        ({}, "http://127.0.0.1:13131"),
        ({"NEURON_PORT": "1"}, "http://127.0.0.1:1"),
        ({"NEURON_BIND": "0.0.0.0"}, "http://127.0.0.1:13131"),
        ({"NEURON_BIND": "::"}, "http://[::1]:13131"),
        ({"NEURON_BIND": "[::1]", "NEURON_PORT": "2"}, "http://[::1]:2"),
        ({"NEURON_BIND": "gpu1.lan"}, "http://gpu1.lan:13131"),
        ({"NEURON_UDS": "/tmp/n.sock"}, "unix:///tmp/n.sock"),
        ({"NEURON_TLS_CERT": "/proc/version"}, "https://127.0.0.1:13131"),
        ({"NEURON_TLS_KEY": "/not/for/this/user"}, "https://127.0.0.1:13131"),
        ({"NEURON_MODEL_ROOTS": "/not/for/this/user"}, "http://127.0.0.1:13131"),
    ],
)
def test_the_settings_tell_where_it_is(env: dict[str, str], url: str) -> None:
    assert local_url({**NO_FILE, **env}) == url
    assert place(None, {**NO_FILE, **env}).url == url


def test_the_file_tells_it_and_a_variable_wins(tmp_path: Path) -> None:
    file = tmp_path / "neuron.toml"
    file.write_text('uds = "n.sock"\n')
    env = {**NO_FILE, "NEURON_CONFIG": str(file)}
    assert local_url(env) == f"unix://{tmp_path}/n.sock"
    file.write_text("port = 5\n")
    assert local_url(env) == "http://127.0.0.1:5"
    assert local_url({**env, "NEURON_PORT": "6"}) == "http://127.0.0.1:6"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prot = 5", "neuron.toml:1: unknown key 'prot'"),
        ("port = 'x'", "neuron.toml:1: port: 'x' is not a port"),
        ("port = 0", "neuron.toml:1: port: 0 takes a free port"),
        ("what is this", "neuron.toml:1: not valid TOML"),
    ],
)
def test_settings_that_do_not_tell_are_refused_and_no_place_is_guessed(
    tmp_path: Path, text: str, says: str
) -> None:
    file = tmp_path / "neuron.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as refused:
        local_url({**NO_FILE, "NEURON_CONFIG": str(file)})
    assert says in refused.value.message
    done = neuron("models", env={"NEURON_CONFIG": str(file)})
    assert done.returncode == 78
    assert says in done.stderr


def test_a_host_in_the_environment_counts_where_it_is_on_this_machine() -> None:
    env = {**NO_FILE, "NEURON_PORT": "7"}
    assert here({**env, "NEURON_HOST": "unix:///tmp/x"}).url == "unix:///tmp/x"
    assert here({**env, "NEURON_HOST": "localhost:9"}).url == "http://localhost:9"
    assert here({**env, "NEURON_HOST": "gpu1"}).url == "http://127.0.0.1:7"
    assert here(env).url == "http://127.0.0.1:7"


def test_whether_anybody_listens(tmp_path: Path) -> None:
    with bind(Settings(port=0)) as sock, bind(Settings(uds=tmp_path / "there")):
        assert listens(f"http://127.0.0.1:{sock.getsockname()[1]}", 1)
        assert listens(f"unix://{tmp_path}/there", 1)
    assert not listens(f"http://127.0.0.1:{free_port()}", 1)
    assert not listens(f"unix://{tmp_path}/n.sock", 1)
    assert not listens("http://nowhere.invalid", 1)


def test_every_command_finds_the_node_of_the_configuration_file(tmp_path: Path) -> None:
    file = tmp_path / "neuron.toml"
    file.write_text('uds = "n.sock"\n')
    env = {"NEURON_CONFIG": str(file)}
    with service("--config", file) as running:
        assert running.url == f"unix://{tmp_path}/n.sock"
        for command in (("health", "--json"), ("models",), ("discovery",), ("wait", "--for", "ready")):
            done = neuron(*command, env=env)
            assert done.returncode == 0, done.stderr
        found = {
            f["check"]: f
            for f in json.loads(neuron("doctor", "--json", env={**env, "HF_HUB_OFFLINE": "1"}).stdout)
        }
        assert running.url in found["port"]["says"]
        assert f"{running.url} runs" in found["version"]["says"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_a_node_with_tls_is_found_and_what_is_wrong_with_its_certificate_is_said(tmp_path: Path) -> None:
    cert, key = tmp_path / "c.pem", tmp_path / "k.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, *names, "-keyout", key, "-out", cert], check=True, capture_output=True)
    port = free_port()
    file = tmp_path / "neuron.toml"
    file.write_text(f'port = {port}\ntls_cert = "c.pem"\ntls_key = "k.pem"\n')
    env = {"NEURON_CONFIG": str(file), "HF_HUB_OFFLINE": "1"}
    with service("--config", file) as running:
        assert running.url == f"https://127.0.0.1:{port}"
        assert neuron("models", env={**env, "SSL_CERT_FILE": str(cert)}).returncode == 0
        found = {f["check"]: f for f in json.loads(neuron("doctor", "--json", env=env).stdout)}
        assert "certificate is not accepted" in found["version"]["says"]
        plain = neuron("models", "--host", f"127.0.0.1:{port}")
        assert plain.returncode == 69
        assert plain.stderr == (
            f"neuron: http://127.0.0.1:{port} speaks TLS\nhint: write https://127.0.0.1:{port}\n"
        )


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_authorities_that_can_t_be_read_are_named(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "authorities.pem"
    if content:
        file.write_text(content)
    done = neuron("models", env={"SSL_CERT_FILE": str(file)})
    assert done.returncode == 78
    assert done.stderr.startswith(f"neuron: SSL_CERT_FILE: {file}: no ")
    assert "hint: a file with certificates" in done.stderr
