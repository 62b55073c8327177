"""Completions and manual pages say what the application says."""

import shutil
import subprocess
from pathlib import Path

import pytest

from neuron.cli.app import GROUPS, commands
from neuron.cli.exits import MEANINGS
from neuron.cli.generate import ROOT, files
from neuron.cli.manual import escape
from neuron.daemon.errors import TABLE
from neuron.daemon.operations import OPERATIONS
from neuron.settings import OTHER_VARIABLES
from tests.support.cli import PROGRAM, environment

MAN = sorted((ROOT / "man").glob("*.[0-9]"))


def test_what_is_committed_is_up_to_date() -> None:
    stale = [path for path, text in files() if (ROOT / path).read_text() != text]
    assert not stale, "run: make docs"


def test_no_page_is_left_over() -> None:
    wanted = {path for path, _ in files()}
    assert {str(page.relative_to(ROOT)) for page in MAN} <= wanted
    assert {page.name for page in MAN} >= {f"{'-'.join(('neuron', *words))}.1" for words, _ in commands()}


def test_a_group_of_commands_has_a_page_that_names_them() -> None:
    for name, (_, modules) in GROUPS.items():
        page = (ROOT / "man" / f"neuron-{name}.1").read_text()
        inside = [words for words, module in commands() if module in modules]
        assert len(inside) == len(modules)
        assert all(escape(f"neuron-{'-'.join(words)}") in page for words in inside)
        assert all(escape(module.EXAMPLES[0]) in page for module in modules)
        assert escape(f"neuron-{name}") in (ROOT / "man" / "neuron.1").read_text()


@pytest.mark.skipif(shutil.which("man") is None, reason="needs man")
@pytest.mark.parametrize("page", MAN, ids=lambda page: page.name)
def test_a_page_renders_without_a_warning(page: Path) -> None:
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", str(page)],
        capture_output=True,
        text=True,
        env=environment(MANWIDTH="80", LC_ALL="C.UTF-8"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "SYNOPSIS" in done.stdout


@pytest.mark.parametrize(
    ("words", "expected"), [("neuron unl", "unload"), ("neuron chat --temp", "--temperature")]
)
def test_the_program_completes_what_the_shell_asks(words: str, expected: str) -> None:
    asked = environment(
        _NEURON_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(len(words.split()) - 1)
    )
    done = subprocess.run([*PROGRAM], env=asked, capture_output=True, text=True)
    assert done.stdout.split() == [expected]


def test_the_program_s_page_names_every_variable_and_exit_code() -> None:
    page = (ROOT / "man" / "neuron.1").read_text()
    assert all(name in page for name in OTHER_VARIABLES)
    assert all(f".TP\n{code.value}\n" in page for code in MEANINGS)


def test_the_page_of_the_interface_names_every_endpoint_and_error() -> None:
    page = (ROOT / "man" / "neuron-api.7").read_text()
    assert all(escape(f"{op.method} {op.path}") in page for op in OPERATIONS)
    assert all(cls.code in page for cls, row in TABLE.items() if not row.secret)
