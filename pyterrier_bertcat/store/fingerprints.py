"""What a store remembers of a model whose files are unchanged, so that its weights need not be read again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pyterrier_bertcat.model.fingerprint import files_signature
from pyterrier_bertcat.model.names import PACKAGED, PIN, is_name, packaged_folder
from pyterrier_bertcat.scoring.options import own_max_length
from pyterrier_bertcat.store.score_store import ScoreStore

if TYPE_CHECKING:
    from pyterrier_bertcat.model.checkpoint import Checkpoint

_LENGTH = " max_length"  # after a signature: the name of this note


class KnownCheckpoint(NamedTuple):
    """What the settings of a store need to know of a checkpoint.

    Attributes:
        fingerprint: Of all that decides its scores.
        max_length: What ``max_length=None`` means for it.
    """

    fingerprint: str
    max_length: int

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> KnownCheckpoint:
        """Computes both from a loaded checkpoint."""
        return cls(checkpoint.fingerprint, own_max_length(checkpoint))


def known_checkpoint(
    model: object, revision: str | None, store: ScoreStore, load: Callable[[], Checkpoint]
) -> KnownCheckpoint:
    """Finds the fingerprint and length of a model that is not loaded yet.

    Args:
        model: As given to the re-ranker.
        revision: As given to the re-ranker.
        store: Remembers fingerprints by the state of a model's files.
        load: Loads the checkpoint. Called only if the store does not remember it.
    """
    folder = _local_folder(model)
    signature = folder and files_signature(folder)
    fingerprint, max_length = (signature and store.recall(f"{signature}{of}") for of in ("", _LENGTH))
    if fingerprint and max_length and (revision is None or fingerprint.startswith(revision.removeprefix(PIN))):
        return KnownCheckpoint(fingerprint, int(max_length))
    known = KnownCheckpoint.of(load())
    # If the signature from before loading still holds, these files are the ones that were loaded.
    if folder and signature and files_signature(folder) == signature:
        store.remember(signature, known.fingerprint)
        store.remember(signature + _LENGTH, str(known.max_length))
    return known


def _local_folder(model: object) -> Path | None:
    """The folder of a model; None if it is on the hub or in memory."""
    if model == PACKAGED:
        return packaged_folder()
    return Path(model) if is_name(model) and os.path.isdir(model) else None
