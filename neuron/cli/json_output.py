"""What ``--json`` prints, by command: the types that `neuron.cli.handbook` makes schemas of.

Most are the node's own answers. The rest is written down here; a test holds what commands print against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

import msgspec

from neuron.bench.report import Report
from neuron.cli.checks.finding import Finding
from neuron.settings import OriginKind
from neuron.sources.cache import Cached, Removed
from neuron.wire import node
from neuron.wire.chat import CompletionUsage


class Loaded(TypedDict):
    """What became of a load."""

    model_id: str
    status: Literal["loaded", "loading", "changed", "already loaded"]


class Unloaded(TypedDict):
    """What became of an unload."""

    model_id: str
    status: Literal["unloaded", "failed"]
    error: str | None


class Pulled(TypedDict):
    """Where a model lies."""

    model: str
    path: str
    verified: bool


class Endpoint(TypedDict):
    """What an application must be told."""

    openai_base_url: str
    anthropic_base_url: str
    model: str
    key_variable: str


class Answered(TypedDict):
    """A whole answer."""

    model: str
    content: str
    reasoning: str | None
    finish_reason: str
    usage: CompletionUsage | None


class ChatSession(TypedDict):
    """A conversation that is kept; with ``--list``."""

    name: str
    model: str | None
    messages: int
    changed_s: float
    begins: str


class Drained(TypedDict):
    """How a drain goes on."""

    status: Literal["draining", "stopped"]
    timeout_s: float


class Program(TypedDict):
    """This program."""

    neuron: str
    python: str
    torch: str
    platform: str


class Versions(TypedDict):
    """This program and the node."""

    program: Program
    node: node.VersionResponse | None


class NodeState(TypedDict):
    """A node of nodes.toml."""

    name: str
    url: str
    reachable: bool | None
    models: list[str]
    error: str | None


class KeyShown(TypedDict):
    """A key, without what it is."""

    name: str
    scope: str
    created: str
    max_in_flight: int | None


class KeyMade(KeyShown):
    """A new key; ``secret`` is shown this once."""

    secret: str
    file: str


class SettingShown(TypedDict):
    """A setting; ``at`` is a variable, or a file and line, and null for a default."""

    value: Any
    origin: OriginKind
    at: str | None


class Event(TypedDict):
    """One line for each event; its own fields follow."""

    seq: int
    time: float
    level: str
    event: str


OUTPUTS: Mapping[tuple[str, ...], Any] = {
    ("load",): Loaded | node.LoadPlan,
    ("unload",): Unloaded | list[Unloaded],
    ("models",): list[node.ModelInfo] | list[Cached],
    ("show",): node.ModelDescription,
    ("endpoint",): Endpoint,
    ("pull",): Pulled,
    ("rm",): Removed,
    ("chat",): Answered | list[ChatSession],
    ("health",): node.HealthResponse,
    ("drain",): Drained,
    ("explain",): node.RequestInfo | list[node.RequestInfo],
    ("events",): Event,
    ("bench",): Report,
    ("doctor",): list[Finding],
    ("discovery",): node.DiscoveryResponse,
    ("nodes",): list[NodeState],
    ("version",): Versions,
    ("config", "show"): dict[str, SettingShown],
    ("keys", "add"): KeyMade,
    ("keys", "list"): list[KeyShown],
}
LINES = frozenset({("events",)})
"""Commands that print a document a line."""


def schema(output: Any) -> dict[str, Any]:
    """JSON Schema (2020-12) of an output, whole by itself."""
    if hasattr(output, "__args__") and not hasattr(
        output, "__origin__"
    ):  # ``A | B``: msgspec takes one object only
        found, parts = msgspec.json.schema_components(output.__args__, ref_template="#/$defs/{name}")
        return {"anyOf": list(found), "$defs": parts}
    return msgspec.json.schema(output)
