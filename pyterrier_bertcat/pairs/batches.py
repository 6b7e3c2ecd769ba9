"""Tokenised pairs, and batches of them: packed, as backends get them, or padded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pyterrier_bertcat.pairs.layout import Int32Array, Int64Array, PairLayout, ranges


@dataclass(frozen=True)
class PaddedBatch:
    """A batch of pairs padded to the longest; pads follow the tokens, whichever side the tokenizer would pad.

    Attributes:
        input_ids: int64 (batch, length).
        attention_mask: int64 (batch, length), 1 for tokens and 0 for pads.
        token_type_ids: int64 (batch, length), or None for tokenizers that have none.
    """

    input_ids: Int64Array
    attention_mask: Int64Array
    token_type_ids: Int64Array | None

    def inputs(self, *, token_types: bool) -> list[Int64Array]:
        """Lists a model's inputs: ids, mask and, with ``token_types``, types, which are 0 if the tokenizer has none."""
        if not token_types:
            return [self.input_ids, self.attention_mask]
        types = np.zeros_like(self.input_ids) if self.token_type_ids is None else self.token_type_ids
        return [self.input_ids, self.attention_mask, types]


@dataclass(frozen=True)
class PairBatch:
    """A batch of pairs, packed: one after the other, without padding.

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
        """int64 (tokens,), each token's place in its pair, counted from 0."""
        return ranges(self.lengths)

    @property
    def starts(self) -> Int64Array:
        """int64 (batch,), where each pair begins."""
        starts: Int64Array = np.cumsum(self.lengths) - self.lengths
        return starts

    def __getitem__(self, rows: slice) -> PairBatch:
        """Takes neighbouring pairs as a batch of their own."""
        lengths = self.lengths[rows]
        start = int(self.lengths[: rows.indices(len(self))[0]].sum())
        tokens = slice(start, start + int(lengths.sum()))
        types = None if self.token_type_ids is None else self.token_type_ids[tokens]
        return PairBatch(lengths=lengths, input_ids=self.input_ids[tokens], token_type_ids=types, pad=self.pad)

    def padded(self) -> PaddedBatch:
        """Pads the pairs to the longest of them."""
        is_token = np.arange(int(self.lengths.max(initial=0))) < self.lengths[:, None]  # (batch, length)

        def spread(values: Int64Array, pad: int) -> Int64Array:
            array = np.full(is_token.shape, pad, dtype=np.int64)
            array[is_token] = values  # row by row, which is their order
            return array

        types = None if self.token_type_ids is None else spread(self.token_type_ids, self.pad[1])
        return PaddedBatch(spread(self.input_ids, self.pad[0]), is_token.astype(np.int64), types)


@dataclass(frozen=True, eq=False, kw_only=True)
class EncodedPairs:
    """Pairs as ranges of one flat array of token ids; about 60 bytes a row besides the distinct strings' tokens.

    A row is a pair or, with passages, a query with one passage: n pairs have r rows. Arrays of shape (2, ...) are about
    the queries first, then about the texts, except ``text_ranges``.

    Attributes:
        tokens: int32, token ids of all distinct strings, one after the other.
        starts: int64 (2, r), where in ``tokens`` each row's query and text begin.
        kept: int64 (2, r), how many tokens of each the row has.
        alone: bool (r,), whether the query stands alone because the text is empty.
        rows_of_pair: int64 (n,), how many rows each pair has, at least one; they stand side by side.
        text_ranges: int64 (2, r), where in the text's tokens each row begins and ends.
        lost: int64 (2, n), how many tokens of each pair's query and text are in none of its rows.
        layouts: For pairs, and for queries that stand alone.
        pad: Id and type of the padding token.
        token_types: Whether batches carry ``token_type_ids``.
    """

    tokens: Int32Array
    starts: Int64Array
    kept: Int64Array
    alone: NDArray[np.bool_]
    rows_of_pair: Int64Array
    text_ranges: Int64Array
    lost: Int64Array
    layouts: tuple[PairLayout, PairLayout]
    pad: tuple[int, int]
    token_types: bool

    @cached_property
    def lengths(self) -> Int64Array:
        """int64 (r,), tokens of each row, special tokens included."""
        pair, single = self.layouts
        lengths: Int64Array = self.kept.sum(axis=0) + np.where(self.alone, single.size, pair.size)
        return lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, rows: Sequence[int] | Int64Array) -> PairBatch:
        """Packs rows into one batch, in the order in which their numbers are given."""
        rows = np.asarray(rows, dtype=np.int64)
        lengths = self.lengths[rows]
        places = np.cumsum(lengths) - lengths  # where each pair begins in the batch
        ids, types = np.empty((2, int(lengths.sum())), dtype=np.int64)
        for layout, alone in zip(self.layouts, (False, True), strict=True):
            of_layout = self.alone[rows] == alone
            starts, kept = self.starts[:, rows[of_layout]], self.kept[:, rows[of_layout]]
            layout.write(ids, types, places[of_layout], tokens=self.tokens, starts=starts, kept=kept)
        return PairBatch(
            lengths=lengths, input_ids=ids, token_type_ids=types if self.token_types else None, pad=self.pad
        )
