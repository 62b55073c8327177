"""Where this machine's node listens, as its settings say, and whether anybody does."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from neuron.errors import ConfigError
from neuron.node_url import UNIX, socket_path
from neuron.settings import Settings, read

WHERE = {"bind", "port", "uds"}
TLS = {"tls_cert", "tls_key"}
SCHEME_PORT = {"http": 80, "https": 443}
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""An address that stands for all → one that reaches it from here."""


def local_url(env: Mapping[str, str]) -> str:
    """Where ``neuron serve`` would listen with this environment and its configuration file.

    Files that the settings name need not be for this user's eyes; a node may run as another.

    Raises:
        ConfigError: the settings do not tell.
    """
    settings, wrong = read({}, env)
    for error in wrong:
        if error.param is None or error.param in WHERE:
            raise error
    secure = any(key in settings.origins or key in {error.param for error in wrong} for key in TLS)
    return url_of(settings, "https" if secure else "http")


def url_of(settings: Settings, scheme: str) -> str:
    """Where a node with these settings is reached from this machine. Raises `ConfigError` for port 0."""
    if settings.uds is not None:
        return f"{UNIX}{settings.uds.absolute()}"
    if settings.port == 0:
        raise ConfigError(
            f"{settings.place('port')}: 0 takes a free port, so where this machine's node listens is not known",
            hint="its log says where; name it: --host HOST:PORT",
        )
    host = settings.bind.removeprefix("[").removesuffix("]")
    host = EVERYWHERE.get(host, host)
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{settings.port}"


def listens(url: str, within_s: float) -> bool:
    """Whether anybody takes connections there, be it a node or not."""
    path, parts = socket_path(url), urlsplit(url)
    try:
        if path is None:
            address = parts.hostname or "", parts.port or SCHEME_PORT[parts.scheme]
            socket.create_connection(address, within_s).close()
            return True
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
            sock.settimeout(within_s)
            sock.connect(path)
            return True
    except OSError:
        return False
