"""Scores of token rows come in any order; a pair is known when all of its rows are."""

from __future__ import annotations

import numpy as np

from pyterrier_bertcat.pairs.pair_tokenizer import PairTokenizer
from pyterrier_bertcat.pairs.passages import Passages
from pyterrier_bertcat.scoring.row_scores import ScoredPairs, Window


def test_a_window_fills_in_the_pairs_that_are_complete(tokenizer):
    passages = Passages(length=4, stride=4)
    encoded = PairTokenizer(tokenizer, passages=passages).encode(["a"] * 3, ["the dog", "the dog " * 4, "the fox " * 3])
    assert encoded.rows_of_pair.tolist() == [1, 2, 2]
    window = Window(encoded, start=10, input_rows=np.array([30, 7, 9]), passages=passages)
    scored = ScoredPairs.unknown(20)

    def take(scores: dict[int, float]) -> list[int]:
        return window.take(np.array([*scores]), np.array([*scores.values()], np.float32), scored).tolist()

    assert take({1: 5.0, 3: 1.0}) == []
    assert take({4: 2.0, 0: 9.0}) == [10, 12]
    assert take({2: 4.0}) == [11]
    known = scored.take(np.arange(10, 13))
    assert known.scores.tolist() == [9.0, 5.0, 2.0]
    assert known.passages.tolist() == [1, 2, 2]
    assert known.best_passages.tolist() == [[0, 0, 2], [2, 4, 6]]
    assert not known.cut.any()
    assert [window.input_row(row) for row in range(5)] == [30, 7, 7, 9, 9]
