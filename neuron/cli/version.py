"""``neuron version``: what this program and a node are."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import TYPE_CHECKING

from neuron.cli.context import HostOption, JsonOption, node
from neuron.errors import NeuronError, NodeUnreachable

if TYPE_CHECKING:
    from neuron.wire.node import VersionResponse

EXAMPLES = ("neuron version", "neuron version --host gpu1 --json")


def run(host: HostOption = None, json: JsonOption = False) -> None:
    """Show this program's version, and the node's.

    Without --host the node is this machine's, if one runs. Where the node can't be asked, this program is shown all
    the same, and the exit code says why.
    """
    from neuron.cli.render import show_fields, show_json

    program, found, failure = _program(), None, None
    try:
        found = _node_version(host)
    except NeuronError as e:
        failure = e  # what is known of this program is shown all the same
    if json:
        show_json({"program": program, "node": found})
    else:
        show_fields(program.items())
    if found and not json:
        print()
        show_fields(_node_fields(found))
    if failure:
        raise failure


def package_version(name: str = "neuron-node") -> str:
    """The version of an installed distribution, without importing it."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _program() -> dict[str, str]:
    return {
        "neuron": package_version(),
        "python": platform.python_version(),
        "torch": package_version("torch"),
        "platform": platform.platform(),
    }


def _node_version(host: str | None) -> VersionResponse | None:
    """The node's; None if no node was named and none runs here."""
    with node(host, connect_s=1.0) as client:
        try:
            return client.version()
        except NodeUnreachable:
            if host:
                raise
            return None


def _node_fields(found: VersionResponse) -> list[tuple[str, object]]:
    return [
        ("node", found.package_version),
        ("python", found.python),
        ("torch", found.torch),
        ("platform", found.platform),
        ("features", ", ".join(found.features)),
    ]
