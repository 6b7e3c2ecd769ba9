"""Scores batches on several devices of this machine, each in a process of its own.

    caller   ─ task ──▶  crew's thread  ─ batch ──▶  worker process, one per device
             ◀─ answer ─                ◀─ answer ─

The crew's thread decides alone who scores what, so its state needs no locks. It never touches a pipe: a pipe to a
process that was stopped can block forever. Two more threads per worker do that, one for each direction. Callers only
put into and take from a `SimpleQueue`, which Ctrl-C can interrupt but not leave locked or half written.

``concurrent.futures.ProcessPoolExecutor`` is no substitute. Its processes take one call at a time, so a GPU would wait
for Python between two batches. Before Python 3.14 it can't kill a process that hangs, and at exit it waits for one
forever.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import sys
import tempfile
import threading
import time
import traceback
import types
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import connection, get_context, resource_tracker
from multiprocessing.util import Finalize
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from pyterrier_bertcat.errors import WorkerError
from pyterrier_bertcat.pairs.batches import PairBatch
from pyterrier_bertcat.scoring.backends.torch import TorchBackend, weights_version
from pyterrier_bertcat.scoring.devices import choose_devices, is_out_of_memory

if TYPE_CHECKING:
    from pyterrier_bertcat.model.bert_cat import CrossEncoder

Scores = NDArray[np.float32]
_Made = TypeVar("_Made")

# How many batches callers start ahead, as a multiple of what the workers hold. While a caller waits for the batch of a
# slow worker, the fast ones have others to do.
_AHEAD = 2
_LEAST_CAPACITY = 2  # a worker computes one batch while the next one travels
# A worker that says nothing for this long while it loads the model or scores a batch is taken for dead and killed. That
# is far more than honest work takes: even a large model on two slow cores scores about a hundred tokens per second.
_PATIENCE_S = 600.0
_PATIENCE_S_PER_TOKEN = 0.05  # of the batch, in addition
_TICK_S = 1.0  # how often silence is measured
_LAST_WORDS_S = 10.0  # a process that has closed its pipe gets so long to end by itself
_PARENT_CHECK_S = 1.0  # how often a worker looks whether its parent lives
_main_module_lock = threading.Lock()

logger = logging.getLogger(__name__)


class WorkersBackend:
    """A model on several devices: each batch goes to the worker with the fewest tokens left to score.

    When a worker process dies, is stopped or hangs, you get a warning and the others score its batches. When no worker
    is left, you get an error, and the next batch starts new workers. New ones also start when the owner of the model
    changes its weights, and in a fork of this process.

    The workers end with this object and with this process, however it ends. Ctrl-C interrupts the wait for scores and
    leaves them ready for the next batch.

    Attributes:
        default_batch_tokens: What suits the device with the smallest batches.
        pads: Whether any device pads its batches.
        dtype_name: The encoder's precision; several, separated by commas, if the devices differ.
    """

    def __init__(
        self, model: CrossEncoder, *, devices: str | Sequence[str | torch.device], dtype: str = "auto"
    ) -> None:
        """Starts the processes and waits until each has loaded the model.

        Args:
            model: Each worker gets a copy of its weights.
            devices: See `choose_devices`.
            dtype: See `choose_dtype`.

        Raises:
            InputError: No such device.
            WorkerError: A worker did not start; the message says why.
        """
        self._model: Any = model
        self._devices = choose_devices(devices)
        self._dtype = dtype
        self._lock = threading.Lock()  # held while a crew is replaced, and while a task is given to it
        self._crew: _Crew | None = None
        self._fitting_crew()

    @property
    def device_name(self) -> str:
        """The devices of the workers that are alive."""
        return ", ".join(worker.device for worker in self._alive())

    @property
    def process_ids(self) -> list[int]:
        """The process ids of the workers that are alive."""
        return [worker.process.pid for worker in self._alive()]

    @property
    def most_running(self) -> int:
        """Enough batches that no worker runs out of work."""
        return _AHEAD * sum(worker.capacity for worker in self._alive())

    def start(self, batch: PairBatch) -> Callable[[], Scores]:
        """Gives the pairs of a batch to a worker: float32 (b,). See `Backend`.

        Raises:
            WorkerError: New workers could not be started. Asking for the scores raises it when no worker is left; the
                message says how each ended.
        """
        task = _Task(batch)
        with self._lock:
            crew = self._fitting_crew()
            crew.submit(task)
        answers = task.answers

        def finish() -> Scores:
            answer = answers.get()
            if answer is None:
                with self._lock:
                    if self._crew is crew:
                        self._crew = None  # you were told, so the next batch may start new workers
                raise WorkerError(crew.why_ended)
            with contextlib.suppress(IndexError):  # several threads may take them
                while True:
                    loss = crew.losses.popleft()
                    warnings.warn(f"{loss}: its batches are scored by the others", RuntimeWarning, stacklevel=2)
            if isinstance(answer, str):
                raise MemoryError(answer)
            return answer

        return finish

    def peak_memory_mb(self) -> float | None:
        """The most memory that any worker has had in use."""
        crew = self._crew
        return None if crew is None else crew.peak_memory_mb

    def close(self) -> None:
        """Ends the processes now. A later batch starts new ones."""
        with self._lock:
            crew, self._crew = self._crew, None
        if crew is not None and crew.parent == os.getpid():
            crew.kill()
            crew.thread.join()

    def _alive(self) -> list[_Worker]:
        crew = self._crew
        return [] if crew is None else crew.workers

    def _fitting_crew(self) -> _Crew:
        """This process's workers with the weights that the model has now: those at work, or new ones."""
        crew = self._crew
        if crew is not None and crew.parent == os.getpid():
            if crew.version == weights_version(self._model):
                return crew
            crew.retire()
        self._crew = None
        crew = self._crew = _Crew(self, self._model, self._devices, self._dtype)
        self.default_batch_tokens = min(worker.default_batch_tokens for worker in crew.ready)
        self.pads = any(worker.pads for worker in crew.ready)
        self.dtype_name = ", ".join(dict.fromkeys(worker.dtype_name for worker in crew.ready))
        for message in dict.fromkeys(message for worker in crew.ready for message in worker.warnings):
            warnings.warn(message, RuntimeWarning, stacklevel=4)
        return crew


@dataclass(eq=False)
class _Task:
    """A batch to score.

    Attributes:
        answers: Gets one: float32 (b,), or why the batch did not fit in memory, or None when no worker is left.
    """

    batch: PairBatch
    answers: queue.SimpleQueue[Scores | str | None] = field(default_factory=queue.SimpleQueue)


@dataclass(eq=False)
class _Worker:
    """A process as the crew sees it.

    Attributes:
        outbox: Batches for the thread that writes the pipe; None ends it.
        ready: Its first message, once that has come.
        capacity: How many batches it may hold at a time.
        tasks: What it has to score, the oldest first. It answers in this order.
        silent_s: How long it has said nothing although it had something to do.
        error: The traceback that it sent before it ended, if any.
    """

    device: str
    process: Any
    pipe: connection.Connection
    outbox: queue.SimpleQueue[PairBatch | None] = field(default_factory=queue.SimpleQueue)
    ready: _Ready | None = None
    capacity: int = 0
    tasks: deque[_Task] = field(default_factory=deque)
    silent_s: float = 0.0
    error: str = ""

    def write(self) -> None:
        """Sends what is put into the outbox; runs in a thread of its own."""
        with contextlib.suppress(OSError):  # the process died, which the thread that reads will tell
            while (batch := self.outbox.get()) is not None:
                self.pipe.send(batch)

    def read(self, inbox: queue.SimpleQueue[_Event]) -> None:
        """Passes messages on, and None after the end of the process; runs in a thread of its own."""
        with contextlib.suppress(EOFError, OSError):
            # A fork of this process may hold the other end of the pipe open, so the process itself is watched too.
            while self.pipe in connection.wait([self.pipe, self.process.sentinel]):
                inbox.put((self, self.pipe.recv()))
        self.process.join(_LAST_WORDS_S)
        self.process.kill()
        self.process.join()
        inbox.put((self, None))

    def how_it_ended(self) -> str:
        """Such as ``"was killed by SIGKILL (exit code -9, perhaps by the system for lack of memory)"``."""
        if self.error:
            return f"failed: {self.error.splitlines()[-1]}"
        code = self.process.exitcode
        if code is None or code >= 0:
            return f"ended with exit code {code}"
        hint = ", perhaps by the system for lack of memory" if code == -9 else ""
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"was killed by {name} (exit code {code}{hint})"


class _Crew:
    """One worker per device, each with a copy of the model's weights as they are when the crew starts.

    Attributes:
        parent: The id of the process that started the workers. A fork of it can't use them.
        version: Of the weights.
        ready: What each worker said when it had loaded the model, in the order of the devices.
        workers: Those that are alive.
        losses: How workers ended, for callers to take and to warn of.
        peak_memory_mb: The most memory that any worker has had in use.
        why_ended: Why no worker is left, or soon will be; empty until then.
    """

    def __init__(self, owner: object, model: Any, devices: Sequence[torch.device], dtype: str) -> None:
        """Starts the processes and waits until all are ready; kills them when nobody holds their owner any more.

        Raises:
            WorkerError: A worker did not get ready.
        """
        self.parent = os.getpid()
        self.version = weights_version(model)
        self.workers: list[_Worker] = []
        self.losses: deque[str] = deque()
        self.peak_memory_mb: float | None = None
        self.why_ended = ""
        self._inbox: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._started: queue.SimpleQueue[None] = queue.SimpleQueue()  # gets None when all are ready, or all have ended
        self._waiting: deque[_Task] = deque()  # tasks for the next worker with room
        self._ends: list[str] = []
        self._is_complete = self._is_retiring = self._has_ended = False
        # Kills the workers at exit too, before multiprocessing waits for them: it would wait for a stopped one forever.
        # Does nothing in a fork.
        self._finalizer = Finalize(owner, self.kill, exitpriority=0)
        on_cpu = sum(device.type == "cpu" for device in devices)
        with tempfile.TemporaryDirectory(prefix="bertcat-") as folder:
            options = {
                "model_file": _saved(model, Path(folder)),
                "dtype": dtype,
                "threads": max(1, torch.get_num_threads() // max(1, on_cpu)),  # they share those of this process
                "parent": self.parent,
            }
            self.thread = threading.Thread(target=self._run, args=(devices, options), daemon=True, name="workers")
            self.thread.start()
            try:
                self._started.get()
            except BaseException:  # Ctrl-C
                self.kill()
                raise
        if self.why_ended:
            raise WorkerError(self.why_ended)
        self.ready = [worker.ready for worker in self.workers if worker.ready is not None]

    def submit(self, task: _Task) -> None:
        """Has a task scored. It always gets an answer."""
        self._inbox.put(task)
        if self._has_ended:  # and perhaps nobody reads the inbox any more
            task.answers.put(None)

    def retire(self) -> None:
        """Ends the workers once they have scored all tasks. Submit none after this."""
        self._inbox.put(None)

    def kill(self) -> None:
        """Ends the workers now; they hold nothing to be saved."""
        self.why_ended = self.why_ended or "the workers were closed"
        for worker in list(self.workers):
            worker.process.kill()

    # All that follows runs in the crew's thread.

    def _run(self, devices: Sequence[torch.device], options: dict[str, Any]) -> None:
        try:
            self._start(devices, options)
            while self.workers:
                self._turn()
        except Exception as error:
            logger.debug("the workers can't go on", exc_info=True)
            self.why_ended = self.why_ended or f"can't use worker processes: {type(error).__name__}: {error}"
            self.kill()
        self._has_ended = True
        unanswered = [task for worker in self.workers for task in worker.tasks] + list(self._waiting)
        while not self._inbox.empty():
            if isinstance(event := self._inbox.get(), _Task):
                unanswered.append(event)
        for task in unanswered:
            task.answers.put(None)
        self._started.put(None)
        self._finalizer.cancel()

    def _start(self, devices: Sequence[torch.device], options: dict[str, Any]) -> None:
        # A terminal sends Ctrl-C to every process in it. Workers inherit from this thread that they don't receive it.
        if hasattr(signal, "pthread_sigmask"):
            resource_tracker.ensure_running()  # starting it later would undo the next line; Windows has none
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        context = get_context("spawn")
        for device in map(str, devices):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs,), kwargs={**options, "device": device}, daemon=True)
            with _without_main_module():
                process.start()
            theirs.close()
            worker = _Worker(device, process, ours)
            self.workers.append(worker)
            threading.Thread(target=worker.write, daemon=True, name=f"to {device}").start()
            threading.Thread(target=worker.read, args=(self._inbox,), daemon=True, name=f"from {device}").start()
            if self.why_ended:  # by Ctrl-C, before this process was there to be killed
                self.kill()
                break

    def _turn(self) -> None:
        """Waits until something happens, and does what follows from it."""
        busy = [worker for worker in self.workers if worker.tasks or worker.ready is None]
        began = time.monotonic()
        event: _Event | str = "nothing"
        with contextlib.suppress(queue.Empty):
            event = self._inbox.get(timeout=_TICK_S if busy else None)
        # A wait longer than a tick means that this process was stopped too, by Ctrl-Z for instance: blame no worker.
        waited = min(time.monotonic() - began, _TICK_S)
        for worker in busy:
            worker.silent_s += waited
        if isinstance(event, _Task):
            self._waiting.append(event)
        elif isinstance(event, tuple):
            self._hear(*event)
        elif event is None:
            self._is_retiring = True
        for worker in busy:
            tokens = len(worker.tasks[0].batch.input_ids) if worker.tasks else 0
            if worker in self.workers and worker.silent_s > _PATIENCE_S + _PATIENCE_S_PER_TOKEN * tokens:
                worker.process.kill()
                self._lose(worker, f"said nothing for {worker.silent_s:.0f} s (stopped, or hanging) and was killed")
        self._hand_out()
        if self._is_retiring and not self._waiting and not any(worker.tasks for worker in self.workers):
            self.kill()

    def _hear(self, worker: _Worker, message: _Message | None) -> None:
        if worker not in self.workers:
            return  # it was given up
        worker.silent_s = 0.0
        if isinstance(message, _Ready):
            worker.ready, worker.capacity = message, max(_LEAST_CAPACITY, message.most_running)
            if all(worker.ready is not None for worker in self.workers):
                self._is_complete = True
                self._started.put(None)
        elif isinstance(message, _Answer):
            self.peak_memory_mb = max(self.peak_memory_mb or 0.0, message.peak_memory_mb or 0.0) or None
            worker.tasks.popleft().answers.put(message.outcome)
        elif message is not None:
            worker.error = message
        else:
            self._lose(worker, worker.how_it_ended())

    def _lose(self, worker: _Worker, how: str) -> None:
        """Takes back the tasks of a worker that has ended."""
        self.workers = [other for other in self.workers if other is not worker]
        worker.outbox.put(None)
        self._waiting.extendleft(reversed(worker.tasks))
        end = f"the worker on {worker.device} (process {worker.process.pid}) {how}"
        self._ends.append(end)
        if self.why_ended:
            return
        if worker.error:
            logger.error("%s\n%s", end, worker.error)
        if not self._is_complete:
            self.why_ended = f"can't start the workers: {end}"
            self.kill()
        elif not self.workers:
            self.why_ended = f"no worker is left: {'; '.join(self._ends)}"
        else:
            self.losses.append(end)

    def _hand_out(self) -> None:
        """Gives tasks to workers with room for them, first to those with the fewest tokens."""
        while self._waiting and (free := [worker for worker in self.workers if len(worker.tasks) < worker.capacity]):
            worker = min(free, key=lambda worker: sum(len(task.batch.input_ids) for task in worker.tasks))
            worker.tasks.append(self._waiting.popleft())
            worker.outbox.put(worker.tasks[-1].batch)


def _saved(model: Any, folder: Path) -> str:
    """Writes a model as it is, whatever its class, to a file that workers read; returns its name."""
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


# All that follows runs in the worker processes.


@dataclass(frozen=True)
class _Ready:
    """A worker's first message, sent when it has loaded the model. The facts are its backend's.

    Attributes:
        warnings: What it was warned of meanwhile, for the parent to repeat.
    """

    dtype_name: str
    pads: bool
    default_batch_tokens: int
    most_running: int
    warnings: list[str]


@dataclass(frozen=True)
class _Answer:
    """What came of a batch: float32 (b,), or why it did not fit in memory; and the most memory in use so far."""

    outcome: Scores | str
    peak_memory_mb: float | None


_Message = _Ready | _Answer | str  # a string is the traceback of a worker that can't go on
_Event = _Task | tuple[_Worker, _Message | None] | None  # a worker's None: it has ended; None alone: retire


def _work(pipe: connection.Connection, *, model_file: str, device: str, dtype: str, threads: int, parent: int) -> None:
    """Scores the batches that come through the pipe, with a model that ``torch.save`` wrote, until it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair
    threading.Thread(target=_end_with, args=(parent,), daemon=True, name="parent").start()
    torch.set_num_threads(threads)
    with contextlib.suppress(EOFError, OSError):  # the parent has gone, and nobody is left to be told of anything
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", RuntimeWarning)
                backend = _loaded(model_file, torch.device(device), dtype)
            said = [str(warning.message) for warning in caught if issubclass(warning.category, RuntimeWarning)]
            facts = (backend.dtype_name, backend.pads, backend.default_batch_tokens, backend.most_running)
            pipe.send(_Ready(*facts, warnings=said))
            _answer_all(backend, pipe)
        except Exception:
            pipe.send(traceback.format_exc().strip())


def _end_with(parent: int) -> None:
    """Ends this process when its parent has ended, even if it computes and a fork of the parent holds the pipe open."""
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_S)
    os._exit(1)


def _loaded(model_file: str, device: torch.device, dtype: str) -> TorchBackend:
    if device.type in ("cuda", "xpu"):
        getattr(torch, device.type).set_device(device)  # or something of this process would also lie on the first one
    # Written by the parent, in a folder that only its user can write to.
    model: Any = torch.load(model_file, map_location="cpu", weights_only=False)
    return TorchBackend(model, device=device, dtype=dtype)


def _answer_all(backend: TorchBackend, pipe: connection.Connection) -> None:
    """Answers batches in the order in which they come, and starts the next ones while the first is computed."""
    running: deque[Callable[[], Scores] | str] = deque()
    while True:
        while len(running) <= backend.most_running and (not running or pipe.poll()):
            running.append(_if_it_fits(partial(backend.start, pipe.recv())))
        finish = running.popleft()
        outcome = finish if isinstance(finish, str) else _if_it_fits(finish)
        pipe.send(_Answer(outcome, backend.peak_memory_mb()))


def _if_it_fits(step: Callable[[], _Made]) -> _Made | str:
    """What a step of scoring returns, or why memory does not suffice for it."""
    try:
        return step()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return str(error) or type(error).__name__
