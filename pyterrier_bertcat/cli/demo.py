"""``pyterrier-bertcat demo``."""

from __future__ import annotations

import argparse
import sys

from pyterrier_bertcat.cli.arguments import Commands, add_model_arguments, at_least_one


def add_parser(commands: Commands) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "demo",
        help="search Python's own documentation with BM25, and re-rank",
        description="Search Python's own documentation with BM25, and re-rank the results. With a question: both "
        "rankings side by side. Without: an experiment over the packaged questions. Nothing is downloaded, unless the "
        "model is on the hub.",
    )
    parser.add_argument("question", nargs="*", help='e.g. "copy a folder with everything in it"')
    add_model_arguments(parser)
    parser.add_argument("--depth", type=at_least_one, default=100, help="how many results of BM25 are re-ranked (100)")
    parser.add_argument("--top", type=at_least_one, default=5, help="how many results are shown for a question (5)")
    parser.set_defaults(run_command=run)


def run(arguments: argparse.Namespace) -> None:
    """Runs it."""
    from pyterrier_bertcat.cli.demo_report import DemoOptions, run_demo

    options = DemoOptions(
        model=arguments.model,
        depth=arguments.depth,
        top=arguments.top,
        device=arguments.device,
        dtype=arguments.dtype,
    )
    run_demo(" ".join(arguments.question) if arguments.question else None, options, out=sys.stdout)
