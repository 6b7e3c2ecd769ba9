"""Plain cross-encoders: Hugging Face sequence classifiers with one logit, behind the methods of `BertCatModel`.

All kinds supported here are the same shape: the first token's vector, a square layer, an activation, and one
linear layer. They differ in names, so a table of names is all that is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from transformers import AutoModel, PretrainedConfig

from pyterrier_bertcat.errors import CheckpointError
from pyterrier_bertcat.model.bert_cat import FirstTokenEncoder, float32_linear
from pyterrier_bertcat.model.config import encoder_facts


class _Kind(NamedTuple):
    """How one kind of sequence classifier names its parts, and what stands between its two last layers."""

    architecture: str
    encoder: str
    dense: str
    output: str
    activation: Callable[[torch.Tensor], torch.Tensor]
    has_pooler_option: bool = True


_KINDS: dict[str, _Kind] = {
    # BERT's dense layer counts as part of its encoder ("pooler"); MiniLM is BERT.
    "bert": _Kind("BertForSequenceClassification", "bert", "bert.pooler.dense", "classifier", torch.tanh),
    "distilbert": _Kind(
        "DistilBertForSequenceClassification", "distilbert", "pre_classifier", "classifier", torch.relu, False
    ),
    "electra": _Kind(
        "ElectraForSequenceClassification",
        "electra",
        "classifier.dense",
        "classifier.out_proj",
        torch.nn.functional.gelu,
        False,
    ),
    "roberta": _Kind(
        "RobertaForSequenceClassification", "roberta", "classifier.dense", "classifier.out_proj", torch.tanh
    ),
    "xlm-roberta": _Kind(
        "XLMRobertaForSequenceClassification", "roberta", "classifier.dense", "classifier.out_proj", torch.tanh
    ),
}


class SequenceClassificationModel(FirstTokenEncoder):
    """A one-logit sequence classifier of Hugging Face, as a cross-encoder; scores are its raw logits."""

    def __init__(self, config: PretrainedConfig) -> None:
        """Build with random weights.

        Args:
            config: The classifier's configuration.

        Raises:
            CheckpointError: It has more than one logit, or is of an unknown kind.
        """
        super().__init__()
        if config.num_labels != 1:
            raise CheckpointError(
                f"config.json: expected a classifier with one logit, got one with {config.num_labels}; "
                "which of them is relevance can't be known"
            )
        self.config = config
        kind = self._kind
        options = {"add_pooling_layer": False} if kind.has_pooler_option else {}
        self.bert_model = AutoModel.from_config(config, **options)  # type: ignore[no-untyped-call]
        self.dense = torch.nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = torch.nn.Dropout(_dropout(config))
        self.output = torch.nn.Linear(config.hidden_size, 1)

    @property
    def _kind(self) -> _Kind:
        return _KINDS[self.config.model_type]

    @staticmethod
    def model_types() -> tuple[str, ...]:
        """Give the ``model_type`` of each supported kind."""
        return tuple(_KINDS)

    @staticmethod
    def internal_names(config: PretrainedConfig, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Rename a file's weights to this class's names; unknown names stay, for the loader to complain about."""
        return _rename(weights, [(old, new) for new, old in _names(_KINDS[config.model_type])])

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Score a padded batch of pairs; arguments and result are those of `BertCatModel.forward`."""
        return self.relevance(self.encode(input_ids, attention_mask, token_type_ids))

    def relevance(self, first_token: torch.Tensor) -> torch.Tensor:
        """Give the score of each vector: (batch, hidden) -> float32 (batch,)."""
        features = self._kind.activation(float32_linear(self.dense, first_token))  # (batch, hidden)
        return float32_linear(self.output, self.dropout(features)).squeeze(-1)  # (batch,)

    def published_weights(self) -> dict[str, torch.Tensor]:
        """Give the weights by the names that Hugging Face's class has for them."""
        return _rename(self.state_dict(), _names(self._kind))

    def file_config(self) -> dict[str, Any]:
        """Give what belongs into ``config.json``."""
        return {"architectures": [self._kind.architecture], **encoder_facts(self.config)}


def _names(kind: _Kind) -> list[tuple[str, str]]:
    """Prefixes here and in a file, the longer of two nested ones first."""
    return [("dense.", f"{kind.dense}."), ("output.", f"{kind.output}."), ("bert_model.", f"{kind.encoder}.")]


def _rename(weights: Mapping[str, torch.Tensor], prefixes: list[tuple[str, str]]) -> dict[str, torch.Tensor]:
    renamed = {}
    for name, tensor in weights.items():
        old, new = next((pair for pair in prefixes if name.startswith(pair[0])), ("", ""))
        renamed[new + name[len(old) :]] = tensor
    return renamed


def _dropout(config: PretrainedConfig) -> float:
    """How much of the features training drops, under whichever name this kind has for it."""
    names = ("classifier_dropout", "seq_classif_dropout", "hidden_dropout_prob")
    values = (getattr(config, name, None) for name in names)
    return float(next((value for value in values if value is not None), 0.0))
