"""From options to the backend that computes as they say."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.model.checkpoint import Checkpoint
from pyterrier_bertcat.model.names import PACKAGED, packaged_folder
from pyterrier_bertcat.scoring.backends.torch import TorchBackend
from pyterrier_bertcat.scoring.devices import choose_device, choose_devices
from pyterrier_bertcat.scoring.options import ScoringOptions

if TYPE_CHECKING:
    from pyterrier_bertcat.scoring.backends import Backend

_CALIBRATION_FILE = "calibration.jsonl"


def backend_for(checkpoint: Checkpoint, options: ScoringOptions) -> Backend:
    """Makes the backend that computes a checkpoint's scores.

    Args:
        checkpoint: Model and tokenizer.
        options: How its pairs are scored.

    Raises:
        InputError: There is no such device here, or int8 lacks pairs to calibrate on.
        WorkerError: A process for one of several devices could not be started.
        MissingExtraError: OpenVINO is not installed.
    """
    if not isinstance(options.backend, str):
        return options.backend
    if options.backend == "torch":
        devices = [choose_device(options.device)] if options.devices is None else choose_devices(options.devices)
        if len(devices) == 1:
            return TorchBackend(checkpoint.model, device=devices[0], dtype=options.dtype)
        from pyterrier_bertcat.scoring.backends.workers import WorkersBackend

        return WorkersBackend(checkpoint.model, devices=devices, dtype=options.dtype)
    from pyterrier_bertcat.scoring.backends.openvino import OpenVinoBackend

    if options.dtype == "int8" and options.calibration is None:
        if checkpoint.source != PACKAGED:
            raise InputError(
                f"int8 is calibrated on pairs like those it will score, and none come with {checkpoint.source!r}: give "
                "calibration=[(query, text), ...], a few hundred of your own, relevant or not"
            )
        options = replace(options, calibration=packaged_calibration())
    return OpenVinoBackend(checkpoint, options)


def packaged_calibration() -> tuple[tuple[str, str], ...]:
    """The pairs that come with ``mini``: each question with the text that answers it, and with another text."""
    file = packaged_folder() / _CALIBRATION_FILE
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    queries, texts = [row["query"] for row in rows], [row["text"] for row in rows]
    return (*zip(queries, texts, strict=True), *zip(queries, texts[1:] + texts[:1], strict=True))
