"""A frame of three rows for the tests of frames, and scores for it."""

from __future__ import annotations

import numpy as np
import pandas as pd


def frame(**changes):
    columns = {
        "qid": ["1", "1", "2"],
        "query": ["one", "one", "two"],
        "docno": ["a", "b", "c"],
        "text": ["alpha", "beta", "gamma"],
    }
    return pd.DataFrame({**columns, **changes})


def scores_of(*values):
    return np.array(values, dtype=np.float32)
