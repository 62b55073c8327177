"""``config.json`` as typed, ranged values. What this build does not compute is refused by name, never guessed."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from neuron.errors import InvalidModelFile, UnsupportedArchitecture

MISSING: Any = object()


class HfConfig:
    """Typed access to one JSON object of a model's configuration.

    Raises everywhere:
        InvalidModelFile: a key is missing, of the wrong type or out of range.
    """

    def __init__(self, values: Mapping[str, Any], where: str = "config.json") -> None:
        self.values = values
        self.where = where

    def has(self, key: str) -> bool:
        """Whether the key is there with a value."""
        return self.values.get(key) is not None

    def integer(self, key: str, default: Any = MISSING, *, low: int = 1, high: int = 1 << 24) -> Any:
        """A whole number in ``low..high``; ``default`` where the key is absent or null."""
        value = self._get(key, default)
        if value is default:
            return value
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._bad(key, value, "a whole number")
        if not low <= value <= high:
            raise self._bad(key, value, f"{low} to {high}")
        return value

    def number(self, key: str, default: Any = MISSING, *, low: float = 0.0, high: float = 1e12) -> Any:
        """A finite number with ``low < value <= high``; ``default`` where the key is absent or null."""
        value = self._get(key, default)
        if value is default:
            return value
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self._bad(key, value, "a number")
        if not low < value <= high:
            raise self._bad(key, value, f"above {low:g}, at most {high:g}")
        return float(value)

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._bad(key, value, "true or false")
        return value

    def choice(self, key: str, allowed: Collection[str], default: Any = MISSING) -> str:
        """One of ``allowed``; anything else is an architecture that this build does not compute."""
        value = self._get(key, default)
        if not isinstance(value, str) or value not in allowed:
            raise UnsupportedArchitecture(
                f"{self.where}: {key} is {str(value)[:80]!r}, this build computes {', '.join(sorted(allowed))}"
            )
        return str(value)

    def array(self, key: str, length: int) -> Sequence[Any] | None:
        """A list of exactly ``length`` entries, or None where the key is absent or null."""
        value = self._get(key, None)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != length:
            raise self._bad(key, type(value).__name__, f"a list of {length}")
        return value

    def child(self, key: str) -> HfConfig | None:
        """A nested object, or None where the key is absent or null."""
        value = self._get(key, None)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self._bad(key, value, "an object")
        return HfConfig(value, f"{self.where}: {key}")

    def refuse(self, key: str, why: str) -> None:
        """Refuse the model when ``key`` has a value that means something (neither null nor false nor empty)."""
        if self.values.get(key):
            raise UnsupportedArchitecture(f"{self.where}: {key} is set: {why}")

    def _get(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        if value is not None:
            return value
        if default is MISSING:
            raise InvalidModelFile(f"{self.where}: {key} is missing")
        return default

    def _bad(self, key: str, value: Any, want: str) -> InvalidModelFile:
        return InvalidModelFile(f"{self.where}: {key} is {str(value)[:80]!r}, expected {want}")
