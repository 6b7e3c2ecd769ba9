"""Python's own documentation as a PyTerrier data set: ``pt.get_dataset("bertcat:pydoc")``.

The documents are read from the running Python's library (see `pydoc_reader`). The questions and judgments were written
for this project and come with it. Nothing is downloaded. The documents, once read, are kept under PyTerrier's home.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pyterrier as pt
from pyterrier.datasets import Dataset, DatasetProvider

from pyterrier_bertcat.data.pydoc_reader import keep_documents, kept_documents, read_documents
from pyterrier_bertcat.errors import InputError, some_of

INFO_URL = "https://docs.python.org/3/library/pydoc.html"


@functools.cache
def _texts() -> dict[str, str]:
    """Text by docno. This takes a few seconds the first time on a machine."""
    folder = _folder()
    documents = read_documents() if folder is None else kept_documents(folder) or keep_documents(folder)
    return {document["docno"]: document["text"] for document in documents}


def _folder() -> Path | None:
    """Where documents are kept; None if PyTerrier can have no home here."""
    try:
        return Path(pt.io.pyterrier_home(), "bertcat")
    except OSError:
        return None


@contextmanager
def reading_ahead() -> Iterator[bool]:
    """Reads the documents in another process while the block runs, and gives True, unless they are at hand already.

    If that does not work, they are read afterwards, when they are needed.
    """
    folder = _folder()
    at_hand = _texts.cache_info().currsize or folder is None or kept_documents(folder) is not None
    if at_hand or not sys.executable:
        yield False
        return
    code = (
        "import pathlib, sys; from pyterrier_bertcat.data.pydoc_reader import keep_documents; "
        "keep_documents(pathlib.Path(sys.argv[1]))"
    )
    reading = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # so that Ctrl-C reaches only this process
    )
    try:
        yield True
        reading.wait()
    finally:
        reading.kill()
        reading.wait()


def pydoc_documents() -> list[dict[str, str]]:
    """Every document of the running Python's library, as ``{"docno": ..., "text": ...}``, sorted by docno.

    Raises:
        InputError: This Python has no unpacked library sources.
    """
    return [{"docno": docno, "text": text} for docno, text in _texts().items()]


def pydoc_questions() -> list[dict[str, Any]]:
    """The packaged questions: ``{"qid": str, "query": str, "judgments": {docno: 1 or 2}}``.

    A document judged 2 answers the question directly, and one judged 1 helps. Unjudged documents don't answer it.
    """
    lines = resources.files("pyterrier_bertcat.data").joinpath("pydoc_questions.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in lines.splitlines()]


class PydocTextLoader(pt.Transformer):  # type: ignore[misc]
    """Adds the ``text`` of each ``docno`` of the collection to a frame."""

    schematic: ClassVar[dict[str, str]] = {"label": "TextLoader", "help_url": INFO_URL}

    def __init__(self, *, verbose: bool = False) -> None:
        self.verbose = verbose

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Adds the column ``text``. Rows keep their order and get a fresh index.

        Raises:
            InputError: A docno is not in the collection; the message names the first few.
        """
        pt.validate.columns(inp, includes=["docno"])
        texts = _texts() if len(inp) else {}
        unknown = [docno for docno in inp["docno"] if docno not in texts]
        if unknown:
            raise InputError(
                f"{len(unknown)} of {len(inp)} docnos are not in the collection of this Python: {some_of(unknown)}. "
                "Search and load texts with the same Python version"
            )
        docnos = pt.tqdm(inp["docno"], unit="d", desc="PydocTextLoader") if self.verbose else inp["docno"]
        rows: pd.DataFrame = inp.drop(columns="text", errors="ignore").reset_index(drop=True)
        rows["text"] = pd.Series([texts[docno] for docno in docnos], dtype=object)
        return rows

    def fuse_rank_cutoff(self, k: int) -> pt.Transformer:
        """Cuts before loading instead of after: the same rows, but fewer texts to load."""
        return pt.RankCutoff(k) >> self

    def __repr__(self) -> str:
        return "PydocTextLoader()"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PydocTextLoader)

    def __hash__(self) -> int:
        return hash(PydocTextLoader)


class PydocDataset(Dataset):  # type: ignore[misc]
    """Documents, questions and judgments over Python's own documentation (English)."""

    def get_corpus_iter(self, *, verbose: bool = True) -> Iterator[dict[str, Any]]:
        """Yields ``{"docno": str, "text": str}``; ``verbose`` shows a progress bar."""
        documents = pydoc_documents()
        yield from pt.tqdm(documents, unit="d", desc="bertcat:pydoc") if verbose else documents

    def get_corpus_lang(self) -> str:
        """``"en"``."""
        return "en"

    get_topics_lang = get_corpus_lang

    def get_topics(self, variant: str | None = None) -> pd.DataFrame:
        """The questions as ``qid, query``, both str. There are no variants."""
        _refuse_variant(variant)
        topics: pd.DataFrame = pd.DataFrame(pydoc_questions(), columns=["qid", "query"])
        return topics

    def get_qrels(self, variant: str | None = None) -> pd.DataFrame:
        """The judgments as ``qid, docno, label``: 2 answers directly, 1 helps too. There are no variants."""
        _refuse_variant(variant)
        judgments = [(question["qid"], *one) for question in pydoc_questions() for one in question["judgments"].items()]
        qrels: pd.DataFrame = pd.DataFrame(judgments, columns=["qid", "docno", "label"])
        return qrels

    def text_loader(self, fields: list[str] | str = "*", *, verbose: bool = False) -> PydocTextLoader:
        """A transformer that adds ``text``, the only field, by ``docno``.

        Raises:
            InputError: You ask for another field.
        """
        if fields not in ("*", "text", ["text"]):
            raise InputError(f"the only field of bertcat:pydoc is 'text', got fields={fields!r}")
        return PydocTextLoader(verbose=verbose)

    def info_url(self) -> str:
        """The page about pydoc in Python's documentation."""
        return INFO_URL

    def _describe_component(self, component: str) -> bool | None:
        return component in ("topics", "qrels", "corpus") or None

    def __repr__(self) -> str:
        return "PydocDataset()"


class BertCatDatasetProvider(DatasetProvider):  # type: ignore[misc]
    """The provider behind ``pt.get_dataset("bertcat:...")``; it has one data set, ``pydoc``."""

    def get_dataset(self, name: str) -> PydocDataset:
        """The data set.

        Raises:
            KeyError: The name is not ``pydoc``.
        """
        if name != "pydoc":
            raise KeyError(f"no data set {name!r}: the only one is 'pydoc'")
        return PydocDataset()

    def list_dataset_names(self) -> Iterable[str]:
        """``["pydoc"]``."""
        return ["pydoc"]


def _refuse_variant(variant: str | None) -> None:
    if variant is not None:
        raise InputError(f"bertcat:pydoc has no variants, got variant={variant!r}: leave variant out")
