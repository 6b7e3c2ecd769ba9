"""A checkpoint with random weights and a real vocabulary: for what is measured but time and effectiveness."""

from __future__ import annotations

import torch
from transformers import DistilBertConfig

from pyterrier_bertcat.model.bert_cat import BertCatModel
from pyterrier_bertcat.model.checkpoint import Checkpoint, load_checkpoint
from pyterrier_bertcat.model.config import BertCatConfig


def tiny_checkpoint() -> Checkpoint:
    """Two layers of 32 with the packaged checkpoint's tokenizer; different pairs get clearly different scores."""
    tokenizer = load_checkpoint("mini").tokenizer
    torch.manual_seed(0)
    encoder = DistilBertConfig(vocab_size=len(tokenizer), dim=32, n_layers=2, n_heads=4, hidden_dim=64)
    model = BertCatModel(BertCatConfig.from_encoder_config(encoder))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    return Checkpoint(model=model.eval(), tokenizer=tokenizer)
