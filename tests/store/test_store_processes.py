"""Processes that are killed, collide, fork, or run into a full disk: what a score store has afterwards."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from contextlib import closing
from pathlib import Path

import pytest
from helpers.stored_batches import batch, state, write
from helpers.waiting import HANGS_S

from pyterrier_bertcat.errors import StoreError
from pyterrier_bertcat.store.database import ScoreDatabase
from pyterrier_bertcat.store.score_store import ScoreStore

IMPORTS = f"""
import os, signal, sys, time
from pathlib import Path
import numpy as np
sys.path.append({str(Path(__file__).parents[1])!r})
from helpers.stored_batches import batch, child, state, write
from pyterrier_bertcat.errors import StoreError
from pyterrier_bertcat.store.database import ScoreDatabase
"""
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def run(code: str, *arguments: object) -> str:
    """What a new interpreter prints when it runs the code; a failure there is a failure here."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=HANGS_S,  # a lock that is never given back
        cwd=tempfile.gettempdir(),  # Python would import what is in the current folder first
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_fork
def test_a_process_killed_at_any_moment_leaves_what_it_had_committed(tmp_path):
    printed = run(
        """
path, start = Path(sys.argv[1]), 0
for pause_s in np.linspace(0, 0.1, 16):
    reader, writer = os.pipe()

    def work():
        database, n = ScoreDatabase(path, timeout_s=10), start
        while True:
            write(database, n)
            os.write(writer, b"c")  # committed
            n += 1

    process = child(work)
    time.sleep(pause_s)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    os.close(writer)
    committed = len(os.read(reader, 1 << 20))
    database = ScoreDatabase(path, timeout_s=10)
    states = [state(database, start + n) for n in range(committed + 3)]
    assert states[:committed] == ["right"] * committed, states
    assert states[committed] in ("right", "absent"), states  # committed, and killed before it could say so
    assert states[committed + 1:] == ["absent"] * 2, states
    assert all(state(database, n) == "right" for n in range(0, start, 7))
    start += states.count("right")
    database.file.close()
print(start)
""",
        tmp_path / "scores.sqlite3",
    )
    assert int(printed) > 3


@needs_fork
def test_processes_that_make_and_write_one_store_at_once_lose_nothing(tmp_path):
    run(
        """
path = Path(sys.argv[1])

def work(numbers):
    database = ScoreDatabase(path, timeout_s=60)
    for n in numbers:
        write(database, n)

children = [child(lambda: work(range(first, first + 40))) for first in (0, 10, 20, 80)]
for process in children:
    os.waitpid(process, 0)
database = ScoreDatabase(path, timeout_s=10)
states = [state(database, n) for n in range(121)]
assert states == ["right"] * 60 + ["absent"] * 20 + ["right"] * 40 + ["absent"], states
""",
        tmp_path / "scores.sqlite3",
    )


@needs_fork
def test_a_forked_child_may_go_on_with_the_store(tmp_path):
    """Also when another thread was using it at that moment, and when the child ends like any program."""
    run(
        """
import gc, threading
database = ScoreDatabase(Path(sys.argv[1]), timeout_s=10)
write(database, 0)
inside, done = threading.Event(), threading.Event()

def hold():
    with database.file.reading():
        inside.set()
        done.wait()

thread = threading.Thread(target=hold)
thread.start()
inside.wait()
process = os.fork()
if not process:
    assert state(database, 0) == "right"
    write(database, 1)
    database.file.close()
    del database
    gc.collect()
    sys.exit(0)
_, status = os.waitpid(process, 0)
assert status == 0, status
done.set()
thread.join()
write(database, 2)
assert [state(database, n) for n in range(4)] == ["right"] * 3 + ["absent"]
""",
        tmp_path / "scores.sqlite3",
    )


def test_a_store_that_another_process_keeps_locked_is_read_and_says_why_it_is_not_written(tmp_path):
    store = ScoreStore(tmp_path, timeout_s=0.1)
    store.add({}, *batch(0))
    with closing(sqlite3.connect(tmp_path / "scores.sqlite3")) as other:
        other.execute("BEGIN IMMEDIATE")
        assert state(store._database, 0) == "right"
        with pytest.raises(StoreError, match=r"locked.*another process.*0\.1 s.*timeout_s"):
            store.add({}, *batch(1))
    store.add({}, *batch(1))
    assert [state(store._database, n) for n in range(3)] == ["right", "right", "absent"]


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no limit on a file's size")
def test_a_full_disk_is_a_clear_error_and_leaves_what_was_committed(tmp_path):
    """The limit on a file's size stands for the disk's."""
    path = tmp_path / "scores.sqlite3"
    committed, message = run(
        """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
database, n = ScoreDatabase(Path(sys.argv[1]), timeout_s=10), 0
try:
    while True:
        write(database, n)
        n += 1
except StoreError as error:
    print(n, error, sep="\\n")
assert [state(database, m) for m in range(n + 1)] == ["right"] * n + ["absent"]
""",
        path,
    ).splitlines()
    assert int(committed) > 3
    assert str(path) in message
    assert "free some space" in message
    database = ScoreDatabase(path, timeout_s=10)
    write(database, int(committed))
    assert [state(database, n) for n in range(int(committed) + 2)] == ["right"] * (int(committed) + 1) + ["absent"]


def test_a_new_store_waits_for_another_process_that_is_making_it(tmp_path):
    """SQLite by itself does not wait for one that is writing to a file which is not in WAL mode yet."""
    path = tmp_path / "scores.sqlite3"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("CREATE TABLE some (x)")
        other.execute("DROP TABLE some")
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(0.2, lambda: other.execute("COMMIT")).start()
        database = ScoreDatabase(path, timeout_s=60)
        write(database, 0)
        assert state(database, 0) == "right"
