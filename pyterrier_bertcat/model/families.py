"""Families of encoders: what differs between BERT, DistilBERT, ELECTRA and RoBERTa, one record each.

A family is added with an entry in `FAMILIES` and its name in the lists of ``tests/model/test_families.py``. All of
them describe a text pair by the first token's vector. A family that pools otherwise, or that has other parts in its
head, needs a new field here and the few lines in `classifier` that read it. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PretrainedConfig


@dataclass(frozen=True)
class LayerParts:
    """Where an encoder keeps its layers, and each layer its parts, as dotted attribute names.

    This is for encoders that compute what BERT computes: sums of word, position and token type embeddings, then layers
    of self-attention and a feed-forward network, each normalised after its residual sum.
    """

    layers: str
    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    intermediate: str
    activation: str
    output: str
    output_norm: str


@dataclass(frozen=True)
class Head:
    """How a family's sequence classifier turns the first token's vector into logits.

    Attributes:
        architecture: Hugging Face's class.
        encoder: The encoder's name in that class.
        dense: The name of the square linear layer.
        activation: What follows it: the name of a function in ``torch.nn.functional``.
        output: The name of the last linear layer.
    """

    architecture: str
    encoder: str
    dense: str
    activation: str
    output: str


@dataclass(frozen=True)
class Family:
    """What this package has to know about a family of encoders; the defaults are for one that it does not know.

    Attributes:
        head: Its sequence classifier, or None if its classifiers can't be loaded.
        layers: The parts that scoring needs to compute the last layer for the first token only, or None to run the
            whole encoder.
        encoder: The class of transformers that has these parts.
        has_pooler: Whether the encoder has a pooling layer that ``add_pooling_layer=False`` leaves out.
        has_token_types: Whether the encoder takes ``token_type_ids``, if its configuration has more than one type.
        counts_from_padding: Whether positions are counted from the padding id plus one, so that a pair may have that
            many fewer tokens than there are positions.
        wordpiece_tokenizer: The tokenizer class that needs no more than ``vocab.txt``, or None to leave the choice to
            ``AutoTokenizer``.
    """

    head: Head | None = None
    layers: LayerParts | None = None
    encoder: str = ""
    has_pooler: bool = False
    has_token_types: bool = True
    counts_from_padding: bool = False
    wordpiece_tokenizer: str | None = None


_BERT_LAYERS = LayerParts(
    layers="encoder.layer",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    intermediate="intermediate.dense",
    activation="intermediate.intermediate_act_fn",
    output="output.dense",
    output_norm="output.LayerNorm",
)
_DISTILBERT_LAYERS = LayerParts(
    layers="transformer.layer",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    attention_output="attention.out_lin",
    attention_norm="sa_layer_norm",
    intermediate="ffn.lin1",
    activation="ffn.activation",
    output="ffn.lin2",
    output_norm="output_layer_norm",
)

FAMILIES: dict[str, Family] = {  # by model_type
    "bert": Family(  # MiniLM too; the head's dense layer counts as part of the encoder, as its "pooler"
        head=Head("BertForSequenceClassification", "bert", "bert.pooler.dense", "tanh", "classifier"),
        layers=_BERT_LAYERS,
        encoder="BertModel",
        has_pooler=True,
        wordpiece_tokenizer="BertTokenizerFast",
    ),
    "distilbert": Family(
        head=Head("DistilBertForSequenceClassification", "distilbert", "pre_classifier", "relu", "classifier"),
        layers=_DISTILBERT_LAYERS,
        encoder="DistilBertModel",
        has_token_types=False,
        wordpiece_tokenizer="DistilBertTokenizerFast",
    ),
    "electra": Family(
        head=Head("ElectraForSequenceClassification", "electra", "classifier.dense", "gelu", "classifier.out_proj"),
        layers=_BERT_LAYERS,
        encoder="ElectraModel",
        wordpiece_tokenizer="ElectraTokenizerFast",
    ),
    "roberta": Family(
        head=Head("RobertaForSequenceClassification", "roberta", "classifier.dense", "tanh", "classifier.out_proj"),
        has_pooler=True,
        counts_from_padding=True,
    ),
    "xlm-roberta": Family(
        head=Head("XLMRobertaForSequenceClassification", "roberta", "classifier.dense", "tanh", "classifier.out_proj"),
        has_pooler=True,
        counts_from_padding=True,
    ),
}


def family_of(config: PretrainedConfig) -> Family:
    """Looks up an encoder's family by its configuration; a family that is not known here gets the defaults."""
    return FAMILIES.get(config.model_type, Family())


def classifier_types() -> tuple[str, ...]:
    """Each ``model_type`` whose sequence classifiers can be loaded."""
    return tuple(name for name, family in FAMILIES.items() if family.head is not None)
