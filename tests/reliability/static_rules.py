"""What no file of the program does, each as a function from a file's tree to the lines that do it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping

Rule = Callable[[ast.Module], Iterator[int]]

PICKLERS = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "copyreg",
    "pickletools",
}
EVALUATORS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "builtins.eval",
    "builtins.exec",
    "code.interact",
    "runpy.run_path",
}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "pty.spawn"}
WALL_CLOCKS = {
    *("time.time", "time.time_ns", "datetime.datetime.now", "datetime.datetime.utcnow"),
    *("datetime.datetime.today", "datetime.date.today", "time.localtime", "time.gmtime", "time.ctime"),
}
UNPICKLING = {
    "torch.load",
    "numpy.load",
    "torch.hub.load",
    "torch.jit.load",
    "pandas.read_pickle",
    "yaml.load",
}
REMOTE_CODE = {"transformers", "accelerate", "peft"}


def names_of(tree: ast.Module) -> dict[str, str]:
    """Local name -> what was imported under it: ``t`` is ``torch`` after ``import torch as t``."""
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                known[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return known


def full_name(node: ast.expr, known: Mapping[str, str]) -> str:
    """``torch.load`` however it was imported; "" for what is no plain name."""
    if isinstance(node, ast.Name):
        return known.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        holder = full_name(node.value, known)
        return f"{holder}.{node.attr}" if holder else ""
    return ""


def imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Top name and line of everything that is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0], node.lineno


def mentions(tree: ast.Module, names: set[str]) -> Iterator[int]:
    """Lines where one of some full names is used, called or handed on."""
    known = names_of(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and full_name(node, known) in names:
            yield node.lineno


def unpickling(tree: ast.Module) -> Iterator[int]:
    """An import of what unpickles, or a function that may."""
    yield from (line for name, line in imports(tree) if name in PICKLERS)
    yield from mentions(tree, UNPICKLING)


def evaluating(tree: ast.Module) -> Iterator[int]:
    """Data run as code; a module imported by a name that is not written in the file."""
    yield from mentions(tree, EVALUATORS)


def shell(tree: ast.Module) -> Iterator[int]:
    """A command given to a shell."""
    yield from mentions(tree, SHELLS)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from (node.lineno for keyword in node.keywords if keyword.arg == "shell")
            first = node.args[0] if node.args else None
            if isinstance(first, ast.List) and first.elts and isinstance(first.elts[0], ast.Constant):
                yield from [node.lineno] * (first.elts[0].value in ("sh", "bash", "/bin/sh", "/bin/bash"))


def wall_clock(tree: ast.Module) -> Iterator[int]:
    """The time of day is read."""
    yield from mentions(tree, WALL_CLOCKS)


def wall_clock_arithmetic(tree: ast.Module) -> Iterator[int]:
    """The time of day in a sum, a difference or a comparison: a time-out or a duration."""
    known = names_of(tree)
    clocks = {"time.time", "time.time_ns"}
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp | ast.Compare):
            called = (full_name(n.func, known) for n in ast.walk(node) if isinstance(n, ast.Call))
            if clocks & set(called):
                yield node.lineno


def passed_over(tree: ast.Module) -> Iterator[int]:
    """``except Exception: pass``, ``except: …`` and ``suppress(Exception)``: a failure that nobody hears of."""
    known = names_of(tree)
    broad = {"Exception", "BaseException"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            is_broad = any(c is None or full_name(c, known) in broad for c in caught)
            is_empty = all(isinstance(s, ast.Pass | ast.Continue) or _is_ellipsis(s) for s in node.body)
            if node.type is None or (is_broad and is_empty):
                yield node.lineno
        if isinstance(node, ast.Call) and full_name(node.func, known) == "contextlib.suppress":
            yield from (node.lineno for arg in node.args if full_name(arg, known) in broad)


def _is_ellipsis(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def remote_code(tree: ast.Module) -> Iterator[int]:
    """A library that runs the code of a repository, or the words that ask for it."""
    yield from (line for name, line in imports(tree) if name in REMOTE_CODE)
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword | ast.arg) and node.arg == "trust_remote_code":
            yield node.lineno
        if isinstance(node, ast.Name | ast.Attribute):
            word = node.id if isinstance(node, ast.Name) else node.attr
            yield from [node.lineno] * word.startswith(("AutoModel", "AutoTokenizer", "AutoConfig"))


def mapped(tree: ast.Module) -> Iterator[int]:
    """A file mapped into memory, which ends the process when the file shrinks."""
    yield from mentions(tree, {"mmap.mmap", "torch.from_file", "numpy.memmap"})
    known = names_of(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and full_name(node.func, known).endswith("safe_open"):
            said = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
            if said.get("backend") != "pread":
                yield node.lineno


def undelimited_route(tree: ast.Module) -> Iterator[tuple[str, str, int]]:
    """Method, path and line of every route that the file declares."""
    known = names_of(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = full_name(node.func, known).removeprefix("litestar.").removeprefix("handlers.")
        if name not in ("get", "post", "put", "patch", "delete", "route", "head", "websocket", "asgi"):
            continue
        path = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else "?"
        declared = {k.arg: k.value for k in node.keywords}
        methods = [name.upper()] if name != "route" else ast.literal_eval(declared["http_method"])
        yield from ((method, str(path), node.lineno) for method in methods)


RULES: dict[str, Rule] = {
    "unpickles": unpickling,
    "evaluates data": evaluating,
    "runs a shell": shell,
    "reads the time of day": wall_clock,
    "measures with the time of day": wall_clock_arithmetic,
    "passes a failure over": passed_over,
    "runs code of a repository": remote_code,
    "maps a file": mapped,
}
