"""The command line: ``pyterrier-bertcat rerank``, ``train``, ``verify`` and ``demo``.

Each command is a module. Its ``add_parser`` adds the arguments, and its ``run`` imports what it needs, so that
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
_INTERRUPTED = 130  # as shells say it: 128 + SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: The arguments after the program's name. None: those of the process.

    Returns:
        The exit code: 0, 1 if the command failed (one line on stderr says why), 130 if it was interrupted.

    Raises:
        SystemExit: 0 after ``--help`` and ``--version``, 2 for wrong usage.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a Windows pipe can't show emoji; stderr does this itself
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
    about = "BERT_Cat, the cross-encoder re-ranker, for PyTerrier."
    parser = argparse.ArgumentParser(prog="pyterrier-bertcat", description=about)
    version_help = "print versions and hardware, for a bug report, and exit"
    parser.add_argument("--version", action=PrintReport, nargs=0, default=argparse.SUPPRESS, help=version_help)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (rerank, train, verify, demo):
        command.add_parser(commands)
    return parser
