"""Scores batches with OpenVINO on CPUs: in float32, in bfloat16, or in int8 calibrated on pairs like those to score.

OpenVINO computes a graph of the encoder. It is made once and then read from a cache in PyTerrier's home folder
(``PYTERRIER_HOME``, or ``~/.pyterrier``), under the fingerprint of its checkpoint and all else that decides what it
computes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import queue
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyterrier as pt
import torch
from numpy.typing import NDArray

from pyterrier_bertcat.errors import InputError, MissingExtraError, WorkerError
from pyterrier_bertcat.model.names import PACKAGED, packaged_folder
from pyterrier_bertcat.pairs.planning import plan_batches
from pyterrier_bertcat.scoring.backends.attention import PaddedAttention
from pyterrier_bertcat.scoring.backends.first_token import FirstTokenPath, Tokens, has_first_token_path
from pyterrier_bertcat.scoring.devices import choose_device, choose_dtype, is_fast, peak_memory_mb

if TYPE_CHECKING:
    from pyterrier_bertcat.model.checkpoint import Checkpoint
    from pyterrier_bertcat.pairs.batches import PairBatch
    from pyterrier_bertcat.scoring.options import ScoringOptions

_EXTRA = "openvino"
_LAYOUT = 1  # of the graph; counts up when the same checkpoint gives another one
_CALIBRATION_BATCH_TOKENS = 512
_EXAMPLE_SHAPE = (2, 8)  # of the batch that is traced; graphs take any shape

_log = logging.getLogger(__name__)


class OpenVinoBackend:
    """A checkpoint's encoder as an OpenVINO graph, with the last layer for the first token only.

    PyTorch computes the layers after the encoder in float32, as for `TorchBackend`. The graph keeps the weights that
    the model has when the backend is made: training the model afterwards does not change its scores.

    Attributes:
        dtype_name: ``"float32"``, ``"bfloat16"`` or ``"int8"``.
        most_running: How many batches OpenVINO computes side by side.
    """

    device_name = "cpu"
    pads = True
    default_batch_tokens = 2048

    def __init__(self, checkpoint: Checkpoint, options: ScoringOptions) -> None:
        """Reads the graph from the cache, or makes it first, which takes about ten seconds for int8.

        Args:
            checkpoint: Model and tokenizer.
            options: ``device`` is ``"cpu"`` or None. ``dtype="auto"`` means float32 here. An int8 graph needs
                ``calibration``, except for ``"mini"``; the parts that are not quantised use bfloat16 if the CPU is
                fast at that.

        Raises:
            InputError: Another device or dtype, an encoder without the first-token path, or int8 without calibration.
            MissingExtraError: OpenVINO is not installed, or an int8 graph has to be made and NNCF is not installed.
        """
        try:
            import openvino
        except ImportError as error:
            raise MissingExtraError("openvino", extra=_EXTRA) from error
        if options.device is not None and choose_device(options.device).type != "cpu":
            raise InputError(f"OpenVINO computes on the CPU here, got device={options.device!r}: leave device out")
        if not has_first_token_path(checkpoint.model.bert_model):
            raise InputError(
                f"OpenVinoBackend knows DistilBERT, BERT, MiniLM and ELECTRA encoders, got "
                f"{type(checkpoint.model.bert_model).__name__}: use backend='torch'"
            )
        cpu = torch.device("cpu")
        if options.dtype == "int8":
            precision = torch.bfloat16 if is_fast(torch.bfloat16, cpu) else torch.float32
            file = _int8_graph(checkpoint, options)
        else:
            precision = choose_dtype(options.dtype, cpu)
            file = _cached(checkpoint, "float32", lambda: _converted(checkpoint))
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
                "OpenVINO does not work in a fork of the process that loaded it: start processes by 'spawn' "
                "(multiprocessing.get_context), or load the re-ranker in each of them"
            )
        try:
            request = self._idle.get_nowait()
        except queue.Empty:  # all are busy, or an interrupted run left them behind
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


def packaged_calibration() -> tuple[tuple[str, str], ...]:
    """The pairs that come with ``mini``: each question with the text that answers it, and with another text."""
    file = packaged_folder() / "calibration.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    queries, texts = [row["query"] for row in rows], [row["text"] for row in rows]
    return (*zip(queries, texts, strict=True), *zip(queries, texts[1:] + texts[:1], strict=True))


def _int8_graph(checkpoint: Checkpoint, options: ScoringOptions) -> Path:
    """The file of a graph that is calibrated on pairs, which are cut as the options say."""
    calibration = options.calibration
    if calibration is None:
        if checkpoint.source != PACKAGED:
            raise InputError(
                f"int8 is calibrated on pairs like those it will score, and none come with {checkpoint.source!r}: give "
                "calibration=[(query, text), ...] (--calibration FILE), a few hundred of your own, relevant or not"
            )
        calibration = packaged_calibration()
    options = replace(options.for_checkpoint(checkpoint), calibration=calibration, passages=None)
    return _cached(checkpoint, json.dumps(options.facts(), sort_keys=True), lambda: _quantised(checkpoint, options))


def _cached(checkpoint: Checkpoint, facts: str, make: Callable[[], Any]) -> Path:
    """A graph's ``.xml`` file, with its weights beside it; made first if the cache does not have it.

    It takes a padded batch and gives float32 (b, hidden), the first tokens' last hidden states. A process that is
    killed while it makes a graph leaves none.
    """
    import openvino

    facts = json.dumps([checkpoint.fingerprint, facts, _LAYOUT, openvino.__version__])
    key = hashlib.sha256(facts.encode()).hexdigest()[:32]
    folder = Path(pt.io.pyterrier_home()) / "bertcat" / "openvino"
    if not (folder / key).is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        graph = make()
        with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as scratch:
            written = Path(scratch) / key
            written.mkdir()
            openvino.save_model(graph, written / "encoder.xml", compress_to_fp16=False)
            try:
                written.rename(folder / key)
            except OSError:  # another process was faster
                if not (folder / key).is_dir():
                    raise
    return folder / key / "encoder.xml"


class _Graph(torch.nn.Module):
    """The module that is traced: from a padded batch to the first tokens' last hidden states."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self._path = FirstTokenPath(encoder)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Three times int64 (batch, length) -> float32 (batch, hidden)."""
        return self._path(Tokens.of_padded(input_ids, token_type_ids), PaddedAttention(attention_mask))


def _converted(checkpoint: Checkpoint) -> Any:
    """A graph with float32 weights."""
    import openvino

    names = ["input_ids", "attention_mask"] + ["token_type_ids"] * checkpoint.model.uses_token_types
    example = {name: torch.ones(_EXAMPLE_SHAPE, dtype=torch.int64) for name in names}
    encoder: Any = checkpoint.model.bert_model
    with torch.no_grad():
        return openvino.convert_model(
            _Graph(encoder.eval()),
            example_input=example,
            input=[(name, [-1, -1], openvino.Type.i64) for name in names],
        )


def _quantised(checkpoint: Checkpoint, options: ScoringOptions) -> Any:
    """A graph with static int8 products."""
    try:
        import nncf
    except ImportError as error:
        raise MissingExtraError("nncf", extra=_EXTRA) from error
    queries, texts = zip(*(options.calibration or ()), strict=True)
    encoded = options.pair_tokenizer(checkpoint.tokenizer).encode(queries, texts)
    inputs = []
    for rows in plan_batches(encoded.lengths, batch_tokens=_CALIBRATION_BATCH_TOKENS):
        inputs.append(encoded.batch(rows).padded().inputs(token_types=checkpoint.model.uses_token_types))
    _log.info("calibrating int8 on %d pairs", len(queries))
    with contextlib.redirect_stdout(sys.stderr):  # NNCF draws its progress bars on what may be a command's output
        return nncf.quantize(
            _converted(checkpoint),
            nncf.Dataset(inputs),
            subset_size=len(inputs),
            model_type=nncf.ModelType.TRANSFORMER,
        )
