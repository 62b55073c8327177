"""The address that a node listens on, and whether it may: one beyond this machine needs keys."""

from __future__ import annotations

import ipaddress
import socket

from neuron.errors import ConfigError
from neuron.settings import Settings


def address_of(settings: Settings) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """The one address that ``bind`` and ``port`` name. Raises `ConfigError`."""
    name = settings.bind.removeprefix("[").removesuffix("]")
    try:
        found = socket.getaddrinfo(name, settings.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"{settings.place('bind')}: {settings.bind!r} is not an address: {error}"
        ) from error
    family, _, _, _, address = found[0]
    return family, (str(address[0]), int(address[1]))


def check_guarded(name: str, address: str, settings: Settings, guarded: bool) -> None:
    """Refuse an address beyond loopback that neither keys (``guarded``) nor ``insecure`` cover."""
    if not (guarded or settings.insecure or is_loopback(address)):
        raise ConfigError(
            f"{name} is reachable from other hosts, and this node has no keys",
            hint="make a key: neuron keys add NAME; or bind 127.0.0.1; or let everybody in with --insecure",
        )


def is_loopback(address: str) -> bool:
    """Whether only this host reaches the address, which may carry a zone."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
