"""The SQLite file of a score store: one connection per process, transactions, and what SQLite's errors mean."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
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

# Connections that may be neither used nor closed: those of a parent process, and those to a file that was replaced,
# as closing them would delete the log that has the same name.
_abandoned: list[sqlite3.Connection] = []


class StoreFile:
    """An SQLite file in WAL mode, which comes into being when it is first opened.

    It may be used from several threads, and after a fork: each process has a connection of its own, which its threads
    use by turns.
    """

    def __init__(self, path: Path, *, timeout_s: float) -> None:
        """Opens nothing yet.

        Args:
            path: Of the file; while it is in use, files ending in ``-wal`` and ``-shm`` stand beside it.
            timeout_s: How long to wait for another writer, in seconds.
        """
        self.path = path
        self.timeout_s = timeout_s
        self._process = _Process()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One view of the file while it lasts, whatever others write meanwhile."""
        with self.connected() as connection, _transaction(connection, "BEGIN"):
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all that is written is committed at the end, or, after an error, nothing of it."""
        with self.connected() as connection, _transaction(connection, "BEGIN IMMEDIATE"):
            yield connection

    @contextmanager
    def connected(self) -> Iterator[sqlite3.Connection]:
        """This process's connection, for this thread alone while it lasts.

        Raises:
            StoreError: Whatever SQLite complains of inside.
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
            except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter when SQLite quotes what is damaged
                self.close()  # the next use begins afresh, whatever was wrong
                raise self._explained(error) from error

    def close(self) -> None:
        """Closes the file, so that it stands alone without ``-wal`` and ``-shm``; the next use opens it again."""
        process = self._here()
        with process.lock:
            if process.connection is not None:
                process.connection.close()
                process.forget()

    def _here(self) -> _Process:
        """What this process has; after a fork nothing yet, not even the lock, which another thread may have held."""
        if self._process.id != os.getpid():
            self._process = _Process()
        return self._process

    def _explained(self, error: Exception) -> StoreError:
        text = str(error)
        if isinstance(error, _OtherFormat):
            remedy = "another release of pyterrier-bertcat made it. Use that release, or give another path"
        elif "locked" in text or "busy" in text:
            remedy = (
                f"another process has been writing to it for {self.timeout_s:g} s or more. Wait for it to end, or give "
                "the store a longer timeout_s"
            )
        elif "full" in text or "disk I/O" in text:
            remedy = (
                "the disk can't take or give it. What was stored before is not harmed: free some space, or move the "
                "store, and start again, which goes on where it was"
            )
        elif "readonly" in text or "unable to open" in text:
            remedy = "check that its folder is there and that you may write to it, with the files in it"
        else:
            remedy = "the file is damaged, or no score store. Delete it, and everything is scored again"
        return StoreError(f"{self.path}: {text}: {remedy}")


class _OtherFormat(sqlite3.DatabaseError):
    """A score store of a release that writes another format."""


class _Process:
    """What belongs to one process: its connection, and the lock by which its threads take turns."""

    def __init__(self) -> None:
        self.id = os.getpid()
        self.lock = threading.RLock()
        self.connection: sqlite3.Connection | None = None
        self.file: tuple[int, int] | None = None
        self.closer: weakref.finalize[..., StoreFile] | None = None

    def forget(self) -> None:
        """Lets go of the connection, which is closed or abandoned."""
        if self.closer is not None:
            self.closer.detach()
        self.connection = self.file = self.closer = None


def address(file: Path) -> str:
    """The URI by which SQLite opens a file; one in a folder that can't be written to is only read."""
    return file.resolve().as_uri() + ("" if os.access(file.parent, os.W_OK) else "?immutable=1")


def _file_id(path: Path) -> tuple[int, int] | None:
    """Tells files apart that have the same path one after the other; None where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _open(file: Path, timeout_s: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        address(file), uri=True, timeout=timeout_s, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA trusted_schema = OFF")  # a store may come from somebody else
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA journal_mode = WAL")
        if _version(connection) == 0:
            with _transaction(connection, "BEGIN IMMEDIATE"):
                if _version(connection) == 0:  # nobody else was faster
                    for statement in _SCHEMA:
                        connection.execute(statement)
        version = _version(connection)
        if version != VERSION:
            raise _OtherFormat(f"it has format {version}, this release of pyterrier-bertcat reads {VERSION}")
        connection.execute("PRAGMA synchronous = NORMAL")  # in WAL mode safe against all but a power cut
    except BaseException:
        connection.close()
        raise
    return connection


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


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
