"""What the documents say is so: links lead somewhere, commands parse, tables equal the code, blocks run.

Fenced blocks by language: ``console`` lines after ``$`` must parse; ``bash`` and ``python`` run against a node with
the real model; ``toml`` are settings; ``json`` is valid; the rest is for the eye.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import msgspec
import pytest

from neuron.cli.app import program
from neuron.cli.exits import MEANINGS
from neuron.daemon import operations
from neuron.daemon.errors import TABLE, framework_body
from neuron.daemon.reload import RELOADED
from neuron.errors import DeviceFault
from neuron.settings import KEYS, OTHER_VARIABLES, Settings, resolve
from neuron.sources.aliases import ALIASES
from neuron.sources.reference import parse_reference
from neuron.wire.chat import ChatCompletionRequest
from neuron.wire.completions import CompletionRequest
from neuron.wire.messages import MessagesRequest
from neuron.wire.responses import ResponsesRequest
from tests.support.node_process import NodeProcess, clean_env, node
from tests.support.scorecard import VARIABLE

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README, WIRE, OPERATIONS = ROOT / "README.md", ROOT / "docs" / "wire.md", ROOT / "docs" / "operations.md"
FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
LOCAL_URL = "http://localhost:13131"


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of a language, without their indentation."""
    found = FENCE.finditer(path.read_text(encoding="utf-8"))
    return [re.sub(rf"^{m[1]}", "", m[3], flags=re.MULTILINE) for m in found if m[2] == language]


def every_block(*languages: str) -> list[object]:
    """A test parameter for each block of all documents."""
    return [
        pytest.param(text, id=f"{name_of(path)}-{n}")
        for path in DOCUMENTS
        for n, text in enumerate(text for language in languages for text in blocks(path, language))
    ]


def commands() -> list[str]:
    """Every command line in the documents, continued lines joined."""
    lines = []
    for path in DOCUMENTS:
        for block in blocks(path, "console"):
            lines += [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]
        for block in blocks(path, "bash"):
            lines += block.replace("\\\n", " ").splitlines()
    return list(dict.fromkeys(lines))


def rows(path: Path, header: str) -> list[list[str]]:
    """The cells of the table that begins with ``header``, backquotes dropped."""
    text = path.read_text(encoding="utf-8")
    body = text[text.index(header) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# ---- text ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_link_and_every_file_that_is_named_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        file, _, anchor = target.partition("#")
        if target.startswith("https://"):
            continue
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target
    for named in re.findall(r"`((?:neuron|tests|docs|man|completions)/[\w./-]*)`", text):
        assert (ROOT / named).exists(), named


def anchors(path: Path) -> set[str]:
    """What a heading is linked by."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_drawing_of_a_request_s_path_names_files_that_exist() -> None:
    drawing = next(block for block in blocks(README, "text") if "thread border" in block)
    folder, found = "", 0
    for name in re.findall(r"[\w/]+\.py", drawing):
        folder = name.rpartition("/")[0] or folder
        assert (ROOT / folder / name.rpartition("/")[2]).exists(), name
        found += 1
    assert found > 10


def test_no_document_names_a_machine_s_own_paths() -> None:
    for path in DOCUMENTS:
        assert not re.search(r"/(work|root|home/\w+)/", path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_tests_that_are_named_have_that_name(path: Path) -> None:
    defined = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    for name in re.findall(r"`(test_\w+)`", path.read_text(encoding="utf-8")):
        assert f"def {name}(" in defined


# ---- commands ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [line for line in commands() if re.search(r"\bneuron (?!-)", line)])
def test_every_command_line_parses(line: str) -> None:
    parts = line.partition("| ")[2] or line
    args = shlex.split(parts, comments=True)
    args = args[args.index("neuron") + 1 :]
    group = program()
    while args and hasattr(group, "commands"):
        assert args[0] in group.commands
        group, *args = group.commands[args[0]], *args[1:]
    group.make_context("neuron", args).close()


def test_every_target_of_make_exists() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {found for line in commands() for found in re.findall(r"\bmake (\w+)", line)}
    assert {"demo", "test"} <= named <= targets


@pytest.mark.parametrize("line", [line for line in commands() if " -m pytest " in line])
def test_every_test_run_names_tests_that_exist(line: str) -> None:
    for part in shlex.split(line):
        if part.startswith("tests/"):
            assert (ROOT / part).exists()


@pytest.mark.parametrize("text", every_block("json"))
def test_json_is_json(text: str) -> None:
    json.loads(text)


# ---- tables ------------------------------------------------------------------------------------------------------


def test_the_table_of_settings_is_the_settings() -> None:
    told = {quoted(row[0])[0]: row[1] for row in rows(OPERATIONS, "| key | default |")}
    assert list(told) == list(KEYS)
    defaults = {f.name: getattr(Settings(), f.name) for f in fields(Settings)}
    for key, cell in told.items():
        assert cell == as_text(defaults[key]), key


def as_text(default: object) -> str:
    """A default as the table writes it."""
    if default in (None, ()):
        return "none"
    shown = ", ".join(map(str, default)) if isinstance(default, tuple) else default
    return f"`{str(shown).lower() if isinstance(default, bool) else shown}`"


def test_the_keys_that_a_reload_takes_over_are_named() -> None:
    text = OPERATIONS.read_text(encoding="utf-8")
    named = quoted(text[text.index("### Reload") :].split("\nThe log names")[0])
    assert set(named) - {"systemctl reload neuron"} == RELOADED


@pytest.mark.parametrize("text", every_block("toml"))
def test_example_settings_are_taken(text: str, tmp_path: Path) -> None:
    (tmp_path / "neuron.toml").write_text(text)
    assert resolve({}, {}, tmp_path / "neuron.toml").origins


def test_every_variable_that_is_named_exists() -> None:
    known = {f"NEURON_{key.upper()}" for key in KEYS} | OTHER_VARIABLES | {VARIABLE}
    for path in DOCUMENTS:
        assert set(re.findall(r"\bNEURON_[A-Z_]*[A-Z]\b", path.read_text(encoding="utf-8"))) <= known, path


def test_the_table_of_exit_codes_is_the_program_s() -> None:
    told = {int(row[0]): row[1] for row in rows(OPERATIONS, "| code | meaning |")}
    assert told == {code.value: meaning for code, meaning in MEANINGS.items()}


def test_the_table_of_scopes_is_the_daemon_s() -> None:
    told = {quoted(row[0])[0]: tuple(quoted(row[1])) for row in rows(OPERATIONS, "| scope | grants |")}
    for operation in operations.OPERATIONS:
        asked = (operation.path, f"{operation.method} {operation.path}")
        fits = {
            scope for scope, paths in told.items() for path in paths if any(a.startswith(path) for a in asked)
        }
        assert fits == ({operation.scope.word} if operation.scope else set()), operation.path


def test_the_table_of_errors_is_the_daemon_s() -> None:
    told = {(quoted(row[0])[0], int(row[1]), *quoted(row[2])) for row in rows(WIRE, "| code | status |")}
    named = {
        (cls.code, row.status, row.type) for cls, row in TABLE.items() if not row.secret or cls is DeviceFault
    }
    framework = [framework_body(status, "/v1", "req_1")["error"] for status in (404, 405)]
    assert told == named | {
        (error.code, status, error.type) for error, status in zip(framework, (404, 405), strict=True)
    }


@pytest.mark.parametrize(
    "struct", [ChatCompletionRequest, CompletionRequest, ResponsesRequest, MessagesRequest]
)
def test_every_field_of_a_request_for_text_is_named(struct: type[msgspec.Struct]) -> None:
    text = WIRE.read_text(encoding="utf-8")
    generation = text[text.index("## Generation endpoints") : text.index("## Errors")]
    assert {f.encode_name for f in msgspec.structs.fields(struct)} <= set(quoted(generation))


def test_the_endpoints_that_are_named_are_those_that_are_served() -> None:
    text = WIRE.read_text(encoding="utf-8")
    told = re.findall(r"`(GET|POST|DELETE)\s+(/[\w/.{}-]*)", text)
    named = {(method, re.sub(r"/?\{\w+\}", "", path)) for method, path in told}
    served = {(op.method, re.sub(r"/?\{\w+\}", "", op.path)) for op in operations.OPERATIONS}
    assert named == served


def test_the_short_names_and_references_are_those_that_are_known() -> None:
    cells = [row[0] for row in rows(README, "| reference | model |")]
    for reference in [reference for cell in cells for reference in quoted(cell)]:
        parse_reference(reference)
    assert set(quoted(cells[-1])) == set(ALIASES)


# ---- what runs ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smollm2(smollm2_gguf: Path) -> Iterator[NodeProcess]:
    """A node that serves the real model as ``smollm2``."""
    with node("--model-root", smollm2_gguf.parent) as running:
        spec = {"model_id": str(smollm2_gguf), "alias": "smollm2"}
        assert running.post("/models/load", spec).status_code == 200
        yield running


def run(node: NodeProcess, program: list[str], text: str) -> str:
    """What a block prints when it runs against the node."""
    env = clean_env({"NEURON_HOST": node.url, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"})
    done = subprocess.run(
        [*program, text.replace(LOCAL_URL, node.url)],
        env=env,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.real_model
@pytest.mark.parametrize("text", every_block("python"))
def test_python_blocks_run(smollm2: NodeProcess, text: str) -> None:
    assert LOCAL_URL in text
    assert "Paris" in run(smollm2, [sys.executable, "-c"], text)


@pytest.mark.real_model
@pytest.mark.parametrize("text", every_block("bash"))
def test_shell_blocks_run(smollm2: NodeProcess, text: str) -> None:
    printed = run(smollm2, ["bash", "-euo", "pipefail", "-c"], text)
    assert printed
    assert "Paris" in printed or "France" not in text
