"""Keys of a whole process: a bind beyond loopback, SIGHUP, and no secret in anything that it says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from neuron.key_file import change
from tests.support.callers import OPERATOR, OPERATOR_SECRET, READER, READER_SECRET, bearer
from tests.support.cli import neuron
from tests.support.node_process import NodeProcess, node
from tests.support.node_server import eventually

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
WRONG = "nk_" + "W" * 43


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.toml"
    change(path, lambda ring: ring.with_key(READER))
    return path


def status(running: NodeProcess, secret: str | None, path: str = "/health", host: str = "localhost") -> int:
    headers = {"host": host, **({} if secret is None else bearer(secret))}
    return httpx.get(running.url + path, headers=headers, trust_env=False).status_code


def test_sighup_takes_over_new_and_revoked_keys_and_keeps_the_old_on_a_mistake(keys_file: Path) -> None:
    with node(env={"NEURON_KEYS_FILE": str(keys_file), "NEURON_LOG_FORMAT": "json"}) as running:
        assert [status(running, secret) for secret in (None, READER_SECRET, OPERATOR_SECRET)] == [
            401,
            200,
            401,
        ]
        made = neuron("keys", "add", "late", "--file", str(keys_file)).stdout.strip()
        assert neuron("keys", "revoke", "reader", "--file", str(keys_file)).returncode == 0
        assert status(running, made) == 401
        running.process.send_signal(signal.SIGHUP)
        eventually(lambda: status(running, made) == 200)
        assert status(running, READER_SECRET) == 401
        keys_file.chmod(0o644)
        running.process.send_signal(signal.SIGHUP)
        eventually(lambda: any("settings not reloaded" in line for line in running.log))
        assert [status(running, secret) for secret in (None, made)] == [401, 200]
        keys_file.unlink()
        running.process.send_signal(signal.SIGHUP)
        eventually(lambda: sum("settings not reloaded" in line for line in running.log) == 2)
        assert [status(running, secret) for secret in (None, made)] == [401, 200]
        assert running.stop() == 0


def test_no_secret_is_in_the_log_or_in_the_process_list_whatever_is_asked(keys_file: Path) -> None:
    change(keys_file, lambda ring: ring.with_key(OPERATOR))
    env = {"NEURON_KEYS_FILE": str(keys_file), "NEURON_LOG_LEVEL": "debug"}
    with node(env=env) as running:
        with httpx.Client(base_url=running.url, trust_env=False) as client:
            for secret in (READER_SECRET, OPERATOR_SECRET, WRONG):
                for headers in (bearer(secret), {"x-api-key": secret}):
                    client.get("/health", headers=headers)
                    client.get("/nowhere", headers=headers)
                    client.post("/v1/chat/completions", json=CHAT, headers=headers)
                    client.post("/v1/messages", json=CHAT, headers=headers)
                    client.post("/models/load", json={"model_id": "./x"}, headers=headers)
                    client.post("/models/load", content=b"{", headers=headers)
        command = Path(f"/proc/{running.process.pid}/cmdline").read_bytes().decode()
        running.process.send_signal(signal.SIGHUP)
        eventually(lambda: any("keys reloaded" in line for line in running.log))
        assert running.stop() == 0
    log = "".join(running.log)
    assert log.count("refused") > 10
    for secret in (READER_SECRET, OPERATOR_SECRET, WRONG):
        assert secret not in log + command
        assert secret[3:20] not in log
    assert READER.sha256.hex() not in log


def test_keys_open_a_bind_beyond_loopback_and_insecure_does_not_switch_them_off(keys_file: Path) -> None:
    for more in ([], ["--insecure"]):
        with node("--bind", "0.0.0.0", *more, env={"NEURON_KEYS_FILE": str(keys_file)}) as running:
            assert [status(running, secret) for secret in (None, READER_SECRET)] == [401, 200]
            assert running.stop() == 0
        assert "insecure" not in "".join(running.log)


def test_without_keys_insecure_lets_everybody_in_and_says_so_once(tmp_path: Path) -> None:
    with node("--bind", "0.0.0.0", "--insecure", "--allowed-host", "gpu1.example") as running:
        assert status(running, None) == 200
        assert status(running, None, host="gpu1.example") == 200
        assert status(running, None, host="evil.example") == 403
        assert running.stop() == 0
    assert "".join(running.log).count("insecure") == 1


def test_without_keys_a_bind_beyond_loopback_is_refused() -> None:
    done = neuron("serve", "--bind", "0.0.0.0", "--port", "0")
    assert (done.returncode, done.stdout) == (78, "")
    assert "neuron keys add" in done.stderr
    assert "--insecure" in done.stderr


def test_a_file_of_keys_that_is_named_must_be_there(tmp_path: Path) -> None:
    done = neuron("serve", "--port", "0", env={"NEURON_KEYS_FILE": str(tmp_path / "none.toml")})
    assert done.returncode == 78
    assert "none.toml: No such file" in done.stderr


def test_the_credential_of_a_service_is_read(keys_file: Path, tmp_path: Path) -> None:
    (tmp_path / "credentials").mkdir()
    credential = tmp_path / "credentials" / "api-keys"
    change(credential, lambda ring: ring.with_key(OPERATOR))
    credential.chmod(0o440)
    env = {"NEURON_KEYS_FILE": str(keys_file), "CREDENTIALS_DIRECTORY": str(credential.parent)}
    with node(env=env) as running:
        found = [status(running, secret) for secret in (None, READER_SECRET, OPERATOR_SECRET)]
        assert found == [401, 200, 200]
        assert running.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_root_leaves_the_file_to_the_service_that_it_belongs_to(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    os.chown(folder, 4242, 4243)
    path = folder / "keys.toml"
    for name in ("a", "b"):
        assert neuron("keys", "add", name, "--file", str(path)).returncode == 0
        assert (path.stat().st_uid, path.stat().st_gid) == (4242, 4243)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_file_of_somebody_else_is_not_believed(keys_file: Path) -> None:
    os.chown(keys_file, 4242, 4242)
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom neuron.errors import ExposedSecret\n"
        "from neuron.secret_file import check_private\n"
        "path = Path(sys.argv[1]); status = path.stat(); os.seteuid(4243)\n"
        "try: check_private(path, status)\n"
        "except ExposedSecret as e: print(e)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(keys_file)], capture_output=True, text=True)
    assert "belongs to another user" in done.stdout, done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_what_this_user_may_not_see_is_said_and_never_taken_for_nothing(keys_file: Path) -> None:
    keys_file.parent.chmod(0o700)
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom neuron import keys, key_file, nodes\n"
        "from neuron.errors import ExposedSecret\n"
        "path = Path(sys.argv[1]); os.environ['NEURON_STATE'] = str(path.parent); os.seteuid(4243)\n"
        "for work in (lambda: keys.load(None, {}), lambda: key_file.change(path, lambda ring: ring),\n"
        "             lambda: nodes.read({'XDG_CONFIG_HOME': str(path.parent)})):\n"
        "    try: print('passed', work())\n"
        "    except ExposedSecret as e: print(e)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(keys_file)], capture_output=True, text=True)
    said = done.stdout.splitlines()
    assert len(said) == 3, done.stderr
    assert all("this user may not" in line for line in said)


def test_a_refusal_has_one_line_with_the_id_that_its_client_got(keys_file: Path) -> None:
    with node(env={"NEURON_KEYS_FILE": str(keys_file), "NEURON_LOG_FORMAT": "json"}) as running:
        answer = httpx.get(f"{running.url}/health", headers=bearer(WRONG), trust_env=False)
        assert running.stop() == 0
    line = next(line for line in map(json.loads, running.log) if line["event"] == "refused")
    assert (line["status"], line["code"], line["path"]) == (401, "invalid_api_key", "/health")
    assert line["id"] == answer.headers["x-request-id"]
