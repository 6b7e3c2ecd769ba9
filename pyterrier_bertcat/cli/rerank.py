"""``pyterrier-bertcat rerank``: a run is read, scored query by query and written."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from pyterrier_bertcat.cli.arguments import (
    Commands,
    add_job_arguments,
    add_model_arguments,
    add_run_arguments,
    at_least_one,
    given,
    make_reranker,
    run_sources,
)
from pyterrier_bertcat.errors import InputError, TruncationWarning

if TYPE_CHECKING:
    from pyterrier_bertcat.data.candidates import RunCandidates
    from pyterrier_bertcat.data.runs import RunWriter
    from pyterrier_bertcat.reranker import BertCatReRanker
    from pyterrier_bertcat.scoring.statistics import RunStatistics

# A frame is scored and, with a store, kept at once. A CPU gets small ones, so that the progress moves and a killed job
# loses little. Other devices want many pairs to sort by length and to tokenise ahead.
_CPU_ROWS, _DEVICE_ROWS = 256, 16384
_CHARACTERS_PER_TOKEN = 4.5  # of English, about
_LOG_INTERVAL_S = 30.0


def add_parser(commands: Commands) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "rerank",
        help="re-rank a TREC run file",
        description="Re-rank a TREC run file. If the job is stopped, even by kill -9, run the same command again to "
        "finish it: scores are kept beside the output until it is complete.",
    )
    add_run_arguments(parser)
    parser.add_argument("--output", required=True, metavar="FILE", help="the run to write; gzipped if it ends in .gz")
    parser.add_argument(
        "--depth", type=at_least_one, metavar="K", help="re-rank each query's first K, keep the rest below"
    )
    parser.add_argument("--tag", help="the last column of the output (default: bertcat)")
    stores = parser.add_mutually_exclusive_group()
    store_help = "keep scores here, for other jobs too (default: OUTPUT.scores, removed once the output is complete)"
    stores.add_argument("--store", metavar="PATH", help=store_help)
    stores.add_argument("--no-store", action="store_true", help="keep no scores: a stopped job starts from scratch")
    add_model_arguments(parser, default=None)
    parser.add_argument(
        "--devices",
        type=lambda value: value if value == "all" else value.split(","),
        metavar="all|DEVICE,DEVICE",
        help="score on several devices, with a process for each; all: on every GPU",
    )
    long = parser.add_argument_group("long documents")
    passages_help = "score documents by passages of TOKENS tokens, one every STRIDE tokens (default: half of TOKENS)"
    long.add_argument("--passages", type=_passage_tokens, metavar="TOKENS[,STRIDE]", help=passages_help)
    long.add_argument(
        "--aggregate",
        type=_aggregate,
        metavar="HOW",
        help="how passage scores make the document's score: max, first, mean, sum, or kmax:3, the mean of the best 3 "
        "(default: max)",
    )
    long.add_argument(
        "--truncation",
        help="how pairs that are too long are cut: longest_first, only_text, or paper, which cuts queries to 30 tokens "
        "and texts to 200 (default: longest_first)",
    )
    add_job_arguments(parser)
    parser.set_defaults(run_command=run, usage_error=parser.error)


def run(arguments: argparse.Namespace) -> None:
    """Re-ranks, or says what there is to do."""
    from pyterrier_bertcat.data.candidates import read_candidates
    from pyterrier_bertcat.data.runs import RunWriter
    from pyterrier_bertcat.pairs.passages import Passages
    from pyterrier_bertcat.scoring.statistics import truncation_message

    output = RunWriter(arguments.output, **given(arguments, "tag"))
    for path in given(arguments, "run", "topics", "texts", "calibration").values():
        if os.path.exists(output.path) and os.path.exists(path) and os.path.samefile(output.path, path):
            raise InputError(f"{path} is an input file and can't be the output too: choose another output")
    temporary = None if arguments.store or arguments.no_store else _temporary_store(arguments.output)
    if arguments.aggregate and not arguments.passages:
        arguments.usage_error("--aggregate combines the scores of passages: say how long passages are with --passages")
    passages = Passages(**arguments.passages, **(arguments.aggregate or {})) if arguments.passages else None
    reranker = make_reranker(
        arguments,
        *("depth", "devices", "max_length", "truncation"),
        passages=passages,
        store=arguments.store or temporary,
        verbose=False,  # the job shows its own progress, which knows how much is left
    )
    verbose = not arguments.quiet
    candidates = read_candidates(run_sources(arguments), depth=arguments.depth, verbose=verbose)
    if candidates.skipped:
        print(f"pyterrier-bertcat: warning: skipped: {candidates.skipped}", file=sys.stderr)
    if arguments.dry_run:
        print(_described(candidates, reranker.load()))
        return
    total = _rerank(candidates, reranker, output, verbose=verbose)
    if message := truncation_message(total, passages=passages, activity="command"):
        print(f"pyterrier-bertcat: warning: {message}", file=sys.stderr)
    if temporary is not None and temporary.exists():  # it does not if no pair was scored
        shutil.rmtree(temporary)
    if verbose:
        queries = len(candidates.queries)
        print(f"{output.path}: {len(candidates.rows):,} rows, {queries:,} queries, re-ranked by {reranker.model}")


def _rerank(candidates: RunCandidates, reranker: BertCatReRanker, run: RunWriter, *, verbose: bool) -> RunStatistics:
    """Re-ranks and writes frame by frame, and counts what was cut in all of them, instead of warning for each."""
    import pyterrier as pt

    from pyterrier_bertcat.scoring.devices import choose_device
    from pyterrier_bertcat.scoring.statistics import RunStatistics

    total = RunStatistics()
    with run:  # before the model is loaded: a folder that can't be written to should cost no time
        reranker.load()
        rows_at_least = _CPU_ROWS if choose_device(reranker.device).type == "cpu" else _DEVICE_ROWS
        interval_s = 0.1 if sys.stderr.isatty() else _LOG_INTERVAL_S  # a log file should not fill with bars
        with pt.tqdm(
            total=len(candidates.rows), desc="BERT_Cat", unit="pair", mininterval=interval_s, disable=not verbose
        ) as bar:
            for frame in candidates.frames(rows_at_least=rows_at_least):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", TruncationWarning)
                    run.write(reranker.transform(frame))
                total.include(reranker.stats or RunStatistics())
                bar.update(len(frame))
    return total


def _described(candidates: RunCandidates, reranker: BertCatReRanker) -> str:
    """What there is to do, in lines for people. Tokens are estimated from characters, and cut as tokens would be."""
    import numpy as np

    from pyterrier_bertcat.scoring.options import ScoringOptions

    rows, options = candidates.rows, ScoringOptions.of(reranker).for_checkpoint(reranker.checkpoint)
    scored = rows if reranker.depth is None else rows[rows["rank"] < reranker.depth]
    pairs = {(candidates.queries[q], candidates.texts[d]) for q, d in zip(scored["qid"], scored["docno"], strict=True)}
    characters = np.array([(len(query), len(text)) for query, text in pairs])
    queries, texts = np.ceil(characters.T / _CHARACTERS_PER_TOKEN).astype(np.int64)
    special = reranker.checkpoint.tokenizer.num_special_tokens_to_add(pair=True)
    if options.passages is None:
        queries, texts = options.truncation.kept(queries, texts, special=special)
    else:
        windows = options.passages.windows(queries, texts, options.truncation, special=special)
        queries, texts = windows.kept
    tokens = float(f"{(queries + texts + special).sum():.2g}")
    return (
        f"run       {len(rows):,} rows, {rows['qid'].nunique():,} queries, {rows['docno'].nunique():,} documents\n"
        f"to score  {len(scored):,} pairs, {len(pairs):,} distinct, about {tokens:,.0f} tokens\n"
        f"skipped   {candidates.skipped or 'nothing'}"
    )


def _temporary_store(output: str) -> Path:
    """The folder beside a run that holds its scores until the run is complete."""
    folder = Path(f"{output}.scores")
    is_empty = folder.is_dir() and not any(folder.iterdir())
    if folder.exists() and not is_empty and not (folder / "pt_meta.json").exists():
        raise InputError(f"{folder} is not a score store: choose another output, or say where scores go with --store")
    return folder


def _passage_tokens(value: str) -> dict[str, int]:
    """The length and stride of passages, from ``200`` or ``200,100``."""
    first, comma, second = value.partition(",")
    length = at_least_one(first)
    return {"length": length, "stride": at_least_one(second) if comma else max(1, length // 2)}


def _aggregate(value: str) -> dict[str, str | int]:
    """How passages' scores are aggregated, from ``mean`` or ``kmax:3``."""
    name, colon, k = value.partition(":")
    if name == "kmax" and not colon:
        raise argparse.ArgumentTypeError("kmax needs the number of passages that it averages, such as kmax:3")
    return {"aggregate": name, "k": at_least_one(k)} if colon else {"aggregate": name}
