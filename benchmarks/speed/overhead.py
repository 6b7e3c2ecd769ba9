"""What the package costs besides the model: frames of a million rows, imports, and the time to the first score.

    python -m benchmarks.speed.overhead [--rows 1000000] [--rounds 5]

- A frame of this many rows (1,000 documents a query, 60 words a document, 100,000 distinct documents) through the
  re-ranker's own steps with a scorer that costs nothing: seconds, and memory at its peak above the frame.
- A tenth of it, and all of it, through `PairScorer` with a backend that costs nothing: tokenising, batches, windows.
- ``import pyterrier_bertcat`` after ``import pyterrier``: milliseconds, each in a fresh interpreter.
- From constructing a re-ranker to its first score, against plain transformers loading the same weights: each in a fresh
  interpreter, alternating, after the imports of torch and transformers; medians, and the median ratio of the rounds.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.common import alternating, argument_parser, machine, made_up_texts, median_ratio, with_peak_memory
from benchmarks.speed.ways import write_model
from pyterrier_bertcat import PairScorer, load_checkpoint
from pyterrier_bertcat.pairs.batches import PairBatch
from pyterrier_bertcat.pairs.strings import DistinctPairs
from pyterrier_bertcat.pipeline.frames import query_text_pairs, ranked

DEPTH = 1000
DOCUMENTS = 100_000
WORDS = 60

IMPORT = """
import time, pyterrier
start = time.perf_counter()
import pyterrier_bertcat
print(time.perf_counter() - start)
"""
OURS = """
import sys, time, torch, transformers, pandas, pyterrier
frame = pandas.DataFrame([["1", "what is it", "d", "some text"]], columns=["qid", "query", "docno", "text"])
start = time.perf_counter()
from pyterrier_bertcat import BertCatReRanker
BertCatReRanker(sys.argv[1], device="cpu", verbose=False)(frame)
print(time.perf_counter() - start)
"""
PLAIN = """
import sys, time, torch, transformers
start = time.perf_counter()
model = transformers.AutoModelForSequenceClassification.from_pretrained(sys.argv[1], dtype=torch.float32)
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
print(time.perf_counter() - start)
"""


def main() -> None:
    """Prints the figures."""
    parser = argument_parser(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(machine())

    frame = frame_of(arguments.rows)
    start = time.perf_counter()
    _, peak = with_peak_memory(lambda: rerank_for_nothing(frame))
    print(f"{len(frame):,} rows with a free scorer: {time.perf_counter() - start:.1f} s, {peak:.0f} MB above the frame")

    for part in (frame.head(len(frame) // 10), frame):
        queries, texts = part["query"].tolist(), part["text"].tolist()
        scorer = PairScorer(load_checkpoint("mini"), backend=FreeBackend(), verbose=False)
        start = time.perf_counter()
        _, peak = with_peak_memory(lambda: scorer.score(queries, texts))  # noqa: B023
        took_us = (time.perf_counter() - start) / len(part) * 1e6
        print(
            f"PairScorer with a free backend, {len(part):,} pairs: {took_us:.0f} µs a pair, {peak:.0f} MB", flush=True
        )

    imports = [measured_in_a_fresh_interpreter(IMPORT) * 1e3 for _ in range(arguments.rounds)]
    print(f"import pyterrier_bertcat after pyterrier: {statistics.median(imports):.2f} ms")

    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder))
        programs = {"plain": PLAIN, "ours": OURS}
        seconds = alternating(
            {name: partial(measured_in_a_fresh_interpreter, code, folder) for name, code in programs.items()},
            arguments.rounds,
        )
    print(
        f"construct to first score {statistics.median(seconds['ours']):.2f} s, "
        f"loading with plain transformers {statistics.median(seconds['plain']):.2f} s, "
        f"ratio {median_ratio(seconds['ours'], seconds['plain']):.2f}"
    )


class FreeBackend:
    """Scores nothing, in no time."""

    device_name, dtype_name, pads = "none", "none", False
    default_batch_tokens = 2048
    most_running = 0

    def peak_memory_mb(self) -> None:
        """Unknown."""

    def start(self, batch: PairBatch) -> Callable[[], np.ndarray]:
        """Zeros."""
        return lambda: np.zeros(len(batch), dtype=np.float32)


def frame_of(rows: int) -> pd.DataFrame:
    """A run with texts; the rows in no order."""
    numbers = np.random.default_rng(0)
    texts = np.array(made_up_texts(np.full(DOCUMENTS, WORDS), seed=0), dtype=object)
    order = numbers.permutation(rows)
    queries, documents = order // DEPTH, numbers.integers(0, DOCUMENTS, rows)
    return pd.DataFrame(
        {
            "qid": [f"q{query}" for query in queries],
            "query": [f"what is known about {query}" for query in queries],
            "docno": [f"d{document}" for document in documents],
            "text": texts[documents],
        }
    )


def rerank_for_nothing(frame: pd.DataFrame) -> pd.DataFrame:
    """What the re-ranker does around the model: checking, finding equal pairs, sorting, ranks."""
    queries, texts = query_text_pairs(frame, text_field="text")
    pairs = DistinctPairs.among(queries, texts)
    scores = np.random.default_rng(1).standard_normal(len(pairs)).astype(np.float32)
    return ranked(frame, scores[pairs.of_row])


def measured_in_a_fresh_interpreter(code: str, *arguments: str) -> float:
    """The seconds that a program measures and prints."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
