"""BM25 over a small collection in memory, with ``bm25s``: a first stage that needs neither Java nor a compiler."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import pyterrier as pt

from pyterrier_bertcat.data.order import best_first, ranks
from pyterrier_bertcat.errors import InputError, MissingExtraError, whole_number

if TYPE_CHECKING:
    import bm25s


class Bm25Retriever(pt.Transformer):  # type: ignore[misc]
    """Retrieves with Lucene's BM25. Leaves English stop words out and does not stem.

    Reads ``qid, query``; other columns pass through. Gives one row per document found, best first, with ``docno``,
    ``score`` (float32, above 0) and ``rank`` (from 0); equal scores by docno, as `best_first` orders them.

    Example:
        >>> from pyterrier_bertcat import Bm25Retriever
        >>> texts = {"copytree": "Copy a folder with all files.", "rmtree": "Delete a folder."}
        >>> bm25 = Bm25Retriever({"docno": docno, "text": text} for docno, text in texts.items())
        >>> bm25.search("copy folder")["docno"].tolist()
        ['copytree', 'rmtree']
    """

    schematic: ClassVar[dict[str, str]] = {"label": "BM25", "help_url": "https://github.com/xhluca/bm25s"}

    def __init__(
        self, documents: Iterable[dict[str, Any]], *, num_results: int = 1000, k1: float = 0.9, b: float = 0.4
    ) -> None:
        """Indexes the documents, which takes about a second per 10,000 short ones.

        Args:
            documents: ``{"docno": ..., "text": ...}`` each.
            num_results: The most documents per query.
            k1: Term-frequency saturation.
            b: Length normalisation, 0 (none) to 1.

        Raises:
            InputError: ``num_results`` is not a whole number of at least 1, or there are no documents.
            MissingExtraError: bm25s is not installed.
        """
        whole_number("num_results", num_results)
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
        """Retrieves documents for each row of a query frame."""
        pt.validate.query_frame(inp, extra_columns=["query"])
        found = [self._search(query) for query in inp["query"]]
        rows = np.repeat(np.arange(len(inp)), [len(scores) for _, scores in found])
        # Without any query, the empty arrays still give the columns their types.
        documents = np.concatenate([np.empty(0, dtype=np.intp), *(positions for positions, _ in found)])
        scores = np.concatenate([np.empty(0, dtype=np.float32), *(scores for _, scores in found)])
        results: pd.DataFrame = inp.iloc[rows].drop(columns=["score", "rank"], errors="ignore").reset_index(drop=True)
        results = results.assign(docno=self._docnos[documents], score=scores, rank=ranks(rows))
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
        documents = f"<{len(self._docnos)} documents>"
        return f"Bm25Retriever({documents}, num_results={self.num_results}, k1={self.k1}, b={self.b})"


def import_bm25s() -> bm25s:
    """The optional package; raises `MissingExtraError` if it is not installed."""
    try:
        import bm25s
    except ModuleNotFoundError as error:
        raise MissingExtraError("bm25s", extra="demo") from error
    return bm25s


def _tokenize(texts: list[str]) -> list[list[str]]:
    tokens: list[list[str]] = import_bm25s().tokenize(texts, stopwords="en", return_ids=False, show_progress=False)
    return tokens
