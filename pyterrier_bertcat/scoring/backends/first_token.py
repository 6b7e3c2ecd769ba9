"""Runs an encoder as scoring needs it: without padding, and with a last layer for the first tokens only.

A cross-encoder reads only the first token of the last layer. That token attends to all tokens, so the last layer needs
all keys and values, but the query, output projection and feed-forward network of the first token alone. The result is
exactly that of the whole layer, and a six-layer encoder saves 14 % of its arithmetic.

DistilBERT, BERT (with MiniLM) and ELECTRA are the same network under different names, which `families` lists. Training
uses the encoder's own forward pass, which is also the reference for this one.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any, NamedTuple

import torch
import transformers
from transformers import PreTrainedModel

from pyterrier_bertcat.model.families import LayerParts, family_of
from pyterrier_bertcat.scoring.backends.attention import Attention
from pyterrier_bertcat.scoring.backends.fused_linear import FusedLinear


class Tokens(NamedTuple):
    """The tokens of a batch: packed, (tokens,), or padded, (batch, length). See `Attention`.

    Attributes:
        input_ids: int64.
        position_ids: int64, each token's place in its pair, from 0; (length,) is enough if the batch is padded.
        token_type_ids: int64, or None.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    token_type_ids: torch.Tensor | None

    @classmethod
    def of_padded(cls, input_ids: torch.Tensor, token_type_ids: torch.Tensor | None) -> Tokens:
        """The tokens of a padded batch, from int64 (batch, length)."""
        return cls(input_ids, torch.arange(input_ids.shape[1], device=input_ids.device), token_type_ids)


class _Layer:
    """One transformer layer (Vaswani et al. 2017), normalised after each residual sum."""

    def __init__(self, layer: torch.nn.Module, parts: LayerParts, linear: type[FusedLinear]) -> None:
        def part(name: str) -> Any:
            return attrgetter(name)(layer)

        self._query, self._key, self._value = (linear(part(name)) for name in (parts.query, parts.key, parts.value))
        self._attention_output, self._attention_norm = linear(part(parts.attention_output)), part(parts.attention_norm)
        self._intermediate = linear(part(parts.intermediate), part(parts.activation))
        self._output, self._output_norm = linear(part(parts.output)), part(parts.output_norm)

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
    """Computes an encoder's last hidden state of the first token."""

    def __init__(self, encoder: PreTrainedModel, *, linear: type[FusedLinear] = FusedLinear) -> None:
        """Takes the encoder's modules.

        Args:
            encoder: In evaluation mode, with a first-token path (see `has_first_token_path`).
            linear: Computes the linear layers. Some classes copy the weights and miss later changes to the encoder.
        """
        self._encoder: Any = encoder
        self._heads = int(encoder.config.num_attention_heads)
        parts = family_of(encoder.config).layers
        if parts is None:
            raise TypeError(f"expected an encoder with a first-token path, got {type(encoder).__name__}")
        *self._layers, self._last = (_Layer(layer, parts, linear) for layer in attrgetter(parts.layers)(encoder))

    def __call__(self, tokens: Tokens, attention: Attention) -> torch.Tensor:
        """Encodes a batch: (batch, hidden), in the encoder's dtype; ``attention`` keeps its pairs apart."""
        hidden = _embedded(self._encoder, tokens)  # (tokens, hidden) or (batch, length, hidden)
        for layer in self._layers:
            hidden = layer(hidden, attention, self._heads)
        return self._last.of_first_tokens(hidden, attention, self._heads)


def has_first_token_path(encoder: PreTrainedModel) -> bool:
    """Whether `FirstTokenPath` can run this encoder. A subclass may compute something else, so the class must match."""
    config, family = encoder.config, family_of(encoder.config)
    if family.layers is None or type(encoder) is not getattr(transformers, family.encoder, None):
        return False
    absolute = getattr(config, "position_embedding_type", None) in (None, "absolute")
    return absolute and not getattr(config, "is_decoder", False)


def head_size(encoder: PreTrainedModel) -> int:
    """Numbers of one attention head."""
    return int(encoder.config.hidden_size) // int(encoder.config.num_attention_heads)


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
