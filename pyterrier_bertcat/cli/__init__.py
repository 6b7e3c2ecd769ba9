"""The command line: ``pyterrier-bertcat rerank``, ``train``, ``verify`` and ``demo``.

A command is a module with two functions: one adds its parser, the other imports what it needs and runs, so that
``--help`` imports neither torch nor PyTerrier.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence

from pyterrier_bertcat.cli import demo, rerank, train, verify
from pyterrier_bertcat.cli.version import PrintReport
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
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a Windows pipe has no emoji; stderr does this by itself
    arguments = _parser().parse_args(argv)
    try:
        arguments.run_command(arguments)
    except (BertCatError, OSError) as error:  # OSError: a full disk
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
    parser.add_argument(
        "--version", action=PrintReport, help="print the versions and the hardware that a bug report needs, and exit"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (rerank, train, verify, demo):
        command.add_parser(commands)
    return parser
