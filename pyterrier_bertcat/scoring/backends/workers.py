"""Scores batches on several devices of this machine, each with a process of its own."""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyterrier_bertcat.errors import WorkerError
from pyterrier_bertcat.scoring.backends.torch import weights_version
from pyterrier_bertcat.scoring.backends.worker_pool import WorkerPool
from pyterrier_bertcat.scoring.devices import choose_devices

if TYPE_CHECKING:
    from pyterrier_bertcat.model.bert_cat import CrossEncoder
    from pyterrier_bertcat.pairs.batches import PairBatch

# Batches to start, as a multiple of those that fit to the workers: while the scores of a slow worker's batch are waited
# for, the fast ones go on.
_AHEAD = 2


class WorkersBackend:
    """A model on several devices: every batch goes to the one that has least to do.

    Batches hold a number of tokens, not of pairs, so that is how the work is split. A worker process that dies is
    warned of, and its batches are scored by the others. When none is left, that is an error, and the next batch starts
    new ones; so does a change of the model's weights by their owner, and a fork of this process.

    The processes end with this object (and with this process). Ctrl-C interrupts the wait for scores and leaves them
    ready for the next batch.

    Attributes:
        default_batch_tokens: What suits the device with the smallest batches.
        pads: Whether any of the devices has batches padded.
        dtype_name: The encoder's precision; several where the devices differ.
    """

    def __init__(
        self, model: CrossEncoder, *, devices: str | Sequence[str | torch.device], dtype: str = "auto"
    ) -> None:
        """Starts the processes, and waits until all have loaded the model.

        Args:
            model: Its weights are copied to each worker.
            devices: See `choose_devices`.
            dtype: See `choose_dtype`.

        Raises:
            InputError: No such device.
            WorkerError: A worker could not be started; the message says why.
        """
        self._model: Any = model
        self._devices = choose_devices(devices)
        self._dtype = dtype
        self._lock = threading.Lock()
        self._crew: _Crew | None = self._started()

    @property
    def device_name(self) -> str:
        """Of each worker that lives."""
        return ", ".join([] if self._crew is None else [worker.device for worker in self._crew.pool.workers])

    @property
    def process_ids(self) -> list[int]:
        """Of the workers that live."""
        return [] if self._crew is None else [worker.process.pid for worker in self._crew.pool.workers]

    @property
    def most_running(self) -> int:
        """Enough that no worker waits."""
        return 0 if self._crew is None else _AHEAD * self._crew.pool.capacity

    def start(self, batch: PairBatch) -> Callable[[], NDArray[np.float32]]:
        """Has the pairs of a batch scored: float32 (b,). See `Backend`.

        Raises:
            WorkerError: No worker is left; the message says how each ended. Its scores raise this too.
        """
        with self._lock:
            crew = self._crew
            if crew is None or not crew.fits(self._model):
                crew = self._crew = self._started()
        try:
            future = crew.pool.submit(batch)
        except WorkerError:
            self._discharge(crew)
            raise

        def finish() -> NDArray[np.float32]:
            try:
                scores = future.result()
            except WorkerError:
                self._discharge(crew)
                raise
            for loss in crew.pool.losses():
                warnings.warn(f"{loss}: its batches are scored by the others", RuntimeWarning, stacklevel=2)
            return scores

        return finish

    def peak_memory_mb(self) -> float | None:
        """The most that any worker has had in use."""
        return None if self._crew is None else self._crew.pool.peak_memory_mb

    def close(self) -> None:
        """Ends the processes now; a later batch starts new ones."""
        with self._lock:
            crew, self._crew = self._crew, None
        if crew is not None:
            crew.pool.dismiss(wait=True)

    def _started(self) -> _Crew:
        crew = _Crew(self._model, self._devices, self._dtype)
        ready = crew.pool.ready
        for message in dict.fromkeys(message for worker in ready for message in worker.warnings):
            warnings.warn(message, RuntimeWarning, stacklevel=4)
        self.default_batch_tokens = min(worker.default_batch_tokens for worker in ready)
        self.pads = any(worker.pads for worker in ready)
        self.dtype_name = ", ".join(dict.fromkeys(worker.dtype_name for worker in ready))
        return crew

    def _discharge(self, crew: _Crew) -> None:
        """Forgets workers that ended, now that it was said, so that the next batch starts new ones."""
        with self._lock:
            if self._crew is crew:
                self._crew = None


class _Crew:
    """Holds a pool, which is dismissed when nobody holds it any more."""

    def __init__(self, model: Any, devices: Sequence[torch.device], dtype: str) -> None:
        self._version = weights_version(model)
        self.pool = WorkerPool(model, devices, dtype=dtype)
        weakref.finalize(self, self.pool.dismiss)

    def fits(self, model: Any) -> bool:
        """Whether its workers are this process's, with the weights that the model has now."""
        return self.pool.pid == os.getpid() and self._version == weights_version(model)
