"""Relevance judgments: TREC qrels, or those of a PyTerrier data set."""

from __future__ import annotations

import os

import pandas as pd

from pyterrier_bertcat.data.sources import dataset_named, decoded, numbered_lines, wrong_line
from pyterrier_bertcat.errors import InputError


def read_qrels(source: str | os.PathLike[str]) -> pd.DataFrame:
    """Reads relevance judgments.

    Args:
        source: A file, plain or gzip, with lines of ``qid iteration docno label``. Or the name of a PyTerrier data set,
            such as ``"irds:vaswani"``.

    Returns:
        ``qid``, ``docno`` (str) and ``label`` (int).

    Raises:
        InputError: The source can't be read or has no judgments, or a line has another form; the message names it.
    """
    dataset = dataset_named(source)
    if dataset is not None:
        named: pd.DataFrame = dataset.get_qrels()[["qid", "docno", "label"]]
        return named
    rows = []
    for number, line in numbered_lines(source):
        try:
            qid, _, docno, label_text = line.split()
            label = int(label_text)
        except ValueError as error:
            raise wrong_line(source, number, "four columns, qid iteration docno label", line) from error
        rows.append((decoded(qid, source, number), decoded(docno, source, number), label))
    if not rows:
        raise InputError(f"{source} has no judgments: expected lines of four columns, qid iteration docno label")
    qrels: pd.DataFrame = pd.DataFrame(rows, columns=["qid", "docno", "label"])
    return qrels
