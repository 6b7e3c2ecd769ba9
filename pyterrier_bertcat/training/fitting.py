"""From frames and a checkpoint to a trained checkpoint: the one entry into training."""

from __future__ import annotations

import copy
import importlib.util
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pyterrier_bertcat.data.order import Rows
from pyterrier_bertcat.errors import InputError, MissingExtraError
from pyterrier_bertcat.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from pyterrier_bertcat.scoring.devices import choose_device
from pyterrier_bertcat.scoring.options import ScoringOptions
from pyterrier_bertcat.scoring.statistics import RunStatistics, warn_of_truncation
from pyterrier_bertcat.training.loop import GroupCollator, queries_per_device, train
from pyterrier_bertcat.training.options import TrainingOptions
from pyterrier_bertcat.training.run_folder import claim, is_first_process, kept_teacher, run_identity
from pyterrier_bertcat.training.sampling import Candidates, draw_groups, judged_candidates
from pyterrier_bertcat.training.teachers import known_to_files, teacher_scores
from pyterrier_bertcat.training.validation import Validation

# Tokens per forward pass, with padding: small batches stay in a CPU's caches, a GPU needs large ones.
_CPU_BATCH_TOKENS, _GPU_BATCH_TOKENS = 2048, 65536
_PAIRS_COUNTED_AT_ONCE = 8192


@dataclass(frozen=True, eq=False)
class TrainedCheckpoint(Checkpoint):
    """A checkpoint with the history of its training, as `pyterrier_bertcat.training.history` describes it."""

    history: pd.DataFrame = field(kw_only=True)


def fit(
    checkpoint: Checkpoint,
    options: TrainingOptions,
    results: pd.DataFrame,
    qrels: pd.DataFrame,
    valid_results: pd.DataFrame | None = None,
    valid_qrels: pd.DataFrame | None = None,
    *,
    text_field: str = "text",
    scoring: ScoringOptions | None = None,
    verbose: bool = True,
) -> TrainedCheckpoint:
    """Trains a copy of a checkpoint; the frames are as for ``BertCatReRanker.fit``.

    Sets the global random states of Python, numpy and torch to ``options.seed`` (``transformers.set_seed``).

    ``scoring`` says how pairs are cut, and the trained checkpoint states how many tokens that leaves of a pair, so that
    it is scored with as many. Training reads each text once, cut; only validation scores documents by their passages.
    ``device="cpu"`` trains there, any other value on all visible GPUs.

    Returns:
        The trained checkpoint: with validation frames the best state by ``options.measure``, otherwise the last one.
        With ``options.averaging`` it has averaged weights. With ``options.output`` it is saved there too.

    Raises:
        TrainingDataError: There is nothing to train on, or a teacher lacks scores.
        InputError: ``options.output`` holds another run, or the frames and options don't go together.
        MissingExtraError: The ``train`` extra is not installed.
    """
    if importlib.util.find_spec("accelerate") is None:
        raise MissingExtraError("accelerate", extra="train")
    if (valid_results is None) != (valid_qrels is None):
        raise InputError("validation needs both its results and its qrels, or neither")
    if options.output is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("several processes train one checkpoint through a folder that they share: give output=")
    # Training computes in torch, in this process; so does its validation.
    scoring = replace(scoring or ScoringOptions(), devices=None, dtype="auto", backend="torch", calibration=None)
    scoring = scoring.for_checkpoint(checkpoint)
    device = choose_device(scoring.device)
    queries_per_device(options, device)
    validation = None
    if valid_results is not None and valid_qrels is not None:
        validation = Validation(valid_results, valid_qrels, options.measure, text_field, checkpoint, scoring)
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
    with ExitStack() as stack:
        output = Path(options.output or stack.enter_context(tempfile.TemporaryDirectory()))
        identity = run_identity(
            checkpoint, options, candidates, groups, validation, text_field=text_field, scoring=scoring
        )
        claim(output, identity)
        collator = GroupCollator(
            pair_tokenizer=replace(scoring, passages=None).pair_tokenizer(checkpoint.tokenizer),
            queries=frame["query"].tolist(),
            passages=frame[text_field].tolist(),
            labels=candidates.labels,
            teacher=kept_teacher(output, teacher_scores(options.teachers, frame)) if loss.needs_teacher else None,
            batch_tokens=_CPU_BATCH_TOKENS if device.type == "cpu" else _GPU_BATCH_TOKENS,
        )
        if is_first_process():
            _warn_of_truncation(collator)
        model = copy.deepcopy(checkpoint.model)
        report = train(
            model.train(),
            groups,
            collator=collator,
            validation=validation,
            options=options,
            states=output / "states",
            device=device,
            verbose=verbose,
        )
    trained = _with_weights(checkpoint, model.state_dict(), report.history)
    trained = trained.trained_at(scoring.truncation.pair_length)
    saved = "" if options.output is None else f"; saved in {options.output}"
    if options.output is not None:
        if is_first_process():
            save_checkpoint(trained, options.output)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.barrier()  # the other processes load the checkpoint that the first one saves
        loaded = load_checkpoint(options.output)
        trained = TrainedCheckpoint(loaded.model, loaded.tokenizer, loaded.source, history=report.history)
    report.say(report.summary + saved)
    return trained


def _warn_of_truncation(collator: GroupCollator) -> None:
    """Warns, before the training, if many of its pairs will be cut."""
    statistics = RunStatistics(pairs=len(collator.queries))
    for start in range(0, len(collator.queries), _PAIRS_COUNTED_AT_ONCE):
        some = slice(start, start + _PAIRS_COUNTED_AT_ONCE)
        pairs = collator.pair_tokenizer.encode(collator.queries[some], collator.passages[some])
        statistics.count_cut(pairs.lost > 0)
    warn_of_truncation(statistics, passages=None, activity="training", stacklevel=4)


def _with_weights(checkpoint: Checkpoint, weights: dict[str, torch.Tensor], history: pd.DataFrame) -> TrainedCheckpoint:
    """The checkpoint with new weights, in a fresh model: the trained one still has the Trainer's mixed precision on."""
    model = copy.deepcopy(checkpoint.model)
    model.cpu().load_state_dict({name: tensor.cpu() for name, tensor in weights.items()})
    if getattr(model.config, "known_scores", None):
        model.config.known_scores = None  # the old weights' scores
    return TrainedCheckpoint(model.eval(), checkpoint.tokenizer, history=history)


def _used_rows(candidates: Candidates, groups: Sequence[Rows]) -> tuple[Candidates, list[Rows]]:
    """The candidates that some group holds, so that teachers score no others; and the groups in their new positions."""
    used, positions = np.unique(np.concatenate(groups), return_inverse=True)
    bounds = np.cumsum([len(group) for group in groups])[:-1]
    frame = candidates.frame.iloc[used].reset_index(drop=True)
    return Candidates(frame, candidates.labels[used], queries=[]), np.split(positions, bounds)
