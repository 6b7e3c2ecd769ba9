"""``json_text``: the text out of documents that an index stores as JSON, as Anserini's do in their field ``raw``."""

from __future__ import annotations

import json
from typing import ClassVar

import pandas as pd
import pyterrier as pt

from pyterrier_bertcat.data.fields import text_of
from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.identity import IdentifiedByOptions


class JsonText(IdentifiedByOptions, pt.Transformer):  # type: ignore[misc]
    """Reads JSON objects in one column into a column of text; every other column passes through, on the same index."""

    schematic: ClassVar[dict[str, str]] = {"label": "JSON text", "help_url": "https://www.json.org"}

    def __init__(self, column: str, field: str | tuple[str, ...], *, text_field: str = "text") -> None:
        """Keeps the options.

        Args:
            column: Holds a JSON object in each row, as a string.
            field: Which of the object's fields is the text; of several, the texts are joined by a space.
            text_field: The column to write.
        """
        self.column = column
        self.field = field
        self.text_field = text_field

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Adds the text to a result frame.

        Raises:
            pt.validate.InputValidationError: A column is missing.
            InputError: A row holds no JSON object, or one without that field; the message names its docno.
        """
        pt.validate.columns(inp, includes=["docno", self.column])
        fields = (self.field,) if isinstance(self.field, str) else self.field
        texts = [
            text_of(self._record(docno, value), fields, source=f"docno {docno!r}, column {self.column!r}")
            for docno, value in zip(inp["docno"], inp[self.column], strict=True)
        ]
        out: pd.DataFrame = inp.assign(**{self.text_field: pd.Series(texts, index=inp.index, dtype=object)})
        return out

    def _record(self, docno: object, value: object) -> dict[str, object]:
        record = json_object(value)
        if record is None:
            raise InputError(f"docno {docno!r}, column {self.column!r}: expected a JSON object, got {value!r:.80}")
        return record


def json_text(column: str, field: str | tuple[str, ...], *, text_field: str = "text") -> JsonText:
    """A transformer that reads the text out of JSON; see `JsonText`.

    Example:
        >>> bm25 = AnseriniIndex("index").bm25(include_fields=["raw"])  # doctest: +SKIP
        >>> pipeline = bm25 >> json_text("raw", "contents") >> BertCatReRanker()  # doctest: +SKIP
    """
    return JsonText(column, field, text_field=text_field)


def json_object(value: object) -> dict[str, object] | None:
    """The JSON object that a string holds, or None."""
    if not isinstance(value, str):
        return None
    try:
        record = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
