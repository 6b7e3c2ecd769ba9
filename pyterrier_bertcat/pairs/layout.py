"""Where tokens go in a pair: the special tokens around query and text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Int64Array = NDArray[np.int64]
Int32Array = NDArray[np.int32]


@dataclass(frozen=True)
class PairLayout:
    """Special tokens before the query, between query and text, and after the text.

    Attributes:
        before: int64 (2, k), a row of ids and a row of token types; so are the next two.
        between: If a query stands alone, these are the tokens after it.
        after: Empty if a query stands alone.
        query_type: Token type of the query's tokens.
        text_type: Token type of the text's tokens.
    """

    before: Int64Array
    between: Int64Array
    after: Int64Array
    query_type: int
    text_type: int

    @classmethod
    def of(cls, encoding: Any) -> PairLayout:
        """Reads the layout off one encoding by a fast tokenizer, of a pair or of a query alone.

        Raises:
            ValueError: No token belongs to the first sequence.
        """
        ids, owners = encoding["input_ids"], encoding.sequence_ids(0)
        types = encoding.get("token_type_ids", [0] * len(ids))
        query = [position for position, owner in enumerate(owners) if owner == 0]
        text = [position for position, owner in enumerate(owners) if owner == 1]
        if not query:
            raise ValueError("no token belongs to the first sequence")
        both: Int64Array = np.array([ids, types], dtype=np.int64)
        text_start, text_end = (text[0], text[-1] + 1) if text else (len(ids), len(ids))
        return cls(
            before=both[:, : query[0]],
            between=both[:, query[-1] + 1 : text_start],
            after=both[:, text_end:],
            query_type=types[query[0]],
            text_type=types[text[0]] if text else 0,
        )

    @property
    def size(self) -> int:
        """The number of special tokens."""
        return int(self.before.shape[1] + self.between.shape[1] + self.after.shape[1])

    def write(
        self,
        ids: Int64Array,
        types: Int64Array,
        places: Int64Array,
        *,
        tokens: Int32Array,
        starts: Int64Array,
        kept: Int64Array,
    ) -> None:
        """Writes pairs into a packed batch.

        Args:
            ids: int64 (batch tokens,), changed in place.
            types: int64 (batch tokens,), changed in place.
            places: int64 (pairs,), where in ``ids`` each pair begins.
            tokens: int32 (all strings' tokens,).
            starts: int64 (2, pairs), where query and text begin in ``tokens``.
            kept: int64 (2, pairs), how many tokens of each are written.
        """
        for special, start, count, token_type in (
            (self.before, starts[0], kept[0], self.query_type),
            (self.between, starts[1], kept[1], self.text_type),
        ):
            places = _write_special(ids, types, special, places)
            offsets = ranges(count)
            written = np.repeat(places, count) + offsets  # one index per token
            ids[written] = tokens[np.repeat(start, count) + offsets]
            types[written] = token_type
            places = places + count
        _write_special(ids, types, self.after, places)


def ranges(counts: Int64Array) -> Int64Array:
    """Counts 0..c-1 for each count c, one after the other."""
    ends = np.cumsum(counts)
    numbers: Int64Array = np.arange(counts.sum(), dtype=np.int64) - np.repeat(ends - counts, counts)
    return numbers


def _write_special(ids: Int64Array, types: Int64Array, special: Int64Array, places: Int64Array) -> Int64Array:
    """Writes the same special tokens at each place. Returns the places after them."""
    written = places[:, None] + np.arange(special.shape[1])
    ids[written], types[written] = special[0], special[1]
    after: Int64Array = places + special.shape[1]
    return after
