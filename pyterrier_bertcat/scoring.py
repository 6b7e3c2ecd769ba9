"""``PairScorer``: queries and texts in, float32 scores out, in the order of the input."""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import pyterrier as pt
from numpy.typing import NDArray

from pyterrier_bertcat.backends.torch import TorchBackend
from pyterrier_bertcat.batching import DEFAULT_BATCH_SIZE, plan_batches, smaller_budget
from pyterrier_bertcat.devices import is_out_of_memory
from pyterrier_bertcat.errors import InputError, PairTooLargeError, ScoreError
from pyterrier_bertcat.look_ahead import look_ahead
from pyterrier_bertcat.pairs import PairBatch, PairTokenizer, checked_pairs, distinct_pairs

if TYPE_CHECKING:
    import torch

    from pyterrier_bertcat.backends import Backend
    from pyterrier_bertcat.checkpoints import Checkpoint

Rows = NDArray[np.int64]
Scores = NDArray[np.float32]

_BAR_DELAY_S = 1.0  # pipelines make hundreds of short calls, which must not flash a bar each
_EXCERPT_CHARACTERS = 60
_WINDOW_PAIRS = 8192  # tokenised at a time: enough to find pairs of equal length, few enough to start soon


class PairScorer:
    """Scores (query, text) pairs with a checkpoint: the seam that everything above the engine speaks to.

    Each distinct text is tokenised once and each distinct pair scored once. Pairs of similar length share a batch, the
    longest first. Many pairs are taken window by window, the next one tokenised while the present one is scored, so
    that memory does not grow with their number. A batch that does not fit in memory is tried again in smaller ones;
    the budget found so is kept for later calls. One scorer may be shared between threads, and is as good as new after
    an interrupt (Ctrl-C).
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        batch_size: int = DEFAULT_BATCH_SIZE,
        batch_tokens: int | None = None,
        max_length: int = 512,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "auto",
        verbose: bool = True,
        backend: Backend | None = None,
    ) -> None:
        """Makes the model ready to score.

        Args:
            checkpoint: Model and tokenizer. Its weights are shared or copied, never changed.
            batch_size: How many pairs of ``max_length`` tokens a batch may hold; of shorter ones, as many more as have
                no more tokens together.
            batch_tokens: The most tokens per batch. None: what is fastest on the device, within ``batch_size``.
            max_length: The most tokens per pair, special tokens counted; the longer of query and text is cut first.
            device: Where to compute. None: cuda, then mps or xpu where usable, then cpu.
            dtype: Precision of the encoder: ``"auto"`` (float16 on cuda, float32 elsewhere), ``"float32"``,
                ``"bfloat16"`` or ``"float16"``.
            verbose: Whether calls that take longer than a second show a progress bar.
            backend: What computes instead of PyTorch; ``device`` and ``dtype`` are then unused.

        Raises:
            InputError: An option that can't be used: the message says which and why.
        """
        for name, value in (("batch_size", batch_size), ("batch_tokens", batch_tokens), ("max_length", max_length)):
            allowed = value is None and name == "batch_tokens"
            if not allowed and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InputError(f"{name} is a whole number of at least 1, got {value!r}")
        positions = checkpoint.model.max_positions
        if max_length > positions:
            raise InputError(
                f"max_length={max_length} is more than the {positions} positions of the model "
                f"({checkpoint.source}): use max_length={positions} or less"
            )
        self.verbose = verbose
        self._tokenizer = PairTokenizer(checkpoint.tokenizer, max_length=max_length)
        if backend is None:
            backend = TorchBackend(checkpoint.model, device=device, dtype=dtype)
        self._backend: Backend = backend
        self._batch_tokens = min(batch_tokens or backend.default_batch_tokens, batch_size * max_length)
        self._budget_lock = threading.Lock()

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
            finished: Called with the scores of each batch as soon as they are there: int64 (batch,), where these pairs
                first occur in the input, and float32 (batch,). Every distinct pair comes once.

        Returns:
            float32 (n,), in the order of the input: raw relevance logits, higher is more relevant, not probabilities.

        Raises:
            InputError: A value that is not a string, named by position and type; or unequal numbers of them.
            ScoreError: The model gave a score that is not finite; the message names the pair.
            PairTooLargeError: One pair alone does not fit in memory.
        """
        queries, texts = checked_pairs(queries, texts)
        first, place, count = distinct_pairs(queries, texts)
        scores = np.empty(len(first), dtype=np.float32)
        budget, warned = self._batch_tokens, False
        with self._bar(len(place)) as bar, closing(self._scored(queries, texts, first)) as scored:
            for rows, batch_scores in scored:
                wrong = np.flatnonzero(~np.isfinite(batch_scores))
                if len(wrong):
                    row = int(first[rows[wrong[0]]])
                    raise ScoreError(
                        f"the score of pair {row} is {batch_scores[wrong[0]]}, not a number to rank by; "
                        f"{_excerpt(queries[row], texts[row])}. Try dtype='float32'; if that does not help, "
                        "the checkpoint's weights are damaged"
                    )
                scores[rows] = batch_scores
                if finished is not None:
                    finished(first[rows], batch_scores)
                if bar is not None:
                    bar.update(int(count[rows].sum()))
                if self._batch_tokens < budget and not warned:
                    warned = True
                    warnings.warn(
                        f"a batch did not fit in memory: going on with at most batch_tokens={self._batch_tokens}",
                        RuntimeWarning,
                        stacklevel=2,
                    )
        return scores[place]

    def _scored(self, queries: list[str], texts: list[str], pairs: Rows) -> Generator[tuple[Rows, Scores]]:
        """Scores some of the pairs. Yields positions in ``pairs``, and their scores: every position once."""
        running: deque[tuple[Rows, Callable[[], Scores]]] = deque()
        with closing(self._batches(queries, texts, pairs)) as batches:
            for rows, batch in batches:
                running.extend(self._started(rows, batch, pairs))
                while len(running) > self._backend.most_running:
                    rows, finish = running.popleft()
                    yield rows, finish()
        for rows, finish in running:
            yield rows, finish()

    def _batches(self, queries: list[str], texts: list[str], pairs: Rows) -> Generator[tuple[Rows, PairBatch]]:
        """Tokenises some of the pairs, window by window. Yields positions in ``pairs``, and the batch of them."""
        starts = range(0, len(pairs), _WINDOW_PAIRS)
        windows = (
            (start, self._tokenizer.encode([queries[row] for row in rows], [texts[row] for row in rows]))
            for start in starts
            for rows in [pairs[start : start + _WINDOW_PAIRS].tolist()]
        )
        # A thread for a single window would have nothing to run beside.
        with closing(look_ahead(windows, name="tokenising") if len(starts) > 1 else windows) as ready:
            for start, encoded in ready:
                for rows in plan_batches(encoded.lengths, batch_tokens=self._batch_tokens):
                    yield start + rows, encoded.batch(rows)

    def _started(self, rows: Rows, batch: PairBatch, pairs: Rows) -> Iterator[tuple[Rows, Callable[[], Scores]]]:
        """Starts scoring a batch, or the smaller ones that do fit. Yields rows, and what waits for their scores."""
        todo = [(rows, batch)]
        while todo:
            rows, batch = todo.pop()
            finish = None
            try:
                finish = self._backend.start(batch)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if len(batch) == 1:
                    raise PairTooLargeError(
                        f"pair {pairs[rows[0]]} has {batch.lengths[0]} tokens and does not fit in memory even alone: "
                        "free memory, choose another device, or lower max_length"
                    ) from error
            # Outside of the handler: the error's traceback would keep the failed batch's tensors alive.
            if finish is not None:
                yield rows, finish
                continue
            longest = int(batch.lengths.max())
            with self._budget_lock:  # another thread may have halved it already, and then it stays
                self._batch_tokens = smaller_budget(self._batch_tokens, rows=len(batch), length=longest)
            step = max(1, min(self._batch_tokens // longest, len(batch) - 1))
            parts = [slice(start, start + step) for start in range(0, len(batch), step)]
            todo += [(rows[part], batch[part]) for part in reversed(parts)]

    def _bar(self, pairs: int) -> AbstractContextManager[Any]:
        """A progress bar that counts pairs, or nothing; it appears when a call has taken a second."""
        if not self.verbose or not pairs:
            return nullcontext()
        bar: AbstractContextManager[Any] = pt.tqdm(total=pairs, desc="BERT_Cat", unit="pair", delay=_BAR_DELAY_S)
        return bar


def _excerpt(query: str, text: str) -> str:
    """The beginning of a pair, to recognise it by."""
    return f"query {query[:_EXCERPT_CHARACTERS]!r}, text {text[:_EXCERPT_CHARACTERS]!r}"
