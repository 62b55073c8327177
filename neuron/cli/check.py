"""``neuron health --check``: one line and an exit code, as monitors of the Nagios kind want them."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import TYPE_CHECKING

from neuron.errors import NodeAnsweredError, NodeUnreachable

if TYPE_CHECKING:
    from neuron.client import Health, NodeClient
    from neuron.wire.node import HealthResponse


class Level(IntEnum):
    """How bad it is; the exit code."""

    OK = 0
    WARNING = 1
    CRITICAL = 2


Finding = tuple[Level, str]


def check(client: NodeClient) -> tuple[Level, str]:
    """The level of a node and its line."""
    try:
        health = client.health()
    except (NodeUnreachable, NodeAnsweredError) as error:
        return Level.CRITICAL, _line(Level.CRITICAL, error.message, "")
    found = list(findings(health))
    level = max((level for level, _ in found), default=Level.OK)
    worst_first = sorted(found, key=lambda finding: -finding[0])
    text = "; ".join(text for _, text in worst_first) or _summary(health.body)
    return level, _line(level, text, _figures(health.body))


def findings(health: Health) -> Iterator[Finding]:
    """What is not as it should be."""
    body, start = health.body, health.body.activation
    if health.stalled:
        yield Level.CRITICAL, "the decode loop is stalled"
    if not body.accepting:
        yield Level.CRITICAL, "no new work is accepted"
    for failure in start.failed:
        yield Level.CRITICAL, f"{failure.model_id} failed to load at start: {failure.error}"
    if start.in_progress or start.pending:
        n_left = len(start.pending) + bool(start.in_progress)
        yield Level.WARNING, f"{n_left} of the models at start not loaded yet"
    elif not body.models:
        yield Level.WARNING, "no model is loaded"
    for model in body.models:
        if 0 < model.max_queue_depth <= model.queue_depth:
            yield Level.WARNING, f"the queue of {model.id} is full"


def _summary(body: HealthResponse) -> str:
    return ", ".join(model.id for model in body.models)


def _figures(body: HealthResponse) -> str:
    """Performance data: ``name=value``."""
    figures = {
        "models": len(body.models),
        "running": sum(model.in_flight for model in body.models),
        "waiting": sum(model.queue_depth for model in body.models),
        "refused": sum(model.rejected_queue_full + model.rejected_timeout for model in body.models),
        "memory_free": f"{body.cpu.memory_free_mb}MB",
        "uptime": f"{body.uptime_secs}s",
    }
    return " ".join(f"{name}={value}" for name, value in figures.items())


def _line(level: Level, text: str, figures: str) -> str:
    """A bar in the text would begin the figures."""
    from neuron.cli.terminal_text import one_line

    said = f"NEURON {level.name} - {one_line(text).replace('|', '/')}"
    return f"{said} | {figures}" if figures else said
