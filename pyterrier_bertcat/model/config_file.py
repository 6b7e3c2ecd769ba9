"""Reads a checkpoint's ``config.json``, which anybody may have written: checks its sizes before anything is built."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PretrainedConfig

from pyterrier_bertcat.errors import CheckpointError
from pyterrier_bertcat.model.config import BertCatConfig
from pyterrier_bertcat.model.families import classifier_types

CONFIG_FILE = "config.json"

# Configuration classes make lists and dictionaries as long as the file says. The largest usual number is the size of a
# vocabulary: 250,002 for multilingual encoders.
_MOST_IN_CONFIG = 2_000_000
_MOST_CONFIG_BYTES = 4_000_000


def read_config(folder: Path) -> PretrainedConfig:
    """Read the configuration of a checkpoint.

    Args:
        folder: Holds ``config.json``.

    Returns:
        A `BertCatConfig`, or the configuration of a sequence classifier.

    Raises:
        CheckpointError: The file is missing or damaged, its model type is unknown, or its sizes are impossible.
    """
    path = folder / CONFIG_FILE
    facts = _read_facts(path)
    model_type = facts.get("model_type")
    is_bert_cat = model_type == BertCatConfig.model_type
    if not is_bert_cat and model_type not in classifier_types():
        raise CheckpointError(
            f"{path}: expected model_type {BertCatConfig.model_type!r}, or a one-logit sequence classifier of type "
            f"{', '.join(classifier_types())}; got {model_type!r}"
        )
    known = {key: value for key, value in facts.items() if key not in ("model_type", "auto_map")}
    try:
        if is_bert_cat:
            config = BertCatConfig(**known)
            config.encoder_config  # noqa: B018  # an unknown encoder is an error of this file
            return config
        classifier_config: PretrainedConfig = AutoConfig.for_model(str(model_type), **known)
        return classifier_config
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except Exception as error:  # every configuration class checks itself in its own way
        raise CheckpointError(f"{path}: not a configuration that can be used: {error}") from error


def check_depth(config: PretrainedConfig, weights: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Refuse more layers than there are weights, before they are built one by one.

    Raises:
        CheckpointError: The configuration has more layers than the file has weights.
    """
    encoder_config = config.encoder_config if isinstance(config, BertCatConfig) else config
    layers = int(getattr(encoder_config, "num_hidden_layers", 0))
    if layers > len(weights):
        raise CheckpointError(
            f"{folder}: the weights do not fit the model that {CONFIG_FILE} describes: {layers:,} layers, "
            f"but {len(weights):,} weights"
        )


def _read_facts(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(
            f"{path.parent}: expected a {CONFIG_FILE}, found none. This folder is no checkpoint, or saving it was "
            "interrupted: save it again"
        )
    if (size := path.stat().st_size) > _MOST_CONFIG_BYTES:
        raise CheckpointError(
            f"{path}: expected a JSON object of a few hundred bytes, got {size:,} bytes; this is no configuration"
        )
    try:
        facts: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: expected a JSON object, can't read one: {error}") from error
    if not isinstance(facts, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(facts).__name__}")
    if (number := _largest_number(facts)) > _MOST_IN_CONFIG:
        raise CheckpointError(f"{path}: expected sizes up to {_MOST_IN_CONFIG:,}, got {number:,}")
    return facts


def _largest_number(facts: Any) -> int:
    """The largest of the integers in a JSON value."""
    largest, left = 0, [facts]
    while left:
        value = left.pop()
        if isinstance(value, (dict, list)):
            left.extend(value.values() if isinstance(value, dict) else value)
        elif isinstance(value, int):
            largest = max(largest, abs(value))
    return largest
