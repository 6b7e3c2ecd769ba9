"""``PairScorer``: queries and texts in, float32 scores out, in the order of the input.

Rows are numbered in three ways here. An *input row* is a query with a text as you gave them. Equal input rows are one
*distinct pair*. A *token row* is what the model reads: a distinct pair, or its query with one passage of its text.

Pairs pass through four steps. They are tokenised a *window* at a time. The token rows of a window are divided into
*batches* of similar length. Batches are *in flight* in the backend, several at once on a GPU. The window collects their
scores, and a pair is done when all of its token rows are.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np
import pyterrier as pt
from numpy.typing import NDArray

from pyterrier_bertcat.errors import PairTooLargeError, ScoreError, warn
from pyterrier_bertcat.pairs.batches import PairBatch
from pyterrier_bertcat.pairs.planning import plan_batches, smaller_budget
from pyterrier_bertcat.pairs.strings import DistinctPairs, checked_pairs
from pyterrier_bertcat.scoring.backends.torch import TorchBackend
from pyterrier_bertcat.scoring.devices import choose_device, choose_devices, is_out_of_memory
from pyterrier_bertcat.scoring.options import ScoringOptions
from pyterrier_bertcat.scoring.row_scores import ScoredPairs, Window
from pyterrier_bertcat.scoring.statistics import RunStatistics

if TYPE_CHECKING:
    from pyterrier_bertcat.model.checkpoint import Checkpoint
    from pyterrier_bertcat.pairs.passages import Passages
    from pyterrier_bertcat.scoring.backends import Backend

Rows = NDArray[np.int64]
Scores = NDArray[np.float32]
Finished = Callable[[Rows, Scores, NDArray[np.bool_]], None]
"""Takes input rows, int64 (m,), their scores, float32 (m,), and whether each query and text was cut, bool (2, m)."""
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_BAR_DELAY_S = 1.0  # pipelines make hundreds of short calls, which must not flash a bar each
_EXCERPT_CHARACTERS = 60
# Pairs per window: enough to find rows of equal length, few enough to start soon.
_WINDOW_PAIRS = 8192
_WINDOW_DOCUMENTS = 512


class PairScorer:
    """Scores (query, text) pairs with a checkpoint. Everything above `scoring` goes through this class.

    Each distinct text is tokenised once and each distinct pair scored once. Pairs of similar length share a batch, the
    longest first. The next few thousand pairs are tokenised while the present ones are scored, so tokens take no more
    memory when the input is large. A batch that does not fit in memory is scored again in smaller parts, and later
    batches stay that small. Threads may share a scorer, and after an interrupt (Ctrl-C) it works as before.

    Attributes:
        options: As given.
        verbose: Whether calls that take longer than a second show a progress bar.
        stats: Figures of the last call that ended; None before the first one.

    Example:
        >>> from pyterrier_bertcat import PairScorer, load_checkpoint
        >>> scorer = PairScorer(load_checkpoint("mini"), device="cpu", verbose=False)
        >>> texts = ["Delete a directory tree.", "Copy a directory tree."]
        >>> scorer.score(["how do I copy a directory"] * 2, texts).round(1)
        array([-10.4,   0.1], dtype=float32)
    """

    def __init__(self, checkpoint: Checkpoint, *, verbose: bool = True, **options: Any) -> None:
        """Sets up the tokenizer and the backend for one checkpoint.

        Args:
            checkpoint: Model and tokenizer. Its weights are shared or copied, never changed.
            verbose: Whether calls that take longer than a second show a progress bar.
            **options: The fields of `ScoringOptions`: ``device``, ``dtype``, ``passages``, ``batch_size``, … Devices
                and dtypes may be torch's own objects instead of names.

        Raises:
            InputError: An option can't be used, there is no such device here, or int8 has no pairs to calibrate on.
            WorkerError: A process for one of several devices could not be started.
            MissingExtraError: ``backend="openvino"`` without OpenVINO.
        """
        self.options = ScoringOptions(**{name: _by_name(value) for name, value in options.items()})
        self.verbose = verbose
        self.stats: RunStatistics | None = None
        used = self.options.for_checkpoint(checkpoint)
        self._tokenizer = used.pair_tokenizer(checkpoint.tokenizer)
        self._backend = _backend(checkpoint, used)
        fastest = self.options.batch_tokens or self._backend.default_batch_tokens
        self._batch_tokens = min(fastest, self.options.batch_size * self.max_length)
        self._budget_lock = threading.Lock()

    @property
    def passages(self) -> Passages | None:
        """How texts are divided into passages; None if they are cut."""
        return self.options.passages

    @property
    def max_length(self) -> int:
        """The most tokens of a pair: what you asked for, or else what the checkpoint states."""
        return self._tokenizer.most_tokens

    def score(self, queries: Sequence[str], texts: Sequence[str]) -> Scores:
        """Scores ``queries[i]`` with ``texts[i]``.

        Args:
            queries: n strings, in any sequence (list, array, pandas Series). Empty strings are allowed.
            texts: n strings.

        Returns:
            float32 (n,), in the order of the input: raw relevance logits, higher is more relevant, not probabilities.

        Raises:
            InputError: A value is not a string, or has a lone surrogate and so no UTF-8 form (the message names the
                position); or the numbers of queries and texts differ.
            ScoreError: The model gave a score that is not finite; the message names the pair.
            PairTooLargeError: One pair alone does not fit in memory.
        """
        return self.score_in_detail(*checked_pairs(queries, texts)).scores

    def score_in_detail(
        self, queries: Sequence[str], texts: Sequence[str], *, finished: Finished | None = None
    ) -> ScoredPairs:
        """Scores pairs, and returns passages and cut tokens too. It trusts the strings: check them first.

        Args:
            queries: n strings of valid Unicode.
            texts: n strings of valid Unicode.
            finished: Called with input rows as soon as their scores are known. Of equal input rows, only the first is
                reported.

        Raises:
            ScoreError: As `score`.
            PairTooLargeError: As `score`.
        """
        began = time.perf_counter()
        pairs = DistinctPairs.among(queries, texts)
        run = RunStatistics(pairs=len(queries), distinct_pairs=len(pairs))
        scored = ScoredPairs.unknown(len(pairs))
        warned = False
        unit = "pair" if self.passages is None else "passage"
        with (
            _Progress(len(pairs), unit=unit, shown=self.verbose) as progress,
            closing(self._batches(queries, texts, pairs.row, run, progress)) as batches,
        ):
            for batch, scores in batches:
                _refuse_not_finite(batch, scores, queries, texts)
                done = batch.window.take(batch.token_rows, scores, scored)
                progress.advance(batch)
                if finished is not None and len(done):
                    known = scored.take(done)
                    finished(pairs.row[done], known.scores, known.cut)
                if run.back_offs and not warned:
                    warned = True
                    warn(
                        f"a batch did not fit in memory: from now on at most batch_tokens={self._batch_tokens}",
                        RuntimeWarning,
                        stacklevel=3,
                    )
        scored = scored.take(pairs.of_row)
        run.count_cut(scored.cut)
        run.tokens_lost = int(scored.lost.sum())
        run.max_length = self.max_length
        run.device, run.dtype = self._backend.device_name, self._backend.dtype_name
        run.batch_tokens, run.peak_memory_mb = self._batch_tokens, self._backend.peak_memory_mb()
        run.seconds = time.perf_counter() - began
        self.stats = run
        return scored

    def character_ranges(self, texts: Sequence[str], token_ranges: Rows) -> Rows:
        """Turns ranges of texts' tokens into ranges of their characters; see `PairTokenizer.character_ranges`."""
        return self._tokenizer.character_ranges(texts, token_ranges)

    def _batches(
        self, queries: Sequence[str], texts: Sequence[str], input_rows: Rows, run: RunStatistics, progress: _Progress
    ) -> Generator[tuple[_Batch, Scores]]:
        """Scores the pairs of some input rows. Yields batches with their scores; every token row is in one batch."""
        in_flight: deque[_InFlight] = deque()  # oldest first
        padded_tokens = 0
        with closing(self._windows(queries, texts, input_rows, run)) as windows:
            for window in windows:
                progress.expect(window)
                for token_rows in plan_batches(window.encoded.lengths, batch_tokens=self._batch_tokens):
                    with run.timed("tokenising_seconds"):
                        packed = window.encoded.batch(token_rows)
                    run.rows, run.tokens = run.rows + len(packed), run.tokens + int(packed.lengths.sum())
                    padded_tokens += len(packed) * int(packed.lengths.max())
                    in_flight.extend(self._start(_Batch(window, token_rows, packed), run))
                    while len(in_flight) > self._backend.most_running:
                        yield from self._finish(in_flight.popleft(), run)
        while in_flight:
            yield from self._finish(in_flight.popleft(), run)
        if self._backend.pads and padded_tokens:
            run.padding_share = 1 - run.tokens / padded_tokens

    def _windows(
        self, queries: Sequence[str], texts: Sequence[str], input_rows: Rows, run: RunStatistics
    ) -> Generator[Window]:
        """Tokenises the pairs of some input rows, one window of them at a time."""
        size = _WINDOW_PAIRS if self.passages is None else _WINDOW_DOCUMENTS
        starts = range(0, len(input_rows), size)

        def windows() -> Generator[tuple[Window, float]]:
            for start in starts:
                some = input_rows[start : start + size]
                rows = some.tolist()
                began = time.perf_counter()
                encoded = self._tokenizer.encode([queries[row] for row in rows], [texts[row] for row in rows])
                window = Window(encoded, start=start, input_rows=some, passages=self.passages)
                yield window, time.perf_counter() - began

        # A thread for a single window would have nothing to run beside.
        with closing(look_ahead(windows(), thread_name="tokenising") if len(starts) > 1 else windows()) as ready:
            for window, seconds in ready:
                run.tokenising_seconds += seconds  # here, because this thread adds to it too
                yield window

    def _start(self, batch: _Batch, run: RunStatistics) -> Iterator[_InFlight]:
        """Starts a batch, or several smaller ones if it does not fit in memory."""
        finish = self._if_it_fits(partial(self._backend.start, batch.packed), batch, run)
        if finish is not None:
            yield _InFlight(batch, finish)
        else:
            for part in self._parts(batch, run):
                yield from self._start(part, run)

    def _finish(self, started: _InFlight, run: RunStatistics) -> Iterator[tuple[_Batch, Scores]]:
        """Waits for the scores of a batch. If a GPU finds only now that it does not fit, its parts are scored."""
        batch = started.batch
        scores = self._if_it_fits(started.finish, batch, run)
        if scores is not None:
            yield batch, scores
        else:
            for part in self._parts(batch, run):
                for smaller in self._start(part, run):
                    yield from self._finish(smaller, run)

    def _if_it_fits(self, step: Callable[[], _Result], batch: _Batch, run: RunStatistics) -> _Result | None:
        """Takes one step of scoring a batch; None if memory runs out, and then a batch of one pair is an error."""
        try:
            with run.timed("scoring_seconds"):
                return step()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(batch.packed) == 1:
                raise PairTooLargeError(
                    f"pair {batch.window.input_row(batch.token_rows[0])} has {batch.packed.lengths[0]} tokens and does "
                    "not fit in memory even alone: free memory, choose another device, or lower max_length"
                ) from error
        return None  # outside of the handler: the error's traceback would keep the batch's tensors alive

    def _parts(self, batch: _Batch, run: RunStatistics) -> list[_Batch]:
        """Divides a batch that did not fit in memory. All later batches keep to the smaller budget too."""
        run.back_offs += 1
        rows, longest = len(batch.packed), int(batch.packed.lengths.max())
        with self._budget_lock:  # another thread may have lowered it already, and then it stays
            self._batch_tokens = smaller_budget(self._batch_tokens, rows=rows, length=longest)
        size = max(1, min(self._batch_tokens // longest, rows - 1))
        parts = [slice(start, start + size) for start in range(0, rows, size)]
        return [_Batch(batch.window, batch.token_rows[part], batch.packed[part]) for part in parts]


def look_ahead(items: Iterable[_Item], *, thread_name: str) -> Generator[_Item]:
    """Yields the items, and computes the next one in a thread while the caller uses the present one.

    No more than two items exist at a time. An error in an item is raised in its place. A caller that stops early (by an
    error, Ctrl-C or ``close()``) waits for the item that is being computed, and no other is begun.
    """
    iterator, end = iter(items), object()
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=thread_name)
    try:
        following = pool.submit(next, iterator, end)
        while (item := following.result()) is not end:
            following = pool.submit(next, iterator, end)
            yield cast(_Item, item)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Batch(NamedTuple):
    """Token rows that are scored together.

    Attributes:
        window: The window that they belong to.
        token_rows: int64 (b,), their numbers in the window.
        packed: Their tokens.
    """

    window: Window
    token_rows: Rows
    packed: PairBatch


class _Progress:
    """A bar that counts what the model reads, pairs or passages, and appears after a second.

    The longest token rows come first, and take longest. So the bar moves by tokens: a batch with a tenth of its
    window's tokens counts as a tenth of its window's rows, whatever its own number of rows is. That keeps the rate and
    the remaining time right from the start.
    """

    def __init__(self, pairs: int, *, unit: str, shown: bool) -> None:
        """Begins without a bar, because only the first window tells how many token rows the pairs have."""
        self._pairs, self._unit, self._shown = pairs, unit, shown
        self._bar: Any = None
        self._expected_pairs = self._expected_rows = 0
        self._rows_done = 0.0

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def expect(self, window: Window) -> None:
        """Counts the token rows of a window. The pairs after it are assumed to have as many each."""
        if not self._shown:
            return
        self._expected_pairs += len(window.encoded.rows_of_pair)
        self._expected_rows += len(window.encoded)
        total = round(self._pairs * self._expected_rows / self._expected_pairs)
        if self._bar is None:
            self._bar = pt.tqdm(total=total, desc="BERT_Cat", unit=self._unit, delay=_BAR_DELAY_S)
        self._bar.total = total

    def advance(self, batch: _Batch) -> None:
        """Moves the bar by a batch that was scored."""
        if self._bar is None:
            return
        lengths = batch.window.encoded.lengths
        self._rows_done += len(lengths) * int(batch.packed.lengths.sum()) / int(lengths.sum())
        self._bar.update(round(self._rows_done) - self._bar.n)


class _InFlight(NamedTuple):
    """A batch that the backend has started. ``finish`` waits for its scores, float32 (b,)."""

    batch: _Batch
    finish: Callable[[], Scores]


def _backend(checkpoint: Checkpoint, options: ScoringOptions) -> Backend:
    """The backend that the options ask for."""
    if not isinstance(options.backend, str):
        return options.backend
    if options.backend == "openvino":
        from pyterrier_bertcat.scoring.backends.openvino import OpenVinoBackend

        return OpenVinoBackend(checkpoint, options)
    devices = [choose_device(options.device)] if options.devices is None else choose_devices(options.devices)
    if len(devices) == 1:
        return TorchBackend(checkpoint.model, device=devices[0], dtype=options.dtype)
    from pyterrier_bertcat.scoring.backends.workers import WorkersBackend

    return WorkersBackend(checkpoint.model, devices=devices, dtype=options.dtype)


def _by_name(option: Any) -> Any:
    """A torch device or dtype as its name, in a list too; anything else as it is."""
    if isinstance(option, (list, tuple)):
        return [_by_name(one) for one in option]
    return str(option).removeprefix("torch.") if type(option).__module__ == "torch" else option


def _refuse_not_finite(batch: _Batch, scores: Scores, queries: Sequence[str], texts: Sequence[str]) -> None:
    wrong = np.flatnonzero(~np.isfinite(scores))
    if len(wrong):
        row = batch.window.input_row(batch.token_rows[wrong[0]])
        raise ScoreError(
            f"the score of pair {row} is {scores[wrong[0]]}, not a number to rank by; query "
            f"{queries[row][:_EXCERPT_CHARACTERS]!r}, text {texts[row][:_EXCERPT_CHARACTERS]!r}. Try dtype='float32'; "
            "if that does not help, the checkpoint's weights are damaged"
        )
