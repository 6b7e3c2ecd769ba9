"""Tokenised pairs, and batches of them: packed, which is what backends get, or padded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyterrier_bertcat.pairs.layout import Int32Array, Int64Array, PairLayout, ranges


@dataclass(frozen=True)
class PaddedBatch:
    """Pairs of a batch padded to the longest of them; pads follow the tokens, whatever side the tokenizer would pad.

    Attributes:
        input_ids: int64 (batch, length).
        attention_mask: int64 (batch, length), 1 for tokens and 0 for pads.
        token_type_ids: int64 (batch, length), or None for tokenizers that have none.
    """

    input_ids: Int64Array
    attention_mask: Int64Array
    token_type_ids: Int64Array | None

    def inputs(self, *, token_types: bool) -> list[Int64Array]:
        """What a model takes: ids, mask and, with ``token_types``, types, 0 where the tokenizer has none."""
        if not token_types:
            return [self.input_ids, self.attention_mask]
        types = np.zeros_like(self.input_ids) if self.token_type_ids is None else self.token_type_ids
        return [self.input_ids, self.attention_mask, types]


@dataclass(frozen=True)
class PairBatch:
    """Pairs of a batch, packed: one after the other, without padding.

    Attributes:
        lengths: int64 (batch,), tokens of each pair.
        input_ids: int64 (tokens,).
        token_type_ids: int64 (tokens,), or None for tokenizers that have none.
        pad: Id and type of the padding token.
    """

    lengths: Int64Array
    input_ids: Int64Array
    token_type_ids: Int64Array | None
    pad: tuple[int, int]

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def position_ids(self) -> Int64Array:
        """int64 (tokens,), each token's place in its pair, from 0 on."""
        return ranges(self.lengths)

    @property
    def starts(self) -> Int64Array:
        """int64 (batch,), where each pair begins."""
        starts: Int64Array = np.cumsum(self.lengths) - self.lengths
        return starts

    def __getitem__(self, rows: slice) -> PairBatch:
        """Some neighbouring pairs as a batch of their own."""
        lengths = self.lengths[rows]
        start = int(self.lengths[: rows.indices(len(self))[0]].sum())
        tokens = slice(start, start + int(lengths.sum()))
        types = None if self.token_type_ids is None else self.token_type_ids[tokens]
        return PairBatch(lengths=lengths, input_ids=self.input_ids[tokens], token_type_ids=types, pad=self.pad)

    def padded(self) -> PaddedBatch:
        """The same pairs, padded to the longest of them."""
        is_token = np.arange(int(self.lengths.max(initial=0))) < self.lengths[:, None]  # (batch, length)

        def spread(values: Int64Array, pad: int) -> Int64Array:
            array = np.full(is_token.shape, pad, dtype=np.int64)
            array[is_token] = values  # row by row, which is their order
            return array

        types = None if self.token_type_ids is None else spread(self.token_type_ids, self.pad[1])
        return PaddedBatch(spread(self.input_ids, self.pad[0]), is_token.astype(np.int64), types)


class EncodedPairs:
    """Pairs as ranges of one flat array of token ids; some 60 bytes a row besides the distinct texts' tokens.

    A row is a pair, or where documents are cut into passages, a query with a passage: n pairs have r rows.

    Attributes:
        lengths: int64 (r,), tokens per row, special tokens counted.
        rows_of_pair: int64 (n,), how many rows each pair has, at least one; they stand side by side.
        text_ranges: int64 (2, r), where in the text's tokens each row begins and ends.
        lost: int64 (2, n), tokens of each pair's query and of its text that are in none of its rows.
    """

    def __init__(
        self,
        *,
        tokens: Int32Array,
        starts: Int64Array,
        kept: Int64Array,
        alone: NDArray[np.bool_],
        rows_of_pair: Int64Array,
        text_ranges: Int64Array,
        lost: Int64Array,
        layouts: tuple[PairLayout, PairLayout],
        pad: tuple[int, int],
        token_types: bool,
    ) -> None:
        """Keeps what `PairTokenizer.encode` made.

        Args:
            tokens: Token ids of all distinct texts, one after the other.
            starts: (2, r), where the query and the text of each row begin in ``tokens``.
            kept: (2, r), how many tokens of each are kept.
            alone: (r,), whether the query stands alone because the text is empty.
            rows_of_pair: See the class.
            text_ranges: See the class.
            lost: See the class.
            layouts: For pairs, and for queries that stand alone.
            pad: Id and type of the padding token.
            token_types: Whether batches carry ``token_type_ids``.
        """
        self._tokens, self._starts, self._kept, self._alone = tokens, starts, kept, alone
        self._layouts, self._pad, self._token_types = layouts, pad, token_types
        self.rows_of_pair, self.text_ranges, self.lost = rows_of_pair, text_ranges, lost
        pair, single = layouts
        self.lengths: Int64Array = kept.sum(axis=0) + np.where(alone, single.size, pair.size)

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, rows: Sequence[int] | Int64Array) -> PairBatch:
        """The given rows as one batch.

        Args:
            rows: Their numbers, in the order wanted.

        Returns:
            A batch with one pair per number.
        """
        rows = np.asarray(rows, dtype=np.int64)
        lengths = self.lengths[rows]
        places = np.cumsum(lengths) - lengths
        ids, types = np.empty((2, int(lengths.sum())), dtype=np.int64)
        for layout, alone in zip(self._layouts, (False, True), strict=True):
            of_layout = self._alone[rows] == alone
            members = rows[of_layout]
            layout.write(
                ids,
                types,
                places[of_layout],
                tokens=self._tokens,
                starts=self._starts[:, members],
                kept=self._kept[:, members],
            )
        return PairBatch(
            lengths=lengths, input_ids=ids, token_type_ids=types if self._token_types else None, pad=self._pad
        )
