"""Texts to token-id pairs: each distinct text is tokenised once, and the pairs are assembled from arrays.

The ids, and the token types, of a pair are those of ``tokenizer(query, text, truncation=True, max_length=...)``, called
for that pair alone. Two of that call's habits are worth knowing:

- an *empty* text is no second sequence to it, so the pair is ``[CLS] query [SEP]`` with one separator (a text of blanks
  has two);
- it cuts the longer sequence first, and splits the room in halves when both are too long.

Where the special tokens go is learnt from the tokenizer itself, once, and checked against it.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.pairs.batches import EncodedPairs
from pyterrier_bertcat.pairs.layout import Int32Array, Int64Array, PairLayout
from pyterrier_bertcat.pairs.passages import Passages, Windows
from pyterrier_bertcat.pairs.truncation import Truncation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TEXTS_PER_CALL = 1024  # the tokenizer's own lists of Python ints are large: keep few of them at a time
_PROBES = (
    ("what is this", "a text that is much longer than what was asked, so that it is cut first"),
    ("a question that goes on for so long that it is longer than what it asks about", "this"),
    ("", "no question"),
    ("no text", ""),
    ("", ""),
)


class PairTokenizer:
    """Encodes (query, text) pairs as a fast Hugging Face tokenizer does, each distinct text once.

    It works on its own copy of the tokenizer, so that the truncation and padding set on the caller's stay as they are
    and no other thread can change them during a call. It may be shared between threads.

    Attributes:
        most_tokens: The most tokens of a row, special tokens included.
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
        self._first_kept = _of_the_end if self._tokenizer.truncation_side == "left" else _of_the_beginning
        self._pad = (int(tokenizer.pad_token_id), int(tokenizer.pad_token_type_id))
        probe = self._tokenizer(*_PROBES[0], verbose=False)
        self._token_types = "token_type_ids" in probe
        try:
            self._layouts = (PairLayout.of(probe), PairLayout.of(self._tokenizer("alone", verbose=False)))
        except ValueError as error:
            raise self._layout_error() from error
        special = self._layouts[0].size
        for length in (512, special + 8):  # whole and cut
            self._cut(Truncation(max_length=length), None)
            self._check_layout(length)
        self._cut(truncation or Truncation(), passages)
        if self.most_tokens < special:
            raise InputError(f"max_length={self.most_tokens} leaves no room for the {special} special tokens of a pair")

    def encode(self, queries: Sequence[str], texts: Sequence[str]) -> EncodedPairs:
        """Tokenises pairs, row by row: ``queries[i]`` with ``texts[i]``.

        Args:
            queries: n strings, checked before (see `checked_pairs`).
            texts: n strings.

        Returns:
            The n pairs, each in one row or, with passages, in as many rows as its text has passages.
        """
        strings, string = self._tokenised(queries, texts)  # string: (2, n), which string each query and each text is
        counts = strings.counts[string]  # (2, n), tokens of each query and each text
        alone = np.fromiter((not text for text in texts), dtype=np.bool_, count=len(texts))  # (n,)
        rows = self._rows(counts, alone)
        query_starts = self._first_kept(counts[0, rows.pairs], rows.queries)
        last_row = np.cumsum(np.bincount(rows.pairs, minlength=len(texts))) - 1  # (n,), of each pair
        text_ranges = np.stack([rows.starts, rows.starts + rows.texts])  # (2, r), in each text's own tokens
        texts_read = (rows.texts if self._passages is None else text_ranges[1])[last_row]
        return EncodedPairs(
            tokens=strings.ids,
            starts=strings.starts[string][:, rows.pairs] + np.stack([query_starts, rows.starts]),
            kept=np.stack([rows.queries, rows.texts]),
            alone=alone[rows.pairs],
            rows_of_pair=np.bincount(rows.pairs, minlength=len(texts)),
            text_ranges=text_ranges,
            lost=counts - np.stack([rows.queries[last_row], texts_read]),
            layouts=self._layouts,
            pad=self._pad,
            token_types=self._token_types,
        )

    def character_ranges(self, texts: Sequence[str], token_ranges: Int64Array) -> Int64Array:
        """From ranges of texts' tokens to ranges of their characters.

        Args:
            texts: n strings.
            token_ranges: int64 (2, n), where in each text's tokens a range begins and ends.

        Returns:
            int64 (2, n), from the first character of the first token to the last one's end; 0 and 0 where there is no
            token in the range.
        """
        rows_of: dict[str, list[int]] = {}
        for row, text in enumerate(texts):
            rows_of.setdefault(text, []).append(row)
        ranges = np.zeros((2, len(texts)), dtype=np.int64)
        distinct = list(rows_of)
        for start in range(0, len(distinct), _TEXTS_PER_CALL):
            some = distinct[start : start + _TEXTS_PER_CALL]
            with self._whole_texts() as backend:
                encodings = backend.encode_batch(some, add_special_tokens=False)
            for text, encoding in zip(some, encodings, strict=True):
                offsets = encoding.offsets
                for row in rows_of[text]:
                    first, end = token_ranges[:, row].tolist()
                    if end > first:
                        ranges[:, row] = offsets[first][0], offsets[end - 1][1]
        return ranges

    def _cut(self, truncation: Truncation, passages: Passages | None) -> None:
        self._truncation, self._passages = truncation, passages
        self.most_tokens = truncation.pair_length

    def _rows(self, counts: Int64Array, alone: NDArray[np.bool_]) -> Windows:
        """What each row holds of its pair: ``counts`` are the pairs' tokens, int64 (2, n)."""
        pair, single = self._layouts
        if self._passages is not None:
            rows = self._passages.windows(counts[0], counts[1], self._truncation, special=pair.size)
        else:
            kept = self._truncation.kept(counts[0], counts[1], special=pair.size)  # (2, n)
            text_starts = self._first_kept(counts[1], kept[1])
            rows = Windows(pairs=np.arange(len(alone)), queries=kept[0], starts=text_starts, texts=kept[1])
        # A query that stands alone has the room of the separator too.
        alone_queries = np.minimum(self._truncation.query_tokens(counts[0]), self.most_tokens - single.size)
        return replace(rows, queries=np.where(alone[rows.pairs], alone_queries[rows.pairs], rows.queries))

    def _tokenised(self, queries: Sequence[str], texts: Sequence[str]) -> tuple[_Strings, Int64Array]:
        """The distinct strings' tokens, and int64 (2, n): which string each query and each text is."""
        number: dict[str, int] = {}
        string = np.empty((2, len(queries)), dtype=np.int64)
        for side, values in enumerate((queries, texts)):
            string[side] = [number.setdefault(value, len(number)) for value in values]
        distinct, pieces = list(number), [np.empty(0, dtype=np.int32)]
        counts: list[int] = []
        for start in range(0, len(distinct), _TEXTS_PER_CALL):
            ids = self._token_ids(distinct[start : start + _TEXTS_PER_CALL])
            counts += map(len, ids)
            if self._passages is None:  # then no pair holds more of one string than its own greatest length
                ids = list(map(self._stored, ids))
            pieces.append(np.fromiter(chain.from_iterable(ids), dtype=np.int32))
        full = np.array(counts, dtype=np.int64)
        stored = full if self._passages is not None else np.minimum(full, self.most_tokens)
        # Where only a string's end is stored, its start lies before it: offsets always count from the first token.
        starts = np.cumsum(stored) - stored - self._first_kept(full, stored)
        return _Strings(np.concatenate(pieces), starts, full), string

    def _stored(self, ids: list[int]) -> list[int]:
        """As much of a string's tokens as any pair can hold."""
        return ids[-self.most_tokens :] if self._first_kept is _of_the_end else ids[: self.most_tokens]

    def _token_ids(self, texts: list[str]) -> list[list[int]]:
        with self._whole_texts() as backend:
            # The tokenizer's own call would build further lists for each text, which takes longer than tokenising.
            return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]

    @contextmanager
    def _whole_texts(self) -> Iterator[Any]:
        """The tokenizer below the tokenizer, for one thread, set to cut and pad nothing."""
        with self._lock:
            backend = self._tokenizer.backend_tokenizer
            backend.no_truncation()
            backend.no_padding()
            yield backend

    def _check_layout(self, max_length: int) -> None:
        """Compares with the tokenizer's own pair encoding."""
        queries, texts = zip(*_PROBES, strict=True)
        pairs = self.encode(queries, texts)
        for row, (query, text) in enumerate(_PROBES):
            expected = self._tokenizer(query, text, truncation=True, max_length=max_length)
            batch = pairs.batch([row])
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


@dataclass(frozen=True)
class _Strings:
    """Distinct strings as tokens.

    Attributes:
        ids: int32 (stored tokens,), one string after the other.
        starts: int64 (strings,), where each string's first token is, or would be, in ``ids``.
        counts: int64 (strings,), how many tokens each has, including those that are not stored.
    """

    ids: Int32Array
    starts: Int64Array
    counts: Int64Array


def _of_the_beginning(counts: Int64Array, kept: Int64Array) -> Int64Array:
    """The first token that is kept of each string when its end is cut off: tokens, tokens kept -> int64 (n,)."""
    return np.zeros_like(counts)


def _of_the_end(counts: Int64Array, kept: Int64Array) -> Int64Array:
    """The first token that is kept of each string when its beginning is cut off, as ``truncation_side="left"`` asks."""
    first: Int64Array = counts - kept
    return first
