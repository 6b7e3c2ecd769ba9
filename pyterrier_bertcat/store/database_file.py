"""The SQLite file of a score store: a connection per process, transactions, and what to do about SQLite's errors."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyterrier_bertcat.errors import StoreError

logger = logging.getLogger(__name__)

VERSION = 2
"""Of the file's format."""
_SCHEMA = (
    "CREATE TABLE settings (id INTEGER PRIMARY KEY, facts TEXT NOT NULL UNIQUE)",
    "CREATE TABLE queries (id INTEGER PRIMARY KEY, settings INTEGER NOT NULL, hash BLOB NOT NULL, "
    "UNIQUE (settings, hash))",
    "CREATE TABLE scores (query INTEGER, text BLOB, value BLOB, PRIMARY KEY (query, text)) WITHOUT ROWID",
    "CREATE TABLE notes (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    f"PRAGMA user_version = {VERSION}",
)

# Connections that may be neither used nor closed: those of a parent process, and those to a file that was replaced.
# Closing one would delete the log of that name, which another connection now uses.
_abandoned: list[sqlite3.Connection] = []


class StoreFile:
    """An SQLite file in WAL mode, made when it is first opened.

    Several threads may use it, also after a fork: each process has its own connection, and its threads take turns.
    """

    def __init__(self, path: Path, *, timeout_s: float) -> None:
        """Opens nothing yet.

        Args:
            path: Of the file. While it is in use, files ending in ``-wal`` and ``-shm`` stand beside it.
            timeout_s: How long to wait for another writer, in seconds.
        """
        self.path = path
        self.timeout_s = timeout_s
        self._process = _Process()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A transaction that sees the file as it is now, whatever others write meanwhile."""
        with self.connected() as connection, _transaction(connection, "BEGIN"):
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that commits everything at the end, or nothing after an error."""
        with self.connected() as connection, _transaction(connection, "BEGIN IMMEDIATE"):
            yield connection

    @contextmanager
    def connected(self) -> Iterator[sqlite3.Connection]:
        """This process's connection, for this thread alone.

        Raises:
            StoreError: SQLite raised an error inside.
        """
        process = self._here()
        with process.lock:
            try:
                if process.connection is not None and process.file != _file_id(self.path):
                    logger.warning("%s was removed or replaced by another file, which is used from now on", self.path)
                    _abandoned.append(process.connection)
                    process.forget()
                if process.connection is None:
                    process.connection = _open(self.path, self.timeout_s)
                    process.file = _file_id(self.path)
                    process.closer = weakref.finalize(self, _close, process.connection, process.id)
                yield process.connection
            except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter if SQLite quotes damaged text
                self.close()  # the next use opens it again, whatever was wrong
                raise self._explained(error) from error

    def close(self) -> None:
        """Closes the file, so that it stands alone, without ``-wal`` and ``-shm``. The next use opens it again."""
        process = self._here()
        with process.lock:
            if process.connection is not None:
                process.connection.close()
                process.forget()

    def _here(self) -> _Process:
        """The state of this process. A fork starts anew, also with the lock, which another thread may have held."""
        if self._process.id != os.getpid():
            self._process = _Process()
        return self._process

    def _explained(self, error: Exception) -> StoreError:
        text = str(error)
        if isinstance(error, _OtherFormat):
            remedy = (
                "another release of pyterrier-bertcat made it. Use that release, give another path, or delete it, and "
                "everything is scored again"
            )
        elif "locked" in text or "busy" in text:
            remedy = (
                f"another process has been writing to it for {self.timeout_s:g} s or more. Wait for it to end, or give "
                "the store a longer timeout_s"
            )
        elif "full" in text or "disk I/O" in text:
            remedy = (
                "the disk can't be written or read. Earlier scores are not harmed: free some space, or move the store, "
                "and start again, which continues where it stopped"
            )
        elif "readonly" in text or "unable to open" in text:
            remedy = "check that its folder exists and that you may write to it and to the files in it"
        else:
            remedy = "the file is damaged, or not a score store. Delete it, and everything is scored again"
        return StoreError(f"{self.path}: {text}: {remedy}")


class _OtherFormat(sqlite3.DatabaseError):
    """The file was made by a release with another format."""


class _Process:
    """One process's connection, and the lock by which its threads take turns."""

    def __init__(self) -> None:
        self.id = os.getpid()
        self.lock = threading.RLock()
        self.connection: sqlite3.Connection | None = None
        self.file: tuple[int, int] | None = None
        self.closer: weakref.finalize[..., StoreFile] | None = None

    def forget(self) -> None:
        """Drops the connection, which was closed or abandoned."""
        if self.closer is not None:
            self.closer.detach()
        self.connection = self.file = self.closer = None


def _file_id(path: Path) -> tuple[int, int] | None:
    """Tells whether the file at a path was replaced by another; None if there is no file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _open(file: Path, timeout_s: float) -> sqlite3.Connection:
    # In a folder that can't be written to, SQLite can't make its log: the file is only read.
    uri = file.resolve().as_uri() + ("" if os.access(file.parent, os.W_OK) else "?immutable=1")
    connection = sqlite3.connect(uri, uri=True, timeout=timeout_s, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA trusted_schema = OFF")  # a store may come from somebody else
        connection.execute("PRAGMA cell_size_check = ON")
        is_new = _is_new(connection)  # before anything is changed
        _set_wal_mode(connection, timeout_s)
        if is_new:
            with _transaction(connection, "BEGIN IMMEDIATE"):
                if _is_new(connection):  # no other process was faster
                    for statement in _SCHEMA:
                        connection.execute(statement)
        connection.execute("PRAGMA synchronous = NORMAL")  # in WAL mode safe against everything but a power cut
    except BaseException:
        connection.close()
        raise
    return connection


def _set_wal_mode(connection: sqlite3.Connection, timeout_s: float) -> None:
    """Lets readers and a writer work at once. The file keeps this mode."""
    end = time.monotonic() + timeout_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:  # SQLite does not wait while another process does this
            if "locked" not in str(error) or time.monotonic() > end:
                raise
        time.sleep(0.01)


def _is_new(connection: sqlite3.Connection) -> bool:
    """Whether nothing was stored yet. Refuses a file of another format."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version not in (0, VERSION):
        raise _OtherFormat(f"it has format {version}, this release of pyterrier-bertcat reads {VERSION}")
    return bool(version == 0)


def _close(connection: sqlite3.Connection, process_id: int) -> None:
    if process_id == os.getpid():
        connection.close()
    else:
        _abandoned.append(connection)


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
