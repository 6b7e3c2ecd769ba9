"""The score store: what goes in comes back, bit by bit, for equal settings and equal content only."""

from __future__ import annotations

import functools
import http.server
import logging
import pickle
import threading
from importlib.metadata import entry_points

import numpy as np
import pandas as pd
import pyterrier as pt
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pyterrier_bertcat.errors import InputError, MissingExtraError, StoreError
from pyterrier_bertcat.store import score_store
from pyterrier_bertcat.store.pair_hashes import HashedPairs
from pyterrier_bertcat.store.score_store import ScoreStore

SETTINGS = {"checkpoint": "0123", "max_length": 512, "dtype": "float32"}
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.fixture
def store(tmp_path):
    return ScoreStore(tmp_path / "scores")


def some_pairs(count: int, *, queries: int = 3, name: str = "text") -> tuple[HashedPairs, np.ndarray]:
    """Pairs with a score each, all different."""
    texts = [f"{name} {number}" for number in range(count)]
    scores = np.arange(count, dtype=np.float32) / 7 - 1
    return HashedPairs.of([f"query {number % queries}" for number in range(count)], texts), scores


def some_cut(count: int) -> np.ndarray:
    """Whether queries and texts were cut, in all four combinations."""
    numbers = np.arange(count)
    return np.stack([numbers % 2, numbers // 2 % 2]).astype(bool)


def bits(scores: np.ndarray) -> list[int]:
    assert scores.dtype == np.float32
    return scores.view(np.uint32).tolist()


@hypothesis_settings(max_examples=25)  # each one waits for the disk
@given(
    rows=st.lists(st.tuples(st.sampled_from("abc"), st.text(max_size=2), FINITE), max_size=40), cut=st.integers(0, 40)
)
def test_it_is_a_mapping_from_pairs_to_scores(rows, cut, tmp_path_factory):
    store = ScoreStore(tmp_path_factory.mktemp("store") / "scores")
    for part in (rows[:cut], rows[cut:]):
        if part:
            queries, texts, scores = zip(*part, strict=True)
            store.add(SETTINGS, HashedPairs.of(queries, texts), np.array(scores, np.float32))
    expected = {(query, text): score for query, text, score in rows}
    asked = [*expected, ("a", "not there"), ("d", "")]
    found = store.scores_of(SETTINGS, HashedPairs.of(*zip(*asked, strict=True)))
    wanted = np.array([expected.get(pair, np.nan) for pair in asked], np.float32)
    assert bits(found[:-2]) == bits(wanted[:-2])
    assert np.isnan(found[-2:]).all()
    assert len(store) == len(expected)
    store.close()


def test_another_process_finds_them_by_content(store):
    pairs, scores = some_pairs(100)
    store.add(SETTINGS, pairs, scores)
    shuffled = np.random.default_rng(0).permutation(100)
    again = ScoreStore(store.path)
    assert bits(again.scores_of(SETTINGS, pairs[shuffled])) == bits(scores[shuffled])


@pytest.mark.parametrize(
    "other",
    [
        {**SETTINGS, "checkpoint": "0124"},
        {**SETTINGS, "max_length": 511},
        {**SETTINGS, "max_length": "512"},
        {**SETTINGS, "dtype": "bfloat16"},
        {**SETTINGS, "passages": {"length": 128}},
        {},
    ],
)
def test_other_settings_never_get_these_scores(store, other):
    pairs, scores = some_pairs(10)
    store.add(SETTINGS, pairs, scores)
    assert np.isnan(store.scores_of(other, pairs)).all()
    store.add(other, pairs, -scores)
    assert bits(store.scores_of(SETTINGS, pairs)) == bits(scores)
    assert bits(store.scores_of(other, pairs)) == bits(-scores)


def test_settings_are_equal_in_any_order(store):
    pairs, scores = some_pairs(10)
    store.add(SETTINGS, pairs, scores)
    assert bits(store.scores_of(dict(reversed(SETTINGS.items())), pairs)) == bits(scores)


def test_a_query_and_a_text_do_not_stand_for_each_other(store):
    store.add(SETTINGS, HashedPairs.of(["a", "ab"], ["b", ""]), np.float32([1, 2]))
    asked = HashedPairs.of(["b", "", "a", "ab"], ["a", "ab", "", "b"])
    assert np.isnan(store.scores_of(SETTINGS, asked)).all()


def test_a_few_texts_of_a_query_with_very_many_are_found(store):
    """They are looked up one by one, where a scan would read all of the query's."""
    pairs, scores = some_pairs(5000, queries=1)
    store.add(SETTINGS, pairs, scores)
    few = np.array([4999, 0, 17])
    assert bits(store.scores_of(SETTINGS, pairs[few])) == bits(scores[few])
    strange = HashedPairs.of(["query 0"] * 2, ["not there", "text 3"])
    assert store.scores_of(SETTINGS, strange).tolist() == pytest.approx([np.nan, scores[3]], nan_ok=True)


def test_many_pairs_of_many_queries_are_found_in_any_order(store):
    pairs, scores = some_pairs(150_000, queries=500)
    store.add(SETTINGS, pairs, scores)
    shuffled = np.random.default_rng(0).permutation(150_000)
    assert bits(store.scores_of(SETTINGS, pairs[shuffled])) == bits(scores[shuffled])


def test_only_finite_scores_are_kept(store):
    pairs, _ = some_pairs(4)
    store.add(SETTINGS, pairs, np.float32([np.nan, np.inf, -np.inf, 3]))
    assert store.scores_of(SETTINGS, pairs).tolist() == pytest.approx([np.nan] * 3 + [3], nan_ok=True)
    assert len(store) == 1


def test_reading_makes_nothing(store):
    pairs, _ = some_pairs(4)
    assert np.isnan(store.scores_of(SETTINGS, pairs)).all()
    assert len(store) == 0
    assert store
    assert store.recall("note") is None
    assert store.settings().columns.tolist() == ["queries", "pairs"]
    assert not store.path.exists()


def test_the_summary_counts_by_settings(store):
    store.add(SETTINGS, *some_pairs(10))
    store.add({**SETTINGS, "max_length": 128}, *some_pairs(7, queries=1))
    expected = pd.DataFrame([{**SETTINGS, "queries": 3, "pairs": 10}, {**SETTINGS, "queries": 1, "pairs": 7}])
    expected["max_length"] = [512, 128]
    pd.testing.assert_frame_equal(store.settings(), expected, check_like=True)


def test_a_wrong_number_of_scores_and_settings_that_are_no_json_are_refused(store):
    pairs, scores = some_pairs(4)
    with pytest.raises(InputError, match="4 pairs"):
        store.add(SETTINGS, pairs, scores[:3])
    with pytest.raises(InputError, match=r"cut \(2, 4\) .* got the shapes \(4,\) and \(4,\)"):
        store.add(SETTINGS, pairs, scores, cut=np.zeros(4, dtype=bool))
    for settings in ({"model": object()}, {"limit": float("nan")}, 3):
        with pytest.raises(InputError, match="JSON"):
            store.scores_of(settings, pairs)


def test_notes_are_kept_and_replaced(store):
    store.remember("a", "1")
    store.remember("a", "2")
    assert ScoreStore(store.path).recall("a") == "2"
    assert store.recall("b") is None


def test_a_path_that_cannot_be_a_folder_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        ScoreStore(tmp_path / "file").add(SETTINGS, *some_pairs(3))


def test_merging_adds_what_is_not_there(store, tmp_path):
    other = ScoreStore(tmp_path / "other")
    pairs, scores = some_pairs(100)
    store.add(SETTINGS, pairs[np.arange(60)], scores[:60])
    other.add({"checkpoint": "another"}, *some_pairs(5))
    other.add(SETTINGS, pairs[np.arange(40, 100)], -scores[40:])
    assert store.merge(other.path) == 40 + 5
    assert bits(store.scores_of(SETTINGS, pairs)) == bits(np.concatenate([scores[:60], -scores[60:]]))
    assert bits(store.scores_of({"checkpoint": "another"}, some_pairs(5)[0])) == bits(some_pairs(5)[1])
    assert store.merge(other) == 0
    assert store.merge(store) == 0
    assert len(other) == 65


def test_what_was_cut_is_kept_stored_anew_and_merged(store, tmp_path):
    pairs, scores = some_pairs(100)
    cut = some_cut(100)
    store.add(SETTINGS, pairs, scores, cut=~cut)
    store.add(SETTINGS, pairs, scores, cut=cut)
    other = ScoreStore(tmp_path / "other")
    other.add(SETTINGS, pairs[np.arange(50)], scores[:50], cut=~cut[:, :50])
    assert other.merge(store) == 50
    assert store.look_up(SETTINGS, pairs)[1].tolist() == cut.tolist()
    assert other.look_up(SETTINGS, pairs)[1].tolist() == np.hstack([~cut[:, :50], cut[:, 50:]]).tolist()


def test_merging_what_is_no_store_is_refused(store, tmp_path):
    with pytest.raises(StoreError, match="no score store"):
        store.merge(tmp_path)


def test_export_writes_every_score_to_parquet(store, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    assert store.export(tmp_path / "empty.parquet") == 0
    assert pq.read_table(tmp_path / "empty.parquet").num_rows == 0
    pairs, scores = some_pairs(2000, queries=400)
    cut = some_cut(2000)
    store.add(SETTINGS, pairs, scores, cut=cut)
    store.add({"checkpoint": "another"}, pairs, -scores, cut=~cut)
    assert store.export(tmp_path / "scores.parquet") == 4000
    table = pq.read_table(tmp_path / "scores.parquet")
    assert table.column_names == ["settings", "query", "text", "score", "query_cut", "text_cut"]
    found = {tuple(row.values())[:3]: tuple(row.values())[3:] for row in table.to_pylist()}
    assert len(found) == 4000
    for settings, sign, its_cut in (
        ('{"checkpoint": "0123", "dtype": "float32", "max_length": 512}', 1, cut),
        ('{"checkpoint": "another"}', -1, ~cut),
    ):
        for query, text, score, of_pair in zip(pairs.query, pairs.texts, scores, its_cut.T.tolist(), strict=True):
            assert found[settings, pairs.queries[query], text.tobytes()] == (sign * score, *of_pair)


def test_export_without_pyarrow_names_the_extra(store, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"\[parquet\]"):
        store.export(tmp_path / "scores.parquet")


def test_it_pickles_as_its_path_and_is_equal_by_it(store, tmp_path):
    pairs, scores = some_pairs(10)
    store.add(SETTINGS, pairs, scores)
    pickled = pickle.dumps(store)
    copy = pickle.loads(pickled)
    assert len(pickled) < 500
    assert copy == store == ScoreStore(str(store.path), timeout_s=1)
    assert hash(copy) == hash(store)
    assert copy != ScoreStore(tmp_path / "other")
    assert bits(copy.scores_of(SETTINGS, pairs)) == bits(scores)


def test_its_repr_says_how_many_scores_it_has_of_which_settings(store, monkeypatch):
    name = f"ScoreStore({str(store.path)!r})"
    assert repr(store) == name  # nothing is there yet, and nothing is made
    assert not store.path.exists()
    pairs, scores = some_pairs(10)
    truncation = {"max_length": 128, "max_query_length": None}
    facts = {"checkpoint": "0123456789abcdef" * 4, "truncation": truncation, "dtype": "float32", "passages": None}
    store.add(facts, pairs, scores)
    queries = len(set(pairs.query.tolist()))
    expected = f"  {queries:,} queries: checkpoint 01234567…, dtype float32, max_length 128"
    assert repr(store) == f"{name}: 10 scores\n{expected}"
    for number in range(6):
        store.add({"number": number}, pairs, scores)
    assert repr(store).splitlines()[0] == f"{name}: 70 scores"
    assert repr(store).splitlines()[-1] == "  and 2 more settings: settings() lists them all"
    monkeypatch.setattr(score_store, "_MOST_COUNTED", 69)
    assert repr(store).splitlines()[0] == f"{name}: more than 69 scores"


def test_its_repr_raises_nothing_when_the_file_is_damaged(store):
    pairs, scores = some_pairs(10)
    store.add(SETTINGS, pairs, scores)
    store.close()
    (store.path / "scores.sqlite3").write_bytes(b"no database " * 1000)
    assert repr(ScoreStore(store.path)).startswith(f"ScoreStore({str(store.path)!r}): can't be read (")


def test_threads_may_read_and_write_one_store(store):
    pairs, scores = some_pairs(4000, queries=8)
    failures = []

    def work(part: np.ndarray) -> None:
        for rows in np.array_split(part, 10):
            store.add(SETTINGS, pairs[rows], scores[rows])
            if bits(store.scores_of(SETTINGS, pairs[rows])) != bits(scores[rows]):
                failures.append(rows)

    threads = [threading.Thread(target=work, args=(part,)) for part in np.array_split(np.arange(4000), 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert bits(store.scores_of(SETTINGS, pairs)) == bits(scores)


def test_a_package_of_it_is_a_store_again(store, tmp_path, monkeypatch):
    """As ``to_hf`` and ``from_hf`` do, with a server on this machine instead of the hub."""
    monkeypatch.setenv("PYTERRIER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(pt.io, "pyterrier_home", lambda: str(tmp_path / "home"))
    pairs, scores = some_pairs(1000)
    store.add(SETTINGS, pairs, scores)
    package = tmp_path / "served" / "artifact.tar.lz4"
    package.parent.mkdir()
    store.build_package(str(package), verbose=False)
    handler = functools.partial(QuietHandler, directory=str(package.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        received = ScoreStore.from_url(f"http://127.0.0.1:{server.server_port}/{package.name}")
        server.shutdown()
    assert sorted(path.name for path in received.path.iterdir()) == ["pt_meta.json", "scores.sqlite3"]
    assert bits(received.scores_of(SETTINGS, pairs)) == bits(scores)
    received.add(SETTINGS, *some_pairs(10, name="new"))
    assert len(received) == 1010
    assert pt.inspect.artifact_type_format(received) == ("score_store", "sqlite3")


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        logging.getLogger(__name__).debug("%s", args)


def test_pyterrier_finds_the_class_for_such_a_folder(store):
    store.add(SETTINGS, *some_pairs(3))
    (entry,) = entry_points(group="pyterrier.artifact", name="score_store.sqlite3")
    assert entry.load() is ScoreStore
    assert pt.Artifact.load(str(store.path)) == store
