"""Pairs for the tests of the scorer, and a backend with little memory that records what it scored."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from pyterrier_bertcat.pairs.batches import PairBatch

WORDS = "what is a fox dog and over the lazy quick brown jump unbelievably 🔥 café 1,000 of [SEP]".split()  # noqa: SIM905
QUERIES = [" ".join(WORDS[number % 5 : number % 5 + number % 4]) for number in range(60)]
TEXTS = [" ".join(WORDS * (number % 7))[: 1 + 13 * (number % 31)] for number in range(60)]


class LimitedBackend:
    """A device with little memory: it fails above a number of tokens or rows, and records what it scored."""

    device_name, dtype_name, pads = "limited", "float32", True
    default_batch_tokens = 1024
    most_running = 0

    def __init__(self, *, tokens: float = float("inf"), rows: float = float("inf"), error: Exception | None = None):
        self.tokens, self.rows = tokens, rows
        self.error = error or torch.OutOfMemoryError("CUDA out of memory.")
        self.scored: list[tuple[int, ...]] = []
        self.refused = 0

    def peak_memory_mb(self) -> None:
        return None

    def start(self, batch: PairBatch) -> Callable[[], np.ndarray]:
        if len(batch) * batch.lengths.max() > self.tokens or len(batch) > self.rows:
            self.refused += 1
            raise self.error
        ids = [tuple(part.tolist()) for part in np.split(batch.input_ids, batch.starts[1:])]
        self.scored += ids
        scores = [sum((place + 1) * token for place, token in enumerate(row)) / 1e4 for row in ids]
        return lambda: np.array(scores, np.float32)
