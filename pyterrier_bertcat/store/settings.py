"""The fingerprint of a model that may not be loaded yet, found without reading its weights if that can be."""

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
