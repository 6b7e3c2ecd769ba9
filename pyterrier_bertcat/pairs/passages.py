"""Long documents: windows over their tokens, and the document's score from the scores of its windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyterrier_bertcat.errors import InputError, one_of, whole_number
from pyterrier_bertcat.pairs.layout import Int64Array, ranges
from pyterrier_bertcat.pairs.truncation import Truncation

AGGREGATES = ("max", "first", "mean", "sum", "kmax")


@dataclass(frozen=True, kw_only=True)
class Passages:
    """Scores a document by its passages, so that nothing of it is cut off.

    A passage is a window over the document's tokens, and each is scored with the query. The last one ends with the
    document. A document that fits into one passage gets the same score as without `Passages`.

    Attributes:
        length: Tokens per passage. A long query can leave room for fewer.
        stride: Tokens from the start of one passage to the start of the next; below ``length``, passages overlap.
        aggregate: How passage scores become the document's score: ``"max"``, the ``"first"`` passage's, ``"mean"``,
            ``"sum"``, or ``"kmax"``, the mean of the best ``k``. Scores are logits, and irrelevant passages have
            negative ones, so ``"sum"`` ranks long documents low.
        k: How many passages ``"kmax"`` averages; None with the others.

    Source: Dai and Callan 2019, "Deeper Text Understanding for IR with Contextual Neural Language Modeling", section 3
    (FirstP, MaxP, SumP).

    Example:
        >>> from pyterrier_bertcat import BertCatReRanker, Passages
        >>> BertCatReRanker("mini", passages=Passages(length=200, stride=100, aggregate="max"))
        BertCatReRanker('mini', passages=Passages(length=200, stride=100, aggregate='max', k=None))
    """

    length: int = 200
    stride: int = 100
    aggregate: str = "max"
    k: int | None = None

    def __post_init__(self) -> None:
        whole_number("length", self.length)
        whole_number("stride", self.stride)
        if self.stride > self.length:
            raise InputError(
                f"a stride of {self.stride} tokens would leave out text between passages of {self.length}: "
                "use a stride of at most the length"
            )
        one_of("aggregate", self.aggregate, AGGREGATES)
        if self.aggregate == "kmax":
            whole_number("k", self.k)
        elif self.k is not None:
            raise InputError(f"k={self.k!r} goes with aggregate='kmax', got aggregate={self.aggregate!r}: leave k out")

    def windows(self, queries: Int64Array, texts: Int64Array, truncation: Truncation, *, special: int) -> Windows:
        """Cuts texts into passages.

        Args:
            queries: int64 (n,), tokens of each pair's query.
            texts: int64 (n,), tokens of its text.
            truncation: How a query and one passage are cut if they are too long together.
            special: How many special tokens a pair has.
        """
        kept = truncation.kept(queries, np.minimum(texts, self.length), special=special)  # (2, n)
        length = kept[1]
        last_start = np.where(length, texts - length, 0)  # a query that fills the room leaves one empty passage
        stride = np.maximum(np.minimum(self.stride, length), 1)
        counts = np.ones_like(texts) if self.aggregate == "first" else 1 - (-last_start // stride)
        pairs = np.repeat(np.arange(len(texts)), counts)
        starts = np.minimum(ranges(counts) * stride[pairs], last_start[pairs])
        return Windows(pairs=pairs, kept=kept[:, pairs], starts=starts)

    def document_scores(self, scores: NDArray[np.float32], counts: Int64Array) -> NDArray[np.float32]:
        """Aggregates passage scores.

        Args:
            scores: float32 (windows,), of all windows of the first document, then of the second, and so on.
            counts: int64 (documents,), windows of each, at least one.

        Returns:
            float32 (documents,).
        """
        if not len(counts):
            return np.empty(0, dtype=np.float32)
        starts = np.cumsum(counts) - counts
        if self.aggregate == "first":
            first: NDArray[np.float32] = scores[starts]
            return first
        if self.aggregate == "max":
            best: NDArray[np.float32] = np.maximum.reduceat(scores, starts)
            return best
        averaged = np.ones_like(counts) if self.aggregate == "sum" else counts
        if self.aggregate == "kmax":
            averaged = np.minimum(counts, self.k or 1)
            order = np.lexsort((-scores, np.repeat(np.arange(len(counts)), counts)))  # each document's best first
            scores = np.where(ranges(counts) < np.repeat(averaged, counts), scores[order], 0)
        means: NDArray[np.float64] = np.add.reduceat(scores, starts, dtype=np.float64) / averaged
        return means.astype(np.float32)


class Windows(NamedTuple):
    """Parts of many pairs, pair by pair; the windows of one text are in their order in it.

    Attributes:
        pairs: int64 (windows,), the pair that each is part of.
        kept: int64 (2, windows), how many tokens each has of the query and of the text.
        starts: int64 (windows,), where in the text's tokens it begins.
    """

    pairs: Int64Array
    kept: Int64Array
    starts: Int64Array
