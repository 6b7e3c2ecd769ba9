"""``ReadThroughScorer``: takes scores from a store, and asks a scorer for the missing ones, which it then stores."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from time import monotonic, perf_counter
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pyterrier_bertcat.scoring.statistics import RunStatistics
from pyterrier_bertcat.store.database import Cut, Scores
from pyterrier_bertcat.store.pair_hashes import HashedPairs

if TYPE_CHECKING:
    from pyterrier_bertcat.scoring.pair_scorer import PairScorer
    from pyterrier_bertcat.store.score_store import ScoreStore, Settings

Rows = NDArray[np.int64]

_WRITE_EVERY_S = 0.25


class ReadThroughScorer:
    """Scores pairs as a scorer would, asking it only for those that are not in a store.

    A thread stores new scores four times a second, and at the end, also when scoring fails or is interrupted (Ctrl-C).
    A process that is killed loses at most the scores since the last time.

    Attributes:
        stats: Of the last call that ended; None before the first one.
    """

    def __init__(self, store: ScoreStore, settings: Settings, make_scorer: Callable[[], PairScorer]) -> None:
        """Loads nothing.

        Args:
            store: Where scores are looked up and kept.
            settings: Everything that can change a score: the checkpoint's fingerprint and how it is used.
            make_scorer: Makes the scorer. Called only if a score is missing.
        """
        self._store = store
        self._settings = settings
        self._make_scorer = make_scorer
        self.stats: RunStatistics | None = None

    def score(self, queries: list[str], texts: list[str]) -> Scores:
        """Scores ``queries[i]`` with ``texts[i]``. The strings are trusted: check them before.

        Args:
            queries: n strings of Unicode.
            texts: n strings of Unicode.

        Returns:
            float32 (n,), in the order of the input, as the scorer gave them, now or when they were stored.

        Raises:
            StoreError: The store is locked, damaged, full or can't be written.
            BertCatError: Any error of the scorer.
        """
        began = perf_counter()
        pairs = HashedPairs.of(queries, texts)
        scores, cut = self._store.look_up(self._settings, pairs)
        missing = np.flatnonzero(np.isnan(scores))
        run = RunStatistics()
        if len(missing):
            rows = missing.tolist()
            scorer = self._make_scorer()
            with _Writer(self._store, self._settings, pairs[missing]) as writer:
                scored = scorer.score_in_detail(
                    [queries[row] for row in rows], [texts[row] for row in rows], finished=writer.finished
                )
            scores[missing], cut[:, missing] = scored.scores, scored.cut
            run = scorer.stats or run
        run = replace(run, pairs=len(scores), from_store=len(scores) - len(missing))
        run.truncated_pairs = run.truncated_queries = run.truncated_texts = 0
        run.count_cut(cut)
        run.seconds = perf_counter() - began
        self.stats = run
        return scores


class _Writer:
    """Collects scores of pairs and stores them now and then, while others are being computed."""

    def __init__(self, store: ScoreStore, settings: Settings, pairs: HashedPairs) -> None:
        self._store, self._settings, self._pairs = store, settings, pairs
        self._waiting: list[tuple[Rows, Scores, Cut]] = []
        self._written_s = monotonic()
        self._writing: Future[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="storing")

    def finished(self, rows: Rows, scores: Scores, cut: Cut) -> None:
        """Takes the scores of some of the pairs, and whether their queries and texts were cut."""
        self._waiting.append((rows, scores, cut))
        busy = self._writing is not None and not self._writing.done()
        if not busy and monotonic() - self._written_s >= _WRITE_EVERY_S:
            self._write()

    def _write(self) -> None:
        """Waits for the last write, which raises its error, and starts to store the collected scores."""
        if self._writing is not None:
            self._writing.result()
        if self._waiting:
            rows, scores, cut = (np.concatenate(parts, axis=-1) for parts in zip(*self._waiting, strict=True))
            self._writing = self._thread.submit(self._store.add, self._settings, self._pairs[rows], scores, cut=cut)
            self._waiting = []
        self._written_s = monotonic()

    def __enter__(self) -> _Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._write()
            self._write()  # nothing is left, so this waits for the last write and its error
        finally:
            self._thread.shutdown()
