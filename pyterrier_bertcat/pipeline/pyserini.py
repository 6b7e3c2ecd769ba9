"""Anserini's and Pyserini's documents: ``json_text`` reads their JSON, ``rerank`` and ``rerank_batch`` re-rank hits.

Pyserini is never imported: its hits are recognised by their attributes.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, TypeAlias

import pandas as pd
import pyterrier as pt

from pyterrier_bertcat.data.fields import QUERY_FIELDS, chosen_field, text_of
from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.identity import IdentifiedByOptions

_NAMED = 3

Hit: TypeAlias = Any
"""A Pyserini hit (``docid``, ``score`` and ``lucene_document``), a `RerankedHit`, or a tuple (docid, score, text)."""


class json_text(IdentifiedByOptions, pt.Transformer):  # type: ignore[misc]  # noqa: N801 (reads as a pipeline's step)
    """Reads the text out of documents that an index stores as JSON, such as Anserini's in their field ``raw``.

    It adds the text's column to a frame. Every other column passes through, on the same index.

    Example:
        >>> bm25 = AnseriniIndex("index").bm25(include_fields=["raw"])  # doctest: +SKIP
        >>> pipeline = bm25 >> json_text("raw", "contents") >> BertCatReRanker()  # doctest: +SKIP
    """

    schematic: ClassVar[dict[str, str]] = {"label": "JSON text", "help_url": "https://www.json.org"}

    def __init__(self, column: str, field: str | tuple[str, ...], *, text_field: str = "text") -> None:
        """Keeps the options.

        Args:
            column: The column that holds a JSON object in each row, as a string.
            field: The object's field with the text. The texts of several fields are joined by spaces.
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
        texts = []
        for docno, value in zip(inp["docno"], inp[self.column], strict=True):
            source = f"docno {docno!r}, column {self.column!r}"
            record = _json_object(value)
            if record is None:
                raise InputError(f"{source}: expected a JSON object, got {value!r:.80}")
            texts.append(text_of(record, fields, source=source))
        out: pd.DataFrame = inp.assign(**{self.text_field: pd.Series(texts, index=inp.index, dtype=object)})
        return out


class ReRanker(Protocol):
    """The part of a `BertCatReRanker` that re-ranks hits."""

    @property
    def text_field(self) -> str:
        """The column with the documents' text."""

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Returns the rows of a result frame with new scores, best first."""


@dataclass(frozen=True)
class RerankedHit:
    """A hit with its new score, as Pyserini's run writers, fusion and tie breaker take it.

    Attributes:
        docid: The document's identifier.
        score: The re-ranker's score.
        text: The text that was scored.
        lucene_document: The hit's own document; None if it came as a tuple.
    """

    docid: str
    score: float
    text: str
    lucene_document: Any = None


def rerank(reranker: ReRanker, query: str, hits: Sequence[Hit], *, fields: Sequence[str] = ()) -> list[RerankedHit]:
    """Re-ranks the hits of one query.

    Args:
        reranker: Scores the hits.
        query: The query.
        hits: The result of ``searcher.search(query)``, or tuples (docid, score, text).
        fields: The fields of a JSON document that make up its text, joined by spaces. Empty: ``text``, else
            ``contents``, ``passage``, ``segment`` or ``body``. A document that is not JSON is its own text.

    Returns:
        The hits, best first; equal scores by docid, descending as text, as trec_eval does.

    Raises:
        InputError: A hit has no text; the message names it.
    """
    return rerank_batch(reranker, {"": hits}, {"": query}, fields=fields)[""]


def rerank_batch(
    reranker: ReRanker,
    hits_by_qid: Mapping[Hashable, Sequence[Hit]],
    queries: Mapping[Any, str | Mapping[str, str]],
    *,
    fields: Sequence[str] = (),
) -> dict[Hashable, list[RerankedHit]]:
    """Re-ranks the hits of many queries in one run, which is faster than one query after the other.

    Args:
        reranker: Scores the hits.
        hits_by_qid: The result of ``searcher.batch_search(queries, qids)``, or tuples (docid, score, text) by qid.
        queries: Query by qid, or the result of Pyserini's ``get_topics``. Qids are compared as text, and queries
            without hits are ignored.
        fields: As in `rerank`.

    Returns:
        The hits of each qid, as in `rerank`, with the qids of ``hits_by_qid`` in their order.

    Raises:
        InputError: A query is missing, or a hit has no text; the message names it.
    """
    query_of = {str(qid): query for qid, query in queries.items()}
    missing = [qid for qid in hits_by_qid if str(qid) not in query_of]
    if missing:
        named = ", ".join(map(repr, missing[:_NAMED])) + (", …" if len(missing) > _NAMED else "")
        raise InputError(f"{len(missing)} of {len(hits_by_qid)} queries are not in queries: {named}")
    rows: list[tuple[Any, ...]] = []
    read, reranked = [], []
    for qid, hits in hits_by_qid.items():
        query, hits_of_query = query_of[str(qid)], list[RerankedHit]()
        if not isinstance(query, str):
            query = query[chosen_field(list(query), None, defaults=QUERY_FIELDS, source=f"query {qid!r}")]
        reranked.append(hits_of_query)
        for rank, hit in enumerate(_read(hit, fields) for hit in hits):
            rows.append((str(qid), query, hit.docid, hit.score, rank, hit.text, len(rows)))
            read.append((hit, hits_of_query))
    if rows:
        columns = ["qid", "query", "docno", "score", "rank", reranker.text_field, "hit"]
        scored = reranker.transform(pd.DataFrame(rows, columns=columns))
        for position, score in zip(scored["hit"], scored["score"], strict=True):
            hit, hits_of_query = read[position]
            hits_of_query.append(replace(hit, score=float(score)))
    return dict(zip(hits_by_qid, reranked, strict=True))


def _read(hit: Hit, fields: Sequence[str]) -> RerankedHit:
    """A hit with its text and the score that it came with."""
    if isinstance(hit, RerankedHit):
        return hit
    if isinstance(hit, (tuple, list)):
        if len(hit) != 3:
            raise InputError(
                f"expected a hit with docid, score and lucene_document, or (docid, score, text), got {hit!r}"
            )
        return RerankedHit(*hit)
    if isinstance(hit, str):
        raise InputError(
            f"expected a hit with docid, score and lucene_document, or (docid, score, text), got the text {hit!r:.80}: "
            "for a list of texts, use rank(query, texts)"
        )
    docid, document = hit.docid, hit.lucene_document
    # An index made with --storeRaw has "raw", one made with --storeContents has "contents".
    stored = None if document is None else document.get("raw") or document.get("contents")
    if not stored:
        raise InputError(
            f"docid {docid!r}: the index stores no text for it: index with --storeRaw, or give (docid, score, text)"
        )
    record = _json_object(stored)
    text = stored if record is None else text_of(record, fields, source=f"docid {docid!r}")
    return RerankedHit(docid, hit.score, text, document)


def _json_object(value: object) -> dict[str, object] | None:
    """The JSON object that a string holds, or None."""
    try:
        record = json.loads(value) if isinstance(value, str) else None
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
