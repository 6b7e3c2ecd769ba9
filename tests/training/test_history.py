"""The history of a training: the Trainer's log as a frame, and the file of it."""

import numpy as np
import pandas as pd
import pytest

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.training.history import HISTORY_FILE, history_bytes, history_frame, read_history

LOG = [
    {"eval_measure": 0.25, "step": 0, "seconds": 1.5},
    {"loss": 0.5, "grad_norm": 1.0, "learning_rate": 1e-3, "epoch": 0.1, "step": 2, "seconds": 3.0},
    {"loss": 0.1 + 0.2, "grad_norm": 1.0, "learning_rate": 5e-4, "epoch": 0.2, "step": 4, "seconds": 4.0},
    {"eval_measure": 0.75, "epoch": 0.2, "step": 4, "seconds": 5.0},
    {"train_runtime": 9.0, "train_loss": 0.4, "step": 4, "seconds": 6.0},
]


def test_a_step_is_one_row_and_the_measure_has_its_own_name():
    expected = pd.DataFrame(
        {
            "step": [0, 2, 4],
            "seconds": [1.5, 3.0, 5.0],
            "loss": [np.nan, 0.5, 0.1 + 0.2],
            "learning_rate": [np.nan, 1e-3, 5e-4],
            "nDCG@10": [0.25, np.nan, 0.75],
        }
    )
    pd.testing.assert_frame_equal(history_frame(LOG, "nDCG@10"), expected)


def test_without_validation_or_steps_there_is_a_frame_too():
    assert history_frame(LOG[1:3], None).columns.tolist() == ["step", "seconds", "loss", "learning_rate"]
    empty = history_frame([], "RR@10")
    assert empty.columns.tolist() == ["step", "seconds", "loss", "learning_rate", "RR@10"]
    assert empty.dtypes.tolist() == history_frame(LOG, "RR@10").dtypes.tolist()


def test_a_log_of_an_earlier_version_has_no_times():
    old = [{name: value for name, value in entry.items() if name != "seconds"} for entry in LOG[1:]]
    assert history_frame(old, "nDCG@10")["seconds"].isna().all()


def test_the_file_is_the_same_frame(tmp_path):
    for log in (LOG, []):
        history = history_frame(log, "nDCG@10")
        (tmp_path / HISTORY_FILE).write_bytes(history_bytes(history))
        pd.testing.assert_frame_equal(read_history(tmp_path), history)


def test_a_folder_without_a_history_has_none_and_a_damaged_one_is_named(tmp_path):
    assert read_history(tmp_path) is None
    (tmp_path / HISTORY_FILE).write_text("step,loss\none,two\n")
    with pytest.raises(InputError, match=r"history.csv can't be read: .*one"):
        read_history(tmp_path)
