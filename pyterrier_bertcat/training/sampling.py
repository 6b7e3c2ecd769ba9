"""Result frames and qrels -> groups of candidates to train on. The same seed draws the same groups.

A group is one query's positive, if it has one, and some of its negatives, as row positions in the frame.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyterrier as pt

from pyterrier_bertcat.data.order import Rows, best_first, values_of
from pyterrier_bertcat.errors import TrainingDataError
from pyterrier_bertcat.training.options import TrainingOptions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidates:
    """Judged candidates of the training queries.

    Attributes:
        frame: The result frame, queries in order of first appearance, best first, index 0..n-1.
        labels: int64 (rows,), 1 if the qrels call the passage relevant, else 0.
        queries: Row positions of each usable query, best first.
    """

    frame: pd.DataFrame
    labels: npt.NDArray[np.int64]
    queries: list[Rows]


def judged_candidates(
    results: pd.DataFrame,
    qrels: pd.DataFrame,
    *,
    text_field: str,
    needs_positive: bool,
    scored: Callable[[pd.DataFrame], npt.NDArray[np.bool_]] | None = None,
) -> Candidates:
    """Joins a result frame (``qid, query, docno, <text_field>``) with its judgments (``qid, docno, label``).

    Candidates are ordered by ``score``, ties by docno as in `pyterrier_bertcat.data.order`; without scores by ``rank``;
    without either they keep their order. A label above 0 means relevant. ``needs_positive`` drops queries without a
    relevant candidate. ``scored`` tells which rows the teacher files score, bool (rows,), and the others are dropped.

    Raises:
        TrainingDataError: No candidate or no query is left; the message counts what there was, and names some.
    """
    pt.validate.result_frame(results, extra_columns=["query", text_field])
    pt.validate.columns(qrels, includes=["qid", "docno", "label"])
    refuse_missing(results, ["query", text_field])
    frame = _best_first(results)
    if scored is not None:
        frame = _known(frame, scored(frame))
    relevant = qrels.loc[qrels["label"] > 0, ["qid", "docno"]].astype(str)
    keys = pd.MultiIndex.from_frame(frame[["qid", "docno"]].astype(str))
    labels = keys.isin(pd.MultiIndex.from_frame(relevant)).astype(np.int64)
    rows_by_query = [np.sort(rows) for rows in frame.groupby("qid", sort=False, observed=True).indices.values()]
    usable = [
        rows
        for rows in rows_by_query
        if len(rows) > 1 and (labels[rows] == 0).any() and (labels[rows].any() or not needs_positive)
    ]
    if not usable:
        raise TrainingDataError(_nothing_to_train_on(results, relevant, labels, needs_positive))
    if len(usable) < len(rows_by_query):
        logger.warning(
            "%d of %d training queries are left out: no %s among their candidates",
            len(rows_by_query) - len(usable),
            len(rows_by_query),
            "relevant passage beside a negative" if needs_positive else "second passage",
        )
    return Candidates(frame, labels, usable)


def draw_groups(candidates: Candidates, options: TrainingOptions) -> list[Rows]:
    """Draws ``steps * queries_per_step`` groups: every query once, in random order, before any comes again.

    Returns:
        One array of row positions per group: the positive if there is one, the ``hardest_negatives``, the drawn ones.

    Raises:
        TrainingDataError: No query has a negative within ``options.negative_ranks``.
    """
    generator = np.random.default_rng(options.seed)
    first, last = options.negative_ranks
    pools = []
    for rows in candidates.queries:
        window = rows[first:last]
        negatives, positives = window[candidates.labels[window] == 0], rows[candidates.labels[rows] > 0]
        if len(negatives) + min(len(positives), 1) > 1 and len(negatives):
            pools.append((positives, negatives))
    if not pools:
        raise TrainingDataError(
            f"no query has a negative at ranks {first} to {last - 1}: retrieve deeper or widen negative_ranks"
        )
    groups: list[Rows] = []
    wanted = options.steps * options.queries_per_step
    while len(groups) < wanted:
        for index in generator.permutation(len(pools))[: wanted - len(groups)]:
            positives, negatives = pools[index]
            positive = generator.choice(positives, size=min(len(positives), 1))
            hardest, others = np.split(negatives, [min(options.hardest_negatives, len(negatives))])
            size = min(len(others), options.negatives + 1 - len(positive) - len(hardest))
            groups.append(np.concatenate([positive, hardest, generator.choice(others, size=size, replace=False)]))
    return groups


def _best_first(results: pd.DataFrame) -> pd.DataFrame:
    """Sorts the candidates of each query, as `judged_candidates` says, and keeps the best row of each pair."""
    frame = results.reset_index(drop=True)
    queries, docnos = pd.factorize(frame["qid"])[0], values_of(frame["docno"])
    if "score" in frame.columns:
        order = best_first(queries, docnos, frame["score"].fillna(-np.inf).to_numpy(dtype=np.float64))
    else:
        by_rank = frame["rank"].to_numpy() if "rank" in frame.columns else np.arange(len(frame))
        order = np.lexsort((by_rank, queries))
    ordered: pd.DataFrame = frame.iloc[order]
    distinct: pd.DataFrame = ordered.drop_duplicates(["qid", "docno"], ignore_index=True)
    return distinct


def _known(frame: pd.DataFrame, known: npt.NDArray[np.bool_]) -> pd.DataFrame:
    """The rows that the teacher files score, at least one, with index 0..n-1."""
    if known.all():
        return frame
    unknown = frame.loc[~known, ["qid", "docno"]].head(3).to_records(index=False).tolist()
    if not known.any():
        raise TrainingDataError(
            f"the teacher files score none of the {len(frame)} candidates, such as (qid, docno) {unknown}"
        )
    logger.warning(
        "%d of %d candidates are left out: the teacher files do not score them, such as (qid, docno) %s",
        len(frame) - known.sum(),
        len(frame),
        unknown,
    )
    kept: pd.DataFrame = frame[known].reset_index(drop=True)
    return kept


def refuse_missing(results: pd.DataFrame, columns: list[str]) -> None:
    """Refuses rows without a string in one of the columns, with a `TrainingDataError` that counts and names them."""
    for column in columns:
        bad = [not isinstance(value, str) for value in results[column]]
        if any(bad):
            docnos = results["docno"][bad].head(3).tolist()
            raise TrainingDataError(f"{sum(bad)} rows have no string in column {column!r}, such as docnos {docnos}")


def _nothing_to_train_on(
    results: pd.DataFrame, relevant: pd.DataFrame, labels: npt.NDArray[np.int64], needs_positive: bool
) -> str:
    result_qids, judged_qids = results["qid"].astype(str).unique(), relevant["qid"].unique()
    if not needs_positive:
        return (
            f"none of {len(result_qids)} queries, such as {result_qids[:3].tolist()}, has two candidates of which "
            "at least one is not relevant: retrieve deeper"
        )
    shared = np.intersect1d(result_qids, judged_qids)
    counts = f"{len(result_qids)} queries with candidates, {len(judged_qids)} with a relevant judgment"
    if not len(shared):
        examples = f"such as {result_qids[:3].tolist()} against {judged_qids[:3].tolist()}"
        return f"the qrels judge other queries: {counts}, none in both; {examples}"
    counts += f", {len(shared)} in both"
    if not labels.any():
        return (
            f"no relevant passage is among the candidates of any query: {counts}, such as {shared[:3].tolist()}; "
            "retrieve deeper, or check that docnos agree"
        )
    return f"no query has both a relevant passage and a negative among its candidates: {counts}"
