"""Which tokens of a pair are kept if it is longer than the model takes or the user wants."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pyterrier_bertcat.errors import one_of, whole_number
from pyterrier_bertcat.pairs.layout import Int64Array

STRATEGIES = ("longest_first", "only_text", "paper")
DEFAULT_MAX_LENGTH = 512  # tokens of a pair, if neither you nor the checkpoint says anything else
_PAPER_QUERY, _PAPER_TEXT, _PAPER_PAIR = 30, 200, 230  # tokens


@dataclass(frozen=True, kw_only=True)
class Truncation:
    """How pairs are cut. All lengths count the tokenizer's tokens.

    Attributes:
        max_length: The most tokens of a pair, special tokens included. None: the checkpoint's own (see
            `BertCatReRanker`), or 512 if there is no checkpoint; ``"paper"`` keeps its 230.
        max_query_length: The most tokens of a query. It applies before ``max_length`` does. None: no limit of its own.
        strategy: ``"longest_first"``: the longer of query and text is cut first, and both to halves if both are too
            long, as the tokenizer itself does. ``"only_text"``: the query stays whole, unless it alone is too long.
            ``"paper"``: queries of 30 tokens and texts of 200, 230 in all with the special tokens, the longest first
            (Hofstätter et al. 2020, section 4.2).

    Example:
        >>> import numpy as np
        >>> from pyterrier_bertcat import Truncation
        >>> tokens_of_queries, tokens_of_texts = np.array([5, 40]), np.array([300, 300])
        >>> Truncation(strategy="paper").kept(tokens_of_queries, tokens_of_texts, special=3)
        array([[  5,  30],
               [200, 197]])
    """

    max_length: int | None = None
    max_query_length: int | None = None
    strategy: str = "longest_first"

    def __post_init__(self) -> None:
        whole_number("max_length", self.max_length, or_none=True)
        whole_number("max_query_length", self.max_query_length, or_none=True)
        one_of("strategy", self.strategy, STRATEGIES)

    @property
    def pair_length(self) -> int:
        """The most tokens of a pair."""
        length = self.max_length or DEFAULT_MAX_LENGTH
        return min(length, _PAPER_PAIR) if self.strategy == "paper" else length

    def filled_in(self, checkpoint_length: int) -> Truncation:
        """The same with a number as ``max_length``: that of the checkpoint, if you asked for none."""
        if self.max_length is not None:
            return self
        return replace(self, max_length=DEFAULT_MAX_LENGTH if self.strategy == "paper" else checkpoint_length)

    def query_tokens(self, queries: Int64Array) -> Int64Array:
        """Applies the limits for queries alone: tokens of each query, int64 (n,) -> int64 (n,)."""
        for limit in (self.max_query_length, _PAPER_QUERY if self.strategy == "paper" else None):
            queries = queries if limit is None else np.minimum(queries, limit)
        return queries

    def kept(self, queries: Int64Array, texts: Int64Array, *, special: int) -> Int64Array:
        """Counts the tokens that are kept of each query and of each text.

        Args:
            queries: int64 (n,), tokens of each query.
            texts: int64 (n,), tokens of each text.
            special: How many special tokens a pair has.

        Returns:
            int64 (2, n).
        """
        room = self.pair_length - special
        queries = self.query_tokens(queries)
        if self.strategy == "only_text":
            queries = np.minimum(queries, room)
            return np.stack([queries, np.minimum(texts, room - queries)])
        if self.strategy == "paper":
            texts = np.minimum(texts, _PAPER_TEXT)
        return longest_first(queries, texts, room)


def longest_first(first: Int64Array, second: Int64Array, room: int) -> Int64Array:
    """Counts the tokens that are kept of two sequences, as LongestFirst in Hugging Face's Rust tokenizers does.

    Args:
        first: int64 (n,), tokens of the first sequences.
        second: int64 (n,), tokens of the second sequences.
        room: The most tokens of both together.

    Returns:
        int64 (2, n). The shorter sequence stays whole if that leaves the longer one at least as long. Otherwise each
        gets half of the room; the odd token goes to the longer one, or to the second if both are equally long.
    """
    short, long = np.minimum(first, second), np.maximum(first, second)
    fits = short + long <= room
    halves = ~fits & (2 * short > room)
    long = np.where(fits, long, np.where(halves, room - room // 2, room - short))
    short = np.where(halves, room // 2, short)
    swapped = first > second
    return np.stack([np.where(swapped, long, short), np.where(swapped, short, long)])
