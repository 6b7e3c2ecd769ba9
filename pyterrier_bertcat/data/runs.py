"""TREC runs: read into result frames, and written so that half a run never appears under a run's name.

A row is ``qid Q0 docno rank score tag``, separated by blanks. Ranks start at 1 there, and at 0 in PyTerrier's frames.
"""

from __future__ import annotations

import gzip
import math
import os
import secrets
from array import array
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import pandas as pd

from pyterrier_bertcat.data.order import best_first, ranks
from pyterrier_bertcat.data.sources import decoded, numbered_lines, wrong_line
from pyterrier_bertcat.errors import InputError, some_of

_EXPECTED = "six columns, qid Q0 docno rank score tag, with a finite score"
_LINES_NAMED = 3


def read_run(path: str | os.PathLike[str], *, duplicates: Literal["fail", "first"] = "fail") -> pd.DataFrame:
    """Reads a TREC run, plain or gzip.

    Queries stay in order of first appearance; `best_first` orders their rows by score. The ranks in the file do not
    count.

    Args:
        path: The file, UTF-8. Any number of spaces and tabs between columns, blank lines and CRLF are fine.
        duplicates: What to do if a (qid, docno) comes again: ``"fail"`` refuses the run, ``"first"`` keeps the first.

    Returns:
        ``qid``, ``docno`` (str), ``score`` (float64), ``rank`` (int64, 0 is best), on a fresh index.

    Raises:
        InputError: The file can't be read or has no rows, a line has another form, or a (qid, docno) comes again; the
            message names the lines.
    """
    qid_codes: dict[bytes, int] = {}
    docno_codes: dict[bytes, int] = {}
    numbers, queries, documents, values = array("q"), array("q"), array("q"), array("d")
    for number, line in numbered_lines(path):
        try:
            qid, _, docno, _, score_text, _ = line.split()  # of bytes: splits at ASCII blanks only
            score = float(score_text)
        except ValueError as error:
            raise wrong_line(path, number, _EXPECTED, line) from error
        if not math.isfinite(score) or b"_" in score_text:
            raise wrong_line(path, number, _EXPECTED, line)
        for name, codes in ((qid, qid_codes), (docno, docno_codes)):
            if name not in codes:
                decoded(name, path, number)
                codes[name] = len(codes)
        numbers.append(number)
        queries.append(qid_codes[qid])
        documents.append(docno_codes[docno])
        values.append(score)
    if not numbers:
        raise InputError(f"{path} has no rows: expected {_EXPECTED}")
    docnos = np.array([name.decode() for name in docno_codes], dtype=object)
    qids = np.array([name.decode() for name in qid_codes], dtype=object)
    query, document = np.asarray(queries), np.asarray(documents)
    _, first = np.unique(query * len(docnos) + document, return_index=True)
    first.sort()
    if duplicates == "fail" and len(first) < len(query):
        rows = pd.DataFrame({"qid": qids[query], "docno": docnos[document], "line": numbers})
        raise InputError(
            f"{path}: {_repeated(rows)}. Remove the wrong rows, or keep the first of each with duplicates='first' "
            "(--duplicates first)"
        )
    query, names, scores = query[first], docnos[document[first]], np.asarray(values)[first]
    order = best_first(query, names, scores)
    columns = {"qid": qids[query[order]], "docno": names[order], "score": scores[order], "rank": ranks(query[order])}
    run: pd.DataFrame = pd.DataFrame(columns)
    return run


class RunWriter:
    """Writes a TREC run, gzipped if the name ends in ``.gz``, as a context manager.

    The rows go to a temporary file in the same folder. It takes the run's name, replacing what had it, only when the
    block ends without an error and all rows are safely on the disk.

    Example:
        >>> with RunWriter("bertcat.run.gz") as run:  # doctest: +SKIP
        ...     run.write(results)
    """

    def __init__(self, path: str | os.PathLike[str], *, tag: str = "bertcat") -> None:
        """Keeps the options, and opens nothing.

        Args:
            path: Where the run goes; its folder must exist.
            tag: The last column: the name of the system that made the run.

        Raises:
            InputError: The tag is empty or has blanks, or the path is that of a folder.
        """
        if len(tag.split()) != 1:
            raise InputError(f"tag is one word, got {tag!r}")
        self.path = Path(path)
        if self.path.is_dir():
            raise InputError(f"expected the name of a file to write, got the folder {self.path}")
        self.tag = tag
        self._temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.part")

    def __enter__(self) -> RunWriter:
        try:
            self._file: IO[bytes] = open(self._temporary, "xb")
            self._rows: IO[bytes] = self._file
            if self.path.suffix == ".gz":  # no name, no time: the same run gives the same file
                self._rows = gzip.GzipFile(  # type: ignore[assignment]
                    filename="", fileobj=self._file, mode="wb", compresslevel=6, mtime=0
                )
        except BaseException as error:  # an interrupt too, because nothing calls __exit__ yet
            self._temporary.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise InputError(f"{self.path} can't be written: {error.strerror}") from error
            raise
        return self

    def write(self, results: pd.DataFrame) -> None:
        """Adds the rows of a result frame, in their order.

        Scores keep all digits that it takes to read the same number back, so that no new ties arise.

        Args:
            results: ``qid``, ``docno``, ``score`` and ``rank`` (0 is best; written as 1).

        Raises:
            InputError: An identifier is empty, has blanks or is not Unicode, or a score is not finite.
            OSError: The disk is full.
        """
        scores: np.ndarray[Any, Any] = results["score"].to_numpy()
        if not np.isfinite(scores).all():
            raise InputError(f"the scores of a run are finite numbers, got {scores[~np.isfinite(scores)][0]}")
        for name in (*results["qid"].unique(), *results["docno"].unique()):
            if not _is_one_word(name):
                raise InputError(f"blanks separate the columns of a run, so {name!r} can't be a qid or docno in it")
        rows = zip(results["qid"], results["docno"], results["rank"], scores, strict=True)
        self._rows.writelines(
            f"{qid} Q0 {docno} {rank + 1} {score!s} {self.tag}\n".encode() for qid, docno, rank, score in rows
        )

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with self._file:
                if kind is not None:
                    return
                if self._rows is not self._file:
                    self._rows.close()
                self._file.flush()
                os.fsync(self._file.fileno())
            os.replace(self._temporary, self.path)
        finally:
            self._temporary.unlink(missing_ok=True)


def _is_one_word(name: object) -> bool:
    """Whether an identifier survives a file whose columns are separated by blanks."""
    try:
        content = str(name).encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return content.split() == [content]


def _repeated(rows: pd.DataFrame) -> str:
    """Counts the (qid, docno) that come again and names a few with their lines."""
    again = rows[rows.duplicated(["qid", "docno"], keep=False)]
    lines = again.groupby(["qid", "docno"], sort=False)["line"].agg(list)
    named = [
        f"docno {docno!r} of qid {qid!r} on lines {' and '.join(map(str, numbers[:_LINES_NAMED]))}"
        for (qid, docno), numbers in lines.items()
    ]
    return f"{len(named)} duplicated (qid, docno): {some_of(named, name=str)}"
