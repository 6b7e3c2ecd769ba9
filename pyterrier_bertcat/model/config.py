"""The configuration of a BERT_Cat, and how a checkpoint's ``config.json`` is read. Importing this needs no torch.

The 8-line file of the published checkpoint only names its encoder. Those that this package writes hold the encoder's
whole configuration, so that loading never needs a second download. A file may come from anybody, so its sizes are
checked before anything is built.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public by its documentation
from transformers import AutoConfig, PretrainedConfig

from pyterrier_bertcat.errors import CheckpointError
from pyterrier_bertcat.model.families import classifier_types

CONFIG_FILE = "config.json"
DEFAULT_ENCODER = "distilbert-base-uncased"

_BERT_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
_MINILM_L12 = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 1536}
_MINILM_L6 = {**_MINILM_L12, "num_hidden_layers": 6}
_ELECTRA_BASE = {"embedding_size": 768, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}

# Encoders known by name: model type, and where they differ from that type's defaults. All have the 30,522-piece
# uncased vocabulary. The names are those on the hub, both before and after it gave every model an owner.
_KNOWN_ENCODERS: dict[str, tuple[str, dict[str, int]]] = {
    "distilbert-base-uncased": ("distilbert", {}),
    "distilbert/distilbert-base-uncased": ("distilbert", {}),
    "bert-base-uncased": ("bert", {}),
    "google-bert/bert-base-uncased": ("bert", {}),
    "bert-large-uncased": ("bert", _BERT_LARGE),
    "google-bert/bert-large-uncased": ("bert", _BERT_LARGE),
    "google/electra-small-discriminator": ("electra", {}),
    "google/electra-base-discriminator": ("electra", _ELECTRA_BASE),
    "microsoft/MiniLM-L12-H384-uncased": ("bert", _MINILM_L12),
    "nreimers/MiniLM-L6-H384-uncased": ("bert", _MINILM_L6),
    "sentence-transformers/all-MiniLM-L6-v2": ("bert", _MINILM_L6),
}

# How weights were stored: a fact about a file, not about the model.
_FILE_FACTS = ("architectures", "dtype", "torch_dtype", "transformers_version")

# Configuration classes make lists and dictionaries as long as the file says. The largest usual number is the size of a
# vocabulary: 250,002 for multilingual encoders.
_MOST_IN_CONFIG = 2_000_000
_MOST_CONFIG_BYTES = 4_000_000


class BertCatConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """Configuration of a `BertCatModel`; ``model_type`` and key names are those of the published checkpoint.

    Args:
        bert_model: Hub name of the encoder. If you pass ``encoder``, this is for information only.
        trainable: Whether the encoder's weights take gradients.
        encoder: The encoder's own configuration as a JSON object with its ``model_type``. None looks up ``bert_model``.
        known_scores: Scores that these weights are known to give, as objects with ``query``, ``text`` and ``score``.
        trained_max_length: How many tokens of a pair the model was trained to read; see `Checkpoint.stated_max_length`.
        **kwargs: As for every Hugging Face configuration.

    Example:
        >>> from pyterrier_bertcat import BertCatConfig
        >>> config = BertCatConfig("bert-base-uncased")  # known by name: nothing is downloaded
        >>> config.encoder_config.num_hidden_layers, config.hidden_size
        (12, 768)
    """

    model_type = "BERT_Cat"

    def __init__(
        self,
        bert_model: str = DEFAULT_ENCODER,
        trainable: bool = True,
        encoder: dict[str, Any] | None = None,
        known_scores: list[dict[str, Any]] | None = None,
        trained_max_length: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.bert_model = bert_model
        self.trainable = trainable
        self.encoder = encoder
        self.known_scores = known_scores
        self.trained_max_length = trained_max_length

    @classmethod
    def from_encoder_config(cls, encoder_config: PretrainedConfig, bert_model: str | None = None) -> BertCatConfig:
        """Configures a BERT_Cat over an encoder, so that loading it needs no look-up.

        Args:
            encoder_config: The encoder's configuration.
            bert_model: The encoder's name. None takes the hub name that it was loaded by, or its model type.
        """
        loaded_by = str(encoder_config.name_or_path or "")
        if Path(loaded_by).exists():  # a folder on this machine says nothing to anybody else
            loaded_by = ""
        return cls(
            bert_model=bert_model or loaded_by or encoder_config.model_type, encoder=encoder_facts(encoder_config)
        )

    @property
    def encoder_config(self) -> PretrainedConfig:
        """The encoder's configuration, a new object each time.

        Raises:
            CheckpointError: The encoder's type or name is unknown.
        """
        if self.encoder is None:
            return find_encoder_config(self.bert_model)
        facts = dict(self.encoder)
        model_type = facts.pop("model_type", None)
        try:
            config: PretrainedConfig = AutoConfig.for_model(model_type, **facts)
        except Exception as error:  # every configuration class checks itself in its own way
            raise CheckpointError(
                f"expected under 'encoder' the configuration of an encoder that transformers knows, "
                f"got model_type={model_type!r}; a newer transformers may know it. ({error})"
            ) from error
        return config

    @property
    def hidden_size(self) -> int:
        """The width of the encoder's vectors."""
        return int(self.encoder_config.hidden_size)


def read_config(folder: Path) -> PretrainedConfig:
    """Reads the configuration in a checkpoint's folder: a `BertCatConfig`, or that of a sequence classifier.

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
    """Finds the largest integer in a JSON value."""
    largest, left = 0, [facts]
    while left:
        value = left.pop()
        if isinstance(value, (dict, list)):
            left.extend(value.values() if isinstance(value, dict) else value)
        elif isinstance(value, int):
            largest = max(largest, abs(value))
    return largest


def encoder_facts(encoder_config: PretrainedConfig) -> dict[str, Any]:
    """Describes an encoder as a JSON object that does not say where it came from or how it was stored."""
    return {"model_type": encoder_config.model_type, **lasting_facts(encoder_config)}


def lasting_facts(config: PretrainedConfig) -> dict[str, Any]:
    """Describes a model as a JSON object that means the same on every machine and version of transformers."""
    facts: dict[str, Any] = config.to_diff_dict()
    return {key: value for key, value in facts.items() if not key.startswith("_") and key not in _FILE_FACTS}


def find_encoder_config(name: str) -> PretrainedConfig:
    """Finds an encoder's configuration, never its weights, by its hub name: a well-known one without any network.

    Raises:
        CheckpointError: The name is not a hub name or is also a local path, or neither the hub nor its cache has it.
    """
    if name in _KNOWN_ENCODERS:
        model_type, differences = _KNOWN_ENCODERS[name]
        known: PretrainedConfig = AutoConfig.for_model(model_type, **differences)
        return known
    try:
        validate_repo_id(name)  # never a path: a config file must not point into this machine
        if Path(name).exists():
            raise ValueError("it is also a file or folder here, which would be read instead of the hub's")
        found: PretrainedConfig = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (HFValidationError, OSError, ValueError) as error:
        raise CheckpointError(
            f"the encoder {name!r} is not among the well-known ones, and was not found on the Hugging Face hub or in "
            f"its cache. Put the encoder's own config.json under the key 'encoder' of the checkpoint's config.json, "
            f"or connect to the hub once. ({type(error).__name__}: {error})"
        ) from error
    return found
