"""The one interchangeable part of scoring: a backend turns a batch of token ids into scores."""

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
        """How many batches may be started before the caller waits for the first one; 0 if `start` itself waits."""

    def start(self, batch: PairBatch) -> Callable[[], NDArray[np.float32]]:
        """Starts scoring the pairs of a batch.

        Args:
            batch: b pairs, at least one.

        Returns:
            A function that waits for the scores and returns them, to be called once: float32 (b,), higher is more
            relevant. The caller refuses scores that are not finite.

        Raises:
            MemoryError: The batch does not fit. It may also be torch's own error (see ``devices.is_out_of_memory``),
                and the returned function may raise it too. The caller tries again with smaller batches, so keep
                nothing of this one.
        """

    def peak_memory_mb(self) -> float | None:
        """The most memory that this process has used there so far, in MB; None if the system does not tell."""
