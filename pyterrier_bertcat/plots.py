"""Plots of result frames before and after re-ranking: how one query's ranks moved, and which queries gained."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import ir_measures
import numpy as np
import pandas as pd
import pyterrier as pt

from pyterrier_bertcat.data.measures import measure_of
from pyterrier_bertcat.data.order import best_first, values_of
from pyterrier_bertcat.errors import InputError, MissingExtraError, whole_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_UP, _DOWN, _SAME = "#2882c8", "#d9730d", "#8a939b"  # colour-blind people can tell them apart; as in explanations
_DOCNO_CHARACTERS = 28
_TITLE_CHARACTERS = 80
_QUERIES_NAMED = 40


def rank_movement(
    before: pd.DataFrame,
    after: pd.DataFrame,
    *,
    qid: Any = None,
    top: int = 10,
    qrels: pd.DataFrame | None = None,
    names: tuple[str, str] = ("BM25", "BERT_Cat"),
    axes: Axes | None = None,
) -> Axes:
    """Draws how one query's documents moved: a line each, from its rank before to its rank after.

    It shows the documents among the first ``top`` before or after. If a document's other rank is lower, it is drawn
    below these, in order, with its rank. Ranks count from 1, by ``score``, ties by docno as in ``pt.Experiment``.

    Args:
        before: A result frame with ``qid``, ``docno`` and ``score``, such as BM25's.
        after: The re-ranker's result frame.
        qid: The query to draw. None: the only query of the frames.
        top: How many ranks to show.
        qrels: ``qid``, ``docno``, ``label``. Relevant documents (label above 0) get a thick line and a bold docno.
        names: Names of the two rankings.
        axes: Where to draw. None: on a new figure.

    Returns:
        The axes; ``axes.figure.savefig(path)`` saves them.

    Raises:
        pt.validate.InputValidationError: A column is missing.
        InputError: The frames don't hold the query, or hold several and ``qid`` is None; or ``top`` is below 1.
        MissingExtraError: matplotlib is not installed.
    """
    whole_number("top", top)
    _check(before, after)
    qid = _the_query(before, after, qid)
    ranks = [_ranks(frame[frame["qid"] == qid]) for frame in (before, after)]
    shown = {docno for ranking in ranks for docno, rank in ranking.items() if rank <= top}
    relevant = set() if qrels is None else set(qrels[(qrels["qid"] == qid) & (qrels["label"] > 0)]["docno"])
    places = [_places(shown, ranking, top) for ranking in ranks]
    lowest = max(place for side in places for place in side.values())
    axes = axes or _new_axes(7.0, 1.2 + 0.28 * lowest)
    for docno in sorted(shown, key=lambda docno: places[1][docno]):
        ends = [side[docno] for side in places]
        old, new = (ranking.get(docno, float("inf")) for ranking in ranks)
        color = _UP if new < old else _DOWN if new > old else _SAME
        bold = docno in relevant
        axes.plot([0, 1], ends, color=color, linewidth=3 if bold else 1.4, marker="o", markersize=4, label=docno)
        for x, ranking, place, side, shift in zip((0, 1), ranks, ends, ("right", "left"), (-0.03, 0.03), strict=True):
            rank = f"{ranking[docno]}" if docno in ranking else "\N{EN DASH}"
            label = f"{_short(docno)}  {rank}" if side == "right" else f"{rank}  {_short(docno)}"
            weight = "bold" if bold else "normal"
            axes.text(x + shift, place, label, ha=side, va="center", fontsize=9, fontweight=weight, parse_math=False)
    if lowest > top:
        axes.axhline(top + 0.5, color=_SAME, linewidth=0.8, linestyle=":")
    axes.set(xlim=(-0.9, 1.9), ylim=(lowest + 0.7, 0.3), xticks=[0, 1], xticklabels=names, yticks=[])
    axes.tick_params(bottom=False, top=False, labelbottom=False, labeltop=True)
    axes.spines[:].set_visible(False)
    axes.set_title(_title(after, qid), fontsize=10, parse_math=False)
    return axes


def effectiveness_per_query(
    before: pd.DataFrame,
    after: pd.DataFrame,
    qrels: pd.DataFrame,
    *,
    measure: Any = ir_measures.nDCG @ 10,
    names: tuple[str, str] = ("BM25", "BERT_Cat"),
    axes: Axes | None = None,
) -> Axes:
    """Draws by how much each query gained or lost: a bar each, the largest gain first.

    Args:
        before: A result frame with ``qid``, ``docno`` and ``score``, such as BM25's.
        after: The re-ranker's result frame. A query that one of the two frames lacks counts as 0 there.
        qrels: ``qid``, ``docno``, ``label``. Queries without judgments are left out.
        measure: An ``ir_measures`` measure, or its name.
        names: Names of the two rankings.
        axes: Where to draw. None: on a new figure.

    Returns:
        The axes, with a title that gives the means and how many queries gained and lost.

    Raises:
        pt.validate.InputValidationError: A column is missing.
        InputError: No query has judgments, or ir_measures has no such measure.
        MissingExtraError: matplotlib is not installed.
    """
    _check(before, after)
    measure = measure_of(measure)
    qids = sorted({*before["qid"], *after["qid"]} & {*qrels["qid"]})
    if not qids:
        raise InputError(
            f"none of the {before['qid'].nunique()} queries has judgments: make the qids of the frames and the qrels "
            "agree, also in their type"
        )
    judged = qrels[qrels["qid"].isin(qids)]
    old, new = (_per_query(frame, judged, measure) for frame in (before, after))
    gains = sorted(((round(new[qid] - old[qid], 9), qid) for qid in qids), key=lambda gain: -gain[0])
    axes = axes or _new_axes(min(4.0 + 0.16 * len(qids), 12.0), 3.6)
    heights = [gain for gain, _ in gains]
    axes.bar(range(len(gains)), heights, color=[_UP if gain > 0 else _DOWN for gain in heights], width=0.8)
    axes.axhline(0, color=_SAME, linewidth=0.8)
    better, worse = (sum(sign * gain > 0 for gain in heights) for sign in (1, -1))
    means = [sum(values[qid] for qid in qids) / len(qids) for values in (old, new)]
    axes.set_title(
        f"{names[0]} {means[0]:.3f}, {names[1]} {means[1]:.3f}: "
        f"better on {better}, worse on {worse}, the same on {len(qids) - better - worse}",
        fontsize=10,
        parse_math=False,
    )
    axes.set(xlim=(-0.7, len(qids) - 0.3), xlabel=f"{len(qids)} queries", ylabel=f"gain in {measure}")
    named = len(qids) <= _QUERIES_NAMED
    axes.set_xticks(range(len(qids)) if named else [], [str(qid) for _, qid in gains] if named else [], rotation=90)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _check(*frames: pd.DataFrame) -> None:
    for frame in frames:
        pt.validate.result_frame(frame, extra_columns=["score"])


def _the_query(before: pd.DataFrame, after: pd.DataFrame, qid: Any) -> Any:
    found = list(dict.fromkeys([*before["qid"], *after["qid"]]))
    if qid is None and len(found) == 1:
        return found[0]
    if qid is None or qid not in found:
        problem = "choose a query with qid=" if qid is None else f"there is no query {qid!r}"
        raise InputError(f"{problem}; the frames hold {len(found)}: {', '.join(map(repr, found[:5]))}")
    return qid


def _ranks(results: pd.DataFrame) -> dict[Any, int]:
    """The rank of each docno, from 1. A docno that occurs twice has its best rank."""
    docnos = values_of(results["docno"])
    order = best_first(np.zeros(len(results)), docnos, results["score"].to_numpy())
    return {docno: rank for rank, docno in enumerate(dict.fromkeys(docnos[order]), start=1)}


def _places(shown: set[Any], ranking: dict[Any, int], top: int) -> dict[Any, int]:
    """Where to draw each document: at its rank, or in order below the first ``top``; unranked documents come last."""
    below = sorted(docno for docno in shown if ranking.get(docno, top + 1) > top)
    below.sort(key=lambda docno: ranking.get(docno, float("inf")))
    places = {docno: ranking[docno] for docno in shown if ranking.get(docno, top + 1) <= top}
    return {**places, **{docno: place for place, docno in enumerate(below, start=top + 1)}}


def _per_query(results: pd.DataFrame, qrels: pd.DataFrame, measure: Any) -> dict[Any, float]:
    run = results[["qid", "docno", "score"]].rename(columns={"qid": "query_id", "docno": "doc_id"})
    judgments = qrels.rename(columns={"qid": "query_id", "docno": "doc_id", "label": "relevance"})
    return {value.query_id: value.value for value in ir_measures.iter_calc([measure], judgments, run)}


def _title(results: pd.DataFrame, qid: Any) -> str:
    queries = results[results["qid"] == qid].get("query")
    title = f"{qid}: {queries.iloc[0]}" if queries is not None and len(queries) else str(qid)
    return textwrap.fill(title, _TITLE_CHARACTERS)  # matplotlib's own wrapping would read dollars as formulas


def _short(docno: Any) -> str:
    name = str(docno)
    return name if len(name) <= _DOCNO_CHARACTERS else f"{name[: _DOCNO_CHARACTERS - 1]}…"


def _new_axes(width: float, height: float) -> Axes:
    try:
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", extra="explain") from error
    return plt.subplots(figsize=(width, height), layout="constrained")[1]
