"""TLS of a node: a certificate and its key in PEM files."""

from __future__ import annotations

import ssl
from pathlib import Path

from neuron.errors import ConfigError
from neuron.settings import Settings


def server_context(settings: Settings) -> ssl.SSLContext | None:
    """What connections are encrypted with; None where nothing is said of TLS.

    Raises:
        ConfigError: one file without the other, files that are no certificate and key, or not of one another.
    """
    cert, key = settings.tls_cert, settings.tls_key
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise ConfigError("tls_cert and tls_key go together: a certificate and its key, both PEM files")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    take_files(context, cert, key)
    return context


def take_files(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    """Have new connections use these files. Raises `ConfigError`."""
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except (OSError, ValueError) as e:  # ssl.SSLError is an OSError
        reason = getattr(e, "reason", None) or getattr(e, "strerror", None) or str(e)
        raise ConfigError(
            f"TLS with {cert} and {key}: {reason}", hint="both are PEM files, the key without a passphrase"
        ) from e


def _no_password() -> str:
    """Instead of a question at the terminal, which a service has not."""
    raise ValueError("the key has a passphrase")
