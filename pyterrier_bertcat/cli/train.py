"""``pyterrier-bertcat train``."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from pyterrier_bertcat.cli.arguments import (
    Commands,
    add_job_arguments,
    add_model_arguments,
    add_run_arguments,
    at_least_one,
    run_sources,
)

if TYPE_CHECKING:
    import pandas as pd

    from pyterrier_bertcat.data.candidates import RunSources
    from pyterrier_bertcat.training.options import TrainingOptions

# Arguments that are options of the same name of `TrainingOptions`, which knows their defaults and says what is wrong.
_OPTIONS: dict[str, tuple[Any, str]] = {
    "steps": (at_least_one, "optimiser steps (2000)"),
    "queries_per_step": (at_least_one, "queries per optimiser step (8)"),
    "negatives": (at_least_one, "passages per query beside the relevant one (7)"),
    "learning_rate": (float, "peak learning rate of AdamW (7e-6)"),
    "warmup_steps": (int, "steps in which the learning rate rises (100)"),
    "precision": (str, "float32, or bfloat16 or float16: mixed (float32)"),
    "seed": (int, "of the queries' order, the negatives and dropout (42)"),
    "save_every": (at_least_one, "steps between two saved states (250)"),
    "measure": (str, "an ir_measures measure, for the validation run (nDCG@10)"),
    "patience": (at_least_one, "stop after so many evaluations without a gain (never)"),
}


def add_parser(commands: Commands) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "train",
        help="fine-tune or distil a checkpoint on a TREC run file",
        description="Fine-tune a checkpoint on the candidates of a TREC run file; distil, with --teacher-scores. A "
        "training that was stopped is finished by starting it again.",
    )
    add_run_arguments(parser)
    parser.add_argument("--qrels", required=True, metavar="FILE|NAME", help="TREC qrels: qid iteration docno label")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="the trained checkpoint and its saved states")
    validation = parser.add_argument_group("validation", "the state with the best measure is kept")
    validation.add_argument("--valid-run", metavar="FILE", help="a TREC run")
    validation.add_argument("--valid-qrels", metavar="FILE|NAME", help="its qrels (--qrels)")
    validation.add_argument("--valid-topics", metavar="FILE|NAME", help="its topics (--topics)")
    validation.add_argument("--valid-texts", metavar="FILE|NAME", help="its texts (--texts)")
    training = parser.add_argument_group("training")
    training.add_argument(
        "--loss", choices=("contrastive", "margin-mse"), help="margin-mse needs --teacher-scores (what fits)"
    )
    training.add_argument(
        "--teacher-scores",
        metavar="FILE",
        action="append",
        default=[],
        help="lines pos_score neg_score qid pos_docno neg_docno; several: their mean",
    )
    for name, (kind, text) in _OPTIONS.items():
        training.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="VALUE", help=text)
    add_model_arguments(parser, dtype=False)
    add_job_arguments(parser)
    parser.set_defaults(run_command=run, usage_error=parser.error)


def run(arguments: argparse.Namespace) -> None:
    """Runs it."""
    for name in ("valid_qrels", "valid_topics", "valid_texts"):
        if getattr(arguments, name) is not None and arguments.valid_run is None:
            arguments.usage_error(f"--{name.replace('_', '-')} is for a --valid-run")

    from pyterrier_bertcat.reranker import BertCatReRanker

    verbose = not arguments.quiet
    reranker = BertCatReRanker(
        arguments.model,
        device=arguments.device,
        max_length=arguments.max_length,
        training=_training_options(arguments),
        verbose=verbose,
    )
    candidates, qrels = _read(arguments, run_sources(arguments), arguments.qrels)
    valid_candidates, valid_qrels = None, None
    if arguments.valid_run is not None:
        sources = run_sources(
            arguments,
            run=arguments.valid_run,
            topics=arguments.valid_topics or arguments.topics,
            texts=arguments.valid_texts or arguments.texts,
        )
        valid_candidates, valid_qrels = _read(arguments, sources, arguments.valid_qrels or arguments.qrels)
    if arguments.dry_run:
        return
    reranker.fit(candidates, qrels, valid_candidates, valid_qrels)
    if verbose:
        print(f"{arguments.output}: {arguments.model}, trained")


def _read(arguments: argparse.Namespace, sources: RunSources, qrels_source: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Candidates and their judgments; says what is there."""
    from pyterrier_bertcat.data.candidates import read_candidates
    from pyterrier_bertcat.data.qrels import read_qrels

    qrels = read_qrels(qrels_source)
    candidates = read_candidates(sources, verbose=not arguments.quiet)
    if candidates.skipped:
        print(f"pyterrier-bertcat: warning: skipped: {candidates.skipped}", file=sys.stderr)
    if not arguments.quiet:
        rows = f"{len(candidates.rows):,} candidates of {len(candidates.queries):,} queries"
        print(f"{sources.run}: {rows}; {qrels_source}: {len(qrels):,} judgments")
    return candidates.frame(), qrels


def _training_options(arguments: argparse.Namespace) -> TrainingOptions:
    from pyterrier_bertcat.training.losses import Contrastive, MarginMSE
    from pyterrier_bertcat.training.options import TrainingOptions
    from pyterrier_bertcat.training.teachers import TeacherFile

    given = {name: getattr(arguments, name) for name in _OPTIONS if getattr(arguments, name) is not None}
    losses = {"contrastive": Contrastive, "margin-mse": MarginMSE}
    return TrainingOptions(
        **given,
        loss=losses[arguments.loss]() if arguments.loss else None,
        teacher=[TeacherFile(path) for path in arguments.teacher_scores] or None,
        output=arguments.output,
    )
