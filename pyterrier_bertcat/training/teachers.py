"""Teacher scores for distillation: from transformers, and from the authors' published files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyterrier as pt

from pyterrier_bertcat.data.sources import numbered_lines, wrong_line
from pyterrier_bertcat.errors import InputError, TrainingDataError

Scores: TypeAlias = npt.NDArray[np.float64]

_FIELDS = "five tab-separated fields, pos_score neg_score query_id pos_passage_id neg_passage_id"


@dataclass(frozen=True)
class TeacherFile:
    r"""A file of teacher scores in the authors' published format.

    It has tab-separated lines ``pos_score neg_score query_id pos_passage_id neg_passage_id``, plain or gzipped. It is
    read as a stream: only pairs in the training frame are kept in memory. Only pairs in the file are trained on.

    Args:
        path: The file.

    Example:
        >>> from pathlib import Path
        >>> from pyterrier_bertcat import TeacherFile
        >>> _ = Path("teacher.tsv").write_text("9.5\t-2.0\tq1\td7\td3\n")
        >>> TeacherFile("teacher.tsv").scores(["q1", "q1", "q1"], ["d3", "d7", "d9"]).tolist()
        [-2.0, 9.5, nan]
    """

    path: str | Path

    def scores(self, qids: Sequence[str], docnos: Sequence[str]) -> Scores:
        """The file's scores of n pairs: float64 (n,), NaN for pairs that it does not have.

        Raises:
            TrainingDataError: The file can't be read, or a line has another format; the message gives its number.
        """
        wanted: dict[tuple[str, str], list[int]] = {}
        for position, pair in enumerate(zip(qids, docnos, strict=True)):
            wanted.setdefault(pair, []).append(position)
        scores = np.full(len(qids), np.nan)
        for qid, docno, score in self._pairs():
            for position in wanted.get((qid, docno), ()):
                scores[position] = score
        return scores

    def _pairs(self) -> Iterator[tuple[str, str, float]]:
        try:
            for number, line in numbered_lines(self.path):
                try:
                    positive_score, negative_score, qid, positive, negative = line.decode().rstrip("\r\n").split("\t")
                    yield qid, positive, float(positive_score)
                    yield qid, negative, float(negative_score)
                except ValueError as error:
                    raise wrong_line(self.path, number, _FIELDS, line) from error
        except InputError as error:
            raise TrainingDataError(str(error)) from error


Teacher: TypeAlias = pt.Transformer | TeacherFile


def teacher_scores(teachers: Sequence[Teacher], frame: pd.DataFrame) -> npt.NDArray[np.float32]:
    """The mean of the teachers' scores for each row of a result frame: float32 (rows,). Teachers get all its columns.

    Raises:
        TrainingDataError: A teacher has no finite score for some pairs; the message counts and names them.
    """
    total = np.zeros(len(frame))
    for teacher in teachers:
        scores = _scores(teacher, frame)
        missing = ~np.isfinite(scores)
        if missing.any():
            pairs = frame.loc[missing, ["qid", "docno"]].head(3).to_records(index=False).tolist()
            raise TrainingDataError(
                f"the teacher {teacher!r} has no finite score for {missing.sum()} of {len(frame)} pairs, "
                f"such as (qid, docno) {pairs}"
            )
        total += scores
    return (total / len(teachers)).astype(np.float32)


def known_to_files(teachers: Sequence[Teacher], frame: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Which rows every teacher file scores, bool (rows,). Without teacher files: all."""
    known = np.ones(len(frame), dtype=bool)
    for teacher in teachers:
        if isinstance(teacher, TeacherFile):
            known &= ~np.isnan(_scores(teacher, frame))
    return known


def _scores(teacher: Teacher, frame: pd.DataFrame) -> Scores:
    """float64 (rows,), NaN for rows that the teacher does not score."""
    if isinstance(teacher, TeacherFile):
        return teacher.scores(frame["qid"].astype(str).tolist(), frame["docno"].astype(str).tolist())
    scored = teacher.transform(frame.drop_duplicates(["qid", "docno"]))
    pt.validate.columns(scored, includes=["qid", "docno", "score"])
    by_pair = scored.drop_duplicates(["qid", "docno"]).set_index(["qid", "docno"])["score"]
    pairs = pd.MultiIndex.from_frame(frame[["qid", "docno"]])
    return np.asarray(by_pair.reindex(pairs), dtype=np.float64)
