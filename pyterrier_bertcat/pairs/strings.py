"""Queries and texts as strings: checked once where they come in, and numbered, because many occur several times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.pairs.layout import Int64Array


@dataclass(frozen=True)
class DistinctPairs:
    """Which of n pairs are equal.

    Pairs that share a text stand side by side, in the order in which the texts first appear.

    Attributes:
        row: int64 (d,), the input row where each distinct pair first occurs.
        of_row: int64 (n,), the number of each input row's distinct pair.
    """

    row: Int64Array
    of_row: Int64Array

    @classmethod
    def among(cls, queries: Sequence[str], texts: Sequence[str]) -> DistinctPairs:
        """Finds the distinct pairs among ``queries[i]`` with ``texts[i]``."""
        (query, _), (text, _) = numbered(queries), numbered(texts)
        keys = text * (query.max(initial=0) + 1) + query
        _, row, of_row = np.unique(keys, return_index=True, return_inverse=True)
        return cls(row, of_row)

    def __len__(self) -> int:
        return len(self.row)


def numbered(strings: Sequence[str]) -> tuple[Int64Array, list[str]]:
    """Numbers the distinct strings in order of appearance: each string's number, int64 (n,), and the distinct ones."""
    numbers: dict[str, int] = {}  # pd.factorize is no faster, and pandas 2 takes what differs after a NUL for equal
    of_string = np.fromiter((numbers.setdefault(string, len(numbers)) for string in strings), np.int64, len(strings))
    return of_string, list(numbers)


def checked_pairs(queries: Sequence[str], texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Checks queries and texts, and makes them two lists of Unicode strings of the same length.

    Raises:
        InputError: A value is not a string or has a lone surrogate, or there are not as many texts as queries.
    """
    queries, texts = _strings(queries, "queries"), _strings(texts, "texts")
    if len(queries) != len(texts):
        raise InputError(f"expected as many texts as queries, got {len(queries)} queries and {len(texts)} texts")
    return queries, texts


def lone_surrogate(text: str) -> int | None:
    """Index of the first lone surrogate, or None (the usual case).

    A surrogate is half of a character that UTF-16 writes as two. Alone it has no UTF-8 form, and so no token.
    """
    if text.isascii():  # known without looking at the characters
        return None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None


def _strings(values: Sequence[str], name: str) -> list[str]:
    if isinstance(values, (str, bytes)):
        raise InputError(f"{name} is a sequence of strings, got one {type(values).__name__}: put it in a list")
    strings = list(values)
    for position, value in enumerate(strings):
        if not isinstance(value, str):
            raise InputError(f"{name}[{position}] is {value!r} of type {type(value).__name__}, expected a string")
        if type(value) is not str:
            strings[position] = str(value)  # a subclass, such as numpy.str_
        if (character := lone_surrogate(value)) is not None:
            raise InputError(
                f"{name}[{position}] has the lone surrogate {value[character]!r} at character {character} and so is "
                f"not valid Unicode: {value[:40]!r}; repair it with text.encode(errors='replace').decode()"
            )
    return strings
