"""Names of checkpoints: what ``model=`` and ``revision=`` accept, and where the packaged one is. Needs no torch."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import TypeGuard

PUBLISHED = "sebastian-hofstaetter/distilbert-cat-margin_mse-T2-msmarco"
"""The hub name of the authors' checkpoint."""
PACKAGED = "mini"
"""The name of the checkpoint inside this package."""
PIN = "sha256:"
"""The prefix of a revision that pins a checkpoint by the first digits of its fingerprint."""


def is_name(model: object) -> TypeGuard[str | os.PathLike[str]]:
    """Whether a model is given by name or path, rather than as an object that holds its weights."""
    return isinstance(model, (str, os.PathLike))


def is_pin(revision: str | None) -> bool:
    """Whether a revision pins a checkpoint by its fingerprint."""
    return revision is not None and revision.startswith(PIN)


def packaged_folder() -> Path:
    """The folder of the packaged checkpoint."""
    return Path(str(resources.files("pyterrier_bertcat") / PACKAGED))
