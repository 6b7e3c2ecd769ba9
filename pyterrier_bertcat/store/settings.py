"""What decides a re-ranker's scores, as a store needs to know it; found without reading weights where that can be."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyterrier_bertcat.identity import Digest
from pyterrier_bertcat.model.files_signature import files_signature
from pyterrier_bertcat.model.names import PACKAGED, PIN, is_name, packaged_folder
from pyterrier_bertcat.pairs.passages import Passages
from pyterrier_bertcat.pairs.truncation import Truncation
from pyterrier_bertcat.store.score_store import ScoreStore, Settings

if TYPE_CHECKING:
    from pyterrier_bertcat.model.checkpoint import Checkpoint


def score_settings(
    fingerprint: str,
    *,
    backend: str,
    device: str | None,
    dtype: str,
    calibration: Sequence[tuple[str, str]] | None,
    truncation: Truncation,
    passages: Passages | None,
) -> Settings:
    """All that changes a score besides the pair.

    Args:
        fingerprint: The checkpoint's.
        backend: As the re-ranker has it.
        device: The same. It is left out of the result: it changes no more than the last bits.
        dtype: The same. What it comes to on this machine goes into the result.
        calibration: The same.
        truncation: The same.
        passages: The same.
    """
    return {
        "checkpoint": fingerprint,
        "backend": backend,
        "dtype": _effective_dtype(backend, device, dtype),
        "calibration": None if calibration is None else Digest.of_pairs(calibration).digest,
        "truncation": asdict(truncation),
        "passages": None if passages is None else asdict(passages),
    }


def fingerprint_of(model: object, revision: str | None, store: ScoreStore, load: Callable[[], Checkpoint]) -> str:
    """The fingerprint of a model that is not loaded yet: remembered by the store for files that have not changed.

    Args:
        model: As the re-ranker has it.
        revision: The same.
        store: What remembers.
        load: Loads the checkpoint; called where nothing is remembered.
    """
    folder = _local_folder(model)
    signature = None if folder is None else files_signature(folder)
    remembered = None if signature is None else store.recall(signature)
    if remembered is not None and (revision is None or remembered.startswith(revision.removeprefix(PIN))):
        return remembered
    fingerprint = load().fingerprint
    # The signature was taken before loading: where it still holds, these files are what was loaded.
    if folder is not None and signature is not None and files_signature(folder) == signature:
        store.remember(signature, fingerprint)
    return fingerprint


def _local_folder(model: object) -> Path | None:
    """Where a model's files are; None for one on the hub or in memory."""
    if not is_name(model):
        return None
    if model == PACKAGED:
        return packaged_folder()
    return Path(model) if os.path.isdir(model) else None


def _effective_dtype(backend: str, device: str | None, dtype: str) -> str:
    """The precision that will be used on this machine, without torch where that is clear."""
    if dtype in ("float32", "int8") or (dtype == "auto" and (backend == "openvino" or device == "cpu")):
        return "float32" if dtype == "auto" else dtype
    from pyterrier_bertcat.scoring.devices import choose_device, choose_dtype

    chosen: Any = choose_dtype(dtype, choose_device(device))
    return str(chosen).removeprefix("torch.")
