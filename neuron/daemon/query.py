"""Parameters in a URL, read strictly."""

from __future__ import annotations

from neuron.daemon.body import AnyRequest
from neuron.errors import InvalidValue


def number(request: AnyRequest, name: str, default: int, *, low: int, high: int) -> int:
    """A whole number. Raises `InvalidValue` for anything else, or outside its range."""
    text = request.query_params.get(name)
    if text is None:
        return default
    plain = text.isascii() and text.isdecimal() and len(text) <= 18
    if not (plain and low <= int(text) <= high):
        raise InvalidValue(f"{name} must be a whole number, {low} to {high}", param=name)
    return int(text)


def flag(request: AnyRequest, name: str, default: bool) -> bool:
    """``true`` or ``false``. Raises `InvalidValue` for anything else."""
    text = request.query_params.get(name)
    if text not in (None, "true", "false"):
        raise InvalidValue(f"{name} must be true or false", param=name)
    return default if text is None else text == "true"
