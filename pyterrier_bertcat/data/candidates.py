"""A run joined with its topics and texts: candidates to re-rank or to train on, in frames of any size."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from pyterrier_bertcat.data.runs import read_run
from pyterrier_bertcat.data.texts import read_texts
from pyterrier_bertcat.data.topics import read_topics
from pyterrier_bertcat.errors import InputError, some_of


@dataclass(frozen=True, kw_only=True)
class RunSources:
    """Where candidates come from, and what to do with rows that do not fit.

    Attributes:
        run: A TREC run; see `read_run`.
        topics: A file or a data set's name; see `read_topics`.
        texts: A file or a data set's name; see `read_texts`.
        topic_field: The ``field`` of `read_topics`.
        text_fields: The ``fields`` of `read_texts`.
        duplicates: As for `read_run`.
        unknown: What to do with rows whose query or document has no text: ``"fail"`` refuses the run, ``"skip"`` leaves
            them out.
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
    """The rows of a run, and each text once.

    Attributes:
        rows: ``qid``, ``docno``, ``score``, ``rank``, as `read_run` gives them.
        queries: Query by qid.
        texts: Text by docno, for the documents to score.
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
        """Yields the same rows in several frames. Each ends with the query that gives it ``rows_at_least`` rows."""
        qids, _ = pd.factorize(self.rows["qid"])
        ends = np.append(np.flatnonzero(qids[1:] != qids[:-1]) + 1, len(qids))  # after each query's last row
        start = 0
        while start < len(qids):
            full = int(np.searchsorted(ends, start + rows_at_least))
            end = int(ends[min(full, len(ends) - 1)])
            yield self._with_texts(self.rows.iloc[start:end])
            start = end

    def _with_texts(self, rows: pd.DataFrame) -> pd.DataFrame:
        # Rows below the depth to score may have no text.
        texts = np.array([self.texts.get(docno, "") for docno in rows["docno"]], dtype=object)
        queries = np.array([self.queries[qid] for qid in rows["qid"]], dtype=object)
        frame: pd.DataFrame = rows.assign(query=queries, text=texts)
        return frame


def read_candidates(sources: RunSources, *, depth: int | None = None, verbose: bool = True) -> RunCandidates:
    """Reads a run, its topics, and as much of the collection as the run needs.

    Args:
        sources: What to read.
        depth: How many documents of each query need a text. None: all.
        verbose: Shows progress.

    Raises:
        InputError: A file has another form, queries or documents are unknown and may not be skipped, or no row is left.
            The message counts and names them.
    """
    rows = read_run(sources.run, duplicates=sources.duplicates)
    topics = read_topics(sources.topics, field=sources.topic_field)
    qids = rows["qid"].unique()
    with_query = rows[rows["qid"].isin(topics.keys())]
    # Skipped rows let documents from below the depth move up, so those need texts too.
    needs_text = with_query if depth is None or sources.unknown == "skip" else with_query[with_query["rank"] < depth]
    docnos = needs_text["docno"].unique()
    texts = read_texts(sources.texts, docnos, fields=sources.text_fields, verbose=verbose)
    unknown = "; ".join(
        f"{len(missing):,} of {len(asked):,} {kind} are not in {source}: {some_of(missing)}"
        for kind, asked, known, source in (
            ("queries", qids, topics, sources.topics),
            ("documents", docnos, texts, sources.texts),
        )
        if (missing := [name for name in asked if name not in known])
    )
    if unknown and sources.unknown == "fail":
        raise InputError(
            f"{sources.run}: {unknown}. Give the topics and texts of the collection that was searched, or leave these "
            "rows out with unknown='skip' (--unknown skip)"
        )
    if unknown:
        rows = with_query[with_query["docno"].isin(texts.keys())].reset_index(drop=True)
        rows["rank"] = rows.groupby("qid", sort=False).cumcount()
    if rows.empty:
        raise InputError(f"{sources.run}: nothing is left of it: {unknown}")
    return RunCandidates(rows, {qid: topics[qid] for qid in rows["qid"].unique()}, texts, unknown)
