"""Where the readers of runs, topics, texts and qrels start: the lines of a file, or a PyTerrier data set by name."""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator
from typing import IO, Any

import pyterrier as pt

from pyterrier_bertcat.errors import InputError

_GZIP, _BYTE_ORDER_MARK = b"\x1f\x8b", b"\xef\xbb\xbf"
_EXCERPT_CHARACTERS = 80
_DATASET = re.compile(r"[A-Za-z][\w-]+:[^\\]")  # at least two letters before the colon: C:\topics.tsv is a path


def numbered_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, bytes]]:
    """Reads a file as a stream. Gzip is recognised by its first bytes, so any name, and a pipe, will do.

    Yields:
        The number, from 1, and the bytes of each line that is not blank. Only line feeds end a line: the other line
        ends of Unicode may be part of an identifier.

    Raises:
        InputError: The file is missing, unreadable or a damaged gzip; the message names the last good line.
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
    """The text of a line; raises `InputError` if it is not UTF-8."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise wrong_line(path, number, "UTF-8", content) from error


def two_columns(content: bytes, path: str | os.PathLike[str], number: int, *, expected: str) -> list[str]:
    """The two columns of a line with a tab between them; raises `InputError` if there are more or fewer."""
    columns = decoded(content, path, number).rstrip("\r\n").split("\t")
    if len(columns) != 2:
        raise wrong_line(path, number, expected, content)
    return columns


def records(
    path: str | os.PathLike[str], *, first: str, second: str
) -> Iterator[tuple[int, bytes, dict[str, Any] | list[str]]]:
    """Reads JSON objects, one per line, or lines of two columns with a tab between them; the first line decides which.

    Yields:
        The number and bytes of each line, with its object, which is not empty, or its two columns.

    Raises:
        InputError: The file can't be read, or a line has another form; the message names the ``first`` and ``second``
            column.
    """
    is_json, expected = None, f"a {first}, a tab and a {second}, or JSON objects"
    for number, content in numbered_lines(path):
        if is_json is None:
            is_json = content.lstrip().startswith(b"{")
        if not is_json:
            yield number, content, two_columns(content, path, number, expected=expected)
            continue
        text = decoded(content, path, number)
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:  # RecursionError: a thousand brackets
            raise wrong_line(path, number, f"a JSON object ({error})", content) from error
        if not isinstance(record, dict) or not record:
            raise wrong_line(path, number, f"a JSON object with a {first} and a {second}", content)
        yield number, content, record


def wrong_line(path: str | os.PathLike[str], number: int, expected: str, content: bytes) -> InputError:
    """The error for a line that is not in the ``expected`` form."""
    excerpt = content.decode(errors="replace").strip()
    shown = repr(excerpt[:_EXCERPT_CHARACTERS]) + ("…" if len(excerpt) > _EXCERPT_CHARACTERS else "")
    return InputError(f"{path}, line {number}: expected {expected}, got {shown}")


def dataset_named(source: str | os.PathLike[str]) -> Any | None:
    """The PyTerrier data set with this name; None if ``source`` is a path.

    Raises:
        InputError: ``source`` looks like a data set's name, but no data set has it.
    """
    if not isinstance(source, str) or not _DATASET.match(source) or os.path.exists(source):
        return None
    try:
        return pt.get_dataset(source)
    except KeyError as error:
        raise InputError(
            f"there is no data set {source!r}, nor a file of that name: give a file, or a name such as 'irds:vaswani'"
        ) from error


def ir_dataset(dataset: Any) -> Any | None:
    """The ``ir_datasets`` object behind a PyTerrier data set; None if it is made of something else."""
    return dataset.irds_ref() if hasattr(dataset, "irds_ref") else None
