"""The command line: ``pyterrier-bertcat demo`` and ``pyterrier-bertcat verify``.

A command is a parser and a function that imports what it needs, so that ``--help`` imports neither torch nor PyTerrier.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from pyterrier_bertcat.errors import BertCatError

_FAILED = 1
_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments after the program's name; ``None`` is those of the process.

    Returns:
        The exit code: 0, 1 when a command failed (the reason is one line on stderr), 130 when it was interrupted.

    Raises:
        SystemExit: 0 after ``--help`` and ``--version``, 2 for wrong usage.
    """
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except BertCatError as error:
        print(f"pyterrier-bertcat: error: {' '.join(str(error).split())}", file=sys.stderr)
        return _FAILED
    except KeyboardInterrupt:
        print("pyterrier-bertcat: interrupted", file=sys.stderr)
        return _INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pyterrier-bertcat", description="BERT_Cat, the cross-encoder re-ranker, for PyTerrier."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {_version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_demo(commands)
    _add_verify(commands)
    return parser


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "demo",
        help="search Python's own documentation with BM25, and re-rank",
        description="Search Python's own documentation with BM25, and re-rank the results. With a question: both "
        "rankings side by side. Without: an experiment over the packaged questions. Nothing is downloaded, unless the "
        "model is on the hub.",
    )
    parser.add_argument("question", nargs="*", help='e.g. "copy a folder with everything in it"')
    _add_model_options(parser)
    parser.add_argument("--depth", type=_at_least_one, default=100, help="how many results of BM25 are re-ranked (100)")
    parser.add_argument("--top", type=_at_least_one, default=5, help="how many results are shown for a question (5)")
    parser.set_defaults(run=_demo)


def _add_verify(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "verify",
        help="check that a checkpoint gives its known scores on this machine",
        description="Score a checkpoint's known examples and compare with their known scores.",
    )
    _add_model_options(parser)
    parser.add_argument(
        "--published",
        action="store_true",
        help="compare with the published checkpoint's example, for a local copy of that checkpoint",
    )
    parser.set_defaults(run=_verify)


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="mini", help="a hub id, a folder, or 'mini', the packaged one (mini)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps, xpu (the best that there is)")
    parser.add_argument("--dtype", default="auto", help="auto, float32, float16 or bfloat16 (auto)")


def _demo(arguments: argparse.Namespace) -> None:
    from pyterrier_bertcat.demo import DemoOptions, run_demo

    options = DemoOptions(
        model=arguments.model,
        depth=arguments.depth,
        top=arguments.top,
        device=arguments.device,
        dtype=arguments.dtype,
    )
    run_demo(" ".join(arguments.question) if arguments.question else None, options, out=sys.stdout)


def _verify(arguments: argparse.Namespace) -> None:
    from pyterrier_bertcat.reranker import BertCatReRanker
    from pyterrier_bertcat.verification import PUBLISHED_SCORES

    reranker = BertCatReRanker(arguments.model, device=arguments.device, dtype=arguments.dtype, verbose=False)
    print(reranker.verify(known=PUBLISHED_SCORES if arguments.published else None))


def _at_least_one(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {number}")
    return number


def _version() -> str:
    try:
        return version("pyterrier-bertcat")
    except PackageNotFoundError:
        return "(not installed)"
