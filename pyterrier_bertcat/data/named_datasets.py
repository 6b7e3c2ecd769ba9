"""PyTerrier data sets by name, ``irds:vaswani`` or ``bertcat:pydoc``, wherever a file's name could stand as well."""

from __future__ import annotations

import os
import re
from typing import Any

import pyterrier as pt

from pyterrier_bertcat.errors import InputError

_NAME = re.compile(r"[A-Za-z][\w-]+:[^\\]")  # two letters at least: C:\topics.tsv is a path


def dataset_named(source: str | os.PathLike[str]) -> Any | None:
    """The PyTerrier data set that is called so; None where ``source`` is a path.

    Raises:
        InputError: It has the form of a data set's name, and there is none.
    """
    if not isinstance(source, str) or not _NAME.match(source) or os.path.exists(source):
        return None
    try:
        return pt.get_dataset(source)
    except KeyError as error:
        raise InputError(
            f"there is no data set {source!r}, nor a file of that name: expected a file, or a name such as "
            "'irds:vaswani'"
        ) from error


def ir_dataset(dataset: Any) -> Any | None:
    """The ``ir_datasets`` object behind a PyTerrier data set; None where there is another thing behind it."""
    return dataset.irds_ref() if hasattr(dataset, "irds_ref") else None
