"""Plain cross-encoders: Hugging Face sequence classifiers with one logit, behind the methods of `CrossEncoder`.

All of them have the same head: a square layer on the first token's vector, an activation, and one linear layer. What
they call its parts is in `families`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoModel, PretrainedConfig

from pyterrier_bertcat.errors import CheckpointError
from pyterrier_bertcat.model.bert_cat import CrossEncoder, float32_linear
from pyterrier_bertcat.model.config import encoder_facts
from pyterrier_bertcat.model.families import Head, classifier_types, family_of


class SequenceClassificationModel(CrossEncoder):
    """A one-logit sequence classifier of Hugging Face, as a cross-encoder; scores are its raw logits."""

    def __init__(self, config: PretrainedConfig) -> None:
        """Builds the classifier with random weights.

        Raises:
            CheckpointError: It has more than one logit, or its family is not in `families`.
        """
        super().__init__()
        if config.num_labels != 1:
            raise CheckpointError(
                f"config.json: expected a classifier with one logit, got one with {config.num_labels}; "
                "nothing says which of them is relevance. Use a checkpoint that was trained with num_labels=1"
            )
        self.config = config
        self._head = _head_of(config)
        options = {"add_pooling_layer": False} if family_of(config).has_pooler else {}
        self.bert_model = AutoModel.from_config(config, **options)  # type: ignore[no-untyped-call]
        self.dense = torch.nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = torch.nn.Dropout(_dropout(config))
        self.output = torch.nn.Linear(config.hidden_size, 1)

    @staticmethod
    def internal_names(config: PretrainedConfig, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Renames a file's weights to this class's names; the loader refuses those that are still unknown."""
        return _rename(weights, [(old, new) for new, old in _names(_head_of(config))])

    def relevance(self, first_token: torch.Tensor) -> torch.Tensor:
        """Scores encoded pairs: (batch, hidden) -> float32 (batch,)."""
        activation = getattr(torch.nn.functional, self._head.activation)
        features = activation(float32_linear(self.dense, first_token))  # (batch, hidden)
        return float32_linear(self.output, self.dropout(features)).squeeze(-1)  # (batch,)

    def published_weights(self) -> dict[str, torch.Tensor]:
        """Returns the weights by the names that they have in Hugging Face's class."""
        return _rename(self.state_dict(), _names(self._head))

    def file_config(self) -> dict[str, Any]:
        """Returns the content of ``config.json``."""
        return {"architectures": [self._head.architecture], **encoder_facts(self.config)}


def _head_of(config: PretrainedConfig) -> Head:
    head = family_of(config).head
    if head is None:
        raise CheckpointError(
            f"config.json: expected a sequence classifier of type {', '.join(classifier_types())}, "
            f"got {config.model_type!r}"
        )
    return head


def _names(head: Head) -> list[tuple[str, str]]:
    """Prefixes in this class and in a file; of nested ones, the longer comes first."""
    return [("dense.", f"{head.dense}."), ("output.", f"{head.output}."), ("bert_model.", f"{head.encoder}.")]


def _rename(weights: Mapping[str, torch.Tensor], prefixes: list[tuple[str, str]]) -> dict[str, torch.Tensor]:
    renamed = {}
    for name, tensor in weights.items():
        old, new = next((pair for pair in prefixes if name.startswith(pair[0])), ("", ""))
        renamed[new + name[len(old) :]] = tensor
    return renamed


def _dropout(config: PretrainedConfig) -> float:
    """The head's dropout rate in training; each family has its own name for it."""
    names = ("classifier_dropout", "seq_classif_dropout", "hidden_dropout_prob")
    values = (getattr(config, name, None) for name in names)
    return float(next((value for value in values if value is not None), 0.0))
