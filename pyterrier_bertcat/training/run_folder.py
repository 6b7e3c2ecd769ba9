"""The folder of a training run, and a record of which run it is: no run continues from the states of another."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from pyterrier_bertcat.data.order import Rows
from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.model.checkpoint import Checkpoint
from pyterrier_bertcat.model.config import CONFIG_FILE
from pyterrier_bertcat.scoring.options import ScoringOptions
from pyterrier_bertcat.training.options import TrainingOptions
from pyterrier_bertcat.training.sampling import Candidates
from pyterrier_bertcat.training.validation import Validation

RECORD, TEACHER_SCORES = "training.json", "teacher.npy"

# How candidates are ordered before negatives are drawn. A run that began with another order drew other negatives.
_ORDER = "score, then docno descending"
# The options of a run, with their defaults. Not the loss, whose default depends on the teacher; nor the teacher, whose
# repr may differ from process to process; nor the folder, which may be moved.
_STATED_OPTIONS = {
    option.name: str(option.default)
    for option in fields(TrainingOptions)
    if option.name not in ("loss", "teacher", "output")
}
# What the facts of a run are, for those whose names don't say it.
_MEANING = {
    "start": "start (the model to train)",
    "data": "data (queries, texts, judgments, or the negatives drawn)",
    "validation": "validation (its frames, or passages)",
    "teacher": "teacher (its scores)",
}
# On another device, or in other batches, the same teacher's scores differ by less than this.
_SAME_TEACHER = 1e-2


def run_identity(
    checkpoint: Checkpoint,
    options: TrainingOptions,
    candidates: Candidates,
    groups: Sequence[Rows],
    validation: Validation | None,
    *,
    text_field: str,
    scoring: ScoringOptions,
) -> dict[str, str]:
    """The facts that identify a run. They have to agree before it continues from a saved state."""
    stated = {"loss": str(options.chosen_loss), **{name: str(getattr(options, name)) for name in _STATED_OPTIONS}}
    data = hashlib.sha256(_digest(candidates.frame, ["query", text_field]))
    for part in (candidates.labels, *groups):
        data.update(np.ascontiguousarray(part).tobytes())
    held_out = hashlib.sha256()
    if validation is not None:
        held_out.update(_digest(validation.frame, ["qid", "query", "docno", text_field]))
        held_out.update(_digest(validation.qrels, ["qid", "docno", "label"]))
        held_out.update(str(scoring.passages or "").encode())
    return {
        "start": checkpoint.fingerprint,
        "order": _ORDER,
        "options": repr(stated),
        "truncation": str(scoring.truncation),
        "data": data.hexdigest(),
        "validation": held_out.hexdigest(),
    }


def claim(output: Path, identity: dict[str, str]) -> None:
    """Records in ``output`` that it belongs to this run, or checks that it does.

    Raises:
        InputError: It belongs to another run; the message names the facts that differ.
    """
    record = output / RECORD
    if record.is_file():
        differing = _differing(json.loads(record.read_text(encoding="utf-8")), identity)
        if differing:
            raise _another_run(output, differing)
        return
    write_whole(record, (json.dumps(identity, indent=2) + "\n").encode())


def kept_teacher(output: Path, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The teacher scores that the run in ``output`` began with: it keeps ``scores``, float32 (rows,), the first time.

    Raises:
        InputError: It began with another teacher's scores.
    """
    record = output / TEACHER_SCORES
    if record.is_file():
        kept: npt.NDArray[np.float32] = np.load(record)
        if kept.shape != scores.shape or not np.allclose(kept, scores, rtol=0, atol=_SAME_TEACHER):
            raise _another_run(output, ["teacher"])
        return kept
    content = io.BytesIO()
    np.save(content, scores)
    write_whole(record, content.getvalue())
    return scores


def is_first_process() -> bool:
    """Whether this process writes the files. ``torchrun`` starts others beside it, which don't."""
    return os.environ.get("RANK", "0") == "0"


def _digest(frame: pd.DataFrame, columns: list[str]) -> bytes:
    return pd.util.hash_pandas_object(frame[columns].astype(str), index=False).to_numpy().tobytes()


def _differing(previous: dict[str, str], identity: dict[str, str]) -> list[str]:
    """The facts in which two runs differ; of their options, each with both values."""
    then, now = _options(previous), _options(identity)
    unknown = "unknown"
    options = [
        f"{name} ({then.get(name, unknown)} there, {now.get(name, unknown)} here)"
        for name in {**now, **then}
        if then.get(name) != now.get(name)
    ]
    return options + [name for name, value in identity.items() if name != "options" and previous.get(name) != value]


def _options(identity: dict[str, str]) -> dict[str, str]:
    """A run's options. One that was added after the run had begun has its default."""
    stated: dict[str, str] = ast.literal_eval(identity["options"])
    return {**_STATED_OPTIONS, **stated}


def _another_run(output: Path, differing: Sequence[str]) -> InputError:
    facts = ", ".join(_MEANING.get(name, name) for name in differing)
    if (output / CONFIG_FILE).is_file():
        go_on = (
            "To go on from its trained weights, begin a new run with them: "
            f"BertCatReRanker({str(output)!r}, training=TrainingOptions(output='another-folder')), "
            f"or --model {output} --output another-folder"
        )
    else:
        go_on = "To finish that run, start it with what it began with"
    return InputError(
        f"{output} holds another training run, with a different {facts}. {go_on}. "
        "To start over, choose another output folder, or delete this one"
    )


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that it appears complete or not at all. Only the first process does."""
    if is_first_process():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        unfinished.write_bytes(content)
        os.replace(unfinished, path)
