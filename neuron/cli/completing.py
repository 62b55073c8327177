"""What the shell completes in the place of a model or a node. Nothing here raises: the line would show it.

`BASH` makes that shell ask.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable

import typer

ASK_S = 0.1
"""How long a node is waited for."""
BASH = """\
# shellcheck shell=bash
# Completion of neuron, by the program itself. A word with colons is one word here, whatever COMP_WORDBREAKS says.
_neuron_completion() {
    local line=${COMP_LINE:0:COMP_POINT} count words word
    read -ra words <<<"$line"
    count=${#words[@]}
    [[ $line == *[[:space:]] ]] || count=$((count - 1))
    word=${words[count]-}
    mapfile -t COMPREPLY < <(
        env COMP_WORDS="$line" COMP_CWORD="$count" _NEURON_COMPLETE=complete_bash "$1" 2>/dev/null
    )
    if [[ $word == *:* && $COMP_WORDBREAKS == *:* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*:}"}"}")
    fi
}

complete -o default -F _neuron_completion neuron
"""
_SAFE = re.compile(r"[\w./:@+=-]+")
"""What no shell acts on. Others name models on a node, and some shells evaluate what is completed."""


def nodes(incomplete: str) -> list[str]:
    """Names of nodes.toml."""
    from neuron import nodes
    from neuron.errors import NeuronError

    try:
        return _fitting(nodes.read(os.environ), incomplete)
    except NeuronError:
        return []


def references(incomplete: str) -> list[str]:
    """What can be fetched or loaded: short names, and what was fetched before."""
    return _fitting(_known_here(), incomplete)


def loaded(context: typer.Context, incomplete: str) -> list[str]:
    """Ids on the node that ``--host`` names; what is known here if it does not say them in time."""
    found = _on_node(context.params.get("host") or os.environ.get("NEURON_HOST"))
    return _fitting(_known_here() if found is None else found, incomplete)


def askable(context: typer.Context, incomplete: str) -> list[str]:
    """Ids on the node, and what it or this process can load."""
    found = _on_node(context.params.get("host") or os.environ.get("NEURON_HOST"))
    return _fitting([*(found or ()), *_known_here()], incomplete)


def _fitting(words: Iterable[str], incomplete: str) -> list[str]:
    return [word for word in dict.fromkeys(words) if word.startswith(incomplete) and _SAFE.fullmatch(word)]


def _known_here() -> list[str]:
    from neuron.sources.aliases import ALIASES
    from neuron.sources.manifest import sources

    return [*ALIASES, *sources()]


def _on_node(host: str | None) -> list[str] | None:
    """Ids of its models; None if it does not say them within `ASK_S`."""
    from neuron.client import NodeClient
    from neuron.errors import NeuronError

    found: list[list[str]] = []

    def ask(client: NodeClient) -> None:
        try:
            found.append([model.id for model in client.models()])
        except NeuronError:
            return

    try:
        client = NodeClient(host or None, connect_s=ASK_S, answer_s=ASK_S)
    except NeuronError:
        return None
    asking = threading.Thread(target=ask, args=(client,), daemon=True)
    asking.start()
    asking.join(ASK_S)
    return found[0] if found else None
