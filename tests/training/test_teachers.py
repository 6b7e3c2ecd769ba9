"""Teachers: transformers, several of them, and published files."""

import gzip

import numpy as np
import pandas as pd
import pyterrier as pt
import pytest

from pyterrier_bertcat.errors import TrainingDataError
from pyterrier_bertcat.training import TeacherFile
from pyterrier_bertcat.training.teachers import known_to_files, teacher_scores

FRAME = pd.DataFrame(
    {
        "qid": ["1", "1", "2"],
        "query": ["a", "a", "b"],
        "docno": ["x", "y", "x"],
        "text": ["one", "three", "seventeen"],
        "score": [9.0, 8.0, 7.0],
        "rank": [0, 1, 0],
    }
)
TEXT_LENGTH = pt.apply.doc_score(lambda row: float(len(row["text"])))
LINES = "3.5\t1.25\t1\tx\ty\n-2.0\t0.5\t2\tx\tz\n0.1\t0.2\t9\tother\tpair\n"


@pytest.fixture(params=["plain", "gzip"])
def teacher_file(request, tmp_path):
    path = tmp_path / "teacher.tsv"
    path.write_bytes(gzip.compress(LINES.encode()) if request.param == "gzip" else LINES.encode())
    return TeacherFile(path)


def test_a_transformer_teaches_with_its_scores_in_the_frames_order():
    assert teacher_scores([TEXT_LENGTH], FRAME).tolist() == [3.0, 5.0, 9.0]
    assert teacher_scores([TEXT_LENGTH], FRAME[::-1].reset_index(drop=True)).tolist() == [9.0, 5.0, 3.0]


def test_categories_that_do_not_occur_change_nothing():
    frame, first_stage = FRAME.astype({"qid": "category", "docno": "category"}), pt.Transformer.identity()
    assert teacher_scores([first_stage], frame[:2]).tolist() == [9.0, 8.0]
    assert teacher_scores([first_stage], frame[frame["qid"] != "1"].reset_index(drop=True)).tolist() == [7.0]


def test_the_first_stage_teaches_with_the_score_that_the_frame_has():
    assert teacher_scores([pt.Transformer.identity()], FRAME).tolist() == [9.0, 8.0, 7.0]


def test_several_teachers_teach_with_their_mean():
    assert teacher_scores([TEXT_LENGTH, pt.Transformer.identity()], FRAME).tolist() == [6.0, 6.5, 8.0]


def test_rows_of_the_same_pair_get_the_same_score():
    twice = pd.concat([FRAME, FRAME], ignore_index=True)
    assert teacher_scores([TEXT_LENGTH], twice).tolist() == [3.0, 5.0, 9.0] * 2


def test_a_teacher_that_leaves_pairs_out_is_an_error_that_counts_and_names_them():
    with pytest.raises(TrainingDataError, match=r"no finite score for 1 of 3 pairs.*'1', 'y'"):
        teacher_scores([pt.Transformer.identity() % 1], FRAME)


def test_a_teacher_that_gives_nan_is_an_error_that_names_the_pair():
    nan_for_x = pt.apply.generic(lambda frame: frame.assign(score=np.where(frame["docno"] == "x", np.nan, 1.0)))
    with pytest.raises(TrainingDataError, match="2 of 3 pairs"):
        teacher_scores([nan_for_x], FRAME)


def test_a_published_file_gives_the_scores_of_its_pairs(teacher_file):
    assert teacher_scores([teacher_file], FRAME).tolist() == [3.5, 1.25, -2.0]


def test_pairs_that_a_file_does_not_hold_are_not_known_to_it(teacher_file):
    frame = FRAME.assign(docno=["x", "unknown", "z"])
    assert known_to_files([teacher_file], frame).tolist() == [True, False, True]
    assert known_to_files([TEXT_LENGTH], frame).all()


def test_a_line_of_another_form_is_named_by_its_number(tmp_path):
    path = tmp_path / "teacher.tsv"
    path.write_text("3.5\t1.25\t1\tx\ty\n3.5 1.25 1 x y\n")
    with pytest.raises(TrainingDataError, match="line 2: expected five tab-separated fields"):
        TeacherFile(path).scores(["1"], ["x"])


def test_a_file_that_is_missing_or_cut_short_is_named(tmp_path):
    with pytest.raises(TrainingDataError, match=r"absent\.tsv"):
        TeacherFile(tmp_path / "absent.tsv").scores(["1"], ["x"])
    path = tmp_path / "cut.tsv.gz"
    path.write_bytes(gzip.compress(LINES.encode() * 1000)[:-20])
    with pytest.raises(TrainingDataError, match=r"cut\.tsv\.gz can't be read"):
        TeacherFile(path).scores(["1"], ["x"])
