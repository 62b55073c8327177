"""``neuron keys list``: who may use a node."""

from __future__ import annotations

from neuron.cli.context import JsonOption
from neuron.cli.keys import FileOption, file_of

EXAMPLES = ("neuron keys list", "neuron keys list --json", "neuron keys list --file /etc/neuron/keys.toml")

COLUMNS = ("NAME", "SCOPE", "CREATED", "MAX IN FLIGHT")


def run(file: FileOption = None, json: JsonOption = False) -> None:
    """List the keys in a file: names and what they grant. Secrets are nowhere to be had."""
    from neuron import keys
    from neuron.cli.render import notice, show_json, show_table
    from neuron.secret_file import is_there

    path = file_of(file)
    found = keys.read(path).keys if file or is_there(path) else ()
    if json:
        show_json([keys.shown(key) for key in found])
    elif found:
        show_table(COLUMNS, ((k.name, k.scope.word, k.created, k.max_in_flight or "-") for k in found))
    else:
        notice(f"there are no keys in {path}; neuron keys add NAME makes one")
