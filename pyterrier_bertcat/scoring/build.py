"""From the re-ranker's options to the scorer that does what they say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.model.checkpoint import Checkpoint
from pyterrier_bertcat.model.names import PACKAGED, packaged_folder
from pyterrier_bertcat.pairs.truncation import Truncation
from pyterrier_bertcat.scoring.devices import choose_device, choose_devices
from pyterrier_bertcat.scoring.pair_scorer import PairScorer

_CALIBRATION_FILE = "calibration.jsonl"


def scorer_for(
    checkpoint: Checkpoint,
    *,
    backend: str,
    calibration: Sequence[tuple[str, str]] | None,
    device: str | None,
    devices: str | Sequence[str] | None,
    dtype: str,
    truncation: Truncation,
    **options: Any,
) -> PairScorer:
    """Makes a scorer.

    Args:
        checkpoint: Model and tokenizer.
        backend: ``"torch"`` or ``"openvino"``.
        calibration: Queries, each with a text, for int8. None: those packaged with ``mini``, for ``mini`` only.
        device: As `PairScorer` and `OpenVinoBackend` take it.
        devices: Several, see `choose_devices`; a single one computes in this process, as ``device`` does.
        dtype: As ``device``.
        truncation: How pairs are cut.
        options: The other options of `PairScorer`.

    Raises:
        InputError: An option that can't be used, or int8 without pairs to calibrate on.
        WorkerError: A process for one of several devices could not be started.
        MissingExtraError: OpenVINO is not installed.
    """
    if backend == "torch":
        side_by_side = [choose_device(device)] if devices is None else choose_devices(devices)
        if len(side_by_side) == 1:
            return PairScorer(checkpoint, device=side_by_side[0], dtype=dtype, truncation=truncation, **options)
        from pyterrier_bertcat.scoring.backends.workers import WorkersBackend

        on_workers = WorkersBackend(checkpoint.model, devices=side_by_side, dtype=dtype)
        return PairScorer(checkpoint, backend=on_workers, truncation=truncation, **options)
    from pyterrier_bertcat.scoring.backends.openvino import OpenVinoBackend

    if dtype == "int8" and calibration is None:
        if checkpoint.source != PACKAGED:
            raise InputError(
                f"int8 is calibrated on pairs like those it will score, and none come with {checkpoint.source!r}: give "
                "calibration=[(query, text), ...], some hundred of your own, without regard to relevance"
            )
        calibration = packaged_calibration()
    on_openvino = OpenVinoBackend(
        checkpoint, dtype=dtype, calibration=calibration or (), truncation=truncation, device=device
    )
    return PairScorer(checkpoint, backend=on_openvino, truncation=truncation, **options)


def mean_scorers(scorers: Sequence[PairScorer]) -> list[tuple[PairScorer, int]]:
    """Scorers of means: those that read the same tokens become one; each with the number of scorers in it."""
    groups: list[list[PairScorer]] = []
    for scorer in scorers:
        group = next((group for group in groups if group[0].reads_as(scorer)), None)
        if group is None:
            groups.append([scorer])
        else:
            group.append(scorer)
    return [(PairScorer.mean(group), len(group)) for group in groups]


def packaged_calibration() -> list[tuple[str, str]]:
    """The pairs that come with ``mini``: each of its questions with the text that answers it, and with another one."""
    file = packaged_folder() / _CALIBRATION_FILE
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    queries, texts = [row["query"] for row in rows], [row["text"] for row in rows]
    return list(zip(queries, texts, strict=True)) + list(zip(queries, texts[1:] + texts[:1], strict=True))
