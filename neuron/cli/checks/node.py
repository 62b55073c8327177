"""The node of this machine: configuration, port, version, and what its environment lacks."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from neuron.cli.before_start import look, look_at_address
from neuron.cli.checks.finding import Finding, Where, failure, ok, warning
from neuron.errors import InsufficientScope, InvalidApiKey, NeuronError
from neuron.holder import described, holder
from neuron.local_node import SCHEME_PORT, listens
from neuron.node_url import socket_path
from neuron.nodes import HOST_VARIABLE, Place, here, place
from neuron.settings import KEYS, config_dir, config_file, state_dir

CONNECT_S = 1.0
CLIENT_ONLY = {"NEURON_HOST", "NEURON_TRACEBACK", "NEURON_API_KEY"}
FOREIGN = ("HF_", "HUGGING_FACE_HUB_TOKEN", "PIP_INDEX_URL", "CUDA_VISIBLE_DEVICES")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
KEY_LINE = re.compile(r"(?m)^\s*(api_)?key\s*=")


def configuration(where: Where) -> Finding:
    """Every value of the file and the environment is one that ``neuron serve`` takes."""
    found = look({}, where.env)
    look_at_address(found)
    if found.wrong:
        first, more = found.wrong[0], len(found.wrong) - 1
        step = first.hint or "mend it where the message says"
        return failure(
            f"{first.message}{f' (and {more} more)' if more else ''}",
            f"{step}; neuron config check tells all",
        )
    file, settings = config_file(where.env), found.settings
    from_env = sum(settings.kind(key) == "environment" for key in KEYS)
    return ok(f"{file or 'no file'}; {from_env} settings from the environment")


def secrets(where: Where) -> Finding:
    """Files with keys are their owner's alone."""
    folders = (config_dir(where.env), state_dir())
    files = [path for folder in folders for name in ("keys*", "nodes.toml") for path in folder.glob(name)]
    secret = [path for path in files if path.name.startswith("keys") or KEY_LINE.search(_text(path))]
    open_to_others = [path for path in secret if path.stat().st_mode & 0o077]
    if open_to_others:
        paths = " ".join(map(str, open_to_others))
        return failure(f"others may read {paths}", f"chmod 600 {paths}")
    return ok(", ".join(map(str, secret)) + ": closed to others" if secret else "no files with keys")


def port(where: Where) -> Finding:
    """Where a node would listen nobody does, or a node."""
    url = where.local_url
    if isinstance(url, NeuronError):
        return ok(f"not looked at: {url.message}")
    if not listens(url, CONNECT_S):
        return ok(f"{url} is free")
    answer = _version(place(url, where.env))
    if isinstance(answer, str) or _wants_a_key(answer):
        return ok(f"{url} is a node's")
    pid = holder(_port_or_path(url), where.proc)
    return failure(
        f"{url} is held by {described(pid, where.proc)}, which does not answer as a node: {answer.message}",
        "stop it, or choose another: port in neuron.toml",
    )


def version(where: Where) -> Finding:
    """The node that commands speak to is what is installed."""
    from neuron.cli.version import package_version

    node, named = where.node, where.env.get(HOST_VARIABLE)
    if isinstance(node, NeuronError):
        return failure(node.message, node.hint or f"mend it, or unset {HOST_VARIABLE}")
    if not named and not listens(node.url, CONNECT_S):
        return ok("no node runs here")
    running, installed = _version(node), package_version()
    if isinstance(running, NeuronError):
        by = f" ({HOST_VARIABLE}={named})" if named else ""
        return warning(f"{running.message}{by}", running.hint or "look at its log")
    if running != installed:
        return warning(
            f"{node.url} runs {running}, {installed} is installed", "restart it: systemctl restart neuron"
        )
    return ok(f"{node.url} runs {running}, as installed")


def environment(where: Where) -> Finding:
    """What is set in this shell is set for the node as well."""
    theirs = node_environment(where)
    if theirs is None:
        return ok("no node or service to compare this shell with")
    missing = missing_there(where.env, theirs)
    if missing:
        return warning(
            f"set in this shell, and not or otherwise for the node: {', '.join(missing)}",
            "systemctl edit neuron: Environment= or, for tokens, LoadCredential=; then systemctl restart neuron",
        )
    return ok("the node has what this shell sets")


def missing_there(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """Names that matter to a node and have another value, or none, there."""
    matters = [
        name
        for name in here
        if name not in CLIENT_ONLY and (name.startswith(("NEURON_", *FOREIGN)) or name.upper() in PROXIES)
    ]
    return sorted(name for name in matters if there.get(name) != here[name])


def node_environment(where: Where) -> dict[str, str] | None:
    """Of the process that is this machine's node; else of the unit ``neuron``; None where neither can be read."""
    try:
        pid = holder(_port_or_path(here(where.env).url), where.proc)
    except NeuronError:  # another check tells it
        pid = None
    if pid and (raw := _bytes(where.proc / str(pid) / "environ")):
        pairs = (item.partition("=") for item in raw.decode(errors="replace").split("\0") if item)
        return {name: value for name, _, value in pairs}
    return _unit_environment()


def _unit_environment() -> dict[str, str] | None:
    if shutil.which("systemctl") is None:
        return None
    command = ["systemctl", "show", "neuron", "-p", "LoadState", "-p", "Environment"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5)
    except subprocess.TimeoutExpired:
        return None
    return unit_environment(done.stdout) if done.returncode == 0 else None


def unit_environment(shown: str) -> dict[str, str] | None:
    """What ``systemctl show`` prints; None if there is no such unit."""
    import shlex

    fields = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    if fields.get("LoadState") != "loaded":
        return None
    return dict(item.split("=", 1) for item in shlex.split(fields.get("Environment", "")) if "=" in item)


def _version(node: Place) -> str | NeuronError:
    """Of the node that answers there, or why none does."""
    from neuron.client import NodeClient

    try:
        with NodeClient(node, connect_s=CONNECT_S, answer_s=3) as client:
            return client.version().package_version
    except NeuronError as e:
        return e


def _wants_a_key(error: NeuronError) -> bool:
    """Only a node refuses like that."""
    return error.details.get("remote_code") in (InvalidApiKey.code, InsufficientScope.code)


def _port_or_path(url: str) -> int | Path:
    path = socket_path(url)
    return Path(path) if path else urlsplit(url).port or SCHEME_PORT[urlsplit(url).scheme]


def _text(path: Path) -> str:
    return _bytes(path).decode(errors="replace")


def _bytes(path: Path) -> bytes:
    """A small system file; nothing where there is none or it is closed to us."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
