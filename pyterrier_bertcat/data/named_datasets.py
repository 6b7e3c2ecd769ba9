"""PyTerrier data sets by name, such as ``irds:vaswani`` or ``bertcat:pydoc``, wherever a file could be named too."""

from __future__ import annotations

import os
import re
from typing import Any

import pyterrier as pt

from pyterrier_bertcat.errors import InputError

_NAME = re.compile(r"[A-Za-z][\w-]+:[^\\]")  # at least two letters before the colon: C:\topics.tsv is a path


def dataset_named(source: str | os.PathLike[str]) -> Any | None:
    """The PyTerrier data set with this name; None if ``source`` is a path.

    Raises:
        InputError: ``source`` looks like a data set's name, but no data set has it.
    """
    if not isinstance(source, str) or not _NAME.match(source) or os.path.exists(source):
        return None
    try:
        return pt.get_dataset(source)
    except KeyError as error:
        raise InputError(
            f"there is no data set {source!r}, nor a file of that name: give a file, or a name such as 'irds:vaswani'"
        ) from error


def ir_dataset(dataset: Any) -> Any | None:
    """The ``ir_datasets`` object behind a PyTerrier data set; None if it is made of something else."""
    return dataset.irds_ref() if hasattr(dataset, "irds_ref") else None
