"""The program as people and scripts meet it: help, mistakes, pipes, and a start without anything heavy."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from neuron.cli.app import COMMANDS
from tests.support.cli import PROGRAM, environment, free_port, neuron

NAMES = [module.__name__.rpartition(".")[2] for module in COMMANDS]


@pytest.mark.parametrize("name", NAMES)
def test_every_command_shows_an_example(name: str) -> None:
    done = neuron(name, "--help")
    assert done.returncode == 0
    assert done.stderr == ""
    assert f"Examples:\n    neuron {name}" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["bogus"], "No such command 'bogus'"),
        (["serv"], "Did you mean 'serve'"),
        ([], "Missing command"),
        (["load"], "Missing argument 'MODEL'"),
        (["models", "--foo"], "No such option: --foo"),
        (["models", "--al"], "--all"),
        (["chat", "--temperature", "hot"], "--temperature"),
        (["load", "x", "--dtype", "int8"], "'float32', 'bfloat16', 'float16'"),
        (["models", "extra"], "extra"),
        (["models", "--host", "not a host"], "not the address of a node"),
        (["models", "--host", "ftp://x"], "not the address of a node"),
        (["load", "../../..//\x01", "--host", "gpu1"], "not a model reference"),
        (["chat", "What is a cat?"], "name the model first"),
        (["serve", "--port", "99999"], "--port: '99999' is not a port"),
        (["serve", "--device", "tpu"], "--device"),
        (["serve", "--model-root", "/dev/null/none"], "--model-root"),
    ],
)
def test_a_mistake_is_one_clear_message_and_exit_64(args: list[str], says: str) -> None:
    done = neuron(*args)
    assert done.returncode == 64
    assert done.stdout == ""
    assert done.stderr.startswith("neuron: ")
    assert says in done.stderr


def test_an_argument_that_is_not_utf8_is_refused() -> None:
    done = subprocess.run([*PROGRAM, "load", b"a\xff"], capture_output=True, env=environment())
    assert done.returncode == 64
    assert b"not valid UTF-8" in done.stderr


HEAVY = ["torch", "litestar", "uvicorn", "httpx", "huggingface_hub", "rich", "tokenizers", "numpy", "jinja2"]


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from neuron.cli.main import run; code = run(['--help']);"
        f"print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert (done.returncode, done.stderr) == (0, "[]\n")


def test_importing_the_application_loads_neither_torch_nor_litestar() -> None:
    code = "import sys, neuron.cli.app; assert not {'torch', 'litestar'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment())


def test_a_reader_that_leaves_is_no_accident() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*PROGRAM, "--help"], stdout=write, stderr=subprocess.PIPE, text=True, env=environment(), check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_full_disk_is_an_io_error() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*PROGRAM, "version"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(PYTHONUNBUFFERED=""),
        )
    says = "neuron: standard output (/dev/full): No space left on device\n"
    assert (done.returncode, done.stderr) == (74, says)


def test_closed_streams_are_survived() -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m neuron.cli.main version --json <&- >&- 2>&-"], env=environment()
    )
    assert done.returncode == 0


def test_the_version_is_data() -> None:
    shown = json.loads(neuron("version", "--json").stdout)
    assert set(shown["program"]) == {"neuron", "python", "torch", "platform"}
    assert neuron("--version").stdout == f"neuron {shown['program']['neuron']}\n"


@pytest.mark.parametrize("args", [(), ("--json",)])
def test_the_version_of_this_program_is_shown_also_where_the_node_does_not_answer(args: tuple[str]) -> None:
    done = neuron("version", *args, "--host", f"127.0.0.1:{free_port()}")
    assert done.returncode == 69
    assert "no node answers at http://127.0.0.1:" in done.stderr
    if args:
        shown = json.loads(done.stdout)
        assert (set(shown["program"]), shown["node"]) == ({"neuron", "python", "torch", "platform"}, None)
    else:
        assert [line.split()[0] for line in done.stdout.splitlines()] == [
            "neuron",
            "python",
            "torch",
            "platform",
        ]


@pytest.mark.parametrize("name", ["models", "health", "discovery"])
def test_a_node_that_was_named_and_is_not_there_is_exit_69(name: str) -> None:
    done = neuron(name, env={"NEURON_HOST": f"127.0.0.1:{free_port()}"})
    assert (done.returncode, done.stdout) == (69, "")
    assert "no node answers at http://127.0.0.1:" in done.stderr
    assert "hint: " in done.stderr


def test_an_address_beyond_loopback_needs_insecure() -> None:
    done = neuron("serve", "--bind", "0.0.0.0", "--port", "0")
    assert (done.returncode, done.stdout) == (78, "")
    assert "--insecure" in done.stderr


def test_a_taken_port_is_exit_75_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        neuron("--version")  # the file cache is warm
        began_s = time.monotonic()
        done = neuron("serve", "--port", port)
        took_s = time.monotonic() - began_s
    assert done.returncode == 75
    assert port in done.stderr
    assert took_s < 1.5  # 0.3 s by itself; the machine may be busy


def test_an_option_without_its_value_names_the_help_of_its_command() -> None:
    done = neuron("show", "--host")
    assert done.returncode == 64
    assert done.stderr.endswith("hint: neuron show --help shows what it takes\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prot = 1", "neuron.toml:1: unknown key 'prot'\nhint: did you mean port?"),
        ("\nport = 'x'", "neuron.toml:2: port: 'x' is not a port"),
        ("=", "neuron.toml:1: not valid TOML"),
        (
            "\n[server]\nport = 1",
            "neuron.toml:2: unknown key 'server': there are no tables\nhint: write the keys",
        ),
    ],
)
def test_a_bad_configuration_is_exit_78_and_names_file_and_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "neuron.toml").write_text(text)
    for args, env in (
        (["--config", str(tmp_path / "neuron.toml")], {}),
        ([], {"NEURON_CONFIG": str(tmp_path / "neuron.toml")}),
    ):
        done = neuron("serve", *args, env=env)
        assert done.returncode == 78
        assert says in done.stderr
