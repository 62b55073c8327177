"""``neuron config``: what holds and where it was said, mistakes, a file to begin with."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from neuron.settings import ABOUT, KEYS, Settings, resolve
from neuron.torch_build import Build, lacks
from tests.support.cli import neuron
from tests.support.hosts import CPU_HOST, GPU_HOST


def test_show_has_every_key_with_its_value_and_its_origin(tmp_path: Path) -> None:
    file = tmp_path / "neuron.toml"
    file.write_text('\nthreads = 3\nmodel_roots = ["/tmp"]\n')
    done = neuron("config", "show", "--json", "--config", str(file), env={"NEURON_PORT": "0"})
    shown = json.loads(done.stdout)
    assert list(shown) == list(KEYS)
    assert shown["threads"] == {"value": 3, "origin": "file", "at": f"{file}:2"}
    assert shown["model_roots"] == {"value": ["/tmp"], "origin": "file", "at": f"{file}:3"}
    assert shown["port"] == {"value": 0, "origin": "environment", "at": "NEURON_PORT"}
    assert shown["bind"] == {"value": "127.0.0.1", "origin": "default", "at": None}
    lines = neuron("config", "show", "--origin", env={"NEURON_PORT": "0"}).stdout.splitlines()
    assert lines[0].split() == ["KEY", "VALUE", "ORIGIN"]
    assert ["port", "0", "NEURON_PORT"] in [line.split() for line in lines]
    assert "default" not in neuron("config", "show").stdout


def test_check_is_quiet_about_a_good_file_and_exact_about_a_bad_one(tmp_path: Path) -> None:
    file = tmp_path / "neuron.toml"
    file.write_text("threads = 2\n")
    done = neuron("config", "check", str(file))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{file}: good\n", "")
    file.write_text("threads = 2\nprot = 1\n")
    done = neuron("config", "check", str(file))
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == f"neuron: {file}:2: unknown key 'prot'\nhint: did you mean port?\n"
    assert neuron("config", "check", str(tmp_path / "none.toml")).returncode == 78
    assert neuron("config", "check").stdout == "no file, the defaults: good\n"


@pytest.mark.parametrize(
    ("line", "says", "code"),
    [
        ('bind = "0.0.0.0"', "reachable from other hosts", 78),
        ('bind = "nowhere.invalid"', "not an address", 78),
        ('tls_cert = "neuron.toml"', "go together", 78),
        ('tls_cert = "neuron.toml"\ntls_key = "neuron.toml"', "neuron.toml:1: tls_cert: ", 78),
        ('keys_file = "missing"', "neuron.toml:1: keys_file: ", 78),
        ('keys_file = "neuron.toml"', "others can read it", 77),
        ('harnesses = ["tourch"]', "neuron.toml:1: harnesses: ", 78),
        ('models = ["smolm2"]', "neuron.toml:1: models: 'smolm2' is no short name", 78),
        ('models_on_request = ["a b"]', "neuron.toml:1: models_on_request: not a model reference", 78),
    ],
)
def test_check_looks_at_what_the_settings_name(tmp_path: Path, line: str, says: str, code: int) -> None:
    file = tmp_path / "neuron.toml"
    file.write_text(line)
    done = neuron("config", "check", str(file))
    assert done.returncode == code
    assert says in done.stderr


def test_init_writes_a_file_that_says_nothing_until_it_is_edited(tmp_path: Path) -> None:
    done = neuron("config", "init", env={"XDG_CONFIG_HOME": str(tmp_path)})
    file = tmp_path / "neuron" / "neuron.toml"
    assert done.stdout == f"{file}\n"
    assert resolve({}, {}, file) == Settings()
    assert neuron("config", "check", str(file)).returncode == 0
    assert neuron("config", "init", "-").stdout == file.read_text()


def test_every_default_of_the_file_is_the_default(tmp_path: Path) -> None:
    text = neuron("config", "init", "-").stdout
    said = re.findall(r"(?m)^# (\w+ = .+)$", text)
    assert [line.partition(" ")[0] for line in said] == list(KEYS)
    words = " ".join(text.replace("\n# ", " ").split())
    assert all(about.help in words for about in ABOUT.values())
    file = tmp_path / "neuron.toml"
    with_default = [line for line in said if getattr(Settings(), line.partition(" ")[0]) is not None]
    file.write_text("\n".join(with_default))
    settings = resolve({}, {}, file)
    assert settings == Settings()
    assert len(settings.origins) == len(with_default) > 20


def test_init_replaces_a_file_only_when_told(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("mine")
    done = neuron("config", "init", str(file))
    assert done.returncode == 78
    assert "--force" in done.stderr
    assert file.read_text() == "mine"
    assert neuron("config", "init", str(file), "--force").returncode == 0
    assert file.read_text() != "mine"
    assert list(tmp_path.iterdir()) == [file]
    assert neuron("config", "init", str(tmp_path / "no" / "a.toml")).stderr == (
        f"neuron: {tmp_path}/no/a.toml: there is no folder {tmp_path}/no\nhint: mkdir -p {tmp_path}/no\n"
    )
    assert not (tmp_path / "no").exists()


MISTAKES = """\
prot = 1
harnesses = ["tourch"]
models = ["smolm2"]
threads = 0
keys_file = "no-keys"
"""


@pytest.mark.parametrize("command", [("config", "check"), ("serve", "--port", "0", "--config")])
def test_every_mistake_of_a_file_is_told_at_once(tmp_path: Path, command: tuple[str, ...]) -> None:
    file = tmp_path / "neuron.toml"
    file.write_text(MISTAKES)
    done = neuron(*command, str(file))
    assert done.returncode == 78
    told = [line for line in done.stderr.splitlines() if line.startswith("neuron: ")]
    assert {line.split(":")[2] for line in told} == {"1", "2", "3", "4", "5"}
    assert "hint: did you mean smollm2?" in done.stderr
    assert done.stderr.count("threads") == 1


def test_a_bad_key_file_does_not_hide_a_bad_certificate(tmp_path: Path) -> None:
    file = tmp_path / "neuron.toml"
    named = ("keys_file", "tls_cert", "tls_key")
    file.write_text("".join(f'{key} = "neuron.toml"\n' for key in named))
    done = neuron("config", "check", str(file))
    assert f"{file}:1: keys_file: " in done.stderr
    assert f"{file}:2: tls_cert: " in done.stderr


def torch_build(folder: Path, cuda: str | None) -> dict[str, str]:
    """An environment with a torch that says what it was built for, and that can't be imported."""
    (folder / "torch").mkdir()
    (folder / "torch" / "version.py").write_text(
        f"__version__ = '2.0'\ncuda: 'str | None' = {cuda!r}\nhip: 'str | None' = None\n"
    )
    (folder / "torch" / "__init__.py").write_text("raise ImportError('torch was imported')")
    return {"PYTHONPATH": str(folder)}


@pytest.mark.parametrize("command", [("config", "check"), ("serve", "--port", "0", "--config")])
def test_a_device_that_the_torch_here_was_not_built_for_is_refused_without_an_import(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    file = tmp_path / "neuron.toml"
    file.write_text('\ndevice = "cuda"\n')
    done = neuron(*command, str(file), env=torch_build(tmp_path, None))
    assert done.returncode == 78
    says = "there is no 'cuda': the torch that is installed (2.0) is built for CPUs"
    assert done.stderr.startswith(f"neuron: {file}:2: device: {says}\nhint: auto takes what there is")


@pytest.mark.parametrize(
    ("device", "env", "n_gpus", "reason", "says"),
    [
        ("cpu", {}, 0, None, None),
        ("auto", {}, 0, None, None),
        ("cuda", {}, 1, None, None),
        ("cuda:1", {}, 2, None, None),
        ("cuda", {}, 0, None, "this process can see no GPU"),
        ("cuda:2", {}, 2, None, "the GPUs here are cuda:0 to cuda:1"),
        ("cuda", {"CUDA_VISIBLE_DEVICES": ""}, 2, None, "this process can see no GPU"),
        ("cuda:1", {"CUDA_VISIBLE_DEVICES": "1"}, 2, None, "the GPUs here are cuda:0 to cuda:0"),
        ("cuda:1", {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"}, 2, None, None),
        ("cuda:1", {"CUDA_VISIBLE_DEVICES": "0,-1,1"}, 2, None, "the GPUs here are cuda:0 to cuda:0"),
        ("cuda", {}, 0, "the driver hangs", None),
    ],
)
def test_a_gpu_that_is_not_there_is_told_from_one_that_nobody_can_know_of(
    device: str, env: dict[str, str], n_gpus: int, reason: str | None, says: str | None
) -> None:
    host = replace(CPU_HOST, gpus=GPU_HOST.gpus[:1] * n_gpus, cuda_unavailable_reason=reason)
    assert lacks(device, env, Build("2.0", cuda="12.8"), host) == says
    assert lacks(device, env, Build("2.0", hip="6.0"), host) is None
