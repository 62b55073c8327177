"""The listening socket, bound before anything heavy is imported, and the door to the server process."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from neuron.errors import AddressInUse, ConfigError
from neuron.settings import Settings

if TYPE_CHECKING:
    from neuron.engine.api import EngineApi
    from neuron.keys import Keyring

BACKLOG = 1024


def bind(settings: Settings, guarded: bool = False) -> socket.socket:
    """A listening socket; connections queue in it from now on. ``guarded``: keys are configured.

    Raises:
        AddressInUse: the port is taken.
        ConfigError: not an address of this host, not permitted, or beyond loopback without keys or ``insecure``.
    """
    family, address = _address(settings)
    if not (guarded or settings.insecure or _is_loopback(address[0])):
        raise ConfigError(
            f"bind {settings.bind} is reachable from other hosts, and this node has no keys",
            hint="make a key: neuron keys add NAME; or bind 127.0.0.1; or let everybody in with --insecure",
        )
    # asyncio turns Nagle off only where the protocol is said; with it each answer waits 40 ms for an ACK
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise _bind_error(error, settings) from error
    return sock


def _address(settings: Settings) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """The one address that ``bind`` names."""
    name = settings.bind.removeprefix("[").removesuffix("]")
    try:
        found = socket.getaddrinfo(name, settings.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"bind {settings.bind!r} is not an address: {error}") from error
    family, _, _, _, address = found[0]
    return family, (str(address[0]), int(address[1]))


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _bind_error(error: OSError, settings: Settings) -> AddressInUse | ConfigError:
    where = f"{settings.bind} port {settings.port}"
    if error.errno == errno.EADDRINUSE:
        return AddressInUse(f"{where} is in use", hint="is a node running? choose another with --port")
    return ConfigError(f"can't listen on {where}: {error.strerror}")


def url_of(sock: socket.socket) -> str:
    """Where the socket is reached from this host."""
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(
    settings: Settings,
    sock: socket.socket,
    *,
    keys: Keyring | None = None,
    engine: EngineApi | None = None,
    on_listening: Callable[[str], None] = lambda url: None,
) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code. Runs its own event loop in the main thread.

    Without ``keys`` no key is asked for. ``on_listening`` gets the URL once requests are answered; models may
    still be loading then.
    """
    import asyncio

    from neuron import log
    from neuron.daemon.process import run

    log.setup(settings.log_level, settings.log_format)
    return asyncio.run(run(settings, sock, keys, engine, on_listening))
