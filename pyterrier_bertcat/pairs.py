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
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.pair_layout import Int32Array, Int64Array, PairLayout, longest_first, ranges

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
    """Pairs as ranges of one flat array of token ids; about 40 bytes a pair besides the distinct texts' tokens.

    Attributes:
        lengths: int64 (n,), tokens per pair, special tokens counted.
    """

    def __init__(
        self,
        *,
        tokens: Int32Array,
        starts: Int64Array,
        kept: Int64Array,
        alone: NDArray[np.bool_],
        layouts: tuple[PairLayout, PairLayout],
        pad: tuple[int, int],
        token_types: bool,
    ) -> None:
        """Keeps what `PairTokenizer.encode` made.

        Args:
            tokens: Token ids of all distinct texts, one after the other.
            starts: (2, n), where the query and the text of each pair begin in ``tokens``.
            kept: (2, n), how many tokens of each are left after truncation.
            alone: (n,), whether the query stands alone because the text is empty.
            layouts: For pairs, and for queries that stand alone.
            pad: Id and type of the padding token.
            token_types: Whether batches carry ``token_type_ids``.
        """
        self._tokens, self._starts, self._kept, self._alone = tokens, starts, kept, alone
        self._layouts, self._pad, self._token_types = layouts, pad, token_types
        pair, single = layouts
        self.lengths: Int64Array = kept.sum(axis=0) + np.where(alone, single.size, pair.size)

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, rows: Sequence[int] | Int64Array) -> PairBatch:
        """The given pairs as one batch.

        Args:
            rows: Positions of pairs, in the order wanted.

        Returns:
            A batch with one pair per position.
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
