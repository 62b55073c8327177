"""``neuron keys revoke``: take a key away."""

from __future__ import annotations

from neuron.cli.keys import FileOption, NameArgument, file_of, say_how_to_reload

EXAMPLES = ("neuron keys revoke alice", "neuron keys revoke fleet --file /etc/neuron/keys.toml")


def run(name: NameArgument, file: FileOption = None) -> None:
    """Take a key out of the file of keys."""
    from neuron.cli.render import notice
    from neuron.key_file import change

    path = file_of(file)
    left = change(path, lambda ring: ring.without(name, path))
    print(f"revoked: {name}")
    if not left.keys:
        notice("no key is left: the node refuses everything but /ready; without the file it asks for no key")
    say_how_to_reload()
