"""What no file of the program does; and each rule shown to find it where it is done."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from neuron import errors
from neuron.cli.exits import EXITS
from neuron.daemon.access import ScopeTable
from neuron.daemon.errors import TABLE
from neuron.daemon.operations import OPERATIONS, Operation
from tests.reliability.static_rules import RULES, undelimited_route

ROOT = Path(__file__).parents[2] / "neuron"
FILES = sorted(ROOT.rglob("*.py"))

EXCEPTIONS: dict[str, dict[str, str]] = {
    "reads the time of day": {
        "cli/checks/network.py": "compares this clock with a server's",
        "cli/chat.py": "shows when a chat was changed",
        "cli/explain.py": "writes a time of day",
        "daemon/projection/chat_answer.py": "`created` of an answer",
        "daemon/projection/completions.py": "`created` of an answer",
        "daemon/projection/responses.py": "`created_at` of an answer",
        "daemon/record.py": "when a request came, for people",
        "daemon/store.py": "what is kept on a disk outlives the process, and so the monotonic clock",
        "engine/loaded.py": "`created` of a model",
        "keys.py": "the day on which a key was made or ends",
        "sources/manifest.py": "when a model was fetched",
        "text/chat_template.py": "`strftime_now` of templates",
        "text/load.py": "`strftime_now` of templates",
    },
}
"""Rule -> file -> why it may."""

BAD: dict[str, list[str]] = {
    "unpickles": [
        "import pickle",
        "from pickle import loads as read",
        "def f():\n    import joblib",
        "import dill as d",
        "import marshal",
        "import torch\ntorch.load('x')",
        "import torch as t\nt.load('x')",
        "from torch import load\nload('x')",
        "from torch import load as fine\nread = fine",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
    ],
    "evaluates data": [
        "eval('1')",
        "run = exec\nrun('1')",
        "compile(text, 'x', 'exec')",
        "__import__('os')",
        "import builtins as b\nb.eval('1')",
        "import runpy\nrunpy.run_path('x')",
    ],
    "runs a shell": [
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "import os\nos.system('ls')",
        "from os import popen as p\np('ls')",
        "import subprocess as s\ns.Popen(['sh', '-c', 'ls'])",
        "from subprocess import getoutput\ngetoutput('ls')",
    ],
    "reads the time of day": [
        "import time\ntime.time()",
        "from time import time\ntime()",
        "from datetime import datetime\ndatetime.now()",
        "import datetime as d\nd.datetime.utcnow()",
        "import time\nclock = time.time",
        "import time as t\nt.time_ns()",
    ],
    "measures with the time of day": [
        "import time\nend = time.time() + 5",
        "from time import time\nif time() > end: pass",
        "import time\nseconds = time.time() - began",
    ],
    "passes a failure over": [
        "try: f()\nexcept Exception: pass",
        "try: f()\nexcept BaseException as e: ...",
        "try: f()\nexcept (ValueError, Exception): pass",
        "try: f()\nexcept: g()",
        "for x in y:\n    try: f()\n    except Exception: continue",
        "import contextlib\nwith contextlib.suppress(Exception): f()",
        "from contextlib import suppress as s\nwith s(BaseException): f()",
    ],
    "runs code of a repository": [
        "from transformers import AutoModelForCausalLM",
        "def f():\n    import transformers",
        "f(trust_remote_code=True)",
        "def f(trust_remote_code=False): pass",
        "x.AutoModel.from_pretrained('y')",
    ],
    "maps a file": [
        "import mmap\nmmap.mmap(1, 2)",
        "from safetensors import safe_open\nsafe_open(path, framework='pt')",
        "from safetensors import safe_open as o\no(path, backend='mmap')",
        "import torch\ntorch.from_file('x')",
    ],
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("rule", RULES)
def test_no_file_of_the_program_does_it(rule: str) -> None:
    assert len(FILES) > 150
    found = {name_of(path): list(RULES[rule](tree_of(path))) for path in FILES}
    assert {
        name: lines for name, lines in found.items() if lines and name not in EXCEPTIONS.get(rule, {})
    } == {}


@pytest.mark.parametrize("rule", EXCEPTIONS)
def test_no_exception_has_outlived_its_reason(rule: str) -> None:
    for name in EXCEPTIONS[rule]:
        assert list(RULES[rule](tree_of(ROOT / name))), name


@pytest.mark.parametrize(("rule", "source"), [(rule, s) for rule in BAD for s in BAD[rule]])
def test_each_rule_finds_what_it_is_for(rule: str, source: str) -> None:
    assert list(RULES[rule](ast.parse(source)))


GOOD = """
import re, time, subprocess, contextlib
from safetensors import safe_open
re.compile("x")
time.monotonic() + 5
subprocess.run(["ls", "sh"])
safe_open(path, framework="pt", backend="pread")
try: f()
except Exception as e: raise ValueError from e
with contextlib.suppress(FileNotFoundError): f()
text.load(1)
"""


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_lets_good_code_be(rule: str) -> None:
    assert rule in BAD
    assert not list(RULES[rule](ast.parse(GOOD)))


# ---- tables --------------------------------------------------------------------------------------------------


def routes_of(folder: Path) -> set[tuple[str, str]]:
    """Method and path of every route that is declared in a folder's files."""
    return {
        (method, path)
        for file in folder.rglob("*.py")
        for method, path, _ in undelimited_route(ast.parse(file.read_text(encoding="utf-8")))
    }


def without_a_row(routes: set[tuple[str, str]], operations: tuple[Operation, ...]) -> set[tuple[str, str]]:
    """Routes that the table of operations gives no scope to."""
    table = ScopeTable(operations)
    return {(method, path) for method, path in routes if table.of(method, path) is None}


def test_every_route_in_the_source_has_a_scope() -> None:
    routes = routes_of(ROOT)
    assert len(routes) > 25
    assert without_a_row(routes, tuple(OPERATIONS)) == set()


def test_a_route_without_a_scope_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "new.py").write_text("from litestar import post\n@post('/models/steal')\ndef f(): pass")
    assert without_a_row(routes_of(tmp_path), tuple(OPERATIONS)) == {("POST", "/models/steal")}
    health = tuple(o for o in OPERATIONS if o.path != "/health")
    assert ("GET", "/health") in without_a_row(routes_of(ROOT), health)


def error_classes(source: str) -> set[str]:
    """Classes of a module that come from `NeuronError`, itself among them."""
    found = {"NeuronError"}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and {ast.unparse(b) for b in node.bases} & found:
            found.add(node.name)
    return found


def test_every_error_class_of_the_source_is_in_both_tables_and_declared_in_one_file() -> None:
    declared = error_classes((ROOT / "errors.py").read_text(encoding="utf-8"))
    assert declared == {cls.__name__ for cls in TABLE} == {cls.__name__ for cls in EXITS}
    elsewhere = {
        name_of(path): [n.name for n in ast.walk(tree_of(path)) if _is_an_error(n, declared)]
        for path in FILES
        if path.name != "errors.py" or path.parent != ROOT
    }
    assert {name: classes for name, classes in elsewhere.items() if classes} == {}
    assert len(declared) > 40


def _is_an_error(node: ast.AST, declared: set[str]) -> bool:
    return isinstance(node, ast.ClassDef) and bool(
        {ast.unparse(b).split(".")[-1] for b in node.bases} & declared
    )


def test_an_error_class_without_a_row_would_be_found() -> None:
    source = (ROOT / "errors.py").read_text(encoding="utf-8") + "\nclass New(PreflightError):\n    pass\n"
    assert error_classes(source) - {cls.__name__ for cls in TABLE} == {"New"}
    assert errors.PreflightError in TABLE
