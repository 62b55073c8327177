"""How httpx reaches a node: over TCP, TLS, or through a Unix socket."""

from __future__ import annotations

import os
import socket
import ssl
from typing import Any
from urllib.parse import urlsplit

import httpx

from neuron.errors import ConfigError, NodeUnreachable
from neuron.node_url import is_loopback, socket_path

GREETING_S = 2.0
TRUST = ("SSL_CERT_FILE", "SSL_CERT_DIR")
TLS_HINT = "SSL_CERT_FILE names the authority to trust; is the node's TLS on, and the URL's host its name?"


def http_client(url: str, *, limits: httpx.Limits | None = None, **said: Any) -> httpx.Client:
    """A client for this URL alone; ``said`` is what `httpx.Client` takes.

    Raises:
        ConfigError: the authorities that the environment names can't be read.
    """
    limits = limits or httpx.Limits()
    try:
        return httpx.Client(transport=_transport(url, limits), limits=limits, **said)
    except OSError as e:  # ssl.SSLError is one
        named = next((name for name in TRUST if os.environ.get(name)), None)
        if named is None:
            raise
        reason = getattr(e, "reason", None) or e.strerror
        raise ConfigError(
            f"{named}: {os.environ[named]}: {str(reason).lower().replace('_', ' ')}",
            hint="a file with certificates in PEM, of the authorities to trust",
        ) from e


def _transport(url: str, limits: httpx.Limits) -> httpx.HTTPTransport | None:
    """For a node on this machine, which no proxy can reach; None leaves it to the environment."""
    if not is_loopback(url):
        return None
    return httpx.HTTPTransport(uds=socket_path(url), limits=limits)


def no_answer(url: str, why: str) -> NodeUnreachable:
    """The error of a connection that broke without an answer."""
    if speaks_tls(url):
        return NodeUnreachable(f"{url} speaks TLS", hint=f"write {url.replace('http:', 'https:', 1)}")
    return NodeUnreachable(f"{url}: {why}")


def speaks_tls(url: str) -> bool:
    """Whether TLS is spoken where plain HTTP was tried. Nothing is sent but the greeting, and nobody is trusted."""
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname is None:
        return False
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((parts.hostname, parts.port or 80), GREETING_S) as sock:
            context.wrap_socket(sock, server_hostname=parts.hostname).close()
    except OSError:
        return False
    return True


def is_no_name(error: BaseException | None) -> bool:
    """Whether the cause is that the host's name has no address."""
    while error is not None and not isinstance(error, socket.gaierror):
        error = error.__cause__ or error.__context__
    return error is not None


def tls_failure(error: BaseException | None) -> str | None:
    """What TLS itself says was wrong, if that was the cause."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    return None if error is None else str(error.reason).lower().replace("_", " ")
