"""The listening sockets, there before anything heavy is imported: a TCP address, a Unix socket, or handed over."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import struct
from collections.abc import MutableMapping
from pathlib import Path

from neuron.address import address_of, check_guarded
from neuron.errors import AddressInUse, ConfigError
from neuron.holder import described, holder
from neuron.settings import Settings

BACKLOG = 1024
FIRST_FD = 3
"""Where a service manager's descriptors begin."""
ASK_S = 1.0
NO_TLS = ConfigError("TLS is for TCP; a Unix socket has none", hint="leave out tls_cert and tls_key")


def listen(
    settings: Settings, guarded: bool = False, env: MutableMapping[str, str] = os.environ
) -> list[socket.socket]:
    """Those that a service manager handed over, else the one that the settings name.

    Connections queue in them from now on. ``guarded``: keys are configured.

    Raises:
        AddressInUse: the port or the path is taken.
        ConfigError: not an address of this host, not permitted, or beyond loopback without keys or ``insecure``.
    """
    handed = handed_over(env)
    if settings.uds and handed:
        raise ConfigError("a socket was handed over, and uds names another", hint="leave out uds")
    if settings.uds and settings.tls_cert:
        raise NO_TLS
    if settings.uds and (
        also := [key for key in ("bind", "port") if settings.origins.get(key, "").startswith("--")]
    ):
        raise ConfigError(
            f"uds is where to listen, and {also[0]} ({settings.origins[also[0]]}) names another place",
            hint="leave out one of them",
        )
    for sock in handed:
        _check(sock, settings, guarded)
    return handed or [bind(settings, guarded)]


def _check(sock: socket.socket, settings: Settings, guarded: bool) -> None:
    """What was handed over is held to what holds for an address in the settings."""
    if sock.family != socket.AF_UNIX:
        address = sock.getsockname()[0]
        check_guarded(f"address {address}", address, settings, guarded)
    elif settings.tls_cert:
        raise NO_TLS


def handed_over(env: MutableMapping[str, str]) -> list[socket.socket]:
    """Sockets of systemd's protocol, ``LISTEN_PID`` and ``LISTEN_FDS``, which are taken out of ``env``."""
    pid, count, _ = (env.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    return [_inherited(fd) for fd in range(FIRST_FD, FIRST_FD + int(count))]


def _inherited(fd: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=fd)
        accepts = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as e:
        raise ConfigError(f"descriptor {fd} that was handed over is no socket: {e.strerror}") from e
    if sock.type != socket.SOCK_STREAM or not accepts:
        raise ConfigError(f"descriptor {fd} that was handed over does not listen for streams")
    sock.set_inheritable(False)
    return sock


def bind(settings: Settings, guarded: bool = False) -> socket.socket:
    """The socket that the settings name; see `listen`."""
    if settings.uds is not None:
        return _bind_path(settings.uds)
    family, address = address_of(settings)
    check_guarded(f"bind {settings.bind}", address[0], settings, guarded)
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


def _bind_error(error: OSError, settings: Settings) -> AddressInUse | ConfigError:
    where = f"{settings.bind} port {settings.port}"
    if error.errno == errno.EADDRINUSE:
        pid = holder(settings.port)
        held = f"{where} is in use" + (f" by {described(pid)}" if pid else "")
        return AddressInUse(held, hint="is a node running? choose another with --port")
    return ConfigError(f"can't listen on {where}: {error.strerror}")


# ---- a Unix socket


def _bind_path(path: Path) -> socket.socket:
    """A socket at a path, where the file of a node that is gone is replaced. Its mode is the process's mask."""
    folder = os.open(path.parent, os.O_RDONLY)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # two that start together would replace one another's
        _remove_stale(path)
        sock.bind(str(path))
        sock.listen(BACKLOG)
    except (OSError, AddressInUse, ConfigError) as error:
        sock.close()
        if isinstance(error, OSError):
            raise ConfigError(f"can't listen on {path}: {error.strerror or error}") from error
        raise
    finally:
        os.close(folder)
    return sock


def _remove_stale(path: Path) -> None:
    """Make room. Raises `AddressInUse` if somebody listens there, `ConfigError` if it is no socket."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"can't listen on {path}: something else is there", hint="name another with --uds")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(ASK_S)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        except OSError as e:  # a full queue: somebody is there, and busy
            raise AddressInUse(f"{path} is in use", hint="choose another with --uds") from e
        else:
            raise AddressInUse(
                f"{path} is in use by {described(_peer(probe))}", hint="choose another with --uds"
            )


def _peer(sock: socket.socket) -> int:
    """The process at the other end of a Unix socket."""
    size = struct.calcsize("3i")
    return int(struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[0])


def url_of(sock: socket.socket, scheme: str = "http") -> str:
    """Where the socket is reached from this host."""
    if sock.family == socket.AF_UNIX:
        return f"unix://{os.path.abspath(sock.getsockname())}"
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def wildcard(sock: socket.socket) -> str | None:
    """The address, where it stands for all of this host's; None where the URL says it."""
    name = sock.getsockname()
    return name[0] if sock.family != socket.AF_UNIX and name[0] in ("0.0.0.0", "::") else None


def local_name(url: str) -> str:
    """The URL of `url_of` as applications of this host write it; a Unix socket has no other."""
    scheme, _, rest = url.partition("://")
    return url if scheme == "unix" else f"{scheme}://localhost:{rest.rpartition(':')[2]}"
