"""``pyterrier-bertcat verify``."""

from __future__ import annotations

import argparse

from pyterrier_bertcat.cli.arguments import Commands, add_model_arguments, make_reranker


def add_parser(commands: Commands) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "verify",
        help="check that a checkpoint gives its known scores on this machine",
        description="Score a checkpoint's known examples and compare the scores with the known ones.",
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--published",
        action="store_true",
        help="compare with the published checkpoint's example: for a local copy of that checkpoint",
    )
    parser.set_defaults(run_command=run, usage_error=parser.error)


def run(arguments: argparse.Namespace) -> None:
    """Prints the report."""
    from pyterrier_bertcat.model.verification import PUBLISHED_SCORES

    print(make_reranker(arguments, verbose=False).verify(known=PUBLISHED_SCORES if arguments.published else None))
