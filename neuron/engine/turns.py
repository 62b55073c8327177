"""A queue in which callers take turns: one entry of each, then again; the entries of one caller stay in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """Entries by caller. Who has waited longest without a turn is next; a new caller is last."""

    def __init__(self) -> None:
        self._by_caller: dict[str, deque[T]] = {}  # in the order of their turns

    def __len__(self) -> int:
        return sum(map(len, self._by_caller.values()))

    def __iter__(self) -> Iterator[T]:
        """All entries, caller by caller."""
        return (entry for entries in self._by_caller.values() for entry in entries)

    def add(self, caller: str, entry: T) -> None:
        """Behind what the caller has in the queue."""
        self._by_caller.setdefault(caller, deque()).append(entry)

    def first(self) -> T:
        """Whose turn it is. Raises `StopIteration` where nobody waits."""
        return next(iter(self._by_caller.values()))[0]

    def take(self) -> T:
        """Take out the first; its caller's next turn comes after everybody else's."""
        caller = next(iter(self._by_caller))
        entries = self._by_caller.pop(caller)
        entry = entries.popleft()
        if entries:
            self._by_caller[caller] = entries
        return entry

    def remove(self, caller: str, entry: T) -> None:
        """Take out one entry, which must be there. The caller keeps its turn."""
        self._by_caller[caller].remove(entry)
        if not self._by_caller[caller]:
            del self._by_caller[caller]
