"""The torch that is installed, as far as its files tell: importing it takes seconds."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from neuron import hardware


@dataclass(frozen=True, slots=True)
class Build:
    """What ``torch/version.py`` says. None for a platform that it was not built for."""

    version: str
    cuda: str | None = None
    hip: str | None = None


def find() -> Build | None:
    """The torch that an import would take; None where there is none, or it does not say what it is."""
    found = importlib.util.find_spec("torch")
    if found is None or not found.submodule_search_locations:
        return None
    try:
        text = (Path(found.submodule_search_locations[0]) / "version.py").read_text(encoding="utf-8")
        said = dict(_assigned(ast.parse(text)))
    except (OSError, ValueError, SyntaxError):
        return None
    version = said.get("__version__")
    return Build(version, said.get("cuda"), said.get("hip")) if version else None


def _assigned(tree: ast.Module) -> list[tuple[str, str | None]]:
    """Names that are given a text or None at the top of a module."""
    found = []
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        if isinstance(value, ast.Constant) and isinstance(value.value, str | None):
            found += [(target.id, value.value) for target in targets if isinstance(target, ast.Name)]
    return found


def lacks(
    device: str, env: Mapping[str, str], build: Build | None, host: hardware.Host | None = None
) -> str | None:
    """Why ``device``, as the settings spell it, can't be there; None where nothing speaks against it.

    Whether the driver suits the build, and the device works, only torch itself can tell.
    """
    if not device.startswith("cuda") or build is None:
        return None
    if build.cuda is None and build.hip is None:
        return f"the torch that is installed ({build.version}) is built for CPUs"
    host = host or hardware.discover()
    if build.cuda is None or host.cuda_unavailable_reason:
        return None
    return _not_among(int(device.partition(":")[2] or 0), visible(len(host.gpus), env))


def _not_among(index: int, n_gpus: int) -> str | None:
    if index < n_gpus:
        return None
    return "this process can see no GPU" if n_gpus == 0 else f"the GPUs here are cuda:0 to cuda:{n_gpus - 1}"


def visible(n_gpus: int, env: Mapping[str, str]) -> int:
    """How many GPUs ``CUDA_VISIBLE_DEVICES`` leaves; its list ends at the first that is not there."""
    said = env.get("CUDA_VISIBLE_DEVICES")
    if said is None:
        return n_gpus
    names = [name.strip() for name in said.split(",")]
    there = [name[:1].isalpha() or (name.isdecimal() and int(name) < n_gpus) for name in names]
    return min(n_gpus, there.index(False) if False in there else len(there))
