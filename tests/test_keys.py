"""The file of keys: what is kept of a secret, who may read the file, and how it changes."""

from __future__ import annotations

import ast
import json
import os
import stat
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from neuron import keys
from neuron.errors import ConfigError, ExposedSecret, KeyNotFound, UsageError
from neuron.key_file import change
from neuron.keys import Keyring, Scope
from tests.support.callers import OPERATOR, OPERATOR_SECRET, READER, READER_SECRET, RING
from tests.support.cli import neuron

GOOD = f'[a]\nscope = "infer"\ncreated = 2026-01-02\nsha256 = "{"0" * 64}"\n'


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture
def umask() -> Iterator[None]:
    """One that would let everybody read what is made."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_a_key_is_found_by_its_secret_and_by_nothing_near_it() -> None:
    assert RING.find(READER_SECRET.encode()) is READER
    assert RING.find(OPERATOR_SECRET.encode()) is OPERATOR
    for other in (b"", b"nk_", READER_SECRET[:-1].encode(), READER_SECRET.encode() + b"\0", b"\xff" * 1000):
        assert RING.find(other) is None
    assert Keyring(()).find(READER_SECRET.encode()) is None


def test_secrets_have_256_bits_and_are_never_the_same() -> None:
    made = {keys.make("a", Scope.INFER)[1] for _ in range(100)}
    assert len(made) == 100
    assert {len(secret) for secret in made} == {3 + 43}  # 43 characters of 6 bits


def test_secrets_are_compared_in_constant_time_and_by_nothing_else() -> None:
    tree = ast.parse(Path(keys.__file__).read_text())
    find = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "find")
    calls = [ast.unparse(n.func) for n in ast.walk(find) if isinstance(n, ast.Call)]
    assert "hmac.compare_digest" in calls
    assert not [n for n in ast.walk(find) if isinstance(n, ast.Compare)]
    loop = next(n for n in ast.walk(find) if isinstance(n, ast.For))
    assert not [n for n in ast.walk(loop) if isinstance(n, ast.Break | ast.Return)]


def test_what_is_written_is_read_again_and_holds_no_secret(tmp_path: Path) -> None:
    limited, secret = keys.make("batch-1", Scope.INFER, 4)
    path = tmp_path / "keys.toml"
    for key in (READER, limited):
        change(path, lambda ring, key=key: ring.with_key(key))  # type: ignore[misc]
    assert keys.read(path) == Keyring((READER, limited))
    assert READER_SECRET not in path.read_text()
    assert secret not in path.read_text()


def test_the_file_is_for_its_owner_alone_whatever_the_umask(
    tmp_path: Path, umask: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURON_STATE", str(tmp_path / "state" / "neuron"))
    path = keys.default_file()
    change(path, lambda ring: ring.with_key(READER))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [p.name for p in path.parent.iterdir()] == ["keys.toml"]


def test_a_folder_that_is_not_the_state_folder_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "a b" / "keys.toml"
    with pytest.raises(ConfigError, match="there is no folder") as refused:
        change(path, lambda ring: ring.with_key(READER))
    assert refused.value.hint == f"mkdir -p '{path.parent}'"
    assert not path.parent.exists()


def test_a_change_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys.toml"
    change(path, lambda ring: ring.with_key(READER))
    before = path.read_bytes()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="No space left"):
        change(path, lambda ring: ring.with_key(OPERATOR))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["keys.toml"]


def test_changes_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"

    def add(name: str) -> None:
        def slowly(ring: Keyring) -> Keyring:
            time.sleep(0.02)  # for the others to read what is there now
            return ring.with_key(keys.make(name, Scope.INFER)[0])

        change(path, slowly)

    with ThreadPoolExecutor(
        8
    ) as pool:  # a lock is one opening of the folder's, so threads are as good as processes
        list(pool.map(add, (f"k{n}" for n in range(16))))
    assert len(keys.read(path).keys) == 16


def test_a_link_to_the_file_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.toml", tmp_path / "keys.toml"
    change(real, lambda ring: ring.with_key(READER))
    link.symlink_to(real)
    change(link, lambda ring: ring.with_key(OPERATOR))
    assert link.is_symlink()
    assert keys.read(real) == Keyring((READER, OPERATOR))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602, 0o644, 0o666])
def test_a_file_that_others_can_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path / "keys.toml", GOOD, mode)
    with pytest.raises(ExposedSecret, match=f"others can read it.*{mode:04o}") as refused:
        keys.load(path, {})
    assert refused.value.hint == f"chmod 600 {path}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a = 1", ":1: 'a' is not a table"),
        ("[a]", ":1: [a]: sha256 is missing"),
        (GOOD.replace("infer", "all"), ":2: [a]: Invalid enum value 'all' in scope"),
        (GOOD.replace("sha256", "sha255"), ":4: [a]: unknown key 'sha255'"),
        (GOOD.replace("0" * 64, "0" * 63), ":4: [a]: Expected `str` matching regex"),
        (GOOD + "max_in_flight = 0", ":5: [a]: Expected `int` >= 1 in max_in_flight"),
        (GOOD.replace("2026-01-02", "'today'"), ":3: [a]: Invalid RFC3339"),
        (GOOD.replace("[a]", "['a b']"), ":1: 'a b' is not the name of a key"),
        (GOOD.replace("[a]", "[anonymous]"), ":1: no key can be named anonymous"),
        (GOOD + GOOD, ":5: not valid TOML"),
        ("\n\n[a", ":3: not valid TOML"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_file_and_line(tmp_path: Path, text: str, says: str) -> None:
    path = written(tmp_path / "keys.toml", text)
    with pytest.raises(ConfigError) as refused:
        keys.load(path, {})
    assert refused.value.message.startswith(f"{path}{says}")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    written(tmp_path / "big", "#" * (1 << 20) + "\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "binary").chmod(0o600)
    for name, says in [
        ("missing", "No such file"),
        ("fifo", "not a regular file"),
        ("big", "larger than"),
        ("binary", "not UTF-8"),
    ]:
        with pytest.raises(ConfigError, match=says):
            keys.load(tmp_path / name, {})


def test_without_any_file_no_keys_are_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURON_STATE", str(tmp_path / "none"))
    assert keys.load(None, {}) is None
    assert keys.load(None, {"CREDENTIALS_DIRECTORY": str(tmp_path)}) is None


def test_the_default_file_and_the_credential_are_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURON_STATE", str(tmp_path / "state"))
    change(tmp_path / "state" / "keys.toml", lambda ring: ring.with_key(READER))
    credential = written(tmp_path / "api-keys", keys.text_of(Keyring((OPERATOR,))), 0o440)
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert keys.load(None, env) == Keyring((READER, OPERATOR))
    credential.chmod(0o444)
    with pytest.raises(ExposedSecret):
        keys.load(None, env)
    credential.chmod(0o600)
    credential.write_text(keys.text_of(Keyring((READER,))))
    with pytest.raises(ConfigError, match="two keys named 'reader'"):
        keys.load(None, env)


def test_a_file_without_keys_is_no_open_door(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    change(path, lambda ring: ring.with_key(READER))
    change(path, lambda ring: ring.without("reader", path))
    assert keys.load(path, {}) == Keyring(())


def test_names_are_taken_once_and_must_be_there_to_go(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is a key named 'reader'"):
        RING.with_key(READER)
    with pytest.raises(KeyNotFound, match="no key named 'nobody'") as refused:
        RING.without("nobody", tmp_path)
    assert refused.value.hint == f"the keys there are {', '.join(key.name for key in RING.keys)}"
    with pytest.raises(KeyNotFound) as refused:
        RING.without("raeder", tmp_path)
    assert refused.value.hint == "did you mean reader?"
    with pytest.raises(KeyNotFound) as refused:
        Keyring(()).without("nobody", tmp_path)
    assert refused.value.hint == "it holds no key; --file names another file"


# ---- the commands


def keys_command(tmp_path: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return neuron("keys", *args, env={"NEURON_STATE": str(tmp_path)})


def test_a_secret_is_printed_once_alone_on_stdout(tmp_path: Path) -> None:
    done = keys_command(tmp_path, "add", "alice")
    assert done.returncode == 0
    assert "SIGHUP" in done.stderr
    secret = done.stdout.removesuffix("\n")
    assert secret.startswith("nk_")
    assert secret not in done.stderr
    ring = keys.read(tmp_path / "keys.toml")
    found = ring.find(secret.encode())
    assert found is not None
    assert (found.name, found.scope, found.max_in_flight) == ("alice", Scope.INFER, None)


def test_keys_are_made_listed_and_revoked_as_json_too(tmp_path: Path) -> None:
    made = json.loads(
        keys_command(tmp_path, "add", "f", "--scope", "manage", "--max-in-flight", "3", "--json").stdout
    )
    assert keys_command(tmp_path, "add", "g").returncode == 0
    listed = json.loads(keys_command(tmp_path, "list", "--json").stdout)
    assert [key["name"] for key in listed] == ["f", "g"]
    assert listed[0] == {k: v for k, v in made.items() if k not in ("secret", "file")}
    table = keys_command(tmp_path, "list").stdout
    assert table.split()[:2] == ["NAME", "SCOPE"]
    assert made["secret"] not in table
    assert keys_command(tmp_path, "revoke", "f").stdout == "revoked: f\n"
    assert "no key is left" in keys_command(tmp_path, "revoke", "g").stderr
    assert json.loads(keys_command(tmp_path, "list", "--json").stdout) == []


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["add", "a b"], 64, "not the name of a key"),
        (["add", "anonymous"], 64, "no key can be named"),
        (["add", "a", "--scope", "all"], 64, "--scope"),
        (["add", "a", "--max-in-flight", "0"], 64, "--max-in-flight"),
        (["revoke", "nobody"], 1, "no key named 'nobody'"),
        (["list", "--file", "/nonexistent/keys.toml"], 78, "No such file"),
        (["add", "a", "--file", "/dev/null/keys.toml"], 78, "Not a directory"),
        (["frob"], 64, "frob"),
    ],
)
def test_mistakes_are_one_line_and_an_exit_code(
    tmp_path: Path, args: list[str], code: int, says: str
) -> None:
    done = keys_command(tmp_path, *args)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr


def test_an_exposed_file_is_exit_77_for_the_commands_and_for_the_node(tmp_path: Path) -> None:
    path = written(tmp_path / "keys.toml", GOOD, 0o644)
    for args in (("keys", "list"), ("keys", "add", "b"), ("serve", "--port", "0")):
        done = neuron(*args, env={"NEURON_STATE": str(tmp_path)})
        assert (done.returncode, done.stdout) == (77, "")
        assert f"hint: chmod 600 {path}" in done.stderr
    assert path.read_text() == GOOD
