"""The one interchangeable seam inside the scoring engine: a padded batch of token ids to scores."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pyterrier_bertcat.pairs import PairBatch


class Backend(Protocol):
    """Computes the scores of one batch. May be called from several threads at once."""

    @property
    def default_batch_tokens(self) -> int:
        """How many tokens per batch, padding counted, are fastest here."""

    def score_batch(self, batch: PairBatch) -> NDArray[np.float32]:
        """Scores the pairs of a batch.

        Args:
            batch: A padded batch of b pairs.

        Returns:
            float32 (b,), higher is more relevant; a score that is not finite is the caller's to refuse.

        Raises:
            MemoryError: The batch does not fit, or torch's own error for it (see ``devices.is_out_of_memory``). The
                caller tries again with a smaller batch, so nothing of this one may be kept.
        """
