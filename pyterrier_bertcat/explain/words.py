"""Words: where they are in a text, and what is known of each once it is explained.

A word is what a reader would call one, in any script, found by its characters.

Letters, digits and marks make one word together with an apostrophe, dot or underscore inside (``don't``, ``3.14``,
``os.path``), as in Unicode's word boundaries (UAX #29, https://unicode.org/reports/tr29). Two differences: an ideograph
is a word by itself, and scripts that need a dictionary for the rest (Thai, Hiragana, ...) are taken run by run. A
punctuation mark or symbol is a word too, because the model reads it; a row of the same one is a single word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import regex

Part = Literal["query", "text"]
PARTS: tuple[Part, Part] = ("query", "text")

_LETTER = r"[[\p{L}\p{M}\p{N}_\u00ad\u200c\u200d]--\p{Han}]"
_WORD = regex.compile(
    rf"""
      \p{{Han}}\p{{M}}*
    | {_LETTER}+ (?: (?: ['\u2019.\u00b7&] | (?<=\p{{N}}),(?=\p{{N}}) ) {_LETTER}+ )*
    | ([\p{{P}}\p{{Sm}}\p{{Sk}}])\1+
    | \X                              # as a reader counts characters: an emoji with its modifiers is one
    """,
    regex.VERSION1 | regex.VERBOSE,
)
_INVISIBLE = regex.compile(r"[\s\p{Cc}\p{Cf}]*")


@dataclass(frozen=True)
class Word:
    """A word and what it does to the score.

    Attributes:
        text: The word as it is written.
        part: Whether it is of the query or of the text.
        start: Its first character in that string, from 0.
        end: The character after its last.
        effect: How much it raises the score (a relevance logit); negative if it lowers it.
        read: Whether the model reads it. If not, because the pair is too long or the tokenizer drops it, ``effect`` is
            exactly 0.
    """

    text: str
    part: Part
    start: int
    end: int
    effect: float
    read: bool


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where the words of a text are.

    Args:
        text: Any string.

    Returns:
        Start and end (exclusive) of each word, in characters, in order and without overlap. What lies between them is
        blank, or a control or format character.
    """
    return [match.span() for match in _WORD.finditer(text) if not _INVISIBLE.fullmatch(match.group())]
