"""BM25 over a small collection in memory, by ``bm25s``: a first stage that needs neither Java nor a compiler."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import pyterrier as pt

from pyterrier_bertcat.data.order import best_first
from pyterrier_bertcat.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    import bm25s


class Bm25Retriever(pt.Transformer):  # type: ignore[misc]
    """Retrieves by Lucene's BM25; English stop words are left out, words are not stemmed.

    Reads ``qid, query``; every other column passes through. Gives one row per document found, best first, with
    ``docno``, ``score`` (float32, above 0) and ``rank`` (from 0). Ties are broken as everywhere, by docno.
    """

    schematic: ClassVar[dict[str, str]] = {"label": "BM25", "help_url": "https://github.com/xhluca/bm25s"}

    def __init__(
        self, documents: Iterable[dict[str, Any]], *, num_results: int = 1000, k1: float = 0.9, b: float = 0.4
    ) -> None:
        """Indexes the documents, which takes about a second per 10,000 short ones.

        Args:
            documents: ``{"docno": ..., "text": ...}`` each.
            num_results: the most documents per query.
            k1: how soon further occurrences of a word stop to count.
            b: how much long documents are held back, 0 to 1.

        Raises:
            InputError: if there are no documents.
            MissingExtraError: if bm25s is not installed.
        """
        bm25s = import_bm25s()
        documents = list(documents)
        if not documents:
            raise InputError("there is nothing to index: expected at least one document, got none")
        self.num_results = num_results
        self.k1 = k1
        self.b = b
        self._docnos = np.array([document["docno"] for document in documents], dtype=object)
        self._index = bm25s.BM25(k1=k1, b=b, method="lucene")
        self._index.index(_tokenize([document["text"] for document in documents]), show_progress=False)

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Retrieve for each row of a query frame."""
        pt.validate.query_frame(inp, extra_columns=["query"])
        found = [self._search(query) for query in inp["query"]]
        counts = [len(scores) for _, scores in found]
        documents = np.concatenate([np.empty(0, dtype=np.intp), *(positions for positions, _ in found)])
        scores = np.concatenate([np.empty(0, dtype=np.float32), *(scores for _, scores in found)])
        ranks = np.concatenate([np.empty(0, dtype=np.int64), *(np.arange(count) for count in counts)])
        rows = inp.iloc[np.repeat(np.arange(len(inp)), counts)].drop(columns=["score", "rank"], errors="ignore")
        results: pd.DataFrame = rows.reset_index(drop=True).assign(
            docno=self._docnos[documents], score=scores, rank=ranks
        )
        return results

    def _search(self, query: str) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the documents found, intp (k,), and their scores, float32 (k,), best first."""
        words = _tokenize([query])[0]
        if not words:
            return np.empty(0, dtype=np.intp), np.empty(0, dtype=np.float32)
        scores = np.asarray(self._index.get_scores(words), dtype=np.float32)
        found = np.flatnonzero(scores > 0)
        order = best_first(np.zeros_like(found), self._docnos[found], scores[found])
        best = found[order[: self.num_results]]
        return best, scores[best]

    def __repr__(self) -> str:
        options = f"num_results={self.num_results}, k1={self.k1}, b={self.b}"
        return f"Bm25Retriever(<{len(self._docnos)} documents>, {options})"


def import_bm25s() -> bm25s:
    """The optional package.

    Raises:
        MissingExtraError: if it is not installed.
    """
    try:
        import bm25s
    except ModuleNotFoundError as error:
        raise MissingExtraError("bm25s", extra="demo") from error
    return bm25s


def _tokenize(texts: list[str]) -> list[list[str]]:
    tokens: list[list[str]] = import_bm25s().tokenize(texts, stopwords="en", return_ids=False, show_progress=False)
    return tokens
