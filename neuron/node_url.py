"""Where a node is: what people write after ``--host``, as a URL."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit

from neuron.errors import UsageError
from neuron.settings import DEFAULT_PORT

UNIX = "unix://"


def node_url(text: str) -> str:
    """``host``, ``host:port``, an IPv6 address, a URL or ``unix:///PATH``, as a URL without a slash at its end.

    A port that is not said is the node's own for a bare host, and the scheme's for a URL.

    Raises:
        UsageError: it is none of these.
    """
    if text.startswith(UNIX):
        return _unix(text)
    bare = "://" not in text
    parts = _split(f"http://{_bracketed(text)}" if bare else text, text)
    port = parts.port or (DEFAULT_PORT if bare else None)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path.rstrip('/')}"


def socket_path(url: str) -> str | None:
    """The path of a node that listens on a Unix socket; None for every other URL."""
    return url.removeprefix(UNIX) if url.startswith(UNIX) else None


def http_base(url: str) -> str:
    """What requests to a node begin with; through a Unix socket the host is a mere word."""
    return "http://localhost" if url.startswith(UNIX) else url


def is_loopback(url: str) -> bool:
    """The URL names this machine's loopback address, or a socket of its file system."""
    if url.startswith(UNIX):
        return True
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _bracketed(text: str) -> str:
    """An IPv6 address needs brackets in a URL; with a port people write them already."""
    return f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text


def _unix(text: str) -> str:
    path = text.removeprefix(UNIX)
    if not path.startswith("/") or not path.isprintable():
        raise UsageError(f"{text!r} is not a Unix socket", hint="write unix:///PATH, with three slashes")
    return text.rstrip("/")


def _split(url: str, text: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        plain = parts.hostname and parts.port != 0 and not (parts.query or parts.fragment or parts.username)
    except ValueError:
        plain = None
    if not plain or parts.scheme not in ("http", "https") or not text.isprintable() or " " in text:
        raise UsageError(
            f"{text!r} is not the address of a node",
            hint="write HOST, HOST:PORT, a URL or unix:///PATH: --host gpu1:13131",
        )
    return parts
