"""``neuron nodes``: the nodes that have a name."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from neuron.cli.context import JsonOption

if TYPE_CHECKING:
    from neuron.nodes import NamedNode

EXAMPLES = ("neuron nodes", "neuron nodes --json", "neuron models --host gpu1")

COLUMNS = ("NAME", "URL", "STATE", "MODELS", "ERROR")
STATES = {True: "refuses", False: "no answer", None: "not asked"}
"""``reachable`` → what it means where there is an error."""
CONNECT_S = 1.0
ANSWER_S = 3.0
AT_ONCE = 16


def run(json: JsonOption = False) -> None:
    """List the nodes of nodes.toml, whether they answer, and their models.

    A node is asked with its own key; NEURON_API_KEY is not sent around.
    """
    from neuron import nodes
    from neuron.cli.render import notice, show_json, show_table

    named = nodes.read(os.environ)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(_asked, named.values()))
    if json:
        show_json(found)
    elif found:
        width = len(COLUMNS) if any(said["error"] for said in found) else len(COLUMNS) - 1
        show_table(COLUMNS[:width], (_row(said)[:width] for said in found))
    else:
        path = nodes.default_file(os.environ)
        notice(f'no node has a name; write into {path}: [gpu1] and url = "http://gpu1:13131"')


def _asked(node: NamedNode) -> dict[str, Any]:
    """What the node says, or why it says nothing."""
    from neuron.client import NodeClient
    from neuron.errors import NeuronError, NodeAnsweredError, NodeUnreachable

    said: dict[str, Any] = {"name": node.name, "url": node.url, "reachable": None, "models": []}
    try:
        with NodeClient(node.place(os.environ), connect_s=CONNECT_S, answer_s=ANSWER_S) as client:
            models = [model.id for model in client.models() if model.status == "loaded"]
    except NodeUnreachable as e:
        return {**said, "reachable": False, "error": e.message}
    except NodeAnsweredError as e:
        return {**said, "reachable": True, "error": e.message}
    except NeuronError as e:  # its key can't be had
        return {**said, "error": e.message}
    return {**said, "reachable": True, "models": models, "error": None}


def _row(said: dict[str, Any]) -> tuple[object, ...]:
    state = STATES[said["reachable"]] if said["error"] else "answers"
    return said["name"], said["url"], state, ", ".join(said["models"]) or "-", said["error"] or ""
