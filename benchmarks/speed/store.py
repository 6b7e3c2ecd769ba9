"""What the score store costs: looking up, writing while scoring, bytes on disk.

    python -m benchmarks.speed.store [--pairs 1000000] [--rounds 3] [--scored 512]

Prints Markdown tables, medians over the rounds.

Looking up: a frame whose scores are all stored, in a process that is held to one core and has not imported torch.
1,000 texts for each query, no text twice; and 100 texts for each query out of a tenth as many distinct ones. A text is
60 made-up words. Timed are the scores alone, from lists of strings, and the way from the frame to the ranked frame.

Writing: the same pairs scored without a store and through an empty one, alternating. By the packaged checkpoint in
bfloat16, texts of 12 words (about 60 tokens), in CPU time with one thread, which other programs disturb least; and by a
stand-in for a GPU, which gives 1,024 scores at a time, 60,000 per second, and leaves the CPU idle. "Writing" is the
share of time that a store adds, hashing and looking up aside, which "in all" has as well.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.common import argument_parser, machine, made_up_run, made_up_texts, seconds_of
from pyterrier_bertcat.pipeline.frames import query_text_pairs, ranked
from pyterrier_bertcat.scoring.statistics import RunStatistics
from pyterrier_bertcat.store.pair_hashes import HashedPairs
from pyterrier_bertcat.store.read_through import ReadThroughScorer
from pyterrier_bertcat.store.score_store import ScoreStore

SETTINGS = {"checkpoint": "0" * 64, "max_length": 512, "dtype": "bfloat16"}
WORDS_PER_TEXT, WORDS_PER_SHORT_TEXT = 60, 12
DEVICE_BATCH, DEVICE_PAIRS_PER_S, DEVICE_PAIRS = 1024, 60_000, 300_000


def main() -> None:
    """Prints the tables."""
    parser = argument_parser(__doc__)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scored", type=int, default=512, help="pairs that the packaged checkpoint scores")
    arguments = parser.parse_args()
    print(f"{machine()}\n")
    texts = made_up_texts(np.full(arguments.pairs, WORDS_PER_TEXT), seed=1)
    print_looking_up(texts, arguments.rounds)
    print_writing(texts, arguments.rounds, arguments.scored)


def print_looking_up(texts: list[str], rounds: int) -> None:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    pairs = len(texts)
    print("| frame | scores alone, pairs/s | frame to ranked frame, pairs/s | bytes per pair |\n|---|---|---|---|")
    for per_query, distinct in ((1000, pairs), (100, pairs // 10)):
        frame = made_up_run(pairs, per_query, texts[:distinct])
        queries, found = frame["query"].tolist(), frame["text"].tolist()
        with tempfile.TemporaryDirectory() as folder:
            store = ScoreStore(folder)
            hashed = HashedPairs.of(queries, found)
            for rows in np.array_split(np.arange(pairs), max(1, pairs // DEVICE_PAIRS_PER_S)):
                store.add(SETTINGS, hashed[rows], rows.astype(np.float32))
            store.close()
            size = (store.path / "scores.sqlite3").stat().st_size
            scorer = ReadThroughScorer(store, SETTINGS, never)

            def from_frame(frame: pd.DataFrame = frame, scorer: ReadThroughScorer = scorer) -> pd.DataFrame:
                return ranked(frame, scorer.score(*query_text_pairs(frame, text_field="text")))

            alone = [seconds_of(partial(scorer.score, queries, found)) for _ in range(rounds)]
            whole = [seconds_of(from_frame) for _ in range(rounds)]
            store.close()
        rates = " | ".join(f"{pairs / statistics.median(seconds):,.0f}" for seconds in (alone, whole))
        name = f"{pairs // per_query:,} queries of {per_query:,}, {distinct:,} distinct texts"
        print(f"| {name} | {rates} | {size / pairs:.1f} |", flush=True)
    print("\ntorch was imported" if "torch" in sys.modules else "\ntorch was not imported", "so far")
    os.sched_setaffinity(0, cores)


def print_writing(texts: list[str], rounds: int, scored: int) -> None:
    print("\n| scorer | pairs | pairs/s without a store | writing | in all |\n|---|---|---|---|---|")
    short = made_up_texts(np.full(scored, WORDS_PER_SHORT_TEXT), seed=2)
    ways = {
        "stand-in for a GPU": (StandIn(), texts[:DEVICE_PAIRS], time.perf_counter),
        "mini in bfloat16": (packaged_scorer(), short, time.process_time),
    }
    for name, (scorer, texts, clock) in ways.items():
        count = len(texts)
        frame = made_up_run(count, 1000, texts)
        pairs = frame["query"].tolist(), frame["text"].tolist()
        scorer.score(*pairs)
        figures = [with_and_without_store(scorer, *pairs, clock) for _ in range(rounds)]
        plain, writing, in_all = map(statistics.median, zip(*figures, strict=True))
        print(f"| {name} | {count:,} | {count / plain:,.0f} | {writing:+.1%} | {in_all:+.1%} |", flush=True)


def with_and_without_store(
    scorer: Any, queries: list[str], texts: list[str], clock: Callable[[], float]
) -> tuple[float, float, float]:
    """Seconds without a store, and which share more it takes with one: for writing, and in all."""
    plain = seconds_of(lambda: scorer.score(queries, texts), clock=clock)
    looked_up: list[float] = []

    def make_scorer() -> Any:
        looked_up.append(clock())
        return scorer

    with tempfile.TemporaryDirectory() as folder:
        store = ScoreStore(folder)
        store.remember("made", "yes")
        start = clock()
        ReadThroughScorer(store, SETTINGS, make_scorer).score(queries, texts)
        end = clock()
        store.close()
    return plain, (end - looked_up[0]) / plain - 1, (end - start) / plain - 1


class StandIn:
    """In a `PairScorer`'s place: batches of scores at a steady pace."""

    statistics = RunStatistics()

    def score(self, queries: list[str], texts: list[str], *, finished: Callable[..., None] | None = None) -> np.ndarray:
        """Gives n scores, after n / 60,000 seconds."""
        scores = np.arange(len(queries), dtype=np.float32)
        for start in range(0, len(scores), DEVICE_BATCH):
            time.sleep(DEVICE_BATCH / DEVICE_PAIRS_PER_S)
            if finished is not None:
                finished(np.arange(start, min(start + DEVICE_BATCH, len(scores))), scores[start : start + DEVICE_BATCH])
        return scores


def packaged_scorer() -> Any:
    import torch

    from pyterrier_bertcat.model.checkpoint import load_checkpoint
    from pyterrier_bertcat.scoring.pair_scorer import PairScorer

    torch.set_num_threads(1)
    return PairScorer(load_checkpoint("mini"), device="cpu", dtype="bfloat16", verbose=False)


def never() -> Any:
    raise RuntimeError("a score is missing in the store")


if __name__ == "__main__":
    main()
