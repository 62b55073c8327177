"""A node in service: what its manager is told, sockets, TLS, signals, a log that nobody reads."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from neuron.client import NodeClient
from neuron.daemon.listen import bind, handed_over, listen
from neuron.daemon.notify import Notify
from neuron.daemon.supervision import in_words
from neuron.engine.status import DecodeStatus, EngineStatus
from neuron.errors import AddressInUse, ConfigError, NodeUnreachable
from neuron.progress import Progress
from neuron.settings import Settings, resolve
from tests.support.fake_engine import FakeEngine
from tests.support.node_process import NEURON, clean_env, cli
from tests.support.node_server import eventually, http, parsed, read_all
from tests.support.supervisor import manager, service

ACTIVATE = shutil.which("systemd-socket-activate")
OPENSSL = shutil.which("openssl")


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for this host, signed by itself, and its key."""
    if OPENSSL is None:
        pytest.skip("needs openssl")
    folder = tmp_path_factory.mktemp("tls")
    return make_pem(folder, "localhost")


def make_pem(folder: Path, name: str) -> tuple[Path, Path]:
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    names = f"subjectAltName=DNS:{name},IP:127.0.0.1"
    subprocess.run(
        [str(OPENSSL), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "30", "-subj", f"/CN={name}", "-addext", names, "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return cert, key


# ---- what a manager is told


def test_a_manager_hears_of_start_status_progress_reload_and_end(tmp_path: Path) -> None:
    with manager(tmp_path) as told:
        env = {
            "NOTIFY_SOCKET": told.address,
            "WATCHDOG_USEC": "600000",
            "XDG_CONFIG_HOME": str(tmp_path),
        }
        with service("--port", "0", env=env) as node:
            told.await_("READY", "1")
            with NodeClient(node.url) as client:
                assert client.health().body.accepting
            told.await_("STATUS", "0 models; 0 running, 0 waiting")
            eventually(lambda: len(told.said("WATCHDOG")) > 3)
            node.popen.send_signal(signal.SIGHUP)
            told.await_("RELOADING", "1")
            eventually(lambda: len(told.said("READY")) == 2)
            node.popen.terminate()
            assert node.popen.wait(20) == 0
        told.await_("STOPPING", "1")
        told.await_("STATUS", "draining")
        assert int(told.said("EXTEND_TIMEOUT_USEC")[0]) >= 1_000_000
        reloading = next(message for message in told.messages if "RELOADING" in message)
        assert abs(time.monotonic_ns() // 1000 - int(reloading["MONOTONIC_USEC"])) < 60_000_000


def test_a_manager_may_listen_at_an_abstract_address(tmp_path: Path) -> None:
    from tests.support.supervisor import Manager

    told = Manager(f"@neuron-test-{os.getpid()}")
    Notify(told.address).say(READY=1, STATUS="a b=c")
    told.await_("STATUS", "a b=c")
    told.close()


@pytest.mark.parametrize(
    ("env", "watchdog_s"),
    [
        ({}, None),
        ({"NOTIFY_SOCKET": "/run/x"}, None),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "3000000"}, 3.0),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "3000000"}, None),
    ],
)
def test_a_watchdog_counts_where_it_is_this_process_s(env: dict[str, str], watchdog_s: float | None) -> None:
    notify = Notify.from_env(env)
    assert notify.watchdog_s == watchdog_s
    assert notify.listens is (("NOTIFY_SOCKET" not in env and bool(notify._address)) or notify.listens)
    assert not env
    notify.say(READY=1)  # nobody is there: nothing happens


async def test_a_stalled_decode_loop_gives_no_sign_of_life(tmp_path: Path) -> None:
    from neuron.daemon.supervision import Supervision

    engine = FakeEngine()
    with manager(tmp_path) as told:
        supervision = Supervision(Notify(told.address, watchdog_s=30), engine.status)
        supervision.look()
        told.await_("WATCHDOG")
        engine.decode = DecodeStatus(stalled=True)
        supervision.look()
        told.await_("STATUS", "decoding is stalled")
        assert len(told.said("WATCHDOG")) == 1


def test_the_status_line_names_models_work_and_loads() -> None:
    engine = FakeEngine()
    assert in_words(engine.status()) == "org/tiny; 0 running, 0 waiting"
    loading = FakeEngine.loaded("b")
    loading = replace(loading, state="loading", load=None, progress=Progress("read", 45, 100))
    assert in_words(EngineStatus(models=(loading,)), draining=True) == (
        "draining; 0 models; 0 running, 0 waiting; loading b 45 %"
    )


def test_a_model_that_has_two_ids_counts_once() -> None:
    one = FakeEngine.loaded("one")
    assert one.load is not None
    busy = replace(one, load=replace(one.load, in_flight=3, queue_depth=2))
    both = EngineStatus(models=(busy, replace(busy, id="other", alias_of="one")))
    assert in_words(both) == "one; 3 running, 2 waiting"


# ---- sockets


@pytest.mark.skipif(ACTIVATE is None, reason="needs systemd-socket-activate")
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_systemd_hands_over_its_socket(tmp_path: Path, kind: str) -> None:
    where = tmp_path / "neuron.sock"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"127.0.0.1:{port}" if kind == "tcp" else str(where)
    url = f"http://127.0.0.1:{port}" if kind == "tcp" else f"unix://{where}"
    command = [
        str(ACTIVATE),
        "--listen",
        address,
        "-E",
        "NEURON_LOG_FORMAT=json",
        *carried(),
        *NEURON,
        "serve",
    ]
    with service(command=command) as node:
        time.sleep(0.5)
        assert not node.events("listening")  # the first connection starts it
        with NodeClient(url, connect_s=30, answer_s=60) as client:
            assert client.version().package_version
        assert node.url == url
        node.popen.terminate()
        assert node.popen.wait(20) == 0
    assert kind == "tcp" or where.exists()  # it is the manager's


def carried() -> list[str]:
    """The environment as options: socket-activate passes on little by itself."""
    env = clean_env()
    return [
        word
        for name in ("PATH", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "HOME")
        for word in ("-E", f"{name}={env.get(name, '/')}")
    ]


def test_descriptors_of_another_process_are_left_alone() -> None:
    env = {"LISTEN_PID": "1", "LISTEN_FDS": "2"}
    assert handed_over(env) == []
    assert env == {}


def test_a_descriptor_that_does_not_listen_is_refused() -> None:
    script = (
        "import os, socket; from neuron.daemon.listen import handed_over\n"
        "s = socket.socket(); os.dup2(s.fileno(), 3)\n"
        "handed_over({'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '1'})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "does not listen for streams" in done.stderr


def test_a_node_listens_on_a_unix_socket_and_every_command_reaches_it(tmp_path: Path) -> None:
    where = tmp_path / "n.sock"
    with service("--uds", where) as node:
        assert node.url == f"unix://{where}"
        assert stat.S_IMODE(where.stat().st_mode) & 0o077 & ~0o055 == 0  # others may not connect
        for command in (["health", "--json"], ["models"], ["version"], ["discovery", "--json"], ["explain"]):
            done = cli(*command, NEURON_HOST=f"unix://{where}")
            assert done.returncode == 0, done.stderr
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(where))
            sock.sendall(http("GET", "/health", b"", {}))
            assert parsed(read_all(sock))[0] == 200
        node.popen.terminate()
        assert node.popen.wait(20) == 0
    assert not where.exists()


def test_the_socket_of_a_dead_node_is_replaced_and_a_live_one_s_is_not(tmp_path: Path) -> None:
    where = tmp_path / "n.sock"
    bind(Settings(uds=where)).close()
    assert where.exists()  # as after a crash
    with bind(Settings(uds=where)), pytest.raises(AddressInUse, match=rf"by process {os.getpid()} \("):
        bind(Settings(uds=where))
    where.unlink()
    where.write_text("mine")
    with pytest.raises(ConfigError, match="something else is there"):
        bind(Settings(uds=where))
    assert where.read_text() == "mine"
    with pytest.raises(ConfigError, match="too long"):
        bind(Settings(uds=tmp_path / ("x" * 120)))


def test_tls_and_a_unix_socket_do_not_go_together(tmp_path: Path, pem: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match="Unix socket has none"):
        listen(Settings(uds=tmp_path / "n.sock", tls_cert=pem[0], tls_key=pem[1]), env={})


def test_a_unix_socket_and_a_port_that_was_said_do_not_go_together(tmp_path: Path) -> None:
    settings = resolve({"uds": tmp_path / "n.sock", "port": 3}, {})
    with pytest.raises(ConfigError, match=r"port \(--port\) names another place"):
        listen(settings, env={})


def test_a_port_in_use_names_the_process_that_holds_it() -> None:
    with bind(Settings(port=0)) as first:
        port = first.getsockname()[1]
        with pytest.raises(AddressInUse, match=rf"in use by process {os.getpid()} \("):
            bind(Settings(port=port))
        done = cli("serve", "--port", str(port))
    assert done.returncode == 75
    assert f"process {os.getpid()}" in done.stderr


# ---- TLS


def test_clients_speak_tls_with_a_node_whose_authority_they_trust(pem: tuple[Path, Path]) -> None:
    cert, key = pem
    with service("--port", "0", "--tls-cert", cert, "--tls-key", key) as node:
        assert node.url.startswith("https://127.0.0.1:")
        trusted = cli("health", "--host", node.url, SSL_CERT_FILE=str(cert))
        assert trusted.returncode == 0, trusted.stderr
        by_name = node.url.replace("127.0.0.1", "localhost")
        assert cli("version", "--host", by_name, SSL_CERT_FILE=str(cert)).returncode == 0
        strange = cli("health", "--host", node.url)
        assert strange.returncode == 69
        assert "its certificate is not accepted" in strange.stderr
        assert "SSL_CERT_FILE" in strange.stderr
        plain = cli("health", "--host", node.url.replace("https", "http"))
        assert plain.returncode == 69
        assert "Traceback" not in plain.stderr
        node.popen.terminate()
        assert node.popen.wait(20) == 0


def test_tls_with_a_node_that_has_none_is_said() -> None:
    with service("--port", "0") as node, pytest.raises(NodeUnreachable, match="no TLS with"):
        NodeClient(node.url.replace("http:", "https:")).health()


def test_a_reload_takes_a_renewed_certificate(tmp_path: Path, pem: tuple[Path, Path]) -> None:
    cert, key = tmp_path / "c.pem", tmp_path / "k.pem"
    shutil.copy(pem[0], cert)
    shutil.copy(pem[1], key)
    with service("--port", "0", "--tls-cert", cert, "--tls-key", key) as node:
        port = int(node.url.rpartition(":")[2])
        first = ssl.get_server_certificate(("127.0.0.1", port))
        assert first == pem[0].read_text()
        renewed = make_pem(tmp_path, "renewed")
        shutil.copy(renewed[0], cert)
        node.popen.send_signal(signal.SIGHUP)
        assert "not that of the certificate" in node.await_event("settings not reloaded")["cause"]
        assert ssl.get_server_certificate(("127.0.0.1", port)) == first
        shutil.copy(renewed[1], key)
        node.popen.send_signal(signal.SIGHUP)
        node.await_event("settings reloaded")
        assert ssl.get_server_certificate(("127.0.0.1", port)) == renewed[0].read_text()


@pytest.mark.parametrize(
    ("args", "says", "code"),
    [
        (["--tls-cert", "{cert}"], "tls_cert and tls_key go together", 78),
        (
            ["--tls-cert", "{cert}", "--tls-key", "{cert}"],
            "--tls-key: {cert} holds a certificate and no private key",
            78,
        ),
        (["--tls-cert", "{key}", "--tls-key", "{cert}"], "hint: are tls_cert and tls_key swapped?", 78),
        (["--tls-cert", "{cert}", "--tls-key", "{other}"], "the key is not that of the certificate", 78),
        (
            ["--tls-cert", "/proc/version", "--tls-key", "{key}"],
            "/proc/version holds no certificate in PEM",
            78,
        ),
        (["--tls-cert", "/nonexistent/c", "--tls-key", "{key}"], "there is no file /nonexistent/c", 64),
        (["--tls-cert", "{cert}", "--tls-key", "{locked}"], "passphrase", 78),
    ],
)
def test_tls_files_that_can_t_be_taken_are_said_at_the_start(
    tmp_path: Path, pem: tuple[Path, Path], args: list[str], says: str, code: int
) -> None:
    locked = tmp_path / "locked.key"
    command = [str(OPENSSL), "pkcs8", "-topk8", "-in", str(pem[1]), "-out", str(locked), "-passout", "pass:x"]
    subprocess.run(command, check=True, capture_output=True)
    files = {"cert": pem[0], "key": pem[1], "locked": locked, "other": make_pem(tmp_path, "other")[1]}
    named = [arg.format(**files) for arg in args]
    done = cli("serve", "--port", "0", *named, timeout_s=30)
    assert done.returncode == code
    assert says.format(**files) in done.stderr
    assert done.stderr.startswith("neuron: ")
    assert len(done.stderr.splitlines()) <= 2


# ---- signals


def test_sighup_takes_limits_and_names_what_needs_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "neuron.toml"
    file.write_text("max_in_flight = 3\nthreads = 1\n")
    with service("--port", "0", "--config", file) as node:
        assert node.url
        file.write_text('max_in_flight = 5\nlog_level = "debug"\nthreads = 2\nmax_body_bytes = 64\n')
        node.popen.send_signal(signal.SIGHUP)
        line = node.await_event("settings reloaded")
        assert line["changed"] == "max_in_flight, max_body_bytes, log_level"
        assert line["restart_for"] == "threads"
        with socket.create_connection(("127.0.0.1", int(node.url.rpartition(":")[2]))) as sock:
            sock.sendall(http("POST", "/tokenize", b"x" * 100, {"content-type": "application/json"}))
            assert parsed(read_all(sock))[0] == 413
        file.write_text('max_in_flight = 0\ncolour = "red"\n')
        node.popen.send_signal(signal.SIGHUP)
        first, second = (node.await_event("settings not reloaded", n)["cause"] for n in (1, 2))
        assert first.startswith(f"{file}:1: max_in_flight: 0 is not")
        assert second == f"{file}:2: unknown key 'colour'"
        node.popen.terminate()
        assert node.popen.wait(20) == 0


def test_sigusr1_shows_every_thread_and_the_node_goes_on() -> None:
    with service("--port", "0") as node:
        assert node.url
        for _ in range(50):  # while another thread imports torch
            node.popen.send_signal(signal.SIGUSR1)
            time.sleep(0.02)
        eventually(
            lambda: {"MainThread", "neuron-readings"} <= {s["thread"] for s in node.events("stack")}, 30
        )
        mains = [s["frames"] for s in node.events("stack") if s["thread"] == "MainThread"]
        assert any(" < base_events.py:" in main for main in mains)
        with NodeClient(node.url) as client:
            assert client.health().body.accepting


def test_sigusr1_shows_where_a_loop_hangs() -> None:
    script = (
        "import os, signal, time; from neuron import log; from neuron.daemon import stacks\n"
        "stacks.show_on_signal(); log.setup('info', 'text')\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\n"
        "def hangs(): time.sleep(2)\n"
        "hangs()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert re.search(r"stack thread=MainThread frames=\"<string>:4 hangs", done.stderr), done.stderr


def test_sigpipe_means_nothing_and_sigabrt_shows_where_the_node_ended() -> None:
    # without torch: a thread that imports it while its frames are being shown may end the process first
    with service("--port", "0", env={"NEURON_HARNESSES": ","}) as node:
        assert node.url
        node.popen.send_signal(signal.SIGPIPE)
        with NodeClient(node.url) as client:
            assert client.health().body.accepting
        node.popen.send_signal(signal.SIGABRT)
        assert node.popen.wait(20) == -signal.SIGABRT
        eventually(lambda: any("Fatal Python error: Aborted" in line for line in node.lines))


# ---- a log that nobody reads


def test_a_full_stderr_that_nobody_reads_does_not_hold_up_a_node() -> None:
    read_end, write_end = os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    node = subprocess.Popen(
        [*NEURON, "serve", "--port", str(port), "--log-format", "json"], stderr=write_end, env=clean_env()
    )
    os.close(write_end)
    try:
        with NodeClient(f"http://127.0.0.1:{port}", answer_s=10) as client:
            eventually(lambda: answers(client), 30)
            for _ in range(6000):  # each is a line of log; a pipe takes some 400 of them
                client._http.get(f"{client.url}/nowhere", headers={"host": "x.invalid"})
            assert client.health().body.accepting
        with open(read_end, encoding="utf-8") as log:
            line = next(line for line in log if "log lines dropped" in line)
            assert '"lines"' in line
            node.terminate()
            log.read()
        assert node.wait(20) == 0
    finally:
        node.kill()
        node.wait()


def answers(client: NodeClient) -> bool:
    try:
        return client.health().body.accepting
    except NodeUnreachable:
        return False


def test_a_journal_gets_priorities_where_stderr_is_its_stream(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with path.open("w") as stream:
        status = os.fstat(stream.fileno())
        env = clean_env({"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        node = subprocess.Popen([*NEURON, "serve", "--port", "0"], stderr=stream, env=env)
    eventually(lambda: "listening" in path.read_text(), 30)
    node.terminate()
    assert node.wait(20) == 0
    lines = path.read_text().splitlines()
    assert lines[0].startswith("<6>listening url=http://127.0.0.1:")
    assert all(line.startswith("<6>") for line in lines)
