"""Queries by qid: from tab-separated lines, TREC topics (SGML without closing tags, or XML) or a PyTerrier data set."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterable, Iterator
from itertools import chain

from pyterrier_bertcat.data.fields import QUERY_FIELDS, chosen_field
from pyterrier_bertcat.data.sources import dataset_named, decoded, ir_dataset, numbered_lines, two_columns
from pyterrier_bertcat.errors import InputError

_QID_FIELDS = ("num", "number", "id", "qid", "identifier")
# A topic: its opening tag with the attributes, and all up to the next topic or the end of this one.
_TOPIC = re.compile(r"<(top|topic)(\s[^>]*)?>(.*?)(?=</\1\s*>|<\1[\s>]|\Z)", re.DOTALL | re.IGNORECASE)
# A field: its opening tag, and all up to the next tag, which may be another field's or its own end.
_FIELD = re.compile(r"<([A-Za-z][\w-]*)[^>]*>((?:[^<]|<(?![A-Za-z/]))*)")
_ATTRIBUTE = re.compile(r"""([\w-]+)\s*=\s*["']([^"']*)["']""")
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_CDATA = re.compile(r"<!\[CDATA\[(.*?)\]\]>", re.DOTALL)
_LABELS = {"num": "Number:", "title": "Topic:", "desc": "Description:", "narr": "Narrative:"}  # TREC-1 to TREC 2004


def read_topics(source: str | os.PathLike[str], *, field: str | None = None) -> dict[str, str]:
    """Reads the queries of a collection.

    Args:
        source: A UTF-8 file, plain or gzip: lines of qid, tab and query, or TREC topics, which begin with ``<``. Or
            the name of a PyTerrier data set, such as ``"irds:trec-robust04"``.
        field: The part of a topic that is the query. None: the first of `QUERY_FIELDS` that the topic has, or else its
            only part.

    Returns:
        Query by qid, in the source's order. Runs of blanks in a topic become single spaces. The labels in old TREC
        topics (``Number:``, ``Description:``) are left out, and so are a labelled number's leading zeros, as in TREC's
        qrels.

    Raises:
        InputError: The source can't be read or has no topics, a line or topic has another form, a qid comes twice, or
            ``field`` is given for tab-separated lines. The message names the line or topic.
    """
    dataset = dataset_named(source)
    if dataset is not None:
        return _collected(source, _from_dataset(source, dataset, field))
    lines = numbered_lines(source)
    first = next(lines, None)
    if first is None:
        raise InputError(f"{source} has no topics: the file is empty")
    lines = chain([first], lines)
    if first[1].lstrip().startswith(b"<"):
        text = "".join(decoded(line, source, number) for number, line in lines)
        return _collected(source, _from_trec(source, text, field))
    if field is not None:
        raise InputError(f"{source} has columns and no fields: leave topic_field (--topic-field) out")
    rows = ((number, two_columns(line, source, number, expected="a qid, a tab and a query")) for number, line in lines)
    return _collected(source, ((f"line {number}", qid.strip(), query.strip()) for number, (qid, query) in rows))


def _collected(source: object, topics: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    """Query by qid, from (where, qid, query)."""
    queries: dict[str, str] = {}
    for where, qid, query in topics:
        if not qid or not query:
            raise InputError(f"{source}, {where}: expected a qid and a query, got {qid!r} and {query!r}")
        if qid in queries:
            raise InputError(f"{source}, {where}: the qid {qid!r} was there before, expected each qid once")
        queries[qid] = query
    if not queries:
        raise InputError(f"{source} has no topics: expected lines of qid, tab and query, or <top> or <topic> elements")
    return queries


def _from_trec(source: object, text: str, field: str | None) -> Iterator[tuple[str, str, str]]:
    text = _CDATA.sub(lambda match: html.escape(match[1]), _COMMENT.sub("", text))
    for count, (_, attributes, body) in enumerate(_TOPIC.findall(text), start=1):
        where = f"topic {count}"
        parts = {name.lower(): value for name, value in _ATTRIBUTE.findall(attributes) if name.lower() in _QID_FIELDS}
        for name, value in _FIELD.findall(body):
            parts.setdefault(name.lower(), value)
        values = {name: _unlabelled(name, _plain(value)) for name, value in parts.items()}
        qid = next((value for name in _QID_FIELDS if (value := values.pop(name, ""))), "")
        if not values:  # the topic is nothing but its query
            values = {"query": _plain(body)}
        yield where, qid, values[chosen_field(list(values), field, defaults=QUERY_FIELDS, source=f"{source}, {where}")]


def _from_dataset(source: object, dataset: object, field: str | None) -> Iterator[tuple[str, str, str]]:
    irds = ir_dataset(dataset)
    if irds is None:
        topics = dataset.get_topics(field)  # type: ignore[attr-defined]
        rows: Iterable[tuple[str, str]] = zip(topics["qid"], topics["query"], strict=True)
    elif not irds.has_queries():
        raise InputError(f"the data set {source} has no queries: name one that has some, or a file")
    else:
        available = [name for name in irds.queries_cls()._fields if name != "query_id"]
        name = chosen_field(available, field, defaults=QUERY_FIELDS, source=source)
        rows = ((query.query_id, str(getattr(query, name))) for query in irds.queries_iter())
    for count, (qid, query) in enumerate(rows, start=1):
        yield f"topic {count}", str(qid), query.strip()


def _unlabelled(name: str, value: str) -> str:
    """A part without its label. A labelled number loses its leading zeros too, as in the first TRECs' qrels."""
    label = _LABELS.get(name)
    if label is None or not value.startswith(label):
        return value
    value = value.removeprefix(label).strip()
    return value.lstrip("0") if name == "num" else value


def _plain(markup: str) -> str:
    """Text without entities, with single spaces."""
    return " ".join(html.unescape(markup).split())
