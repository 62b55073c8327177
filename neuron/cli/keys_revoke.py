"""``neuron keys revoke``: take a key away."""

from __future__ import annotations

from neuron.cli.keys import FileOption, NameArgument, file_of, say_how_to_reload

EXAMPLES = ("neuron keys revoke alice", "neuron keys revoke fleet --file /etc/neuron/keys.toml")


def run(name: NameArgument, file: FileOption = None) -> None:
    """Take a key out of the file of keys."""
    from neuron.cli.render import notice
    from neuron.key_file import change
    from neuron.keys import Keyring
    from neuron.secret_file import is_there

    path = file_of(file)
    if not is_there(path):  # a change would make the folder first
        Keyring(()).without(name, path)
    left = change(path, lambda ring: ring.without(name, path))
    print(f"revoked: {name}")
    if not left.keys:
        notice("no key is left: the node refuses everything but /ready; without the file it asks for no key")
    say_how_to_reload()
