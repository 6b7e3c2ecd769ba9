"""Lines of a file, plain or gzip, with their numbers: what the readers of runs, topics, texts and qrels begin with."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from typing import IO

from pyterrier_bertcat.errors import InputError

_GZIP, _BYTE_ORDER_MARK = b"\x1f\x8b", b"\xef\xbb\xbf"
_EXCERPT_CHARACTERS = 80


def numbered_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, bytes]]:
    """Reads a file as a stream; gzip is known by its first bytes, so that any name and a pipe will do.

    Args:
        path: The file.

    Yields:
        The number, from 1 on, and the bytes of each line that is not blank. Only line feeds end a line: what else
        Unicode takes for an end may stand in an identifier.

    Raises:
        InputError: The file is missing, can't be read or is a damaged gzip; the message names the line before.
    """
    number = 0
    try:
        with open(path, "rb") as file:
            lines: IO[bytes] = file
            if file.peek(len(_GZIP)).startswith(_GZIP):
                lines = gzip.GzipFile(fileobj=file)  # type: ignore[assignment]
            for number, line in enumerate(lines, start=1):
                content = line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
                if content.strip():
                    yield number, content
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        after = f" after line {number}" if number else ""
        raise InputError(f"{path} can't be read{after}: {reason}") from error


def decoded(content: bytes, path: str | os.PathLike[str], number: int) -> str:
    """The text of a line.

    Raises:
        InputError: It is not UTF-8.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise wrong_line(path, number, "UTF-8", content) from error


def wrong_line(path: str | os.PathLike[str], number: int, expected: str, content: bytes) -> InputError:
    """What to raise for a line of another form than ``expected``."""
    excerpt = content.decode(errors="replace").strip()
    shown = repr(excerpt[:_EXCERPT_CHARACTERS]) + ("…" if len(excerpt) > _EXCERPT_CHARACTERS else "")
    return InputError(f"{path}, line {number}: expected {expected}, got {shown}")
