"""``neuron doctor``: every check finds what is wrong, says the next step, and is ok where nothing is."""

import json
import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from neuron.cli.checks import machine, network, node, shell
from neuron.cli.checks.finding import Where
from neuron.cli.checks.machine import Torch
from neuron.cli.doctor import checks, findings
from neuron.hardware import Host
from tests.support.callers import READER_SECRET, RING
from tests.support.cli import free_port, neuron
from tests.support.fake_engine import FakeEngine
from tests.support.hosts import BROKEN_CUDA_HOST, CPU_HOST, GPU_HOST
from tests.support.node_server import NodeServer, node_server
from tests.support.supervisor import service


def where(env: Mapping[str, str] | None = None, host: Host = CPU_HOST, **more: object) -> Where:
    """A machine with this in the environment and nothing of the caller's."""
    found = Where({"XDG_CONFIG_HOME": "/nonexistent", **(env or {})}, **more)  # type: ignore[arg-type]
    found.__dict__["host"] = host
    return found


def env_of(port: int) -> dict[str, str]:
    return {"NEURON_PORT": str(port)}


# ---- the command -------------------------------------------------------------------------------------------------


def test_every_check_answers_once_and_a_machine_that_works_is_exit_0(tmp_path: Path) -> None:
    env = {"HF_HUB_OFFLINE": "1", "NEURON_PORT": str(free_port()), "NEURON_CACHE": str(tmp_path)}
    done = neuron("doctor", "--json", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert [f["check"] for f in found] == [check.__name__.replace("_", " ") for check in checks()]
    assert all((f["next_step"] is None) == (f["state"] == "ok") for f in found)
    shown = neuron("doctor", env=env).stdout
    assert all(f["check"] in shown for f in found)
    assert "\x1b" not in shown


def test_a_failure_is_exit_1_with_its_next_step() -> None:
    done = neuron("doctor", env={"HF_HUB_OFFLINE": "1", "NEURON_PORT": "x"})
    assert done.returncode == 1
    assert "failure  configuration  NEURON_PORT: 'x' is not a port" in done.stdout
    assert "→ " in done.stdout


def test_what_cannot_be_looked_at_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(where: Where) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("neuron.cli.doctor.checks", lambda: (breaks,))
    [found] = findings(where())
    assert (found.check, found.state) == ("breaks", "failure")
    assert "Permission denied" in found.says


# ---- the machine -------------------------------------------------------------------------------------------------


def test_the_driver_is_named_or_what_is_wrong_with_it() -> None:
    assert machine.driver(where()).state == "ok"
    assert "Test GPU; driver 570.1" in machine.driver(where(host=GPU_HOST)).says
    broken = machine.driver(where(host=BROKEN_CUDA_HOST))
    assert (broken.state, "driver and library differ" in broken.says) == ("failure", True)
    hint = replace(BROKEN_CUDA_HOST, cuda_unavailable_reason="versions differ; reboot")
    assert machine.driver(where(host=hint)).next_step == "reboot"


@pytest.mark.parametrize(
    ("cuda", "usable", "n_gpus", "state", "says"),
    [
        (None, False, 0, "ok", "built for CPUs"),
        ("12.8", True, 1, "ok", "built for CUDA 12.8"),
        (None, False, 2, "warning", "on a machine with 2 GPUs"),
        ("12.8", False, 0, "warning", "on a machine without a GPU"),
        ("13.0", False, 1, "failure", "the driver takes CUDA 12.8"),
    ],
)
def test_a_build_of_torch_that_does_not_fit_is_found(
    cuda: str | None, usable: bool, n_gpus: int, state: str, says: str
) -> None:
    found = machine.torch_finding(Torch("2.13.0", cuda, usable), n_gpus=n_gpus, driver_cuda="12.8")
    assert found.state == state
    assert says in found.says


def test_a_torch_that_is_broken_is_a_finding_and_no_crash(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.13: cannot open shared object file')")
    env = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(tmp_path), "NEURON_PORT": str(free_port())}
    done = neuron("doctor", "--json", env=env)
    found = {f["check"]: f for f in json.loads(done.stdout)}
    assert done.returncode == 1
    assert found["torch"]["state"] == "failure"
    assert "libcudart.so.13" in found["torch"]["says"]
    assert "pip install" in found["torch"]["next_step"]


def test_a_folder_that_cannot_be_made_or_is_full_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NEURON_CACHE", str(tmp_path / "file" / "neuron"))
    assert machine.cache(where()).state == "failure"
    monkeypatch.setenv("NEURON_CACHE", str(tmp_path / "not" / "yet"))
    assert machine.cache(where()).state in ("ok", "warning")
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1 << 20})())
    assert (machine.cache(where()).state, machine.state(where()).state) == ("failure", "failure")


def test_few_open_files_and_little_memory_are_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        assert machine.open_files(where()).state == "warning"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    monkeypatch.setattr("neuron.hardware.free_memory_bytes", lambda: 5 << 20)
    found = machine.memory(where())
    assert found.state == "warning"
    assert "5 MB free of 16,000 MB (limited by the control group" in found.says


# ---- the node ----------------------------------------------------------------------------------------------------


def test_the_port_is_free_a_nodes_or_somebody_elses(node: NodeServer) -> None:
    from neuron.cli.checks import node as check

    assert "is free" in check.port(where(env_of(free_port()))).says
    assert "is a node's" in check.port(where(env_of(node.port))).says
    listen = (
        "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); "
        "print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", listen], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        try:
            found = check.port(where(env_of(int(other.stdout.readline()))))
        finally:
            other.kill()
    assert found.state == "failure"
    if Path("/proc/net/tcp").exists():
        assert f"process {other.pid} (python" in found.says


def test_a_unix_socket_is_looked_at_instead_of_a_port(tmp_path: Path) -> None:
    from neuron.cli.checks import node as check

    path = tmp_path / "n.sock"
    there = where({"NEURON_UDS": str(path)})
    assert check.port(there).says == f"unix://{path} is free"
    with service("--uds", path) as running:
        assert running.url
        assert check.port(there).says == f"unix://{path} is a node's"
        assert f"unix://{path} runs" in check.version(there).says
        theirs = check.node_environment(there)
        assert theirs is None or theirs["NEURON_LOG_FORMAT"] == "json"
        assert (theirs is None) is not Path("/proc/net/unix").exists()


def test_a_node_that_wants_a_key_is_a_node() -> None:
    from neuron.cli.checks import node as check

    with node_server(FakeEngine(), keys=RING) as guarded:
        here = where(env_of(guarded.port))
        assert "is a node's" in check.port(here).says
        assert check.version(here).next_step == "set NEURON_API_KEY to a key of that node"
        named = where({**env_of(guarded.port), "NEURON_API_KEY": READER_SECRET})
        assert check.version(named).state == "ok"


def test_the_node_that_neuron_host_names_is_asked_and_the_port_is_still_this_machine_s(
    node: NodeServer,
) -> None:
    from neuron.cli.checks import node as check

    here = where({"NEURON_HOST": node.url, **env_of(free_port())})
    assert f"{node.url} runs" in check.version(here).says
    assert "is free" in check.port(here).says
    gone = f"http://127.0.0.1:{free_port()}"
    found = check.version(where({"NEURON_HOST": gone}))
    assert (found.state, found.says) == ("warning", f"no node answers at {gone} (NEURON_HOST={gone})")
    assert check.version(where({"NEURON_HOST": "a b"})).state == "failure"


def test_a_port_that_is_taken_at_the_start_is_not_looked_at() -> None:
    from neuron.cli.checks import node as check

    assert check.port(where({"NEURON_PORT": "0"})).says.startswith("not looked at: NEURON_PORT: 0 takes")


def test_a_node_of_another_version_is_told(node: NodeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from neuron.cli.checks import node as check

    assert check.version(where(env_of(node.port))).state == "ok"
    assert "no node runs" in check.version(where(env_of(free_port()))).says
    monkeypatch.setattr("neuron.cli.version.package_version", lambda: "9.9")
    found = check.version(where(env_of(node.port)))
    assert (found.state, "9.9 is installed" in found.says) == ("warning", True)


def test_what_the_shell_has_and_the_node_lacks_is_named_without_its_value() -> None:
    if not Path("/proc/net/tcp").exists():
        pytest.skip("needs /proc")
    with socket.create_server(("127.0.0.1", 0)) as mine:
        theirs = {**os.environ}
        shell_has = {
            **theirs,
            **env_of(mine.getsockname()[1]),
            "HF_TOKEN": "hf_secret",
            "https_proxy": "http://p",
            "NEURON_HOST": "elsewhere",
        }
        found = node.environment(where(shell_has))
    assert found.state == "warning"
    assert "HF_TOKEN" in found.says
    assert "https_proxy" in found.says
    assert "hf_secret" not in found.says
    assert "NEURON_HOST" not in found.says


def test_the_environment_of_a_unit_is_read_as_systemd_shows_it() -> None:
    shown = 'LoadState=loaded\nEnvironment=HF_TOKEN=a "NEURON_MODEL_ROOTS=/a b" EMPTY=\n'
    assert node.unit_environment(shown) == {"HF_TOKEN": "a", "NEURON_MODEL_ROOTS": "/a b", "EMPTY": ""}
    assert node.unit_environment("LoadState=not-found\nEnvironment=\n") is None
    there = {"HF_TOKEN": "a", "NEURON_CACHE": "/x"}
    here = {"HF_TOKEN": "b", "NEURON_CACHE": "/x", "HF_HOME": "/y", "PATH": "/z", "NEURON_API_KEY": "k"}
    assert node.missing_there(here, there) == ["HF_HOME", "HF_TOKEN"]


def test_a_file_of_keys_that_others_may_read_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURON_STATE", str(tmp_path / "state"))
    here = where({"XDG_CONFIG_HOME": str(tmp_path)})
    assert "no files with keys" in node.secrets(here).says
    (tmp_path / "state").mkdir()
    (tmp_path / "neuron").mkdir()
    keys, nodes = tmp_path / "state" / "keys.toml", tmp_path / "neuron" / "nodes.toml"
    keys.touch(0o600)
    nodes.write_text("[gpu1]\nurl = 'http://gpu1'\n")
    nodes.chmod(0o644)
    assert node.secrets(here).state == "ok"
    keys.chmod(0o640)
    assert node.secrets(here).next_step == f"chmod 600 {keys}"
    keys.chmod(0o600)
    nodes.write_text("[gpu1]\nkey = 'k'\n")
    assert node.secrets(here).next_step == f"chmod 600 {nodes}"


# ---- the network -------------------------------------------------------------------------------------------------


class _Hub(BaseHTTPRequestHandler):
    """Answers 404 with a date of yesterday."""

    def do_HEAD(self) -> None:
        self.send_response_only(404)
        self.send_header("date", format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True))
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Hub) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_hub_that_answers_is_ok_and_tells_the_time(hub: str) -> None:
    found = network.hub(where({"HF_ENDPOINT": hub, "HF_TOKEN": "hf_secret"}))
    assert (found.state, found.says) == ("ok", "127.0.0.1 answers, with HF_TOKEN")
    found = network.clock(where({"HF_ENDPOINT": hub}))
    assert found.state == "warning"
    assert "before the hub's" in found.says
    assert network.skew(-3).state == "ok"
    assert "behind" in network.skew(-300).says


def test_a_hub_that_is_out_of_reach_is_a_warning_and_one_that_is_no_url_a_failure() -> None:
    gone = {"HF_ENDPOINT": f"http://127.0.0.1:{free_port()}", "https_proxy": "http://proxy"}
    found = network.hub(where(gone))
    assert found.state == "warning"
    assert "refused" in found.says
    assert "through https_proxy" in found.says
    assert "not compared" in network.clock(where(gone)).says
    assert network.hub(where({"HF_ENDPOINT": "hub"})).state == "failure"
    assert network.hub(where({"HF_HUB_OFFLINE": "1"})).state == "ok"
    assert network.clock(where({"HF_HUB_OFFLINE": "1"})).state == "ok"


def test_the_index_is_named_without_its_credentials() -> None:
    found = network.package_index(where({"PIP_INDEX_URL": "https://user:secret@index.example/simple"}))
    assert found.says == "index.example for pypi: models"


# ---- the shell ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion_is_found_where_the_next_step_puts_it(name: str, tmp_path: Path) -> None:
    here = where({"SHELL": f"/bin/{name}", "HOME": str(tmp_path)})
    missing = shell.completion(here)
    if missing.state == "ok":
        pytest.skip(f"completions are installed: {missing.says}")
    assert missing.next_step is not None
    subprocess.run(
        ["bash", "-c", missing.next_step.replace(" neuron > ", f" {sys.executable} -m neuron.cli.main > ")],
        check=True,
    )
    assert shell.completion(here).state == "ok"


def test_a_shell_without_completions_is_no_finding() -> None:
    assert shell.completion(where({"SHELL": "/bin/dash"})).state == "ok"
    assert shell.completion(where()).state == "ok"
