"""The checkpoint that comes inside the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

PACKAGED = "mini"
"""Its name, for ``model=``."""


def packaged_folder() -> Path:
    """Where its files are."""
    return Path(str(resources.files("pyterrier_bertcat") / PACKAGED))
