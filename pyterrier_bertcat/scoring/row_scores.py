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
    """What is known of n pairs after scoring them, in the order of the input.

    Attributes:
        scores: float32 (n,): raw relevance logits, higher is more relevant.
        passages: int64 (n,), how many passages of the text were scored.
        best_passages: int64 (2, n), where in the text's tokens the best one begins and ends.
        lost: int64 (2, n), tokens of each query and each text that were cut off.
    """

    scores: NDArray[np.float32]
    passages: Int64Array
    best_passages: Int64Array
    lost: Int64Array

    @classmethod
    def unknown(cls, pairs: int) -> ScoredPairs:
        """Room for what will be known of so many pairs."""
        counts, ranges_and_losses = np.empty(pairs, dtype=np.int64), np.empty((2, 2, pairs), dtype=np.int64)
        return cls(np.empty(pairs, dtype=np.float32), counts, *ranges_and_losses)

    def take(self, pairs: Int64Array) -> ScoredPairs:
        """What is known of some of the pairs, int64 (m,), in the order given."""
        return ScoredPairs(self.scores[pairs], self.passages[pairs], self.best_passages[:, pairs], self.lost[:, pairs])

    @property
    def cut(self) -> NDArray[np.bool_]:
        """Bool (2, n), whether each query and each text was cut."""
        cut: NDArray[np.bool_] = np.greater(self.lost, 0)
        return cut


class RowScores:
    """Collects the scores of pairs that were tokenised together.

    Attributes:
        pair_of_row: int64 (r,), which pair each row is of.
    """

    def __init__(self, encoded: EncodedPairs, passages: Passages | None) -> None:
        """Begins with no scores.

        Args:
            encoded: n pairs in r rows.
            passages: How rows become pairs again. None: each pair is one row.
        """
        self._encoded, self._passages = encoded, passages
        self._scores = np.empty(len(encoded), dtype=np.float32)
        self.pair_of_row = np.repeat(np.arange(len(encoded.rows_of_pair)), encoded.rows_of_pair)
        self._first_row = np.cumsum(encoded.rows_of_pair) - encoded.rows_of_pair
        self._missing = encoded.rows_of_pair.copy()

    def add(self, rows: Int64Array, scores: NDArray[np.float32]) -> Int64Array:
        """Takes the scores of some rows, float32 (b,); which pairs have all of theirs now: int64, sorted."""
        self._scores[rows] = scores
        pairs, counts = np.unique(self.pair_of_row[rows], return_counts=True)
        self._missing[pairs] -= counts
        complete: Int64Array = pairs[self._missing[pairs] == 0]
        return complete

    def of_pairs(self, pairs: Int64Array) -> tuple[NDArray[np.float32], Int64Array]:
        """Scores of complete pairs.

        Args:
            pairs: int64 (p,).

        Returns:
            float32 (p,), and int64 (2, p): where in the text's tokens the best row begins and ends.
        """
        counts = self._encoded.rows_of_pair[pairs]
        rows = np.repeat(self._first_row[pairs], counts) + ranges(counts)
        scores, best = self._scores[rows], rows
        if self._passages is not None:
            best = rows[np.lexsort((-scores, self.pair_of_row[rows]))[np.cumsum(counts) - counts]]
            scores = self._passages.document_scores(scores, counts)
        return scores, self._encoded.text_ranges[:, best]
