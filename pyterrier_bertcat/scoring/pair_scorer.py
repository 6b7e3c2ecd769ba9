"""``PairScorer``: queries and texts in, float32 scores out, in the order of the input."""

from __future__ import annotations

import copy
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyterrier as pt
from numpy.typing import NDArray

from pyterrier_bertcat.errors import InputError, PairTooLargeError, ScoreError
from pyterrier_bertcat.pairs.batches import EncodedPairs, PairBatch
from pyterrier_bertcat.pairs.pair_tokenizer import PairTokenizer, checked_pairs, distinct_pairs, refuse_surrogates
from pyterrier_bertcat.pairs.planning import DEFAULT_BATCH_SIZE, plan_batches, smaller_budget
from pyterrier_bertcat.pairs.truncation import Truncation
from pyterrier_bertcat.scoring.backends.mean import MeanBackend
from pyterrier_bertcat.scoring.backends.torch import TorchBackend
from pyterrier_bertcat.scoring.devices import is_out_of_memory
from pyterrier_bertcat.scoring.look_ahead import look_ahead
from pyterrier_bertcat.scoring.row_scores import RowScores, ScoredPairs
from pyterrier_bertcat.scoring.statistics import RunStatistics

if TYPE_CHECKING:
    import torch

    from pyterrier_bertcat.model.checkpoint import Checkpoint
    from pyterrier_bertcat.pairs.passages import Passages
    from pyterrier_bertcat.scoring.backends import Backend

Rows = NDArray[np.int64]
Scores = NDArray[np.float32]
_Made = TypeVar("_Made")

_BAR_DELAY_S = 1.0  # pipelines make hundreds of short calls, which must not flash a bar each
_EXCERPT_CHARACTERS = 60
# Tokenised at a time: enough to find rows of equal length, few enough to start soon.
_WINDOW_PAIRS = 8192
_WINDOW_DOCUMENTS = 512


class PairScorer:
    """Scores (query, text) pairs with a checkpoint: the seam that everything above the engine speaks to.

    Each distinct text is tokenised once and each distinct pair scored once. Pairs of similar length share a batch, the
    longest first. Many pairs are taken window by window, the next one tokenised while the present one is scored, so
    that memory does not grow with their number. A batch that does not fit in memory is tried again in smaller ones;
    the budget found so is kept for later calls. One scorer may be shared between threads, and is as good as new after
    an interrupt (Ctrl-C).

    Attributes:
        passages: As given.
        verbose: Whether calls that take longer than a second show a progress bar.
        statistics: Of the last call that ended; None before the first one.

    Example:
        >>> from pyterrier_bertcat import PairScorer, load_checkpoint
        >>> scorer = PairScorer(load_checkpoint("mini"), device="cpu", verbose=False)
        >>> texts = ["Delete a directory tree.", "Copy a directory tree."]
        >>> scorer.score(["how do I copy a folder"] * 2, texts).round(1)
        array([1.8, 4.4], dtype=float32)
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        batch_size: int = DEFAULT_BATCH_SIZE,
        batch_tokens: int | None = None,
        truncation: Truncation | None = None,
        passages: Passages | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "auto",
        verbose: bool = True,
        backend: Backend | None = None,
    ) -> None:
        """Makes the model ready to score.

        Args:
            checkpoint: Model and tokenizer. Its weights are shared or copied, never changed.
            batch_size: How many pairs of the greatest length a batch may hold; of shorter ones, as many more as have
                no more tokens together.
            batch_tokens: The most tokens per batch. None: what is fastest on the device, within ``batch_size``.
            truncation: How pairs are cut. None: to 512 tokens, the longer of query and text first.
            passages: How texts become passages, and their scores the text's. None: texts are cut.
            device: Where to compute. None: cuda, then mps or xpu where usable, then cpu.
            dtype: Precision of the encoder: ``"auto"`` (float16 on cuda, float32 elsewhere), ``"float32"``,
                ``"bfloat16"`` or ``"float16"``.
            verbose: Whether calls that take longer than a second show a progress bar.
            backend: What computes instead of PyTorch; ``device`` and ``dtype`` are then unused.

        Raises:
            InputError: An option that can't be used: the message says which and why.
        """
        for name, value in (("batch_size", batch_size), ("batch_tokens", batch_tokens)):
            allowed = value is None and name == "batch_tokens"
            if not allowed and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InputError(f"{name} is a whole number of at least 1, got {value!r}")
        truncation = truncation or Truncation()
        positions = checkpoint.model.max_positions
        if truncation.pair_length > positions:
            raise InputError(
                f"max_length={truncation.max_length} is more than the {positions} positions of the model "
                f"({checkpoint.source}): use max_length={positions} or less"
            )
        self.verbose = verbose
        self.statistics: RunStatistics | None = None
        self.passages = passages
        self._tokenizer = PairTokenizer(checkpoint.tokenizer, truncation=truncation, passages=passages)
        if backend is None:
            backend = TorchBackend(checkpoint.model, device=device, dtype=dtype)
        self._backend: Backend = backend
        self._batch_tokens = min(batch_tokens or backend.default_batch_tokens, batch_size * truncation.pair_length)
        self._budget_lock = threading.Lock()

    @classmethod
    def mean(cls, scorers: Sequence[PairScorer]) -> PairScorer:
        """One that gives the mean of several ones' scores; they have to read the same tokens, see `reads_as`."""
        made = copy.copy(scorers[0])
        made._backend = MeanBackend([scorer._backend for scorer in scorers])
        made._batch_tokens = min(scorer._batch_tokens for scorer in scorers)
        made._budget_lock = threading.Lock()
        return made

    def reads_as(self, other: PairScorer) -> bool:
        """Whether both give their models the same tokens, one row per pair."""
        return self.passages is None and other.passages is None and self._tokenizer.encodes_as(other._tokenizer)

    def score(
        self,
        queries: Sequence[str],
        texts: Sequence[str],
        *,
        finished: Callable[[Rows, Scores], None] | None = None,
    ) -> Scores:
        """Scores ``queries[i]`` with ``texts[i]``.

        Args:
            queries: n strings, in any sequence (list, array, pandas Series); empty strings are allowed.
            texts: n strings.
            finished: Called with positions of pairs, int64 (m,), and their scores, float32 (m,), as soon as they are
                known; of equal pairs, with the first one's.

        Returns:
            float32 (n,), in the order of the input: raw relevance logits, higher is more relevant, not probabilities.

        Raises:
            InputError: A value that is not a string, or a string that has no UTF-8 form (a lone surrogate), named by
                position; or unequal numbers of them.
            ScoreError: The model gave a score that is not finite; the message names the pair.
            PairTooLargeError: One pair alone does not fit in memory.
        """
        return self.scored(queries, texts, finished=finished).scores

    def scored(
        self,
        queries: Sequence[str],
        texts: Sequence[str],
        *,
        finished: Callable[[Rows, Scores], None] | None = None,
    ) -> ScoredPairs:
        """Scores ``queries[i]`` with ``texts[i]``, and says more about them than `score`, whose errors it raises.

        Args:
            queries: n strings.
            texts: n strings.
            finished: As for `score`.
        """
        began = time.perf_counter()
        queries, texts = checked_pairs(queries, texts)
        refuse_surrogates(queries, "queries")  # now, and not when their turn comes
        refuse_surrogates(texts, "texts")
        first, place, count = distinct_pairs(queries, texts)
        run = RunStatistics(pairs=len(place), distinct_pairs=len(first))
        scores = np.empty(len(first), dtype=np.float32)
        passages, lost = np.empty((2, len(first)), dtype=np.int64)
        best = np.empty((2, len(first)), dtype=np.int64)
        warned = False
        with self._bar(len(place)) as bar, closing(self._row_scores(queries, texts, first, run)) as row_scores:
            for window, rows, some_scores in row_scores:
                wrong = np.flatnonzero(~np.isfinite(some_scores))
                if len(wrong):
                    row = int(first[window.pair_of(rows[wrong[0]])])
                    raise _not_finite(row, some_scores[wrong[0]], queries[row], texts[row])
                pairs = window.row_scores.add(rows, some_scores)
                done = window.start + pairs
                scores[done], best[:, done] = window.row_scores.of_pairs(pairs)
                passages[done], lost[done] = window.encoded.rows_of_pair[pairs], window.encoded.lost[pairs]
                if bar is not None:
                    bar.update(int(count[done].sum()))
                if finished is not None and len(done):
                    finished(first[done], scores[done])
                if run.back_offs and not warned:
                    warned = True
                    warnings.warn(
                        f"a batch did not fit in memory: going on with at most batch_tokens={self._batch_tokens}",
                        RuntimeWarning,
                        stacklevel=3,
                    )
        run.truncated_pairs, run.tokens_lost = int(count[lost > 0].sum()), int((lost * count).sum())
        run.device, run.dtype = self._backend.device_name, self._backend.dtype_name
        run.batch_tokens, run.peak_memory_mb = self._batch_tokens, self._backend.peak_memory_mb()
        run.seconds = time.perf_counter() - began
        self.statistics = run
        return ScoredPairs(
            scores=scores[place], passages=passages[place], best_passages=best[:, place], tokens_lost=lost[place]
        )

    def character_ranges(self, texts: Sequence[str], token_ranges: Rows) -> Rows:
        """From ranges of texts' tokens to ranges of their characters; see `PairTokenizer.character_ranges`."""
        return self._tokenizer.character_ranges(texts, token_ranges)

    def _row_scores(
        self, queries: list[str], texts: list[str], pairs: Rows, run: RunStatistics
    ) -> Generator[tuple[_Window, Rows, Scores]]:
        """Scores some of the pairs: yields windows, row numbers in them, and the scores of those: every row once."""
        running: deque[tuple[_Window, Rows, PairBatch, Callable[[], Scores]]] = deque()

        def oldest() -> Iterator[tuple[_Window, Rows, Scores]]:
            window, rows, batch, finish = running.popleft()
            scores = self._if_it_fits(finish, rows, batch, window, pairs, run)
            if scores is not None:
                yield window, rows, scores
            else:
                parts = self._parts(rows, batch, run)
                running.extendleft([(window, *started) for started in self._started(parts, window, pairs, run)][::-1])

        padded_tokens = 0
        with closing(self._windows(queries, texts, pairs, run)) as windows:
            for window in windows:
                for rows in plan_batches(window.encoded.lengths, batch_tokens=self._batch_tokens):
                    with run.timed("tokenising_seconds"):
                        batch = window.encoded.batch(rows)
                    run.rows, run.tokens = run.rows + len(batch), run.tokens + int(batch.lengths.sum())
                    padded_tokens += len(batch) * int(batch.lengths.max())
                    todo = [(rows, batch)]
                    running.extend((window, *started) for started in self._started(todo, window, pairs, run))
                    while len(running) > self._backend.most_running:
                        yield from oldest()
        while running:
            yield from oldest()
        if self._backend.pads and padded_tokens:
            run.padding_share = 1 - run.tokens / padded_tokens

    def _windows(self, queries: list[str], texts: list[str], pairs: Rows, run: RunStatistics) -> Generator[_Window]:
        """Tokenises some of the pairs, a number of them at a time."""
        size = _WINDOW_PAIRS if self.passages is None else _WINDOW_DOCUMENTS
        starts = range(0, len(pairs), size)

        def windows() -> Generator[_Window]:
            for start in starts:
                rows = pairs[start : start + size].tolist()
                with run.timed("tokenising_seconds"):
                    encoded = self._tokenizer.encode([queries[row] for row in rows], [texts[row] for row in rows])
                yield _Window(start, encoded, RowScores(encoded, self.passages))

        # A thread for a single window would have nothing to run beside.
        with closing(look_ahead(windows(), name="tokenising") if len(starts) > 1 else windows()) as ready:
            yield from ready

    def _started(
        self, todo: list[tuple[Rows, PairBatch]], window: _Window, pairs: Rows, run: RunStatistics
    ) -> Iterator[tuple[Rows, PairBatch, Callable[[], Scores]]]:
        """Starts scoring batches, or smaller ones that do fit. Yields rows, batch, and what waits for their scores."""
        todo = todo[::-1]
        while todo:
            rows, batch = todo.pop()
            finish = self._if_it_fits(partial(self._backend.start, batch), rows, batch, window, pairs, run)
            if finish is not None:
                yield rows, batch, finish
            else:
                todo += self._parts(rows, batch, run)[::-1]

    def _if_it_fits(
        self, step: Callable[[], _Made], rows: Rows, batch: PairBatch, window: _Window, pairs: Rows, run: RunStatistics
    ) -> _Made | None:
        """What a step of scoring a batch gives, or None where memory does not suffice for it."""
        try:
            with run.timed("scoring_seconds"):
                return step()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise PairTooLargeError(
                    f"pair {pairs[window.pair_of(rows[0])]} has {batch.lengths[0]} tokens and does not fit in "
                    "memory even alone: free memory, choose another device, or lower max_length"
                ) from error
        return None  # and go on outside of the handler: the error's traceback would keep the batch's tensors alive

    def _parts(self, rows: Rows, batch: PairBatch, run: RunStatistics) -> list[tuple[Rows, PairBatch]]:
        """A batch that did not fit in memory as smaller ones, of a budget that is kept."""
        run.back_offs += 1
        longest = int(batch.lengths.max())
        with self._budget_lock:  # another thread may have halved it already, and then it stays
            self._batch_tokens = smaller_budget(self._batch_tokens, rows=len(batch), length=longest)
        step = max(1, min(self._batch_tokens // longest, len(batch) - 1))
        parts = [slice(start, start + step) for start in range(0, len(batch), step)]
        return [(rows[part], batch[part]) for part in parts]

    def _bar(self, pairs: int) -> AbstractContextManager[Any]:
        """A progress bar that counts pairs, or nothing; it appears when a call has taken a second."""
        if not self.verbose or not pairs:
            return nullcontext()
        bar: AbstractContextManager[Any] = pt.tqdm(total=pairs, desc="BERT_Cat", unit="pair", delay=_BAR_DELAY_S)
        return bar


@dataclass(frozen=True)
class _Window:
    """Pairs that were tokenised together.

    Attributes:
        start: Where the first of them is among all distinct pairs.
        encoded: Their tokens.
        row_scores: Their scores, as far as they are known.
    """

    start: int
    encoded: EncodedPairs
    row_scores: RowScores

    def pair_of(self, row: int) -> int:
        """Which of all distinct pairs a row is of."""
        return self.start + int(self.row_scores.pair_of_row[row])


def _not_finite(row: int, score: float, query: str, text: str) -> ScoreError:
    return ScoreError(
        f"the score of pair {row} is {score}, not a number to rank by; query {query[:_EXCERPT_CHARACTERS]!r}, "
        f"text {text[:_EXCERPT_CHARACTERS]!r}. Try dtype='float32'; if that does not help, the checkpoint's weights "
        "are damaged"
    )
