"""A time as people write it: ``90``, ``10m``, ``2h``."""

from __future__ import annotations

import re

from neuron.errors import UsageError

UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_WRITTEN = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([smhd]?)")


def seconds(text: str, flag: str) -> float:
    """Seconds, more than none. Raises `UsageError` naming the flag."""
    found = _WRITTEN.fullmatch(text)
    if found is None or not float(found[1]):
        raise UsageError(f"{flag} {text}: not a time", hint="write seconds, or 10m, 2h, 1d")
    return float(found[1]) * UNITS_S[found[2]]


def shown(value_s: float) -> str:
    """A time in its largest whole unit: ``10m``."""
    for unit in ("d", "h", "m"):
        if value_s >= UNITS_S[unit]:
            return f"{value_s / UNITS_S[unit]:.0f}{unit}"
    return f"{value_s:.0f}s"
