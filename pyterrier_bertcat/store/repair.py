"""Rebuilding a damaged score store from what can still be read of it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from pyterrier_bertcat.errors import StoreError
from pyterrier_bertcat.store.database import ScoreDatabase, is_key, right_scores
from pyterrier_bertcat.store.database_file import address

_HASH_BYTES, _VALUE_BYTES = 16, 8


def rebuild(database: ScoreDatabase) -> None:
    """Writes what can be read to a new file, which then takes the place of the damaged one.

    Raises:
        StoreError: There is no file, or the new one can't be written.
    """
    path = database.file.path
    if not database.exists:
        raise StoreError(f"{path} is not there, so there is nothing to repair")
    database.file.close()
    repaired = path.with_name(f"{path.name}.repaired")
    repaired.unlink(missing_ok=True)  # of a repair that was interrupted
    fresh = ScoreDatabase(repaired, timeout_s=database.file.timeout_s)
    with fresh.file.writing():
        pass  # so that there is a file, even if nothing can be read
    with closing(sqlite3.connect(address(path), uri=True, timeout=database.file.timeout_s)) as damaged:
        facts = dict(_readable(damaged, "SELECT id, facts FROM settings ORDER BY id"))
        queries = "SELECT id, settings, hash FROM queries NOT INDEXED ORDER BY id"
        for query_id, settings_id, query in _readable(damaged, queries):
            settings: Any = facts.get(settings_id)
            if is_key(settings, query):
                rows = _readable(damaged, f"SELECT text, value FROM scores WHERE query = {query_id:d} ORDER BY text")
                whole = (row for row in rows if _is_blob(row[0], _HASH_BYTES) and _is_blob(row[1], _VALUE_BYTES))
                fresh.write(settings, *right_scores(settings, query, whole))
    fresh.file.close()
    for ending in ("-wal", ""):  # the log first: beside another file it would be taken for that one's
        part = path.with_name(path.name + ending)
        if part.exists():
            os.replace(part, path.with_name(f"{path.name}.damaged{ending}"))
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    os.replace(repaired, path)


def _readable(connection: sqlite3.Connection, query: str) -> Iterator[Any]:
    """Yields the rows from the first up to a damaged place, and then from the last back to one."""
    for direction in ("ASC", "DESC"):
        try:
            yield from connection.execute(f"{query} {direction}")
            return
        except sqlite3.DatabaseError:
            continue


def _is_blob(value: object, size: int) -> bool:
    return isinstance(value, bytes) and len(value) == size
