"""The error envelope of `/v1`, and the flat one of the node endpoints."""

from __future__ import annotations

from typing import Any

import msgspec


class ErrorObject(msgspec.Struct, kw_only=True):
    """What official clients parse."""

    message: str
    type: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None


class ErrorBody(msgspec.Struct, kw_only=True, omit_defaults=True):
    """`/v1`: ``{"error": {…}}``; sibling keys (``prompt_len``, ``free_mb``, …) are added beside it."""

    error: ErrorObject
    hint: str | None = None
    """The next step, which ends the message too."""


class NodeErrorBody(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Node endpoints: ``error`` is a text, or an object with ``kind`` for a preflight refusal (422)."""

    error: str | dict[str, Any]
    code: str | None = None
    hint: str | None = None
    """The next step, which ends the text too."""


def without_hint(text: str, hint: str | None) -> str:
    """A text without the next step at its end, for who shows that on a line of its own."""
    return text.removesuffix(f"; {hint}") if hint else text
