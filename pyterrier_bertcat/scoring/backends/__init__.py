"""The one interchangeable seam inside the scoring engine: a batch of token ids to scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pyterrier_bertcat.pairs.batches import PairBatch


class Backend(Protocol):
    """Computes the scores of batches. May be called from several threads at once."""

    @property
    def device_name(self) -> str:
        """Where it computes."""

    @property
    def dtype_name(self) -> str:
        """The encoder's precision."""

    @property
    def pads(self) -> bool:
        """Whether batches are padded to their longest pair."""

    @property
    def default_batch_tokens(self) -> int:
        """How many tokens per batch are fastest here."""

    @property
    def most_running(self) -> int:
        """How many batches to start before the first one's scores are asked for; 0 where starting one ends it."""

    def start(self, batch: PairBatch) -> Callable[[], NDArray[np.float32]]:
        """Starts scoring the pairs of a batch.

        Args:
            batch: b pairs, at least one.

        Returns:
            A function that waits for the scores and returns them, to be called once: float32 (b,), higher is more
            relevant; a score that is not finite is the caller's to refuse.

        Raises:
            MemoryError: The batch does not fit, or torch's own error for it (see ``devices.is_out_of_memory``); here
                or when the scores are asked for. The caller tries again with smaller batches, so nothing of this one
                may be kept.
        """

    def peak_memory_mb(self) -> float | None:
        """The most memory in use there by this process so far, in MB; None where the system does not tell."""
