"""What the tests of the score store write and expect to find. Imported by the processes that they start, too."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from pyterrier_bertcat.store.database import ScoreDatabase
from pyterrier_bertcat.store.pair_hashes import HashedPairs

SIZE = 64
SETTINGS = "{}"


def batch(n: int) -> tuple[HashedPairs, np.ndarray]:
    """Batch n: 64 pairs of three queries, and scores that tell all pairs of all batches apart."""
    pairs = HashedPairs.of([f"query {row % 3}" for row in range(SIZE)], [f"text {n} {row}" for row in range(SIZE)])
    return pairs, np.float32(n * SIZE + np.arange(SIZE))


def write(database: ScoreDatabase, n: int) -> None:
    database.write(SETTINGS, *batch(n), np.zeros((2, SIZE), dtype=np.bool_))


def state(database: ScoreDatabase, n: int) -> str:
    """What a store has of batch n: ``"right"``, all of it; ``"absent"``; or else ``"wrong"``."""
    pairs, scores = batch(n)
    found, _ = database.find(SETTINGS, pairs)
    if np.isnan(found).all():
        return "absent"
    return "right" if (found == scores).all() else "wrong"


def child(work: Callable[[], None]) -> int:
    """Starts a fork of this process that does some work and ends; its id."""
    process = os.fork()
    if not process:
        try:
            work()
        finally:
            os._exit(0)
    return process
