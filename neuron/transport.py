"""How httpx reaches a node: over TCP, TLS, or through a Unix socket."""

from __future__ import annotations

import ssl

import httpx

from neuron.node_url import is_loopback, socket_path

TLS_HINT = "SSL_CERT_FILE names the authority to trust; is the node's TLS on, and the URL's host its name?"


def transport(url: str, limits: httpx.Limits | None = None) -> httpx.HTTPTransport | None:
    """For a node on this machine, which no proxy can reach; None leaves it to the environment."""
    if not is_loopback(url):
        return None
    return httpx.HTTPTransport(uds=socket_path(url), limits=limits or httpx.Limits())


def tls_failure(error: BaseException | None) -> str | None:
    """What TLS itself says was wrong, if that was the cause."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    return None if error is None else str(error.reason).lower().replace("_", " ")
