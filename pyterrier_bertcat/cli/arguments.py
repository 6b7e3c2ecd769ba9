"""Arguments that several commands share, and the objects that they describe.

Options of the re-ranker and its parts have no default here: what you leave out is left out of the call too. The help
texts state these defaults in words, because ``--help`` imports none of the classes that own them; a test compares both.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from pyterrier_bertcat.data.candidates import RunSources
    from pyterrier_bertcat.reranker import BertCatReRanker

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_model_arguments(parser: argparse.ArgumentParser, *, default: str | None = "mini", dtype: bool = True) -> None:
    """Adds which model to use, where, and how precisely; ``default=None`` is the published checkpoint."""
    name = default or "the published BERT_Cat"
    model_help = f"a hub id, a folder, or 'mini', the small packaged checkpoint (default: {name})"
    parser.add_argument("--model", default=default, help=model_help)
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps or xpu (default: the best available)")
    if dtype:
        parser.add_argument(
            "--dtype", help="auto, float32 or bfloat16; also float16 with torch, int8 with openvino (default: auto)"
        )
        parser.add_argument("--backend", help="torch or openvino (default: torch)")
        parser.add_argument(
            "--calibration",
            metavar="FILE",
            help="for --dtype int8: a few hundred queries with texts like yours, as lines of query, tab, text, or JSON "
            "lines with 'query' and 'text' (default: packaged pairs, for mini only)",
        )


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds a run with its topics and texts, and what to do with rows that do not fit."""
    files = parser.add_argument_group("input", "Files may be gzipped. NAME is a PyTerrier data set: irds:vaswani")
    files.add_argument("--run", required=True, metavar="FILE", help="a TREC run")
    files.add_argument("--topics", required=True, metavar="FILE|NAME", help="lines of qid, tab, query; or TREC topics")
    files.add_argument("--texts", required=True, metavar="FILE|NAME", help="JSON lines; or lines of docno, tab, text")
    files.add_argument(
        "--topic-field", metavar="FIELD", help="the field of a topic that is the query (default: title, or the like)"
    )
    files.add_argument(
        "--text-fields",
        metavar="FIELD[,FIELD]",
        type=lambda value: value.split(","),
        help="the fields of a document to join into its text (default: text, or the like)",
    )
    duplicates_help = "if a (qid, docno) occurs again: fail, or keep the first (default: fail)"
    files.add_argument("--duplicates", choices=("fail", "first"), help=duplicates_help)
    unknown_help = "if the topics or texts lack a query or document of the run: fail, or skip its rows (default: fail)"
    files.add_argument("--unknown", choices=("fail", "skip"), help=unknown_help)


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds how a long job behaves."""
    length_help = "cut pairs to this many tokens (default: what the checkpoint states, else 512)"
    parser.add_argument("--max-length", type=at_least_one, metavar="TOKENS", help=length_help)
    parser.add_argument("--dry-run", action="store_true", help="check everything, say what there is to do, and stop")
    parser.add_argument("--quiet", action="store_true", help="show neither progress nor a summary")


def given(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The values of those arguments that the command has and the user gave."""
    values = {name: getattr(arguments, name, None) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def run_sources(arguments: argparse.Namespace) -> RunSources:
    """The files that `add_run_arguments` asks for."""
    from pyterrier_bertcat.data.candidates import RunSources

    names = ("run", "topics", "texts", "topic_field", "text_fields", "duplicates", "unknown")
    return RunSources(**given(arguments, *names))


def make_reranker(arguments: argparse.Namespace, *names: str, **options: Any) -> BertCatReRanker:
    """The re-ranker that `add_model_arguments` and the arguments with these names ask for, with further ``options``."""
    from pyterrier_bertcat.data.texts import read_pairs
    from pyterrier_bertcat.reranker import BertCatReRanker

    options |= given(arguments, "model", "device", "dtype", "backend", *names)
    for path in given(arguments, "calibration").values():
        options["calibration"] = read_pairs(path)
    return BertCatReRanker(**options)


def at_least_one(value: str) -> int:
    """A whole number of at least 1."""
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {value!r}")
    return int(value)
