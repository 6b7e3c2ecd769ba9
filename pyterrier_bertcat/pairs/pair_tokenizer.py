"""Texts to token-id pairs: each distinct text is tokenised once, and the pairs are assembled from arrays.

The ids and token types of a pair are those of ``tokenizer(query, text, truncation=True, max_length=...)``, called for
that pair alone. Two habits of that call are worth knowing:

- for an *empty* text it encodes the query alone, ``[CLS] query [SEP]`` with one separator (a text of blanks gets two);
- it cuts the longer sequence first, and splits the room in halves if both are too long.

Where the special tokens go is learnt from the tokenizer once, and checked against it.
"""

from __future__ import annotations

import copy
import threading
from array import array
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.pairs.batches import EncodedPairs
from pyterrier_bertcat.pairs.layout import Int32Array, Int64Array, PairLayout
from pyterrier_bertcat.pairs.passages import Passages, Windows
from pyterrier_bertcat.pairs.strings import numbered
from pyterrier_bertcat.pairs.truncation import DEFAULT_MAX_LENGTH, Truncation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_STRINGS_PER_CALL = 1024  # what the tokenizer returns takes much more memory than the ids: keep little of it at a time
_PROBES = (
    ("what is this", "a text that is much longer than the question, so that it is cut first"),
    ("a question that takes so many words to ask that it is longer than what it asks about", "this"),
    ("", "no question"),
    ("no text", ""),
    ("", ""),
)


class PairTokenizer:
    """Encodes (query, text) pairs as a fast Hugging Face tokenizer does, but each distinct string only once.

    It works on its own copy of the tokenizer, so that the truncation and padding set on the caller's stay as they are
    and no other thread can change them during a call. Threads may share it.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        truncation: Truncation | None = None,
        passages: Passages | None = None,
    ) -> None:
        """Learns the tokenizer's pair layout.

        Args:
            tokenizer: A fast tokenizer (``is_fast``).
            truncation: How pairs are cut. None: to 512 tokens, the longer of query and text first.
            passages: How texts become passages. None: they are cut.

        Raises:
            InputError: The tokenizer is not fast, has no padding token or lays pairs out in a way that can't be
                assembled from separately tokenised texts; or the truncation leaves no room for its special tokens.
        """
        if not getattr(tokenizer, "is_fast", False):
            raise InputError(
                f"expected a fast tokenizer (is_fast), got {type(tokenizer).__name__}: "
                "load it with AutoTokenizer.from_pretrained(..., use_fast=True)"
            )
        if tokenizer.pad_token_id is None:
            raise InputError(f"the tokenizer {type(tokenizer).__name__} has no padding token: set its pad_token")
        self._lock = threading.Lock()  # fast tokenizers of older releases are not safe to call from several threads
        self._tokenizer: Any = copy.deepcopy(tokenizer)
        self._keeps_the_end = self._tokenizer.truncation_side == "left"
        self._pad = (int(tokenizer.pad_token_id), int(tokenizer.pad_token_type_id))
        probe = self._tokenizer(*_PROBES[0], verbose=False)
        self._token_types = "token_type_ids" in probe
        try:
            self._layouts = (PairLayout.of(probe), PairLayout.of(self._tokenizer("alone", verbose=False)))
        except ValueError as error:
            raise self._layout_error() from error
        special = self._layouts[0].size
        for length in (DEFAULT_MAX_LENGTH, special + 8):  # whole and cut
            self._truncation, self._passages = Truncation(max_length=length), None
            self._check_layout()
        self._truncation, self._passages = truncation or Truncation(), passages
        if self.most_tokens < special:
            raise InputError(f"max_length={self.most_tokens} leaves no room for the {special} special tokens of a pair")

    @property
    def most_tokens(self) -> int:
        """The most tokens of a row, special tokens included."""
        return self._truncation.pair_length

    def encode(self, queries: Sequence[str], texts: Sequence[str]) -> EncodedPairs:
        """Tokenises pairs: ``queries[i]`` with ``texts[i]``.

        Args:
            queries: n strings, already checked (see `checked_pairs`).
            texts: n strings.

        Returns:
            The n pairs, each in one row or, with passages, in as many rows as its text has passages.
        """
        # Three things are numbered: the n pairs, the r rows that they are read in, and the distinct strings.
        # Arrays of shape (2, ...) are about the queries first, then about the texts.
        strings, string_of = self._tokenised(queries, texts)  # string_of: (2, n)
        lengths = strings.lengths[string_of]  # (2, n), in tokens
        alone = np.array([not text for text in texts], dtype=np.bool_)  # (n,)
        rows = self._rows(lengths, alone)
        starts = np.stack([self._first_kept(lengths[0, rows.pairs], rows.kept[0]), rows.starts])  # (2, r), in a string
        text_ranges = np.stack([rows.starts, rows.starts + rows.kept[1]])  # (2, r): begin and end, in a text's tokens

        rows_of_pair = np.bincount(rows.pairs, minlength=len(texts))  # (n,), at least 1 each
        last = np.cumsum(rows_of_pair) - 1  # (n,), each pair's last row
        first = last - rows_of_pair + 1
        read = np.stack([rows.kept[0, first], text_ranges[1, last] - text_ranges[0, first]])  # (2, n), without gaps
        return EncodedPairs(
            tokens=strings.tokens,
            starts=strings.starts[string_of][:, rows.pairs] + starts,
            kept=rows.kept,
            alone=alone[rows.pairs],
            rows_of_pair=rows_of_pair,
            text_ranges=text_ranges,
            lost=lengths - read,
            layouts=self._layouts,
            pad=self._pad,
            token_types=self._token_types,
        )

    def character_ranges(self, texts: Sequence[str], token_ranges: Int64Array) -> Int64Array:
        """Turns ranges of texts' tokens into ranges of their characters.

        Args:
            texts: n strings.
            token_ranges: int64 (2, n), where in each text's tokens a range begins and ends.

        Returns:
            int64 (2, n), from the first character of the first token to the end of the last one; 0 and 0 for a range
            without tokens.
        """
        rows_of: dict[str, list[int]] = {}
        for row, text in enumerate(texts):
            rows_of.setdefault(text, []).append(row)
        ranges = np.zeros((2, len(texts)), dtype=np.int64)
        for rows, encoding in zip(rows_of.values(), self._encodings(list(rows_of), "encode_batch"), strict=True):
            offsets = encoding.offsets
            for row in rows:
                first, end = token_ranges[:, row].tolist()
                if end > first:
                    ranges[:, row] = offsets[first][0], offsets[end - 1][1]
        return ranges

    def _tokenised(self, queries: Sequence[str], texts: Sequence[str]) -> tuple[_Strings, Int64Array]:
        """Tokenises the distinct strings; int64 (2, n) says which string each query and each text is."""
        string_of, distinct = numbered([*queries, *texts])
        # Without passages, no row holds more of a string than `most_tokens`, so no more is stored.
        most = None if self._passages else self.most_tokens
        part = slice(-most, None) if most and self._keeps_the_end else slice(most)
        tokens, counts = array("i"), []
        for encoding in self._encodings(distinct, "encode_batch_fast"):  # which finds no offsets
            ids = encoding.ids
            counts.append(len(ids))
            tokens.fromlist(ids[part])
        lengths = np.array(counts, dtype=np.int64)
        stored = lengths if most is None else np.minimum(lengths, most)
        # If only a string's end is stored, its first token would lie before that: offsets count from the first token.
        starts = np.cumsum(stored) - stored - self._first_kept(lengths, stored)
        return _Strings(np.asarray(tokens, dtype=np.int32), starts, lengths), string_of.reshape(2, -1)

    def _encodings(self, strings: Sequence[str], method: str) -> Iterator[Any]:
        """Encodes whole strings without special tokens, by a method of the Rust tokenizer.

        The Python tokenizer's own call would build more lists for each string, which takes longer than tokenising.
        """
        for start in range(0, len(strings), _STRINGS_PER_CALL):
            yield from self._encode(strings[start : start + _STRINGS_PER_CALL], method)

    def _encode(self, strings: Sequence[str], method: str) -> list[Any]:
        backend = self._tokenizer.backend_tokenizer
        with self._lock:
            backend.no_truncation()
            backend.no_padding()
            encodings: list[Any] = getattr(backend, method)(strings, add_special_tokens=False)
        return encodings

    def _rows(self, lengths: Int64Array, alone: NDArray[np.bool_]) -> Windows:
        """Decides what each row reads of its pair.

        Args:
            lengths: int64 (2, n), tokens of the queries and of the texts.
            alone: bool (n,), whether the text is empty.
        """
        pair, single = self._layouts
        if self._passages is not None:
            rows = self._passages.windows(lengths[0], lengths[1], self._truncation, special=pair.size)
        else:
            kept = self._truncation.kept(lengths[0], lengths[1], special=pair.size)
            rows = Windows(pairs=np.arange(len(alone)), kept=kept, starts=self._first_kept(lengths[1], kept[1]))
        # A query that stands alone has the room of the missing separator too.
        alone_queries = np.minimum(self._truncation.query_tokens(lengths[0]), self.most_tokens - single.size)
        rows.kept[0] = np.where(alone[rows.pairs], alone_queries[rows.pairs], rows.kept[0])
        return rows

    def _first_kept(self, lengths: Int64Array, kept: Int64Array) -> Int64Array:
        """The first token that is kept of each string: 0, unless ``truncation_side="left"`` cuts off the beginning."""
        return lengths - kept if self._keeps_the_end else np.zeros_like(lengths)

    def _check_layout(self) -> None:
        """Compares with the tokenizer's own encoding of pairs."""
        encoded = self.encode(*zip(*_PROBES, strict=True))
        for row, (query, text) in enumerate(_PROBES):
            expected = self._tokenizer(query, text, truncation=True, max_length=self.most_tokens)
            batch = encoded.batch([row])
            same = batch.input_ids.tolist() == expected["input_ids"]
            if batch.token_type_ids is not None:
                same = same and batch.token_type_ids.tolist() == expected["token_type_ids"]
            if not same:
                raise self._layout_error()

    def _layout_error(self) -> InputError:
        return InputError(
            f"the tokenizer {type(self._tokenizer).__name__} does not encode a pair as special tokens around "
            "separately tokenised texts, so it can't be used here"
        )


class _Strings(NamedTuple):
    """Distinct strings as tokens.

    Attributes:
        tokens: int32 (stored tokens,), one string's ids after the other's.
        starts: int64 (strings,), where each string's first token is, or would be, in ``tokens``.
        lengths: int64 (strings,), how many tokens each has, including those that are not stored.
    """

    tokens: Int32Array
    starts: Int64Array
    lengths: Int64Array
