"""What runs in a worker process: a model on one device, batches in and scores out through a pipe.

It ends when its parent does, however that ends, and leaves Ctrl-C to it.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import traceback
import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyterrier_bertcat.pairs.batches import PairBatch
from pyterrier_bertcat.scoring.backends.torch import TorchBackend
from pyterrier_bertcat.scoring.devices import is_out_of_memory

_PARENT_CHECK_S = 1.0

Batches = queue.SimpleQueue[tuple[int, PairBatch]]  # numbered by the parent


@dataclass(frozen=True)
class Ready:
    """The first message of a worker whose model is in its place; the facts are those of its backend.

    Attributes:
        warnings: What was warned of meanwhile, for the parent to repeat.
    """

    dtype_name: str
    pads: bool
    default_batch_tokens: int
    most_running: int
    warnings: list[str]


@dataclass(frozen=True)
class Scored:
    """A batch's scores, float32 (b,), and the most memory in use by the worker so far."""

    number: int
    scores: NDArray[np.float32]
    peak_memory_mb: float | None


@dataclass(frozen=True)
class DidNotFit:
    """A batch for which the worker's memory did not suffice."""

    number: int
    error: str


@dataclass(frozen=True)
class Failed:
    """The last message of a worker that can't go on: the exception with its traceback, as text."""

    error: str


Message = Ready | Scored | DidNotFit | Failed


def work(connection: Connection, *, model_file: str, device: str, dtype: str, threads: int, parent: int) -> None:
    """Scores batches until the parent hangs up.

    Args:
        connection: Numbered batches come in, `Message` go out.
        model_file: The model, as ``torch.save`` wrote it.
        device: Where to compute.
        dtype: See ``devices.choose_dtype``.
        threads: On how many to compute on a CPU.
        parent: Its process id.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    batches: Batches = queue.SimpleQueue()
    threading.Thread(target=_read, args=(connection, batches, parent), daemon=True, name="reading").start()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", RuntimeWarning)
            backend = _backend(model_file, device, dtype)
        ready = Ready(
            dtype_name=backend.dtype_name,
            pads=backend.pads,
            default_batch_tokens=backend.default_batch_tokens,
            most_running=backend.most_running,
            warnings=[str(warning.message) for warning in caught if issubclass(warning.category, RuntimeWarning)],
        )
        connection.send(ready)
        _score(backend, batches, connection)
    except Exception:
        connection.send(Failed(traceback.format_exc().strip()))


def _backend(model_file: str, device: str, dtype: str) -> TorchBackend:
    on = torch.device(device)
    if on.type in ("cuda", "xpu"):
        getattr(torch, on.type).set_device(on)  # or something of this process would also lie on the first one
    # Written by the parent, in a folder that only its user can write to.
    model: Any = torch.load(model_file, map_location="cpu", weights_only=False)
    return TorchBackend(model, device=on, dtype=dtype)


def _read(connection: Connection, batches: Batches, parent: int) -> None:
    """Takes batches out of the pipe at once, so that the parent never waits to put one in."""
    try:
        while True:
            if connection.poll(_PARENT_CHECK_S):
                batches.put(connection.recv())
            elif os.getppid() != parent:  # and somebody else, a fork of it, holds the other end of the pipe
                break
    finally:  # most often EOFError: the parent hung up, or is no more
        os._exit(1)  # at once, whatever is being computed


def _score(backend: TorchBackend, batches: Batches, connection: Connection) -> None:
    running: deque[tuple[int, Callable[[], NDArray[np.float32]]]] = deque()
    while True:
        while len(running) <= backend.most_running and (not running or not batches.empty()):
            number, batch = batches.get()
            finish = _tried(number, partial(backend.start, batch), connection)
            if finish is not None:
                running.append((number, finish))
        number, finish = running.popleft()
        scores = _tried(number, finish, connection)
        if scores is not None:
            connection.send(Scored(number, scores, backend.peak_memory_mb()))


def _tried(number: int, step: Callable[[], Any], connection: Connection) -> Any:
    """What a step gives; None, and a message to the parent, where memory does not suffice for it."""
    try:
        return step()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        connection.send(DidNotFit(number, str(error) or type(error).__name__))
        return None
