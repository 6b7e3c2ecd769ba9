"""Small real models: random weights, for the real uncased BERT vocabulary; and their scores by hand."""

from __future__ import annotations

import pandas as pd
import torch
import transformers

from pyterrier_bertcat.model.bert_cat import BertCatModel
from pyterrier_bertcat.model.checkpoint import Checkpoint
from pyterrier_bertcat.model.config import BertCatConfig


def tiny_encoder_config(kind: str = "distilbert") -> transformers.PretrainedConfig:
    """Two layers of 32 for the real vocabulary: ``distilbert``, ``bert`` or ``electra``."""
    if kind == "distilbert":
        return transformers.DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=64)
    classes = {"bert": transformers.BertConfig, "electra": transformers.ElectraConfig}
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    if kind == "electra":
        shape["embedding_size"] = 32
    return classes[kind](**shape)


def tiny_model(kind: str = "distilbert", *, seed: int = 0) -> BertCatModel:
    """A BERT_Cat with random weights, spread enough that different pairs get clearly different scores."""
    torch.manual_seed(seed)
    model = BertCatModel(BertCatConfig.from_encoder_config(tiny_encoder_config(kind)))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    return model.eval()


def scores_by_hand(checkpoint: Checkpoint, frame: pd.DataFrame) -> list[float]:
    """The published recipe, a pair at a time: the encoder, its first token, the linear layer."""
    model, scores = checkpoint.model, []
    for query, text in zip(frame["query"], frame["text"], strict=True):
        pair = checkpoint.tokenizer(query, text, truncation=True, max_length=512, return_tensors="pt")
        with torch.no_grad():
            hidden = model.bert_model(input_ids=pair["input_ids"], attention_mask=pair["attention_mask"])[0]
            scores.append(float(model._classification_layer(hidden[:, 0])))
    return scores
