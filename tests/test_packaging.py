"""The files for systemd: what its own tools say of them, and that they fit the program."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from neuron.cli.app import program
from neuron.cli.exits import Exit
from neuron.daemon.process import CLOSE_S, LAST_BYTES_S
from neuron.settings import DEFAULT_PORT, Settings

UNITS = Path(__file__).parents[1] / "packaging" / "systemd"
ANALYZE = shutil.which("systemd-analyze")
NEURON = Path(sys.executable).with_name("neuron")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="needs systemd-analyze")


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(delimiters=("=",), strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNITS / name)
    return parser


def installed(folder: Path, gpu: bool = False) -> Path:
    """The units as they would be installed, with the program where it is here."""
    for name in ("neuron.service", "neuron.socket"):
        text = (UNITS / name).read_text().replace("/opt/neuron/bin/neuron", str(NEURON))
        (folder / name).write_text(text)
    if gpu:
        (folder / "neuron.service.d").mkdir()
        shutil.copy(UNITS / "gpu.conf", folder / "neuron.service.d")
    return folder / "neuron.service"


@needs_systemd
@pytest.mark.parametrize("gpu", [False, True])
def test_the_service_is_exposed_little(tmp_path: Path, gpu: bool) -> None:
    service = installed(tmp_path, gpu)
    command = [str(ANALYZE), "security", "--offline=true", "--threshold=20", "--no-pager", str(service)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-200:]
    assert float(re.findall(r"exposure level .*: (\d\.\d)", done.stdout)[0]) <= 2.0


@needs_systemd
@pytest.mark.parametrize("gpu", [False, True])
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path, gpu: bool) -> None:
    service = installed(tmp_path, gpu)
    command = [str(ANALYZE), "verify", "--man=no", str(service), str(tmp_path / "neuron.socket")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_service_starts_checks_and_ends_as_the_program_does() -> None:
    service = unit("neuron.service")["Service"]
    text = (UNITS / "neuron.service").read_text()
    lines = re.findall(r"(?m)^Exec\w+=\+?(/opt/neuron/.*)$", text)
    assert [shlex.split(line)[1] for line in lines] == ["serve", "config"]
    for line in lines:
        words = shlex.split(line)[1:]
        command = program().commands[words[0]]
        if hasattr(command, "commands"):
            command, words = command.commands[words[1]], words[1:]
        command.make_context(words[0], words[1:]).close()
    assert service["Type"] == "notify"
    assert float(service["TimeoutStopSec"]) > Settings().drain_s + 2 * LAST_BYTES_S + CLOSE_S
    never = {int(code) for code in service["RestartPreventExitStatus"].split()}
    assert never == {Exit.USAGE, Exit.PERMISSION, Exit.CONFIG}


def test_the_check_before_a_reload_may_read_the_credentials() -> None:
    """Without + it runs in the sandbox of the service, but for its credentials, and every reload fails with 77."""
    text = (UNITS / "neuron.service").read_text()
    assert "LoadCredential=api-keys\n" in text
    assert re.findall(r"(?m)^ExecReload=(.)/opt/neuron/", text) == ["+"]


def test_the_socket_is_where_clients_look() -> None:
    assert f"ListenStream=127.0.0.1:{DEFAULT_PORT}\n" in (UNITS / "neuron.socket").read_text()


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="needs systemd-sysusers")
def test_the_user_can_be_made(tmp_path: Path) -> None:
    command = ["systemd-sysusers", f"--root={tmp_path}", str(UNITS / "neuron.sysusers")]
    (tmp_path / "etc").mkdir()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "neuron" in (tmp_path / "etc" / "passwd").read_text()
