"""From frames and a checkpoint to a trained checkpoint: the one entry into training."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import json
import logging
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pyterrier_bertcat.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from pyterrier_bertcat.errors import InputError, MissingExtraError
from pyterrier_bertcat.pairs import PairTokenizer
from pyterrier_bertcat.training.collation import GroupCollator
from pyterrier_bertcat.training.loop import TrainingData, train
from pyterrier_bertcat.training.options import TrainingOptions
from pyterrier_bertcat.training.sampling import Candidates, Rows, draw_groups, judged_candidates
from pyterrier_bertcat.training.teachers import known_to_files, teacher_scores
from pyterrier_bertcat.training.validation import Validation

logger = logging.getLogger(__name__)

# Padded tokens per forward pass: small ones stay in a CPU's caches, a GPU wants large ones.
_CPU_BATCH_TOKENS, _GPU_BATCH_TOKENS = 2048, 65536


def fit(
    checkpoint: Checkpoint,
    options: TrainingOptions,
    results: pd.DataFrame,
    qrels: pd.DataFrame,
    valid_results: pd.DataFrame | None = None,
    valid_qrels: pd.DataFrame | None = None,
    *,
    text_field: str = "text",
    max_length: int = 512,
) -> Checkpoint:
    """Trains a copy of a checkpoint.

    Args:
        checkpoint: Where to start; it is left as it is.
        options: See `TrainingOptions`.
        results: Training candidates: ``qid, query, docno, <text_field>``, and ``rank`` or ``score`` for their order.
        qrels: ``qid, docno, label``.
        valid_results: Validation candidates, or None.
        valid_qrels: Their judgments, or None.
        text_field: The column that holds the passage.
        max_length: Tokens per pair, in training and validation.

    Returns:
        The trained checkpoint; with validation frames the best state by ``options.measure``. With ``options.output`` it
        is also saved there, and loaded from there by whoever unpickles a re-ranker that holds it.

    Raises:
        TrainingDataError: where there is nothing to train on, or a teacher lacks scores.
        InputError: where ``options.output`` holds another run.
        MissingExtraError: without the ``train`` extra.
    """
    if importlib.util.find_spec("accelerate") is None:
        raise MissingExtraError("accelerate", extra="train")
    if (valid_results is None) != (valid_qrels is None):
        raise InputError("validation needs both its results and its qrels, or neither")
    loss = options.chosen_loss
    candidates = judged_candidates(
        results,
        qrels,
        text_field=text_field,
        needs_positive=loss.needs_positive,
        scored=lambda frame: known_to_files(options.teachers, frame),
    )
    groups = draw_groups(candidates, options)
    candidates, groups = _used_rows(candidates, groups)
    frame = candidates.frame
    collator = GroupCollator(
        pair_tokenizer=PairTokenizer(checkpoint.tokenizer, max_length=max_length),
        queries=frame["query"].tolist(),
        passages=frame[text_field].tolist(),
        labels=candidates.labels,
        teacher=teacher_scores(options.teachers, frame) if loss.needs_teacher else None,
        batch_tokens=_GPU_BATCH_TOKENS if torch.cuda.is_available() else _CPU_BATCH_TOKENS,
    )
    validation = None
    if valid_results is not None and valid_qrels is not None:
        validation = Validation(valid_results, valid_qrels, options.measure, text_field, checkpoint, max_length)
    model: Any = copy.deepcopy(checkpoint.model)  # a torch module too, which the protocol does not say
    model.train()
    with ExitStack() as stack:
        output = Path(options.output or stack.enter_context(tempfile.TemporaryDirectory()))
        _claim(output, _identity(checkpoint, options, candidates, groups, text_field))
        train(model, TrainingData(groups, collator, validation), options, output / "states")
    trained = Checkpoint(model=model.cpu().eval(), tokenizer=checkpoint.tokenizer, source="in memory")
    if options.output is None:
        return trained
    return load_checkpoint(save_checkpoint(trained, output))


def _used_rows(candidates: Candidates, groups: Sequence[Rows]) -> tuple[Candidates, list[Rows]]:
    """Only the rows that some group holds, so that teachers score no other; groups in the new positions."""
    used, positions = np.unique(np.concatenate(groups), return_inverse=True)
    bounds = np.cumsum([len(group) for group in groups])[:-1]
    frame = candidates.frame.iloc[used].reset_index(drop=True)
    return Candidates(frame, candidates.labels[used], queries=[]), np.split(positions, bounds)


def _identity(
    checkpoint: Checkpoint, options: TrainingOptions, candidates: Candidates, groups: Sequence[Rows], text_field: str
) -> dict[str, str]:
    """What must agree for a saved state to be one of this run."""
    # Not the teacher, whose repr may differ from process to process, and not the folder, which may be moved.
    told = [(field.name, str(getattr(options, field.name))) for field in fields(options)]
    told = [(name, value) for name, value in told if name not in ("teacher", "output")]
    digest = hashlib.sha256()
    hashes = pd.util.hash_pandas_object(candidates.frame[["query", text_field]].astype(str), index=False)
    for part in (hashes.to_numpy(), candidates.labels, *groups):
        digest.update(np.ascontiguousarray(part).tobytes())
    return {"start": checkpoint.fingerprint, "options": repr(told), "data": digest.hexdigest()}


def _claim(output: Path, identity: dict[str, str]) -> None:
    """Makes ``output`` this run's folder, or checks that it already is."""
    record = output / "training.json"
    if record.is_file():
        previous = json.loads(record.read_text(encoding="utf-8"))
        differing = [name for name, value in identity.items() if previous.get(name) != value]
        if differing:
            raise InputError(
                f"{output} holds the saved states of another training run (different {', '.join(differing)}): "
                "choose another output folder, or delete that one"
            )
        return
    output.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(identity, indent=2) + "\n", encoding="utf-8")
