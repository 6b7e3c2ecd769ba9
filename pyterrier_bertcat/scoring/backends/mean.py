"""Several models on the same batches: the mean of their scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from pyterrier_bertcat.pairs.batches import PairBatch
from pyterrier_bertcat.scoring.backends import Backend


class MeanBackend:
    """Backends whose models read the same tokens.

    Attributes:
        default_batch_tokens: The smallest of theirs.
        most_running: The same.
    """

    def __init__(self, backends: Sequence[Backend]) -> None:
        """Takes at least one."""
        self._backends = list(backends)
        self.default_batch_tokens = min(backend.default_batch_tokens for backend in backends)
        self.most_running = min(backend.most_running for backend in backends)
        self.device_name = _each_once(backend.device_name for backend in backends)
        self.dtype_name = _each_once(backend.dtype_name for backend in backends)
        self.pads = any(backend.pads for backend in backends)

    def start(self, batch: PairBatch) -> Callable[[], NDArray[np.float32]]:
        """Starts all of them: float32 (b,). See `Backend`."""
        started = [backend.start(batch) for backend in self._backends]

        def finish() -> NDArray[np.float32]:
            scores = np.stack([finish_one() for finish_one in started])  # (backends, b)
            mean: NDArray[np.float64] = scores.mean(axis=0, dtype=np.float64)
            return mean.astype(np.float32)

        return finish

    def peak_memory_mb(self) -> float | None:
        """The largest of theirs."""
        peaks = [peak for backend in self._backends if (peak := backend.peak_memory_mb()) is not None]
        return max(peaks, default=None)


def _each_once(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))
