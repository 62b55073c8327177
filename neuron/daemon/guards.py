"""Before any route: a request id on every answer, the ``Host`` and ``Origin`` checks, the shape of headers, keys.

A page in a browser can reach a loopback server through a name that its owner points at 127.0.0.1, and can post
across sites without asking; so a node answers only to names it knows, and to no foreign origin.
"""

from __future__ import annotations

import ipaddress
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from litestar.enums import ScopeType
from litestar.types import (
    ASGIApp,
    HTTPResponseBodyEvent,
    HTTPResponseStartEvent,
    Message,
    Receive,
    Scope,
    Send,
)

from neuron.daemon import errors, shapes
from neuron.daemon.access import CALLER, Access, Unrouted
from neuron.errors import ForbiddenHost, InvalidValue, NeuronError
from neuron.log import event
from neuron.settings import Settings

log = logging.getLogger(__name__)

MAX_HEADERS = 100
VERSIONS = frozenset({"1.0", "1.1"})
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def allowed_hosts(settings: Settings, own_names: Iterable[str]) -> frozenset[str]:
    """Every name this node answers to: loopback, the bind address, this host's names, what the operator adds."""
    public = urlsplit(settings.public_url or "").hostname
    names = {*LOOPBACK_NAMES, settings.bind, *own_names, *settings.allowed_hosts, public or ""}
    return frozenset(_plain(name) for name in names) - {"", "0.0.0.0", "::"}


def host_of(authority: str) -> str | None:
    """The host in ``host[:port]``, lower case, without brackets; None where it is not one."""
    try:
        parts = urlsplit(f"//{authority}")
        _ = parts.port
    except ValueError:
        return None
    if parts.netloc != authority or parts.path or parts.username is not None or not parts.hostname:
        return None
    return _plain(parts.hostname)


def _plain(name: str) -> str:
    name = name.strip("[]").rstrip(".").lower()
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name


class Guards:
    """The outermost ASGI application."""

    def __init__(
        self,
        app: ASGIApp,
        hosts: frozenset[str],
        access: Access,
        any_address: bool = False,
        refused: Callable[[str, str], None] = lambda path, code: None,
    ) -> None:
        self.app = app
        self.hosts = hosts
        self.access = access
        self.any_address = any_address
        """Bound to every address of this host: then any literal address in ``Host`` is taken for one of them."""
        self.refused = refused
        """Is told the path and the code of what is refused here."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            return await self.app(scope, receive, send)
        request_id = f"req_{secrets.token_hex(12)}"
        scope.setdefault("state", {}).update(request_id=request_id, arrived_s=time.monotonic())
        names = [b"x-request-id", *([b"request-id"] if shapes.of(scope["path"]) is shapes.ANTHROPIC else [])]
        labelled = _labelled(send, [(name, request_id.encode()) for name in names])
        try:
            self.check(scope["headers"], scope["http_version"])
            caller = self.access.admit(scope["method"], scope["path"], scope["headers"])
        except NeuronError as error:
            _log_refusal(error, scope["path"], request_id)
            self.refused(scope["path"], error.code)
            await refuse(labelled, error, scope["path"], request_id)
        except Unrouted as error:
            await self._refuse_unrouted(labelled, error, scope["path"], request_id)
        else:
            scope["state"][CALLER] = caller
            await self.app(scope, receive, labelled)

    async def _refuse_unrouted(self, send: Send, error: Unrouted, path: str, request_id: str) -> None:
        """As the framework answers what it has no route for."""
        status = 405 if error.methods else 404
        code = HTTPStatus(status).phrase.lower().replace(" ", "_")
        event(log, "refused", level=logging.WARNING, id=request_id, path=path[:200], status=status, code=code)
        self.refused(path, code)
        allow = {"allow": ", ".join(error.methods)} if error.methods else {}
        await _close_with(send, status, shapes.of(path).framework(status, request_id), allow)

    def check(self, headers: Iterable[tuple[bytes, bytes]], version: str = "1.1") -> None:
        """Raise for what is refused before routing."""
        headers = list(headers)
        if version not in VERSIONS:
            raise InvalidValue(f"HTTP/{version} is not spoken here")
        if len(headers) > MAX_HEADERS:
            raise InvalidValue(f"{len(headers)} headers, at most {MAX_HEADERS}")
        names = [name.lower() for name, _ in headers]
        if b"transfer-encoding" in names and b"content-length" in names:
            raise InvalidValue("both Transfer-Encoding and Content-Length: the length is ambiguous")
        if b"transfer-encoding" in names and version == "1.0":
            raise InvalidValue("HTTP/1.0 has no Transfer-Encoding: the length is ambiguous")
        hosts = [value.decode("latin-1") for name, value in headers if name.lower() == b"host"]
        if len(hosts) != 1 or not self.knows(hosts[0]):
            raise ForbiddenHost(
                f"this node does not answer to Host {', '.join(hosts)[:200]!r}",
                hint="add the name to allowed_hosts",
            )
        for origin in [value.decode("latin-1") for name, value in headers if name.lower() == b"origin"]:
            self._check_origin(origin, hosts[0])

    def _check_origin(self, origin: str, host: str) -> None:
        """An origin passes that is a name of this node, or the host that was asked, whose check passed."""
        scheme, _, authority = origin.partition("://")
        name = host_of(authority) if scheme in ("http", "https") else None
        if name is None or name not in self.hosts | {host_of(host)}:
            raise ForbiddenHost(f"requests from Origin {origin[:200]!r} are refused")

    def knows(self, authority: str) -> bool:
        """Whether ``host[:port]`` names this node."""
        host = host_of(authority)
        if host is None:
            return False
        return host in self.hosts or (self.any_address and _is_address(host))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _labelled(send: Send, labels: list[tuple[bytes, bytes]]) -> Send:
    async def labelled(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *labels]
        await send(message)

    return labelled


def _log_refusal(error: NeuronError, path: str, request_id: str) -> None:
    """Without the cause, which quotes what a stranger sent."""
    status = shapes.of(path).status(error)
    event(
        log, "refused", level=logging.WARNING, id=request_id, path=path[:200], status=status, code=error.code
    )


async def refuse(send: Send, error: NeuronError, path: str, request_id: str) -> None:
    """Answer without a route, and close: what follows on the connection can't be trusted."""
    shape = shapes.of(path)
    await _close_with(send, shape.status(error), shape.body(error, request_id), errors.headers_of(error))


async def _close_with(send: Send, status: int, answer: Any, headers: Mapping[str, str]) -> None:
    content = errors.encoded(answer)
    start: HTTPResponseStartEvent = {
        "type": "http.response.start",
        "status": status,
        "headers": [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
            (b"connection", b"close"),
            *((name.encode(), value.encode()) for name, value in headers.items()),
        ],
    }
    body: HTTPResponseBodyEvent = {"type": "http.response.body", "body": content, "more_body": False}
    await send(start)
    await send(body)
