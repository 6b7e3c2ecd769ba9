"""The configuration of a BERT_Cat: which encoder, and facts about its weights.

Reads the 8-line ``config.json`` of the published checkpoint, which only names its encoder, and writes one that
holds the encoder's whole configuration, so that loading never needs a second download. Importing this needs no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public by its documentation
from transformers import AutoConfig, PretrainedConfig

from pyterrier_bertcat.errors import CheckpointError

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


class BertCatConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """Configuration of a `BertCatModel`; ``model_type`` and key names are those of the published checkpoint.

    Args:
        bert_model: Hub name of the encoder. If you pass ``encoder``, this is for information only.
        trainable: Whether the encoder's weights take gradients.
        encoder: The encoder's own configuration as a JSON object with its ``model_type``. None looks up ``bert_model``.
        known_scores: Scores that these weights are known to give, as objects with ``query``, ``text`` and ``score``.
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
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.bert_model = bert_model
        self.trainable = trainable
        self.encoder = encoder
        self.known_scores = known_scores

    @classmethod
    def from_encoder_config(cls, encoder_config: PretrainedConfig, bert_model: str | None = None) -> BertCatConfig:
        """Configure a BERT_Cat over an encoder.

        Args:
            encoder_config: The encoder's configuration.
            bert_model: The encoder's name. None takes the hub name that it was loaded by, or its model type.

        Returns:
            A self-contained configuration.
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


def encoder_facts(encoder_config: PretrainedConfig) -> dict[str, Any]:
    """Describe an encoder as a JSON object that does not say where it came from or how it was stored."""
    return {"model_type": encoder_config.model_type, **lasting_facts(encoder_config)}


def lasting_facts(config: PretrainedConfig) -> dict[str, Any]:
    """Describe a model as a JSON object that means the same on every machine and version of transformers."""
    facts: dict[str, Any] = config.to_diff_dict()
    return {key: value for key, value in facts.items() if not key.startswith("_") and key not in _FILE_FACTS}


def find_encoder_config(name: str) -> PretrainedConfig:
    """Find an encoder's configuration by its hub name: well-known ones without any network.

    Args:
        name: A hub name, such as ``distilbert-base-uncased``.

    Returns:
        The encoder's configuration; its weights are never downloaded.

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
