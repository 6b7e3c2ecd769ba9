"""``PairScorer``: queries and texts in, float32 scores out, in the order of the input.

Three kinds of rows occur here. An *input row* is a query with a text as you gave them. Equal input rows are one
*distinct pair*. A *token row* is what the model reads: a distinct pair, or its query with one passage of its text.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import pyterrier as pt
from numpy.typing import NDArray

from pyterrier_bertcat.errors import InputError, PairTooLargeError, ScoreError
from pyterrier_bertcat.pairs.batches import EncodedPairs, PairBatch
from pyterrier_bertcat.pairs.planning import plan_batches, smaller_budget
from pyterrier_bertcat.pairs.strings import DistinctPairs, checked_pairs
from pyterrier_bertcat.scoring.build import backend_for
from pyterrier_bertcat.scoring.devices import is_out_of_memory
from pyterrier_bertcat.scoring.look_ahead import look_ahead
from pyterrier_bertcat.scoring.options import ScoringOptions
from pyterrier_bertcat.scoring.row_scores import RowScores, ScoredPairs
from pyterrier_bertcat.scoring.statistics import RunStatistics

if TYPE_CHECKING:
    from pyterrier_bertcat.model.checkpoint import Checkpoint
    from pyterrier_bertcat.pairs.passages import Passages

Rows = NDArray[np.int64]
Scores = NDArray[np.float32]
Finished = Callable[[Rows, Scores, NDArray[np.bool_]], None]
"""Takes input rows, int64 (m,), with their scores, float32 (m,), and what was cut of them, bool (2, m)."""
_Made = TypeVar("_Made")

_BAR_DELAY_S = 1.0  # pipelines make hundreds of short calls, which must not flash a bar each
_EXCERPT_CHARACTERS = 60
# Tokenised at a time: enough to find rows of equal length, few enough to start soon.
_WINDOW_PAIRS = 8192
_WINDOW_DOCUMENTS = 512


class PairScorer:
    """Scores (query, text) pairs with a checkpoint. Everything above the engine speaks to this class.

    Each distinct text is tokenised once and each distinct pair scored once. Pairs of similar length share a batch, the
    longest first. Large inputs are taken window by window, and the next window is tokenised while the present one is
    scored, so memory does not grow with the input. A batch that does not fit in memory is scored again in smaller
    parts, and later batches are as small. Threads may share a scorer, and after an interrupt (Ctrl-C) it works as
    before.

    Attributes:
        options: As given.
        verbose: Whether calls that take longer than a second show a progress bar.
        stats: Of the last call that ended; None before the first one.

    Example:
        >>> from pyterrier_bertcat import PairScorer, load_checkpoint
        >>> scorer = PairScorer(load_checkpoint("mini"), device="cpu", verbose=False)
        >>> texts = ["Delete a directory tree.", "Copy a directory tree."]
        >>> scorer.score(["how do I copy a folder"] * 2, texts).round(1)
        array([1.8, 4.4], dtype=float32)
    """

    def __init__(self, checkpoint: Checkpoint, *, verbose: bool = True, **options: Any) -> None:
        """Sets up the tokenizer and the backend for one checkpoint.

        Args:
            checkpoint: Model and tokenizer. Its weights are shared or copied, never changed.
            verbose: Whether calls that take longer than a second show a progress bar.
            **options: The fields of `ScoringOptions`: ``device``, ``dtype``, ``passages``, ``batch_size``, … Torch's
                own devices and dtypes will do as well as their names.

        Raises:
            InputError: An option can't be used; the message says which and why.
            WorkerError: A process for one of several devices could not be started.
            MissingExtraError: ``backend="openvino"`` without OpenVINO.
        """
        self.options = ScoringOptions(**{name: _by_name(value) for name, value in options.items()})
        self.verbose = verbose
        self.stats: RunStatistics | None = None
        self._tokenizer = self.options.pair_tokenizer(checkpoint.tokenizer)
        most_tokens, positions = self._tokenizer.most_tokens, checkpoint.model.max_positions
        if most_tokens > positions:
            raise InputError(
                f"max_length={most_tokens} is more than the {positions} positions of the model "
                f"({checkpoint.source}): use max_length={positions} or less"
            )
        self._backend = backend_for(checkpoint, self.options)
        fastest = self.options.batch_tokens or self._backend.default_batch_tokens
        self._batch_tokens = min(fastest, self.options.batch_size * most_tokens)
        self._budget_lock = threading.Lock()

    @property
    def passages(self) -> Passages | None:
        """How texts become passages; None if they are cut."""
        return self.options.passages

    def score(self, queries: Sequence[str], texts: Sequence[str]) -> Scores:
        """Scores ``queries[i]`` with ``texts[i]``.

        Args:
            queries: n strings, in any sequence (list, array, pandas Series). Empty strings are allowed.
            texts: n strings.

        Returns:
            float32 (n,), in the order of the input: raw relevance logits, higher is more relevant, not probabilities.

        Raises:
            InputError: A value is not a string, or has a lone surrogate and so no UTF-8 form; or there are not as many
                texts as queries. The message names the position.
            ScoreError: The model gave a score that is not finite; the message names the pair.
            PairTooLargeError: One pair alone does not fit in memory.
        """
        return self.score_in_detail(*checked_pairs(queries, texts)).scores

    def score_in_detail(
        self, queries: Sequence[str], texts: Sequence[str], *, finished: Finished | None = None
    ) -> ScoredPairs:
        """Scores pairs, and says more about them than `score`. The strings are trusted: check them before.

        Args:
            queries: n strings of Unicode.
            texts: n strings of Unicode.
            finished: Is called with some input rows as soon as their scores are known. Equal input rows are reported
                once, as the first of them.

        Raises:
            ScoreError: As `score`.
            PairTooLargeError: As `score`.
        """
        began = time.perf_counter()
        pairs = DistinctPairs.among(queries, texts)
        run = RunStatistics(pairs=len(queries), distinct_pairs=len(pairs))
        scored = ScoredPairs.unknown(len(pairs))
        warned = False
        with self._bar(len(queries)) as bar, closing(self._batches(queries, texts, pairs.row, run)) as batches:
            for batch, scores in batches:
                _refuse_not_finite(batch, scores, queries, texts)
                done = batch.window.take(batch.rows, scores, scored)
                if bar is not None:
                    bar.update(int(pairs.count[done].sum()))
                if finished is not None and len(done):
                    finished(pairs.row[done], scored.scores[done], scored.cut[:, done])
                if run.back_offs and not warned:
                    warned = True
                    warnings.warn(
                        f"a batch did not fit in memory: from now on at most batch_tokens={self._batch_tokens}",
                        RuntimeWarning,
                        stacklevel=3,
                    )
        scored = scored.take(pairs.of_row)
        run.count_cut(scored.cut)
        run.tokens_lost = int(scored.lost.sum())
        run.device, run.dtype = self._backend.device_name, self._backend.dtype_name
        run.batch_tokens, run.peak_memory_mb = self._batch_tokens, self._backend.peak_memory_mb()
        run.seconds = time.perf_counter() - began
        self.stats = run
        return scored

    def character_ranges(self, texts: Sequence[str], token_ranges: Rows) -> Rows:
        """From ranges of texts' tokens to ranges of their characters; see `PairTokenizer.character_ranges`."""
        return self._tokenizer.character_ranges(texts, token_ranges)

    def _batches(
        self, queries: Sequence[str], texts: Sequence[str], input_rows: Rows, run: RunStatistics
    ) -> Generator[tuple[_Batch, Scores]]:
        """Scores some input rows: yields each batch with its scores, which hold every token row once."""
        in_flight: deque[_InFlight] = deque()  # the oldest first
        padded_tokens = 0
        with closing(self._windows(queries, texts, input_rows, run)) as windows:
            for window in windows:
                for rows in plan_batches(window.encoded.lengths, batch_tokens=self._batch_tokens):
                    with run.timed("tokenising_seconds"):
                        packed = window.encoded.batch(rows)
                    run.rows, run.tokens = run.rows + len(packed), run.tokens + int(packed.lengths.sum())
                    padded_tokens += len(packed) * int(packed.lengths.max())
                    in_flight.extend(self._started(_Batch(window, rows, packed), run))
                    while len(in_flight) > self._backend.most_running:
                        yield from self._ended(in_flight.popleft(), run)
        while in_flight:
            yield from self._ended(in_flight.popleft(), run)
        if self._backend.pads and padded_tokens:
            run.padding_share = 1 - run.tokens / padded_tokens

    def _windows(
        self, queries: Sequence[str], texts: Sequence[str], input_rows: Rows, run: RunStatistics
    ) -> Generator[_Window]:
        """Tokenises some input rows, one for each distinct pair, a number of them at a time."""
        size = _WINDOW_PAIRS if self.passages is None else _WINDOW_DOCUMENTS
        starts = range(0, len(input_rows), size)

        def windows() -> Generator[_Window]:
            for start in starts:
                rows = input_rows[start : start + size].tolist()
                with run.timed("tokenising_seconds"):
                    encoded = self._tokenizer.encode([queries[row] for row in rows], [texts[row] for row in rows])
                yield _Window(start, input_rows[start : start + size], encoded, RowScores(encoded, self.passages))

        # With a single window, there is nothing for a thread to run beside.
        with closing(look_ahead(windows(), name="tokenising") if len(starts) > 1 else windows()) as ready:
            yield from ready

    def _started(self, batch: _Batch, run: RunStatistics) -> Iterator[_InFlight]:
        """Starts scoring a batch, in smaller parts if it does not fit in memory."""
        finish = self._if_it_fits(partial(self._backend.start, batch.packed), batch, run)
        if finish is not None:
            yield _InFlight(batch, finish)
        else:
            for part in self._parts(batch, run):
                yield from self._started(part, run)

    def _ended(self, in_flight: _InFlight, run: RunStatistics) -> Iterator[tuple[_Batch, Scores]]:
        """Waits for the scores of a batch, which is scored anew in parts if it did not fit in memory after all."""
        batch = in_flight.batch
        scores = self._if_it_fits(in_flight.finish, batch, run)
        if scores is not None:
            yield batch, scores
        else:
            for part in self._parts(batch, run):
                for started in self._started(part, run):
                    yield from self._ended(started, run)

    def _if_it_fits(self, step: Callable[[], _Made], batch: _Batch, run: RunStatistics) -> _Made | None:
        """The result of a step of scoring a batch, or None if memory does not suffice for it."""
        try:
            with run.timed("scoring_seconds"):
                return step()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(batch.packed) == 1:
                raise PairTooLargeError(
                    f"pair {batch.window.input_row(batch.rows[0])} has {batch.packed.lengths[0]} tokens and does not "
                    "fit in memory even alone: free memory, choose another device, or lower max_length"
                ) from error
        return None  # outside of the handler: the error's traceback would keep the batch's tensors alive

    def _parts(self, batch: _Batch, run: RunStatistics) -> list[_Batch]:
        """A batch that did not fit in memory, as smaller ones. The smaller budget is kept for all that follow."""
        run.back_offs += 1
        pairs, longest = len(batch.packed), int(batch.packed.lengths.max())
        with self._budget_lock:  # another thread may have halved it already, and then it stays
            self._batch_tokens = smaller_budget(self._batch_tokens, rows=pairs, length=longest)
        step = max(1, min(self._batch_tokens // longest, pairs - 1))
        parts = [slice(start, start + step) for start in range(0, pairs, step)]
        return [_Batch(batch.window, batch.rows[part], batch.packed[part]) for part in parts]

    def _bar(self, pairs: int) -> AbstractContextManager[Any]:
        """A progress bar that counts pairs, or None. It appears when a call has taken a second."""
        if not self.verbose or not pairs:
            return nullcontext()
        bar: AbstractContextManager[Any] = pt.tqdm(total=pairs, desc="BERT_Cat", unit="pair", delay=_BAR_DELAY_S)
        return bar


@dataclass(frozen=True)
class _Window:
    """Distinct pairs that were tokenised together.

    Attributes:
        start: The number of the first of them among all distinct pairs.
        input_rows: int64 (w,), the input row of each.
        encoded: Their token rows.
        row_scores: The scores of these token rows, as far as they are known.
    """

    start: int
    input_rows: Rows
    encoded: EncodedPairs
    row_scores: RowScores

    def input_row(self, token_row: int) -> int:
        """The input row that a token row is of."""
        return int(self.input_rows[self.row_scores.pair_of_row[token_row]])

    def take(self, token_rows: Rows, scores: Scores, scored: ScoredPairs) -> Rows:
        """Takes the scores of some token rows.

        Args:
            token_rows: int64 (b,).
            scores: float32 (b,).
            scored: All distinct pairs. Those that now have all of their scores are filled in.

        Returns:
            int64 (m,), the distinct pairs that were filled in.
        """
        pairs = self.row_scores.add(token_rows, scores)
        done = self.start + pairs
        scored.scores[done], scored.best_passages[:, done] = self.row_scores.of_pairs(pairs)
        scored.passages[done], scored.lost[:, done] = self.encoded.rows_of_pair[pairs], self.encoded.lost[:, pairs]
        return done


class _Batch(NamedTuple):
    """Token rows that are scored together.

    Attributes:
        window: Where they are from.
        rows: int64 (b,), their numbers in the window.
        packed: Their tokens.
    """

    window: _Window
    rows: Rows
    packed: PairBatch


class _InFlight(NamedTuple):
    """A batch that the backend has started on; ``finish`` waits for its scores, float32 (b,)."""

    batch: _Batch
    finish: Callable[[], Scores]


def _by_name(option: Any) -> Any:
    """A torch device or dtype as its name; anything else as it is."""
    return str(option).removeprefix("torch.") if type(option).__module__ == "torch" else option


def _refuse_not_finite(batch: _Batch, scores: Scores, queries: Sequence[str], texts: Sequence[str]) -> None:
    wrong = np.flatnonzero(~np.isfinite(scores))
    if len(wrong):
        row = batch.window.input_row(batch.rows[wrong[0]])
        raise ScoreError(
            f"the score of pair {row} is {scores[wrong[0]]}, not a number to rank by; query "
            f"{queries[row][:_EXCERPT_CHARACTERS]!r}, text {texts[row][:_EXCERPT_CHARACTERS]!r}. Try dtype='float32'; "
            "if that does not help, the checkpoint's weights are damaged"
        )
