"""Result frames, as a first stage gives them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

TEXTS = {
    "d1": "copy a folder with everything in it",
    "d2": "remove a file from the disk",
    "d3": "how sockets wait for a connection, and how long they do so before they give up",
    "d4": "",
    "d5": "große Straßen und 東京 🔥",
}


def frame(texts: Sequence[str] | None = None, **columns) -> pd.DataFrame:
    """One query with some texts, d1, d2 and so on; or else three rows of two queries. Columns given come on top."""
    if texts is None:
        rows = {
            "qid": ["1", "1", "2"],
            "query": ["one", "one", "two"],
            "docno": ["a", "b", "c"],
            "text": ["alpha", "beta", "gamma"],
        }
    else:
        docnos = [f"d{number}" for number in range(1, len(texts) + 1)]
        rows = {"qid": "q", "query": "what is a fox", "docno": docnos, "text": texts}
    return pd.DataFrame({**rows, **columns})


def results(**changes) -> pd.DataFrame:
    """Two queries, five rows of `TEXTS`, with scores and ranks."""
    table = pd.DataFrame(
        {
            "qid": ["q2", "q2", "q1", "q1", "q1"],
            "query": ["copy a directory", "copy a directory", "wait", "wait", "wait"],
            "docno": list(TEXTS),
            "text": list(TEXTS.values()),
            "score": [9.0, 8.0, 7.0, 6.0, 5.0],
            "rank": [0, 1, 0, 1, 2],
        }
    )
    return table.assign(**changes)


def scores_of(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)
