"""Which values the re-ranker's options may have. Checked when a re-ranker is made, so without torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.model.names import PIN, is_name, is_pin
from pyterrier_bertcat.pairs.passages import Passages
from pyterrier_bertcat.pairs.truncation import Truncation
from pyterrier_bertcat.pipeline.extra_columns import EXTRA_COLUMNS
from pyterrier_bertcat.pipeline.frames import MISSING_TEXT_CHOICES, OUTPUT_COLUMNS

DTYPES = {
    "torch": ("auto", "float32", "float16", "bfloat16"),
    "openvino": ("auto", "float32", "bfloat16", "int8"),
}
"""Which precisions each backend has."""


def check_options(options: Mapping[str, Any]) -> None:
    """Refuses options that can't work.

    Args:
        options: every constructor parameter of ``BertCatReRanker`` with its value.

    Raises:
        InputError: with the option, what was expected and what came.
    """
    _check_model(options["model"], options["revision"])
    for name, none_allowed in (("batch_size", False), ("batch_tokens", True), ("depth", True)):
        value = options[name]
        if not (none_allowed and value is None) and (type(value) is not int or value < 1):
            raise InputError(f"{name} is a whole number of at least 1{' or None' * none_allowed}, got {value!r}")
    for name, none_allowed in (("text_field", False), ("device", True), ("revision", True)):
        value = options[name]
        if not (none_allowed and value is None) and not (isinstance(value, str) and value):
            raise InputError(f"{name} is a string that is not empty{' or None' * none_allowed}, got {value!r}")
    Truncation(**{name: options[name] for name in ("max_length", "max_query_length")}, strategy=options["truncation"])
    if not isinstance(options["passages"], (Passages, type(None))):
        raise InputError(f"passages is a Passages or None, got {options['passages']!r}")
    _check_extra_columns(options["extra_columns"])
    if options["text_field"] in (*OUTPUT_COLUMNS, *options["extra_columns"]):
        raise InputError(
            f"text_field={options['text_field']!r} is a column that re-ranking writes: rename the texts' column"
        )
    _check_store(options["store"], options["extra_columns"])
    for name, choices in (("backend", tuple(DTYPES)), ("missing_text", MISSING_TEXT_CHOICES)):
        if options[name] not in choices:
            raise InputError(f"{name} is one of {', '.join(map(repr, choices))}, got {options[name]!r}")
    backend = options["backend"]
    if options["dtype"] not in DTYPES[backend]:
        raise InputError(
            f"with backend={backend!r}, dtype is one of {', '.join(map(repr, DTYPES[backend]))}, "
            f"got {options['dtype']!r}"
        )
    _check_devices(options["devices"], options["device"], backend)
    _check_calibration(options["calibration"], options["dtype"])
    if not isinstance(options["verbose"], bool):
        raise InputError(f"verbose is True or False, got {options['verbose']!r}")
    _check_training(options["training"])


def _check_model(model: object, revision: object) -> None:
    # Of the types, because a Checkpoint would compute its fingerprint when asked for it.
    if not is_name(model) and not any(hasattr(type(model), name) for name in ("fingerprint", "cast_encoder")):
        raise InputError(
            "model is a hub id, a folder, 'mini', a Checkpoint or a BertCatModel, "
            f"got a value of type {type(model).__name__}"
        )
    if isinstance(model, str) and not model:
        raise InputError("model is an empty string, expected a hub id, a folder or 'mini'")
    if revision is not None and not is_name(model):
        raise InputError(f"revision={revision!r} is for a model given by name, got a model object: leave revision out")
    if isinstance(revision, str) and is_pin(revision) and not re.fullmatch(PIN + "[0-9a-f]{8,64}", revision):
        raise InputError(
            f"a revision that begins with {PIN!r} goes on with 8 to 64 hexadecimal digits, got {revision!r}"
        )


def _check_devices(devices: object, device: object, backend: object) -> None:
    if devices is None:
        return
    is_list = isinstance(devices, (list, tuple)) and all(isinstance(name, str) and name for name in devices)
    if devices != "all" and not (is_list and devices):
        raise InputError(f"devices is 'all', a list of devices' names, at least one, or None, got {devices!r}")
    if device is not None:
        raise InputError(f"device={device!r} and devices={devices!r} exclude each other: leave one of them out")
    if backend != "torch":
        raise InputError(f"devices={devices!r} is for backend='torch', got it with backend={backend!r}")


def _check_calibration(calibration: object, dtype: object) -> None:
    if calibration is None:
        return
    is_pairs = isinstance(calibration, (list, tuple)) and all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 and all(isinstance(text, str) for text in pair)
        for pair in calibration
    )
    if not is_pairs or not calibration:
        raise InputError(
            "calibration is a list of (query, text) pairs of strings, at least one, "
            f"got {str(calibration)[:60]!r} of type {type(calibration).__name__}"
        )
    if dtype != "int8":
        raise InputError(f"calibration is for dtype='int8', got it with dtype={dtype!r}: leave calibration out")


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
        raise InputError("a store keeps scores only: leave extra_columns or store out")


def _check_training(training: object) -> None:
    if training is None:
        return
    from pyterrier_bertcat.training.options import TrainingOptions

    if not isinstance(training, TrainingOptions):
        raise InputError(f"training is a TrainingOptions or None, got a value of type {type(training).__name__}")
