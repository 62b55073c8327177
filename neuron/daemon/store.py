"""Responses that are kept for ``previous_response_id``: one SQLite file, bounded by size and age.

All of SQLite runs in a thread of its own. A damaged file or a full disk costs the store, never the daemon.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from neuron.errors import ResponseStoreFailed
from neuron.keys import ANONYMOUS
from neuron.log import event

log = logging.getLogger(__name__)
T = TypeVar("T")

FILE = "responses.sqlite3"
VERSION = 2
BUSY_S = 5.0
ROOM = 0.9
"""Share of the size that is left after the oldest had to go, so that it is not every time."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY, created_s REAL NOT NULL, n_bytes INTEGER NOT NULL,
    response BLOB NOT NULL, input BLOB NOT NULL, earlier BLOB NOT NULL,
    owner TEXT NOT NULL DEFAULT 'anonymous'
);
CREATE INDEX IF NOT EXISTS by_age ON responses (created_s, n_bytes);
"""
FROM_1 = "ALTER TABLE responses ADD COLUMN owner TEXT NOT NULL DEFAULT 'anonymous'"
"""A file of version 1 did not say whose a response is, so it is no key's."""
EVICT = """
DELETE FROM responses WHERE rowid IN (
    SELECT rowid FROM (
        SELECT rowid, SUM(n_bytes) OVER (ORDER BY created_s DESC, rowid DESC) AS newer_bytes FROM responses
    ) WHERE newer_bytes > ?
)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One response and what it answered; all of it JSON values."""

    response: Mapping[str, Any]
    input: Sequence[Mapping[str, Any]]
    """The items of its own request."""
    earlier: Sequence[Mapping[str, Any]] = ()
    """The items before those: of the responses that it continues, which may be gone by now."""


class ResponseStore:
    """Kept responses by id. Call it from the event loop.

    Args:
        folder: where `FILE` is; both are made at the first use, readable by this user alone.
        clock: seconds since the epoch.
    """

    def __init__(
        self, folder: Path, *, max_bytes: int, max_age_s: float, clock: Callable[[], float] | None = None
    ) -> None:
        self.path = folder / FILE
        self._max_bytes, self._max_age_s = max_bytes, max_age_s
        self._clock = clock or (lambda: time.time())
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="response-store")
        self._database: sqlite3.Connection | None = None

    def of(self, owner: str) -> OwnResponses:
        """Those of one caller."""
        return OwnResponses(self, owner)

    async def put(self, stored: Stored, owner: str = ANONYMOUS) -> bool:
        """Keep a response. False, and a line in the log, where that is not possible."""
        parts = [msgspec.json.encode(part) for part in (stored.response, stored.input, stored.earlier)]
        n_bytes = sum(map(len, parts))
        if n_bytes > self._max_bytes * ROOM:
            event(log, "response too large to keep", level=logging.WARNING, n_bytes=n_bytes)
            return False
        try:
            await self._do(lambda database: self._put(database, stored.response["id"], n_bytes, parts, owner))
        except ResponseStoreFailed:
            return False
        return True

    async def get(self, response_id: str, owner: str = ANONYMOUS) -> Stored | None:
        """The owner's response of this id, if it is kept. Raises `ResponseStoreFailed`."""
        return await self._do(lambda database: self._get(database, response_id, owner))

    async def delete(self, response_id: str, owner: str = ANONYMOUS) -> bool:
        """Forget a response of the owner; whether there was one. Raises `ResponseStoreFailed`."""
        return await self._do(lambda database: self._delete(database, response_id, owner))

    async def close(self) -> None:
        """Close the file and end the thread."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, work)
        except (sqlite3.Error, OSError, msgspec.DecodeError) as error:
            event(log, "response store failed", level=logging.ERROR, path=str(self.path), cause=str(error))
            raise ResponseStoreFailed("the stored responses can't be read or written now") from error

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """In the thread: one transaction."""
        if self._database is None:
            self._database = _opened(self.path)
        with self._database:
            return work(self._database)

    def _put(
        self, database: sqlite3.Connection, response_id: str, n_bytes: int, parts: list[bytes], owner: str
    ) -> None:
        now_s = self._clock()
        database.execute("DELETE FROM responses WHERE created_s < ?", (now_s - self._max_age_s,))
        database.execute(
            "INSERT INTO responses VALUES (?, ?, ?, ?, ?, ?, ?)", (response_id, now_s, n_bytes, *parts, owner)
        )
        (total,) = database.execute("SELECT SUM(n_bytes) FROM responses").fetchone()
        if total > self._max_bytes:
            database.execute(EVICT, (int(self._max_bytes * ROOM),))

    def _get(self, database: sqlite3.Connection, response_id: str, owner: str) -> Stored | None:
        row = database.execute(
            "SELECT response, input, earlier FROM responses WHERE id = ? AND owner = ? AND created_s >= ?",
            (response_id, owner, self._clock() - self._max_age_s),
        ).fetchone()
        if row is None:
            return None
        response, items, earlier = (msgspec.json.decode(part) for part in row)
        return Stored(response=response, input=items, earlier=earlier)

    def _delete(self, database: sqlite3.Connection, response_id: str, owner: str) -> bool:
        done = database.execute("DELETE FROM responses WHERE id = ? AND owner = ?", (response_id, owner))
        return done.rowcount > 0

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None


@dataclass(frozen=True, slots=True)
class OwnResponses:
    """The kept responses of one caller; those of others are not there."""

    store: ResponseStore
    owner: str
    """The name of a key, or `ANONYMOUS`."""

    async def put(self, stored: Stored) -> bool:
        """See `ResponseStore.put`."""
        return await self.store.put(stored, self.owner)

    async def get(self, response_id: str) -> Stored | None:
        """See `ResponseStore.get`."""
        return await self.store.get(response_id, self.owner)

    async def delete(self, response_id: str) -> bool:
        """See `ResponseStore.delete`."""
        return await self.store.delete(response_id, self.owner)


def _opened(path: Path) -> sqlite3.Connection:
    """A connection to the file, which is made with its folder if it is not there.

    Raises:
        sqlite3.Error, OSError: it is no database, of another version, or can't be written.
    """
    path.parent.mkdir(mode=0o700, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    database = sqlite3.connect(path, timeout=BUSY_S)
    try:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version not in (0, 1, VERSION):
            raise sqlite3.DatabaseError(f"version {version}, this build reads {VERSION}")
        database.execute("PRAGMA journal_mode = WAL")
        if version == 1:
            database.execute(FROM_1)
        database.executescript(f"{SCHEMA} PRAGMA user_version = {VERSION};")
    except BaseException:
        database.close()
        raise
    return database
