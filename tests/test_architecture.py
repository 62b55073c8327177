"""The shape of the program: who may import whom, where libraries belong, and what no file does."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from neuron import errors
from neuron.cli.exits import EXITS
from neuron.daemon.errors import TABLE
from tests.support.cli import environment

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "neuron").rglob("*.py"))

LEAVES = {
    "address",
    "allocator",
    "holder",
    "tls",
    "errors",
    "faults",
    "progress",
    "files",
    "gguf",
    "gguf_header",
    "hardware",
    "key_file",
    "keys",
    "local_node",
    "log",
    "log_queue",
    "node_url",
    "nodes",
    "nvml",
    "safetensors_header",
    "secret_file",
    "setting_kinds",
    "settings",
    "toml_file",
    "torch_build",
}
ALLOWED = {
    **dict.fromkeys(LEAVES, LEAVES),
    "model": LEAVES,
    "text": LEAVES,
    "wire": LEAVES,
    "sources": LEAVES,
    "engine": LEAVES | {"model", "text"},
    "transport": LEAVES,
    "client": LEAVES | {"transport", "wire"},
    "bench": LEAVES | {"transport", "wire"},
    "cli": LEAVES | {"bench", "client", "wire", "sources"},
    "daemon": LEAVES | {"engine", "wire", "sources"},
}
"""Package or module -> what it may import of the others."""
RUNS_A_NODE = {
    "cli/serve.py": {"daemon"},
    "cli/embedded.py": {"daemon", "engine"},
    "cli/api_manual.py": {"daemon"},
}
"""The commands that run a node in their own process, and the page that documents one, beyond `ALLOWED`."""

OWNERS = {
    "h11": {"daemon"},
    "httpx": {"client", "transport", "bench"},
    "huggingface_hub": {"sources"},
    "jinja2": {"text"},
    "litestar": {"daemon"},
    "llguidance": {"text"},
    "prometheus_client": {"daemon"},
    "prompt_toolkit": {"cli"},
    "pynvml": {"nvml"},
    "rich": {"cli"},
    "safetensors": {"model"},
    "tokenizers": {"text"},
    "torch": {"model", "engine"},
    "tqdm": {"sources"},
    "triton": {"model"},
    "typer": {"cli"},
    "uvicorn": {"daemon"},
    "msgspec": {*ALLOWED} - {"model", "engine"},
}
"""Library -> who may import it. A library that is not here is none of the program's."""
PLAIN_ENGINE = {
    "absent",
    "load_failure",
    "api",
    "demand",
    "embedding",
    "engine",
    "events",
    "gate",
    "loaded",
    "models",
    "plan",
    "registry",
    "request",
    "room",
    "sequence",
    "status",
    "stream",
    "turns",
}
"""Modules of the engine that a daemon reads without torch."""

BROAD_EXCEPT = {
    "cli/main.py": "the entry of the command line",
    "daemon/readings.py": "whatever a driver raises, /health answers",
    "engine/ahead.py": "the border of the device thread: whatever a step ahead raises, the plain way computes it",
    "engine/device_errors.py": "a model is tried: whatever it raises, it is broken",
    "engine/embedder.py": "the border of the device thread",
    "engine/models.py": "a load that failed in any way is a failed load",
    "engine/registry.py": "what a thread raised goes to who waits for it",
    "engine/step.py": "the border of the device thread",
    "nvml.py": "a driver and its library may do anything, and a node starts",
    "text/chat_template.py": "templates are programs of others",
    "text/tokenizer.py": "a panic of the native library",
}
"""Files that catch everything without raising it again, and why."""
WALL_CLOCK = {
    "daemon/projection/chat_answer.py",
    "daemon/projection/completions.py",
    "daemon/projection/responses.py",
    "daemon/record.py",
    "daemon/store.py",
    "engine/loaded.py",
    "sources/manifest.py",
}
"""Files that write the time of day into something; durations are measured on the monotonic clock."""
PICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


class Import(NamedTuple):
    """One import statement of a file."""

    target: str
    """The module, or ``module.name`` where the name is a module of ours."""
    deferred: bool
    """Inside a function."""
    typing_only: bool


def name_of(path: Path) -> str:
    """``cli/serve.py``."""
    return path.relative_to(ROOT / "neuron").as_posix()


def unit_of(module: str) -> str:
    """The part of the program that ``neuron.part.more`` belongs to."""
    return ([*module.split("."), ""])[1]


def module_of(path: Path) -> str:
    """``neuron.cli.serve``."""
    return "neuron." + name_of(path).removesuffix(".py").removesuffix("__init__").replace("/", ".").rstrip(
        "."
    )


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def walk(
    node: ast.AST, deferred: bool = False, typing_only: bool = False
) -> Iterator[tuple[ast.AST, bool, bool]]:
    """Every node below, whether it is in a function, whether it is under ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(node):
        in_function = deferred or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for_types = typing_only or (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING")
        yield child, in_function, for_types
        yield from walk(child, in_function, for_types)


def imports(path: Path) -> list[Import]:
    found = []
    for node, deferred, typing_only in walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, deferred, typing_only) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            known = [name if name in MODULES else str(node.module) for name in full]
            found += [Import(name, deferred, typing_only) for name in dict.fromkeys(known)]
    return found


MODULES = {module_of(path): path for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_the_allowed_ways(path: Path) -> None:
    own = unit_of(module_of(path))
    allowed = ALLOWED.get(own, set()) | {own} | RUNS_A_NODE.get(name_of(path), set())
    for found in imports(path):
        if found.target.startswith("neuron"):
            assert unit_of(found.target) in allowed | {""}, f"{name_of(path)} imports {found.target}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_libraries_belong_to_one_part(path: Path) -> None:
    own = unit_of(module_of(path))
    for found in imports(path):
        library = found.target.partition(".")[0]
        if library != "neuron" and library not in sys.stdlib_module_names:
            assert own in OWNERS.get(library, set()), f"{name_of(path)} imports {found.target}"
            assert not (library == "torch" and own == "engine" and path.stem in PLAIN_ENGINE), name_of(path)


def test_what_runs_a_node_is_imported_when_it_runs() -> None:
    heavy = {"daemon", "engine"}
    for path in FILES:
        for found in imports(path):
            of_cli = unit_of(module_of(path)) == "cli" and path.stem not in ("embedded", "api_manual")
            late = ("neuron.cli.embedded", "neuron.cli.api_manual")
            if of_cli and (unit_of(found.target) in heavy or found.target in late):
                assert found.deferred, f"{name_of(path)} imports {found.target} at its top"


def test_wire_and_engine_values_meet_only_in_projections() -> None:
    values = {"neuron.engine.events", "neuron.engine.request", "neuron.engine.status"}
    both = set()
    for path in FILES:
        targets = {found.target for found in imports(path)}
        if targets & values and any(unit_of(t) == "wire" for t in targets):
            both.add(name_of(path))
    assert {name for name in both if not name.startswith("daemon/projection/")} == {"cli/embedded.py"}


@pytest.mark.parametrize(
    "by", [module_of, lambda path: unit_of(module_of(path))], ids=["modules", "packages"]
)
def test_imports_have_no_cycles(by: object) -> None:
    assert callable(by)
    graph: dict[str, set[str]] = {}
    for path in FILES:
        targets = {
            f.target for f in imports(path) if f.target in MODULES and not f.typing_only and not f.deferred
        }
        graph.setdefault(by(path), set()).update(by(MODULES[target]) for target in targets)
    edges = {node: targets - {node} for node, targets in graph.items()}
    assert sum(map(len, edges.values())) > 20
    tuple(graphlib.TopologicalSorter(edges).static_order())


def test_every_module_has_a_docstring_and_every_package_nothing_else() -> None:
    for path in [*FILES, *(ROOT / "tests").rglob("*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), path
        assert path.name != "__init__.py" or len(tree.body) == 1, path


def subclasses(cls: type[errors.NeuronError]) -> Iterator[type[errors.NeuronError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from subclasses(child)


def test_every_error_has_a_status_and_an_exit_code() -> None:
    ours = {cls for cls in subclasses(errors.NeuronError) if cls.__module__ == "neuron.errors"}
    assert set(TABLE) == ours
    assert set(EXITS) == ours


FORBIDDEN_CALLS = {"eval", "exec", "torch.load", "os.system", "os.popen", "__import__"}


def hides_torch_load(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> bool:
    """``import torch as t`` and ``from torch import load`` would get past the names above."""
    if isinstance(node, ast.Import):
        return alias.name == "torch" and alias.asname is not None
    return node.module == "torch" and alias.name == "load"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_is_unpickled_evaluated_or_given_to_a_shell(path: Path) -> None:
    assert not PICKLERS & {found.target.partition(".")[0] for found in imports(path)}
    for node, _, _ in walk(tree_of(path)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert not any(hides_torch_load(node, alias) for alias in node.names), f"line {node.lineno}"
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in FORBIDDEN_CALLS, f"line {node.lineno}"
            for keyword in node.keywords:
                assert keyword.arg != "shell", f"line {node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_broad_excepts_stand_at_known_borders_and_pass_nothing_over(path: Path) -> None:
    for node, _, _ in walk(tree_of(path)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        assert node.type is not None, f"line {node.lineno}: a bare except"
        if ast.unparse(node.type) in ("Exception", "BaseException"):
            raised_again = ast.unparse(node.body[-1]) == "raise"
            assert raised_again or name_of(path) in BROAD_EXCEPT, f"line {node.lineno}"
            assert not isinstance(node.body[0], ast.Pass), f"line {node.lineno}"


def test_the_time_of_day_is_read_only_where_it_is_written_down() -> None:
    found = {name_of(path) for path in FILES if "time.time()" in path.read_text(encoding="utf-8")}
    assert found == WALL_CLOCK


HEAVY = {"torch", "litestar", "uvicorn", "httpx", "huggingface_hub", "tokenizers", "jinja2", "rich", "pynvml"}
HEAVY |= {"prompt_toolkit", "prometheus_client"}


@pytest.mark.parametrize(
    "start", ["import neuron.cli.app", "from neuron.cli.main import run; run(['--help'])"]
)
def test_the_command_line_starts_without_anything_heavy(start: str) -> None:
    code = f"import sys\n{start}\nprint(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert (done.returncode, done.stderr) == (0, "[]\n")
