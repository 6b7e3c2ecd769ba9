"""The scores in a store's SQLite file, read and written in whole batches.

A pair's key is (settings, query's hash, text's hash). The pairs of a query under one settings lie side by side in the
file, so a re-ranking frame is read with one range scan per query. Each value holds the score, whether query and text
were cut, and a check over all of that and the key: a value that does not fit its key is never used.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyterrier_bertcat.store.database_file import StoreFile
from pyterrier_bertcat.store.pair_hashes import RECORD, HashedPairs, are_right, cut_of, records_of, salts_of

logger = logging.getLogger(__name__)

Scores = NDArray[np.float32]
Cut = NDArray[np.bool_]

_SCAN = "SELECT text, value FROM scores WHERE query = ? LIMIT ?"
_LOOK_UP = "SELECT text, value FROM scores WHERE query = ? AND text = ?"
# One statement for all records of a query: SQLite splits them itself, which is faster than row by row, and other
# threads can run meanwhile.
_WRITE = """
WITH RECURSIVE place(start) AS (SELECT 1 UNION ALL SELECT start + 24 FROM place WHERE start + 24 < length(:records))
INSERT OR REPLACE INTO scores SELECT :query, substr(:records, start, 16), substr(:records, start + 16, 8) FROM place
"""
_COUNTS = """
WITH pairs AS (SELECT query, count(*) AS pairs FROM scores GROUP BY query)
SELECT facts, count(queries.id), coalesce(sum(pairs), 0) FROM settings
LEFT JOIN queries ON settings.id = queries.settings LEFT JOIN pairs ON queries.id = pairs.query
GROUP BY settings.id ORDER BY settings.id
"""
_SETTINGS = """
SELECT facts, count(queries.id) FROM settings LEFT JOIN queries ON settings.id = queries.settings
GROUP BY settings.id ORDER BY settings.id
"""
_SCANNED_PER_LOOK_UP = 20  # stored pairs that are scanned in the time of one look-up
_QUERIES_AT_ONCE = 64  # of about a thousand pairs: few enough for the processor's cache


class ScoreDatabase:
    """Scores in an SQLite file, for whole batches of pairs at a time. Settings are given as text."""

    def __init__(self, path: Path, *, timeout_s: float) -> None:
        """Opens nothing yet; the arguments are `StoreFile`'s."""
        self.file = StoreFile(path, timeout_s=timeout_s)

    def find(self, settings: str, pairs: HashedPairs) -> tuple[Scores, Cut]:
        """Looks up scores.

        Returns:
            The scores, float32 (n,), NaN if none is stored; and whether each query and each text was cut, bool (2, n).
        """
        scores, cut = np.full(len(pairs), np.nan, dtype=np.float32), np.zeros((2, len(pairs)), dtype=np.bool_)
        if not len(pairs) or not self.exists:
            return scores, cut
        salts = salts_of(pairs.queries, settings)
        order = np.argsort(pairs.query, kind="stable")
        rows_of_query = np.split(order, np.searchsorted(pairs.query[order], np.arange(1, len(pairs.queries))))
        damaged = 0
        with self.file.reading() as connection:
            settings_id = _first(connection, "SELECT id FROM settings WHERE facts = ?", settings)
            for first in range(0, len(pairs.queries), _QUERIES_AT_ONCE) if settings_id is not None else ():
                some = slice(first, first + _QUERIES_AT_ONCE)
                blocks = [
                    _stored(connection, settings_id, query, pairs.texts[rows])
                    for query, rows in zip(pairs.queries[some], rows_of_query[some], strict=True)
                ]
                rows = np.concatenate(rows_of_query[some])
                found, records, wrong = _matched(blocks, salts[some], pairs.query[rows] - first, pairs.texts[rows])
                scores[rows[found]], cut[:, rows[found]] = records["score"], cut_of(records)
                damaged += wrong
        if damaged:
            logger.warning("%s: %d damaged scores were left out, as if they were not stored", self.file.path, damaged)
        return scores, cut

    def write(self, settings: str, pairs: HashedPairs, scores: Scores, cut: Cut) -> None:
        """Stores scores, float32 (n,), all in one transaction or none. Scores that are not finite are left out.

        The new score of a pair replaces a stored one. ``cut`` is bool (2, n): whether query and text were cut.
        """
        finite = np.flatnonzero(np.isfinite(scores))
        if not len(finite):
            return
        pairs, scores, cut = pairs[finite], scores[finite], cut[:, finite]
        # In SQLite's own order, so that neighbours share pages.
        order = np.lexsort((pairs.texts[:, 0].byteswap(), pairs.query))
        pairs, scores, cut = pairs[order], scores[order], cut[:, order]
        records = records_of(pairs.texts, scores, cut, salts_of(pairs.queries, settings)[pairs.query])
        queries, starts = np.unique(pairs.query, return_index=True)
        with self.file.writing() as connection:
            settings_id = _id(connection, "settings", facts=settings)
            for query, (start, end) in zip(queries.tolist(), pairwise([*starts.tolist(), len(pairs)]), strict=True):
                query_id = _id(connection, "queries", settings=settings_id, hash=pairs.queries[query])
                connection.execute(_WRITE, {"query": query_id, "records": records[start:end].tobytes()})

    def merge(self, other: ScoreDatabase) -> int:
        """Adds the scores that only the other has, query by query, and returns their number."""
        added = 0
        for settings, pairs, scores, cut in other.everything():
            new = np.flatnonzero(np.isnan(self.find(settings, pairs)[0]))
            self.write(settings, pairs[new], scores[new], cut[:, new])
            added += len(new)
        return added

    def copy(self, path: Path) -> None:
        """Writes a compact copy of the file as it is now, whatever others write meanwhile."""
        with self.file.connected() as connection:
            connection.execute("VACUUM INTO ?", (str(path),))

    def everything(self) -> Iterator[tuple[str, HashedPairs, Scores, Cut]]:
        """Yields each query's settings, pairs, scores and cut, all as they were at one moment."""
        if not self.exists:
            return
        with self.file.reading() as connection:
            queries = "SELECT facts, hash, queries.id FROM queries JOIN settings ON settings.id = settings ORDER BY 3"
            for settings, query, query_id in connection.execute(queries):
                if not (isinstance(settings, str) and isinstance(query, bytes) and len(query) == 16):
                    raise sqlite3.DatabaseError("a query's key is damaged")
                records = np.frombuffer(_joined(connection.execute(_SCAN, (query_id, -1))), dtype=RECORD)
                records = records[are_right(records, salts_of([query], settings))]
                pairs = HashedPairs([query], np.zeros(len(records), np.int64), records["text"])
                yield settings, pairs, records["score"], cut_of(records)

    def counts(self) -> list[tuple[str, int, int]]:
        """Each settings, with its number of queries and of pairs."""
        if not self.exists:
            return []
        with self.file.reading() as connection:
            return connection.execute(_COUNTS).fetchall()

    def outline(self, *, most: int) -> tuple[int, list[tuple[str, int]]]:
        """Says quickly what is stored.

        Args:
            most: Stops to count scores beyond this number, because that takes a second for tens of millions.

        Returns:
            How many scores there are, at most ``most + 1``; and each settings, with its number of queries.
        """
        if not self.exists:
            return 0, []
        with self.file.reading() as connection:
            scores = int(_first(connection, "SELECT count(*) FROM (SELECT 1 FROM scores LIMIT ?)", most + 1))
            return scores, connection.execute(_SETTINGS).fetchall()

    def note(self, name: str) -> str | None:
        """Returns the note of this name, or None."""
        if not self.exists:
            return None
        with self.file.reading() as connection:
            note: str | None = _first(connection, "SELECT value FROM notes WHERE name = ?", name)
            return note

    def set_note(self, name: str, value: str) -> None:
        """Writes a note, which replaces an older one of this name."""
        with self.file.writing() as connection:
            connection.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, value))

    @property
    def exists(self) -> bool:
        """Whether there is a file. Reading does not make one."""
        return self.file.path.exists()


def _first(connection: sqlite3.Connection, query: str, *values: Any) -> Any:
    """The first value of the first row, or None."""
    row = connection.execute(query, values).fetchone()
    return row and row[0]


def _id(connection: sqlite3.Connection, table: str, **values: Any) -> int:
    """The id of the row with these values, which is inserted if it is missing."""
    where = " AND ".join(f"{name} = :{name}" for name in values)
    found = connection.execute(f"SELECT id FROM {table} WHERE {where}", values).fetchone()
    if found is None:
        names = ", ".join(f":{name}" for name in values)
        insert = f"INSERT INTO {table} ({', '.join(values)}) VALUES ({names})"
        found = (connection.execute(insert, values).lastrowid,)
    if not isinstance(found[0], int):
        raise sqlite3.DatabaseError(f"an id in the table {table} is damaged")
    return found[0]


def _stored(connection: sqlite3.Connection, settings_id: int, query: bytes, texts: NDArray[np.uint64]) -> bytes:
    """Records of a query, as bytes. They include all that are stored for the given texts, uint64 (n, 2)."""
    if not len(texts):
        return b""
    query_id = _first(connection, "SELECT id FROM queries WHERE settings = ? AND hash = ?", settings_id, query)
    if query_id is None:
        return b""
    limit = _SCANNED_PER_LOOK_UP * len(texts) + 1
    block = _joined(connection.execute(_SCAN, (query_id, limit)))
    if len(block) < limit * RECORD.itemsize:
        return block
    # The query has so many records that asking for each text is faster.
    return _joined(row for text in texts for row in connection.execute(_LOOK_UP, (query_id, text.tobytes())))


def _joined(rows: Iterable[Iterable[bytes]]) -> bytes:
    """Joins rows of a text's hash and value into bytes, whose length is a multiple of a record's even if damaged."""
    try:
        joined = b"".join(chain.from_iterable(rows))
    except TypeError as error:
        raise sqlite3.DatabaseError("a stored value is of another type") from error
    return joined[: len(joined) // RECORD.itemsize * RECORD.itemsize]


def _matched(
    blocks: list[bytes], salts: NDArray[np.uint64], query: NDArray[np.int64], texts: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[Any], int]:
    """Finds pairs among the records of their queries.

    Args:
        blocks: The records of each query, as bytes.
        salts: uint64 (queries,).
        query: int64 (n,), each pair's position in ``blocks``.
        texts: uint64 (n, 2), of each pair.

    Returns:
        The pairs that were found, int64 (m,); their records, `RECORD` (m,); and how many records are damaged.
    """
    records = np.frombuffer(b"".join(blocks), dtype=RECORD)
    query_of_record = np.repeat(np.arange(len(blocks)), [len(block) // RECORD.itemsize for block in blocks])
    right = np.flatnonzero(are_right(records, salts[query_of_record]))
    damaged = len(records) - len(right)
    if not len(right):
        return right, records[:0], damaged
    # The search key is half of a text's hash with its query's salt. Then the whole hashes are compared.
    keys = records["text"][right, 0] ^ salts[query_of_record[right]]
    order = right[np.argsort(keys)]
    place = np.searchsorted(np.sort(keys), texts[:, 0] ^ salts[query])
    found = order[np.minimum(place, len(order) - 1)]
    same = np.flatnonzero((records["text"][found] == texts).all(axis=1) & (query_of_record[found] == query))
    return same, records[found[same]], damaged
