"""Scoring through a store: what is in it is not scored again, what is not is stored as it comes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections import Counter

import numpy as np
import pytest
from helpers.waiting import wait_until

import pyterrier_bertcat.store.read_through
from pyterrier_bertcat.errors import ScoreError, StoreError
from pyterrier_bertcat.scoring.pair_scorer import PairScorer
from pyterrier_bertcat.scoring.row_scores import ScoredPairs
from pyterrier_bertcat.store.pair_hashes import HashedPairs
from pyterrier_bertcat.store.read_through import ReadThroughScorer
from pyterrier_bertcat.store.score_store import ScoreStore

SETTINGS = {"checkpoint": "0123"}
QUERIES = ["what is a cat", "what is a dog"] * 20
TEXTS = [f"passage {row % 30} on cats and dogs" for row in range(40)]
DISTINCT = 30


@pytest.fixture
def store(tmp_path):
    return ScoreStore(tmp_path / "scores")


class CountingScorer:
    """In a `PairScorer`'s place: scores by length, in batches of four, and counts what it was asked for."""

    def __init__(self, *, fail_after: int | None = None, error: type[BaseException] = ScoreError) -> None:
        self.stats = None
        self.asked: Counter[tuple[str, str]] = Counter()
        self.fail_after, self.error = fail_after, error

    def score_in_detail(self, queries, texts, *, finished=None):
        scores = np.float32([len(query) / 7 - len(text) for query, text in zip(queries, texts, strict=True)])
        lost = np.array([[len(query) > 9 for query in queries], [len(text) > 9 for text in texts]], dtype=np.int64)
        for start in range(0, len(scores), 4):
            if self.fail_after is not None and start >= self.fail_after:
                raise self.error("not finite")
            rows = np.arange(start, min(start + 4, len(scores)))
            self.asked.update((queries[row], texts[row]) for row in rows)
            finished(rows, scores[rows], lost[:, rows] > 0)
        nothing = np.zeros(len(scores), dtype=np.int64)
        return ScoredPairs(scores, nothing, lost, lost)


def never() -> PairScorer:
    raise AssertionError("a scorer was made, though every score is stored")


def test_scores_are_the_scorers_own_and_are_then_read(store, tiny_checkpoint):
    scorer = PairScorer(tiny_checkpoint, device="cpu", verbose=False)
    expected = scorer.score(QUERIES, TEXTS)
    for make_scorer in (lambda: scorer, never):
        scores = ReadThroughScorer(store, SETTINGS, make_scorer).score(QUERIES, TEXTS)
        np.testing.assert_array_equal(scores, expected)
        assert scores.dtype == np.float32
    assert len(store) == len(set(zip(QUERIES, TEXTS, strict=True)))


def test_only_what_is_missing_is_scored(store):
    first, second = CountingScorer(), CountingScorer()
    ReadThroughScorer(store, SETTINGS, lambda: first).score(QUERIES[:25], TEXTS[:25])
    scores = ReadThroughScorer(store, SETTINGS, lambda: second).score(QUERIES, TEXTS)
    assert scores.tolist() == CountingScorer().score_in_detail(QUERIES, TEXTS, finished=lambda *_: None).scores.tolist()
    assert not first.asked.keys() & second.asked.keys()
    assert first.asked.keys() | second.asked.keys() == set(zip(QUERIES, TEXTS, strict=True))


def test_what_was_cut_is_known_exactly_of_stored_scores_too(store):
    half = len(QUERIES) // 2
    ReadThroughScorer(store, SETTINGS, CountingScorer).score(QUERIES[:half], TEXTS[:half])
    mixed, stored = ReadThroughScorer(store, SETTINGS, CountingScorer), ReadThroughScorer(store, SETTINGS, never)
    cut = np.array([[len(query) > 9 for query in QUERIES], [len(text) > 9 for text in TEXTS]])
    for reader, from_store in ((mixed, half), (stored, len(QUERIES))):
        reader.score(QUERIES, TEXTS)
        stats = reader.stats
        assert stats.from_store >= from_store
        assert [stats.truncated_queries, stats.truncated_texts] == cut.sum(axis=1).tolist()
        assert stats.truncated_pairs == cut.any(axis=0).sum() > 0


def test_other_settings_are_scored_anew(store):
    first, second = CountingScorer(), CountingScorer()
    ReadThroughScorer(store, SETTINGS, lambda: first).score(QUERIES, TEXTS)
    ReadThroughScorer(store, {"checkpoint": "0124"}, lambda: second).score(QUERIES, TEXTS)
    assert first.asked == second.asked


@pytest.mark.parametrize("error", [ScoreError, KeyboardInterrupt])
def test_what_was_scored_before_an_error_is_stored(store, error):
    with pytest.raises(error):
        ReadThroughScorer(store, SETTINGS, lambda: CountingScorer(fail_after=8, error=error)).score(QUERIES, TEXTS)
    assert len(store) == 8


def test_scores_are_stored_while_others_are_computed(store, monkeypatch):
    monkeypatch.setattr(pyterrier_bertcat.store.read_through, "_WRITE_EVERY_S", 0.0)
    stored = []

    class SlowScorer(CountingScorer):
        def score_in_detail(self, queries, texts, *, finished=None):
            def slowly(rows, scores, cut):
                finished(rows, scores, cut)
                stored.append(wait_until(lambda: len(store), "score in the store"))

            return super().score_in_detail(queries, texts, finished=slowly)

    ReadThroughScorer(store, SETTINGS, SlowScorer).score(QUERIES, TEXTS)
    assert stored[0] < DISTINCT
    assert len(store) == DISTINCT


def test_a_store_that_cannot_be_written_stops_the_scoring_with_its_error(store, monkeypatch):
    monkeypatch.setattr(pyterrier_bertcat.store.read_through, "_WRITE_EVERY_S", 0.0)
    store.path.write_text("no folder")
    scorer = CountingScorer()
    with pytest.raises(StoreError, match="can't make a score store"):
        ReadThroughScorer(store, SETTINGS, lambda: scorer).score(QUERIES * 50, [*TEXTS] * 50)
    assert threading.active_count() < 20


def test_nothing_to_score_needs_neither_store_nor_scorer(store):
    scores = ReadThroughScorer(store, SETTINGS, never).score([], [])
    assert scores.shape == (0,)
    assert scores.dtype == np.float32


def test_a_cached_frame_comes_back_without_torch(store):
    pairs = HashedPairs.of(QUERIES, TEXTS)
    store.add(SETTINGS, pairs, np.arange(40, dtype=np.float32) % DISTINCT)
    code = f"""
import sys
from pyterrier_bertcat.store.read_through import ReadThroughScorer
from pyterrier_bertcat.store.score_store import ScoreStore
scores = ReadThroughScorer(ScoreStore({str(store.path)!r}), {SETTINGS}, None).score({QUERIES}, {TEXTS})
print(*scores.astype(int), *({{"torch", "transformers", "tokenizers", "huggingface_hub"}} & sys.modules.keys()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tempfile.gettempdir(), check=True
    )
    assert done.stdout.split() == [str(row % DISTINCT) for row in range(40)]


def test_every_pair_is_reported_once_as_soon_as_it_is_scored(tiny_checkpoint):
    """By `PairScorer` itself: at its first place in the input, with whether it was cut."""
    scorer = PairScorer(tiny_checkpoint, device="cpu", batch_tokens=64, verbose=False)
    queries, texts = QUERIES + QUERIES, TEXTS + TEXTS
    reported: dict[int, float] = {}
    batches = []

    def finished(rows, scores, cut):
        assert cut.shape == (2, len(rows))
        assert not reported.keys() & set(rows.tolist())
        reported.update(zip(rows.tolist(), scores.tolist(), strict=True))
        batches.append(len(rows))

    scores = scorer.score_in_detail(queries, texts, finished=finished).scores
    assert len(batches) > 3
    first = {pair: row for row, pair in reversed(list(enumerate(zip(queries, texts, strict=True))))}
    assert reported == {row: scores[row] for row in first.values()}
