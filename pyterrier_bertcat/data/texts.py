"""Texts, by docno or beside their queries, from JSON lines, tab-separated lines or a PyTerrier data set."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pyterrier as pt

from pyterrier_bertcat.data.fields import DOCNO_FIELDS, chosen_field, text_of
from pyterrier_bertcat.data.sources import dataset_named, ir_dataset, records, wrong_line
from pyterrier_bertcat.errors import InputError

_BAR_DELAY_S = 1.0


def read_texts(
    source: str | os.PathLike[str],
    docnos: Collection[str],
    *,
    fields: Sequence[str] = (),
    verbose: bool = True,
) -> dict[str, str]:
    """Reads a collection once, as a stream, and keeps the texts that you ask for.

    Args:
        source: A UTF-8 file, plain or gzip: JSON objects, one per line, or lines of docno, tab and text. Or the name of
            a PyTerrier data set, such as ``"irds:msmarco-passage"``.
        docnos: The documents whose texts you want. Reading stops when all are found.
        fields: The fields that make up a text, joined by a space. Empty: see `text_of`.
        verbose: Shows progress if reading takes longer than a second.

    Returns:
        Text by docno, without the documents that the collection lacks. If a docno comes twice, its first text counts.

    Raises:
        InputError: The source can't be read, a line or field has another form, or ``fields`` are given for
            tab-separated lines. The message names the line.
    """
    wanted = set(docnos)
    if not wanted:
        return {}
    dataset = dataset_named(source)
    found = _from_file(source, wanted, fields) if dataset is None else _from_dataset(source, dataset, wanted, fields)
    texts: dict[str, str] = {}
    with pt.tqdm(total=len(wanted), desc="texts", unit="text", delay=_BAR_DELAY_S, disable=not verbose) as bar:
        for docno, text in found:
            if docno not in texts:
                texts[docno] = text
                bar.update()
                if len(texts) == len(wanted):
                    break
    return texts


def _from_file(source: str | os.PathLike[str], wanted: set[str], fields: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The wanted documents of a file; every line before the last of them is checked."""
    for number, line, record in records(source, first="docno", second="text"):
        if isinstance(record, dict):
            where = f"{source}, line {number}"
            docno = record[chosen_field(list(record), None, defaults=DOCNO_FIELDS, source=where)]
            if type(docno) not in (str, int):
                raise wrong_line(source, number, "a docno that is a string", line)
            if str(docno) in wanted:
                yield str(docno), text_of(record, fields, source=where)
        elif fields:
            raise InputError(f"{source} has columns and no fields: leave text_fields (--text-fields) out")
        elif (docno := record[0].strip()) in wanted:
            yield docno, record[1]


def _from_dataset(source: object, dataset: Any, wanted: set[str], fields: Sequence[str]) -> Iterator[tuple[str, str]]:
    irds = ir_dataset(dataset)
    if irds is None:
        for document in dataset.get_corpus_iter(verbose=False):
            if document["docno"] in wanted:
                yield document["docno"], text_of(document, fields, source=source)
    elif not irds.has_docs():
        raise InputError(f"the data set {source} has no documents: name one that has some, or a file")
    else:
        for document in irds.docs_store().get_many_iter(wanted):
            yield document.doc_id, text_of(document._asdict(), fields, source=source)


def read_pairs(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """Reads queries, each with a text, such as those that calibrate int8.

    Args:
        path: A UTF-8 file, plain or gzip: lines of query, tab and text, or JSON objects with ``query`` and ``text``.

    Raises:
        InputError: The file can't be read or is empty, or a line has another form; the message names it.
    """
    pairs = []
    for number, _, record in records(path, first="query", second="text"):
        if isinstance(record, dict):
            record = [text_of(record, [name], source=f"{path}, line {number}") for name in ("query", "text")]
        pairs.append((record[0], record[1]))
    if not pairs:
        raise InputError(f"{path} is empty: expected lines of query, tab and text, or JSON objects")
    return pairs
