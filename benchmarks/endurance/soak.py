"""An hour of mixed frames in one process: does memory stay flat, and does every score stay what it was?

    OMP_NUM_THREADS=1 python -m benchmarks.endurance.soak [--minutes 60]

Five re-rankers take turns: over a tiny checkpoint with random weights one that is plain, one with passages, one with a
store (which begins anew now and then) and one with depth; and one over the packaged ``mini``. Each gets random frames
of 0 to 200 rows of odd texts (emoji, blanks, control characters, special tokens, very long, repeated); some frames are
refused, because a text is missing. Now and then it gets the reference rows as well: alone, and mixed into a random
frame. Their scores are held to those of the first time.

Prints a row per minute, with the resident memory after a garbage collection, and ends with exit code 1 if memory grew
by more than 5 % (medians of the minutes after the first sixth, and of the last sixth) or a score moved by more than
5e-5.
"""

from __future__ import annotations

import gc
import random
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

import pandas as pd

from benchmarks.common import argument_parser, resident_mb, tiny_checkpoint
from pyterrier_bertcat import BertCatReRanker, Passages, ScoreStore
from pyterrier_bertcat.errors import InputError, TruncationWarning

MOST_GROWTH = 0.05
MOST_DRIFT = 5e-5
REFERENCE_EVERY = 10
NEW_STORE_EVERY = 100
TEXT = "what is the re-ranking of passages 'quoted' naïve Ünïcode 中文字 🤗 e-mail 3.14 don't zzqxj library it"
ODD_TEXTS = ["", " ", "\t\n\u3000", "🤗" * 40, "[SEP] [CLS] [MASK]", "\x00\x07", "\u202eabc\u200b", "a" * 3000]


class Soak:
    """Re-rankers that take turns at random frames, and what has been seen of them so far."""

    def __init__(self, scratch: Path) -> None:
        self._random = random.Random(0)
        self._scratch = scratch
        tiny = tiny_checkpoint()
        self._rerankers = {
            "plain": BertCatReRanker(tiny, verbose=False),
            "passages": BertCatReRanker(tiny, passages=Passages(length=60, stride=30), verbose=False),
            "store": BertCatReRanker(tiny, store=ScoreStore(scratch / "store0"), verbose=False),
            "depth": BertCatReRanker(tiny, depth=20, verbose=False),
            "mini": BertCatReRanker("mini", verbose=False),
        }
        self._reference = self._frame(rows=24, name="reference")
        self._expected: dict[str, pd.Series] = {}
        self.frames = self.pairs = self.refused = 0
        self.largest_drift = 0.0

    def step(self) -> None:
        """One frame for one of them."""
        kind = list(self._rerankers)[self.frames % len(self._rerankers)]
        reranker = self._rerankers[kind]
        if kind == "store" and self.frames % NEW_STORE_EVERY < len(self._rerankers):
            self._begin_store_anew(reranker)
        frame = self._frame(rows=self._random.choice([0, 1, 2, self._random.randint(0, 200)]))
        if self._random.random() < 0.05 and len(frame):
            self._check_refused(reranker, frame)
        else:
            reranker.transform(frame)
            self.pairs += len(frame)
        if self.frames // len(self._rerankers) % REFERENCE_EVERY == 0:
            self._check_reference(kind, reranker, frame)
        self.frames += 1

    def _check_refused(self, reranker: BertCatReRanker, frame: pd.DataFrame) -> None:
        row = self._random.randrange(len(frame))
        frame.loc[row, "text"] = None
        frame.loc[row, "score"] = float("inf")  # first of its query, so that depth does not leave it out
        try:
            reranker.transform(frame)
        except InputError:
            self.refused += 1
        else:
            sys.exit("a frame without a text was scored")
        frame.loc[row, "text"] = ""

    def _check_reference(self, kind: str, reranker: BertCatReRanker, frame: pd.DataFrame) -> None:
        mixed = pd.concat([frame, self._reference]).sample(frac=1, random_state=self._random.randrange(2**31))
        for rows in (self._reference, mixed):
            scores = reranker.transform(rows).set_index("docno")["score"]
            found = scores[self._reference["docno"]]
            expected = self._expected.setdefault(kind, found)
            self.largest_drift = max(self.largest_drift, float((found - expected).abs().max()))
            self.pairs += len(rows)

    def _begin_store_anew(self, reranker: BertCatReRanker) -> None:
        reranker.store.close()
        for path in reranker.store.path.glob("*"):
            path.unlink()
        reranker.store = ScoreStore(self._scratch / f"store{self.frames}")

    def _frame(self, rows: int, name: str = "random") -> pd.DataFrame:
        choose = self._random
        queries = [self._text() for _ in range(3)]
        qids = [choose.randrange(3) for _ in range(rows)]
        return pd.DataFrame(
            {
                "qid": [f"{name}{qid}" for qid in qids],
                "query": [queries[qid] for qid in qids],
                "docno": [f"{name}{row}" for row in range(rows)],
                "text": pd.Series([self._text() for _ in range(rows)], dtype=object),
                "score": [choose.random() for _ in range(rows)],
            }
        )

    def _text(self) -> str:
        choose = self._random
        if choose.random() < 0.2:
            return choose.choice(ODD_TEXTS)
        longest = 3000 if choose.random() < 0.01 else 60
        return " ".join(choose.choices(TEXT.split(), k=choose.randrange(longest)))


def main() -> None:
    """Prints the table, and ends with exit code 1 if something moved."""
    parser = argument_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    minutes = parser.parse_args().minutes
    warnings.simplefilter("ignore", TruncationWarning)
    memory: list[float] = []
    print("| minute | frames | refused | pairs | memory, MB | largest drift |\n|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        soak = Soak(Path(scratch))
        began = time.monotonic()
        while len(memory) < minutes:
            soak.step()
            if time.monotonic() - began >= 60 * (len(memory) + 1):
                gc.collect()
                memory.append(resident_mb())
                counts = f"{soak.frames:,} | {soak.refused:,} | {soak.pairs:,}"
                print(f"| {len(memory)} | {counts} | {memory[-1]:,.0f} | {soak.largest_drift:.1e} |", flush=True)
    sixth = max(1, len(memory) // 6)
    early, late = statistics.median(memory[sixth : 2 * sixth] or memory), statistics.median(memory[-sixth:])
    print(f"\nmemory grew by {late / early - 1:+.1%}, from {early:,.0f} to {late:,.0f} MB")
    if late / early - 1 > MOST_GROWTH or soak.largest_drift > MOST_DRIFT:
        sys.exit("memory grew, or a score moved")


if __name__ == "__main__":
    main()
