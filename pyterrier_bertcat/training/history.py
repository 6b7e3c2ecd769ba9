"""The history of a training run: a frame, and the file of it in the run's folder."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pyterrier_bertcat.errors import InputError

HISTORY_FILE = "history.csv"
# The validation measure's name in the Trainer's log, whichever measure it is.
LOGGED_MEASURE = "eval_measure"


def history_frame(log: Sequence[Mapping[str, Any]], measure: str | None) -> pd.DataFrame:
    """The Trainer's log as a frame.

    Args:
        log: The entries of ``TrainerState.log_history``.
        measure: The validation measure's name. None: there are no validation frames.

    Returns:
        A row for each step with a figure: ``step``; ``seconds`` since the run began, without pauses; ``loss`` and
        ``learning_rate`` (the encoder's), the means since the last row that has them and the present ones; and with
        validation frames the measure, by its name. What was not measured at a step is NaN. Step 0 is the start.
    """
    rows: dict[int, dict[str, Any]] = {}
    for entry in log:
        figures = {name: entry[name] for name in ("loss", "learning_rate") if "loss" in entry}
        if LOGGED_MEASURE in entry:
            figures[measure or LOGGED_MEASURE] = entry[LOGGED_MEASURE]
        if figures:
            step = int(entry["step"])
            rows.setdefault(step, {"step": step}).update(figures, seconds=entry.get("seconds"))
    columns = ["step", "seconds", "loss", "learning_rate", *([measure] if measure else [])]
    return _typed(pd.DataFrame([rows[step] for step in sorted(rows)], columns=columns))


def history_bytes(history: pd.DataFrame) -> bytes:
    """The content of the file."""
    content = io.StringIO()
    history.to_csv(content, index=False)
    return content.getvalue().encode()


def read_history(folder: str | os.PathLike[str]) -> pd.DataFrame | None:
    """The history of the run that made a checkpoint's folder, or None if no run did.

    Raises:
        InputError: The file can't be read.
    """
    path = Path(folder) / HISTORY_FILE
    if not path.is_file():
        return None
    try:
        return _typed(pd.read_csv(path, dtype=str))  # so that numbers are read exactly, whatever the version
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read: {error}") from error


def _typed(history: pd.DataFrame) -> pd.DataFrame:
    typed: pd.DataFrame = history.astype({name: "int64" if name == "step" else "float64" for name in history.columns})
    return typed
