"""The encoder as scoring needs it: no padding, and a last layer that is computed for the first tokens only.

A cross-encoder reads nothing but the first token of the last layer. That token attends to all tokens, so the last layer
needs everybody's key and value, but query, output projection and feed-forward of the first token alone. The result is
exactly that of the whole layer; of a six-layer encoder's arithmetic, 14 % is saved.

DistilBERT, BERT (MiniLM is one) and ELECTRA are the same network under different names, so a table of names is enough
to run them all. Training goes through the encoder's own forward pass, which is also the reference for this one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from transformers import BertModel, DistilBertModel, ElectraModel, PreTrainedModel

from pyterrier_bertcat.scoring.backends.attention import Attention
from pyterrier_bertcat.scoring.backends.fused_linear import Activation, FusedLinear


class Tokens(NamedTuple):
    """The tokens of a batch: packed, (tokens,), or padded, (batch, length). See `Attention`.

    Attributes:
        input_ids: int64.
        position_ids: int64, each token's place in its pair, from 0 on; (length,) is enough where the batch is padded.
        token_type_ids: int64, or None.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    token_type_ids: torch.Tensor | None

    @classmethod
    def of_padded(cls, input_ids: torch.Tensor, token_type_ids: torch.Tensor | None) -> Tokens:
        """Those of a padded batch: once or twice int64 (batch, length)."""
        return cls(input_ids, torch.arange(input_ids.shape[1], device=input_ids.device), token_type_ids)


class _Layer:
    """One transformer layer (Vaswani et al. 2017, normalised after each residual sum), by its parts."""

    def __init__(
        self,
        *,
        query: torch.nn.Linear,
        key: torch.nn.Linear,
        value: torch.nn.Linear,
        attention_output: torch.nn.Linear,
        attention_norm: torch.nn.LayerNorm,
        intermediate: torch.nn.Linear,
        activation: Activation,
        output: torch.nn.Linear,
        output_norm: torch.nn.LayerNorm,
        linear: type[FusedLinear],
    ) -> None:
        self._query, self._key, self._value = linear(query), linear(key), linear(value)
        self._attention_output, self._attention_norm = linear(attention_output), attention_norm
        self._intermediate = linear(intermediate, activation)
        self._output, self._output_norm = linear(output), output_norm

    def __call__(self, hidden: torch.Tensor, attention: Attention, heads: int) -> torch.Tensor:
        """All tokens: (tokens, hidden) or (batch, length, hidden) -> the same."""
        context = attention(self._query(hidden), self._key(hidden), self._value(hidden), heads)
        return self._after_attention(context, hidden)

    def of_first_tokens(self, hidden: torch.Tensor, attention: Attention, heads: int) -> torch.Tensor:
        """First tokens only: (tokens, hidden) or (batch, length, hidden) -> (batch, hidden)."""
        first = attention.first_tokens(hidden)  # (batch, hidden)
        context = attention.of_first_tokens(self._query(first), self._key(hidden), self._value(hidden), heads)
        return self._after_attention(context, first)

    def _after_attention(self, context: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        hidden = self._attention_norm(self._attention_output.plus(context, hidden))
        output: torch.Tensor = self._output_norm(self._output.plus(self._intermediate(hidden), hidden))
        return output


class FirstTokenPath:
    """An encoder's way from tokens to the first token's last hidden state."""

    def __init__(self, encoder: PreTrainedModel, *, linear: type[FusedLinear] = FusedLinear) -> None:
        """Takes the encoder's modules.

        Args:
            encoder: In evaluation mode; one for which `has_first_token_path` holds.
            linear: How its linear layers are computed. With some classes this is a copy of the weights, which later
                changes of the encoder don't reach.
        """
        self._encoder: Any = encoder
        self._heads = int(encoder.config.num_attention_heads)
        *self._layers, self._last = _LAYERS[type(encoder)](encoder, linear)

    def __call__(self, tokens: Tokens, attention: Attention) -> torch.Tensor:
        """Encodes a batch.

        Args:
            tokens: The batch; its token types are left out where the encoder has none.
            attention: Keeps its pairs apart.

        Returns:
            (batch, hidden), in the encoder's dtype.
        """
        hidden = _embedded(self._encoder, tokens)  # (tokens, hidden) or (batch, length, hidden)
        for layer in self._layers:
            hidden = layer(hidden, attention, self._heads)
        return self._last.of_first_tokens(hidden, attention, self._heads)


def has_first_token_path(encoder: PreTrainedModel) -> bool:
    """Whether `FirstTokenPath` knows this encoder; it must be of the class itself, a subclass may do otherwise."""
    absolute = getattr(encoder.config, "position_embedding_type", None) in (None, "absolute")
    return type(encoder) in _LAYERS and absolute and not getattr(encoder.config, "is_decoder", False)


def _embedded(encoder: Any, tokens: Tokens) -> torch.Tensor:
    """Embeddings: ids (...) -> (..., hidden)."""
    embeddings = encoder.embeddings
    hidden: torch.Tensor = embeddings.word_embeddings(tokens.input_ids) + embeddings.position_embeddings(
        tokens.position_ids
    )
    if hasattr(embeddings, "token_type_embeddings"):
        types = torch.zeros_like(tokens.input_ids) if tokens.token_type_ids is None else tokens.token_type_ids
        hidden += embeddings.token_type_embeddings(types)
    hidden = embeddings.LayerNorm(hidden)
    if hasattr(encoder, "embeddings_project"):  # ELECTRA's embeddings may be narrower than its layers
        hidden = encoder.embeddings_project(hidden)
    return hidden


def _distilbert_layers(encoder: Any, linear: type[FusedLinear]) -> list[_Layer]:
    return [
        _Layer(
            query=layer.attention.q_lin,
            key=layer.attention.k_lin,
            value=layer.attention.v_lin,
            attention_output=layer.attention.out_lin,
            attention_norm=layer.sa_layer_norm,
            intermediate=layer.ffn.lin1,
            activation=layer.ffn.activation,
            output=layer.ffn.lin2,
            output_norm=layer.output_layer_norm,
            linear=linear,
        )
        for layer in encoder.transformer.layer
    ]


def _bert_layers(encoder: Any, linear: type[FusedLinear]) -> list[_Layer]:
    return [
        _Layer(
            query=layer.attention.self.query,
            key=layer.attention.self.key,
            value=layer.attention.self.value,
            attention_output=layer.attention.output.dense,
            attention_norm=layer.attention.output.LayerNorm,
            intermediate=layer.intermediate.dense,
            activation=layer.intermediate.intermediate_act_fn,
            output=layer.output.dense,
            output_norm=layer.output.LayerNorm,
            linear=linear,
        )
        for layer in encoder.encoder.layer
    ]


_LAYERS: dict[type[Any], Callable[[Any, type[FusedLinear]], list[_Layer]]] = {
    DistilBertModel: _distilbert_layers,
    BertModel: _bert_layers,
    ElectraModel: _bert_layers,
}
