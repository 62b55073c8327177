"""TLS of a node: a certificate and its key in PEM files."""

from __future__ import annotations

import ssl
from pathlib import Path

from neuron.errors import ConfigError
from neuron.settings import Settings

MAX_BYTES = 1 << 20
CERTIFICATE, PRIVATE_KEY = b"-----BEGIN CERTIFICATE-----", b"PRIVATE KEY-----"
PEM_HINT = "both are PEM files, the key without a passphrase"
LOCKED = "the key has a passphrase"
WORDS = {
    "KEY_VALUES_MISMATCH": "the key is not that of the certificate",
    "KEY_TYPE_MISMATCH": "the key is not that of the certificate",
    LOCKED: LOCKED,
}
"""What OpenSSL says → what that means."""


def server_context(settings: Settings) -> ssl.SSLContext | None:
    """What connections are encrypted with; None where nothing is said of TLS.

    Raises:
        ConfigError: one file without the other, files that are no certificate and key, or not of one another.
    """
    cert, key = settings.tls_cert, settings.tls_key
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        said = settings.place("tls_cert" if key is None else "tls_key")
        raise ConfigError(
            f"{said}: tls_cert and tls_key go together: a certificate and its key, both PEM files"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    take_files(context, settings)
    return context


def take_files(context: ssl.SSLContext, settings: Settings) -> None:
    """Have new connections use the files that both settings name. Raises `ConfigError`."""
    cert, key = Path(settings.tls_cert or ""), Path(settings.tls_key or "")
    _check(settings.place("tls_cert"), cert, CERTIFICATE, "certificate")
    _check(settings.place("tls_key"), key, PRIVATE_KEY, "private key")
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except (OSError, ValueError) as e:  # ssl.SSLError is an OSError
        reason = getattr(e, "reason", None) or getattr(e, "strerror", None) or str(e)
        said = WORDS.get(reason, f"OpenSSL can't take them ({reason.lower().replace('_', ' ')})")
        place = settings.place("tls_key")
        raise ConfigError(f"{place}: {key}, with the certificate {cert}: {said}", hint=PEM_HINT) from e


def _check(place: str, path: Path, mark: bytes, what: str) -> None:
    """Raise unless the file holds a block of this kind."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES)
    except OSError as e:
        raise ConfigError(f"{place}: {path}: {e.strerror}") from e
    if mark in text:
        return
    other = "certificate" if CERTIFICATE in text else "private key" if PRIVATE_KEY in text else None
    held = f"a {other} and no {what}" if other else f"no {what} in PEM"
    hint = "are tls_cert and tls_key swapped?" if other else PEM_HINT
    raise ConfigError(f"{place}: {path} holds {held}", hint=hint)


def _no_password() -> str:
    """Instead of a question at the terminal, which a service has not."""
    raise ValueError(LOCKED)
