"""Re-ranking what Pyserini's searchers find. Pyserini is not imported: its hits are known by their attributes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import pandas as pd

from pyterrier_bertcat.data.fields import QUERY_FIELDS, chosen_field, text_of
from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.pipeline.json_text import json_object

_NAMED = 3

Hit: TypeAlias = Any
"""A Pyserini hit (``docid``, ``score`` and ``lucene_document``), a `RerankedHit`, or a tuple (docid, score, text)."""


class ReRanker(Protocol):
    """What is asked of a re-ranker; `BertCatReRanker` has it."""

    text_field: str

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Result frame in, the same rows with new scores out, best first."""


@dataclass(frozen=True)
class RerankedHit:
    """A hit with its new score, as Pyserini's run writers, fusion and tie breaker take it.

    Attributes:
        docid: The document's identifier.
        score: The re-ranker's.
        text: What was scored.
        lucene_document: The hit's; None where it came as a tuple.
    """

    docid: str
    score: float
    text: str
    lucene_document: Any = None


def rerank(reranker: ReRanker, query: str, hits: Sequence[Hit], *, fields: Sequence[str] = ()) -> list[RerankedHit]:
    """Re-ranks the hits of one query.

    Args:
        reranker: By what.
        query: The query.
        hits: What ``searcher.search(query)`` gave, or tuples (docid, score, text).
        fields: Which fields of a JSON document are its text, joined by a space. Empty: ``text``, else ``contents``,
            ``passage``, ``segment`` or ``body``. A document that is not JSON is its own text.

    Returns:
        The hits, best first, equal scores by docid, descending as text, as trec_eval does.

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
    """Re-ranks the hits of many queries, all at once, which is faster than one by one.

    Args:
        reranker: By what.
        hits_by_qid: What ``searcher.batch_search(queries, qids)`` gave, or the same with tuples.
        queries: Query by qid, or what Pyserini's ``get_topics`` gave; qids are compared as text. More than are asked
            for will do.
        fields: As in `rerank`.

    Returns:
        The hits of each qid, as in `rerank`; the qids, and their order, are those of ``hits_by_qid``.

    Raises:
        InputError: A query is missing, or a hit has no text; the message names it.
    """
    query_of = {str(qid): query for qid, query in queries.items()}
    missing = [qid for qid in hits_by_qid if str(qid) not in query_of]
    if missing:
        named = ", ".join(map(repr, missing[:_NAMED])) + (", …" if len(missing) > _NAMED else "")
        raise InputError(f"{len(missing)} of {len(hits_by_qid)} queries are not in queries: {named}")
    qids = list(hits_by_qid)
    found = [
        (place, _query_text(query_of[str(qid)], qid), rank, _read(hit, fields))
        for place, (qid, hits) in enumerate(hits_by_qid.items())
        for rank, hit in enumerate(hits)
    ]
    frame = pd.DataFrame(
        {
            "qid": [str(qids[place]) for place, *_ in found],
            "query": [query for _, query, *_ in found],
            "docno": [hit.docid for *_, hit in found],
            "score": [hit.score for *_, hit in found],
            "rank": [rank for *_, rank, _ in found],
            reranker.text_field: [hit.text for *_, hit in found],
            "hit": range(len(found)),
        }
    )
    reranked: list[list[RerankedHit]] = [[] for _ in hits_by_qid]
    scored = reranker.transform(frame) if found else frame
    for position, score in zip(scored["hit"], scored["score"], strict=True):
        place, _, _, hit = found[position]
        reranked[place].append(RerankedHit(hit.docid, float(score), hit.text, hit.lucene_document))
    return dict(zip(hits_by_qid, reranked, strict=True))


def _query_text(query: str | Mapping[str, str], qid: object) -> str:
    if isinstance(query, str):
        return query
    return query[chosen_field(list(query), None, defaults=QUERY_FIELDS, source=f"query {qid!r}")]


def _read(hit: Hit, fields: Sequence[str]) -> RerankedHit:
    """A hit with the score that it came with, and its text."""
    if isinstance(hit, RerankedHit):
        return hit
    if isinstance(hit, (tuple, list)):
        if len(hit) != 3:
            raise InputError(
                f"expected a hit with docid, score and lucene_document, or (docid, score, text), got {hit!r}"
            )
        return RerankedHit(*hit)
    docid, document = hit.docid, hit.lucene_document
    # An index made with --storeRaw has "raw", one made with --storeContents has "contents".
    stored = None if document is None else next(filter(None, map(document.get, ("raw", "contents"))), None)
    if stored is None:
        raise InputError(
            f"docid {docid!r}: the index stores no text of it: index with --storeRaw, or give (docid, score, text)"
        )
    record = json_object(stored)
    text = stored if record is None else text_of(record, fields, source=f"docid {docid!r}")
    return RerankedHit(docid, hit.score, text, document)
