"""Scores batches with OpenVINO on CPUs: in float32, in bfloat16, or in int8 calibrated on pairs like those to score."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyterrier_bertcat.errors import InputError, MissingExtraError, WorkerError
from pyterrier_bertcat.scoring.backends.first_token import has_first_token_path
from pyterrier_bertcat.scoring.backends.openvino_graph import EXTRA, float_graph, int8_graph
from pyterrier_bertcat.scoring.devices import choose_device, choose_dtype, is_fast, peak_memory_mb

if TYPE_CHECKING:
    from pyterrier_bertcat.model.checkpoint import Checkpoint
    from pyterrier_bertcat.pairs.batches import PairBatch
    from pyterrier_bertcat.scoring.options import ScoringOptions

_BATCH_TOKENS = 2048


class OpenVinoBackend:
    """A checkpoint's encoder as an OpenVINO graph, with the last layer for the first token only.

    The layers after the encoder are computed by PyTorch in float32, as `TorchBackend` does. The weights are those at
    the time it is made: training the model afterwards does not change its scores.

    Attributes:
        dtype_name: ``"float32"``, ``"bfloat16"`` or ``"int8"``.
        most_running: As many batches as OpenVINO computes side by side.
    """

    device_name = "cpu"
    pads = True
    default_batch_tokens = _BATCH_TOKENS

    def __init__(self, checkpoint: Checkpoint, options: ScoringOptions) -> None:
        """Reads the graph from the cache, or makes it first, which takes about ten seconds for int8.

        Args:
            checkpoint: Model and tokenizer.
            options: ``device`` is ``"cpu"`` or None. ``dtype="auto"`` means float32 here. What int8 does not quantise
                is in bfloat16 if the CPU is fast at that; it needs ``calibration``.

        Raises:
            InputError: Another device or dtype, an encoder without the first-token path, or int8 without calibration.
            MissingExtraError: OpenVINO is not installed, or NNCF is not, when an int8 graph has to be made.
        """
        try:
            import openvino
        except ImportError as error:
            raise MissingExtraError("openvino", extra=EXTRA) from error
        if options.device is not None and choose_device(options.device).type != "cpu":
            raise InputError(f"OpenVINO computes on the CPU here, got device={options.device!r}: leave device out")
        if not has_first_token_path(checkpoint.model.bert_model):
            raise InputError(
                f"OpenVinoBackend knows DistilBERT, BERT, MiniLM and ELECTRA encoders, got "
                f"{type(checkpoint.model.bert_model).__name__}: score with PyTorch, without this backend"
            )
        cpu = torch.device("cpu")
        if options.dtype == "int8":
            precision = torch.bfloat16 if is_fast(torch.bfloat16, cpu) else torch.float32
            file = int8_graph(checkpoint, options)
        else:
            precision = choose_dtype(options.dtype, cpu)
            file = float_graph(checkpoint)
        self.dtype_name = "int8" if options.dtype == "int8" else str(precision).removeprefix("torch.")
        self._model = checkpoint.model
        self._compiled: Any = openvino.Core().compile_model(
            str(file),
            "CPU",
            {
                # Several batches at a time, each on some of the cores, keep all of them busy.
                "PERFORMANCE_HINT": "THROUGHPUT",
                "INFERENCE_PRECISION_HINT": "bf16" if precision == torch.bfloat16 else "f32",
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            },
        )
        # Asked once: asking waits for whatever is running.
        self.most_running = int(self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._process = os.getpid()

    def start(self, batch: PairBatch) -> Callable[[], NDArray[np.float32]]:
        """Starts scoring the pairs of a batch: float32 (b,). See `Backend`.

        Raises:
            WorkerError: This process is a fork of the one that made the backend: OpenVINO's threads are not in it.
        """
        if self._process != os.getpid():
            raise WorkerError(
                "OpenVINO can't go on in a fork of the process that it was loaded in: start processes by 'spawn' "
                "(multiprocessing.get_context), or load the re-ranker in each of them"
            )
        try:
            request = self._idle.get_nowait()
        except queue.Empty:  # all are at work, or were left when a run was interrupted
            request = self._compiled.create_infer_request()
        inputs = batch.padded().inputs(token_types=self._model.uses_token_types)
        request.start_async(dict(enumerate(inputs)))

        def finish() -> NDArray[np.float32]:
            request.wait()
            first_token = torch.from_numpy(request.get_output_tensor(0).data.copy())  # float32 (b, hidden)
            self._idle.put(request)
            with torch.inference_mode():
                scores: NDArray[np.float32] = self._model.relevance(first_token).numpy()
            return scores

        return finish

    def peak_memory_mb(self) -> float | None:
        """Of the whole process."""
        return peak_memory_mb(torch.device("cpu"))
