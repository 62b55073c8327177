"""``neuron wait``: until a node is as a script needs it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from neuron.cli import completing
from neuron.cli.context import HostOption, node
from neuron.cli.exits import Exit
from neuron.errors import NodeUnreachable, UsageError

if TYPE_CHECKING:
    from neuron.client import NodeClient

EXAMPLES = (
    "neuron wait --for ready",
    "neuron wait --for loaded=smollm2 --timeout 600 --host gpu1",
    "neuron wait --for idle --for memory-free=8G --timeout 60",
)

POLL_S = 0.5
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
KNOWN = "ready, loaded=MODEL, idle, memory-free=8G"

Check = Callable[["NodeClient"], str | None]
"""None once it is so, else what is missing."""


def completions(context: typer.Context, incomplete: str) -> list[str]:
    """What ``--for`` may be, after ``loaded=`` the ids on the node."""
    begun = "loaded="
    if incomplete.startswith(begun):
        return [begun + name for name in completing.loaded(context, incomplete.removeprefix(begun))]
    return [word for word in (*PLAIN, *(f"{name}=" for name in VALUED)) if word.startswith(incomplete)]


def run(
    conditions: Annotated[
        list[str],
        typer.Option(
            "--for",
            metavar="CONDITION",
            help=f"What to wait for: {KNOWN}; repeat it for all of several.",
            autocompletion=completions,
        ),
    ],
    timeout: Annotated[
        float | None,
        typer.Option(metavar="S", help="Give up after so many seconds, with exit code 75 [never].", min=0),
    ] = None,
    host: HostOption = None,
) -> None:
    """Wait until a node is ready, has a model, is idle, or has memory.

    It waits for a node that is not up yet as well, and says on stderr what is missing. ready: new work is taken.
    idle: nothing runs or waits. memory-free: of the GPU that has the most, or of the machine where there is none;
    K, M and G are powers of 1024.
    """
    from neuron.cli.render import notice

    checks = {text: condition(text) for text in conditions}
    deadline_s = None if timeout is None else time.monotonic() + timeout
    said: str | None = None
    with node(host) as client:
        while missing := _missing(client, checks):
            if missing != said:
                notice(f"waiting for {missing}")
            said = missing
            if deadline_s is not None and time.monotonic() >= deadline_s:
                notice(f"neuron: not so within {timeout:g} s: {missing}")
                raise typer.Exit(Exit.TEMPORARY)
            _sleep(deadline_s)


def _sleep(deadline_s: float | None) -> None:
    left_s = POLL_S if deadline_s is None else deadline_s - time.monotonic()
    time.sleep(max(0.0, min(POLL_S, left_s)))


def _missing(client: NodeClient, checks: Mapping[str, Check]) -> str | None:
    """The first condition that is not met, and why."""
    try:
        for text, check in checks.items():
            if (why := check(client)) is not None:
                return f"{text}: {why}"
    except NodeUnreachable as error:
        return f"{next(iter(checks))}: {error.message}"
    return None


# ---- conditions


def condition(text: str) -> Check:
    """What ``--for`` says. Raises `UsageError`."""
    name, equals, value = text.partition("=")
    if not equals and name in PLAIN:
        return PLAIN[name]
    if value and name in VALUED:
        return VALUED[name](value)
    raise UsageError(f"--for {text!r} is no condition", hint=f"one of {KNOWN}")


def _ready(client: NodeClient) -> str | None:
    return None if client.ready() else "it takes no new work"


def _idle(client: NodeClient) -> str | None:
    busy = [m for m in client.health().body.models if m.in_flight or m.queue_depth]
    running, waiting = sum(m.in_flight for m in busy), sum(m.queue_depth for m in busy)
    return f"{running} running, {waiting} waiting" if busy else None


def _loaded(model_id: str) -> Check:
    def check(client: NodeClient) -> str | None:
        model = client.model(model_id)
        if model is None:
            return "nobody has asked for it"
        if model.status == "failed":
            return f"its load failed: {model.error}"
        return None if model.status == "loaded" else f"it is {model.status}"

    return check


def _memory_free(text: str) -> Check:
    wanted = _bytes(text)

    def check(client: NodeClient) -> str | None:
        body = client.health().body
        free = [device.vram_free_mb for device in body.devices] or [body.cpu.memory_free_mb]
        return None if max(free) * UNITS["M"] >= wanted else f"{max(free):,} MB are free"

    return check


def _bytes(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG])", text.upper(), re.ASCII)
    if found is None:
        raise UsageError(
            f"--for memory-free: {text!r} is no size", hint="a number and K, M or G: 8G, 512M, 1.5G"
        )
    return float(found[1]) * UNITS[found[2]]


PLAIN: Mapping[str, Check] = {"ready": _ready, "idle": _idle}
VALUED: Mapping[str, Callable[[str], Check]] = {"loaded": _loaded, "memory-free": _memory_free}
