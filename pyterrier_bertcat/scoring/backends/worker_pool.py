"""Worker processes, one per device, and the thread that starts them, feeds them and notices their ends."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import signal
import sys
import tempfile
import threading
import types
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing import connection, get_context, resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyterrier_bertcat.errors import WorkerError
from pyterrier_bertcat.pairs.batches import PairBatch
from pyterrier_bertcat.scoring.backends.worker_process import DidNotFit, Message, Ready, Scored, work

Scores = NDArray[np.float32]

_LEAST_CAPACITY = 2  # while one batch is computed, the next one is there already
_LAST_WORDS_S = 10.0  # a process whose pipe is closed has so long to end by itself
_main_module_lock = threading.Lock()

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Task:
    number: int
    batch: PairBatch
    scores: Future[Scores]


@dataclass(eq=False)
class _Worker:
    """A process as its parent sees it.

    Attributes:
        ready: Its first message, when it has come.
        tasks: What it has to do, by number, the oldest first.
        error: What it said before it ended, if anything.
    """

    device: str
    process: Any
    pipe: connection.Connection
    ready: Ready | None = None
    tasks: dict[int, _Task] = field(default_factory=dict)
    error: str = ""

    @property
    def capacity(self) -> int:
        """How many batches it may have at a time."""
        return 0 if self.ready is None else max(_LEAST_CAPACITY, self.ready.most_running)

    @property
    def tokens(self) -> int:
        """That it still has to score."""
        return sum(len(task.batch.input_ids) for task in self.tasks.values())

    def end(self) -> str:
        """Makes sure that it has ended, and says how."""
        self.process.join(_LAST_WORDS_S)
        self.process.kill()
        self.process.join()
        self.pipe.close()
        code = self.process.exitcode
        if self.error:
            how = f"failed: {self.error.splitlines()[-1]}"
        elif code < 0:
            hint = ", perhaps by the system for lack of memory" if code == -9 else ""
            how = f"was killed by {signal.Signals(-code).name} (exit code {code}{hint})"
        else:
            how = f"ended with exit code {code}"
        return f"the worker on {self.device} (process {self.process.pid}) {how}"


class WorkerPool:
    """One process per device, each with a copy of the model's weights as they are when the pool is made.

    A batch goes to the worker that has the fewest tokens to score; those of a worker that dies go to the others. The
    processes end when they are dismissed, and when this process ends, however it does.

    Only one thread speaks to the workers, so that Ctrl-C, which interrupts the main thread, never cuts a message.

    Attributes:
        pid: The process that made the pool; a fork of it can't use it.
        ready: What each worker said when its model was in its place, in the order of the devices.
        workers: Those that live.
        ended: Whether there is none any more.
        peak_memory_mb: The most that any of them has had in use so far.
    """

    def __init__(self, model: Any, devices: Sequence[torch.device], *, dtype: str) -> None:
        """Starts the processes, and waits until all are ready.

        Args:
            model: What `TorchBackend` takes.
            devices: At least one. CPU workers share the threads that torch has here.
            dtype: See ``devices.choose_dtype``.

        Raises:
            WorkerError: A worker did not get ready.
        """
        self.pid = os.getpid()
        self.workers: list[_Worker] = []
        self.ended = False
        self.peak_memory_mb: float | None = None
        self._numbers = itertools.count()
        self._submitted: deque[_Task] = deque()  # for the thread to take
        self._waiting: deque[_Task] = deque()  # the thread's, for a worker with room
        self._lock = threading.Lock()  # of what has been submitted, and of what is known of ends
        self._ends: list[str] = []
        self._untold = 0
        self._why_ended = "the workers were dismissed"
        self._dismissed = False
        self._bell, self._button = connection.Pipe(duplex=False)
        self._started: Future[list[Ready]] = Future()
        on_cpu = sum(device.type == "cpu" for device in devices)
        with tempfile.TemporaryDirectory(prefix="bertcat-") as folder:
            options = {
                "model_file": _saved(model, Path(folder)),
                "dtype": dtype,
                "threads": max(1, torch.get_num_threads() // max(1, on_cpu)),
                "parent": self.pid,
            }
            self._thread = threading.Thread(target=self._run, args=(devices, options), daemon=True, name="workers")
            self._thread.start()
            try:
                self.ready = self._started.result()
            except BaseException:  # Ctrl-C too
                self.dismiss(wait=True)
                raise

    @property
    def capacity(self) -> int:
        """How many batches all workers may have at a time."""
        return sum(worker.capacity for worker in self.workers)

    def submit(self, batch: PairBatch) -> Future[Scores]:
        """Has a batch scored: float32 (b,), MemoryError where it does not fit, WorkerError where no worker is left."""
        task = _Task(next(self._numbers), batch, Future())
        with self._lock:
            if self.ended:
                raise WorkerError(self._why_ended)
            self._submitted.append(task)
        self._ring()
        return task.scores

    def losses(self) -> list[str]:
        """How workers ended of which this was not asked before."""
        with self._lock:
            untold = self._ends[self._untold :]
            self._untold = len(self._ends)
        return untold

    def dismiss(self, *, wait: bool = False) -> None:
        """Has the workers killed: they hold nothing to be saved. Batches that are not scored yet get a WorkerError."""
        if os.getpid() != self.pid:  # a fork, whose parent still needs them
            return
        self._dismissed = True
        self._ring()
        if wait:
            self._thread.join()

    def _ring(self) -> None:
        self._button.send_bytes(b"")

    def _run(self, devices: Sequence[torch.device], options: dict[str, Any]) -> None:
        try:
            self._start(devices, options)
            while not self._dismissed:
                self._turn()
        except Exception as error:
            logger.debug("no more workers", exc_info=True)
            # As text: a traceback would keep callers' frames, and with them whoever has to go for the pool to go.
            self._why_ended = str(error) if isinstance(error, WorkerError) else f"{type(error).__name__}: {error}"
        with self._lock:
            self.ended = True
        for worker in self.workers:
            worker.process.kill()
        for worker in self.workers:
            worker.process.join()
            self._waiting += worker.tasks.values()
        self.workers.clear()
        if not self._started.done():
            self._started.set_exception(WorkerError(self._why_ended))
        for tasks in (self._waiting, self._submitted):
            while tasks:
                tasks.popleft().scores.set_exception(WorkerError(self._why_ended))

    def _start(self, devices: Sequence[torch.device], options: dict[str, Any]) -> None:
        # A Ctrl-C reaches all processes of a terminal. Workers inherit from this thread that they don't get it.
        resource_tracker.ensure_running()  # when it starts, it would undo the next line
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        context = get_context("spawn")
        for device in map(str, devices):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=work, args=(theirs,), kwargs={**options, "device": device}, daemon=True, name=f"bertcat-{device}"
            )
            with _without_main_module():
                process.start()
            theirs.close()
            self.workers.append(_Worker(device, process, ours))

    def _turn(self) -> None:
        """Waits until something happens, and does what follows from it."""
        heard = [worker.pipe for worker in self.workers] + [worker.process.sentinel for worker in self.workers]
        happened = connection.wait([self._bell, *heard])
        if self._bell in happened:
            self._bell.recv_bytes()
            with self._lock:
                self._waiting += self._submitted
                self._submitted.clear()
        for worker in list(self.workers):
            try:
                while worker.pipe.poll():
                    self._take(worker, worker.pipe.recv())
            except (EOFError, OSError):
                self._lose(worker)
            else:
                if worker.process.sentinel in happened:
                    self._lose(worker)
        self._hand_out()

    def _take(self, worker: _Worker, message: Message) -> None:
        if isinstance(message, Ready):
            worker.ready = message
            ready = [worker.ready for worker in self.workers if worker.ready is not None]
            if len(ready) == len(self.workers):
                self._started.set_result(ready)
        elif isinstance(message, Scored):
            self.peak_memory_mb = max(self.peak_memory_mb or 0.0, message.peak_memory_mb or 0.0) or None
            worker.tasks.pop(message.number).scores.set_result(message.scores)
        elif isinstance(message, DidNotFit):
            worker.tasks.pop(message.number).scores.set_exception(MemoryError(f"{worker.device}: {message.error}"))
        else:
            worker.error = message.error

    def _lose(self, worker: _Worker) -> None:
        """Gives the batches of a worker that died to the others."""
        self.workers.remove(worker)
        self._waiting.extendleft(reversed(worker.tasks.values()))
        end = worker.end()
        with self._lock:
            self._ends.append(end)
        if worker.error:
            logger.error("%s\n%s", end, worker.error)
        if not self._started.done() or not self.workers:
            what = "no worker is left" if self._started.done() else "can't start the workers"
            raise WorkerError(f"{what}: {'; '.join(self._ends)}")

    def _hand_out(self) -> None:
        """Gives batches to workers with room for them, first to those with the fewest tokens."""
        while self._waiting and (free := [worker for worker in self.workers if len(worker.tasks) < worker.capacity]):
            worker, task = min(free, key=lambda worker: worker.tokens), self._waiting.popleft()
            worker.tasks[task.number] = task
            try:
                worker.pipe.send((task.number, task.batch))
            except OSError:
                self._lose(worker)


def _saved(model: Any, folder: Path) -> str:
    """Writes a model as it is, whatever class it has, to a file that workers read; gives its name."""
    file = folder / "model.pt"
    try:
        torch.save(model, file)
    except (OSError, RuntimeError) as error:
        raise WorkerError(
            f"can't write the weights for the workers to {folder}: {error}; is the disk full? Another folder can be "
            "named by the environment variable TMPDIR"
        ) from error
    return str(file)


@contextlib.contextmanager
def _without_main_module() -> Iterator[None]:
    """Hides the main module from multiprocessing, which would run the user's script again in each worker."""
    with _main_module_lock:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main
