"""``pyterrier-bertcat demo``: Python's own documentation searched by BM25, and the same results re-ranked."""

from __future__ import annotations

import argparse
import re
import shutil
import time
from typing import TYPE_CHECKING, Any

from pyterrier_bertcat.cli.arguments import Commands, add_model_arguments, at_least_one, make_reranker
from pyterrier_bertcat.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

_TOP = 5
_MEASURES = {"nDCG@10": "nDCG@10", "RR@10": "MRR@10"}  # PyTerrier's names, and what papers call their means
_SIGNIFICANCE_LEVEL = 0.05


def add_parser(commands: Commands) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "demo",
        help="search Python's own documentation with BM25, and re-rank",
        description="Search Python's own documentation with BM25 and re-rank the results. With a question, show both "
        "rankings side by side; without, run an experiment over the packaged questions. Nothing is downloaded, unless "
        "the model is on the hub.",
    )
    parser.add_argument("question", nargs="*", help='for example: "copy a folder with everything in it"')
    add_model_arguments(parser)
    parser.add_argument(
        "--depth", type=at_least_one, default=100, help="re-rank this many of BM25's results (default: %(default)s)"
    )
    parser.add_argument("--top", type=at_least_one, help=f"show this many results for a question (default: {_TOP})")
    parser.set_defaults(run_command=run, usage_error=parser.error)


def run(arguments: argparse.Namespace) -> None:
    """Prints the two rankings of a question, or the outcome of an experiment over all packaged questions."""
    question = " ".join(arguments.question)
    if arguments.question and not question.strip():
        raise InputError("the question is empty: ask something, or leave it out to run the experiment")
    if arguments.top is not None and not arguments.question:
        arguments.usage_error("--top goes with a question")

    import pyterrier as pt
    from ir_measures import RR, nDCG

    from pyterrier_bertcat.data.bm25 import Bm25Retriever, import_bm25s
    from pyterrier_bertcat.data.pydoc_collection import PydocDataset, PydocTextLoader, pydoc_documents

    import_bm25s()  # if it is missing, say so before anything slow begins
    reranker = make_reranker(arguments, verbose=not question).load()
    began = time.perf_counter()
    documents = pydoc_documents()
    bm25 = Bm25Retriever(documents, num_results=arguments.depth)
    took_s = time.perf_counter() - began
    print(f"{len(documents):,} documents of Python's own documentation, read and indexed in {took_s:.1f} s.")
    print(f"BM25 (bm25s, k1 {bm25.k1}, b {bm25.b}), first {arguments.depth} re-ranked by {reranker.model}.\n")
    system = f"BM25 >> {_short_name(arguments.model)}"
    if question:
        first = bm25.search(question)
        second = (PydocTextLoader() >> reranker)(first)
        width = min(max(shutil.get_terminal_size(fallback=(100, 24)).columns, 80), 120)
        print(side_by_side(first, second, names=("BM25", system), top=arguments.top or _TOP, width=width))
        return
    topics, qrels = PydocDataset().get_topics(), PydocDataset().get_qrels()
    # Flushed, because the progress bar comes next, on another stream.
    print(f"{len(topics)} questions with {len(qrels)} judgments; unjudged documents count as wrong.", flush=True)
    results = pt.Experiment(
        [bm25, bm25 >> PydocTextLoader() >> reranker],
        topics,
        qrels,
        [nDCG @ 10, RR @ 10, "mrt"],
        names=["BM25", system],
        baseline=0,
        plan="tree",  # BM25 runs once; its time counts for both
        verbose=False,  # the re-ranker has its own progress bar
    )
    print(experiment_report(results, queries=len(topics)))


def side_by_side(first: pd.DataFrame, second: pd.DataFrame, *, names: tuple[str, str], top: int, width: int) -> str:
    """The top of two rankings for one question, in two columns of plain text, ``width`` characters together.

    The first ranking has ``docno``, ``score`` and ``rank``, the second one the same documents, with ``text`` as well.
    """
    if first.empty:
        return "BM25 finds none of the question's words, so there is nothing to re-rank: try other words."
    column = (width - 2) // 2
    first_ranks = dict(zip(first["docno"], first["rank"], strict=True))
    texts = dict(zip(second["docno"], second["text"], strict=True))
    lines = [names, ("-" * column,) * 2]
    rankings = (ranking.sort_values("rank").head(top).itertuples() for ranking in (first, second))
    for place, (left, right) in enumerate(zip(*rankings, strict=True), start=1):
        was = f" (was {first_ranks[right.docno] + 1})"
        lines += [
            (_entry(place, left, "", column=column), _entry(place, right, was, column=column)),
            (_summary(texts[left.docno], column=column), _summary(texts[right.docno], column=column)),
        ]
    return "\n".join(f"{left:<{column}}  {right}".rstrip() for left, right in lines)


def experiment_report(results: pd.DataFrame, *, queries: int) -> str:
    """What ``pt.Experiment`` with ``baseline=0`` found for two systems, the measures above and "mrt", as plain text."""
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


def _entry(place: int, row: Any, note: str, *, column: int) -> str:
    start = f"{place:>2}  {row.score:>6.2f}  "
    return start + _cut(row.docno, column - len(start) - len(note)) + note


def _summary(text: str, *, column: int) -> str:
    """The first paragraph of a document's docstring on one line, indented under its name."""
    docstring = text.partition("\n\n")[2]
    return " " * 4 + _cut(" ".join(docstring.partition("\n\n")[0].split()), column - 4)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def _short_name(model: str) -> str:
    """The last part of a hub id or path."""
    return _cut(re.split(r"[/\\]", model.rstrip("/\\"))[-1], 60)
