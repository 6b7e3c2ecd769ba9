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
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.pair_batches import EncodedPairs
from pyterrier_bertcat.pair_layout import Int32Array, Int64Array, PairLayout, longest_first

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

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, max_length: int = 512) -> None:
        """Learns the tokenizer's pair layout.

        Args:
            tokenizer: A fast tokenizer (``is_fast``).
            max_length: The most tokens of a pair, special tokens counted.

        Raises:
            InputError: The tokenizer is not fast, has no padding token or lays pairs out in a way that can't be
                assembled from separately tokenised texts; or ``max_length`` leaves no room for its special tokens.
        """
        if not getattr(tokenizer, "is_fast", False):
            raise InputError(
                f"expected a fast tokenizer (is_fast), got {type(tokenizer).__name__}: "
                "load it with AutoTokenizer.from_pretrained(..., use_fast=True)"
            )
        if tokenizer.pad_token_id is None:
            raise InputError(f"the tokenizer {type(tokenizer).__name__} has no padding token: set its pad_token")
        if isinstance(max_length, bool) or not isinstance(max_length, int):
            raise InputError(f"max_length is a whole number of tokens, got {max_length!r}")
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
        self.max_length = max_length
        if max_length < self._layouts[0].size:
            raise InputError(
                f"max_length={max_length} leaves no room for the {self._layouts[0].size} special tokens of a pair"
            )
        self._check_layout()

    def encode(self, queries: Sequence[str], texts: Sequence[str]) -> EncodedPairs:
        """Tokenises pairs, row by row: ``queries[i]`` with ``texts[i]``.

        Args:
            queries: n strings, in any sequence (list, array, pandas Series).
            texts: n strings.

        Returns:
            The n pairs, truncated to ``max_length``.

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
        except (TypeError, UnicodeError) as error:
            _refuse_surrogates(queries, "queries", error)
            _refuse_surrogates(texts, "texts", error)
            raise
        starts = np.cumsum(stored) - stored

        alone = np.fromiter((not text for text in texts), dtype=np.bool_, count=len(texts))
        pair, single = self._layouts
        kept = longest_first(full[pairs[0]], full[pairs[1]], self.max_length - pair.size)
        kept[0, alone] = np.minimum(full[pairs[0, alone]], self.max_length - single.size)
        kept[1, alone] = 0
        starts = starts[pairs]
        if self._truncate_left:
            starts = starts + stored[pairs] - kept
        return EncodedPairs(
            tokens=tokens,
            starts=starts,
            kept=kept,
            alone=alone,
            layouts=self._layouts,
            pad=self._pad,
            token_types=self._token_types,
        )

    def _tokenise(self, distinct: list[str]) -> tuple[Int32Array, Int64Array, Int64Array]:
        """Tokens of distinct texts in one flat array; how many are stored of each; how many each really has."""
        counts: list[int] = []
        pieces = [np.empty(0, dtype=np.int32)]
        for start in range(0, len(distinct), _TEXTS_PER_CALL):
            ids = self._token_ids(distinct[start : start + _TEXTS_PER_CALL])
            counts += map(len, ids)
            # No pair ever holds more than max_length tokens of one text.
            room = slice(-self.max_length, None) if self._truncate_left else slice(self.max_length)
            pieces.append(np.fromiter(chain.from_iterable(text[room] for text in ids), dtype=np.int32))
        full = np.array(counts, dtype=np.int64)
        return np.concatenate(pieces), np.minimum(full, self.max_length), full

    def _token_ids(self, texts: list[str]) -> list[list[int]]:
        with self._lock:
            # The tokenizer's own call would build further lists for each text, which takes longer than tokenising.
            backend = self._tokenizer.backend_tokenizer
            backend.no_truncation()
            backend.no_padding()
            return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]

    def _check_layout(self) -> None:
        """Compares with the tokenizer's own pair encoding, cut and whole."""
        queries, texts = zip(*_PROBES, strict=True)
        pairs = self.encode(queries, texts)
        for row, (query, text) in enumerate(_PROBES):
            expected = self._tokenizer(query, text, truncation=True, max_length=self.max_length)
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
    numbers = np.stack([_numbered(texts), _numbered(queries)])  # (2, n)
    keys = numbers[0] * (numbers[1].max(initial=0) + 1) + numbers[1]
    _, first, place, count = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    return first, place, count


def _numbered(strings: Sequence[str]) -> Int64Array:
    """The same number for the same string, in order of first appearance."""
    number: dict[str, int] = {}
    return np.fromiter((number.setdefault(string, len(number)) for string in strings), np.int64, len(strings))


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


def _refuse_surrogates(strings: list[str], name: str, cause: Exception) -> None:
    for position, text in enumerate(strings):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"{name}[{position}] has the lone surrogate {text[error.start]!r} at character {error.start} and so is "
                f"not valid Unicode: {text[:40]!r}; repair it with text.encode(errors='replace').decode()"
            ) from cause
