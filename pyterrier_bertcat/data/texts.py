"""Texts by docno, only those that are needed: from JSON lines, from a TSV, or from a PyTerrier data set."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pyterrier as pt

from pyterrier_bertcat.data.fields import DOCNO_FIELDS, chosen_field, text_of
from pyterrier_bertcat.data.lines import decoded, numbered_lines, wrong_line
from pyterrier_bertcat.data.named_datasets import dataset_named, ir_dataset
from pyterrier_bertcat.errors import InputError

_BAR_DELAY_S = 1.0


def read_texts(
    source: str | os.PathLike[str],
    docnos: Collection[str],
    *,
    fields: Sequence[str] = (),
    verbose: bool = True,
) -> dict[str, str]:
    """Reads a collection once, as a stream, and keeps the texts that are asked for.

    Args:
        source: A file, plain or gzip, UTF-8: JSON objects, one a line, or lines of docno, tab and text. Or the name of
            a PyTerrier data set, such as ``"irds:msmarco-passage"``.
        docnos: Whose texts are wanted. Reading stops when all are found.
        fields: What the text is made of, joined by a space. Empty: ``text``, else ``contents``, ``passage``,
            ``segment`` or ``body``, else the only field there is. A TSV has no fields.
        verbose: Shows progress when it takes longer than a second.

    Returns:
        Text by docno; those that are not in the collection are missing. Where a docno comes twice, its first text.

    Raises:
        InputError: The source can't be read, or a line or field is of another form; the message names the line.
    """
    wanted = set(docnos)
    if not wanted:
        return {}
    dataset = dataset_named(source)
    documents = (
        _from_file(source, wanted, fields) if dataset is None else _from_dataset(source, dataset, wanted, fields)
    )
    texts: dict[str, str] = {}
    with pt.tqdm(total=len(wanted), desc="texts", unit="text", delay=_BAR_DELAY_S, disable=not verbose) as bar:
        for docno, text in documents:
            if docno not in texts:
                texts[docno] = text
                bar.update()
                if len(texts) == len(wanted):
                    break
    return texts


def _from_file(source: str | os.PathLike[str], wanted: set[str], fields: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The wanted documents of a file; every line before the last of them is checked."""
    is_json = None
    for number, line in numbered_lines(source):
        if is_json is None:
            is_json = line.lstrip().startswith(b"{")
        if is_json:
            record = _record(source, number, line)
            docno = record[chosen_field(list(record), None, defaults=DOCNO_FIELDS, source=f"{source}, line {number}")]
            if type(docno) not in (str, int):
                raise wrong_line(source, number, "a docno that is a string", line)
            if str(docno) in wanted:
                yield str(docno), text_of(record, fields, source=f"{source}, line {number}")
        else:
            columns = decoded(line, source, number).rstrip("\r\n").split("\t")
            if len(columns) != 2:
                raise wrong_line(source, number, "a docno, a tab and a text, or JSON objects", line)
            docno, text = columns
            if docno.strip() in wanted:
                yield docno.strip(), text


def _record(source: str | os.PathLike[str], number: int, line: bytes) -> dict[str, Any]:
    text = decoded(line, source, number)
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:  # RecursionError: a thousand brackets
        raise wrong_line(source, number, f"a JSON object ({error})", line) from error
    if not isinstance(record, dict) or not record:
        raise wrong_line(source, number, "a JSON object with a docno and a text", line)
    return record


def _from_dataset(source: object, dataset: Any, wanted: set[str], fields: Sequence[str]) -> Iterator[tuple[str, str]]:
    irds = ir_dataset(dataset)
    if irds is None:
        for document in dataset.get_corpus_iter(verbose=False):
            if document["docno"] in wanted:
                yield document["docno"], text_of(document, fields, source=source)
    elif not irds.has_docs():
        raise InputError(f"the data set {source} has no documents: name one that has, or a file")
    else:
        for document in irds.docs_store().get_many_iter(wanted):
            yield document.doc_id, text_of(document._asdict(), fields, source=source)
