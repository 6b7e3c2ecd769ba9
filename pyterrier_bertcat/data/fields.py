"""Which fields of a record are its query or its text, in topics, JSON documents and data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyterrier_bertcat.errors import InputError

DOCNO_FIELDS = ("docno", "doc_id", "docid", "_id", "id", "pid")
QUERY_FIELDS = ("title", "query", "question", "text")
TEXT_FIELDS = ("text", "contents", "passage", "segment", "body")


def chosen_field(available: Sequence[str], field: str | None, *, defaults: Sequence[str], source: object) -> str:
    """Chooses which field of a record to read.

    Args:
        available: The record's fields.
        field: The field that the user asked for. None: the first of ``defaults`` that the record has, or else its only
            field.
        defaults: Fields to look for, best first.
        source: What to call the record in a message.

    Raises:
        InputError: The record has no such field; the message lists those that it has.
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
        fields: Those to join with a space. Empty: the first of `TEXT_FIELDS` that the record has, or else the only
            field that is no identifier.
        source: What to call the record in a message.

    Raises:
        InputError: A field is missing or is not a Unicode string.
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
