"""Damaged files of a score store: an error, or fewer scores, but never a wrong one."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from helpers.stored_batches import SIZE, batch

from pyterrier_bertcat.errors import StoreError
from pyterrier_bertcat.store.pair_hashes import HashedPairs
from pyterrier_bertcat.store.score_store import ScoreStore


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory) -> bytes:
    """A file with two batches, the second under other settings."""
    store = ScoreStore(tmp_path_factory.mktemp("store"))
    store.add({}, *batch(0))
    store.add({"other": 1}, *opposite(0))
    store.remember("name", "value")
    store.close()
    return (store.path / "scores.sqlite3").read_bytes()


def opposite(n: int) -> tuple[HashedPairs, np.ndarray]:
    """The same pairs with other scores."""
    pairs, scores = batch(n)
    return pairs, -1 - scores


def checked(folder: Path, content: bytes, *, write: bool = False) -> int:
    """How many scores a store with this file has: each is right. -1: it gave an error, as it may."""
    for ending in ("", "-wal", "-shm"):
        (folder / f"scores.sqlite3{ending}").unlink(missing_ok=True)
    (folder / "scores.sqlite3").write_bytes(content)
    store, count = ScoreStore(folder, timeout_s=0.1), 0
    try:
        if write:
            store.add({}, *batch(1))
        for settings, (pairs, scores) in (({}, batch(0)), ({"other": 1}, opposite(0)), ({}, batch(1))):
            found = store.scores_of(settings, pairs)
            there = ~np.isnan(found)
            assert (found[there] == scores[there]).all(), "a wrong score"
            count += int(there.sum())
        assert np.isnan(store.scores_of({"other": 2}, batch(0)[0])).all()
    except StoreError:
        return -1
    finally:
        store.close()
    return count


def test_the_check_of_damaged_files_sees_whole_and_wrong_ones(tmp_path, whole_file):
    assert checked(tmp_path, whole_file) == 2 * SIZE
    assert checked(tmp_path, whole_file, write=True) == 3 * SIZE
    store = ScoreStore(tmp_path)
    store.add({}, *opposite(0))
    store.close()
    with pytest.raises(AssertionError, match="a wrong score"):
        checked(tmp_path, (tmp_path / "scores.sqlite3").read_bytes())


@pytest.mark.parametrize("write", [False, True])
def test_a_changed_byte_never_gives_a_wrong_score(tmp_path, whole_file, write, caplog):
    caplog.set_level(logging.ERROR)
    places = np.flatnonzero(np.frombuffer(whole_file, np.uint8))  # most of the file is zeros
    stride = int(os.environ.get("BERTCAT_FLIP_STRIDE", "23"))
    random, counts = np.random.default_rng(0), []
    for place in places[:: stride * (1 + write)]:
        damaged = bytearray(whole_file)
        damaged[place] ^= random.integers(1, 256)
        counts.append(checked(tmp_path, bytes(damaged), write=write))
    assert min(counts) == -1  # some are errors,
    assert 0 < np.median(counts) <= (2 + write) * SIZE  # most still have nearly all


def test_a_truncated_file_never_gives_a_wrong_score(tmp_path, whole_file, caplog):
    caplog.set_level(logging.ERROR)
    for length in [*range(0, len(whole_file), 1777), *range(0, len(whole_file), 4096)]:
        assert checked(tmp_path, whole_file[:length]) <= 2 * SIZE


def test_exchanged_pages_never_give_a_wrong_score(tmp_path, whole_file, caplog):
    caplog.set_level(logging.ERROR)
    pages = [whole_file[start : start + 4096] for start in range(0, len(whole_file), 4096)]
    for first in range(len(pages)):
        for second in range(first):
            changed = list(pages)
            changed[first], changed[second] = pages[second], pages[first]
            assert checked(tmp_path, b"".join(changed)) <= 2 * SIZE


def test_what_is_no_database_is_a_clear_error(tmp_path):
    (tmp_path / "scores.sqlite3").write_text("no database" * 1000)
    with pytest.raises(StoreError, match=r"scores\.sqlite3: file is not a database: .*Delete it"):
        ScoreStore(tmp_path).scores_of({}, batch(0)[0])


def test_damaged_scores_are_named_in_the_log_and_scored_anew(tmp_path, whole_file, caplog):
    pairs, _ = batch(0)
    place = whole_file.index(pairs.texts[5].tobytes())
    damaged = bytearray(whole_file)
    damaged[place + 18] ^= 1  # in the score
    (tmp_path / "scores.sqlite3").write_bytes(damaged)
    store = ScoreStore(tmp_path)
    store.scores_of({}, pairs)
    store.scores_of({"other": 1}, pairs)
    assert "1 damaged scores were left out" in caplog.text
    for settings, batch_of in (({}, batch), ({"other": 1}, opposite)):
        store.add(settings, *batch_of(0))
        assert (store.scores_of(settings, pairs) == batch_of(0)[1]).all()


def test_a_store_of_another_format_is_left_alone_and_the_error_says_why(tmp_path):
    store = ScoreStore(tmp_path)
    store.add({}, *batch(0))
    store.close()
    path = tmp_path / "scores.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    for use in (lambda: store.scores_of({}, batch(0)[0]), lambda: store.add({}, *batch(1)), lambda: len(store)):
        with pytest.raises(StoreError, match=r"it has format 99, .* another release of pyterrier-bertcat made it"):
            use()
    assert path.read_bytes() == before


def test_a_store_that_is_deleted_while_it_is_open_begins_anew(tmp_path):
    store = ScoreStore(tmp_path / "store")
    store.add({}, *batch(0))
    shutil.rmtree(store.path)
    assert len(store) == 0
    store.add({}, *batch(1))
    assert len(ScoreStore(store.path)) == SIZE
