"""The real collections, which lie beside the checkout where there are any."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def data_folder(name: str) -> Path:
    """A real collection beside the checkout; skips if it is not there, as in a fresh clone."""
    folder = SHARED_DATA / name
    if not folder.is_dir():
        pytest.skip(f"the collection {name!r} is not beside this checkout")
    return folder
