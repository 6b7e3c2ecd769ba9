"""Damaged files of a score store, and those of other releases: an error, or fewer scores, but never a wrong one."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
from contextlib import closing
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
    store.add({"other": 1}, *opposite(0), cut=CUT)
    store.remember("name", "value")
    store.close()
    return (store.path / "scores.sqlite3").read_bytes()


CUT = np.stack([np.arange(SIZE) % 2, np.arange(SIZE) // 2 % 2]).astype(bool)


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
        no = np.zeros_like(CUT)
        for settings, (pairs, scores), cut in (
            ({}, batch(0), no),
            ({"other": 1}, opposite(0), CUT),
            ({}, batch(1), no),
        ):
            found, found_cut = store.look_up(settings, pairs)
            there = ~np.isnan(found)
            assert (found[there] == scores[there]).all(), "a wrong score"
            assert (found_cut == (cut & there)).all(), "wrong about what was cut"
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
    store.add({}, *batch(0), cut=CUT)
    store.close()
    with pytest.raises(AssertionError, match="wrong about"):
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


@pytest.mark.parametrize("damage", [(18, 1), (20, 1), (20, 2)], ids=["score", "query's bit", "text's bit"])
def test_damaged_scores_are_named_in_the_log_and_scored_anew(tmp_path, whole_file, caplog, damage):
    pairs, _ = batch(0)
    byte, bit = damage
    damaged = bytearray(whole_file)
    damaged[whole_file.index(pairs.texts[5].tobytes()) + byte] ^= bit
    (tmp_path / "scores.sqlite3").write_bytes(damaged)
    store = ScoreStore(tmp_path)
    store.scores_of({}, pairs)
    store.scores_of({"other": 1}, pairs)
    assert "1 damaged scores were left out" in caplog.text
    for settings, batch_of in (({}, batch), ({"other": 1}, opposite)):
        store.add(settings, *batch_of(0))
        assert (store.scores_of(settings, pairs) == batch_of(0)[1]).all()


def read_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.chmod(0o555)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere, and is told so


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_a_store_that_may_only_be_read_is_read(tmp_path, whole_file, monkeypatch, journal):
    path = tmp_path / "store" / "scores.sqlite3"
    path.parent.mkdir()
    path.write_bytes(whole_file)
    of_format(2, path, journal)
    before = path.read_bytes()
    read_only(path.parent, monkeypatch)
    store = ScoreStore(path.parent)
    assert (store.scores_of({}, batch(0)[0]) == batch(0)[1]).all()
    with pytest.raises(StoreError, match=r"readonly.*check that its folder exists and that you may write"):
        store._database.write("{}", *batch(1), CUT)
    store.close()
    assert path.read_bytes() == before
    path.parent.chmod(0o755)


def of_format(version: int, path: Path, journal: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute(f"PRAGMA journal_mode = {journal}")


@pytest.mark.parametrize("version", [1, 99])
@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
@pytest.mark.parametrize("writable", [True, False])
def test_a_store_of_another_format_is_left_alone_and_the_error_says_why(
    tmp_path, whole_file, monkeypatch, version, journal, writable
):
    path = tmp_path / "store" / "scores.sqlite3"
    path.parent.mkdir()
    path.write_bytes(whole_file)
    of_format(version, path, journal)
    before = path.read_bytes()
    if not writable:
        read_only(path.parent, monkeypatch)
    store = ScoreStore(path.parent)
    for use in (
        lambda: store.scores_of({}, batch(0)[0]),
        lambda: store._database.write("{}", *batch(1), CUT),
        lambda: len(store),
        lambda: ScoreStore(tmp_path / "new").merge(store),
    ):
        with pytest.raises(StoreError, match=rf"format {version}, .* another release of pyterrier-bertcat made it"):
            use()
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    path.parent.chmod(0o755)


def test_a_store_that_is_deleted_while_it_is_open_begins_anew(tmp_path):
    store = ScoreStore(tmp_path / "store")
    store.add({}, *batch(0))
    shutil.rmtree(store.path)
    assert len(store) == 0
    store.add({}, *batch(1))
    assert len(ScoreStore(store.path)) == SIZE
