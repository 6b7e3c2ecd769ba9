"""Long documents: windows over their tokens, and from the windows' scores back to the document's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.pairs.layout import Int64Array, ranges
from pyterrier_bertcat.pairs.truncation import Truncation

AGGREGATES = ("max", "first", "mean", "sum", "kmax")


@dataclass(frozen=True, kw_only=True)
class Passages:
    """Scores a document by its passages, so that nothing of it is cut off.

    Passages are windows over the tokenizer's tokens, each scored with the query. The last one ends where the document
    ends. A document that fits into one passage is scored as without `Passages`.

    Attributes:
        length: Tokens per passage; fewer where a long query and the truncation leave no room for so many.
        stride: From the beginning of one passage to the next; less than ``length``, and passages overlap.
        aggregate: The document's score: ``"max"`` of its passages' scores, that of the ``"first"``, their ``"mean"``,
            their ``"sum"``, or ``"kmax"``: the mean of the best ``k``. Scores are logits, and passages that are not
            relevant have negative ones: a sum puts long documents low.
        k: For ``"kmax"``.

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
        for name in ("length", "stride"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise InputError(f"{name} is a whole number of tokens, at least 1, got {value!r}")
        if self.stride > self.length:
            raise InputError(
                f"a stride of {self.stride} tokens would leave out text between passages of {self.length}: "
                "use a stride of at most the length"
            )
        if self.aggregate not in AGGREGATES:
            raise InputError(f"aggregate is one of {', '.join(map(repr, AGGREGATES))}, got {self.aggregate!r}")
        if (self.aggregate == "kmax") != (type(self.k) is int and int(self.k) >= 1):
            raise InputError(
                f"k goes with aggregate='kmax', a whole number of at least 1; got k={self.k!r} with "
                f"aggregate={self.aggregate!r}"
            )

    def windows(self, queries: Int64Array, texts: Int64Array, truncation: Truncation, *, special: int) -> Windows:
        """Cuts texts into passages.

        Args:
            queries: int64 (n,), tokens of each pair's query.
            texts: int64 (n,), tokens of its text.
            truncation: What a query and one passage are cut to where they are too long together.
            special: Special tokens of a pair.
        """
        queries, length = truncation.kept(queries, np.minimum(texts, self.length), special=special)
        last_start = np.where(length, texts - length, 0)  # a query that fills the room leaves one empty passage
        stride = np.maximum(np.minimum(self.stride, length), 1)
        counts = np.ones_like(texts) if self.aggregate == "first" else 1 - (-last_start // stride)
        pairs = np.repeat(np.arange(len(texts)), counts)
        starts = np.minimum(ranges(counts) * stride[pairs], last_start[pairs])
        return Windows(pairs=pairs, queries=queries[pairs], starts=starts, texts=length[pairs])

    def document_scores(self, scores: NDArray[np.float32], counts: Int64Array) -> NDArray[np.float32]:
        """Aggregates.

        Args:
            scores: float32 (windows,), of all windows of the first document, then of the second, and so on.
            counts: int64 (documents,), windows of each, at least one.

        Returns:
            float32 (documents,).
        """
        if not len(counts):
            return np.empty(0, dtype=np.float32)
        starts = np.cumsum(counts) - counts
        aggregated: NDArray[np.float32]
        if self.aggregate == "first":
            aggregated = scores[starts]
        elif self.aggregate == "max":
            aggregated = np.maximum.reduceat(scores, starts)
        else:
            used = {"sum": counts, "mean": counts, "kmax": np.minimum(counts, self.k or 1)}[self.aggregate]
            if self.aggregate == "kmax":
                order = np.lexsort((-scores, np.repeat(np.arange(len(counts)), counts)))  # each document's best first
                scores = np.where(ranges(counts) < np.repeat(used, counts), scores[order], 0)
            sums = np.add.reduceat(scores, starts, dtype=np.float64)
            aggregated = (sums if self.aggregate == "sum" else sums / used).astype(np.float32)
        return aggregated


@dataclass(frozen=True)
class Windows:
    """Passages of many pairs' texts, pair by pair, each one's in their order in the text.

    Attributes:
        pairs: int64 (windows,), which pair each is of.
        queries: int64 (windows,), tokens kept of its query.
        starts: int64 (windows,), where in the text's tokens it begins.
        texts: int64 (windows,), how many tokens it has.
    """

    pairs: Int64Array
    queries: Int64Array
    starts: Int64Array
    texts: Int64Array
