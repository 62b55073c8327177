"""Nodes by name: ``nodes.toml`` in the user's configuration folder, and which key belongs to which node."""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from neuron.errors import ConfigError, NeuronError
from neuron.local_node import local_url
from neuron.node_url import is_loopback, node_url
from neuron.secret_file import check_private, is_there, read_secret, read_with_status
from neuron.settings import config_dir
from neuron.toml_file import line_of, tables

FILE_NAME = "nodes.toml"
KEY_VARIABLE = "NEURON_API_KEY"
HOST_VARIABLE = "NEURON_HOST"
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node is, and the key for it alone."""

    url: str
    key: str | None = field(default=None, repr=False)
    key_from: str = KEY_VARIABLE
    """Where the key is said, or would be."""
    doubt: str | None = field(default=None, compare=False)
    """What to say where nobody answers at what may be a name that was mistyped."""


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    """A node as the file has it; one of the three keys at most."""

    url: str
    key: str | None = None
    key_file: str | None = None
    key_env: str | None = None


@dataclass(frozen=True, slots=True)
class NamedNode:
    """A node of the file. Its key is read when it is asked for."""

    name: str
    url: str
    origin: str
    """File and line."""
    folder: Path
    """What ``key_file`` is relative to."""
    said: _Table = field(repr=False)

    @property
    def has_key(self) -> bool:
        """Whether the file says anything of a key."""
        return any((self.said.key, self.said.key_file, self.said.key_env))

    def place(self, env: Mapping[str, str]) -> Place:
        """The node with its own key, if it has one. Raises `ConfigError` and `ExposedSecret`."""
        return Place(self.url, self._key(env), f"{self.origin}: [{self.name}]")

    def _key(self, env: Mapping[str, str]) -> str | None:
        if self.said.key_file is not None:
            path = self.folder / Path(self.said.key_file).expanduser()
            return checked_key(read_secret(path), str(path))
        if (variable := self.said.key_env) is not None:
            if not env.get(variable):
                raise ConfigError(
                    f"{self.origin}: [{self.name}]: {variable} is not set", hint=f"export {variable}=…"
                )
            return checked_key(env[variable], variable)
        return None if self.said.key is None else checked_key(self.said.key, self.origin)


def default_file(env: Mapping[str, str]) -> Path:
    """Where nodes are named."""
    return config_dir(env) / FILE_NAME


def read(env: Mapping[str, str]) -> dict[str, NamedNode]:
    """Every node that has a name; none where there is no file.

    Raises:
        ConfigError: with file and line.
        ExposedSecret: a file that others can read has a key in it.
    """
    path = default_file(env)
    if not is_there(path):
        return {}
    text, status = read_with_status(path)
    found = {name: _node(path, text, name, said, line) for name, said, line in tables(path, text, _Table)}
    if any(node.said.key is not None for node in found.values()):
        check_private(path, status)
    return found


def _node(path: Path, text: str, name: str, said: _Table, line: int) -> NamedNode:
    if not NAME.fullmatch(name):
        raise ConfigError(f"{path}:{line}: {name[:80]!r} is no name: 1 to 64 letters, digits, - and _")
    keys = [key for key in ("key", "key_file", "key_env") if getattr(said, key) is not None]
    if len(keys) > 1:
        at = line_of(text, keys[1], line)
        raise ConfigError(f"{path}:{at}: [{name}] has both {keys[0]} and {keys[1]}", hint="keep one of them")
    try:
        url = node_url(said.url)
    except NeuronError as e:
        raise ConfigError(f"{path}:{line_of(text, 'url', line)}: [{name}]: {e.message}", hint=e.hint) from e
    return NamedNode(name, url, f"{path}:{line}", path.parent, said)


def shell_key(said: str | None, env: Mapping[str, str]) -> str | None:
    """What a shell writes for the key of the node that ``--host`` names, without the key itself; None: no key.

    Raises:
        ConfigError: the key stands in the file itself, from where no shell can take it.
    """
    named = read(env).get(said or "")
    if named is None or not named.has_key:
        return f'"${KEY_VARIABLE}"' if env.get(KEY_VARIABLE) else None
    if named.said.key_env is not None:
        return f'"${named.said.key_env}"'
    if named.said.key_file is None:
        raise ConfigError(
            f"{named.origin}: the key of {named.name} stands there", hint="use key_file or key_env"
        )
    path = named.folder / Path(named.said.key_file).expanduser()
    return f'"$(cat {shlex.quote(str(path))})"'


def place(said: str | None, env: Mapping[str, str] | None = None) -> Place:
    """Where the node is that ``--host`` names: by a name of the file, as an address, or (None) on this machine
    as the settings say.

    A node of the file that has a key of its own gets that one, also where it is named by its URL; every other node
    gets the key in ``NEURON_API_KEY``.

    Raises:
        UsageError: neither a name nor an address.
        ConfigError, ExposedSecret: the file, or the key, can't be taken.
    """
    env = os.environ if env is None else env
    named = read(env)
    node = named.get(said) if said is not None else None
    url = node.url if node else local_url(env) if said is None else node_url(said)
    if node is None:
        node = next((one for one in named.values() if one.url == url and one.has_key), None)
    if node is not None and node.has_key:
        return node.place(env)
    key = env.get(KEY_VARIABLE)
    doubt = _doubt(said or "", named, default_file(env))
    return Place(url, checked_key(key, KEY_VARIABLE) if key else None, doubt=doubt)


def here(env: Mapping[str, str]) -> Place:
    """This machine's node: what ``NEURON_HOST`` names, if that is on this machine, else as the settings say.

    Raises as `place` does.
    """
    if said := env.get(HOST_VARIABLE):
        found = place(said, env)
        if is_loopback(found.url):
            return found
    return place(None, env)


def _doubt(said: str, named: Mapping[str, NamedNode], file: Path) -> str | None:
    """Of a word that could be a name of the file, where nodes have names."""
    if said in named or not named or not NAME.fullmatch(said):
        return None
    near = difflib.get_close_matches(said, named, n=1, cutoff=0.5)
    meant = f"did you mean {near[0]}?" if near else f"the names there are {', '.join(named)}"
    return f"{said} is no name in {file}, so it was taken for a host; {meant}"


def checked_key(text: str, where: str) -> str:
    """A key as a header can carry it. The message does not quote it."""
    key = text.strip()
    if not re.fullmatch(r"[\x21-\x7e]{1,4096}", key):
        raise ConfigError(f"{where}: what is there is no key: printable ASCII in one line, without spaces")
    return key
