"""A run, its topics and its texts, joined: candidates that can be re-ranked or trained on, in frames of any size."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from pyterrier_bertcat.data.runs import read_run
from pyterrier_bertcat.data.texts import read_texts
from pyterrier_bertcat.data.topics import read_topics
from pyterrier_bertcat.errors import InputError

_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class RunSources:
    """Where candidates come from, and what is made of what does not fit.

    Attributes:
        run: A TREC run; see `read_run`.
        topics: A file or a data set's name; see `read_topics`.
        texts: A file or a data set's name; see `read_texts`.
        topic_field: Which part of a topic is the query. None: the title, or what stands for it.
        text_fields: Which parts of a document are its text. Empty: the text, or what stands for it.
        duplicates: Whether a pair that comes again in the run is an error, or its first row is kept.
        unknown: Whether a query or document of the run that there is no text of is an error, or its rows are left out.
    """

    run: str | os.PathLike[str]
    topics: str | os.PathLike[str]
    texts: str | os.PathLike[str]
    topic_field: str | None = None
    text_fields: Sequence[str] = ()
    duplicates: Literal["fail", "first"] = "fail"
    unknown: Literal["fail", "skip"] = "fail"


@dataclass(frozen=True)
class RunCandidates:
    """The rows of a run, with what their queries and documents say. The texts are kept once each.

    Attributes:
        rows: ``qid``, ``docno``, ``score``, ``rank``, as `read_run` gives them.
        queries: Query by qid.
        texts: Text by docno, of those documents that are to be scored.
        skipped: What was left out, in words; empty if nothing was.
    """

    rows: pd.DataFrame
    queries: dict[str, str]
    texts: dict[str, str]
    skipped: str

    def frame(self) -> pd.DataFrame:
        """All rows as one result frame: ``qid``, ``query``, ``docno``, ``text``, ``score``, ``rank``."""
        return self._with_texts(self.rows)

    def frames(self, *, rows_at_least: int) -> Iterator[pd.DataFrame]:
        """The same rows as several frames, none of which parts a query.

        Args:
            rows_at_least: Where a frame has so many rows, it ends with the query.
        """
        qids, _ = pd.factorize(self.rows["qid"])
        ends = np.append(np.flatnonzero(qids[1:] != qids[:-1]) + 1, len(qids))  # after each query's last row
        start = 0
        while start < len(qids):
            full = int(np.searchsorted(ends, start + rows_at_least))
            end = int(ends[min(full, len(ends) - 1)])
            yield self._with_texts(self.rows.iloc[start:end])
            start = end

    def _with_texts(self, rows: pd.DataFrame) -> pd.DataFrame:
        # A row without a text is below the depth that is scored.
        texts = np.array([self.texts.get(docno, "") for docno in rows["docno"]], dtype=object)
        queries = np.array([self.queries[qid] for qid in rows["qid"]], dtype=object)
        named: dict[str, Any] = {"query": queries, "text": texts}
        frame: pd.DataFrame = rows.assign(**named)
        return frame


def read_candidates(sources: RunSources, *, depth: int | None = None, verbose: bool = True) -> RunCandidates:
    """Reads a run, its topics, and as much of the collection as the run needs.

    Args:
        sources: What to read.
        depth: How many documents of each query need a text. None: all.
        verbose: Shows progress.

    Raises:
        InputError: A file is of another form; or queries or documents of the run are unknown and none may be skipped,
            or none is left. The message counts and names them.
    """
    rows = read_run(sources.run, duplicates=sources.duplicates)
    topics = read_topics(sources.topics, field=sources.topic_field)
    qids = rows["qid"].unique()
    with_query = rows[rows["qid"].isin(topics.keys())]
    # What is skipped makes room for documents below the depth, so that they need texts too.
    needs_text = with_query if depth is None or sources.unknown == "skip" else with_query[with_query["rank"] < depth]
    docnos = needs_text["docno"].unique()
    texts = read_texts(sources.texts, docnos, fields=sources.text_fields, verbose=verbose)
    unknown = [
        problem
        for problem in (
            _unknown("queries", [qid for qid in qids if qid not in topics], of=len(qids), source=sources.topics),
            _unknown(
                "documents", [docno for docno in docnos if docno not in texts], of=len(docnos), source=sources.texts
            ),
        )
        if problem
    ]
    if unknown and sources.unknown == "fail":
        raise InputError(
            f"{sources.run}: {'; '.join(unknown)}. Give the topics and texts of the collection that the run is of, or "
            "leave these out with unknown='skip' (--unknown skip)"
        )
    if unknown:
        rows = with_query[with_query["docno"].isin(texts.keys())].reset_index(drop=True)
        rows["rank"] = rows.groupby("qid", sort=False).cumcount()
    if rows.empty:
        raise InputError(f"{sources.run}: nothing is left of it: {'; '.join(unknown)}")
    return RunCandidates(rows, {qid: topics[qid] for qid in rows["qid"].unique()}, texts, "; ".join(unknown))


def _unknown(kind: str, missing: Collection[str], *, of: int, source: object) -> str:
    """Count and name what is missing, or say nothing where nothing is."""
    if not missing:
        return ""
    named = ", ".join(map(repr, list(missing)[:_NAMED])) + (", …" if len(missing) > _NAMED else "")
    return f"{len(missing):,} of {of:,} {kind} are not in {source}: {named}"
