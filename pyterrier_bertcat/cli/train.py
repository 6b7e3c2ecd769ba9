"""``pyterrier-bertcat train``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    import pandas as pd

    from pyterrier_bertcat.data.candidates import RunSources

# Arguments that are options of `TrainingOptions` with the same name. It owns their defaults and checks their values.
_OPTIONS: dict[str, tuple[Any, str]] = {
    "steps": (at_least_one, "optimiser steps (default: 2000)"),
    "queries_per_step": (at_least_one, "queries per optimiser step (default: 8)"),
    "negatives": (at_least_one, "passages per query beside the relevant one (default: 7)"),
    "hardest_negatives": (int, "how many of these are the best-ranked ones, in every group (default: 0)"),
    "learning_rate": (float, "peak learning rate of AdamW (default: 7e-6)"),
    "head_learning_rate": (float, "the peak for the layers on top of the encoder (default: the same)"),
    "final_learning_rate": (float, "the learning rate at the last step (default: 0)"),
    "warmup_steps": (int, "steps in which the learning rate rises (default: 100)"),
    "weight_decay": (float, "AdamW's weight decay (default: 0)"),
    "averaging": (float, "average the weights: the share that each step's have, such as 0.002 (default: no average)"),
    "precision": (str, "float32; or bfloat16 or float16, for mixed precision (default: float32)"),
    "seed": (int, "fixes the queries' order, the negatives and dropout (default: 42)"),
    "save_every": (at_least_one, "steps between two saved states (default: 250)"),
    "measure": (str, "an ir_measures measure for the validation run (default: nDCG@10)"),
    "patience": (at_least_one, "stop after this many evaluations without a gain (default: never)"),
}
_VALID_SOURCES = ("valid_run", "valid_qrels", "valid_topics", "valid_texts")


def add_parser(commands: Commands) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "train",
        help="fine-tune or distil a checkpoint on a TREC run file",
        description="Fine-tune a checkpoint on the candidates of a TREC run file. With --teacher-scores, distil "
        "the teachers into it. If training is stopped, run the same command again to finish it.",
    )
    add_run_arguments(parser)
    parser.add_argument("--qrels", required=True, metavar="FILE|NAME", help="TREC qrels")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="for the trained checkpoint and saved states")
    validation = parser.add_argument_group("validation", "The saved state with the best measure is kept.")
    validation.add_argument("--valid-run", metavar="FILE", help="a TREC run")
    for name in ("qrels", "topics", "texts"):
        validation.add_argument(f"--valid-{name}", metavar="FILE|NAME", help=f"its {name} (default: those of --{name})")
    training = parser.add_argument_group("training")
    training.add_argument(
        "--loss",
        choices=("contrastive", "margin-mse", "listwise-kl"),
        help="margin-mse and listwise-kl need --teacher-scores (default: margin-mse with them, contrastive without)",
    )
    training.add_argument(
        "--teacher-scores",
        metavar="FILE",
        action="append",
        default=[],
        help="tab-separated: pos_score neg_score qid pos_docno neg_docno; repeat it for the mean of several files",
    )
    for name, (kind, text) in _OPTIONS.items():
        training.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="VALUE", help=text)
    training.add_argument(
        "--gradient-checkpointing",
        action="store_true",
        default=None,
        help="save memory at the cost of time: compute activations again instead of keeping them",
    )
    add_model_arguments(parser, dtype=False)
    add_job_arguments(parser)
    parser.set_defaults(run_command=run, usage_error=parser.error)


def run(arguments: argparse.Namespace) -> None:
    """Trains, or says what there is to train on."""
    if arguments.valid_run is None:
        for name in given(arguments, *_VALID_SOURCES, "measure", "patience"):
            arguments.usage_error(f"--{name.replace('_', '-')} goes with --valid-run")

    from pyterrier_bertcat.training.losses import Contrastive, ListwiseKL, MarginMSE
    from pyterrier_bertcat.training.options import TrainingOptions
    from pyterrier_bertcat.training.teachers import TeacherFile

    losses = {None: None, "contrastive": Contrastive(), "margin-mse": MarginMSE(), "listwise-kl": ListwiseKL()}
    training = TrainingOptions(
        loss=losses[arguments.loss],
        teacher=[TeacherFile(path) for path in arguments.teacher_scores] or None,
        **given(arguments, "output", "gradient_checkpointing", *_OPTIONS),
    )
    verbose = not arguments.quiet
    reranker = make_reranker(arguments, "max_length", training=training, verbose=verbose)
    sources = run_sources(arguments)
    frames = [*_read(sources, arguments.qrels, verbose=verbose)]
    if arguments.valid_run is not None:
        instead = {name.removeprefix("valid_"): path for name, path in given(arguments, *_VALID_SOURCES).items()}
        valid_qrels = instead.pop("qrels", arguments.qrels)
        frames += _read(replace(sources, **instead), valid_qrels, verbose=verbose)
    if arguments.dry_run:
        reranker.load()
        return
    reranker.fit(*frames)
    if verbose:
        print(f"{arguments.output}: {arguments.model}, trained")


def _read(sources: RunSources, qrels_source: str, *, verbose: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Candidates and their judgments. Says how many there are."""
    from pyterrier_bertcat.data.candidates import read_candidates
    from pyterrier_bertcat.data.qrels import read_qrels

    qrels = read_qrels(qrels_source)
    candidates = read_candidates(sources, verbose=verbose)
    if candidates.skipped:
        print(f"pyterrier-bertcat: warning: skipped: {candidates.skipped}", file=sys.stderr)
    if verbose:
        rows = f"{len(candidates.rows):,} candidates of {len(candidates.queries):,} queries"
        print(f"{sources.run}: {rows}; {qrels_source}: {len(qrels):,} judgments")
    return candidates.frame(), qrels
