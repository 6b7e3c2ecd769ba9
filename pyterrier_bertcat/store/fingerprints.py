"""The fingerprint of a model, without reading its weights if a store remembers it and the files are unchanged."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pyterrier_bertcat.model.fingerprint import files_signature
from pyterrier_bertcat.model.names import PACKAGED, PIN, is_name, packaged_folder
from pyterrier_bertcat.store.score_store import ScoreStore

if TYPE_CHECKING:
    from pyterrier_bertcat.model.checkpoint import Checkpoint


def fingerprint_of(model: object, revision: str | None, store: ScoreStore, load: Callable[[], Checkpoint]) -> str:
    """Finds the fingerprint of a model that is not loaded yet.

    Args:
        model: As given to the re-ranker.
        revision: As given to the re-ranker.
        store: Remembers fingerprints by the state of a model's files.
        load: Loads the checkpoint. Called only if the store does not remember it.
    """
    folder = _local_folder(model)
    signature = folder and files_signature(folder)
    remembered = signature and store.recall(signature)
    if remembered and (revision is None or remembered.startswith(revision.removeprefix(PIN))):
        return remembered
    fingerprint = load().fingerprint
    # If the signature from before loading still holds, these files are the ones that were loaded.
    if folder and signature and files_signature(folder) == signature:
        store.remember(signature, fingerprint)
    return fingerprint


def _local_folder(model: object) -> Path | None:
    """The folder of a model; None if it is on the hub or in memory."""
    if model == PACKAGED:
        return packaged_folder()
    return Path(model) if is_name(model) and os.path.isdir(model) else None
