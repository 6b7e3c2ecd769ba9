"""The quick start: Python's own documentation searched by BM25, and the same results re-ranked by a BERT_Cat."""

from __future__ import annotations

import shutil
import textwrap
import time
from dataclasses import dataclass
from typing import TextIO

import pandas as pd
import pyterrier as pt
from ir_measures import RR, nDCG

from pyterrier_bertcat.data.bm25 import Bm25Retriever, import_bm25s
from pyterrier_bertcat.data.pydoc_collection import PydocDataset, PydocTextLoader, pydoc_documents
from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.reranker import BertCatReRanker

_MEASURES = {"nDCG@10": "nDCG@10", "RR@10": "MRR@10"}  # as PyTerrier names them, as papers name their means
_SIGNIFICANCE_LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """What the quick start runs.

    Attributes:
        model: as `BertCatReRanker` takes it: a hub id, a folder, or ``"mini"``.
        depth: how many of BM25's results are re-ranked.
        top: how many results are shown for a question.
        device: as `BertCatReRanker` takes it.
        dtype: as `BertCatReRanker` takes it.
    """

    model: str = "mini"
    depth: int = 100
    top: int = 5
    device: str | None = None
    dtype: str = "auto"

    def __post_init__(self) -> None:
        for name in ("depth", "top"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")


def run_demo(question: str | None, options: DemoOptions, *, out: TextIO) -> None:
    """Write the two rankings of a question to ``out``; without a question, an experiment over all packaged ones.

    Raises:
        InputError: if the question is blank, or this Python has no library sources to read.
        CheckpointError: if the model can't be loaded.
        MissingExtraError: if bm25s is not installed.
    """
    if question is not None and not question.strip():
        raise InputError("the question is empty: ask something, or leave it out to run the experiment")
    import_bm25s()  # what is missing is said before anything slow begins
    reranker = BertCatReRanker(
        options.model, device=options.device, dtype=options.dtype, verbose=question is None
    ).load()
    started = time.perf_counter()
    documents = pydoc_documents()
    bm25 = Bm25Retriever(documents, num_results=options.depth)
    took_s = time.perf_counter() - started
    print(f"{len(documents):,} documents of Python's own documentation, read and indexed in {took_s:.1f} s.", file=out)
    print(f"BM25 (bm25s, k1 {bm25.k1}, b {bm25.b}), first {options.depth} re-ranked by {options.model}.\n", file=out)
    if question is None:
        dataset = PydocDataset()
        topics, qrels = dataset.get_topics(), dataset.get_qrels()
        print(f"{len(topics)} questions with {len(qrels)} judgments; what is not judged counts as wrong.", file=out)
        out.flush()  # the progress bar comes next, on another stream
        results = pt.Experiment(
            [bm25, bm25 >> PydocTextLoader() >> reranker],
            topics,
            qrels,
            [nDCG @ 10, RR @ 10, "mrt"],
            names=["BM25", f"BM25 >> {_short_name(options.model)}"],
            baseline=0,
            plan="tree",  # BM25 runs once; its time counts for both
            verbose=False,  # the re-ranker has its own progress bar
        )
        print(experiment_report(results, queries=len(topics)), file=out)
    else:
        first = bm25.search(question)
        second = (PydocTextLoader() >> reranker)(first)
        print(side_by_side(first, second, model=options.model, top=options.top, width=_width()), file=out)


def side_by_side(first: pd.DataFrame, second: pd.DataFrame, *, model: str, top: int, width: int) -> str:
    """Two rankings of one question in two columns of plain text.

    Args:
        first: the results of the first stage, ``docno, score, rank``.
        second: the same documents re-ranked, with ``text`` as well.
        model: the re-ranker's name, for the heading.
        top: how many of each are shown.
        width: characters per line.
    """
    if first.empty:
        return "BM25 finds none of the question's words, so there is nothing to re-rank: try other words."
    column = (width - 2) // 2
    first_ranks = dict(zip(first["docno"], first["rank"], strict=True))
    texts = dict(zip(second["docno"], second["text"], strict=True))
    headings = ("BM25", f"BM25 >> {_short_name(model)}")
    lines = [_two_columns(*headings, column=column), _two_columns("-" * column, "-" * column, column=column)]
    left_rows = first.sort_values("rank").head(top).itertuples()
    right_rows = second.sort_values("rank").head(top).itertuples()
    for place, (left, right) in enumerate(zip(left_rows, right_rows, strict=True), start=1):
        was = f" (was {first_ranks[right.docno] + 1})"
        lines += [
            _two_columns(
                _entry(place, left.score, left.docno, "", column=column),
                _entry(place, right.score, right.docno, was, column=column),
                column=column,
            ),
            _two_columns(*(_summary(texts[row.docno], column=column) for row in (left, right)), column=column),
        ]
    return "\n".join(lines)


def experiment_report(results: pd.DataFrame, *, queries: int) -> str:
    """The outcome of ``pt.Experiment`` with ``baseline=0`` on two systems, as plain text.

    Args:
        results: one row per system: ``name``, ``nDCG@10``, ``RR@10``, ``mrt``, and per measure PyTerrier's ``+``,
            ``-`` and ``p-value`` columns.
        queries: how many queries were run.
    """
    name_width = max(len(name) for name in results["name"])
    lines = ["", " " * name_width + "".join(f"{title:>10}" for title in (*_MEASURES.values(), "ms/query"))]
    for _, row in results.iterrows():
        scores = "".join(f"{row[measure]:>10.3f}" for measure in _MEASURES)
        lines.append(f"{row['name']:<{name_width}}{scores}{row['mrt']:>10.1f}")
    baseline, system = results.iloc[0], results.iloc[1]
    lines += ["", f"{system['name']} against {baseline['name']} (paired t-test over {queries} questions):"]
    for measure, title in _MEASURES.items():
        better, worse = int(system[f"{measure} +"]), int(system[f"{measure} -"])
        p_value = system[f"{measure} p-value"]
        verdict = "significant" if p_value < _SIGNIFICANCE_LEVEL else "not significant"
        lines.append(
            f"  {title:<8} {system[measure] - baseline[measure]:+.3f}   better on {better}, worse on {worse}, "
            f"the same on {queries - better - worse};  p = {p_value:.2g} ({verdict} at {_SIGNIFICANCE_LEVEL})"
        )
    return "\n".join(lines)


def _entry(place: int, score: float, docno: str, note: str, *, column: int) -> str:
    start = f"{place:>2}  {score:>6.2f}  "
    return start + _cut(docno, column - len(start) - len(note)) + note


def _summary(text: str, *, column: int) -> str:
    """The first paragraph of a document's docstring on one line, indented under its name."""
    docstring = text.partition("\n\n")[2]
    return " " * 4 + _cut(" ".join(docstring.partition("\n\n")[0].split()), column - 4)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def _two_columns(left: str, right: str, *, column: int) -> str:
    return f"{left:<{column}}  {right}".rstrip()


def _short_name(model: str) -> str:
    """The last part of a hub id or path."""
    return textwrap.shorten(model.replace("\\", "/").rstrip("/").rpartition("/")[2], 60, placeholder="...")


def _width() -> int:
    """The terminal's width, between 80 and 120; 100 where there is none."""
    return min(max(shutil.get_terminal_size(fallback=(100, 24)).columns, 80), 120)
