"""Finds the words of a query and a text, and which of them the model reads, by which tokens.

A word is what a reader would take for one, in any script; it is found by its characters. Letters, digits and
marks make one word, together with an apostrophe, dot or underscore inside (``don't``, ``3.14``, ``os.path``), as in
Unicode's word boundaries (UAX #29, https://unicode.org/reports/tr29). There are two differences: an ideograph is a word
by itself, and in scripts that would need a dictionary (Thai, Hiragana, ...) each run of letters is one word. A
punctuation mark or symbol is a word too, because the model reads it; equal ones in a row are one word.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import regex
from numpy.typing import NDArray

from pyterrier_bertcat.pairs.truncation import Truncation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Part = Literal["query", "text"]
PARTS: tuple[Part, Part] = ("query", "text")

_LETTER = r"[[\p{L}\p{M}\p{N}_\u00ad\u200c\u200d]--\p{Han}]"
_WORD = regex.compile(
    rf"""
      \p{{Han}}\p{{M}}*
    | {_LETTER}+ (?: (?: ['\u2019.\u00b7&] | (?<=\p{{N}}),(?=\p{{N}}) ) {_LETTER}+ )*
    | ([\p{{P}}\p{{Sm}}\p{{Sk}}])\1+
    | \X                              # one character as a reader counts: an emoji with its modifiers
    """,
    regex.VERSION1 | regex.VERBOSE,
)
_INVISIBLE = regex.compile(r"[\s\p{Cc}\p{Cf}]*")


@dataclass(frozen=True)
class Word:
    """A word and its effect on the score.

    Attributes:
        text: The word as it is written.
        part: Whether it is in the query or in the text.
        start: Its first character in that string, from 0.
        end: The character after its last.
        effect: How much it raises the score (a relevance logit); negative if it lowers it.
        read: Whether the model reads it. It does not if the pair is too long or the tokenizer drops the word, and then
            ``effect`` is exactly 0.
    """

    text: str
    part: Part
    start: int
    end: int
    effect: float
    read: bool


class Span(NamedTuple):
    """A word's place: which string, and its characters there, ``end`` exclusive."""

    part: Part
    start: int
    end: int


class Share(NamedTuple):
    """How much of a token belongs to a word, by characters. The shares of a token add up to 1."""

    word: int
    token: int
    weight: float


@dataclass(frozen=True)
class PairReading:
    """A query and a text, as words and as the tokens that the model reads.

    Attributes:
        words: All words of the query, then all words of the text.
        shares: Which tokens belong to which words. A word without tokens is not read: it was cut off, or the tokenizer
            drops it.
        window: For query and text, the characters from the first to the last that is read.
        input_ids: int64 (tokens,), as the tokenizer encodes the pair.
        token_type_ids: int64 (tokens,), or None.
        parts: (tokens,), the string that each token is from; None for special tokens such as ``[CLS]``.
    """

    words: tuple[Span, ...]
    shares: tuple[Share, ...]
    window: dict[Part, tuple[int, int]]
    input_ids: NDArray[np.int64]
    token_type_ids: NDArray[np.int64] | None
    parts: tuple[Part | None, ...]

    @cached_property
    def read(self) -> NDArray[np.bool_]:
        """Whether the model reads each word, or some of it: bool (words,)."""
        read = np.zeros(len(self.words), dtype=np.bool_)
        read[[share.word for share in self.shares]] = True
        return read

    def by_word(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums the values of tokens, (tokens,), to values of words, (words,)."""
        sums = np.zeros(len(self.words))
        for word, token, weight in self.shares:
            sums[word] += weight * values[token]
        return sums


def word_spans(text: str) -> list[tuple[int, int]]:
    """Finds the words of any string.

    Returns:
        Start and end (exclusive) of each word, in characters, in order and without overlap. Only blanks and control or
        format characters lie between them.
    """
    return [match.span() for match in _WORD.finditer(text) if not _INVISIBLE.fullmatch(match.group())]


def read_pair(tokenizer: PreTrainedTokenizerBase, query: str, text: str, *, cut: Truncation) -> PairReading:
    """Tokenises a pair as for scoring, and finds the words that its tokens belong to.

    Args:
        tokenizer: A fast tokenizer. Its own setting for cutting pairs changes.
        query: Any string.
        text: Any string.
        cut: How the pair is cut.
    """
    encoding: Any = tokenizer(query, text, truncation=False, return_offsets_mapping=True, verbose=False)
    owners: list[int | None] = encoding.sequence_ids(0)
    tokens_of = [[token for token, owner in enumerate(owners) if owner == side] for side in range(len(PARTS))]
    counts = (np.array([len(tokens)]) for tokens in tokens_of)
    kept = cut.kept(*counts, special=owners.count(None))[:, 0].tolist()
    left_out: set[int] = set()
    for tokens, count in zip(tokens_of, kept, strict=True):
        beyond = len(tokens) - count
        left_out.update(tokens[:beyond] if tokenizer.truncation_side == "left" else tokens[count:])
    read = [token for token in range(len(owners)) if token not in left_out]
    words: list[Span] = []
    shares: list[Share] = []
    window: dict[Part, tuple[int, int]] = {}
    for side, (part, string) in enumerate(zip(PARTS, (query, text), strict=True)):
        spans = word_spans(string)
        places = [
            (place, *encoding["offset_mapping"][token]) for place, token in enumerate(read) if owners[token] == side
        ]
        window[part] = (min((start for _, start, _ in places), default=0), max((end for *_, end in places), default=0))
        shares += [Share(len(words) + word, token, weight) for word, token, weight in _shares(spans, places)]
        words += [Span(part, start, end) for start, end in spans]
    types = encoding.get("token_type_ids")
    return PairReading(
        words=tuple(words),
        shares=tuple(shares),
        window=window,
        input_ids=np.array(encoding["input_ids"], dtype=np.int64)[read],
        token_type_ids=None if types is None else np.array(types, dtype=np.int64)[read],
        parts=tuple(None if (owner := owners[token]) is None else PARTS[owner] for token in read),
    )


def _shares(spans: list[tuple[int, int]], tokens: list[tuple[int, int, int]]) -> list[Share]:
    """Divides each token (number, start, end) among the words that it overlaps."""
    if not spans:
        return []
    starts, ends = zip(*spans, strict=True)
    shares = []
    for token, start, end in tokens:
        overlaps = [
            (word, min(end, ends[word]) - max(start, starts[word]))
            for word in range(bisect_right(ends, start), bisect_left(starts, end))
        ]
        if not overlaps:  # only blanks: they go to the word before
            overlaps = [(max(0, bisect_right(starts, start) - 1), 1)]
        total = sum(length for _, length in overlaps)
        shares += [Share(word, token, length / total) for word, length in overlaps]
    return shares
