"""``pyterrier-bertcat demo``: Python's own documentation searched by BM25, and the same results re-ranked."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import time
import warnings
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NamedTuple

from pyterrier_bertcat.cli.arguments import Commands, add_model_arguments, at_least_one, make_reranker
from pyterrier_bertcat.errors import InputError, TruncationWarning
from pyterrier_bertcat.model.names import PACKAGED, PUBLISHED

if TYPE_CHECKING:
    import pandas as pd

    from pyterrier_bertcat.data.bm25 import Bm25Retriever
    from pyterrier_bertcat.reranker import BertCatReRanker

# The quick start: the packaged checkpoint re-ranks this much for all questions in under a minute on two ordinary cores.
_DEPTH = 100
_EXAMPLES = ("convert a string to a datetime", "fix some arguments of a function to make a new one")
_EXAMPLE_TOP = 3
_FULL_DEPTH = 1000  # as in the paper
_TOP = 5
_MEASURES = {"nDCG@10": "nDCG@10", "RR@10": "MRR@10"}  # PyTerrier's names, and what papers call their means
_SIGNIFICANCE_LEVEL = 0.05


class Marks(NamedTuple):
    """Signs beside a result."""

    relevant: str = "✓"
    up: str = "↑"
    down: str = "↓"
    cut: str = "…"

    @classmethod
    def for_encoding(cls, encoding: str) -> Marks:
        """These signs, or others that any encoding has."""
        try:
            "".join(cls()).encode(encoding)
        except UnicodeEncodeError:
            return cls(relevant="*", up="+", down="-", cut="...")
        return cls()


def add_parser(commands: Commands) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "demo",
        help="search Python's own documentation with BM25, and re-rank",
        description="Search Python's own documentation with BM25 and re-rank the results. With a question, show both "
        "rankings side by side; without, show examples and run an experiment over the packaged questions. Nothing is "
        "downloaded, unless the model is on the hub.",
    )
    parser.add_argument("question", nargs="*", help=f'for example: "{_EXAMPLES[0]}"')
    add_model_arguments(parser)
    parser.add_argument(
        "--depth", type=at_least_one, default=_DEPTH, help="re-rank this many of BM25's results (default: %(default)s)"
    )
    parser.add_argument("--top", type=at_least_one, help=f"show this many results for a question (default: {_TOP})")
    parser.set_defaults(run_command=run, usage_error=parser.error)


def run(arguments: argparse.Namespace) -> None:
    """Prints both rankings of a question; or of example questions, and then an experiment over all packaged ones."""
    question = " ".join(arguments.question)
    if arguments.question and not question.strip():
        raise InputError("the question is empty: ask something, or leave it out to run the experiment")
    if arguments.top is not None and not arguments.question:
        arguments.usage_error("--top goes with a question")

    from pyterrier_bertcat.data.bm25 import Bm25Retriever, import_bm25s
    from pyterrier_bertcat.data.pydoc_collection import PydocDataset, pydoc_documents, reading_ahead

    import_bm25s()  # if it is missing, say so before anything slow begins
    reranker = make_reranker(arguments, verbose=False)
    with reading_ahead() as reads:
        if reads:
            _show("Reading the documentation of this Python; the next time it is there at once ...")
            reranker.load()
    bm25 = Bm25Retriever(documents := pydoc_documents(), num_results=arguments.depth)
    version = ".".join(map(str, sys.version_info[:2]))
    _show(f"{len(documents):,} documents: the library and language reference of Python {version}.")
    _show(f"BM25 (bm25s, k1 {bm25.k1}, b {bm25.b}) searches; {reranker.model} re-ranks the first {arguments.depth}.")
    names = ("BM25", f"BM25 >> {_short_name(arguments.model)}")
    demo = _Demo(bm25, reranker)
    topics, qrels = PydocDataset().get_topicsqrels()
    relevant = qrels.merge(topics).groupby("query")["docno"].agg(set)
    for asked in (question,) if question else _EXAMPLES:
        top = (arguments.top or _TOP) if question else _EXAMPLE_TOP
        _show(f"\n{'Your' if question else 'An example'} question: {asked}\n")
        reranker.load()  # now, while there is something to read, and not in the time of the first answer
        answer, judged = demo.answer(asked), relevant.get(asked, set())
        _show(side_by_side(answer, names=names, top=top, relevant=judged, scores=bool(question)))
    marks = _marks()
    if judged:
        _show(f"\n{marks.relevant} is judged to answer the question; {marks.up}4 is four places higher than with BM25.")
    if question:
        return
    _show(
        f"\nNow all {len(topics)} questions, which have {len(qrels)} judgments. "
        f"That takes about {_about(demo.seconds_for(len(topics)))};\nCtrl-C shows the table so far."
    )
    answers: list[Answer] = []
    try:
        demo.answer_all(topics, answers)
    except KeyboardInterrupt:
        _show(f"\nStopped after {len(answers)} of {len(topics)} questions.")
        if len(answers) > 1:
            _show(_report(answers, topics, qrels, names=names))
        raise
    _show(_report(answers, topics, qrels, names=names))
    _show(_what_next(arguments, seconds=demo.seconds_for(len(topics), depth=_FULL_DEPTH)))


class Answer(NamedTuple):
    """What both systems found for one question.

    Attributes:
        first: BM25's ranking: ``docno``, ``score`` and ``rank``.
        second: The same documents re-ranked, with their ``text``.
        seconds: How long each of the two took.
        cut: How many texts were longer than what the model reads.
    """

    first: pd.DataFrame
    second: pd.DataFrame
    seconds: tuple[float, float] = (0.0, 0.0)
    cut: int = 0


class _Demo:
    """Answers questions with BM25, and with BM25 re-ranked, and knows how long that takes."""

    def __init__(self, bm25: Bm25Retriever, reranker: BertCatReRanker) -> None:
        from pyterrier_bertcat.data.pydoc_collection import PydocTextLoader

        self._bm25, self._reranker, self._load_texts = bm25, reranker, PydocTextLoader()
        self._known: list[Answer] = []

    def answer(self, question: str, *, qid: str = "1") -> Answer:
        """Answers one question."""
        import pandas as pd

        began = time.perf_counter()
        first = self._bm25(pd.DataFrame({"qid": [qid], "query": [question]}))
        found = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TruncationWarning)  # the report says how many texts were cut
            second = self._reranker(self._load_texts(first))
        stats = self._reranker.stats if len(first) else None
        seconds = (found - began, time.perf_counter() - found)
        answer = Answer(first, second, seconds, cut=stats.truncated_texts if stats is not None else 0)
        self._known.append(answer)
        return answer

    def answer_all(self, topics: pd.DataFrame, answers: list[Answer]) -> None:
        """Answers all questions, with a bar on a terminal, and adds each answer as soon as it is known."""
        import pyterrier as pt

        questions = zip(topics["qid"], topics["query"], strict=True)
        is_terminal = sys.stderr.isatty()
        with pt.tqdm(
            total=len(topics), desc="Re-ranking", unit="question", leave=False, disable=not is_terminal
        ) as bar:
            for qid, question in questions:
                answers.append(self.answer(question, qid=qid))
                bar.update()

    def seconds_for(self, questions: int, *, depth: int | None = None) -> float:
        """How long so many questions will take at a depth, or at that of the answers so far."""
        known = self._known[1:] or self._known  # the first one took longer, because the model was still cold
        seconds = sum(sum(answer.seconds) for answer in known) / len(known)
        pairs = sum(len(answer.first) for answer in known) / len(known)
        return questions * seconds * (1 if depth is None else depth / max(pairs, 1))


def side_by_side(
    answer: Answer,
    *,
    names: tuple[str, str],
    top: int,
    relevant: Collection[str] = (),
    scores: bool = True,
    width: int | None = None,
    marks: Marks | None = None,
) -> str:
    """The top of both rankings in two columns of plain text.

    Args:
        answer: The rankings.
        names: What to call them.
        top: How many results to show of each.
        relevant: Docnos to mark.
        scores: Whether to show scores.
        width: Characters of a line. None: the terminal's, but 80 to 120.
        marks: The signs to use. None: those that stdout can show.
    """
    if answer.first.empty:
        return "BM25 finds none of the question's words, so there is nothing to re-rank: try other words."
    marks = _marks() if marks is None else marks
    width = min(max(shutil.get_terminal_size(fallback=(80, 24)).columns, 80), 120) if width is None else width
    column = (width - 2) // 2
    places = dict(zip(answer.first["docno"], answer.first["rank"], strict=True))
    texts = dict(zip(answer.second["docno"], answer.second["text"], strict=True))

    def entry(row: Any) -> tuple[str, str]:
        risen = places[row.docno] - row.rank  # 0 in BM25's own ranking
        move = f"{marks.up if risen > 0 else marks.down}{abs(risen)}" if risen else ""
        notes = (f"{row.score:>7.2f}" if scores else "") + (f"{move:>5}" if row.is_second else "")
        mark = marks.relevant if row.docno in relevant else " "
        name = _last(row.docno, column - 5 - len(notes), marks.cut)
        start = f"{row.rank + 1:>2} {mark} {name}"
        return f"{start:<{column - len(notes)}}{notes}", "     " + _cut(
            _summary(texts[row.docno]), column - 5, marks.cut
        )

    heads = [_cut(f"{name} ({_took(s)})", column, marks.cut) for name, s in zip(names, answer.seconds, strict=True)]
    lines = [tuple(heads), ("-" * column,) * 2]
    rankings = (
        ranking.assign(is_second=is_second).sort_values("rank").head(top).itertuples()
        for ranking, is_second in ((answer.first, False), (answer.second, True))
    )
    for both in zip(*rankings, strict=True):
        lines += zip(*map(entry, both), strict=True)
    return "\n".join(f"{left:<{column}}  {right}".rstrip() for left, right in lines)


def experiment_report(results: pd.DataFrame, *, queries: int) -> str:
    """What ``pt.Experiment`` with ``baseline=0`` found for two systems, the measures above and "mrt", as plain text."""
    name_width = max(len(name) for name in results["name"])
    lines = ["", " " * name_width + "".join(f"{title:>10}" for title in (*_MEASURES.values(), "ms/query"))]
    for _, row in results.iterrows():
        scores = "".join(f"{row[measure]:>10.3f}" for measure in _MEASURES)
        lines.append(f"{row['name']:<{name_width}}{scores}{row['mrt']:>10.1f}")
    baseline, system = results.iloc[0], results.iloc[1]
    lines += ["", f"{system['name']} against {baseline['name']} over {queries} questions (paired t-test):"]
    for measure, title in _MEASURES.items():
        better, worse = int(system[f"{measure} +"]), int(system[f"{measure} -"])
        p_value = system[f"{measure} p-value"]
        verdict = "significant" if p_value < _SIGNIFICANCE_LEVEL else "not significant"
        lines.append(
            f"  {title:<8} {system[measure] - baseline[measure]:+.3f}  {better} better, {worse} worse, "
            f"{queries - better - worse} the same  p = {p_value:.2g}, {verdict}"
        )
    return "\n".join(lines)


def _report(answers: list[Answer], topics: pd.DataFrame, qrels: pd.DataFrame, *, names: tuple[str, str]) -> str:
    """The table over the questions that have been answered, and how many texts were cut."""
    import pandas as pd
    import pyterrier as pt
    from ir_measures import RR, nDCG

    some = topics.head(len(answers))
    results = pt.Experiment(
        [pd.concat([answer.first for answer in answers]), pd.concat([answer.second for answer in answers])],
        some,
        qrels[qrels["qid"].isin(some["qid"])],
        [nDCG @ 10, RR @ 10],
        names=list(names),
        baseline=0,
        verbose=False,
    )
    bm25_s, both_s = (sum(sum(answer.seconds[:systems]) for answer in answers) for systems in (1, 2))
    report = experiment_report(
        results.assign(mrt=[1000 * s / len(answers) for s in (bm25_s, both_s)]), queries=len(some)
    )
    pairs, cut = sum(len(answer.first) for answer in answers), sum(answer.cut for answer in answers)
    if 100 * cut > pairs:
        report += f"\n{cut:,} of {pairs:,} texts were longer than the model reads: it read the beginning."
    return report


def _what_next(arguments: argparse.Namespace, *, seconds: float) -> str:
    command = "pyterrier-bertcat demo" + ("" if arguments.model == PACKAGED else f" --model {arguments.model}")
    return (
        "\nWhat to do next:\n"
        f'  {command} "your own question about Python"\n'
        f"  {command} --depth {_FULL_DEPTH}  (about {_about(seconds)})\n"
        "  notebooks/quickstart.ipynb, the same step by step\n"
        "For the authors' checkpoint, 265 MB from the Hugging Face hub, add\n"
        f"  --model {PUBLISHED}"
    )


def _show(text: str) -> None:
    """Prints text, with a question mark for what stdout can't show, and at once, because a bar may come next."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, errors="replace").decode(encoding), flush=True)


def _marks() -> Marks:
    return Marks.for_encoding(sys.stdout.encoding or "utf-8")


def _summary(text: str) -> str:
    """The first paragraph of a document's docstring on one line."""
    docstring = text.partition("\n\n")[2]
    return " ".join(docstring.partition("\n\n")[0].split())


def _cut(text: str, length: int, mark: str = "...") -> str:
    return text if len(text) <= length else text[: length - len(mark)] + mark


def _last(text: str, length: int, mark: str) -> str:
    """The end of a dotted name that is too long: a method says more than its module."""
    if len(text) <= length:
        return text
    end = text[len(text) - length + len(mark) :]
    return mark + (end.partition(".")[2] or end)


def _took(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{1000 * seconds:.1f} ms"


def _about(seconds: float) -> str:
    """A time in round numbers."""
    return f"{max(seconds, 1):.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _short_name(model: str) -> str:
    """The last part of a hub id or path."""
    return _cut(re.split(r"[/\\]", model.rstrip("/\\"))[-1], 60)
