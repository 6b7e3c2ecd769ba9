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
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.pairs.batches import EncodedPairs
from pyterrier_bertcat.pairs.layout import Int32Array, Int64Array, PairLayout
from pyterrier_bertcat.pairs.passages import Passages, Windows
from pyterrier_bertcat.pairs.strings import lone_surrogate
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
        self._truncate_left = self._tokenizer.truncation_side == "left"
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
        if self._most_tokens < special:
            raise InputError(
                f"max_length={self._most_tokens} leaves no room for the {special} special tokens of a pair"
            )

    def encode(self, queries: Sequence[str], texts: Sequence[str]) -> EncodedPairs:
        """Tokenises pairs, row by row: ``queries[i]`` with ``texts[i]``.

        Args:
            queries: n strings, in any sequence (list, array, pandas Series).
            texts: n strings.

        Returns:
            The n pairs, each in one row or, with passages, in as many rows as its text has passages.

        Raises:
            InputError: Something is not a string, or is a string that has no UTF-8 form (a lone surrogate); or the
                two differ in number.
        """
        queries, texts = checked_pairs(queries, texts)
        number: dict[str, int] = {}
        pairs = np.empty((2, len(queries)), dtype=np.int64)
        for side, values in enumerate((queries, texts)):
            pairs[side] = [number.setdefault(value, len(number)) for value in values]
        try:
            tokens, stored, full = self._tokenise(list(number))
        except (TypeError, UnicodeError):
            refuse_surrogates(queries, "queries")
            refuse_surrogates(texts, "texts")
            raise
        starts = (np.cumsum(stored) - stored)[pairs]
        full, stored = full[pairs], stored[pairs]  # (2, n)
        alone = np.fromiter((not text for text in texts), dtype=np.bool_, count=len(texts))
        rows = self._rows(full, alone)
        row_starts = np.stack([np.zeros_like(rows.starts), rows.starts])  # in the query's and the text's own tokens
        if self._truncate_left:
            row_starts[0] = full[0, rows.pairs] - rows.queries
            starts -= full - stored  # of long ones, only the ends are stored
        rows_of_pair = np.bincount(rows.pairs, minlength=len(texts))
        last_row = np.cumsum(rows_of_pair) - 1
        text_ranges = np.stack([rows.starts, rows.starts + rows.texts])
        seen = rows.queries[last_row] + (rows.texts if self._passages is None else text_ranges[1])[last_row]
        return EncodedPairs(
            tokens=tokens,
            starts=starts[:, rows.pairs] + row_starts,
            kept=np.stack([rows.queries, rows.texts]),
            alone=alone[rows.pairs],
            rows_of_pair=rows_of_pair,
            text_ranges=text_ranges,
            lost=full.sum(axis=0) - seen,
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

    def encodes_as(self, other: PairTokenizer) -> bool:
        """Whether the other one makes the same of every pair."""
        return self._facts() == other._facts()

    def _facts(self) -> tuple[object, ...]:
        with self._whole_texts() as backend:
            return (
                backend.to_str(),
                self._truncate_left,
                self._pad,
                self._token_types,
                self._truncation,
                self._passages,
            )

    def _cut(self, truncation: Truncation, passages: Passages | None) -> None:
        self._truncation, self._passages = truncation, passages
        self._most_tokens = truncation.pair_length

    def _rows(self, full: Int64Array, alone: NDArray[np.bool_]) -> Windows:
        """What each row holds of its pair, of which ``full`` (2, n) counts the tokens."""
        pair, single = self._layouts
        if self._passages is not None:
            rows = self._passages.windows(full[0], full[1], self._truncation, special=pair.size)
        else:
            kept = self._truncation.kept(full[0], full[1], special=pair.size)
            text_starts = full[1] - kept[1] if self._truncate_left else np.zeros_like(full[1])
            rows = Windows(pairs=np.arange(len(alone)), queries=kept[0], starts=text_starts, texts=kept[1])
        alone_room = self._truncation.pair_length - single.size
        alone_queries = np.minimum(self._truncation.query_tokens(full[0]), alone_room)
        return replace(rows, queries=np.where(alone[rows.pairs], alone_queries[rows.pairs], rows.queries))

    def _tokenise(self, distinct: list[str]) -> tuple[Int32Array, Int64Array, Int64Array]:
        """Tokens of distinct texts in one flat array; how many are stored of each; how many each really has."""
        counts: list[int] = []
        pieces = [np.empty(0, dtype=np.int32)]
        for start in range(0, len(distinct), _TEXTS_PER_CALL):
            ids = self._token_ids(distinct[start : start + _TEXTS_PER_CALL])
            counts += map(len, ids)
            if self._passages is None:  # then no pair holds more of one text than its whole length
                ids = [text[-self._most_tokens :] if self._truncate_left else text[: self._most_tokens] for text in ids]
            pieces.append(np.fromiter(chain.from_iterable(ids), dtype=np.int32))
        full = np.array(counts, dtype=np.int64)
        return np.concatenate(pieces), full if self._passages else np.minimum(full, self._most_tokens), full

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


def distinct_pairs(queries: Sequence[str], texts: Sequence[str]) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Finds the pairs that occur more than once.

    Args:
        queries: n strings.
        texts: n strings.

    Returns:
        For the d distinct pairs, those of one text side by side and texts in order of first appearance: int64 (d,),
        where each first occurs; int64 (n,), which of them each pair is; int64 (d,), how often each occurs.
    """
    # pandas numbers objects that are equal in C, in order of first appearance.
    numbers = np.stack([pd.factorize(np.array(strings, dtype=object))[0] for strings in (texts, queries)])  # (2, n)
    keys = numbers[0] * (numbers[1].max(initial=0) + 1) + numbers[1]
    _, first, place, count = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    return first, place, count


def checked_pairs(queries: Sequence[str], texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Queries and texts as lists of strings, of the same length.

    Raises:
        InputError: Named by position and type: the first value that is not a string, or a difference in number.
    """
    queries, texts = _strings(queries, "queries"), _strings(texts, "texts")
    if len(queries) != len(texts):
        raise InputError(f"expected as many texts as queries, got {len(queries)} queries and {len(texts)} texts")
    return queries, texts


def _strings(values: Sequence[str], name: str) -> list[str]:
    if isinstance(values, (str, bytes)):
        raise InputError(f"{name} is a sequence of strings, got one {type(values).__name__}: put it in a list")
    strings = list(values)
    for position, value in enumerate(strings):
        if type(value) is not str:
            if not isinstance(value, str):
                raise InputError(f"{name}[{position}] is {value!r} of type {type(value).__name__}, expected a string")
            strings[position] = str(value)  # a subclass, such as numpy.str_
    return strings


def refuse_surrogates(strings: Sequence[str], name: str) -> None:
    """Makes sure that strings are valid Unicode.

    Raises:
        InputError: One has a lone surrogate; named by position.
    """
    for position, text in enumerate(strings):
        character = lone_surrogate(text)
        if character is not None:
            raise InputError(
                f"{name}[{position}] has the lone surrogate {text[character]!r} at character {character} and so is not "
                f"valid Unicode: {text[:40]!r}; repair it with text.encode(errors='replace').decode()"
            )
