"""Who may do what on this node: the keys as they are now, and the scope that each route needs."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from neuron import keys
from neuron.daemon.operations import OPERATIONS, Operation
from neuron.errors import ConfigError, InsufficientScope, InvalidApiKey
from neuron.keys import ANONYMOUS, Key, Keyring, Scope
from neuron.log import event
from neuron.settings import Settings

log = logging.getLogger(__name__)

CALLER = "caller"
"""In a request's state: who asks."""
Headers = Iterable[tuple[bytes, bytes]]


class Unrouted(Exception):
    """What no operation answers: an unknown path, or (``methods`` are those that it has) a wrong method."""

    def __init__(self, methods: tuple[str, ...]) -> None:
        self.methods = methods


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as far as the node knows."""

    name: str = ANONYMOUS
    limit: int | None = None
    """Most answers of this caller that may run and wait on one model."""


class Access:
    """What `Guards` asks. The keys can be exchanged while requests run."""

    def __init__(self, settings: Settings, ring: Keyring | None = None) -> None:
        self.ring = ring
        """None: no keys are configured, and everybody may do everything."""
        self._settings = settings
        self._scopes = ScopeTable(OPERATIONS)

    def admit(self, method: str, path: str, headers: Headers) -> Caller:
        """Who may pass. What is in no row reaches the router only with the largest scope: should the router ever
        find a route where the table has none, nobody else gets to it.

        Raises:
            InvalidApiKey, InsufficientScope
            Unrouted: a key that is known asks for what is in no row.
        """
        if self.ring is None:
            return Caller(limit=self._settings.max_per_principal)
        needed = self._scopes.of(method, path)
        key = self._known(self.ring, headers)
        if key is None and needed is not Scope.OPEN:
            raise _unknown(headers)
        if key is not None and needed is None and key.scope < Scope.MANAGE:
            raise Unrouted(self._scopes.methods(path))
        if key is not None and needed is not None and key.scope < needed:
            raise InsufficientScope(
                f"key {key.name!r} has the scope {key.scope.word}, and this needs {needed.word}",
                hint="ask the operator of this node for another key",
            )
        return Caller() if key is None else self._caller(key)

    def reload(self, settings: Settings) -> Callable[[], None]:
        """Read the files again; what comes back puts the keys into force. Raises what can't be read."""
        ring = _not_fewer(keys.of(settings, os.environ), self.ring)

        def take() -> None:
            self.ring, self._settings = ring, settings
            if ring is not None:
                event(log, "keys reloaded", keys=_count(ring))

        return take

    def _known(self, ring: Keyring, headers: Headers) -> Key | None:
        found = (ring.find(secret) for secret in credentials(headers))
        return next((key for key in found if key is not None), None)

    def _caller(self, key: Key) -> Caller:
        own = key.max_in_flight
        return Caller(key.name, self._settings.max_per_principal if own is None else own)


def credentials(headers: Headers) -> list[bytes]:
    """The secrets that a request shows, at most two: a bearer token, and Anthropic's header."""
    said: dict[bytes, bytes] = {}
    for name, value in headers:
        said.setdefault(name.lower(), value)
    scheme, _, token = said.get(b"authorization", b"").strip().partition(b" ")
    bearer = token.strip() if scheme.lower() == b"bearer" else b""
    return [secret for secret in (bearer, said.get(b"x-api-key", b"").strip()) if secret]


def _unknown(headers: Headers) -> InvalidApiKey:
    if credentials(headers):
        return InvalidApiKey("this node does not know the key", hint="ask its operator for one that it knows")
    return InvalidApiKey(
        "this node asks for a key, and there was none", hint="send it as Authorization: Bearer KEY"
    )


def _not_fewer(found: Keyring | None, now: Keyring | None) -> Keyring | None:
    """``found``, unless it would open a node that was guarded because its file is gone."""
    if found is None and now is not None:
        raise ConfigError("there is no file of keys any more", hint="restart the node to run it without keys")
    return found


def _count(ring: Keyring | None) -> int:
    return 0 if ring is None else len(ring.keys)


class ScopeTable:
    """The scope of every method and path."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        plain = [o for o in operations if "{" not in o.path]
        self._plain: Mapping[tuple[str, str], Scope] = {(o.method, o.path): o.scope for o in plain}
        self._patterns = [
            (o.method, _pattern(o.route or o.path), o.scope) for o in operations if "{" in o.path
        ]

    def of(self, method: str, path: str) -> Scope | None:
        """What a request needs; None: there is no such operation."""
        path = _plain_path(path)
        if (method, path) in self._plain:
            return self._plain[method, path]
        fits = [scope for its, pattern, scope in self._patterns if its == method and pattern.fullmatch(path)]
        return max(fits, default=None)

    def methods(self, path: str) -> tuple[str, ...]:
        """Those that a path has; none of a path that is not there."""
        path = _plain_path(path)
        plain = {method for method, its in self._plain if its == path}
        return tuple(sorted(plain | {method for method, its, _ in self._patterns if its.fullmatch(path)}))


def _plain_path(path: str) -> str:
    """As the router takes it: empty parts count for nothing."""
    return "/" + "/".join(part for part in path.split("/") if part)


def _pattern(route: str) -> re.Pattern[str]:
    """A route with ``{name:path}``, which takes slashes, and ``{name:str}``, which does not."""
    parts = re.split(r"({\w+:?\w*})", route)
    return re.compile("".join(_parameter(p) if p.startswith("{") else re.escape(p) for p in parts), re.DOTALL)


def _parameter(text: str) -> str:
    return ".+" if text.endswith(":path}") else "[^/]+"
