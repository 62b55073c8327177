"""``neuron config``: what holds and where it was said, mistakes, a file to begin with."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from neuron.settings import ABOUT, KEYS, Settings, resolve
from tests.support.cli import neuron


def test_show_has_every_key_with_its_value_and_its_origin(tmp_path: Path) -> None:
    file = tmp_path / "neuron.toml"
    file.write_text('\nthreads = 3\nmodel_roots = ["/tmp"]\n')
    done = neuron("config", "show", "--json", "--config", str(file), env={"NEURON_PORT": "0"})
    shown = json.loads(done.stdout)
    assert list(shown) == list(KEYS)
    assert shown["threads"] == {"value": 3, "origin": f"{file}:2"}
    assert shown["model_roots"] == {"value": ["/tmp"], "origin": f"{file}:3"}
    assert shown["port"] == {"value": 0, "origin": "NEURON_PORT"}
    assert shown["bind"] == {"value": "127.0.0.1", "origin": None}
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
        ('tls_cert = "neuron.toml"\ntls_key = "neuron.toml"', "TLS with", 78),
        ('keys_file = "missing"', "missing", 78),
        ('keys_file = "neuron.toml"', "others can read it", 77),
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
    assert neuron("config", "init", str(tmp_path / "no" / "a.toml")).returncode == 74
