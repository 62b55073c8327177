"""Keys: who may use a node. Of each the file has the SHA-256 alone; the secret is shown once, when it is made."""

from __future__ import annotations

import datetime
import difflib
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from neuron.errors import ConfigError, ExposedSecret, KeyNotFound, UsageError
from neuron.secret_file import GROUP_AND_OTHERS, OTHERS, is_there, read_secret
from neuron.settings import Settings, state_dir
from neuron.toml_file import tables

FILE_NAME = "keys.toml"
CREDENTIAL = "api-keys"
"""Name of the credential of a service that holds more keys."""
SECRET_BYTES = 32
PREFIX = "nk_"
"""Lets those who look for lost secrets find ours."""
ANONYMOUS = "anonymous"
"""Who asks where no keys are configured."""
HEADER = "# Written by `neuron keys`, which keeps no comments. A secret is not in here: sha256 is its hash.\n"


class Scope(IntEnum):
    """What a route needs and a key grants; a larger one includes the smaller ones."""

    OPEN = 0
    INFER = 1
    MANAGE = 2

    @property
    def word(self) -> str:
        """As it is written in files and messages."""
        return self.name.lower()


GRANTED = {scope.word: scope for scope in (Scope.INFER, Scope.MANAGE)}
"""Scopes that a key can have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One caller."""

    name: str
    scope: Scope
    sha256: bytes
    created: datetime.date
    max_in_flight: int | None = None
    """Most answers that may run and wait on one model; None: the node's ``max_per_principal``."""


@dataclass(frozen=True, slots=True)
class Keyring:
    """The keys that are configured. Without any, nobody passes."""

    keys: tuple[Key, ...]

    def find(self, secret: bytes) -> Key | None:
        """The key with this secret. Every key is compared, in the same time wherever they differ."""
        digest = hashlib.sha256(secret).digest()
        found = None
        for key in self.keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    def with_key(self, key: Key) -> Keyring:
        """These and one more. Raises `UsageError` where its name is taken."""
        if any(key.name == other.name for other in self.keys):
            raise UsageError(
                f"there is a key named {key.name!r}",
                hint=f"take it away first: neuron keys revoke {key.name}",
            )
        return Keyring((*self.keys, key))

    def without(self, name: str, path: Path) -> Keyring:
        """All but the one of this name. Raises `KeyNotFound` where ``path``, which they are from, has none."""
        left = tuple(key for key in self.keys if key.name != name)
        if left == self.keys:
            raise KeyNotFound(f"there is no key named {name!r} in {path}", hint=self._instead(name))
        return Keyring(left)

    def _instead(self, name: str) -> str:
        names = [key.name for key in self.keys]
        if not names:
            return "it holds no key; --file names another file"
        near = difflib.get_close_matches(name, names, n=1)
        return f"did you mean {near[0]}?" if near else f"the keys there are {', '.join(names)}"


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    """A key as the file has it."""

    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    scope: Literal["infer", "manage"]
    created: datetime.date
    max_in_flight: Annotated[int, msgspec.Meta(ge=1)] | None = None


def default_file() -> Path:
    """Where keys are kept unless the settings name another file."""
    return state_dir() / FILE_NAME


def load(file: Path | None, env: Mapping[str, str]) -> Keyring | None:
    """The keys of ``file`` (else of the default one, if it exists) and of the service's credential; None where
    neither is there, which means that no key is asked for.

    Raises:
        ExposedSecret, ConfigError
    """
    credential = Path(folder) / CREDENTIAL if (folder := env.get("CREDENTIALS_DIRECTORY")) else None
    # The service manager grants a credential to its user by an access list, which shows as the group's bits.
    places = [(file or default_file(), GROUP_AND_OTHERS), *([(credential, OTHERS)] if credential else [])]
    found = [read(path, forbidden) for path, forbidden in places if path == file or is_there(path)]
    return _joined(found) if found else None


def of(settings: Settings, env: Mapping[str, str]) -> Keyring | None:
    """The same of a node with these settings; an error in the file that they name says where they name it."""
    try:
        return load(settings.keys_file, env)
    except (ConfigError, ExposedSecret) as e:
        if settings.keys_file is None or not e.message.startswith(f"{settings.keys_file}:"):
            raise
        raise type(e)(f"{settings.place('keys_file')}: {e.message}", hint=e.hint, param="keys_file") from e


def read(path: Path, forbidden: int = GROUP_AND_OTHERS) -> Keyring:
    """The keys of one file. Raises `ExposedSecret` and, for what is no such file, `ConfigError`."""
    text = read_secret(path, forbidden)
    keys = []
    for name, table, line in tables(path, text, _Table):
        if problem := wrong_name(name):
            raise ConfigError(f"{path}:{line}: {problem}")
        keys.append(
            Key(
                name=name,
                scope=GRANTED[table.scope],
                sha256=bytes.fromhex(table.sha256),
                created=table.created,
                max_in_flight=table.max_in_flight,
            )
        )
    return Keyring(tuple(keys))


def _joined(rings: Iterable[Keyring]) -> Keyring:
    keys: dict[str, Key] = {}
    for key in (key for ring in rings for key in ring.keys):
        if key.name in keys:
            raise ConfigError(
                f"there are two keys named {key.name!r}, in the file of keys and in the credential {CREDENTIAL}",
                hint="rename one of them",
            )
        keys[key.name] = key
    return Keyring(tuple(keys.values()))


def wrong_name(name: str) -> str | None:
    """What is wrong with the name of a key, if anything is."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        return f"{name[:80]!r} is not the name of a key: 1 to 64 letters, digits, - and _"
    return f"no key can be named {ANONYMOUS}" if name == ANONYMOUS else None


def make(name: str, scope: Scope, max_in_flight: int | None = None) -> tuple[Key, str]:
    """A new key and its secret, which nobody keeps."""
    secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    digest = hashlib.sha256(secret.encode()).digest()
    today = datetime.datetime.now(datetime.UTC).date()
    return Key(name=name, scope=scope, sha256=digest, created=today, max_in_flight=max_in_flight), secret


def text_of(ring: Keyring) -> str:
    """The file of these keys."""
    return "\n".join([HEADER, *map(_table_text, ring.keys)])


def _table_text(key: Key) -> str:
    limit = "" if key.max_in_flight is None else f"max_in_flight = {key.max_in_flight}\n"
    return (
        f'[{key.name}]\nscope = "{key.scope.word}"\ncreated = {key.created}\n{limit}'
        f'sha256 = "{key.sha256.hex()}"\n'
    )


def shown(key: Key) -> dict[str, object]:
    """What may be said of a key."""
    return {
        "name": key.name,
        "scope": key.scope.word,
        "created": key.created.isoformat(),
        "max_in_flight": key.max_in_flight,
    }
