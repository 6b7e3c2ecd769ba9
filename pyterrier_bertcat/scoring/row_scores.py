"""From the scores of token rows, in the order in which batches end, to the scores of pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyterrier_bertcat.pairs.batches import EncodedPairs
from pyterrier_bertcat.pairs.layout import Int64Array, ranges
from pyterrier_bertcat.pairs.passages import Passages


@dataclass(frozen=True)
class ScoredPairs:
    """The scores of n pairs, in the order of the input, and what scoring found out about each.

    Attributes:
        scores: float32 (n,): raw relevance logits, higher is more relevant.
        passages: int64 (n,), how many passages of the text were scored.
        best_passages: int64 (2, n), where in the text's tokens the best passage begins and ends.
        lost: int64 (2, n), tokens of each query and each text that were cut off.
    """

    scores: NDArray[np.float32]
    passages: Int64Array
    best_passages: Int64Array
    lost: Int64Array

    @classmethod
    def unknown(cls, pairs: int) -> ScoredPairs:
        """Arrays for this many pairs, to be filled in."""
        counts, ranges_and_losses = np.empty(pairs, dtype=np.int64), np.empty((2, 2, pairs), dtype=np.int64)
        return cls(np.empty(pairs, dtype=np.float32), counts, *ranges_and_losses)

    def take(self, pairs: Int64Array) -> ScoredPairs:
        """Selects pairs by number, int64 (m,), in the order given."""
        return ScoredPairs(self.scores[pairs], self.passages[pairs], self.best_passages[:, pairs], self.lost[:, pairs])

    @property
    def cut(self) -> NDArray[np.bool_]:
        """Bool (2, n), whether each query and each text was cut."""
        cut: NDArray[np.bool_] = np.greater(self.lost, 0)
        return cut


class Window:
    """Distinct pairs that were tokenised together. It collects the scores of their token rows until pairs are complete.

    Attributes:
        encoded: The token rows of its w pairs.
    """

    def __init__(self, encoded: EncodedPairs, *, start: int, input_rows: Int64Array, passages: Passages | None) -> None:
        """Begins with no scores.

        Args:
            encoded: w pairs in r token rows.
            start: The number of the first of these pairs among all distinct pairs.
            input_rows: int64 (w,), the input row where each pair first occurs.
            passages: How to combine the scores of a pair's token rows. None: each pair is one row.
        """
        self.encoded = encoded
        self._start, self._input_rows, self._passages = start, input_rows, passages
        self._scores = np.empty(len(encoded), dtype=np.float32)
        self._pair_of_row = np.repeat(np.arange(len(encoded.rows_of_pair)), encoded.rows_of_pair)
        self._first_row = np.cumsum(encoded.rows_of_pair) - encoded.rows_of_pair
        self._missing = encoded.rows_of_pair.copy()  # int64 (w,), how many scores each pair still waits for

    def input_row(self, token_row: int) -> int:
        """The input row that a token row belongs to."""
        return int(self._input_rows[self._pair_of_row[token_row]])

    def take(self, token_rows: Int64Array, scores: NDArray[np.float32], scored: ScoredPairs) -> Int64Array:
        """Takes the scores of some token rows.

        Args:
            token_rows: int64 (b,).
            scores: float32 (b,).
            scored: All distinct pairs. Those that are now complete are filled in.

        Returns:
            int64 (m,), the numbers of the distinct pairs that were filled in, sorted.
        """
        self._scores[token_rows] = scores
        pairs, counts = np.unique(self._pair_of_row[token_rows], return_counts=True)
        self._missing[pairs] -= counts
        pairs = pairs[self._missing[pairs] == 0]
        done: Int64Array = self._start + pairs
        scored.scores[done], scored.best_passages[:, done] = self._of_pairs(pairs)
        scored.passages[done], scored.lost[:, done] = self.encoded.rows_of_pair[pairs], self.encoded.lost[:, pairs]
        return done

    def _of_pairs(self, pairs: Int64Array) -> tuple[NDArray[np.float32], Int64Array]:
        """Scores of complete pairs, float32 (p,), and int64 (2, p): where in the text's tokens the best row is."""
        counts = self.encoded.rows_of_pair[pairs]
        rows = np.repeat(self._first_row[pairs], counts) + ranges(counts)
        scores, best = self._scores[rows], rows
        if self._passages is not None:
            best = rows[np.lexsort((-scores, self._pair_of_row[rows]))[np.cumsum(counts) - counts]]
            scores = self._passages.document_scores(scores, counts)
        return scores, self.encoded.text_ranges[:, best]
