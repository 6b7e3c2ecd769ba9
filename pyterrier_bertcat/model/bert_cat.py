"""BERT_Cat: a transformer encoder and one linear layer on its first token's vector.

Hofstätter et al. 2020, "Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge Distillation",
arXiv 2010.02666. Weight names are those of the authors' published class. No files are read or written here.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from typing import Any, TypeVar

import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel

from pyterrier_bertcat.errors import CheckpointError
from pyterrier_bertcat.model.config import BertCatConfig, encoder_facts, lasting_facts
from pyterrier_bertcat.model.families import family_of

_Model = TypeVar("_Model", bound="CrossEncoder")


class CrossEncoder(torch.nn.Module):
    """A network that scores pairs: an encoder, ``bert_model``, and a head that reads its first token's vector.

    Scoring, training and explanations work with any subclass. A subclass adds the head and says how its weights and
    its configuration look in a file.
    """

    bert_model: PreTrainedModel
    config: Any

    @property
    def uses_token_types(self) -> bool:
        """Whether the encoder tells the query from the text by ``token_type_ids`` (BERT, ELECTRA; not DistilBERT)."""
        config = self.bert_model.config
        return family_of(config).has_token_types and int(getattr(config, "type_vocab_size", 0) or 0) > 1

    @property
    def max_positions(self) -> int:
        """The largest number of tokens that a pair may have."""
        config = self.bert_model.config
        positions = int(getattr(config, "max_position_embeddings", 0) or 0)
        if positions <= 0:
            return sys.maxsize
        return positions - (int(config.pad_token_id) + 1 if family_of(config).counts_from_padding else 0)

    def cast_encoder(self: _Model, dtype: torch.dtype) -> _Model:
        """Casts the encoder in place to another floating-point type, and returns self. The head stays float32."""
        torch.nn.Module.to(self.bert_model, dtype=dtype)
        return self

    def encode(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Computes the first token's last hidden state: (batch, hidden), in the encoder's dtype.

        The arguments are those of `forward`.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None and self.uses_token_types:
            inputs["token_type_ids"] = token_type_ids
        hidden_states: torch.Tensor = self.bert_model(**inputs)[0]  # (batch, length, hidden)
        return hidden_states[:, 0]  # (batch, hidden)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Scores a padded batch of pairs.

        Args:
            input_ids: int64 (batch, length): ``[CLS] query [SEP] text [SEP]``, then padding.
            attention_mask: int64 (batch, length), 1 for tokens and 0 for padding.
            token_type_ids: int64 (batch, length), or None; ignored if the encoder takes none.
            labels: Ignored, so that a batch of `transformers.Trainer` can be passed as it is.

        Returns:
            float32 (batch,), higher is more relevant, not a probability.
        """
        return self.relevance(self.encode(input_ids, attention_mask, token_type_ids))

    @abstractmethod
    def relevance(self, first_token: torch.Tensor) -> torch.Tensor:
        """Scores encoded pairs: (batch, hidden) -> float32 (batch,)."""

    def published_weights(self) -> dict[str, torch.Tensor]:
        """Returns the weights by the names that they have in a file."""
        return dict(self.state_dict())

    @abstractmethod
    def file_config(self) -> dict[str, Any]:
        """Returns the content of ``config.json``."""


def float32_linear(layer: torch.nn.Linear, vectors: torch.Tensor) -> torch.Tensor:
    """Applies a linear layer in float32, whatever the dtypes and autocast say: (batch, in) -> float32 (batch, out).

    Scores rounded to half precision would tie: bfloat16 has only 128 numbers between 4 and 8.
    """
    bias = None if layer.bias is None else layer.bias.float()
    with torch.autocast(device_type=vectors.device.type, enabled=False):
        return torch.nn.functional.linear(vectors.float(), layer.weight.float(), bias)


class BertCatModel(CrossEncoder, PreTrainedModel):  # type: ignore[no-untyped-call]
    """The BERT_Cat cross-encoder; weights are named ``bert_model.*`` and ``_classification_layer.{weight,bias}``.

    The constructor gives it random weights. `load_checkpoint` reads trained ones, and `from_encoder` starts from a
    trained encoder.

    Example:
        >>> import torch
        >>> from transformers import DistilBertConfig
        >>> from pyterrier_bertcat import BertCatConfig, BertCatModel
        >>> encoder = DistilBertConfig(dim=32, hidden_dim=64, n_layers=2, n_heads=4)
        >>> model = BertCatModel(BertCatConfig.from_encoder_config(encoder)).eval()
        >>> ids = torch.tensor([[101, 7592, 102, 2088, 102], [101, 7592, 102, 102, 0]])
        >>> model(ids, attention_mask=(ids > 0).long()).shape
        torch.Size([2])
    """

    config_class = BertCatConfig
    base_model_prefix = "bert_model"
    # As in `build_and_fill`: old files hold the constant 0..511 as if it were a weight.
    _keys_to_ignore_on_load_unexpected = [r"embeddings\.position_ids$"]  # noqa: RUF012
    _supports_sdpa = True  # this class has no attention of its own: the encoder chooses

    def __init__(self, config: BertCatConfig) -> None:
        super().__init__(config)
        encoder_config = config.encoder_config
        if config.encoder is None:
            config.encoder = encoder_facts(encoder_config)  # so that what is saved needs no look-up
        self.bert_model = AutoModel.from_config(encoder_config)  # type: ignore[no-untyped-call]
        for parameter in self.bert_model.parameters():
            parameter.requires_grad = config.trainable
        self._classification_layer = torch.nn.Linear(encoder_config.hidden_size, 1)
        self.post_init()  # type: ignore[no-untyped-call]

    @classmethod
    def from_encoder(cls, encoder: PreTrainedModel, bert_model: str | None = None) -> BertCatModel:
        """Puts a fresh, untrained scoring layer on a trained encoder, for training.

        Args:
            encoder: As ``AutoModel`` loads it. It is not copied; its weights become float32.
            bert_model: The encoder's hub name, for the record.

        Returns:
            The model, in evaluation mode.

        Raises:
            CheckpointError: Its weights are not those of an encoder that ``AutoModel`` loads.
        """
        with torch.device("meta"):  # shapes only: the encoder is already there
            model = cls(BertCatConfig.from_encoder_config(encoder.config, bert_model))
        difference = sorted(model.bert_model.state_dict().keys() ^ encoder.state_dict().keys())
        if difference:
            raise CheckpointError(
                f"expected an encoder as AutoModel loads it ({type(model.bert_model).__name__}), "
                f"got {type(encoder).__name__}, which differs in {', '.join(difference[:5])}"
            )
        model.bert_model = encoder
        layer = torch.nn.Linear(encoder.config.hidden_size, 1)
        torch.nn.init.normal_(layer.weight, std=float(getattr(encoder.config, "initializer_range", 0.02)))
        torch.nn.init.zeros_(layer.bias)
        model._classification_layer = layer
        torch.nn.Module.float(model)
        model.train(False)
        return model

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Loads as ``transformers.PreTrainedModel.from_pretrained`` does, but refuses weights that don't fit exactly.

        Raises:
            CheckpointError: A weight is missing, unknown or of another shape; the message names it.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        loaded: Any = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        model, info = loaded
        kinds = ("missing", "unexpected", "mismatched")
        wrong = [f"{kind}: {name}" for kind in kinds for name in sorted(map(str, info[f"{kind}_keys"]))]
        if wrong:
            raise CheckpointError(
                f"the weights do not fit a BERT_Cat with this configuration: {'; '.join(wrong[:10])}. "
                "Check that both belong to the same checkpoint"
            )
        return (model, info) if wants_info else model

    def relevance(self, first_token: torch.Tensor) -> torch.Tensor:
        """Scores encoded pairs: (batch, hidden) -> float32 (batch,)."""
        return float32_linear(self._classification_layer, first_token).squeeze(-1)  # (batch,)

    def file_config(self) -> dict[str, Any]:
        """Returns the content of ``config.json``, which needs no other file and has the published architecture name."""
        facts = lasting_facts(self.config)
        if not self.config.known_scores:
            facts.pop("known_scores", None)
        return {"architectures": ["BERT_Cat"], "model_type": BertCatConfig.model_type, **facts}


AutoConfig.register(BertCatConfig.model_type, BertCatConfig, exist_ok=True)
AutoModel.register(BertCatConfig, BertCatModel, exist_ok=True)
