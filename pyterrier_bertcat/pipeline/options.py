"""Checks of the options that only the re-ranker has, without torch; `ScoringOptions` checks the others."""

from __future__ import annotations

import os
import re
from typing import Any

from pyterrier_bertcat.errors import InputError, one_of, whole_number
from pyterrier_bertcat.model.names import PIN, is_name, is_pin
from pyterrier_bertcat.pipeline.frames import EXTRA_COLUMNS, MISSING_TEXT_CHOICES, OUTPUT_COLUMNS
from pyterrier_bertcat.scoring.options import ScoringOptions
from pyterrier_bertcat.training.options import TrainingOptions


def check_options(reranker: Any) -> None:
    """Refuses options that can't work, as the attributes of a ``BertCatReRanker`` state them now.

    Raises:
        InputError: An option has another type or is outside its range; the message names it.
    """
    _check_model(reranker.model, reranker.revision)
    whole_number("depth", reranker.depth, or_none=True)
    if not (isinstance(reranker.text_field, str) and reranker.text_field):
        raise InputError(f"text_field is a string that is not empty, got {reranker.text_field!r}")
    ScoringOptions.of(reranker)
    _check_extra_columns(reranker.extra_columns)
    if reranker.text_field in (*OUTPUT_COLUMNS, *reranker.extra_columns):
        raise InputError(
            f"text_field={reranker.text_field!r} is a column that re-ranking writes: rename the texts' column"
        )
    _check_store(reranker.store, reranker.extra_columns)
    one_of("missing_text", reranker.missing_text, MISSING_TEXT_CHOICES)
    if not isinstance(reranker.verbose, bool):
        raise InputError(f"verbose is True or False, got {reranker.verbose!r}")
    if not isinstance(training := reranker.training, (TrainingOptions, type(None))):
        raise InputError(f"training is a TrainingOptions or None, got a value of type {type(training).__name__}")


def _check_model(model: object, revision: object) -> None:
    # hasattr on the type, because on a Checkpoint it would compute the fingerprint.
    if not is_name(model) and not any(hasattr(type(model), name) for name in ("fingerprint", "cast_encoder")):
        raise InputError(
            "model is a hub id, a folder, 'mini', a Checkpoint or a BertCatModel, "
            f"got a value of type {type(model).__name__}"
        )
    if isinstance(model, str) and not model:
        raise InputError("model is an empty string, expected a hub id, a folder or 'mini'")
    if revision is not None and not (isinstance(revision, str) and revision):
        raise InputError(f"revision is a string that is not empty or None, got {revision!r}")
    if revision is not None and not is_name(model):
        raise InputError(f"revision={revision!r} is for a model given by name, got a model object: leave revision out")
    if isinstance(revision, str) and is_pin(revision) and not re.fullmatch(PIN + "[0-9a-f]{8,64}", revision):
        raise InputError(
            f"a revision that begins with {PIN!r} continues with 8 to 64 hexadecimal digits, got {revision!r}"
        )


def _check_extra_columns(names: object) -> None:
    if not isinstance(names, (list, tuple)) or not set(names) <= set(EXTRA_COLUMNS) or len(set(names)) < len(names):
        raise InputError(
            f"extra_columns is a list of some of {', '.join(map(repr, EXTRA_COLUMNS))}, each once, got {names!r}"
        )


def _check_store(store: object, extra_columns: object) -> None:
    if store is None:
        return
    if not isinstance(store, (str, os.PathLike)) and not hasattr(type(store), "scores_of"):
        raise InputError(f"store is a ScoreStore or its path, got a value of type {type(store).__name__}")
    if extra_columns:
        raise InputError("a store keeps only scores: leave extra_columns or store out")
