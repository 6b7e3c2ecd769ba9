"""What Ray costs beside the scoring, on this machine's two cores.

    python -m benchmarks.speed.cluster [--pairs 2000 20000] [--threads 1 2] [--rounds 1]

- Pairs of ``mini`` in bfloat16, texts of 60 words, no text twice, scored by `PairScorer` in one process with
  each number of threads, then by a Ray job of one actor and of two, with one thread each.
- A job of a single pair: what starting actors takes.
- 200 pairs in a single shard and in 200: what each shard takes; and a second call, which finds nothing to do.

Seconds depend on what else runs on the machine. Core-seconds, the time for which all processes of Ray and this script
computed, depend on that much less.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import ray
import torch

from benchmarks.common import argument_parser, machine, made_up_run, made_up_texts
from benchmarks.speed.workloads import one_token_words
from pyterrier_bertcat import PairScorer, load_checkpoint
from pyterrier_bertcat.ray import rerank

DEPTH = 100
QUERY_WORDS, TEXT_WORDS = 8, 60
OPTIONS = {"model": "mini", "dtype": "bfloat16", "num_gpus": 0, "verbose": False}
SHARDS = 8


def pairs_frame(count: int) -> pd.DataFrame:
    """Pairs, 100 for each query."""
    texts = made_up_texts(np.full(count, TEXT_WORDS), 2, one_token_words())
    return made_up_run(count, DEPTH, texts, query_words=QUERY_WORDS, vocabulary=one_token_words())


class CoreSeconds:
    """For how long this process and all below it have computed; asked often, because those that end take it along."""

    def __init__(self) -> None:
        self.of_process: dict[int, float] = {}
        threading.Thread(target=self._watch, daemon=True).start()

    def total(self) -> float:
        """Up to now."""
        self._look()
        return sum(self.of_process.values())

    def _watch(self) -> None:
        while True:
            self._look()
            time.sleep(0.5)

    def _look(self) -> None:
        own = psutil.Process()
        for process in (own, *own.children(recursive=True)):
            with contextlib.suppress(psutil.Error):  # it has just ended
                times = process.cpu_times()
                self.of_process[process.pid] = times.user + times.system


CORE_SECONDS = CoreSeconds()


@contextlib.contextmanager
def reported(what: str, pairs: int) -> Iterator[None]:
    """Measures the block, and prints."""
    cores, began = CORE_SECONDS.total(), time.perf_counter()
    yield
    seconds = time.perf_counter() - began
    cores = CORE_SECONDS.total() - cores
    print(
        f"{what:<36}{pairs:>6} pairs{seconds:>8.2f} s{cores:>8.2f} core-s{pairs / cores:>8.1f} pairs/core-s   "
        f"load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def job(frame: pd.DataFrame, folder: Path, what: str, **options: object) -> None:
    """Writes a frame's pairs, scores them in a job, and calls it again."""
    frame.to_parquet(folder / "pairs.parquet")
    with tempfile.TemporaryDirectory(dir=folder) as output:
        with reported(what, len(frame)):
            rerank(folder / "pairs.parquet", Path(output) / "scores", **OPTIONS, **options)
        with reported("  called again", len(frame)):
            rerank(folder / "pairs.parquet", Path(output) / "scores", **OPTIONS, **options)


def main() -> None:
    """Measures, and prints."""
    parser = argument_parser(__doc__)
    parser.add_argument("--pairs", type=int, nargs="+", default=[2000, 20000])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    print(machine())
    with reported("ray.init", 0):
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200_000_000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for count in arguments.pairs * arguments.rounds:
            frame = pairs_frame(count)
            shard_rows = -(-count // SHARDS)
            for threads in arguments.threads:
                torch.set_num_threads(threads)
                with reported("PairScorer, loaded and 1 pair", 1):
                    scorer = PairScorer(load_checkpoint("mini"), device="cpu", dtype="bfloat16", verbose=False)
                    scorer.score(frame["query"][:1], frame["text"][:1])
                with reported(f"PairScorer, {threads} thread(s)", count):
                    scorer.score(frame["query"], frame["text"])
            for actors in (1, 2):
                job(frame, folder, f"Ray, {actors} actor(s) of 1 thread", concurrency=actors, shard_rows=shard_rows)
        for _ in range(arguments.rounds):
            job(pairs_frame(1), folder, "Ray, 1 actor, 1 pair", concurrency=1)
            job(pairs_frame(200), folder, "Ray, 1 actor, 1 shard", concurrency=1)
            job(pairs_frame(200), folder, "Ray, 1 actor, 200 shards", concurrency=1, shard_rows=1)


if __name__ == "__main__":
    main()
