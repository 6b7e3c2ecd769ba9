"""``pyterrier-bertcat rerank``."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from pyterrier_bertcat.cli.arguments import (
    Commands,
    add_job_arguments,
    add_model_arguments,
    add_run_arguments,
    at_least_one,
    passage_tokens,
    run_sources,
)


def add_parser(commands: Commands) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "rerank",
        help="re-rank a TREC run file",
        description="Re-rank a TREC run file. A job that was stopped, by kill -9 too, is finished by starting it "
        "again: scores are kept beside the output until it is complete.",
    )
    add_run_arguments(parser)
    parser.add_argument("--output", required=True, metavar="FILE", help="the run to write; gzip if it ends in .gz")
    parser.add_argument("--depth", type=at_least_one, metavar="K", help="re-rank the first K only, keep the rest below")
    parser.add_argument("--tag", default="bertcat", help="the last column of the output (bertcat)")
    stores = parser.add_mutually_exclusive_group()
    stores.add_argument(
        "--store", metavar="PATH", help="keep scores there, for other jobs too (OUTPUT.scores, removed when complete)"
    )
    stores.add_argument("--no-store", action="store_true", help="keep no scores: a stopped job starts anew")
    add_model_arguments(parser, default=None)
    long = parser.add_argument_group("long documents")
    long.add_argument(
        "--passages",
        type=passage_tokens,
        metavar="TOKENS[,STRIDE]",
        help="score documents by passages of so many tokens, one beginning so many after the other (half of TOKENS)",
    )
    long.add_argument("--aggregate", help="the document's score, of its passages': max, first, mean, sum (max)")
    long.add_argument("--truncation", default="longest_first", help="or only_text, paper (longest_first)")
    parser.add_argument(
        "--devices",
        type=lambda value: value if value == "all" else value.split(","),
        metavar="all|D,D",
        help="several devices, each with a process of its own",
    )
    add_job_arguments(parser)
    parser.set_defaults(run_command=run)


def run(arguments: argparse.Namespace) -> None:
    """Runs it."""
    from pyterrier_bertcat.cli.rerank_job import check_output, describe, remove_store, rerank_run, temporary_store
    from pyterrier_bertcat.data.candidates import read_candidates
    from pyterrier_bertcat.data.runs import RunWriter
    from pyterrier_bertcat.errors import InputError
    from pyterrier_bertcat.pairs.passages import Passages
    from pyterrier_bertcat.reranker import BertCatReRanker
    from pyterrier_bertcat.scoring.statistics import truncation_message

    sources, output = run_sources(arguments), RunWriter(arguments.output, tag=arguments.tag)
    check_output(sources, arguments.output)
    temporary = None if arguments.store or arguments.no_store else temporary_store(arguments.output)
    if arguments.aggregate and not arguments.passages:
        raise InputError("--aggregate is of passages: say how long they are with --passages")
    passages = Passages(**arguments.passages, aggregate=arguments.aggregate or "max") if arguments.passages else None
    given: dict[str, Any] = {
        "model": arguments.model,
        "depth": arguments.depth,
        "store": arguments.store or temporary,
        "devices": arguments.devices,
        "passages": passages,
    }
    reranker = BertCatReRanker(
        **{name: value for name, value in given.items() if value is not None},
        device=arguments.device,
        dtype=arguments.dtype,
        backend=arguments.backend,
        max_length=arguments.max_length,
        truncation=arguments.truncation,
        verbose=False,  # the job shows its own progress, which knows how much is left
    )
    verbose = not arguments.quiet
    candidates = read_candidates(sources, depth=arguments.depth, verbose=verbose)
    if candidates.skipped:
        print(f"pyterrier-bertcat: warning: skipped: {candidates.skipped}", file=sys.stderr)
    if arguments.dry_run:
        reranker.load()
        print(describe(candidates, depth=arguments.depth, max_length=arguments.max_length, passages=passages))
        return
    total = rerank_run(candidates, reranker, output, verbose=verbose)
    if message := truncation_message(total, passages=passages, activity="command"):
        print(f"pyterrier-bertcat: warning: {message}", file=sys.stderr)
    if temporary is not None:
        remove_store(temporary)
    if verbose:
        queries = len(candidates.queries)
        print(f"{output.path}: {len(candidates.rows):,} rows, {queries:,} queries, re-ranked by {reranker.model}")
