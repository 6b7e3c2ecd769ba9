"""Strings that are no Unicode: half of a character that takes two in UTF-16 has no UTF-8 form, and no token."""

from __future__ import annotations


def lone_surrogate(text: str) -> int | None:
    """Where a text's first lone surrogate is; None where it has none, as nearly every text."""
    if text.isascii():  # known without looking at the characters
        return None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None
