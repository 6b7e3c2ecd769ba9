"""Arguments that several commands share."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from pyterrier_bertcat.data.candidates import RunSources

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_model_arguments(parser: argparse.ArgumentParser, *, default: str | None = "mini", dtype: bool = True) -> None:
    """Adds which model computes where, and how precisely; ``default=None`` is the authors' checkpoint."""
    name = default or "the authors' checkpoint"
    parser.add_argument("--model", default=default, help=f"a hub id, a folder, or 'mini', the packaged one ({name})")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps, xpu (the best that there is)")
    if dtype:
        parser.add_argument("--dtype", default="auto", help="auto, float32, float16, bfloat16; int8 in OpenVINO (auto)")
        parser.add_argument("--backend", default="torch", help="torch or openvino (torch)")


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds a run with its topics and texts, and what is made of what does not fit."""
    files = parser.add_argument_group("what is read", "files may be gzip; NAME is a PyTerrier data set: irds:vaswani")
    files.add_argument("--run", required=True, metavar="FILE", help="a TREC run")
    files.add_argument("--topics", required=True, metavar="FILE|NAME", help="qid, tab, query; or TREC topics")
    files.add_argument("--texts", required=True, metavar="FILE|NAME", help="JSON lines; or docno, tab, text")
    files.add_argument("--topic-field", metavar="FIELD", help="the query's part of a topic (title, or query)")
    files.add_argument(
        "--text-fields",
        metavar="FIELD[,FIELD]",
        type=lambda value: tuple(value.split(",")),
        default=(),
        help="the text's parts of a document, joined (text, or contents)",
    )
    files.add_argument(
        "--duplicates",
        choices=("fail", "first"),
        default="fail",
        help="whether a (qid, docno) that comes again is an error, or its first row is kept (fail)",
    )
    files.add_argument(
        "--unknown",
        choices=("fail", "skip"),
        default="fail",
        help="whether a query or document that is not in the topics or texts is an error, or is left out (fail)",
    )


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds how a long job behaves."""
    parser.add_argument(
        "--max-length", type=at_least_one, metavar="TOKENS", default=512, help="where pairs are cut (512)"
    )
    parser.add_argument("--dry-run", action="store_true", help="read and check everything, say what there is to do")
    parser.add_argument("--quiet", action="store_true", help="no progress, no summary")


def run_sources(arguments: argparse.Namespace, **instead: Any) -> RunSources:
    """What `add_run_arguments` added, with some of it replaced."""
    from pyterrier_bertcat.data.candidates import RunSources

    names = ("run", "topics", "texts", "topic_field", "text_fields", "duplicates", "unknown")
    return RunSources(**{**{name: getattr(arguments, name) for name in names}, **instead})


def at_least_one(value: str) -> int:
    """A whole number from 1 on."""
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number, 1 or more, got {value!r}")
    return int(value)


def passage_tokens(value: str) -> dict[str, int]:
    """``200`` or ``200,100``: a passage's length, and the stride, half of it if it is not given."""
    length, comma, stride = value.partition(",")
    return {
        "length": at_least_one(length),
        "stride": at_least_one(stride) if comma else max(1, at_least_one(length) // 2),
    }
