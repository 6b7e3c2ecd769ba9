"""Which fields of a record are its query or its text: of topics, of documents in JSON, of data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyterrier_bertcat.errors import InputError

DOCNO_FIELDS = ("docno", "doc_id", "docid", "_id", "id", "pid")
QUERY_FIELDS = ("title", "query", "question", "text")
TEXT_FIELDS = ("text", "contents", "passage", "segment", "body")


def chosen_field(available: Sequence[str], field: str | None, *, defaults: Sequence[str], source: object) -> str:
    """Which field of a record is read.

    Args:
        available: The record's fields that may be meant.
        field: The one that was asked for, or None.
        defaults: What is taken if none was: the first of these that there is, or else the only field.
        source: What to call the record.

    Raises:
        InputError: There is no such field; the message lists those that there are.
    """
    wanted = [field] if field is not None else [*defaults, *(available if len(available) == 1 else [])]
    for name in wanted:
        if name in available:
            return name
    raise InputError(
        f"{source}: expected a field {' or '.join(map(repr, wanted))}, "
        f"there are {', '.join(map(repr, available)) or 'none'}"
    )


def text_of(record: Mapping[str, Any], fields: Sequence[str], *, source: object) -> str:
    """The text of a document.

    Args:
        record: Its fields.
        fields: Which of them, joined by a space. Empty: the first of `TEXT_FIELDS` that there is, or else the only
            field that is no identifier.
        source: What to call the record.

    Raises:
        InputError: There is no such field, or it is not a string of Unicode.
    """
    available = [name for name in record if name not in DOCNO_FIELDS]
    names = [chosen_field(available, name, defaults=TEXT_FIELDS, source=source) for name in fields or (None,)]
    for name in names:
        if not isinstance(record[name], str):
            raise InputError(f"{source}: expected a string in field {name!r}, got {record[name]!r:.80}")
    text = " ".join(record[name] for name in names)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{source}: expected Unicode in the text, got half of a surrogate pair: {error}") from error
    return text
