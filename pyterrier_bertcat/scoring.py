"""``PairScorer``: queries and texts in, float32 scores out, in the order of the input."""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import pyterrier as pt
from numpy.typing import NDArray

from pyterrier_bertcat.backends.torch import TorchBackend
from pyterrier_bertcat.batching import DEFAULT_BATCH_SIZE, BatchBudget, plan_batches
from pyterrier_bertcat.devices import is_out_of_memory
from pyterrier_bertcat.errors import InputError, PairTooLargeError, ScoreError
from pyterrier_bertcat.pairs import EncodedPairs, PairTokenizer, checked_pairs

if TYPE_CHECKING:
    import torch

    from pyterrier_bertcat.backends import Backend
    from pyterrier_bertcat.checkpoints import Checkpoint

Rows = NDArray[np.int64]

_BAR_DELAY_S = 1.0  # pipelines make hundreds of short calls, which must not flash a bar each
_EXCERPT_CHARACTERS = 60


class PairScorer:
    """Scores (query, text) pairs with a checkpoint: the seam that everything above the engine speaks to.

    Each distinct text is tokenised once and each distinct pair scored once. Pairs of similar length share a batch, the
    longest first. A batch that does not fit in memory is tried again in smaller ones; the budget found so is kept for
    later calls. One scorer may be shared between threads, and is as good as new after an interrupt (Ctrl-C).
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
            batch_size: The most pairs per batch.
            batch_tokens: The most tokens per batch, padding counted. None: what suits the device.
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
        self._budget = BatchBudget(batch_size, batch_tokens or backend.default_batch_tokens)
        self._budget_lock = threading.Lock()

    def score(self, queries: Sequence[str], texts: Sequence[str]) -> NDArray[np.float32]:
        """Scores ``queries[i]`` with ``texts[i]``.

        Args:
            queries: n strings, in any sequence (list, array, pandas Series); empty strings are allowed.
            texts: n strings.

        Returns:
            float32 (n,), in the order of the input: raw relevance logits, higher is more relevant, not probabilities.

        Raises:
            InputError: A value that is not a string, named by position and type; or unequal numbers of them.
            ScoreError: The model gave a score that is not finite; the message names the pair.
            PairTooLargeError: One pair alone does not fit in memory.
        """
        queries, texts = checked_pairs(queries, texts)
        pairs = self._tokenizer.encode(queries, texts)
        _, first, place, count = np.unique(pairs.keys, return_index=True, return_inverse=True, return_counts=True)
        scores = np.empty(len(first), dtype=np.float32)
        with self._bar(len(pairs)) as bar:
            for rows, batch_scores in self._scored_batches(pairs, first):
                wrong = np.flatnonzero(~np.isfinite(batch_scores))
                if len(wrong):
                    row = int(first[rows[wrong[0]]])
                    raise ScoreError(
                        f"the score of pair {row} is {batch_scores[wrong[0]]}, not a number to rank by; "
                        f"{_excerpt(queries[row], texts[row])}. Try dtype='float32'; if that does not help, "
                        "the checkpoint's weights are damaged"
                    )
                scores[rows] = batch_scores
                if bar is not None:
                    bar.update(int(count[rows].sum()))
        return scores[place]

    def _scored_batches(self, pairs: EncodedPairs, rows: Rows) -> Iterator[tuple[Rows, NDArray[np.float32]]]:
        """Scores some rows of the pairs batch by batch, in smaller batches from the first that does not fit on.

        Yields:
            Positions in ``rows``, and their scores: every position once.
        """
        lengths = pairs.lengths[rows]
        todo = self._planned(lengths, np.arange(len(rows)))
        out_of_memory = warned = False
        while todo:
            batch, scores = todo[0], None
            try:
                scores = self._backend.score_batch(pairs.padded(rows[batch]))
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if len(batch) == 1:
                    raise PairTooLargeError(
                        f"pair {rows[batch[0]]} has {lengths[batch[0]]} tokens and does not fit in memory even alone: "
                        "free memory, choose another device, or lower max_length"
                    ) from error
            # Outside of the handler: the error's traceback would keep the failed batch's tensors alive.
            if scores is None:
                out_of_memory = True
                with self._budget_lock:  # another thread may have halved it already, and then it stays
                    self._budget = self._budget.halved(rows=len(batch), length=int(lengths[batch[0]]))
                todo = self._planned(lengths, np.concatenate(todo))
                continue
            if out_of_memory and not warned:
                warned = True
                warnings.warn(
                    "a batch did not fit in memory: going on with at most "
                    f"batch_size={self._budget.batch_size} and batch_tokens={self._budget.batch_tokens}",
                    RuntimeWarning,
                    stacklevel=3,
                )
            todo.popleft()
            yield batch, scores

    def _planned(self, lengths: Rows, rows: Rows) -> deque[Rows]:
        """Batches of some rows, within the budget of now."""
        budget = self._budget
        plan = plan_batches(lengths[rows], batch_size=budget.batch_size, batch_tokens=budget.batch_tokens)
        return deque(rows[batch] for batch in plan)

    def _bar(self, pairs: int) -> AbstractContextManager[Any]:
        """A progress bar that counts pairs, or nothing; it appears when a call has taken a second."""
        if not self.verbose or not pairs:
            return nullcontext()
        bar: AbstractContextManager[Any] = pt.tqdm(total=pairs, desc="BERT_Cat", unit="pair", delay=_BAR_DELAY_S)
        return bar


def _excerpt(query: str, text: str) -> str:
    """The beginning of a pair, to recognise it by."""
    return f"query {query[:_EXCERPT_CHARACTERS]!r}, text {text[:_EXCERPT_CHARACTERS]!r}"
